"""Runs commands of `hyperdex` on hostile folders, each in a process of its own that is watched.

A line of JSON on stdin, {"number", "commands"}, is a folder (see `hostile_folders.py`) and the commands to run on it,
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
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_folders
from hostile_folders import Case, build, prepare

import hyperdex_ir
from hyperdex_ir.cli.main import app, main
from hyperdex_ir.locations import engine_cache, hub_root, instruction_cache

MOST_ADDRESSES = 1 << 30  # more than what this process has
MOST_FILE = 256 << 20  # bytes of a file that a command writes
CPU_SECONDS = 20
WALL_SECONDS = 60
#: What is printed at most: IR of the model has 100 kB.
MOST_OUTPUT = 4 << 20
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
        "{F}/ir/08_lpu-fuse-epilogue.mlir",
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
_RUNTIME = Path(hyperdex_ir.__file__).parent / "runtime"
#: Programs that a command may start: their arguments, joined, match one of these.
ALLOWED_PROGRAMS: tuple[re.Pattern[str], ...] = (
    # Tokenizers and chat templates are used in an interpreter of its own, with limits.
    re.compile(re.escape(f"{sys.executable} -I -S {_RUNTIME}/confined_worker.py") + r"( .*)?", re.DOTALL),
)
_STARTS = (
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "os.system",
    "pty.spawn",
)
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")
_OS_CHANGES = (
    "remove",
    "rename",
    "rmdir",
    "mkdir",
    "truncate",
    "chmod",
    "chown",
    "utime",
    "link",
    "symlink",
    "setxattr",
)
_CHANGES = (*(f"os.{name}" for name in _OS_CHANGES), "shutil.rmtree", "shutil.move", "shutil.copyfile")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: What a terminal obeys; tabs and line ends are text.
_ESCAPES = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")


# ---------------------------------------------------------------------------------------------------- within
class Watch:
    """The audit hook of one command; notes go to a file, for the process may be killed."""

    def __init__(self, case: Case, notes: int):
        self._notes = notes
        own = (
            case.folder,
            case.out,
            case.cwd / "repro",
            engine_cache(),
            instruction_cache(),
            case.root / "tmp",
            "/dev",
            "/proc/self",
        )
        self._own = [os.path.realpath(one) for one in own if one is not None]
        self._case = os.path.realpath(case.root)
        self._busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            if said := self._look(event, arguments):
                os.write(self._notes, json.dumps(said).encode() + b"\n")
        finally:
            self._busy = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> list[str] | None:
        if event in _STARTS:
            return self._program(event, arguments)
        if event in _NETWORK:
            return ["finding", f"network: {event}{arguments[1:]!r}"[:300]]
        if event == "ctypes.dlopen" and self._is_below(arguments[0], self._case):
            return ["finding", f"loads {arguments[0]}"]
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = (isinstance(flags, int) and flags & _WRITES) or (isinstance(mode, str) and set(mode) & set("wax+"))
            return self._change(event, arguments[0]) if writes else None
        return self._change(event, *arguments[:2]) if event in _CHANGES else None

    def _program(self, event: str, arguments: tuple[Any, ...]) -> list[str]:
        words = arguments[1] if event == "subprocess.Popen" else arguments
        text = words if isinstance(words, str) else " ".join(map(os.fsdecode, filter(_is_text, words)))
        allowed = event == "subprocess.Popen" and any(one.fullmatch(text) for one in ALLOWED_PROGRAMS)
        return ["allowed" if allowed else "finding", f"starts a process: {event} {text}"[:500]]

    def _change(self, event: str, *paths: Any) -> list[str] | None:
        """Only absolute paths: others are below a descriptor, or in the working folder, which is looked at later."""
        for path in paths:
            if not _is_text(path) or not os.path.isabs(path):
                continue
            place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if event == "os.mkdir" and os.fsdecode(place) == os.path.realpath(engine_cache().parent):
                continue  # the folder of the caches, made where it is not there
            if not any(self._is_below(os.fsdecode(place), one) for one in self._own):
                return ["finding", f"{event} outside the folder: {os.fsdecode(path)!r}"]
        return None

    @staticmethod
    def _is_below(path: Any, folder: str) -> bool:
        return _is_text(path) and (os.fsdecode(path) == folder or os.fsdecode(path).startswith(folder + "/"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


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


# ---------------------------------------------------------------------------------------------------- outside
def snapshot(case: Case) -> dict[str, tuple[Any, ...]]:
    """Everything beside the folder of a case: mode, owner, inode, links, times of change and, of files and links, what
    they hold. Not times of access."""
    found: dict[str, tuple[Any, ...]] = {}
    for root in (case.outside, case.cwd, case.folder.parent, hub_root()):
        for folder, names, files in os.walk(root):
            names[:] = [name for name in names if not _is_own(os.path.join(folder, name), case)]
            for name in (".", *names, *files):
                path = os.path.join(folder, name)
                if not _is_own(path, case):
                    found[path] = _facts(path)
    return found


def _facts(path: str) -> tuple[Any, ...]:
    facts = os.lstat(path)
    held = ""
    if stat.S_ISLNK(facts.st_mode):
        held = os.readlink(path)
    elif stat.S_ISREG(facts.st_mode):
        held = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return (
        facts.st_mode,
        facts.st_uid,
        facts.st_gid,
        facts.st_ino,
        facts.st_nlink,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
        held,
    )


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What was changed, made or removed."""
    paths = sorted(before.keys() | after.keys())
    return [f"changes {path!r}" for path in paths if before.get(path) != after.get(path)]


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
        from tiny import tiny_llama_config, write_checkpoint
        from tqdm import tqdm

        from hyperdex_ir.cli.assembly import disassemble
        from hyperdex_ir.tools import AutoCompiler

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
        for name in COMMANDS:  # the good folder, for all; this makes the native engine's code too
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
        found += differences(before, snapshot(case)) + _notes(case)
        stdout, stderr = ((case.root / name).read_bytes() for name in ("stdout", "stderr"))
        outcome, wrong = _judge(status, stdout, stderr)
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


