"""What an imported module means, in float64 and without caches: independent of the machine's arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects import lpu

Parameters = Callable[[str], np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_ERF = np.vectorize(erf, otypes=[np.float64])
_UNARY: dict[type[Operation], Callable[[np.ndarray], np.ndarray]] = {
    lpu.NegOp: np.negative, lpu.ExpOp: np.exp, lpu.TanhOp: np.tanh, lpu.ErfOp: _ERF, lpu.SqrtOp: np.sqrt,
    lpu.RsqrtOp: lambda x: 1 / np.sqrt(x), lpu.ReluOp: lambda x: np.maximum(x, 0), lpu.SigmoidOp: _sigmoid,
    lpu.SiluOp: lambda x: x * _sigmoid(x), lpu.GeluOp: lambda x: 0.5 * x * (1 + _ERF(x / np.sqrt(2))),
    lpu.GeluTanhOp: _gelu_tanh, lpu.SumOp: lambda x: x.sum(-1, keepdims=True),
    lpu.MeanOp: lambda x: x.mean(-1, keepdims=True), lpu.RowMaxOp: lambda x: x.max(-1, keepdims=True),
    lpu.SelectRowsOp: lambda x: x,
}  # fmt: skip
_BINARY: dict[type[Operation], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    lpu.AddOp: np.add, lpu.SubOp: np.subtract, lpu.MulOp: np.multiply, lpu.DivOp: np.divide,
    lpu.MaxOp: np.maximum, lpu.MinOp: np.minimum,
}  # fmt: skip


def evaluate(module: ModuleOp, parameters: Parameters, tokens: list[int]) -> np.ndarray:
    """The logits of all rows, [tokens, vocabulary] of float64, for a module as the importer makes it."""
    (main,) = (op for op in module.walk() if isinstance(op, FuncOp))
    values: dict[SSAValue, Any] = dict(
        zip(main.body.block.args, (np.array(tokens), np.arange(len(tokens))), strict=True)
    )
    for op in main.body.block.ops:
        if isinstance(op, ReturnOp):
            return values[op.arguments[0]]
        results = _apply(op, [values[operand] for operand in op.operands], parameters, len(tokens))
        values.update(zip(op.results, results, strict=True))
    raise AssertionError("no return")


def _apply(op: Operation, x: list[np.ndarray], parameters: Parameters, count: int) -> tuple[np.ndarray, ...]:
    if type(op) in _UNARY:
        return (_UNARY[type(op)](*x),)
    if type(op) in _BINARY:
        return (_BINARY[type(op)](*x),)
    match op:
        case lpu.WeightOp():
            value = parameters(op.key_names[0]).astype(np.float64)
            assert value.shape == lpu.shape_of(op.res)
            return (value,)
        case lpu.ConstantOp():
            return (np.float64(op.value.value.data),)  # type: ignore[return-value]
        case lpu.ReshapeOp() | lpu.BroadcastOp():
            shape = [count if size < 0 else size for size in lpu.shape_of(op.res)]
            return (x[0].reshape(shape) if isinstance(op, lpu.ReshapeOp) else np.broadcast_to(x[0], shape),)
        case lpu.TransposeOp():
            return (x[0].transpose(op.axes),)
        case lpu.SliceOp():
            dim, start, stop, step = op.bounds
            return (x[0][(slice(None),) * dim + (slice(start, stop, step),)],)
        case lpu.ConcatOp():
            return (np.concatenate(x, axis=op.dim.value.data),)
        case _:
            return _apply_model_op(op, x)


def _apply_model_op(op: Operation, x: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    match op:
        case lpu.EmbeddingOp():
            return (x[0][x[1] + op.offset.value.data],)
        case lpu.RotaryTableOp():
            return x[0][x[1]][..., 0, :], x[0][x[1]][..., 1, :]
        case lpu.LinearOp():
            assert op.scale is op.softcap is op.activation is op.times is op.plus is None
            return (x[0] @ x[1].T + (x[2] if op.bias is not None else 0),)
        case lpu.LayerNormOp():
            centred = x[0] - x[0].mean(-1, keepdims=True)
            normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + op.epsilon.value.data)
            weight = x[1] if op.weight is not None else 1
            return (normal * weight + (x[-1] if op.bias is not None else 0),)
        case lpu.RmsNormOp():
            normal = x[0] / np.sqrt((x[0] ** 2).mean(-1, keepdims=True) + op.epsilon.value.data)
            return (normal * (x[1] if op.weight is not None else 1),)
        case lpu.AttentionOp():
            return (_attention(op, *x),)
        case lpu.TopKOp():
            return (_top_k(op, x[0]),)
        case lpu.TakeColumnsOp():
            return (np.take_along_axis(x[0], x[1], axis=-1),)
        case lpu.ExpertLinearOp():
            return (_expert_linear(op, *x),)
        case _:
            raise AssertionError(op.name)


def _attention(
    op: lpu.AttentionOp, query: np.ndarray, key: np.ndarray, value: np.ndarray, *more: np.ndarray
) -> np.ndarray:
    assert op.softcap is op.bf16_bias is None
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat(group, axis=1), value.repeat(group, axis=1)
    scores = np.einsum("qhd,khd->hqk", query, key) * op.scale.value.data
    count = len(query)
    if op.slopes is not None:
        scores += more[0][:, None, None] * (np.arange(count) - np.arange(count)[:, None])
    scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
    if op.window is not None:
        scores[:, np.tril(np.ones((count, count), bool), -op.window.value.data)] = -np.inf
    most = scores.max(-1, keepdims=True)
    weights = np.exp(scores - most)
    total = weights.sum(-1, keepdims=True)
    if op.sinks is not None:
        total = total + np.exp(more[-1][:, None, None] - most)
    return np.einsum("hqk,khd->qhd", weights / total, value)


def _top_k(op: lpu.TopKOp, scores: np.ndarray) -> np.ndarray:
    groups, chosen = op.limits
    grouped = scores.reshape(len(scores), groups, -1)
    if groups > 1:
        totals = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
        best = np.argsort(-totals, axis=-1, kind="stable")[:, :chosen]
        allowed = (np.arange(groups) == best[:, :, None]).any(1)
        grouped = np.where(allowed[..., None], grouped, -np.inf)
    return np.argsort(-grouped.reshape(scores.shape), axis=-1, kind="stable")[:, : op.k.value.data]


def _expert_linear(op: lpu.ExpertLinearOp, x: np.ndarray, weight: np.ndarray, *others: np.ndarray) -> np.ndarray:
    indices, *others_left = others
    x = np.broadcast_to(x[..., None], (*x.shape, op.ranks)) if x.ndim == 2 else x
    y = np.einsum("tck,tknc->tnk", x, weight[indices])
    if op.bias is not None:
        y = y + others_left.pop(0)[indices].swapaxes(1, 2)
    if op.gated is not None:
        gate, up = np.split(y, 2, axis=1)
        assert op.activation is not None
        assert op.activation.data == "silu"
        y = gate * _sigmoid(gate) * up
    return y if op.sum is None else (y * others_left[0][:, None]).sum(-1)
