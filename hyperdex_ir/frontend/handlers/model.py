"""Operators of language models: tables, matrices, norms, rotary positions, attention."""

from __future__ import annotations

import numpy as np
import torch
from torch.fx import Node
from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.frontend.graph import arguments, matrix_of, shape_of_node
from hyperdex_ir.frontend.handlers.builder import Builder, Value
from hyperdex_ir.frontend.handlers.registry import handles
from hyperdex_ir.frontend.operators import ATTENTION, ROTARY_TABLE, SHORT_CONV

aten = torch.ops.aten


def _check_matrix(node: Node) -> str | None:
    return None if matrix_of(node).op == "placeholder" else "a weight that is computed"


@handles(aten.linear.default, check=_check_matrix)
def _linear(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    bias = given["bias"]
    return builder.emit(
        lpu.LinearOp(
            builder.tensor(given["input"]),
            builder.tensor(given["weight"]),
            None if bias is None else builder.tensor(bias),
        )
    )


def _check_product(node: Node) -> str | None:
    given = arguments(node)
    scales = [(name, given[name]) for name in ("alpha", "beta") if given[name] != 1]
    if scales:
        return ", ".join(f"{name}={scale}" for name, scale in scales)
    return _check_matrix(node)


@handles(aten.addmm.default, check=_check_product)
def _addmm(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    return builder.emit(lpu.LinearOp(*(builder.tensor(given[name]) for name in ("mat1", "mat2", "self"))))


@handles(aten.embedding.default, check=_check_matrix, integers=True)
def _embedding(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    table, index = builder.tensor(given["weight"]), builder.index(given["indices"])
    return builder.emit(lpu.EmbeddingOp(table, index.value, index.offset))


def _check_norm(node: Node) -> str | None:
    given = arguments(node)
    shape = shape_of_node(given["input"])
    if shape is None or list(given["normalized_shape"]) != [shape[-1]]:
        return f"normalized_shape {list(given['normalized_shape'])}, supported is the last dimension"
    return None


def _optional(builder: Builder, node: Node | None) -> SSAValue | None:
    return None if node is None else builder.tensor(node)


@handles(aten.layer_norm.default, check=_check_norm)
def _layer_norm(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.tensor(given["input"])
    weight, bias = _optional(builder, given["weight"]), _optional(builder, given["bias"])
    if weight is None or isinstance(weight.owner, lpu.WeightOp):
        return builder.emit(lpu.LayerNormOp(x, weight, bias, given["eps"]))
    # The machine's norm takes only a parameter. A computed weight is multiplied after the norm: the same roundings.
    scaled = builder.emit(lpu.MulOp(builder.emit(lpu.LayerNormOp(x, None, None, given["eps"])), weight))
    return scaled if bias is None else builder.emit(lpu.AddOp(scaled, bias))


@handles(aten.rms_norm.default, check=_check_norm)
def _rms_norm(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x, weight = builder.tensor(given["input"]), _optional(builder, given["weight"])
    epsilon = float(np.finfo(np.float32).eps) if given["eps"] is None else given["eps"]
    if weight is None or isinstance(weight.owner, lpu.WeightOp):
        return builder.emit(lpu.RmsNormOp(x, weight, epsilon))
    return builder.emit(lpu.MulOp(builder.emit(lpu.RmsNormOp(x, None, epsilon)), weight))


def _check_rotary(node: Node) -> str | None:
    return None if arguments(node)["position_ids"].op == "placeholder" else "positions that are computed"


@handles(ROTARY_TABLE, check=_check_rotary, integers=True)
def _rotary_table(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    table = builder.weight(given["key"], (builder.max_length, 2, given["size"]))
    op = builder.add(lpu.RotaryTableOp(table, builder.index(given["position_ids"]).value))
    return tuple(op.results)


def _check_attention(node: Node) -> str | None:
    given = arguments(node)
    shapes = [shape_of_node(given[name]) for name in ("query", "key", "value")]
    if any(shape is None or len(shape) != 4 or shape[0] != 1 for shape in shapes):
        return f"shapes {shapes}, supported is [1, heads, tokens, head size]"
    if given["sinks"] is not None and given["sinks"].op != "placeholder":
        return "sinks that are computed"
    return None


@handles(ATTENTION, check=_check_attention)
def _attention(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    operands = [_heads_last(builder, given[name]) for name in ("query", "key", "value")]
    scale: float = given["scale"]
    if (common := builder.scales.get(node)) is not None:
        operands[0] = builder.emit(lpu.MulOp(operands[0], builder.constant(scale / common)))
        scale = common
    slot, builder.slots = builder.slots, builder.slots + 1
    key, heads = given["slopes"], lpu.shape_of(operands[0])[1]
    attended = builder.emit(
        lpu.AttentionOp(
            *operands,
            slot=slot,
            scale=scale,
            window=given["window"],
            softcap=given["softcap"],
            slopes=None if key is None else builder.weight(key, (heads,)),
            bf16_bias=given["bf16_bias"],
            sinks=_optional(builder, given["sinks"]),
        )
    )
    return builder.reshape(attended, builder.shape(node))


@handles(SHORT_CONV)
def _short_conv(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.emit(lpu.TransposeOp(builder.tensor(given["x"]), [0, 2, 1]))
    slot, builder.slots = builder.slots, builder.slots + 1
    rows = builder.reshape(x, lpu.shape_of(x)[1:])
    y = builder.emit(lpu.ShortConvOp(rows, builder.tensor(given["taps"]), _optional(builder, given["bias"]), slot=slot))
    return builder.emit(lpu.TransposeOp(builder.reshape(y, lpu.shape_of(x)), [0, 2, 1]))


def _heads_last(builder: Builder, node: Node) -> SSAValue:
    """[1, H, ?, D] as [?, H, D]."""
    turned = builder.emit(lpu.TransposeOp(builder.tensor(node), [0, 2, 1, 3]))
    return builder.reshape(turned, lpu.shape_of(turned)[1:])
