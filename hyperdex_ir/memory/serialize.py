"""JSON form of `ModelLayout` and `MemoryMap`, as `ckpt/hyperdex_config.json` and `config/` hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.memory.layout import ConvState, FunctionLayout, KvCache, ModelLayout, Parameter, Shard, Slot
from hyperdex_ir.memory.map import CacheMap, FunctionMap, MemoryMap, StateMap
from hyperdex_ir.targets import Target

FORMAT = 2


def dump_json(value: Any) -> str:
    """JSON text of our files: indented, keys in the order given, ends with a newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_json(path: Path) -> dict[str, Any]:
    """A JSON file of ours. Raises FileFormatError when it is missing, broken, or of another format version."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", "compile the model again") from None
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not JSON: {error}", "compile the model again") from None
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise FileFormatError(f"{path}: format {found}, this program reads {FORMAT}", "compile the model again")
    return value


def manifest_entries(path: Path) -> dict[str, Any]:
    """What `manifest.json` says of each number of devices that the model is compiled for, the smallest first.

    Empty when there is no manifest. Raises FileFormatError when it is broken.
    """
    if not path.is_file():
        return {}
    entries = load_json(path).get("devices")
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("files"), dict) for entry in entries.values()
    ):
        raise FileFormatError(f"{path}: does not list what is compiled", "compile the model again")
    return entries


def layout_to_json(layout: ModelLayout) -> dict[str, Any]:
    """A layout as JSON values; `shards` only where there are any."""
    value = asdict(layout)
    for function in (value["main"], *value["functions"]):
        for parameter in function["parameters"]:
            if parameter["shards"] is None:
                del parameter["shards"]
    return value


def layout_from_json(value: Mapping[str, Any]) -> ModelLayout:
    """The layout that `layout_to_json` wrote. Raises KeyError or TypeError when it is not one."""
    return ModelLayout(
        matrix_type=value["matrix_type"],
        vocab_size=value["vocab_size"],
        main=_function_layout(value["main"]),
        functions=tuple(_function_layout(entry) for entry in value["functions"]),
        layers=tuple(value["layers"]),
    )


def _function_layout(value: Mapping[str, Any]) -> FunctionLayout:
    parameters = tuple(
        Parameter(
            name=entry["name"],
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            keys=tuple(entry["keys"]),
            values=_values(entry["values"]),
            shards=_shards(entry.get("shards")),
        )
        for entry in value["parameters"]
    )
    return FunctionLayout(value["name"], parameters, tuple(_slot(entry) for entry in value["caches"]))


def _slot(entry: Mapping[str, Any]) -> Slot:
    return KvCache(**entry) if "heads" in entry else ConvState(**entry)


def _values(numbers: list[float] | None) -> tuple[float, ...] | None:
    return None if numbers is None else tuple(numbers)


def _shards(entries: list[dict[str, Any]] | None) -> tuple[Shard, ...] | None:
    if entries is None:
        return None
    return tuple(Shard(e["dim"], e["size"], e["extent"], tuple(e["starts"])) for e in entries)


def map_to_json(memory_map: MemoryMap) -> dict[str, Any]:
    """A memory map as JSON values, `format` first."""
    return {"format": FORMAT, **asdict(memory_map)}


def map_from_json(value: Mapping[str, Any]) -> MemoryMap:
    """The memory map that `map_to_json` wrote, perhaps beside a layout. Raises KeyError or TypeError if it is none."""
    fields = {key: item for key, item in value.items() if key not in ("format", "layout")}
    fields["target"] = Target(**value["target"])
    fields["main"] = _function_map(value["main"])
    fields["functions"] = {name: _function_map(entry) for name, entry in value["functions"].items()}
    return MemoryMap(**fields)


def _function_map(value: Mapping[str, Any]) -> FunctionMap:
    caches = tuple(CacheMap(**entry) if "key_offset" in entry else StateMap(**entry) for entry in value["caches"])
    return FunctionMap(value["parameters"], value["parameter_bytes"], caches, value["cache_bytes"])


def read_map(path: Path) -> MemoryMap:
    """Reads `config/config_{n}lpu_hbm.json`. Raises FileFormatError when it is missing or not a memory map."""
    value = load_json(path)
    try:
        return map_from_json(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path}: not a memory map ({error})", "compile the model again") from None


def read_layout(path: Path) -> ModelLayout:
    """The layout in `ckpt/hyperdex_config.json`, or in the memory map of several devices, whose layout is divided.

    Raises FileFormatError when it is missing or not a layout.
    """
    value = load_json(path)
    try:
        return layout_from_json(value["layout"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path}: not a model layout ({error})", "compile the model again") from None
