"""JSON form of `ModelLayout` and `MemoryMap`, as `ckpt/hyperdex_config.json` and `config/` hold them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.instructions import MATRIX_TYPES
from hyperdex_ir.isa.operands import MOST_POSITION
from hyperdex_ir.memory.fields import Fields, shown
from hyperdex_ir.memory.layout import ConvState, FunctionLayout, KvCache, ModelLayout, Parameter, Shard, Slot
from hyperdex_ir.memory.map import CacheMap, FunctionMap, MemoryMap, StateMap, io_places
from hyperdex_ir.support import reading
from hyperdex_ir.targets import make_target

FORMAT = 2
#: Limit for positions. No target holds as many, sizes computed from it fit 64 bits, and instructions can count to it.
MOST_POSITIONS = MOST_POSITION
#: Limit for the parameters of a model; those of a layer function count once for each layer.
_MOST_PARAMETERS = 1 << 17
#: Limit for the characters of all their names and keys; each shard of a device counts as one.
_MOST_TEXT = 1 << 25
#: Characters that a key counts for in addition to its own.
_KEY_TEXT = 16
_DTYPES = (*MATRIX_TYPES, "f32", "i64")
#: The numbers of a memory map that are byte addresses.
_PLACES = ("layer_start", "parameter_end", "kv_start", "kv_layer_start", "tokens", "sampling", "logits", "end")


def dump_json(value: Any) -> str:
    """JSON text of our files: indented, keys in the given order, with a final newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_json(path: Path) -> dict[str, Any]:
    """Contents of one of our JSON files. Raises FileFormatError when it is missing, broken, or of another version."""
    try:
        value = reading.read_json(path, reading.TABLE)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", COMPILE_AGAIN) from None
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise FileFormatError(f"{path}: format {found}, this program reads {FORMAT}", COMPILE_AGAIN)
    return value


def read_table(path: Path) -> dict[str, Any]:
    """Contents of `ckpt/hyperdex_config.json`, with max_length, matrix_type and vocab_size checked.

    Raises FileFormatError when it is missing or broken, or when one of these has another type or is out of range.
    """
    value = load_json(path)
    fields = Fields(value, "")
    try:
        fields.whole("max_length", 1, MOST_POSITIONS)
        fields.whole("vocab_size", 1)
        fields.text("matrix_type", MATRIX_TYPES)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: not the table of a converted checkpoint ({error})", COMPILE_AGAIN) from None
    return value


def manifest_entries(path: Path) -> dict[str, Any]:
    """Entries of `manifest.json` for the numbers of devices that the model is compiled for, the smallest first.

    Empty when there is no manifest. Raises FileFormatError when it is broken.
    """
    if not path.is_file():
        return {}
    value = load_json(path)
    try:
        for count, entry in Fields(value, "").named("devices").items():
            _check_entry(count, entry)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: does not list what is compiled ({error})", COMPILE_AGAIN) from None
    return value["devices"]


def _check_entry(count: str, entry: Fields) -> None:
    """Raises KeyError or TypeError for an invalid entry of the manifest, or an invalid number of devices."""
    if not count.isdecimal() or len(count) > 4 or str(int(count)) != count or count == "0":
        raise TypeError(f"{shown(count)} devices")
    entry.object("files")
    if "target" in entry:
        entry.text("target")
    options = entry.object("options") if "options" in entry else Fields({}, "")
    for name in ("matrix_type", "pipeline"):
        if options.value(name) is not None:
            options.text(name)
    if options.value("max_length") is not None:
        options.whole("max_length")


def layout_to_json(layout: ModelLayout) -> dict[str, Any]:
    """A layout as JSON values; `shards` only where there are any."""
    value = asdict(layout)
    for function in (value["main"], *value["functions"]):
        for parameter in function["parameters"]:
            if parameter["shards"] is None:
                del parameter["shards"]
    return value


def layout_from_json(value: Mapping[str, Any]) -> ModelLayout:
    """The layout that `layout_to_json` wrote. Raises KeyError or TypeError when it is invalid."""
    fields = Fields(value, "layout")
    functions = fields.objects("functions")
    layers = fields.wholes("layers", len(functions) - 1)
    layout = ModelLayout(
        matrix_type=fields.text("matrix_type", MATRIX_TYPES),
        vocab_size=fields.whole("vocab_size", 1),
        main=_function_layout(fields.object("main"), None),
        functions=tuple(_function_layout(entry, len(layers)) for entry in functions),
        layers=layers,
    )
    names = Counter(function.name for function in layout.functions)
    if twice := [name for name, count in names.items() if count > 1]:
        raise TypeError(f"two functions of the name {twice[0]}")
    _check_expansion(layout)
    return layout


