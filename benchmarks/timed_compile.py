"""Compiles in a process of its own, each phase timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PHASES = {"convert": "2", "map": "3", "generate": "4", "write_manifest": "verify"}

_COMPILE = """
import json, sys, time
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.backend.phases import Phases
from hyperdex_ir.backend.ram_ceiling import peak_bytes
seconds = {}
def timed(name, phase):
    method = getattr(Phases, name)
    def run(self):
        start = time.perf_counter()
        method(self)
        seconds[phase] = time.perf_counter() - start
    setattr(Phases, name, run)
for name, phase in json.loads(sys.argv[3]).items():
    timed(name, phase)
AutoCompiler().compile(sys.argv[1], output_dir=sys.argv[2], max_ram=json.loads(sys.argv[4]))
print(json.dumps({"seconds": seconds, "peak": peak_bytes(), "modules": sorted(sys.modules)}))
"""


def timed_compile(model: Path, folder: Path, *, max_ram: str | None = None, before: str = "") -> dict[str, Any]:
    """Compiles the checkpoint in `model` into `folder`; ends this program when that fails.

    before: Python that the process runs first. seconds: of the phases that were not left out. whole: seconds of the
    process. peak: bytes. modules: what it has imported. Nothing is taken over from other models.
    """
    arguments = [os.fspath(model), os.fspath(folder), json.dumps(PHASES), json.dumps(max_ram)]
    with tempfile.TemporaryDirectory() as home:
        start = time.perf_counter()
        result = run_python(before + _COMPILE, *arguments, HYPERDEX_HOME=home)
        return result | {"whole": time.perf_counter() - start}


def run_python(code: str, *arguments: str, text: str = "", **environment: str) -> dict[str, Any]:
    """The JSON object on the last line that a new process prints; ends this program when it fails."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, input=text, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])
