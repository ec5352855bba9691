"""Memory maps and layouts read back from JSON that somebody has changed: nothing in them is taken on trust."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from support.programs.machine_programs import layout, memory_map

from hyperdex_ir.errors import CapacityError, FileFormatError, HyperdexError
from hyperdex_ir.memory import map as maps
from hyperdex_ir.memory.layout import Parameter
from hyperdex_ir.memory.serialize import layout_from_json, layout_to_json, map_from_json, map_to_json
from hyperdex_ir.performance.parameter_stats import divide_parameters
from hyperdex_ir.targets import load_target

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
    "a scratchpad of no word": ("target.lmu_bytes", 3, "target.lmu_bytes is 3, expected a whole number in 4.."),
    "a clock that stands": ("target.clock_hz", 1e-300, "target.clock_hz is 1e-300, expected a number above 0"),
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
    "a row of many dimensions": ("main.parameters.3.shape", [1] * 9, "row: 9 dimensions, the most is 8"),
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


def of_layers(parameters: list[dict[str, Any]], layers: int) -> dict[str, Any]:
    """A layout whose one layer function runs so often."""
    table = json.loads(json.dumps(layout_to_json(layout())))
    return table | {"functions": [{"name": "l", "parameters": parameters, "caches": []}], "layers": [0] * layers}


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "f32", "shape": [], "keys": [], "values": None, "shards": None, **changes}


STARTS = {"dim": 0, "size": 0, "extent": 0, "starts": [0] * 1000}
EXPANDING: dict[str, tuple[dict[str, Any], str]] = {
    "parameters": (of_layers([row(f"{n}*") for n in range(400)], 400), "160005 parameters in all layers, the most is"),
    "a long name": (of_layers([row("a" * 40_000 + "*")], 1000), "names, keys and shards of 4"),
    "stars": (of_layers([row("*" * 20_000)], 1000), "names, keys and shards of 10"),
    "keys": (of_layers([row("a*", keys=[""] * 4000)], 1000), "names, keys and shards of 6"),
    "shards": (of_layers([row("a*", shape=[1], keys=["a"], shards=[STARTS])], 40_000), "names, keys and shards of 4"),
}


@pytest.mark.parametrize("case", EXPANDING)
def test_a_layout_that_becomes_much_larger_than_its_file(case: str) -> None:
    table, message = EXPANDING[case]
    with pytest.raises(TypeError, match=message):
        layout_from_json(table)


def test_two_functions_of_one_name() -> None:
    table = of_layers([row("a*")], 2)
    table["functions"].append({"name": "l", "parameters": [row("b*")], "caches": []})
    table["layers"] = [0, 1]
    with pytest.raises(TypeError, match="two functions of the name l"):
        layout_from_json(table)


def test_the_largest_models_are_far_from_the_most() -> None:
    """384 experts in each of 60 layers."""
    names = [f"model.layers.*.mlp.experts.{expert}.gate_proj.weight" for expert in range(384)]
    experts = [row("+".join(names).replace("gate", kind), keys=names) for kind in ("gate", "up", "down")]
    others = [row(f"model.layers.*.self_attn.{number}_proj.weight") for number in range(30)]
    assert len(list(layout_from_json(of_layers([*experts, *others], 60)).parameters())) == 5 + 33 * 60


def test_what_does_not_fit_has_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(self: Parameter, number: int | None) -> Parameter:
        raise AssertionError(f"{self.name} of layer {number}")

    found = layout_from_json(of_layers([row("a*", shape=[1 << 30])], 1000))
    monkeypatch.setattr(maps.Parameter, "of_layer", resolved)
    with pytest.raises(CapacityError, match="of parameters"):
        maps.plan_memory(found, load_target("u55c"), 10)


@pytest.mark.parametrize("starts", [[], [0], [0, 0, 0]])
def test_shards_of_other_devices(starts: list[int]) -> None:
    shard = {"dim": 0, "size": 1, "extent": 2, "starts": starts}
    found = layout_from_json(of_layers([row("a*@rows", shape=[1], keys=["a*"], shards=[shard])], 1))
    with pytest.raises(FileFormatError, match=rf"a\*@rows: divided over {len(starts)} devices, expected 2"):
        divide_parameters(found, maps.plan_memory(found, load_target("u55c"), 10), 2)


def test_many_parts_of_one_tensor() -> None:
    """Each is compared with those before."""
    parameters = [
        row(
            f"a{n}",
            shape=[1],
            keys=["a"],
            shards=[{"dim": 0, "size": 1, "extent": 1 << 30, "starts": [4 * n, 4 * n + 2]}],
        )
        for n in range(2000)
    ]
    found = layout_from_json(of_layers(parameters, 1))
    with pytest.raises(FileFormatError, match=r"a: in [0-9]+ pieces, the most is"):
        divide_parameters(found, maps.plan_memory(found, load_target("u55c"), 10), 2)


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
