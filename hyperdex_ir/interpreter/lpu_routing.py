"""Meanings of the operations of routed experts, on NumPy arrays."""

from __future__ import annotations

import numpy as np

from hyperdex_ir.dialects import lpu
from hyperdex_ir.interpreter import routing
from hyperdex_ir.interpreter.lpu_ops import Arrays, RunState, linear_steps, operation


@operation(lpu.TopKOp)
def top_k(run: RunState, op: lpu.TopKOp, args: Arrays) -> Arrays:
    return (routing.top_k(args[0], op.k.value.data, *op.limits),)


@operation(lpu.TakeColumnsOp)
def take_columns(run: RunState, op: lpu.TakeColumnsOp, args: Arrays) -> Arrays:
    return (np.take_along_axis(args[0], args[1], axis=1),)


@operation(lpu.ExpertLinearOp)
def expert_linear(run: RunState, op: lpu.ExpertLinearOp, args: Arrays) -> Arrays:
    """Computes expert by expert, for all rows that chose the expert at once: a row's numbers do not depend on other
    rows."""
    named = iter(args[3:])
    biases, weights = (None if v is None else next(named) for v in (op.bias, op.sum))
    x, matrices, indices = args[:3]
    ranks = x if x.ndim == 3 else np.repeat(x[:, :, None], op.ranks, axis=2)
    y = np.empty((len(x), op.columns, op.ranks), np.float32)
    for expert in np.unique(indices):
        rows, rank = np.nonzero(indices == expert)
        y[rows, :, rank] = linear_steps(
            run,
            ranks[rows, :, rank],
            matrices[expert],
            str(lpu.element_of(op.weight)),
            bias=None if biases is None else biases[expert],
            activation="none" if op.activation is None else op.activation.data,
            gated=op.gated is not None,
        )
    return (y if weights is None else _sum(run, y, weights),)


def _sum(run: RunState, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    products = y * weights[:, None, :]
    run.watch(products)
    total = products[..., 0]
    for rank in range(1, products.shape[2]):
        total = total + products[..., rank]
        run.watch(total)
    return total
