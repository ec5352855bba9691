"""Chat templates and vocabularies of the source package of llama-cpp-python, read as data.

`LLAMA_CPP_SDIST` names the package as it is published (`llama_cpp_python-*.tar.gz`), or the folder of its contents.
Tests that need it are skipped without it.
"""

from __future__ import annotations

import os
import tarfile
from functools import cache
from pathlib import Path

import pytest

VARIABLE = "LLAMA_CPP_SDIST"


@cache
def templates() -> dict[str, str]:
    """Each chat template of the package by its name; empty without the package."""
    return {name: data.decode() for name, data in _contents("models/templates/", ".jinja").items()}


@cache
def vocabularies() -> dict[str, bytes]:
    """Each GGUF file with nothing but a vocabulary, by its name; empty without the package."""
    return _contents("models/ggml-vocab-", ".gguf")


def needs_package() -> pytest.MarkDecorator:
    """A mark for tests that are skipped without the package."""
    missing = VARIABLE not in os.environ
    return pytest.mark.skipif(missing, reason=f"{VARIABLE} does not name the source package of llama-cpp-python")


def _contents(start: str, end: str) -> dict[str, bytes]:
    if VARIABLE not in os.environ:
        return {}
    place = Path(os.environ[VARIABLE])
    if place.is_dir():
        found = {path.name: path.read_bytes() for path in place.rglob(f"*{end}") if start in path.as_posix()}
    else:
        found = _of_archive(place, start, end)
    return dict(sorted(found.items()))


def _of_archive(archive: Path, start: str, end: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as file:
        for member in file:
            content = file.extractfile(member) if start in member.name and member.name.endswith(end) else None
            if content is not None:
                found[Path(member.name).name] = content.read()
    return found
