"""Targets of users: files that are right, and files that are not, each with one line that says what is wrong."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hyperdex_ir import targets
from hyperdex_ir.errors import OptionError
from hyperdex_ir.support.reading import TARGET
from hyperdex_ir.targets import find_target, load_target, make_target, shown_target, spell_target, target_names

TINY = {**asdict(load_target("u55c")), "name": "tiny", "channels": 2, "trees": 1}


def toml(numbers: dict[str, Any]) -> str:
    """A target's file; `numbers` by name, texts as TOML has them."""
    return "\n".join(f"[{key}]\nvalue = {value}\nsource = 'test'" for key, value in numbers.items() if key != "name")


def write(folder: Path, text: str | bytes, name: str = "tiny.toml") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize("name", target_names())
def test_a_target_of_the_package(name: str) -> None:
    target = load_target(name)
    assert spell_target(target) == find_target(name) == shown_target(name) == name
    assert find_target(Path(targets.__file__).parent / f"{name}.toml") == name
    assert make_target(json.loads(json.dumps(asdict(target)))) == target


def test_a_target_of_a_user(tmp_path: Path) -> None:
    path = Path(write(tmp_path, toml(TINY)))
    text = find_target(path)
    path.unlink()
    assert load_target(text) == replace(load_target("u55c"), name="tiny", channels=2, trees=1)
    assert find_target(text) == spell_target(load_target(text)) == text
    assert shown_target(text) == "tiny"


def test_a_source_may_be_left_out(tmp_path: Path) -> None:
    assert load_target(find_target(write(tmp_path, toml(TINY).replace("source = 'test'", "")))).trees == 1


