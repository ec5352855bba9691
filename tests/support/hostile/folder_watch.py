"""The watch on a command that runs on a hostile folder: an audit hook within, and a look around when it is over."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import hyperdex_ir
from hyperdex_ir.support.locations import hub_root, instruction_cache, module_cache, native_cache, tokenizer_cache
from support.hostile.case import Case

#: What is printed at most: IR of the model has 100 kB.
MOST_OUTPUT = 4 << 20
_SUPPORT = Path(hyperdex_ir.__file__).parent / "support"
#: Programs that a command may start: their arguments, joined, match one of these.
ALLOWED_PROGRAMS: tuple[re.Pattern[str], ...] = (
    # Tokenizers and chat templates are used in an interpreter of its own, with limits.
    re.compile(re.escape(f"{sys.executable} -I -S {_SUPPORT}/confined_worker.py") + r"( .*)?", re.DOTALL),
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
            native_cache(),
            instruction_cache(),
            module_cache(),
            tokenizer_cache(),
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
            if event == "os.mkdir" and os.fsdecode(place) == os.path.realpath(native_cache().parent):
                continue  # the folder of the caches, made where it is not there
            if not any(self._is_below(os.fsdecode(place), one) for one in self._own):
                return ["finding", f"{event} outside the folder: {os.fsdecode(path)!r}"]
        return None

    @staticmethod
    def _is_below(path: Any, folder: str) -> bool:
        return _is_text(path) and (os.fsdecode(path) == folder or os.fsdecode(path).startswith(folder + "/"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


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


def _is_own(path: str, case: Case) -> bool:
    """Whether a command may change it: the model's folder, `repro/` where it runs, the times of the folders around."""
    return path in (str(case.folder), str(case.cwd / "repro"), f"{case.cwd}/.", f"{case.folder.parent}/.")


def noticed(case: Case) -> list[str]:
    """What was noticed within; a process that no audit event tells of was started by other code than Python's."""
    notes = [json.loads(line) for line in (case.root / "notes").read_text().splitlines()]
    found = [text for kind, text in notes if kind == "finding"]
    told = any(kind == "allowed" for kind, _ in notes) or any("starts a process" in text for text in found)
    if any(kind == "child" for kind, _ in notes) and not told:
        found.append("a process has run that Python did not start")
    return list(dict.fromkeys(found))


def judge(status: int, stdout: bytes, stderr: bytes) -> tuple[str, list[str]]:
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
