"""What is written below a folder that a stranger has made stays in it, whatever the folder holds."""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import hyperdex_ir
from hyperdex_ir.backend.lock import LOCK_FILE, locked_folder
from hyperdex_ir.backend.payload import PayloadWriter, atomic_payloads
from hyperdex_ir.errors import StorageError
from hyperdex_ir.support.files import Kind, atomic_file, write_text
from hyperdex_ir.support.folder_access import FolderTree, NewFile, read_link

PACKAGE = Path(hyperdex_ir.__file__).parent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "canary.bin"
    path.write_bytes(b"mine")
    return path


def write(tree: FolderTree, name: str) -> None:
    with tree.new_file(name) as file:
        file.write(b"new")


def grow(tree: FolderTree, name: str) -> None:
    with tree.grown_file(name) as file:
        file.write(b"new")


def read(tree: FolderTree, name: str) -> None:
    with tree.open_file(name) as file:
        file.read()


CHANGES: list[Callable[[FolderTree, str], object]] = [
    write,
    grow,
    read,
    lambda tree, name: tree.remove(name),
    lambda tree, name: tree.move(name, "here"),
    lambda tree, name: tree.move("own", name),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("folder", ["linked", "inner/linked", "inner/up/elsewhere", "param/linked"])
def test_no_folder_is_reached_through_a_link(
    root: Path, canary: Path, folder: str, change: Callable[[FolderTree, str], object]
) -> None:
    (root / "own").write_bytes(b"own")
    (root / "param").mkdir()
    for name in ("linked", "inner/linked", "param/linked"):
        (root / name).symlink_to(canary.parent)
    (root / "inner/up").symlink_to(root.parent)
    with pytest.raises(StorageError, match=r"a link to .*, which is not followed"):
        change(FolderTree(root), f"{folder}/{canary.name}")
    assert [path.name for path in canary.parent.iterdir()] == [canary.name]
    assert canary.read_bytes() == b"mine"


def test_the_folders_that_may_be_links_are_followed_where_the_user_owns_both(
    root: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "param").symlink_to(canary.parent)
    write(FolderTree(root), "param/new.bin")
    assert (canary.parent / "new.bin").read_bytes() == b"new"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StorageError, match="it belongs to another user"):
        write(FolderTree(root), "param/other.bin")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user: needs root")
def test_a_link_of_the_users_own_to_a_folder_of_another_user(root: Path, canary: Path) -> None:
    (root / "param").symlink_to(canary.parent)
    os.chown(canary.parent, 12345, 12345)
    with pytest.raises(StorageError, match="it leads to a folder of another user"):
        write(FolderTree(root), "param/new.bin")


def test_a_link_to_nothing(root: Path, tmp_path: Path) -> None:
    (root / "param").symlink_to(tmp_path / "nothing")
    (root / "file.bin").symlink_to(tmp_path / "nothing")
    with pytest.raises(StorageError, match="which leads to no folder"):
        write(FolderTree(root), "param/new.bin")
    with pytest.raises(StorageError, match="which is not followed"):
        grow(FolderTree(root), "file.bin")
    write(FolderTree(root), "file.bin")
    assert not (tmp_path / "nothing").exists()
    assert not (root / "file.bin").is_symlink()


