"""Fingerprint of the source weights: hashes of the tensors that a conversion used, taken while it read them.

The record of a file: its place on the disk, a hash of its header's entries, and for each tensor that was used the hash
of its bytes and their order (`checkpoint/hashing.py`). A tensor that was not used cannot have changed the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.state import State, describe_place, digest
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.hashing import Watched
from hyperdex_ir.checkpoint.tensors import Tensor
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.support.progress import byte_progress


class SourceWatch:
    """The tensors that a conversion reads from the weight files `paths` of the checkpoint in `directory`.

    Make it before the first file is read.
    """

    def __init__(self, directory: Path, paths: Sequence[Path]):
        self._directory = directory
        self._places = {path: describe_place(path) for path in paths}
        self._tensors: dict[Path, dict[str, Watched]] = {path: {} for path in paths}

    def watch(self, checkpoint: Checkpoint) -> None:
        """Makes the tensors of a checkpoint hash themselves while they are read. Call it before they are used."""
        for path, tensors in self._tensors.items():
            tensors.update({name: Watched(tensor) for name, tensor in _tensors_of(checkpoint, path).items()})
            checkpoint.tensors.update(tensors)

    def describe(self) -> dict[str, Any]:
        """The records of the files, by name, when the conversion is finished.

        Raises CheckpointError when a file has changed since this object was made.
        """
        used = {
            path: {name: one for name, one in tensors.items() if one.order} for path, tensors in self._tensors.items()
        }
        unseen = {path: sum(one.unseen_bytes for one in tensors.values()) for path, tensors in used.items()}
        with _hashing(sum(unseen.values())) as advance:
            found = {
                _name(self._directory, path): {
                    **self._places[path],
                    "header": _header_digest(self._tensors[path]),
                    "tensors": {
                        name: {"order": one.order, "sha256": one.sha256(advance)} for name, one in tensors.items()
                    },
                }
                for path, tensors in used.items()
            }
        touched = [path for path, place in self._places.items() if _place(path) != place]
        if any(unseen[path] for path in touched) or not is_unchanged(self._directory, found, list(self._places)):
            raise CheckpointError(
                f"{', '.join(map(str, touched))}: changed while it was converted", "compile again when it is complete"
            )
        return found


class KnownSources:
    """Comparison of weight files with those that a phase used. Files that differ are read only once to find that."""

    def __init__(self) -> None:
        self._others = ""

    def are_unchanged(self, state: State, phase: str, directory: Path, paths: Sequence[Path]) -> bool:
        """Test that the weight files hold the tensors that the finished phase used; records their present places."""
        kept = state.inputs(phase)
        before = digest(kept)
        asked = digest([before, *map(_place, paths)])
        if asked == self._others:
            return False
        if not is_unchanged(directory, kept, paths):
            self._others = asked
            return False
        if digest(kept) != before:
            state.save()
        return True


def _name(directory: Path, path: Path) -> str:
    """The name of a weight file of a checkpoint, with the folder that it lies in."""
    return path.relative_to(directory).as_posix()


def is_unchanged(directory: Path, record: Any, paths: Sequence[Path]) -> bool:
    """Test that the weight files hold what they held when `record` was made; updates the places in `record`.

    Only files that were touched are read, and of these the tensors that were used. `record` may be any JSON value.
    """
    names = {path: _name(directory, path) for path in paths}
    if not isinstance(record, dict) or record.keys() != set(names.values()):
        return False
    if not all(isinstance(kept, dict) for kept in record.values()):
        return False
    touched: dict[Path, dict[str, int]] = {}
    for path in paths:
        place, kept = _place(path), record[names[path]]
        if place is None or place["bytes"] != kept.get("bytes"):
            return False
        if not place.items() <= kept.items():
            touched[path] = place
    if touched and not _hold(directory, list(touched), record):
        return False
    for path, place in touched.items():
        record[names[path]].update(place)
    return True


def _place(path: Path) -> dict[str, int] | None:
    """The place of a file (`describe_place`); None when there is no file."""
    try:
        return describe_place(path)
    except OSError:
        return None


def _hold(directory: Path, paths: Sequence[Path], record: dict[str, dict[str, Any]]) -> bool:
    """Test that these files, of one checkpoint, have the recorded headers and tensors."""
    expected: list[tuple[Watched, Any]] = []
    try:
        checkpoint = Checkpoint(directory)
        for path in paths:
            tensors, kept = _tensors_of(checkpoint, path), record[_name(directory, path)]
            if _header_digest(tensors) != kept.get("header") or not _is_listed(kept.get("tensors"), tensors):
                return False
            expected += [(Watched(tensors[name], one["order"]), one["sha256"]) for name, one in kept["tensors"].items()]
        with _hashing(sum(tensor.unseen_bytes for tensor, _ in expected)) as advance:
            return all(tensor.sha256(advance) == sha256 for tensor, sha256 in expected)
    except CheckpointError:  # no longer the same checkpoint: the conversion will say what is wrong with it
        return False


def _is_listed(kept: Any, tensors: Mapping[str, Tensor]) -> bool:
    """Test that a record gives the order and the hash of some of the tensors, and nothing else."""
    if not isinstance(kept, dict) or not kept.keys() <= tensors.keys():
        return False
    return all(isinstance(one, dict) and one.keys() == {"order", "sha256"} for one in kept.values())


def _tensors_of(checkpoint: Checkpoint, path: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in checkpoint.tensors.items() if checkpoint.files[name] == path}


def _header_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of the names, types and shapes of a file's tensors."""
    return digest([[name, tensors[name].dtype, list(tensors[name].shape)] for name in sorted(tensors)])


@contextmanager
def _hashing(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar, when there is anything to hash."""
    if total == 0:
        yield lambda count: None
        return
    with byte_progress("hash", total) as advance:
        yield advance
