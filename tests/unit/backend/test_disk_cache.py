"""Entries that others may have written do not count; what is not the cache's stays; keys follow all of the code."""

from __future__ import annotations

import ast
import functools
import os
import stat
import sys
from importlib import metadata
from pathlib import Path

import pytest

import hyperdex_ir
from hyperdex_ir.support import disk_cache, own_code
from hyperdex_ir.support.disk_cache import DiskCache

PACKAGE = Path(hyperdex_ir.__file__).parent
#: Libraries that show, find or transport things, and shape no byte of what is kept.
SHAPELESS = {"filelock", "huggingface_hub", "rich"}


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    disk_cache._say.cache_clear()
    made = DiskCache(tmp_path / "cache", b"MAGIC", r"entry-\d+", 2)
    made.write("entry-1", "key", b"data")
    assert made.read("entry-1", "key") == b"data"
    return made


def be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


# ---------------------------------------------------------------------------------------------------- who wrote it
def test_what_is_made_is_for_its_owner_alone(cache: DiskCache) -> None:
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert (cache.folder / "entry-1").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_entry_that_others_may_write_does_not_count(
    cache: DiskCache, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache.folder / "entry-1").chmod(mode)
    assert cache.read("entry-1", "key") is None
    assert cache.read("entry-1", "key") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert f"entry-1: not used, because others may write it (mode {mode:04o})" in line
    cache.write("entry-1", "key", b"data")
    assert cache.read("entry-1", "key") == b"data"


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_what_lies_where_others_may_write_does_not_count(
    cache: DiskCache, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.folder.chmod(mode)
    (cache.folder / "own.txt").write_text("")
    assert cache.read("entry-1", "key") is None
    assert cache.read("entry-1", "key") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"(mode {mode:04o}); now they cannot, its entries are made anew")
    assert cache.folder.stat().st_mode & 0o777 == mode & 0o755
    cache.write("entry-2", "key", b"data")
    assert sorted(os.listdir(cache.folder)) == ["entry-2", "own.txt"]


def test_an_entry_with_a_second_name_does_not_count(cache: DiskCache, tmp_path: Path) -> None:
    os.link(cache.folder / "entry-1", tmp_path / "other")
    assert cache.read("entry-1", "key") is None


