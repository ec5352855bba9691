"""The record of finished phases in a model's folder, and of their inputs: the memory between two compiles.

Kept in a hidden file beside the manifest, because it holds what the manifest must not: modification times and inodes,
which identify an unchanged file without reading it. Losing it costs a compile from the beginning; where `ckpt` or
`param` is a link, the compiled files behind it must first be deleted by hand (`links.py` says which).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from xdsl.passes import ModulePass

from hyperdex_ir.backend.written import STAGING, STATE_FILE, files_of_phase, is_copy, is_larger_than_written
from hyperdex_ir.errors import StorageError
from hyperdex_ir.memory.serialize import dump_json
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.folder_access import FolderTree, place_of
from hyperdex_ir.support.own_code import foreign_digest
from hyperdex_ir.support.reading import STATE, parse_json

STATE_FORMAT = 4
_BLOCK_BYTES = 1 << 20


def extension_digest(passes: Iterable[ModulePass]) -> str:
    """A hash of the code of passes and patterns that other packages add; empty when there are none of theirs."""
    classes = [type(one) for one in passes]
    for one in passes:
        classes += getattr(one, "pattern_classes", list)()
    return foreign_digest(cls.__module__ for cls in classes)


def digest(value: Any) -> str:
    """A hash of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest_of(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        found.update(block)
    return found.hexdigest()


def describe_place(path: Path) -> dict[str, int]:
    """Size, modification time and inode of a file: as long as these stay, so do its contents."""
    return place_of(path.stat())


@dataclass
class State:
    """The recorded files of the folder `root`, each with its size, its hash once known, and its place on the disk.

    phases: the finished phases by name, whose files are where they belong. staged: those that a compile has finished
    since; their files are below `staging`. The inputs of a phase, if it has any, are the records of `sources.py`.
    """

    root: Path
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    staged: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path, name: str = STATE_FILE) -> State:
        """The record that the last compile left; empty when there is no readable one."""
        try:
            with FolderTree(root).open_file(name) as file:
                value = parse_json(file.read(STATE.limit).decode(), STATE)
        except (OSError, StorageError, ValueError):
            return cls(root)
        if not isinstance(value, dict) or value.get("format") != STATE_FORMAT:
            return cls(root)
        phases, staged = (_table(value, name) for name in ("phases", "staged"))
        return cls(
            root,
            {name: record for name, record in phases.items() if _is_record(name, record)},
            {name: record for name, record in staged.items() if _is_record(name, record)},
        )

    @property
    def staging(self) -> Path:
        """The folder of files that an unfinished compile has written."""
        return self.root / STAGING

    @property
    def tree(self) -> FolderTree:
        """The folder, to write to."""
        return FolderTree(self.root)

    def is_done(self, phase: str, key: str) -> bool:
        """Test that the phase has finished with this key and that its files are all there.

        key: digest of the request, or of the inputs actually used. A file that was touched is read again.
        """
        record = self.staged.get(phase) or self.phases.get(phase)
        if not record or key not in (record.get("key"), record.get("content")):
            return False
        touched: list[tuple[dict[str, Any], dict[str, int]]] = []
        files = self.files(phase).items()
        is_done = all(self._is_intact(name, path, record["files"][name], touched) for name, path in files)
        for entry, place in touched:
            entry.update(place)
        if touched:
            self.save()
        return is_done

    def _is_intact(
        self, written: str, path: Path, entry: dict[str, Any], touched: list[tuple[dict[str, Any], dict[str, int]]]
    ) -> bool:
        """Test that the file written under this name has the contents of its entry.

        A file that was touched is added to `touched`, with its place.
        """
        name = self.tree.name_of(path)
        found = self.tree.info(name)
        if found is None or not self.tree.is_file(name):
            return False
        place = place_of(found)
        if place.items() <= entry.items():
            return True
        if place["bytes"] != entry.get("bytes") or is_larger_than_written(written, place["bytes"]):
            return False
        with self.tree.open_file(name) as file:
            if _digest_of(file) != entry.get("sha256"):
                return False
        touched.append((entry, place))
        return True

    def discard(self, is_outdated: Callable[[str], bool]) -> None:
        """Removes the files of the staged phases that are outdated.

        `is_outdated` takes a phase's name; it is called for phase 2 first, for the others depend on whether that is
        staged. The state is written once, before the first file is removed.
        """
        paths: list[Path] = []
        before = len(self.staged)
        for phase in sorted(self.staged):
            if is_outdated(phase):
                paths += self.files(phase).values()
                del self.staged[phase]
        if len(self.staged) < before:
            self.save()
        for path in paths:
            self.tree.remove(self.tree.name_of(path))

    def forget_staged(self) -> None:
        """Records that nothing is staged."""
        if self.staged:
            self.staged = {}
            self.save()

    def inputs(self, phase: str) -> Any:
        """The kept inputs of a finished phase; any JSON value."""
        return (self.staged if phase in self.staged else self.phases)[phase].get("inputs")

    def stage(self, phase: str, inputs: Mapping[str, Any] | None, files: Iterable[Path]) -> None:
        """Records `files`, below `staging`, as written by the phase; not saved before `finish`."""
        entries = {path.relative_to(self.staging).as_posix(): describe_place(path) for path in files}
        self.staged[phase] = {"inputs": inputs, "files": entries}

    def finish(self, phase: str, key: str, content: str) -> None:
        """Records that the phase, whose files are staged, is finished.

        key: digest of the request. content: digest of the inputs actually used. A later compile with the same digest
        skips the phase.
        """
        self.staged[phase] |= {"key": key, "content": content}
        self.save()

    def files(self, phase: str) -> dict[str, Path]:
        """The files of a finished phase: name in the folder -> present path."""
        record, place = (self.staged[phase], self.staging) if phase in self.staged else (self.phases[phase], self.root)
        return {name: place / name for name in record["files"]}

    def entries(self, phase: str) -> dict[str, dict[str, Any]]:
        """The record of a finished phase's files, by name; callers may add to it and save."""
        return (self.staged if phase in self.staged else self.phases)[phase]["files"]

    def drop_file(self, phase: str, name: str) -> None:
        """Removes a file from the record of its phase, which stays finished."""
        self.entries(phase).pop(name, None)
        self.save()

    def entry(self, name: str) -> dict[str, Any] | None:
        """The record of a file in its place."""
        return next((record["files"][name] for record in self.phases.values() if name in record["files"]), None)

    def may_replace(self, name: str, *, beside_checkpoint: bool) -> bool:
        """Test that a file listed by a finished phase may be replaced or removed: it must not be a checkpoint's own.

        beside_checkpoint: the original checkpoint is in `ckpt/`, where its files have the names of copies. Then only
        the file that the compiler wrote may be, known by size, time and inode.
        """
        if not (beside_checkpoint and is_copy(name)):
            return True
        return self.tree.info(name) is None or self.is_in_place(name)

    def is_in_place(self, name: str) -> bool:
        """Test that the file in its place is the recorded one, by size, time and inode.

        A stranger who makes a folder for others can write a state too, but does not know the inodes of its files.
        """
        found, entry = self.tree.info(name), self.entry(name)
        return found is not None and entry is not None and place_of(found).items() <= entry.items()

    def save(self) -> None:
        """Writes the file that `load` reads."""
        self._write(self.root / STATE_FILE, {"phases": self.phases, "staged": self.staged})

    def save_adopted(self, path: Path) -> None:
        """Writes the record as it will be when every staged file is in place."""
        self._write(path, {"phases": self.phases | self.staged})

    def _write(self, path: Path, tables: dict[str, dict[str, Any]]) -> None:
        tables = {name: dict(sorted(table.items())) for name, table in tables.items() if table}
        write_text(path, dump_json({"format": STATE_FORMAT, **tables}), self.root)


def _table(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _is_record(phase: str, record: Any) -> bool:
    """Test that there is such a phase, and that it writes all listed files. Others would be deleted."""
    names = files_of_phase(phase)
    if names is None or not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        return False
    return all(names.fullmatch(name) and isinstance(entry, dict) for name, entry in record["files"].items())
