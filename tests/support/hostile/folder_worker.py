"""Runs commands of `hyperdex` on hostile folders, each in a process of its own that is watched.

A line of JSON on stdin, {"number", "commands"}, is a folder (see `folders.py`) and the commands to run on it,
each on a fresh one; a line on stdout says what came of it: {"faults", "ran", "outcomes", "findings"}.

A process is forked from this one, which has imported everything, for each command. It is watched
- from within, by an audit hook: processes and programs that Python starts, connections, writes to absolute paths
  outside the folder, libraries loaded from it;
- from outside: processes that it started by any way at all (its usage of children, and this process inherits orphans),
  its memory, time and output, and the contents, modes, times and inodes of everything beside the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperdex_ir.cli.main import app, main
from hyperdex_ir.support.locations import hub_root
from support.hostile import folders
from support.hostile.case import Case
from support.hostile.folder_probes import PROBES
from support.hostile.folder_watch import Watch, differences, judge, noticed, snapshot
from support.hostile.folders import build, prepare

MOST_ADDRESSES = 1 << 30  # more than what this process has
MOST_FILE = 256 << 20  # bytes of a file that a command writes
CPU_SECONDS = 20
WALL_SECONDS = 60
_PR_SET_CHILD_SUBREAPER = 36
#: Words of the commands by name; {F} is the folder, {O} a folder for output.
COMMANDS: dict[str, list[str]] = {
    "compile": ["compile", "{F}", "--max-length", "16", "--local-files-only"],
    "compile --force": ["compile", "{F}", "--max-length", "16", "--local-files-only", "--force"],
    "compile --low-memory-usage": ["compile", "{F}", "--max-length", "16", "--local-files-only", "--low-memory-usage"],
    "compile --compile-from": [
        "compile",
        "{F}",
        "--local-files-only",
        "--compile-from",
        "{F}/ir/10_lpu-fuse-epilogue.mlir",
    ],
    "ir": ["ir", "{F}"],
    "verify": ["verify", "{F}", "--num-tokens", "2"],
    "diff": ["diff", "{F}", "--tokens", "1,2"],
    "inspect": ["inspect", "{F}"],
    "check": ["check", "{F}"],
    "check --json": ["check", "{F}", "--json"],
    "status": ["status", "{F}"],
    "status --json": ["status", "{F}", "--json"],
    "clean": ["clean", "{F}"],
    "clean --compiled": ["clean", "{F}", "--compiled"],
    "run": ["run", "{F}", "--prompt", "ab", "--max-new-tokens", "2", "--threads", "1"],
    "run --chat": ["run", "{F}", "--prompt", "ab", "--max-new-tokens", "2", "--threads", "1", "--chat", "--seed", "1"],
    "plan": ["plan", "{F}", "--max-length", "16"],
    "dis": ["dis", "{F}/inst/inst_1lpu.bin"],
    "as": ["as", "{F}/program.s", "-o", "{O}/program.bin"],
}
#: Commands that take no folder.
OTHERS = ("demo", "explain", "models")


class _Terminal(io.TextIOWrapper):
    """Standard output on a terminal, where nothing that a terminal obeys may come from a file."""

    def isatty(self) -> bool:
        return True


def _become(case: Case, words: list[str], run: Callable[[list[str]], object], seconds: int) -> None:
    """What the forked process does; does not return."""
    code = 99
    try:
        os.setsid()
        for number, path in enumerate(("stdin", "stdout", "stderr")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            os.dup2(os.open(case.root / path, flags), number)
        sys.stdout = _Terminal(os.fdopen(1, "wb"), encoding="utf-8", line_buffering=True)
        os.chdir(case.cwd)
        os.environ["TMPDIR"] = str(case.root / "tmp")
        tempfile.tempdir = None  # what ran before the fork has found another
        prepare(case)
        notes = os.open(case.root / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        faulthandler.enable()
        size = _pages(0) + MOST_ADDRESSES
        for limit, value in (
            (resource.RLIMIT_AS, size),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_FSIZE, MOST_FILE),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (value, value))
        known = set(sys.modules)
        sys.addaudithook(Watch(case, notes))
        code = _code_of(run, words)
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(case.root)):
                os.write(notes, json.dumps(["finding", f"imports {file}"]).encode() + b"\n")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if used.ru_minflt or used.ru_majflt:
            os.write(notes, b'["child", "a process has run"]\n')
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code_of(run: Callable[[list[str]], object], words: list[str]) -> int:
    try:
        run(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _pages(index: int) -> int:
    """A number of /proc/self/statm, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[index]) * resource.getpagesize()


def _shortened(found: list[str]) -> list[str]:
    """A folder that leads elsewhere has as many findings as files."""
    return found if len(found) <= 6 else [*found[:5], f"and {len(found) - 5} more"]