def _check_expansion(layout: ModelLayout) -> None:
    """Raises TypeError when all layers together have too many parameters, or too long names and keys."""
    runs = Counter(layout.layers)
    parts = [(layout.main, 1), *((function, runs[number]) for number, function in enumerate(layout.functions))]
    count = sum(len(function.parameters) * times for function, times in parts)
    if count > _MOST_PARAMETERS:
        raise TypeError(f"{count} parameters in all layers, the most is {_MOST_PARAMETERS}")
    digits = len(str(len(layout.layers)))
    text = sum(sum(_text_of(parameter, digits) for parameter in part.parameters) * times for part, times in parts)
    if text > _MOST_TEXT:
        raise TypeError(f"names, keys and shards of {text} characters in all layers, the most is {_MOST_TEXT}")


def _text_of(parameter: Parameter, digits: int) -> int:
    """Characters of a parameter in one layer, whose number has `digits` digits."""
    texts = sum(len(text) + text.count("*") * digits for text in (parameter.name, *parameter.keys))
    return texts + _KEY_TEXT * len(parameter.keys) + sum(len(shard.starts) for shard in parameter.shards or ())


def _function_layout(fields: Fields, layers: int | None) -> FunctionLayout:
    """The layout of one function. layers: number of layers, for the function of a layer."""
    parameters = tuple(_parameter(entry, layers) for entry in fields.objects("parameters"))
    return FunctionLayout(fields.text("name"), parameters, tuple(map(_slot, fields.objects("caches"))))


def _parameter(fields: Fields, layers: int | None) -> Parameter:
    parameter = Parameter(
        name=fields.text("name"),
        dtype=fields.text("dtype", _DTYPES),
        shape=fields.wholes("shape"),
        keys=fields.texts("keys"),
        values=None if fields.value("values") is None else fields.numbers("values"),
        shards=None if fields.value("shards") is None else tuple(map(_shard, fields.objects("shards"))),
    )
    shape, values, shards = parameter.shape, parameter.values, parameter.shards
    if len(shape) > reading.MOST_DIMENSIONS:
        raise TypeError(f"{parameter.name}: {len(shape)} dimensions, the most is {reading.MOST_DIMENSIONS}")
    if parameter.is_matrix and len(shape) not in (2, 3):
        raise TypeError(f"{parameter.name}: a matrix of shape {shown(list(shape))}")
    if values is not None and len(values) != (prod(shape) if layers is None else layers):
        raise TypeError(f"{parameter.name}: {len(values)} values for shape {shown(list(shape))}, {layers or 0} layers")
    if shards is not None and (len(shards) != len(parameter.keys) or any(shard.dim >= len(shape) for shard in shards)):
        raise TypeError(f"{parameter.name}: {len(shards)} shards of {len(parameter.keys)} tensors")
    return parameter


def _slot(fields: Fields) -> Slot:
    if "heads" in fields:
        return KvCache(fields.whole("heads"), fields.whole("key_size"), fields.whole("value_size"))
    return ConvState(fields.whole("rows"), fields.whole("columns"))


def _shard(fields: Fields) -> Shard:
    return Shard(fields.whole("dim", high=1), fields.whole("size"), fields.whole("extent"), fields.wholes("starts"))


def map_to_json(memory_map: MemoryMap) -> dict[str, Any]:
    """A memory map as JSON values, `format` first."""
    return {"format": FORMAT, **asdict(memory_map)}


def map_from_json(value: Mapping[str, Any]) -> MemoryMap:
    """The memory map that `map_to_json` wrote, possibly with a layout. Raises KeyError or TypeError if invalid."""
    fields = Fields(value, "")
    fields.object("target")
    memory_map = MemoryMap(
        target=make_target(value["target"], "target."),
        max_length=fields.whole("max_length", 1),
        vocab_size=fields.whole("vocab_size", 1),
        main=_function_map(fields.object("main")),
        functions={name: _function_map(entry) for name, entry in fields.named("functions").items()},
        addresses=fields.offsets("addresses"),
        **{name: fields.whole(name) for name in _PLACES},
    )
    _check_places(memory_map)
    return memory_map


