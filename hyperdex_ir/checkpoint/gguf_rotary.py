"""Rotary frequencies of a GGUF file, converted to transformers' rope_scaling: transformers itself reads the base only.

llama.cpp's converter stores the effect of Llama 3.1's rule and of Phi-3's lists as factors by which the frequencies are
divided. transformers' `longrope` takes such factors unchanged. For a factor that is a power of two, such as 1,
`longrope` gives the same bits as `llama3`; for others it gives the same float32 or a neighbouring one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_ALWAYS, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
#: Tensors that are not weights but factors of the frequencies.
FACTORS = (_ALWAYS, _SHORT, _LONG)
_PART = "partial_rotary_factor"
#: Fields of yarn without a counterpart in transformers -> the neutral value.
_NEUTRAL = {"attn_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_ext_factor": 1.0, "yarn_log_multiplier": 0.0}


def complete_rotary(config: Any, reader: GGUFReader, arch: str) -> None:
    """Adds the rotary frequencies of the file to a configuration.

    arch: the prefix of the fields. Raises CheckpointError for invalid factors, UnsupportedModelError for a rule that
    transformers does not have.
    """
    said = _Said(reader, arch)
    tensors = {tensor.name: tensor for tensor in reader.tensors if tensor.name in FACTORS}
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        if tensors:
            raise UnsupportedModelError(
                f"{next(iter(tensors))} has no place in {arch}, which has no rotary positions", _ORIGINAL
            )
        return
    nested = "full_attention" in rope
    target = rope["full_attention"] if nested else rope
    if (base := said.number("freq_base")) is not None:
        target["rope_theta"] = base
    if (count := said.number("dimension_count")) is not None and _PART in target:
        target[_PART] = _part(int(count), _head_size(config))
    scaling = _by_rule(said)
    if tensors:
        if nested or scaling:
            raise UnsupportedModelError(f"{next(iter(tensors))} beside other rules of rotary frequencies", _ORIGINAL)
        count = int(_head_size(config) * target.get(_PART, 1.0)) // 2
        scaling = _by_factors(said, tensors, count, config.max_position_embeddings)
    elif said.text("type") == "longrope":
        raise CheckpointError(f"{arch}.rope.scaling.type is longrope, but there is no {_LONG}", _ORIGINAL)
    target.update(scaling)
    if "original_max_position_embeddings" in scaling and hasattr(config, "original_max_position_embeddings"):
        # Phi-3 has the value here too, and transformers uses this one.
        config.original_max_position_embeddings = scaling["original_max_position_embeddings"]


_ORIGINAL = "use the original checkpoint"


def positive_number(field: str, value: Any) -> float:
    """Value of a field as a positive number. Raises CheckpointError for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{field} is {value}, expected a positive number")
    return float(value)


class _Said:
    """The fields `<architecture>.rope.*` of a file."""

    def __init__(self, reader: GGUFReader, arch: str):
        self._reader = reader
        self.prefix = f"{arch}.rope"

    def number(self, name: str) -> float | None:
        """Positive number in a field; None without such a field. Raises CheckpointError for any other value."""
        if (value := self._value(name)) is None:
            return None
        return positive_number(f"{self.prefix}.{name}", value)

    def scaling(self, name: str) -> float | None:
        return self.number(f"scaling.{name}")

    def text(self, name: str) -> str | None:
        value = self._value(f"scaling.{name}")
        return None if value is None else str(value)

    def differs(self, name: str, neutral: float) -> bool:
        """Test for a scaling field whose value is not the neutral one."""
        return self._value(f"scaling.{name}") not in (None, neutral)

    def _value(self, name: str) -> Any:
        field = self._reader.fields.get(f"{self.prefix}.{name}")
        return None if field is None else field.contents()


def _head_size(config: Any) -> int:
    if head := getattr(config, "head_dim", None):
        return head
    if (heads := config.num_attention_heads) < 1:
        raise CheckpointError(f"num_attention_heads is {heads}, expected a positive number")
    return config.hidden_size // heads


def _part(count: int, head: int) -> float:
    """Fraction of a head from which transformers, which rounds down, computes this count."""
    part = count / max(head, 1)
    return part if int(head * part) == count else math.nextafter(part, math.inf)


def _by_rule(said: _Said) -> dict[str, Any]:
    """Settings of a rule with a factor; empty without one. A file with a factor but no rule means linear."""
    rule = said.text("type") or "linear"
    if rule in ("none", "longrope"):
        return {}
    if rule not in ("linear", "yarn"):
        raise UnsupportedModelError(f"{said.prefix}.scaling.type {rule} is not supported", "read are linear and yarn")
    factor = said.scaling("factor") or said.number("scale_linear") or 1.0
    if factor == 1:
        return {}
    if rule == "linear":
        return {"rope_type": "linear", "factor": factor}
    for name, neutral in _NEUTRAL.items():
        if said.differs(name, neutral):
            raise UnsupportedModelError(f"{said.prefix}.scaling.{name} of yarn is not supported", _ORIGINAL)
    betas = {name: value for name in ("beta_fast", "beta_slow") if (value := said.scaling(f"yarn_{name}")) is not None}
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": _original(said)} | betas


def _original(said: _Said) -> int:
    name = "scaling.original_context_length"
    if (original := said.number(name)) is None:
        raise CheckpointError(f"the GGUF file has no field {said.prefix}.{name}")
    if original != int(original):
        raise CheckpointError(f"{said.prefix}.{name} is {original}, expected a whole number")
    return int(original)


def _by_factors(said: _Said, tensors: dict[str, ReaderTensor], count: int, positions: int) -> dict[str, Any]:
    """longrope with the factors of the file, `count` numbers each."""
    if set(tensors) == {_ALWAYS}:
        short = long = _numbers(tensors[_ALWAYS], count)
        original, attention, factor = positions, 1.0, 1.0
    elif set(tensors) == {_SHORT, _LONG}:
        short, long = (_numbers(tensors[name], count) for name in (_SHORT, _LONG))
        original, attention = _original(said), said.scaling("attn_factor") or 1.0
        factor = max(1.0, positions / original)
    else:
        raise CheckpointError(
            f"the file has {' and '.join(sorted(tensors))}, expected {_ALWAYS} or both {_SHORT} and {_LONG}"
        )
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "factor": factor,
        "attention_factor": attention,
        "original_max_position_embeddings": original,
    }


def _numbers(tensor: ReaderTensor, count: int) -> list[float]:
    """The factors of a tensor. Raises CheckpointError unless they are `count` positive numbers."""
    from gguf.quants import dequantize

    if (kind := tensor.tensor_type.name) not in ("F32", "F16", "BF16"):
        raise CheckpointError(f"{tensor.name} is {kind}, expected F32")
    if (held := int(tensor.n_elements)) != count:
        raise CheckpointError(f"{tensor.name} has {held} numbers, expected {count}, one for each rotary frequency")
    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).ravel()
    for place, value in enumerate(values.tolist()):
        if not 0 < value < math.inf:
            raise CheckpointError(f"{tensor.name} has {value} at {place}, expected positive numbers")
    return values.tolist()
