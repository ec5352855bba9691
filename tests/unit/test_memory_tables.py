"""Memory maps and layouts read back from JSON that somebody has changed: nothing in them is taken on trust."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from machine_programs import layout, memory_map

from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.memory.serialize import layout_from_json, layout_to_json, map_from_json, map_to_json

MAP = memory_map()

#: Where in the map, what stands there instead, and what the error says.
MAPS: dict[str, tuple[str, Any, str]] = {
    "text for a place": ("logits", "4096", "logits is '4096', expected a whole number in 0..1099511627776"),
    "a place not there": ("end", MAP.end + 2048, f"end is {MAP.end + 2048}, expected {MAP.end}"),
    "settings elsewhere": ("sampling", MAP.tokens, f"sampling is {MAP.tokens}, expected {MAP.sampling}"),
    "off the stripes": ("tokens", MAP.tokens + 8, f"sampling is {MAP.sampling}, expected"),
    "a huge vocabulary": ("vocab_size", 1 << 39, "logits is"),
    "no vocabulary": ("vocab_size", 0, "vocab_size is 0, expected a whole number in 1..1099511627776"),
    "true for a number": ("max_length", True, "max_length is True, expected a whole number"),
    "an address that is text": ("addresses.row", "x" * 500, "addresses.row is 'xxxx"),
    "addresses in a list": ("addresses", [], "addresses is [], expected an object"),
    "a negative offset": ("main.parameters.row", -64, "main.parameters.row is -64, expected"),
    "a cache that is none": ("main.caches", [7], "main.caches[0] is 7, expected an object"),
    "channels beyond their names": ("target.channels", 1 << 30, "target.channels is 1073741824, expected"),
    "trees without channels": ("target.trees", 17, "32 channels do not feed 17 MAC trees"),
    "a giant scratchpad": ("target.lmu_bytes", 1 << 36, "target.lmu_bytes is 68719476736, expected"),
    "no clock": ("target.clock_hz", 0.0, "target.clock_hz is 0.0, expected a number above 0"),
    "too small an HBM": ("target.hbm_bytes", 4096, f"the end is {MAP.end}, u55c has 4096 bytes"),
    "a target that is a list": ("target.name", ["u55c"], "target.name is ['u55c'], expected text"),
}

LAYOUTS: dict[str, tuple[str, Any, str]] = {
    "another matrix type": ("matrix_type", "f8", "layout.matrix_type is 'f8', expected one of f16, bf16"),
    "a layer of no function": ("layers", [0], "layout.layers is 0, expected a whole number in 0..-1"),
    "a flat matrix": ("main.parameters.0.shape", [40], "embedding: a matrix of shape [40]"),
    "a fraction of a row": ("main.parameters.0.shape", [40, 70.5], "shape is 70.5, expected a whole number"),
    "another type": ("main.parameters.2.dtype", "f64", "dtype is 'f64', expected one of f16, bf16, f32, i64"),
    "too few values": ("main.parameters.4.values", [1], "numbers: 1 values for shape [3], 0 layers"),
    "values that are none": ("main.parameters.4.values", [0, 1, None], "values is None, expected a number"),
    "shards of other tensors": ("main.parameters.0.shards", [], "embedding: 0 shards of 1 tensors"),
    "a key that is a number": ("main.parameters.0.keys", [3], "keys is 3, expected text"),
    "a slot of halves": ("main.caches.0.heads", 1.5, "main.caches[0].heads is 1.5, expected a whole number"),
}


def changed(table: Any, path: str, value: Any) -> Any:
    """A copy of JSON values with another value at a path."""
    copy = json.loads(json.dumps(table))
    *outer, last = path.split(".")
    holder = copy
    for step in outer:
        holder = holder[int(step) if isinstance(holder, list) else step]
    holder[int(last) if isinstance(holder, list) else last] = value
    return copy


@pytest.mark.parametrize("case", MAPS)
def test_a_map_that_somebody_has_changed(case: str) -> None:
    path, value, message = MAPS[case]
    with pytest.raises(TypeError, match=re.escape(message)) as caught:
        map_from_json(changed(map_to_json(MAP), path, value))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_layout_that_somebody_has_changed(case: str) -> None:
    path, value, message = LAYOUTS[case]
    with pytest.raises(TypeError, match=re.escape(message)):
        layout_from_json(changed(layout_to_json(layout()), path, value))


def test_what_is_missing() -> None:
    for name in asdict(MAP):
        table = map_to_json(MAP)
        del table[name]
        with pytest.raises(KeyError, match=name):
            map_from_json(table)


def test_unchanged_ones_are_read_back() -> None:
    assert map_from_json(json.loads(json.dumps(map_to_json(MAP)))) == MAP
    assert layout_from_json(json.loads(json.dumps(layout_to_json(layout())))) == layout()


def test_errors_show_what_a_terminal_would_obey() -> None:
    error = HyperdexError("a\n  \x1b[31mb \ud800 é", "c\x07\td")
    assert str(error) == r"a \x1b[31mb \ud800 é"
    assert error.hint == r"c\x07 d"
