"""Operators of routers and routed experts."""

from __future__ import annotations

import torch
from torch.fx import Node
from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.frontend.experts import EXPERT_LINEAR, TOP_K
from hyperdex_ir.frontend.graph import TOKENS, arguments, dimension, is_float, shape_of_node
from hyperdex_ir.frontend.handlers.builder import Builder, Value
from hyperdex_ir.frontend.handlers.registry import handles

aten = torch.ops.aten


def _check_last(node: Node) -> str | None:
    """Checks that the operator works along the last dimension, on float32."""
    given = arguments(node)
    shape = shape_of_node(given["self"])
    if shape is None or dimension(given["dim"], len(shape)) != len(shape) - 1 or shape[-1] == TOKENS:
        return f"along dimension {given['dim']} of {shape}, supported is the last one"
    if given.get("dtype") not in (None, torch.float32) or not is_float(given["self"]):
        return "works on other numbers than float32"
    return None


@handles(aten.softmax.int, aten._softmax.default, check=_check_last)
def _softmax(builder: Builder, node: Node) -> Value:
    x = builder.tensor(arguments(node)["self"])
    powers = builder.emit(lpu.ExpOp(builder.emit(lpu.SubOp(x, builder.emit(lpu.RowMaxOp(x))))))
    return builder.emit(lpu.DivOp(powers, builder.emit(lpu.SumOp(powers))))


def _check_top_k(node: Node) -> str | None:
    given = arguments(node)
    if len(shape_of_node(given["self"]) or ()) != 2 or not given["largest"]:
        return "supported are the largest of each row of [tokens, columns]"
    return _check_last(node)


@handles(aten.topk.default, check=_check_top_k, integers=True)
def _top_k(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    scores = builder.tensor(given["self"])
    indices = builder.emit(lpu.TopKOp(scores, given["k"]))
    return builder.emit(lpu.TakeColumnsOp(scores, indices)), indices


@handles(TOP_K, integers=True)
def _group_top_k(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    scores, groups = builder.tensor(given["scores"]), given["groups"]
    return builder.emit(lpu.TopKOp(scores, given["k"], groups=groups, top_groups=given["top_groups"]))


def _check_gather(node: Node) -> str | None:
    shapes = [shape_of_node(arguments(node)[name]) for name in ("self", "index")]
    if any(shape is None or len(shape) != 2 for shape in shapes):
        return f"shapes {shapes}, supported are columns of each row"
    return _check_last(node)


@handles(aten.gather.default, check=_check_gather, integers=True)
def _gather(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    return builder.emit(lpu.TakeColumnsOp(builder.tensor(given["self"]), builder.tensor(given["index"])))


def _check_experts(node: Node) -> str | None:
    return None if arguments(node)["weight"].op == "placeholder" else "a weight that is computed"


@handles(EXPERT_LINEAR, check=_check_experts, integers=True)
def _expert_linear(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    return builder.emit(
        lpu.ExpertLinearOp(
            builder.tensor(given["x"]),
            builder.tensor(given["weight"]),
            builder.tensor(given["indices"]),
            _optional(builder, given["bias"]),
            activation=given["activation"],
            gated=given["activation"] is not None,
            sum=_optional(builder, given["scores"]),
        )
    )


def _optional(builder: Builder, node: Node | None) -> SSAValue | None:
    return None if node is None else builder.tensor(node)