def _is_own(path: str, case: Case) -> bool:
    """Whether a command may change it: the model's folder, `repro/` where it runs, the times of the folders around."""
    return path in (str(case.folder), str(case.cwd / "repro"), f"{case.cwd}/.", f"{case.folder.parent}/.")


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


def _notes(case: Case) -> list[str]:
    """What was noticed within; a process that no audit event tells of was started by other code than Python's."""
    notes = [json.loads(line) for line in (case.root / "notes").read_text().splitlines()]
    found = [text for kind, text in notes if kind == "finding"]
    told = any(kind == "allowed" for kind, _ in notes) or any("starts a process" in text for text in found)
    if any(kind == "child" for kind, _ in notes) and not told:
        found.append("a process has run that Python did not start")
    return list(dict.fromkeys(found))


def _judge(status: int, stdout: bytes, stderr: bytes) -> tuple[str, list[str]]:
    code = os.waitstatus_to_exitcode(status)
    outcome = {0: "done", 1: "refused", 2: "usage"}.get(
        code, f"ended by {signal.Signals(-code).name}" if code < 0 else str(code)
    )
    found = [] if code in (0, 1) else [f"exit code {code}: {stderr[-300:]!r}"]
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        if escape := _ESCAPES.search(text):
            found.append(f"{name} holds {escape[0]!r}: {text[max(0, escape.start() - 60) : escape.end() + 60]!r}")
        if len(text) > MOST_OUTPUT:
            found.append(f"{name} has {len(text)} bytes")
    lines = stderr.decode(errors="replace").split("\n")
    errors = [line for line in lines if line.startswith(("error[", "error:"))]
    if code == 1 and (len(errors) != 1 and not _is_verdict(stdout)):
        found.append(f"{len(errors)} error lines: {stderr[-300:]!r}")
    wrong = [line for line in lines if line.startswith("Traceback") or "internal error" in line or "panicked" in line]
    found += [line[:300] for line in wrong]
    found += [f"an error of {len(line)} characters" for line in errors if len(line) > 8000]
    return outcome, found


def _is_verdict(stdout: bytes) -> bool:
    """Whether it is what `verify` found that the exit code tells."""
    return b"DIFFERENT" in stdout


# ---------------------------------------------------------------------------------------------------- probes
def _native_process(case: Case) -> None:
    """A process that no audit event tells of."""
    libc = ctypes.CDLL(None)
    libc.system(b"true")


def _orphan(case: Case) -> None:
    if os.fork() == 0:
        time.sleep(60)


def _write(path: Path) -> None:
    path.write_text("x")


def _touch(case: Case) -> None:
    os.utime(os.open(case.outside / "key", os.O_RDONLY), (1, 1))


def _raise(case: Case) -> None:
    raise ZeroDivisionError


def _fill(case: Case) -> None:
    kept = [bytearray(64 << 20) for _ in range(100)]
    del kept


def _spin(case: Case) -> None:
    while True:
        pass


#: Misdeeds that have to be noticed.
PROBES: dict[str, Callable[[Case], object]] = {
    "nothing": lambda case: None,
    "system": lambda case: os.system("true"),
    "native process": _native_process,
    "orphan": _orphan,
    "write outside": lambda case: _write(case.outside / "new"),
    "write through a descriptor": lambda case: os.close(
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=os.open(case.outside, os.O_RDONLY))
    ),
    "write into the working folder": lambda case: _write(case.cwd / "new"),
    "write of the same bytes": lambda case: (case.outside / "key").write_bytes((case.outside / "key").read_bytes()),
    "delete": lambda case: (case.outside / "key").unlink(),
    "mode": lambda case: os.chmod(case.outside / "key", 0o644),
    "time": _touch,
    "elsewhere": lambda case: _write(case.root / "new"),
    "hub": lambda case: (hub_root() / "other" / "model" / "kept").write_text("x"),
    "connection": lambda case: __import__("socket").getaddrinfo("localhost", 1),
    "escape": lambda case: print("\x1b[2J"),
    "C1": lambda case: print("\x9b2J"),
    "traceback": _raise,
    "memory": _fill,
    "no end": _spin,
    "two errors": lambda case: (print("error: a\nerror: b", file=sys.stderr), sys.exit(1)),
    "no error": lambda case: sys.exit(1),
    "exit code": lambda case: sys.exit(3),
}


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
        "faults": list(hostile_folders.FAULTS),
        "devices": hostile_folders.may_make_devices(root),
    }
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = server.probe(request["probe"]) if "probe" in request else server.answer(request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main_loop(Path(sys.argv[1]))
