"""A format for lit that starts no Python for `hyperdex-opt` and `filecheck`: both run in forks of lit's own process.

Starting Python and importing xDSL takes most of a test's time. RUN lines of anything else are run as by ShTest.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

import lit.formats
from filecheck.main import main as filecheck
from lit import Test, TestRunner
from lit.ShUtil import Command, Pipeline, ShParser

from hyperdex_ir.cli import opt  # noqa: F401  what the command imports is there in each fork
from hyperdex_ir.cli.start import hyperdex_opt
from hyperdex_ir.passes import get_all_passes

for load in get_all_passes().values():
    load()

_COMMANDS: dict[str, Callable[[], object]] = {"hyperdex-opt": hyperdex_opt, "filecheck": filecheck}
_STDERR_TO_STDOUT = ((">&", 2), "1")


class ForkedTest(lit.formats.ShTest):
    """ShTest for pipelines of commands that can be forked."""

    def execute(self, test: Test.Test, litConfig: object) -> Test.Result:
        script = TestRunner.parseIntegratedTestScript(test)
        if isinstance(script, Test.Result):
            return script
        folder, base = TestRunner.getTempPaths(test)
        substitutions = TestRunner.getDefaultSubstitutions(test, folder, base)
        lines = TestRunner.applySubstitutions(
            script, substitutions, recursion_limit=test.config.recursiveExpansionLimit
        )
        pipelines = [_pipeline(re.sub(TestRunner.kPdbgRegex, r"\2", line)) for line in lines]
        if not os.path.exists(folder):
            os.makedirs(folder, exist_ok=True)
        for pipeline in pipelines:
            if pipeline is None:
                return super().execute(test, litConfig)
            failed = _run(pipeline, os.path.dirname(test.getExecPath()))
            if failed:
                return Test.Result(Test.FAIL, failed)
        return Test.Result(Test.PASS, "")


def _pipeline(line: str) -> list[tuple[Command, bool]] | None:
    """The commands of a line, and for each whether it is to fail; None when one of them cannot be forked."""
    parsed = ShParser(line, False, True).parse()
    if not isinstance(parsed, Pipeline):
        return None
    commands = []
    for command in parsed.commands:
        fails = command.args[0] == "not"
        command = Command(command.args[1:], command.redirects) if fails else command
        if command.args[0] not in _COMMANDS or any(one != _STDERR_TO_STDOUT for one in command.redirects):
            return None
        commands.append((command, fails))
    return commands


def _run(pipeline: list[tuple[Command, bool]], folder: str) -> str:
    """Runs commands one after another, each on the output of the one before; gives what went wrong, or nothing."""
    source = Path(os.devnull)
    with tempfile.TemporaryDirectory() as place:
        for number, (command, fails) in enumerate(pipeline):
            output, errors = Path(place, f"{number}.out"), Path(place, f"{number}.err")
            merged = bool(command.redirects)
            with source.open() as stdin, output.open("w") as stdout, errors.open("w") as stderr:
                code = _forked(command.args, folder, (stdin, stdout, stdout if merged else stderr))
            if (code != 0) != fails:
                printed = "\n".join(path.read_text(errors="replace") for path in (output, errors))
                return f"{' '.join(command.args)}\nexit code {code}\n{printed}"
            source = output
    return ""


def _forked(arguments: list[str], folder: str, streams: tuple[IO[str], IO[str], IO[str]]) -> int:
    """The exit code of a command that runs in a fork of this process."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        os.chdir(folder)
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = arguments
        code = _exit_code(_COMMANDS[arguments[0]])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(main: Callable[[], object]) -> int:
    try:
        returned = main()
    except SystemExit as ended:
        returned = ended.code
    except BaseException:
        traceback.print_exc()
        return 1
    if isinstance(returned, str):
        print(returned, file=sys.stderr)
        return 1
    return int(returned or 0)  # pyright: ignore