def test_what_belongs_to_another_does_not_count(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_another(monkeypatch)
    assert cache.read("entry-1", "key") is None
    cache.write("entry-2", "key", b"data")
    assert f"it belongs to user {os.getuid()}, not to {os.getuid() + 1}" in capsys.readouterr().err
    assert os.listdir(cache.folder) == ["entry-1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_entry_of_another_in_ones_own_folder_does_not_count(cache: DiskCache) -> None:
    os.chown(cache.folder / "entry-1", 12345, -1)
    assert cache.read("entry-1", "key") is None


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_file_does_not_count(cache: DiskCache, tmp_path: Path, kind: str) -> None:
    path, other = cache.folder / "entry-1", tmp_path / "other"
    entry = path.read_bytes()
    path.unlink()
    if kind == "link":
        other.write_bytes(entry)
    make = {"pipe": os.mkfifo, "folder": os.mkdir}.get(kind, lambda path: os.symlink(other, path))
    make(path)
    assert cache.read("entry-1", "key") is None
    cache.write("entry-1", "key", b"new")
    assert kind != "link" or other.read_bytes() == entry
    assert kind != "dangling" or not other.exists()
    assert cache.read("entry-1", "key") == (None if kind == "folder" else b"new")


def test_a_link_of_ones_own_leads_to_another_disk(cache: DiskCache, tmp_path: Path) -> None:
    cache.folder.rename(tmp_path / "disk")
    cache.folder.symlink_to(tmp_path / "disk")
    assert cache.read("entry-1", "key") == b"data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_is_not_followed(cache: DiskCache, tmp_path: Path) -> None:
    cache.folder.rename(tmp_path / "disk")
    cache.folder.symlink_to(tmp_path / "disk")
    os.chown(cache.folder, 12345, -1, follow_symlinks=False)
    assert cache.read("entry-1", "key") is None


def test_a_folder_of_others_behind_a_link_stays_as_it_is(cache: DiskCache, tmp_path: Path) -> None:
    disk = cache.folder.rename(tmp_path / "disk")
    disk.chmod(0o775)
    cache.folder.symlink_to(disk)
    before = sorted(os.listdir(disk))
    assert cache.read("entry-1", "key") is None
    cache.write("entry-2", "key", b"data")
    assert (stat.S_IMODE(disk.stat().st_mode), sorted(os.listdir(disk))) == (0o775, before)


# ---------------------------------------------------------------------------------------------------- pruning
def fill(cache: DiskCache) -> set[str]:
    """The names in the cache's folder after more entries than it keeps, all newer than what was there."""
    for path in cache.folder.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    for number in range(2, 6):
        cache.write(f"entry-{number}", "key", b"data")
    return set(os.listdir(cache.folder))


def test_only_entries_are_pruned(cache: DiskCache, tmp_path: Path) -> None:
    head = (cache.folder / "entry-1").read_bytes()
    kept = {
        "letters.txt": b"of one's own",
        "entry-70": b"by an entry's name, but not by the cache",
        "entry-8.part": head,
        "my-entry-9": head,
        f"entry-6.{'0' * 15}.tmp": head,
    }
    for name, data in kept.items():
        (cache.folder / name).write_bytes(data)
    left = cache.folder / f"entry-6.{'0' * 16}.tmp"
    left.write_bytes(head[:3])
    target = tmp_path / "target"
    target.write_bytes(head)
    (cache.folder / "entry-11").symlink_to(target)
    (cache.folder / "entry-12").mkdir()
    assert fill(cache) == {*kept, "entry-11", "entry-12", "entry-4", "entry-5"}
    assert target.read_bytes() == head


def test_nothing_is_pruned_behind_a_link(cache: DiskCache, tmp_path: Path) -> None:
    cache.folder.rename(tmp_path / "disk")
    cache.folder.symlink_to(tmp_path / "disk")
    assert fill(cache) == {f"entry-{number}" for number in range(1, 6)}


# ---------------------------------------------------------------------------------------------------- keys
def modules_from(name: str) -> set[str]:
    """The modules of the package that importing this one and calling it can reach, by the text of their imports."""
    reached, left = set[str](), [name]
    while left:
        module = left.pop()
        if module in reached or not path_of(module).exists():
            continue
        reached.add(module)
        left += imported(path_of(module))
    return reached


def path_of(module: str) -> Path:
    path = PACKAGE.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def imported(path: Path) -> list[str]:
    """Names that a module's import statements can stand for: modules, or attributes of one."""
    names = list[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def libraries_behind(module: str) -> set[str]:
    """Top-level names of the libraries that the modules behind this one import."""
    reached = modules_from(module)
    assert len(reached) > 3
    names = {name.partition(".")[0] for one in reached for name in imported(path_of(one))}
    return names - set(sys.stdlib_module_names) - {"hyperdex_ir", "__future__"}


@pytest.mark.slow
def test_a_key_names_every_library_that_shapes_what_it_stands_for() -> None:
    assert libraries_behind("hyperdex_ir.native.codegen") == {"llvmlite", "numpy"}
    for root in ("hyperdex_ir.backend.compilation", "hyperdex_ir.checkpoint.gguf"):
        assert libraries_behind(root) <= {*own_code.LIBRARIES, *SHAPELESS}, root


def test_each_file_of_the_package_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_PACKAGE", tmp_path)
    digests = set[str]()

    def digest_is_new() -> bool:
        before = len(digests)
        digests.add(own_code.code_digest.__wrapped__())
        return len(digests) > before

    assert digest_is_new()
    for name in ("sampling.py", "deep/settings.py", "deep/u55c.toml", "deep/o0.pipeline"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
        assert digest_is_new()
        (tmp_path / name).write_text("2")
        assert digest_is_new()
    (tmp_path / "deep/__pycache__").mkdir()
    for name in ("settings.pyc", "__pycache__/settings.cpython-311.pyc.140234"):  # the second while it is written
        (tmp_path / "deep" / name).write_text("1")
        assert not digest_is_new()
    (tmp_path / "sampling.py").rename(tmp_path / "other.py")
    assert digest_is_new()
    monkeypatch.setattr(metadata, "version", lambda name: "0")
    assert digest_is_new()
    monkeypatch.setattr(own_code, "__version__", "0")
    assert digest_is_new()