@pytest.mark.parametrize("pid", ["own", "random"])
def test_nobody_can_foresee_the_name_of_an_unfinished_file(
    root: Path, canary: Path, pid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a link of that name, were it foreseen, lead anywhere."""
    names = [f".{name}.{os.getpid()}.part" for name in ("a.bin", "b.txt")]
    if pid == "random":
        monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
        names = [f".{name}.{'0' * 16}.part" for name in ("a.bin", "b.txt")]
    for name in names:
        (root / name).symlink_to(canary)
        (root / "inner" / name).symlink_to(canary.parent / "created")
    for folder in (root, root / "inner"):
        try:
            with atomic_payloads([folder / "a.bin"], root, Kind.MODEL, PayloadWriter) as (writer,):
                writer.write(bytes(64))
            write_text(folder / "b.txt", "text", root)
        except FileExistsError:
            assert pid == "random"
    assert canary.read_bytes() == b"mine"
    assert [path.name for path in canary.parent.iterdir()] == [canary.name]


@pytest.mark.parametrize("name", ["../canary", "/canary", "inner/../../canary", "", "."])
def test_names_stay_below_the_root(root: Path, name: str) -> None:
    with pytest.raises((ValueError, StorageError, OSError)):
        write(FolderTree(root), name)
    assert sorted(path.name for path in root.parent.iterdir()) == ["root"]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_file_is_neither_opened_nor_replaced(root: Path, kind: int) -> None:
    os.mknod(root / "odd", kind | 0o600)
    for change in (write, grow, read, lambda tree, name: tree.move(name, "here")):
        with pytest.raises(StorageError, match="not a file"):
            change(FolderTree(root), "odd")
    assert FolderTree(root).is_no_folder("odd")
    assert not FolderTree(root).is_file("odd")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_place_of_one(root: Path, make: Callable[[Path], object]) -> None:
    (root / "own").write_bytes(b"own")
    make(root / "odd")
    tree = FolderTree(root)
    for change in (write, grow, read, lambda tree, name: tree.move("own", name), FolderTree.check_replaceable):
        with pytest.raises(StorageError, match=rf"{root}/odd: not a file"):
            change(tree, "odd")
    assert (root / "own").read_bytes() == b"own"
    tree.check_replaceable("own")
    tree.check_replaceable("nothing/at/all")


def test_a_folder_is_not_removed_as_a_file(root: Path) -> None:
    with pytest.raises(StorageError, match=rf"{root}/inner: not a file"):
        FolderTree(root).remove("inner")
    assert (root / "inner").is_dir()


def test_a_file_that_grows_has_no_other_name(root: Path, canary: Path) -> None:
    (root / "part").hardlink_to(canary)
    with pytest.raises(StorageError, match="a file with several names"):
        grow(FolderTree(root), "part")
    assert canary.read_bytes() == b"mine"


def test_links_themselves_are_removed_and_replaced(root: Path, canary: Path) -> None:
    tree = FolderTree(root)
    (root / "removed").symlink_to(canary)
    (root / "replaced").symlink_to(canary)
    (root / "empty").symlink_to(canary.parent)
    tree.remove("removed")
    write(tree, "replaced")
    tree.remove_if_empty("empty")
    assert not (root / "removed").exists()
    assert (root / "replaced").read_bytes() == b"new"
    assert not (root / "replaced").is_symlink()
    assert (root / "empty").is_symlink()
    assert canary.read_bytes() == b"mine"


def test_a_file_that_is_not_finished_leaves_nothing(root: Path) -> None:
    new = NewFile(FolderTree(root), "inner/file")
    new.begin()
    assert len(list((root / "inner").iterdir())) == 1
    new.discard()
    with pytest.raises(KeyboardInterrupt), atomic_file(root / "inner/file", root):
        raise KeyboardInterrupt
    assert list((root / "inner").iterdir()) == []


def test_an_interrupt_while_a_file_is_made_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        assert len(list((root / "inner").iterdir())) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", interrupt)
        with pytest.raises(KeyboardInterrupt), atomic_file(root / "inner/file", root):
            pass
    assert list((root / "inner").iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "second name", "fifo"])
def test_the_lock_is_a_file_of_its_own(root: Path, canary: Path, kind: str) -> None:
    lock = root / LOCK_FILE
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "link":
        lock.symlink_to(canary)
    else:
        lock.hardlink_to(canary)
    with pytest.raises(StorageError, match=f"{LOCK_FILE}: not a file with one name"), locked_folder(root):
        pass
    assert canary.read_bytes() == b"mine"
    assert os.path.lexists(lock)


# ------------------------------------------------------------------------------------------- nobody else does it
#: Modules that change the file system themselves, and where: the wall; the caches in the user's home, whose folders
#: are checked there; a folder of its own in the system's place for temporary files; the root of a model. `reading.py`
#: opens for reading only.
ALLOWED = {
    "support/folder_access.py": None,
    "support/disk_cache.py": None,
    "backend/plan.py": {"rmtree"},
    "backend/text.py": {"mkdir", "write_bytes"},  # a temporary folder
    "backend/lock.py": {"mkdir", "rmdir"},
    "checkpoint/pretrained.py": {"symlink_to", "write_text"},
    "support/files.py": {"open"},  # what is in /dev
    "support/reading.py": {"open"},
    "runtime/secret.py": None,
}
CALLS = {
    "replace", "rename", "renames", "unlink", "remove", "removedirs", "rmdir", "mkdir", "makedirs", "link", "symlink",
    "truncate", "mkfifo", "mknod", "chmod", "utime", "rmtree", "move", "copy", "copy2", "copyfile", "copytree",
}  # fmt: skip
MODULES = {"os", "shutil"}
MODE = re.compile(r"r?b?[wax]b?\+?b?|r?b?\+b?")
METHODS = {"unlink", "rmdir", "mkdir", "write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "tofile"}


def changes(tree: ast.Module) -> list[tuple[int, str]]:
    """Calls that change the file system, by line."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        of = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        is_call = of in MODULES and name in CALLS
        is_method = isinstance(function, ast.Attribute) and name in METHODS
        is_rename = isinstance(function, ast.Attribute) and name in ("replace", "rename") and len(node.args) == 1
        given = [one for one in [*node.args, *(key.value for key in node.keywords)] if isinstance(one, ast.Constant)]
        writes = name == "open" and any(MODE.fullmatch(str(one.value)) for one in given)
        if is_call or is_method or (is_rename and not node.keywords) or writes or (of == "os" and name == "open"):
            found.append((node.lineno, name))
    return found


@pytest.mark.slow
def test_only_one_module_changes_the_folders_of_models() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        allowed = ALLOWED.get(name, set())
        calls = changes(ast.parse(path.read_text(encoding="utf-8")))
        found += [f"{name}:{line}: {call}" for line, call in calls if allowed is not None and call not in allowed]
    assert found == []


def test_what_belongs_to_a_model_is_written_below_its_root() -> None:
    """Without a root, a file's own folder is followed: that is for where the user asked to write."""
    found = []
    for path in sorted(
        (*(PACKAGE / "backend").glob("*.py"), PACKAGE / "hub/download.py", *(PACKAGE / "checkpoint").glob("*.py"))
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                wanted = {"write_text": 3, "atomic_file": 2, "write_binary": 4}.get(node.func.id, 0)
                if len(node.args) < wanted and path.name != "dumps.py":
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="only Linux can open a link itself")
def test_owner_and_text_are_of_one_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process puts another link in its place in between."""
    path, owner_of = tmp_path / "link", os.fstat
    path.symlink_to("mine")

    def exchange(descriptor: int) -> os.stat_result:
        path.unlink()
        path.symlink_to("another")
        return owner_of(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", exchange)
        outer = os.open(tmp_path, os.O_RDONLY)
        assert read_link("link", outer) == (os.geteuid(), "mine")
    os.close(outer)
    assert os.readlink(path) == "another"