NUMBERS: dict[str, tuple[str, Any, str]] = {
    "text": ("channels", "'2'", "channels is '2', expected a whole number in 1..256"),
    "a fraction": ("channels", 2.0, "channels is 2.0, expected a whole number in 1..256"),
    "true": ("trees", "true", "trees is True, expected a whole number in 1..1099511627776"),
    "no channel": ("channels", 0, "channels is 0, expected a whole number in 1..256"),
    "too many channels": ("channels", 258, "channels is 258, expected a whole number in 1..256"),
    "less than none": ("vector_latency_cycles", -1, "vector_latency_cycles is -1, expected a whole number in 0.."),
    "a giant": ("hbm_bytes", 1 << 62, "hbm_bytes is 4611686018427387904, expected a whole number in 1.."),
    "beyond LMU addresses": ("lmu_bytes", 1 << 27, "lmu_bytes is 134217728, expected a whole number in 4..67108864"),
    "no clock": ("clock_hz", 0.0, "clock_hz is 0.0, expected a number above 0, in 1e-18..1e+18"),
    "infinite": ("clock_hz", "inf", "clock_hz is inf, expected a number above 0"),
    "not a number": ("link_latency_seconds", "nan", "link_latency_seconds is nan, expected a number above 0"),
    "a date": ("link_latency_seconds", "2026-01-01", "link_latency_seconds is datetime.date(2026, 1, 1), expected"),
    "a list": ("prefetch_bytes", f"[{'1, ' * 500}]", "prefetch_bytes is [1, 1, 1,"),
    "a deep list": ("prefetch_bytes", "[" * 300 + "]" * 300, "prefetch_bytes is [[[["),
    "other trees": ("trees", 2, "2 channels do not feed 2 MAC trees"),
    "a slow HBM": ("hbm_bytes_per_second", 100, "an HBM of 100 bytes a second gives no byte a cycle"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_that_is_none_of_a_machine(case: str, tmp_path: Path) -> None:
    key, value, message = NUMBERS[case]
    path = write(tmp_path, toml({**TINY, key: value}))
    assert_refused(path, f"{path}: {message}")


@pytest.mark.parametrize("key", [key for key in TINY if key != "name"])
def test_a_number_that_is_missing(key: str, tmp_path: Path) -> None:
    path = write(tmp_path, toml({name: value for name, value in TINY.items() if name != key}))
    assert_refused(path, f"{path}: {key} is missing")


FILES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "channels is missing"),
    "no TOML": ("channels: 2", "not valid TOML: "),
    "no text": (b"\xff\xfe", "not UTF-8 text (byte 0)"),
    "numbers without tables": ("channels = 2", "'channels' is no table of a value and its source"),
    "a table without a value": ("[channels]\nsource = ''", "'channels' is no table of a value and its source"),
    "more in a table": (toml(TINY) + "\nunit = 'byte'", "'prefetch_bytes' is no table of a value and its source"),
    "another number": (toml(TINY) + "\n[lanes]\nvalue = 64", "a target has no 'lanes'"),
    "a name": (toml(TINY) + "\n[name]\nvalue = 'u55c'", "a target has no 'name'"),
    "a long key": (f"[{'k' * 900}]\nvalue = 1", "a target has no 'kkkk"),
    "keys in keys": (toml(TINY) + "\nvalue2" + ".a" * 2000 + " = 1", "'prefetch_bytes' is no table"),
    "a value of keys in keys": ("[trees]\nvalue" + ".a" * 3000 + " = 1", ""),
    "lists in lists": ("a = " + "[" * 4000, "not valid TOML: nested too deep"),
    "a number without end": ("a = 1" + "0" * 5000, "not valid TOML: Exceeds the limit"),
    "a large file": ("#" * (TARGET.limit + 1), f"{TARGET.limit + 1} bytes, the most that is read is {TARGET.limit}"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_target(case: str, tmp_path: Path) -> None:
    text, message = FILES[case]
    path = write(tmp_path, text)
    assert_refused(path, f"{path}: {message}")


@pytest.mark.parametrize("cut", range(0, 670, 45))
def test_a_file_that_is_cut_short(cut: int, tmp_path: Path) -> None:
    assert_refused(write(tmp_path, toml(TINY)[:cut]), "")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "fifo.toml")
    for name, message in {
        "folder.toml": "cannot be read: it is a directory, expected a regular file",
        "fifo.toml": "cannot be read: it is a FIFO, expected a regular file",
        "none.toml": "no such file",
        "a b.toml": "a target cannot have this name",
        f"{'x' * 80}.toml": "a target cannot have this name",
    }.items():
        assert_refused(str(tmp_path / name), f"{tmp_path / name}: {message}")


def test_a_name_of_the_package(tmp_path: Path) -> None:
    path = write(tmp_path, toml(TINY), "u55c.toml")
    assert_refused(path, f"{path}: the package has another target u55c")


SPELLED = spell_target(make_target(TINY))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny", "no target 'tiny'; there are asic, u55c"),
        ("tiny{}", "no target 'tiny{}'"),
        (SPELLED[:-1], "no target 'tiny{channels = 2, "),
        (SPELLED.replace("channels = 2", "channels = 4"), "target tiny: 4 channels do not feed 1 MAC trees"),
        (SPELLED.replace("trees = 1, ", ""), "target tiny: trees is missing"),
        (SPELLED.replace("trees = 1", "trees = 1, name = 'u55c'"), "target tiny: a target has no 'name'"),
        (SPELLED.replace("trees = 1", "trees = 1, trees = 1"), "target tiny: not valid TOML"),
        (SPELLED.replace("tiny", "a/../tiny"), "no target 'a/../tiny{"),
        (SPELLED.replace("}", "}\nb = {}"), "no target 'tiny{"),
        ("tiny{a = " + "[" * 1500 + "}", "target tiny: not valid TOML: nested too deep"),
        ("x" * 100000, "no target 'xxx"),
    ],
)
def test_a_text_that_spells_no_target(text: str, message: str) -> None:
    assert_refused(text, message)


def assert_refused(choice: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_target(choice)
    line = str(caught.value)
    assert line.startswith(message)
    assert len(line) < len(choice[:300]) + 250
    assert line.isprintable()
