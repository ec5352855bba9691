"""Folders that someone has prepared: a compile or a clean of one changes nothing outside, and no original in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint

from hyperdex_ir.backend.staging import settle
from hyperdex_ir.backend.state import State
from hyperdex_ir.cli.main import main
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

STATE = ".hyperdex_state.json"
STAGING = ".hyperdex_next"
WEIGHTS = "model.safetensors"
NOT_ORIGINAL = shutil.ignore_patterns("ckpt", "param", "inst", "config", "manifest.json", STATE)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("prepared") / "model")
    AutoCompiler().compile(str(model))
    return model


@pytest.fixture
def model(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "model"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Files of the user's that have nothing to do with the model, under the names that a compile writes."""
    folder = tmp_path / "elsewhere"
    names = ["a.bin", "b.json", "config.json", "tokenizer.json", WEIGHTS, "param_1lpu_00_00.bin", "inst_1lpu.bin"]
    names += ["config_1lpu_hbm.json", "hyperdex_model.bin", "manifest.json", STATE, "ckpt/config.json"]
    names += ["param/param_9lpu_00_00.bin", "ckpt/hyperdex_model.bin", ".a.bin.1.part"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return folder


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and times of all files, and the folders."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes() if path.is_file() else b"", path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code of a command, and the lines of its errors."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    return int(ended.value.code or 0), [line for line in lines if not line.startswith("[ INFO ]")]


def edit_state(model: Path, edit: Callable[[dict[str, Any]], None], name: str = STATE) -> None:
    state = json.loads((model / STATE).read_text())
    edit(state)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text(json.dumps(state))


def entry_of(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


COMMANDS = {"compile": ["compile", "--force"], "again": ["compile"], "clean": ["clean"], "all": ["clean", "--compiled"]}


# ------------------------------------------------------------------------------------- 4: writing outside the folder
@pytest.mark.parametrize("command", ["compile", "clean"])
def test_links_of_the_names_that_unfinished_files_had(
    model: Path, elsewhere: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To files, and to nothing. The number of this process is the one that the compile has."""
    before, links = tree(elsewhere), []
    names = ["manifest.json", STATE, "ckpt/hyperdex_model.bin", "ckpt/tokenizer.json", "param/param_1lpu_00_00.bin"]
    names += ["config/config_1lpu_hbm.json", "inst/inst_1lpu.bin", "inst/inst_1lpu.json"]
    for number, name in enumerate([*names, *(f"{STAGING}/{name}" for name in names)]):
        folder, _, last = name.rpartition("/")
        link = model / folder / f".{last}.{os.getpid()}.part"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(elsewhere / ("a.bin" if number % 2 else f"created{number}"))
        links.append(link)
    assert run(capsys, *COMMANDS[command], str(model)) == (0, [])
    assert tree(elsewhere) == before
    assert not [link for link in links if os.path.lexists(link)]


@pytest.mark.parametrize("name", ["ckpt", "param", "config", "inst", STAGING, f"{STAGING}/param", f"{STAGING}/ckpt"])
def test_folders_that_are_links(model: Path, elsewhere: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(elsewhere)
    shutil.rmtree(model / name, ignore_errors=True)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to(elsewhere)
    for command, arguments in COMMANDS.items():
        code, lines = run(capsys, *arguments, str(model))
        assert tree(elsewhere) == before
        if (command, name.partition("/")[0]) != ("again", STAGING):
            assert code == 1
            assert lines[0].startswith(f"error[HDX0503]: {model / name}: a link to {elsewhere}, which ")
            assert lines[1].startswith("hint: remove the link")


def test_what_reproduces_a_failure_is_not_written_behind_a_link(
    model: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hyperdex_ir.errors import PassError
    from hyperdex_ir.passes.lpu_fuse_norm import LpuFuseNormPass

    def fail(*_: object) -> None:
        raise PassError("a pass that fails")

    before = tree(elsewhere)
    (model / "repro").symlink_to(elsewhere)
    monkeypatch.setattr(LpuFuseNormPass, "apply", fail)
    code, lines = run(capsys, "compile", "--force", str(model))
    assert (code, tree(elsewhere)) == (1, before)
    assert f"could not be written: {model}/repro: a link to {elsewhere}" in lines[-1]


# ------------------------------------------------------------------------------------------ 5: deleting outside
FORGED = [WEIGHTS, "linked/a.bin", "../elsewhere/a.bin", "tokenizer.json", f"{STAGING}/../{WEIGHTS}", "own.txt"]


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("table", ["phases", "staged"])
def test_names_in_the_state(
    model: Path, elsewhere: Path, table: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(elsewhere)
    (model / "linked").symlink_to(elsewhere)
    (model / "own.txt").write_text("mine")
    originals = {name: (model / name).read_bytes() for name in (WEIGHTS, "config.json", "tokenizer.json", "own.txt")}

    def edit(state: dict[str, Any]) -> None:
        entries = {name: entry_of(model / name) for name in FORGED if (model / name).exists()}
        state[table] = {phase: {**one, "files": {**one["files"], **entries}} for phase, one in state["phases"].items()}

    edit_state(model, edit)
    (model / STAGING).mkdir(exist_ok=True)
    (model / STAGING / "linked").symlink_to(elsewhere)
    (model / STAGING / "own.txt").write_text("staged")
    run(capsys, *COMMANDS[command], str(model))
    assert tree(elsewhere) == before
    assert {name: (model / name).read_bytes() for name in originals} == originals


@pytest.mark.parametrize("command", ["again", "clean"])
def test_what_is_staged_for_other_places(
    model: Path, elsewhere: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A compile that seems to have been killed among its renames: the next command does the others."""
    before = tree(elsewhere)
    (model / "linked").symlink_to(elsewhere)
    original = (model / WEIGHTS).read_bytes()
    names = [WEIGHTS, "linked/a.bin", "linked/created.bin"]
    for name in names:
        (model / STAGING / name).parent.mkdir(parents=True, exist_ok=True)
        (model / STAGING / name).write_text("theirs")
    shutil.copyfile(model / "manifest.json", model / STAGING / "manifest.json")

    def edit(state: dict[str, Any]) -> None:
        state["phases"]["4-1lpu"]["files"] |= {name: entry_of(model / STAGING / name) for name in names}

    edit_state(model, edit, f"{STAGING}/{STATE}")
    run(capsys, *COMMANDS[command], str(model))
    assert tree(elsewhere) == before
    assert (model / WEIGHTS).read_bytes() == original


@pytest.mark.parametrize("command", ["again", "all"])
def test_a_checkpoint_in_ckpt_keeps_its_own_files(
    compiled: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some of them have the names of copies that a compile makes of a checkpoint elsewhere."""
    model = tmp_path / "model"
    shutil.copytree(compiled, model / "ckpt", ignore=NOT_ORIGINAL)
    originals = {path.name: path.read_bytes() for path in (model / "ckpt").iterdir()}
    assert run(capsys, "compile", str(model)) == (0, [])

    def edit(state: dict[str, Any]) -> None:
        forged = {f"ckpt/{name}": {"bytes": len(data), "mtime_ns": 1, "inode": 1} for name, data in originals.items()}
        state["phases"]["2"]["files"] |= {name: one for name, one in forged.items() if name != f"ckpt/{WEIGHTS}"}

    edit_state(model, edit)
    shutil.copyfile(model / "manifest.json", tmp_path / "manifest.json")
    edit_state(model, lambda state: None, f"{STAGING}/{STATE}")
    (model / STAGING / "ckpt").mkdir()
    (model / STAGING / "ckpt/tokenizer.json").write_text("theirs")
    shutil.copyfile(tmp_path / "manifest.json", model / STAGING / "manifest.json")
    run(capsys, *COMMANDS[command], str(model))
    assert {name: (model / "ckpt" / name).read_bytes() for name in originals} == originals


@pytest.mark.parametrize("command", ["again", "clean", "all"])
def test_what_is_no_file_does_not_hang(model: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (STATE, f"{STAGING}/{STATE}", f"{STAGING}/manifest.json", "param/param_1lpu_00_01.bin"):
        (model / name).unlink(missing_ok=True)
        (model / name).parent.mkdir(exist_ok=True)
        os.mkfifo(model / name)
    code, lines = run(capsys, *COMMANDS[command], str(model))
    assert (code, lines) == (0, []) or lines[0].startswith("error[HDX0503]")


WRITTEN = ["manifest.json", STATE, "ckpt/hyperdex_model.bin", "ckpt/hyperdex_config.json", "inst/inst_1lpu.json"]
WRITTEN += ["ckpt/tokenizer.json", "param/param_1lpu_00_00.bin", "config/config_1lpu_hbm.json", "inst/inst_1lpu.bin"]


@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_place_of_one(
    model: Path, kind: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is compiled but for its names: each is refused by its path, and nothing has moved. A clean goes on."""
    staged = Path(shutil.copytree(model, model / STAGING, ignore=shutil.ignore_patterns(STAGING)))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", WEIGHTS):
        (staged / name).unlink()
    before = tree(staged)
    for name in WRITTEN:
        kept = (model / name).rename(model / "kept")
        kind(model / name)
        old = {path: facts for path, facts in tree(model).items() if (model / path).is_file()}
        code, lines = run(capsys, *COMMANDS["again"], str(model))
        assert (code, lines[0].startswith(f"error[HDX0503]: {model / name}: not a file")) == (1, True), lines
        assert lines[1].startswith("hint: move it away")
        assert tree(staged) == before
        assert {path: facts for path, facts in tree(model).items() if (model / path).is_file()} == old
        if (model / name).is_dir():
            (model / name).rmdir()
        else:
            (model / name).unlink()
        kept.rename(model / name)
    (model / "inst/inst_1lpu.bin").unlink()
    kind(model / "inst/inst_1lpu.bin")
    assert run(capsys, *COMMANDS["clean"], str(model)) == (0, [])
    assert not staged.exists()


# --------------------------------------------------------------------------------------- links of the user's own
@pytest.mark.parametrize("name", ["ckpt", "param"])
def test_a_compiled_folder_that_was_moved_to_another_place(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files keep their size and time, which only who has the folder can know."""
    other = Path(shutil.move(model / name, tmp_path / "disk"))
    (model / name).symlink_to(other)
    for command in ("again", "compile", "clean"):
        assert run(capsys, *COMMANDS[command], str(model)) == (0, [])
    assert CompiledModel.open(model).logits([1, 2]).shape[0] == 2
    assert run(capsys, *COMMANDS["all"], str(model)) == (0, [])
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("is_known", "words"), [(True, "leads into the folder of another model"), (False, "no compile of this folder has")]
)
def test_the_images_of_another_model(
    model: Path, compiled: Path, tmp_path: Path, is_known: bool, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(compiled, tmp_path / "other"))
    if not is_known:
        (other / STATE).unlink()
    (other / "param/param_1lpu_00_00.bin").touch()
    before = tree(other)
    shutil.rmtree(model / "param")
    (model / "param").symlink_to(other / "param")
    for command in COMMANDS.values():
        code, lines = run(capsys, *command, str(model))
        assert code == 1
        assert words in lines[0]
    assert tree(other) == before


def test_a_checkpoint_on_another_disk_gets_files_and_loses_none(
    compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "disk"
    before = tree(Path(shutil.copytree(compiled, other, ignore=NOT_ORIGINAL)))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/ckpt").symlink_to(other)
    assert run(capsys, "compile", str(tmp_path / "model")) == (0, [])
    added = {"hyperdex_model.bin", "hyperdex_config.json", "hyperdex_tokenizer_config.json"}
    assert tree(other).keys() - before.keys() == added
    assert run(capsys, *COMMANDS["all"], str(tmp_path / "model")) == (0, [])
    assert tree(other) == before


# ------------------------------------------------------------------------------------ copying what lies outside
@pytest.mark.parametrize("target", ["key", "absolute", "/proc/self/environ", "two links", "app"])
def test_no_file_outside_is_copied_into_the_folder(
    compiled: Path, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy is as readable as the folder, and goes where the folder goes."""
    model = Path(shutil.copytree(compiled, tmp_path / "model", ignore=NOT_ORIGINAL))
    (tmp_path / "key").write_text("the private key")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/added_tokens.json").write_text("the private key")
    (tmp_path / "app/config.json").write_text('{"password": "secret"}')
    places = {
        "key": "../key",
        "absolute": str(tmp_path / "key"),
        "two links": "inner",
        "app": "../app/added_tokens.json",
    }
    (model / "inner").symlink_to("../key")
    (model / "added_tokens.json").symlink_to(places.get(target, target))
    code, lines = run(capsys, "compile", str(model))
    assert code == 1
    assert lines[0].startswith(
        f"error[HDX0503]: {model / 'added_tokens.json'}: a link to {places.get(target, target)}, "
    )
    assert lines[0].endswith("which leads out of the checkpoint: it is not copied")
    assert lines[1] == "hint: remove the link, or put the file itself in its place"
    assert not list(model.rglob(".hyperdex_next/ckpt/*")) + list(model.glob("ckpt/*"))


def test_links_to_files_of_another_checkpoint_are_copied(
    compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variant of a model, of links to the files of the first and of one in a cache of the Hub."""
    first, model = tmp_path / "first", tmp_path / "model"
    shutil.copytree(compiled, first, ignore=NOT_ORIGINAL)
    snapshot, blobs = tmp_path / "models--o--n/snapshots/0a", tmp_path / "models--o--n/blobs"
    for folder in (snapshot, blobs, model / "inner"):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(first.iterdir())):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
        (model / path.name).symlink_to((first if number % 2 else snapshot) / path.name)
    (model / "inner/merges").write_text("#version: 0.2\n")
    (model / "merges.txt").symlink_to("inner/merges")
    assert run(capsys, "compile", str(model)) == (0, [])
    copied = [name for name in os.listdir(model / "ckpt") if not name.startswith("hyperdex_")]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "merges.txt"} <= set(copied)
    for name in copied:
        assert (model / "ckpt" / name).read_bytes() == (model / name).read_bytes()
        assert not (model / "ckpt" / name).is_symlink()


# ---------------------------------------------------------------------------- staged files beside a checkpoint
@pytest.mark.parametrize("is_link", [True, False])
@pytest.mark.parametrize("command", ["again", "clean", "all"])
def test_no_staged_copy_joins_a_checkpoint_in_ckpt(
    compiled: Path, tmp_path: Path, command: str, is_link: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A compile of a checkpoint in `ckpt/` writes no copies: who staged them was not the compiler."""
    model = tmp_path / "model"
    trusted = Path(shutil.copytree(compiled, tmp_path / "mine" if is_link else model / "ckpt", ignore=NOT_ORIGINAL))
    before = tree(trusted)
    if is_link:
        model.mkdir()
        (model / "ckpt").symlink_to("../mine")
    staged = {name: {} for name in ("ckpt/chat_template.jinja", "ckpt/added_tokens.json")}
    (model / STAGING / "ckpt").mkdir(parents=True)
    for name in staged:
        (model / STAGING / name).write_text("theirs")
    (model / STAGING / "manifest.json").write_text("{}")
    (model / STAGING / STATE).write_text(json.dumps({"format": 4, "phases": {"2": {"files": staged}}}))
    assert run(capsys, *COMMANDS[command], str(model)) == (0, [])
    assert {name: facts for name, facts in tree(trusted).items() if not name.startswith("hyperdex_")} == before
    run(capsys, *COMMANDS["clean"], str(model))
    assert not (model / STAGING).exists()


def test_a_clean_goes_on_with_the_renames_of_a_compile_elsewhere(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its output has copies in `ckpt/`, which are told from a checkpoint by the record of them."""
    out = tmp_path / "out"
    model = Path(shutil.copytree(compiled, tmp_path / "model", ignore=NOT_ORIGINAL))
    for content in ("one", "another"):
        (model / "chat_template.jinja").write_text(content)
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            if content == "another":
                patch.setattr("hyperdex_ir.backend.compilation.settle", _interrupted_at(2))
            AutoCompiler().compile(str(model), output_dir=str(out), force=True)
    assert (out / "ckpt/chat_template.jinja").read_text() == "one"
    assert (out / STAGING / "manifest.json").is_file()
    assert run(capsys, "clean", str(out)) == (0, [])
    assert (out / "ckpt/chat_template.jinja").read_text() == "another"
    assert CompiledModel.open(out).logits([1, 2]).shape[0] == 2


def _interrupted_at(call: int) -> Callable[[ModelFolder], State]:
    """`settle`, which a Ctrl+C ends before it does anything, at one of its calls."""
    calls = count(1)

    def settled(folder: ModelFolder) -> State:
        if next(calls) == call:
            raise KeyboardInterrupt
        return settle(folder)

    return settled
