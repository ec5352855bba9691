"""Cache of imported modules by content: a model whose config.json describes the same architecture is not traced.

An entry is JSON: the module as text, the recipes of the derived parameters, the values of the buffers that it names.
Its key is a hash of everything that shapes the module: config.json without the keys that no model reads, the matrix
type, and the code. The rules for names in a checkpoint need transformers; they are made from the untraced model on
demand.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.checkpoint.names import NameRules
from hyperdex_ir.frontend.derived import Derived, HeadSlopes, RotaryTable
from hyperdex_ir.frontend.imported import DerivedValues, ImportedModel, names_of
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.support.disk_cache import DiskCache
from hyperdex_ir.support.locations import module_cache
from hyperdex_ir.support.own_code import code_digest
from hyperdex_ir.support.reading import read_config_json
from hyperdex_ir.support.xdsl import parse_module, print_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Number of entries that stay when one is added; an outlined model takes 10 to 50 kB.
_KEEP = 200
#: Size limit: a larger module is not cached.
_LARGEST = 1 << 22
_MAGIC = b"HDXT\x01\x00\x00\x00"
_NAMES = r"[0-9a-f]{32}\.json"
_DTYPES = ("float32", "float16", "bfloat16", None)
#: Keys of config.json that shape no module if their values satisfy this test.
_SHAPELESS = {
    "auto_map": lambda _: True,
    "_name_or_path": lambda value: isinstance(value, str),
    "transformers_version": lambda value: isinstance(value, str),
    "use_cache": lambda value: isinstance(value, bool),
    "dtype": lambda value: value in _DTYPES,
    "torch_dtype": lambda value: value in _DTYPES,
    "bos_token_id": lambda value: value is None or type(value) is int,
    "eos_token_id": lambda value: value is None or type(value) is int,
}


@dataclass(frozen=True)
class ModuleKeeper:
    """The cache entry of one model for a matrix type, outlined or flat; untied: as of `trace_model`."""

    config_dir: Path
    architecture: str
    matrix_type: str
    outlined: bool
    untied: bool = False

    @cached_property
    def _key(self) -> str:
        config = read_config_json(self.config_dir / "config.json")
        shaping = {key: value for key, value in config.items() if not _SHAPELESS.get(key, lambda _: False)(value)}
        facts = [code_digest(), self.matrix_type, self.outlined, self.untied, shaping]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _cache(self) -> DiskCache | None:
        folder = module_cache()
        return None if folder is None else DiskCache(folder, _MAGIC, _NAMES, _KEEP)

    def read(self) -> ImportedModel | None:
        """The cached model; None when there is none."""
        data = None if self._cache is None else self._cache.read(f"{self._key[:32]}.json", self._key)
        if data is None:
            return None
        entry = json.loads(data)
        derived = DerivedValues(
            {key: self._derived(key, recipe) for key, recipe in entry["derived"].items()},
            {name: _array(value) for name, value in entry["buffers"].items()},
        )
        transposed = frozenset(entry["transposed"])
        return ImportedModel(parse_module(entry["module"]), derived, transposed, partial(self._names, transposed))

    def write(self, imported: ImportedModel) -> None:
        """Stores a model that was traced, unless it is too large."""
        keys = {key for parameter in collect_layout(imported.module).parameters() for key in parameter.keys}
        derived = imported.derived
        entry = {
            "module": print_module(imported.module, locations=True),
            "derived": {key: _recipe(one) for key, one in derived.parameters.items()},
            "buffers": {name: _described(value) for name, value in derived.buffers.items() if name in keys},
            "transposed": sorted(imported.transposed),
        }
        data = json.dumps(entry).encode()
        if self._cache is not None and len(data) <= _LARGEST:
            self._cache.write(f"{self._key[:32]}.json", self._key, data)

    def _names(self, transposed: frozenset[str]) -> NameRules:
        return names_of(self._untraced(), self.architecture, transposed)

    def _derived(self, key: str, recipe: dict[str, Any]) -> Derived:
        if "slopes" in recipe:
            return HeadSlopes(key, _array(recipe["slopes"]))
        return RotaryTable(
            key,
            recipe["length"],
            recipe["size"],
            _array(recipe["frequency"]),
            _array(recipe["column"]),
            np.float32(_array(recipe["scaling"])),
            recipe["rule"],
            recipe["stretched"],
            partial(self._table, key) if recipe["again"] else None,
        )

    def _table(self, key: str, length: int) -> RotaryTable:
        """The table of transformers for another length, by a rule that depends on the length."""
        from hyperdex_ir.frontend.trace import tables_of

        return tables_of(self._untraced(), length)[key]

    def _untraced(self) -> PreTrainedModel:
        from hyperdex_ir.frontend.trace import untraced

        return untraced(self.config_dir, self.architecture, untied=self.untied)


def _recipe(derived: Derived) -> dict[str, Any]:
    if isinstance(derived, HeadSlopes):
        return {"slopes": _described(derived.slopes)}
    arrays = {"frequency": derived.frequency, "column": derived.column, "scaling": np.asarray(derived.scaling)}
    plain = {name: getattr(derived, name) for name in ("length", "size", "rule", "stretched")}
    return plain | {name: _described(value) for name, value in arrays.items()} | {"again": derived.again is not None}


def _described(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": array.shape, "bytes": array.tobytes().hex()}


def _array(described: dict[str, Any]) -> np.ndarray:
    values = np.frombuffer(bytes.fromhex(described["bytes"]), described["dtype"])
    return values.reshape(described["shape"])