def _function_map(fields: Fields) -> FunctionMap:
    caches = tuple(map(_cache_map, fields.objects("caches")))
    return FunctionMap(
        fields.offsets("parameters"), fields.whole("parameter_bytes"), caches, fields.whole("cache_bytes")
    )


def _cache_map(fields: Fields) -> CacheMap | StateMap:
    if "key_offset" in fields:
        names = ("key_offset", "key_pitch", "value_offset", "value_pitch")
        return CacheMap(*(fields.whole(name) for name in names))
    return StateMap(fields.whole("offset"), fields.whole("size"))


def _check_places(memory_map: MemoryMap) -> None:
    """Raises TypeError unless all addresses are those of `plan_memory`."""
    stripe = memory_map.target.stripe_bytes
    sampling, logits, end = io_places(memory_map.tokens, memory_map.vocab_size, memory_map.target)
    expected = {
        "layer_start": memory_map.main.parameter_bytes,
        "kv_start": memory_map.parameter_end,
        "kv_layer_start": memory_map.kv_start + memory_map.main.cache_bytes,
        "sampling": sampling,
        "logits": logits,
        "end": end,
    }
    for name, place in expected.items():
        if getattr(memory_map, name) != place:
            raise TypeError(f"{name} is {getattr(memory_map, name)}, expected {place}")
    places = (memory_map.layer_start, memory_map.parameter_end, memory_map.kv_layer_start, memory_map.tokens)
    if sorted(places) != list(places) or any(place % stripe for place in places):
        raise TypeError(f"parameters, KV cache and tokens at {shown(places)}, expected whole stripes in this order")
    if end > memory_map.target.hbm_bytes:
        raise TypeError(f"the end is {end}, {memory_map.target.name} has {memory_map.target.hbm_bytes} bytes")


def read_map(path: Path) -> MemoryMap:
    """Reads `config/config_{n}lpu_hbm.json`. Raises FileFormatError when it is missing or not a memory map."""
    value = load_json(path)
    try:
        return map_from_json(value)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: not a memory map ({error})", COMPILE_AGAIN) from None


def read_layout(path: Path) -> ModelLayout:
    """The layout in `ckpt/hyperdex_config.json`, or the divided layout in the memory map of several devices.

    Raises FileFormatError when it is missing or not a layout.
    """
    value = load_json(path)
    try:
        return layout_from_json(value["layout"])
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: not a model layout ({error})", COMPILE_AGAIN) from None


def table_keys(table: Mapping[str, Any]) -> list[str]:
    """The keys of all parameters in a result of `read_table`; none without a layout."""
    try:
        return [key for parameter in layout_from_json(table["layout"]).parameters() for key in parameter.keys]
    except (KeyError, TypeError):
        return []


def read_tensors(path: Path) -> tuple[ModelLayout, list[Mapping[str, Any]]]:
    """The layout in `ckpt/hyperdex_config.json`, and its parameters' entries in the converted checkpoint, in order.

    An entry has `name`, `dtype`, `shape`, `keys`, and `offset`: bytes from 0 on, perhaps beyond the end of the file.
    Raises FileFormatError when the table is missing, or does not have the layout's parameters.
    """
    layout, value = read_layout(path), load_json(path)
    try:
        _check_tensors(Fields(value, "").objects("tensors"), layout)
    except KeyError as error:
        raise FileFormatError(f"{path}: lacks {error}", COMPILE_AGAIN) from None
    except TypeError as error:
        raise FileFormatError(f"{path}: {error}", COMPILE_AGAIN) from None
    return layout, value["tensors"]


def _check_tensors(tensors: list[Fields], layout: ModelLayout) -> None:
    """Raises KeyError or TypeError unless the table has the parameters of the layout in the same order."""
    expected = list(layout.parameters())
    if len(tensors) != len(expected):
        raise TypeError(f"{len(tensors)} tensors, the layout has {len(expected)}")
    for tensor, parameter in zip(tensors, expected, strict=True):
        tensor.whole("offset")
        found = tensor.text("name"), tensor.text("dtype"), tensor.wholes("shape"), tensor.texts("keys")
        if found != (parameter.name, parameter.dtype, parameter.shape, parameter.keys):
            raise TypeError(f"{found[0]}: {found[1]} {shown(list(found[2]))}, the layout has {parameter.name}")
