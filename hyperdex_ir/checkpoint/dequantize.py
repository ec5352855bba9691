"""Quantized checkpoints, dequantized to bfloat16 tensors while they are read.

mxfp4: `name_blocks` [E, N, K / 32, 16] of two 4-bit floats a byte, the low one first, and `name_scales` [E, N, K / 32],
exponents of two plus 127, stand for `name` [E, K, N]. fp8: `name` [N, K] of 8-bit floats (e4m3) and `name_scale_inv`,
a factor for each block of weight_block_size, the last of a row or column possibly smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.quantization_check import QUANTIZATION, are_dense, quantization_of
from hyperdex_ir.checkpoint.tensors import Rearranged, Tensor
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import BF16, F32, PUBLISHED
from hyperdex_ir.support.reading import read_config_json

_BLOCKS, _SCALES, _SCALE_INV = "_blocks", "_scales", "_scale_inv"
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def open_checkpoint(
    directory: Path,
    watch: Callable[[Checkpoint], None] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Checkpoint:
    """The checkpoint of a directory, with quantized tensors dequantized as its config.json describes.

    watch: called with the tensors as they are stored, and may replace them. report: called with a line when they are
    not quantized, although config.json says so.
    Raises CheckpointError when there are no weights, or when a quantized tensor has no scales that fit it.
    """
    checkpoint = Checkpoint(directory)
    if watch is not None:
        watch(checkpoint)
    config = directory / "config.json"
    quantization = quantization_of(read_config_json(config)) if config.is_file() else None
    if quantization is not None and _is_dense(checkpoint):
        report(f"Read dense: the weights are not quantized, although config.json has a {QUANTIZATION}")
    elif quantization is not None:
        method = _METHODS[quantization["quant_method"]]
        checkpoint.tensors = dict(method(checkpoint, quantization))
    return checkpoint


def _is_dense(checkpoint: Checkpoint) -> bool:
    return are_dense({name: (one.dtype, len(one.shape)) for name, one in checkpoint.tensors.items()})


def is_left_over(directory: Path) -> bool:
    """Test for weights that are dense, whatever config.json says of a quantization; False without weights."""
    try:
        return _is_dense(Checkpoint(directory))
    except CheckpointError:
        return False


def _e4m3_table() -> np.ndarray:
    """The value of each of the 256 patterns: sign, 4 bits of exponent (bias 7), 3 of mantissa; all ones are NaN."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    small = exponent == 0
    value = np.ldexp(np.where(small, mantissa, 8 + mantissa) / 8.0, np.where(small, -6, exponent - 7))
    value[code & 127 == 127] = np.nan
    return np.where(code & 128, -value, value).astype(np.float32)


_E4M3 = _e4m3_table()


# ------------------------------------------------------------------------------------------------------------- mxfp4
def _unpack_mxfp4(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Dequantizes [e, N, G, 16] and [e, N, G] of uint8 to [e, 32 G, N] of bfloat16."""
    values = np.empty((*blocks.shape[:-1], 2 * blocks.shape[-1]), np.float32)
    values[..., 0::2] = _FP4[blocks & 15]
    values[..., 1::2] = _FP4[blocks >> 4]
    values = np.ldexp(values, scales.astype(np.int32)[..., None] - 127)
    experts, rows = blocks.shape[:2]
    return BF16.round(values).reshape(experts, rows, -1).swapaxes(1, 2)


def _mxfp4(checkpoint: Checkpoint, _: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in checkpoint.tensors.items():
        stem = name.removesuffix(_SCALES)
        if stem != name and stem + _BLOCKS in checkpoint.tensors:
            continue
        if not name.endswith(_BLOCKS):
            yield name, tensor
            continue
        stem = name.removesuffix(_BLOCKS)
        scales = checkpoint.tensors.get(stem + _SCALES)
        blocks = tensor.shape
        fits = scales is not None and len(blocks) == 4 and blocks[:3] == scales.shape and tensor.dtype == "U8"
        if scales is None or not fits or scales.dtype != "U8":
            raise CheckpointError(f"{checkpoint.directory}: {name} {list(blocks)} has no {stem}{_SCALES} that fits it")
        shape = blocks[0], 2 * blocks[2] * blocks[3], blocks[1]
        yield stem, Rearranged((tensor, scales), BF16.published, shape, _unpack_mxfp4)


# --------------------------------------------------------------------------------------------------------------- fp8
@dataclass(frozen=True)
class _ScaledBlocks:
    """A matrix of 8-bit floats times a factor for each block of `block` rows and columns, as bfloat16."""

    weight: Tensor
    scale: Tensor
    block: tuple[int, int]

    dtype = BF16.published

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @property
    def names(self) -> tuple[str, ...]:
        return *self.weight.names, *self.scale.names

    def rows(self, start: int, stop: int) -> np.ndarray:
        rows, columns = self.block
        first, last = start // rows, -(-stop // rows)
        scales = PUBLISHED[self.scale.dtype].load(self.scale.rows(first, last))
        scales = scales[np.arange(start, stop) // rows - first][:, np.arange(self.shape[1]) // columns]
        return BF16.round(_E4M3[self.weight.rows(start, stop)] * scales)


def _fp8(checkpoint: Checkpoint, quantization: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    rows, columns = quantization["weight_block_size"]
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(_SCALE_INV) and name.removesuffix(_SCALE_INV) in checkpoint.tensors:
            continue
        if tensor.dtype != "F8_E4M3":
            yield name, tensor
            continue
        scale = checkpoint.tensors.get(name + _SCALE_INV)
        blocks = tuple(-(-size // block) for size, block in zip(tensor.shape, (rows, columns), strict=False))
        if (
            scale is None
            or len(tensor.shape) != 2
            or scale.shape != blocks
            or scale.dtype not in (F32.published, BF16.published)
        ):
            raise CheckpointError(
                f"{checkpoint.directory}: {name} {list(tensor.shape)} has no {name}{_SCALE_INV} of {list(blocks)}"
            )
        yield name, _ScaledBlocks(tensor, scale, (rows, columns))


_METHODS = {"mxfp4": _mxfp4, "fp8": _fp8}
