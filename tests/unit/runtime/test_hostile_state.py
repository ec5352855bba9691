"""A state that somebody has changed: what a compile does with it takes a time in proportion to its length."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperdex_ir.backend import check, finished, links, state
from hyperdex_ir.backend.finished import FinishedPhases
from hyperdex_ir.backend.links import check_links
from hyperdex_ir.backend.state import STATE_FILE, State
from hyperdex_ir.memory.serialize import dump_json
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.reading import CONFIG, PROGRAM, TABLE


def write_state(root: Path, **tables: Any) -> State:
    (root / STATE_FILE).write_text(json.dumps({"format": 4, **tables}))
    return State.load(root)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contents of each state that is written."""
    found: list[str] = []

    def write(path: Path, text: str, root: Path) -> None:
        found.append(text)
        path.write_text(text)

    monkeypatch.setattr(state, "write_text", write)
    return found


def test_many_staged_phases_are_discarded_at_once(
    tmp_path: Path, saved: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is there before the first file goes."""
    (tmp_path / "inst").mkdir()
    staged = {f"4-{n}lpu": {"files": {f"inst/inst_{n}lpu.bin": {}}} for n in range(2, 500)}
    found = write_state(tmp_path, staged={"2": {"files": {}}, "4-1lpu": {"files": {}}, **staged})
    removed: list[int] = []
    monkeypatch.setattr(FolderTree, "remove", lambda tree, name: removed.append(len(saved)))
    asked: list[str] = []

    def is_done(phase: str) -> bool:
        asked.append(phase)
        assert (phase == "2") == ("2" in found.staged)  # the others depend on it
        return phase == "4-1lpu"

    one: Any = SimpleNamespace(state=found, phases=("2", "3-1lpu", "4-1lpu"), is_done=is_done)
    FinishedPhases.discard_outdated(one)
    assert asked == ["2", "4-1lpu"]
    assert list(found.staged) == list(State.load(tmp_path).staged) == ["4-1lpu"]
    assert len(saved) == 1
    assert removed == [1] * 498


def test_nothing_to_discard_writes_nothing(tmp_path: Path, saved: list[str]) -> None:
    found = write_state(tmp_path, staged={"2": {"files": {}}})
    found.discard(lambda phase: False)
    assert saved == []


@pytest.mark.parametrize("phase", ["", "5", "3", "22", "3-0lpu", "3-lpu", "3-1lpu ", "4-1234567lpu", "x" * 99, "2\n"])
def test_a_phase_that_no_compile_has(phase: str, tmp_path: Path) -> None:
    table = {name: {"files": {}} for name in (phase, "2", "4-16lpu")}
    found = write_state(tmp_path, phases=table, staged=table)
    assert sorted(found.phases) == sorted(found.staged) == ["2", "4-16lpu"]


def images(root: Path, count: int) -> dict[str, dict[str, Any]]:
    """Parameter images that were touched since they were recorded."""
    names = [f"param/param_1lpu_00_{number:02x}.bin" for number in range(count)]
    (root / "param").mkdir()
    for name in names:
        (root / name).write_bytes(b"x")
    return {name: {"bytes": 1, "mtime_ns": 1, "sha256": hashlib.sha256(b"x").hexdigest()} for name in names}


def test_touched_files_are_recorded_at_once(tmp_path: Path, saved: list[str]) -> None:
    found = write_state(tmp_path, phases={"3-1lpu": {"key": "k", "files": images(tmp_path, 50)}})
    assert found.is_done("3-1lpu", "k")
    assert len(saved) == 1
    assert found.is_done("3-1lpu", "k")
    assert len(saved) == 1
    assert State.load(tmp_path).phases == found.phases


def test_what_was_read_before_a_damaged_file_is_recorded(tmp_path: Path, saved: list[str]) -> None:
    files = images(tmp_path, 3)
    files["param/param_1lpu_00_02.bin"]["sha256"] = "0"
    found = write_state(tmp_path, phases={"3-1lpu": {"key": "k", "files": files}})
    assert not found.is_done("3-1lpu", "k")
    assert len(saved) == 1
    entries = State.load(tmp_path).entries("3-1lpu")
    assert [entry["mtime_ns"] > 1 for entry in entries.values()] == [True, True, False]


# ---------------------------------------------------------------------------------------------------- sizes
def sparse(path: Path, size: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("phase", "name", "size"),
    [
        ("2", "ckpt/hyperdex_config.json", TABLE.limit + 1),
        ("2", "ckpt/tokenizer.json", TABLE.limit + 1),
        ("3-1lpu", "config/config_1lpu_hbm.json", TABLE.limit + 1),
        ("4-1lpu", "inst/inst_1lpu.json", TABLE.limit + 1),
        ("4-1lpu", "inst/inst_1lpu.bin", PROGRAM.limit + 1),
    ],
)
def test_a_small_file_of_any_size_is_not_hashed(
    phase: str, name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse(tmp_path / name, size)
    found = write_state(tmp_path, phases={phase: {"key": "k", "files": {name: {"bytes": size}}}})
    monkeypatch.setattr(state, "_digest_of", lambda file: pytest.fail("read"))
    monkeypatch.setattr(check, "describe_file", lambda *arguments: pytest.fail("read"))
    assert not found.is_done(phase, "k")
    assert "more than any file of this name has" in check.check_file(tmp_path, check.Listed(name, size, ""))


@pytest.mark.parametrize("number", [3, 4])
def test_the_table_of_the_converted_checkpoint_is_not_read_beyond_its_limit(number: int, tmp_path: Path) -> None:
    table = tmp_path / "hyperdex_config.json"
    one: Any = SimpleNamespace(current=SimpleNamespace(model_config=table), program="4-1lpu")
    assert FinishedPhases._table_digest(one, f"{number}-1lpu") == ""
    table.write_text(dump_json({"format": 2}))
    known = hashlib.sha256(table.read_bytes()).hexdigest()
    assert FinishedPhases._table_digest(one, "3-1lpu") == known
    sparse(table, TABLE.limit + 1)
    assert FinishedPhases._table_digest(one, f"{number}-1lpu") == ""


def test_config_json_is_hashed_as_far_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    kinds: list[Any] = []
    read = finished.read_bytes
    monkeypatch.setattr(finished, "read_bytes", lambda path, kind: kinds.append(kind) or read(path, kind))
    one = SimpleNamespace(folder=SimpleNamespace(source=tmp_path))
    assert FinishedPhases.__dict__["config_digest"].func(one) == hashlib.sha256(b"{}").hexdigest()
    assert kinds == [CONFIG]


# ---------------------------------------------------------------------------------------------------- links
def test_files_behind_a_link_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by comparing each with every record."""
    (tmp_path / "x").mkdir()
    (tmp_path / "param").symlink_to("x")
    names = [f"param/param_1lpu_{number:08x}_00.bin" for number in range(300)]
    for name in names:
        (tmp_path / name).touch()
    compared: list[str] = []

    class Counted(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append("")
            return str.__eq__(self, other)

    entries = {}
    for name in names:
        found = (tmp_path / name).stat()
        entries[name] = {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
    write_state(tmp_path, phases={"3-1lpu": {"files": entries}})
    load = State.load

    def counting(root: Path, name: str = STATE_FILE) -> State:
        known = load(root, name)
        for record in known.phases.values():
            record["files"] = {Counted(name): entry for name, entry in record["files"].items()}
        return known

    monkeypatch.setattr(links.State, "load", counting)
    check_links(ModelFolder(tmp_path, tmp_path / "ckpt", None, made_by_tool=False))
    assert len(compared) <= 4 * len(names)