def _alone() -> None:
    """A thread would not be there after a fork, and what it holds would stay locked."""
    threads = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    assert len(threads) == 1, f"a process with threads must not be forked: {threads}"


class Server:
    """Makes folders below `root` and runs commands on them. good: what they are made from."""

    def __init__(self, root: Path):
        self.root, self.good = root, root / "good"
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def prepare(self) -> None:
        """Makes the good folder, in this process: what is imported and computed once is then there for all."""
        from tqdm import tqdm

        from hyperdex_ir.cli.assembly import disassemble
        from hyperdex_ir.tools import AutoCompiler
        from support.models.tiny import tiny_llama_config, write_checkpoint

        config = tiny_llama_config(num_hidden_layers=1, hidden_size=32, intermediate_size=40, head_dim=8)
        tqdm.monitor_interval = 0  # a thread
        write_checkpoint(config, self.good)
        settings = self.good / "tokenizer_config.json"
        template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": template}))
        AutoCompiler().compile(str(self.good), max_length=16, dump_ir=self.good / "ir")
        with (self.good / "program.s").open("w") as file:
            disassemble(self.good / "inst" / "inst_1lpu.bin", file)
        (hub_root() / "other" / "model").mkdir(parents=True)
        (hub_root() / "other" / "model" / "kept").write_text("kept")
        for name in ("verify", "diff", "plan"):  # for what they import
            with contextlib.suppress(SystemExit), open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                main([word.format(F=self.good, O=self.root) for word in COMMANDS[name]])
        _alone()
        for name in COMMANDS:  # the good folder, for all; this makes the native executor's code too
            case, _ = build(self._new_place(), self.good, -1)
            outcome, found = self.try_command(case, self.words(name, case), main)
            assert (outcome, found) == ("done", []), f"{name}: {outcome} {found}"

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs the commands of a request."""
        started = time.monotonic()
        outcomes: Counter[str] = Counter()
        findings: list[str] = []
        faults: list[str] = []
        for name in request["commands"]:
            case, faults = build(self._new_place(), self.good, request["number"])
            outcome, found = self.try_command(case, self.words(name, case), main)
            outcomes[outcome] += 1
            findings += [f"{name}: {one}" for one in _shortened(found)]
        seconds = time.monotonic() - started
        return {
            "faults": faults,
            "ran": sum(outcomes.values()),
            "outcomes": outcomes,
            "findings": findings,
            "seconds": seconds,
        }

    def words(self, name: str, case: Case) -> list[str]:
        """The words of a command."""
        return [word.format(F=case.folder, O=case.out) for word in COMMANDS[name]]

    def probe(self, name: str) -> dict[str, Any]:
        """What is noticed of a misdeed of our own, on the good folder."""
        case, _ = build(self._new_place(), self.good, -1)
        outcome, found = self.try_command(case, [name], lambda words: PROBES[words[0]](case), seconds=2)
        return {"outcome": outcome, "findings": found}

    def _new_place(self) -> Path:
        place = self.root / "case"
        if place.exists():
            shutil.rmtree(os.fsencode(place))
        return place

    def try_command(
        self, case: Case, words: list[str], run: Callable[[list[str]], object], seconds: int = CPU_SECONDS
    ) -> tuple[str, list[str]]:
        """How a command ended, and what is wrong with that. seconds: of the processor, at most."""
        (case.root / "tmp").mkdir()
        (case.root / "stdin").write_text("y\n" * 100)
        for name in ("stdout", "stderr", "notes"):
            (case.root / name).touch()
        before = snapshot(case)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become(case, words, run, seconds)
        status = _wait(pid, started + WALL_SECONDS)
        found = self._orphans()
        found += differences(before, snapshot(case)) + noticed(case)
        stdout, stderr = ((case.root / name).read_bytes() for name in ("stdout", "stderr"))
        outcome, wrong = judge(status, stdout, stderr)
        return outcome, found + wrong

    def _orphans(self) -> list[str]:
        """Ends what a command has left running, which is a child of this process then."""
        found: list[str] = []
        while True:
            children = Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
            if not children:
                return found
            for child in children:
                found.append(f"leaves a process running: {_command_of(child)}")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
                os.waitpid(int(child), 0)


def _command_of(pid: str) -> str:
    try:
        return Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return "ended"


def _wait(pid: int, deadline: float) -> int:
    """The status of the process, which is ended at the deadline."""
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(pause)
        pause = min(0.02, pause * 2)


def main_loop(root: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server(root)
    server.prepare()
    commands = sorted(
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    )
    facts = {
        "commands": list(COMMANDS),
        "registered": commands,
        "others": OTHERS,
        "probes": list(PROBES),
        "faults": list(folders.FAULTS),
        "devices": folders.may_make_devices(root),
    }
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = server.probe(request["probe"]) if "probe" in request else server.answer(request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main_loop(Path(sys.argv[1]))
