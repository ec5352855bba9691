"""Phase 0: check for supported quantized weights. They are dequantized while they are read (`dequantize.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperdex_ir.errors import ConfigError, UnsupportedModelError

#: Methods whose weights are dequantized to bfloat16.
METHODS = ("mxfp4", "fp8")


def quantization_of(config: Mapping[str, Any]) -> Any:
    """The quantization_config of a config.json, else that of the text model in a wrapper's; None when there is none."""
    given, text = config.get("quantization_config"), config.get("text_config")
    return text.get("quantization_config") if given is None and isinstance(text, Mapping) else given


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
            f"{where}: weights quantized by {method} are not supported", f"supported are {', '.join(METHODS)}"
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
