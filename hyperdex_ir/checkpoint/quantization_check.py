"""Phase 0: check for supported quantized weights. They are dequantized while they are read (`dequantize.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperdex_ir.errors import ConfigError, UnsupportedModelError
from hyperdex_ir.isa.formats import FLOATS

QUANTIZATION = "quantization_config"
#: Methods whose weights are dequantized to bfloat16.
METHODS = ("mxfp4", "fp8")


def stored_kind(types: Mapping[str, str]) -> str:
    """The kind of quantized weights that tensors are, in words, by their names and types; empty for none."""
    for name, dtype in types.items():
        stem = name.rpartition(".")[0]
        if dtype == "I8" and (f"{stem}.SCB" in types or f"{stem}.weight_format" in types):
            return "8-bit weights of bitsandbytes"
        if dtype == "U8" and f"{name}.absmax" in types:
            return "4-bit weights of bitsandbytes"
        if dtype.startswith("F8_"):
            return f"8-bit floats ({dtype}) whose scaling no quantization_config in config.json describes"
        if name.endswith((".qweight", ".weight_packed")):
            return "packed weights, as of GPTQ, AWQ or compressed-tensors"
    return ""


def are_dense(types: Mapping[str, tuple[str, int]]) -> bool:
    """Test for tensors that are all stored as ordinary floats, by name: type and number of dimensions."""
    return all(dtype in (*FLOATS, "BOOL") or dimensions < 2 for dtype, dimensions in types.values())


def quantization_of(config: Mapping[str, Any]) -> Any:
    """The quantization_config of a config.json, else that of the text model in a wrapper's; None when there is none."""
    given, text = config.get(QUANTIZATION), config.get("text_config")
    return text.get(QUANTIZATION) if given is None and isinstance(text, Mapping) else given


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without what `quantization_of` finds."""
    text = config.get("text_config")
    inner = {"text_config": without_quantization(text)} if isinstance(text, Mapping) else {}
    return {key: value for key, value in config.items() if key != QUANTIZATION} | inner


def check_quantization(config: Mapping[str, Any], source: str) -> None:
    """Checks the quantization_config of a config.json.

    Raises UnsupportedModelError for an unknown method, ConfigError for one that is not described.
    """
    given = config.get("quantization_config")
    if given is None:
        return
    where = f"{source}: quantization_config"
    method = given.get("quant_method") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(method, str):
        raise ConfigError(f"{where}: no quant_method, expected an object that names one")
    if method not in METHODS:
        raise UnsupportedModelError(
            f"{where}: weights quantized by {method} are not supported",
            f"supported are {', '.join(METHODS)}; a local checkpoint of dense weights is read as such",
        )
    if method == "fp8":
        _check_fp8(given, where)


def _check_fp8(given: Mapping[str, Any], where: str) -> None:
    form = given.get("fmt", "e4m3")
    if form != "e4m3":
        raise UnsupportedModelError(f"{where}: fmt {form} is not supported", "supported is e4m3")
    block = given.get("weight_block_size")
    if block is None:
        raise UnsupportedModelError(f"{where}: fp8 without weight_block_size, one factor a tensor, is not supported")
    sizes = isinstance(block, list) and len(block) == 2
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in block):
        raise ConfigError(f"{where}: weight_block_size is {block}, expected two whole numbers from 1 on")
