"""Reproducer of a failing pass: the IR before it, the command that fails in the same way, versions."""

from __future__ import annotations

import json
import os
import platform
import shlex
import traceback
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.passes.pipeline_text import is_of_files, parse_pipeline, pass_text, typed_pipeline
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.own_code import versions
from hyperdex_ir.support.xdsl import print_module

FOLDER = "repro"
_COMMAND = "hyperdex-opt before.mlir --no-repro"
#: Behind a pipeline that is typed, which may be the path of a file: no path of a file ends so.
_NO_PATH = " //"
_NO_COMMAND = "# No text makes this pass with its options, so there is no command.\n"
_NOTE = """\
# The IR and the options of the pass may come from files of a model. With --own-passes, hyperdex-opt starts no program
# and opens no other file, whatever they say.
"""


def write_reproducer(folder: Path, before: ModuleOp, one: ModulePass, error: HyperdexError) -> None:
    """Writes before.mlir, command.txt, versions.json and error.txt, and makes their place the hint of the error.

    command.txt is to be run in the folder: `sh command.txt`. It can do no more than the pass that has failed: its text
    is read back and must make this pass alone, and a pass that any file may name is run with --own-passes. error.txt
    has the error and, when the pass raised an exception of Python, its traceback.
    """
    lines = [f"{error} [{error.code}]", *error.notes]
    if error.__cause__ is not None:
        lines += ["", *"".join(traceback.format_exception(error.__cause__)).splitlines()]
    texts = {
        "before.mlir": print_module(before, locations=True),
        "command.txt": _command(one),
        "versions.json": json.dumps({**versions(), "python": platform.python_version()}, indent=2) + "\n",
        "error.txt": "\n".join(lines) + "\n",
    }
    place = Path(os.path.abspath(folder))
    try:
        for name, text in texts.items():
            write_text(place / name, text, place.parent)  # the folder of a model may hold a link of this name
    except (HyperdexError, OSError) as refused:
        hint = f"what reproduces it could not be written: {refused}"
    else:
        command = "" if texts["command.txt"] == _NO_COMMAND else ": run `sh command.txt` there"
        hint = f"what reproduces it is in {folder}{command}"
    error.hint = f"{error.hint}; {hint}" if error.hint else hint


def _command(one: ModulePass) -> str:
    text = pass_text(one)
    if is_of_files(one):
        read, head = parse_pipeline, f"{_NOTE}{_COMMAND} --own-passes"
    else:
        read, head, text = typed_pipeline, _COMMAND, text + _NO_PATH
    try:
        same = read(text) == [one]
    except HyperdexError:
        same = False
    return f"{head} --pipeline {shlex.quote(text)}\n" if same else _NO_COMMAND
