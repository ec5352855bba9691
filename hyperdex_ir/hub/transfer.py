"""Download of one file of the Hub into a folder: whole and verified, or not at all.

It takes its name only when length and hash are those of the listing. Until then it is `.NAME.HASH.part` beside it, from
which another attempt, or a later run, continues. `hf_xet` is not used, even where it is installed: it can neither
continue from a part nor hand over the bytes to be hashed as they come.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO, Any

from hyperdex_ir.errors import DownloadError, StorageError
from hyperdex_ir.hub.requests import HubModel, RemoteFile, Transient
from hyperdex_ir.support.files import storage_errors
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.progress import file_progress
from hyperdex_ir.support.reading import open_regular

_BLOCK = 1 << 20
_ALTERED = "run again; when it stays so, something on the way alters files: a proxy, or the server of HF_ENDPOINT"


def fetch_file(
    hub: HubModel, commit: str, name: str, expected: RemoteFile, folder: Path, root: Path | None = None
) -> None:
    """Downloads a file of a commit into a folder, or the missing rest of it.

    root: as of `files.atomic_file`; None: the folder itself. Raises DownloadError, with the fault and its byte,
    AccessError, StorageError.
    """
    tree = FolderTree(root or folder)
    part = tree.name_of(part_of(folder, name, expected))

    def received() -> int:
        found = tree.info(part)
        return 0 if found is None else found.st_size

    def attempt() -> None:
        try:
            _grow(hub, commit, name, expected, tree, part)
        except Transient as error:
            of = "" if expected.size is None else f" of {expected.size:,}"
            raise Transient(f"{error.reason}, at byte {received():,}{of}", error.hint, error.wait) from None
        tree.move(part, tree.name_of(folder / name))

    with storage_errors(folder / name):
        if None in (expected.size, expected.digest):
            tree.remove(part)  # nothing says that it is of the same file
        hub.persist(f"{hub.hub_id}: {name}", attempt, progress=received)


def part_of(folder: Path, name: str, expected: RemoteFile) -> Path:
    """The path of the growing, unfinished file."""
    return folder / f".{name}.{(expected.digest or 'unknown')[:16]}.part"


def same_content(path: Path, expected: RemoteFile) -> bool:
    """Test for a file with the expected length and hash; False when the Hub does not give them."""
    if None in (expected.size, expected.digest) or not path.is_file() or path.stat().st_size != expected.size:
        return False
    with open_regular(path, StorageError) as file:
        return _hashed(file, expected).hexdigest() == expected.digest


def _hashed(file: IO[bytes], expected: RemoteFile) -> Any:
    """The hash, of the kind of `expected.digest`, of a file's content. Git's kind begins with the length."""
    small = expected.digest is not None and len(expected.digest) == 40
    digest = hashlib.sha1(b"blob %d\0" % (expected.size or 0), usedforsecurity=False) if small else hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest


def _grow(hub: HubModel, commit: str, name: str, listed: RemoteFile, tree: FolderTree, part: str) -> None:
    """Makes one attempt: fetches the missing bytes of the part, then verifies it. A useless part is removed."""
    expected = _agreed(hub, commit, name, listed)
    with tree.grown_file(part) as file:
        if expected.size is not None and file.tell() > expected.size:
            file.truncate(0)
        file.seek(0)
        digest, start = _hashed(file, expected), file.tell()
        if start != expected.size:
            digest, start = _receive(hub, commit, name, expected, file, digest)
        count = file.tell()
        file.flush()
        os.fsync(file.fileno())
    if count == expected.size or expected.size is None:
        if expected.digest in (None, digest.hexdigest()):
            return
        reason = f"the hash of the {count:,} bytes received is {digest.hexdigest()[:12]}"
        reason += f", the Hub lists {(expected.digest or '')[:12]}"
    elif count < expected.size:
        raise Transient("the connection was closed")
    else:
        reason = f"the Hub sends more than the {expected.size:,} bytes that it lists"
    tree.remove(part)
    if start:  # it came in parts, which may have been of different files
        raise Transient(reason, _ALTERED)
    raise DownloadError(f"{hub.hub_id}: {name}: {reason}", _ALTERED)


def _agreed(hub: HubModel, commit: str, name: str, listed: RemoteFile) -> RemoteFile:
    """The facts of a file by the list, completed by the file's own facts. Raises when these contradict."""
    found_commit, found = hub.facts(commit, name)
    what = f"{hub.hub_id}: {name}: what the Hub sends"
    if found_commit not in (None, commit):
        message = f"is of commit {found_commit[:12]}, asked for was {commit[:12]}"
    elif found.digest and listed.digest not in (None, found.digest) and len(listed.digest or "") == 64:
        message = f"has the hash {found.digest[:12]}, listed was {(listed.digest or '')[:12]}"
    elif None not in (found.size, listed.size) and found.size != listed.size:
        message = f"has {found.size:,} bytes, listed were {listed.size:,}"
    else:
        size = found.size if listed.size is None else listed.size
        return RemoteFile(size, listed.digest or found.digest)
    raise DownloadError(f"{what} {message}", "run again: it has changed")


def _receive(
    hub: HubModel, commit: str, name: str, expected: RemoteFile, file: IO[bytes], digest: Any
) -> tuple[Any, int]:
    """Appends the bytes that the Hub sends; returns the hash of the whole, and the first byte that was sent."""
    start = file.tell()
    with hub.content(commit, name, start) as (continues, blocks):
        if start and not continues:
            file.truncate(0)
            file.seek(0)
            digest, start = _hashed(file, expected), 0
        with file_progress(name, expected.size, start) as advance:
            for block in blocks:
                file.write(block)
                digest.update(block)
                advance(len(block))
                if expected.size is not None and file.tell() > expected.size:
                    break
    return digest, start
