"""Modules of models as imported, with random parameters: what tests transform and run."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedConfig
from xdsl.dialects.builtin import ModuleOp, TensorType

from hyperdex_ir.dialects.lpu import WeightOp, shape_of
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.frontend.model import ImportedModel, trace_anew
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from support import SOAK

MAX_LENGTH = 40
TOKENS = [int(token) for token in np.random.default_rng(1).integers(0, 256, 19)]
Parameters = Callable[[str], np.ndarray]
#: By configuration, what `import_any` has traced.
_TRACED: dict[str, ImportedModel] = {}


def random_parameters(module: ModuleOp, derived: Parameters) -> Parameters:
    """Values that depend on the key alone, of variance about 1 through each matrix."""
    types = {key: op.res.type for op in module.walk() if isinstance(op, WeightOp) for key in op.key_names}
    values: dict[str, np.ndarray] = {}

    def make(key: str) -> np.ndarray:
        type_ = types.get(key) or types[re.sub(r"\.\d+\.", ".*.", key, count=1)]
        assert isinstance(type_, TensorType)
        normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape_of(type_), np.float32)
        kind = str(type_.element_type)
        if kind == "f32":
            return 1 + np.float32(0.1) * normal
        normal *= np.float32(1 if "embed" in key else shape_of(type_)[1] ** -0.5)
        return normal.astype(np.float16) if kind == "f16" else (normal.view(np.uint32) >> 16).astype(np.uint16)

    def get(key: str) -> np.ndarray:
        if key not in values:
            try:
                values[key] = derived(key)
            except KeyError:
                values[key] = make(key)
        return values[key]

    return get


def import_model(
    config: PreTrainedConfig, matrix_type: str, directory: Path, outlined: bool = True
) -> tuple[ModuleOp, Parameters]:
    config.save_pretrained(directory)
    imported = trace_model(directory, target="u55c", max_length=MAX_LENGTH, matrix_type=matrix_type, outlined=outlined)
    return imported.module, random_parameters(imported.module, imported.derived.__getitem__)


def import_any(config: PreTrainedConfig, directory: Path) -> tuple[ModuleOp, Parameters]:
    """As `import_model`, f16 and flat, for any architecture that transformers can build; equal ones are traced once."""
    text = config.to_json_string(use_diff=False)
    if SOAK or text not in _TRACED:
        config.save_pretrained(directory)
        (architecture,) = config.architectures or []
        _TRACED[text] = trace_anew(directory, architecture, "f16", outlined=False)
    imported = _TRACED[text].at(MAX_LENGTH, "u55c")
    derived = imported.derived.parameters
    return imported.module, random_parameters(imported.module, lambda key: derived[key].values())


def lpu_logits(module: ModuleOp, parameters: Parameters) -> bytes:
    return LpuInterpreter(module, parameters, MAX_LENGTH).forward(TOKENS, 0, 0).tobytes()
