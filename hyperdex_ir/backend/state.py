"""Which phases of a model's folder are finished, and with what: the memory between one compile and the next.

Kept in a hidden file beside the manifest, because it holds what the manifest must not: it depends on the modification
times of the checkpoint. Losing it costs a compile from the beginning, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xdsl.passes import ModulePass

from hyperdex_ir import __version__
from hyperdex_ir.files import write_text
from hyperdex_ir.memory.serialize import FORMAT, dump_json

STATE_FILE = ".hyperdex_state.json"
_COMPILER = ("backend", "dialects", "frontend", "isa", "memory", "passes", "targets")


def versions() -> dict[str, str]:
    """Versions of this package and of those that shape what it writes."""
    return {"hyperdex-ir": __version__, **{name: version(name) for name in ("xdsl", "torch", "transformers", "numpy")}}


@cache
def compiler_digest() -> str:
    """A hash of the code that shapes what a compile writes: in development, one version has many."""
    package, found = Path(__file__).parent.parent, hashlib.sha256()
    for folder in _COMPILER:
        for path in sorted((package / folder).rglob("*")):
            if path.suffix in (".py", ".toml", ".pipeline"):
                found.update(path.relative_to(package).as_posix().encode())
                found.update(path.read_bytes())
    return found.hexdigest()


def extension_digest(passes: Iterable[ModulePass]) -> str:
    """A hash of the code of passes and patterns that other packages add; empty when there are none of theirs."""
    classes = [type(one) for one in passes]
    for one in passes:
        classes += getattr(one, "pattern_classes", list)()
    names = sorted({cls.__module__.partition(".")[0] for cls in classes} - {"hyperdex_ir", "xdsl"})
    files = [path for name in names for path in _sources(name)]
    return digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in files]) if files else ""


def _sources(name: str) -> list[Path]:
    """The files of a package or module that has been imported."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def digest(value: Any) -> str:
    """A hash of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_digest(files: Iterable[Path]) -> str:
    """A hash of names, sizes and modification times."""
    stats = [(path, path.stat()) for path in files]
    return digest([[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in stats])


@dataclass
class State:
    """The finished phases of the folder `root`, by phase name."""

    root: Path
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path) -> State:
        """What the last compile left; empty when there is nothing readable."""
        try:
            value = json.loads((root / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return cls(root)
        if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("phases"), dict):
            return cls(root)
        phases = value["phases"]
        return cls(root, {name: record for name, record in phases.items() if _is_record(record)})

    def is_done(self, phase: str, key: str, inputs: str | None = None) -> bool:
        """Whether the phase has finished with this key (and these inputs, unless None) and its files are all there.

        key: that of the request, or of what the request came to.
        """
        record = self.phases.get(phase)
        if not record or key not in (record.get("key"), record.get("content")):
            return False
        if inputs is not None and record.get("inputs") != inputs:
            return False
        return all(_has_size(self.root / name, size) for name, size in record["files"].items())

    def begin(self, phase: str) -> None:
        """Forgets the phase, which is about to be done anew."""
        if self.phases.pop(phase, None) is not None:
            self._save()

    def finish(self, phase: str, key: str, content: str, inputs: str | None, files: Iterable[Path]) -> None:
        """Records that the phase has written `files`.

        key: what was asked for. content: what that came to; who knows that too finds the phase done by it.
        """
        sizes = {path.relative_to(self.root).as_posix(): path.stat().st_size for path in files}
        self.phases[phase] = {"key": key, "content": content, "inputs": inputs, "files": sizes}
        self._save()

    def files(self, phase: str) -> list[Path]:
        """The files of a finished phase."""
        return [self.root / name for name in self.phases[phase]["files"]]

    def drop_file(self, phase: str, path: Path) -> None:
        """The phase stays finished without this file."""
        self.phases[phase]["files"].pop(path.relative_to(self.root).as_posix(), None)
        self._save()

    def _save(self) -> None:
        write_text(self.root / STATE_FILE, dump_json({"format": FORMAT, "phases": dict(sorted(self.phases.items()))}))


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("files"), dict)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def leftovers(root: Path) -> list[Path]:
    """Unfinished files of compiles that were killed; for who holds the folder."""
    return sorted(path for path in (*root.glob(".*.part"), *root.glob("*/.*.part")) if path.is_file())
