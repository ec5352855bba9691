"""The secret of a distributed run, and the seals that its processes make with it.

It is the value of HYPERDEX_RUN_SECRET, or the file that HYPERDEX_RUN_SECRET_FILE names. When neither is set and all
processes are on one host, the first to come makes one and leaves it to the others in a file that only this user can
read, until all have it. It is never printed: text on a terminal ends in logs. Processes on several hosts must be
given one. It must be random, never a phrase: a stranger who reads a seal can try guesses at it without being noticed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hyperdex_ir.errors import OptionError

VARIABLE, FILE_VARIABLE = "HYPERDEX_RUN_SECRET", "HYPERDEX_RUN_SECRET_FILE"
SEAL_BYTES = 32
SHORTEST, LONGEST = 16, 4096
_MADE_BYTES = 32
_GIVE = f"set {VARIABLE} to the same random text for all processes, such as `openssl rand -hex 32` prints"
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class SealError(Exception):
    """A value of the store was not put there by a process that has the key."""

    def __init__(self, key: str):
        super().__init__(f"what the store holds as {key} is not sealed with the secret of this run")


@dataclass(frozen=True)
class RunSecret:
    """The secret.

    made: the file in which it was left for the other processes, None when it was given. is_own: whether this process
    left it there.
    """

    key: bytes
    made: Path | None = None
    is_own: bool = False

    def forget(self) -> None:
        """Removes the file. Call it when all processes have the secret, or when the one that left it fails."""
        if self.made is not None:
            with suppress(OSError):
                self.made.unlink(missing_ok=True)


def seal(key: bytes, purpose: str, *parts: bytes | memoryview) -> bytes:
    """The HMAC-SHA256 of bytes in their order; each purpose has another one."""
    lengths = struct.pack(f"<{len(parts) + 1}Q", len(purpose), *map(len, parts))
    return hmac.digest(key, b"".join((lengths, purpose.encode(), *parts)), "sha256")


def run_secret(run: str, one_host: bool) -> RunSecret:
    """The secret that this process was given, else that of the run of this name, when all of it is on one host.

    Raises OptionError when there is none, or it is not secret: too short, or in a file that others can read.
    """
    text, file = os.environ.get(VARIABLE), os.environ.get(FILE_VARIABLE)
    if text and file:
        raise OptionError(f"{VARIABLE} and {FILE_VARIABLE} are both set", "unset one of them")
    if text:
        return RunSecret(_checked(text.encode(errors="surrogateescape"), VARIABLE))
    if file:
        return RunSecret(_checked(_given(Path(file)), file))
    if not one_host:
        raise OptionError("processes on several hosts need a secret that they share, and there is none", _GIVE)
    return _made(run)


def _checked(secret: bytes, name: str) -> bytes:
    secret = secret.strip()
    if not SHORTEST <= len(secret) <= LONGEST:
        raise OptionError(f"{name}: a secret of {len(secret)} bytes, expected {SHORTEST} to {LONGEST}", _GIVE)
    return secret


def _given(path: Path) -> bytes:
    """A file that the user named; a link to it is the user's own affair."""
    try:
        return _read(os.open(path, _FLAGS), path)
    except OSError as error:
        raise OptionError(f"{path}: the secret cannot be read: {error.strerror}", _GIVE) from None


def _read(descriptor: int, path: Path) -> bytes:
    try:
        _check_private(descriptor, path, stat.S_IFREG)
        return os.read(descriptor, LONGEST + 1)
    finally:
        os.close(descriptor)


def _check_private(descriptor: int, path: Path, kind: int) -> None:
    """Raises OptionError unless a file or folder is this user's, and nobody else's to use."""
    found = os.fstat(descriptor)
    if stat.S_IFMT(found.st_mode) != kind:
        raise OptionError(f"{path}: not a {'file' if kind == stat.S_IFREG else 'folder'}", _GIVE)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise OptionError(
            f"{path}: of user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}: others could know the secret",
            f"make it yours alone (chmod {'600' if kind == stat.S_IFREG else '700'}), or {_GIVE}",
        )


def _made(run: str) -> RunSecret:
    """The secret in the file of a run, which this process makes when no other has."""
    folder = Path(tempfile.gettempdir()) / f"hyperdex-{os.geteuid()}"
    name = hashlib.sha256(f"{socket.gethostname()} {run}".encode()).hexdigest()[:32]
    is_own = False
    try:
        with _private_folder(folder) as root:
            while True:
                with suppress(FileNotFoundError):  # as long as no process has made it
                    found = _read(os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=root), folder / name)
                    return RunSecret(_checked(found, str(folder / name)), folder / name, is_own)
                is_own = _leave(root, name)
    except OSError as error:
        raise OptionError(f"{folder}: no secret can be left there: {error.strerror}", _GIVE) from None


@contextmanager
def _private_folder(folder: Path) -> Iterator[int]:
    """A descriptor of a folder of this user alone, made when it is not there."""
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    root = os.open(folder, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_private(root, folder, stat.S_IFDIR)
        yield root
    finally:
        os.close(root)


def _leave(root: int, name: str) -> bool:
    """Writes a new secret to a file that appears whole; False when another process was faster."""
    temporary = f".{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=root)
    try:
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(_MADE_BYTES))
        os.link(temporary, name, src_dir_fd=root, dst_dir_fd=root)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary, dir_fd=root)
