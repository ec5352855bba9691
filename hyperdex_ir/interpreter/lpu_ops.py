"""Meanings of the operations of the `lpu` dialect, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import DYNAMIC_INDEX

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import Handlers
from hyperdex_ir.interpreter import arithmetic, attention
from hyperdex_ir.interpreter.arithmetic import epilogue, mac
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.formats import ELEMENTS, FORMATS
from hyperdex_ir.memory.collect import parameter_of
from hyperdex_ir.memory.shards import local_rows
from hyperdex_ir.memory.tiles import tile_view

_TREES = 16  # any number gives the same bits
Arrays = tuple[np.ndarray, ...]


@dataclass
class Cache:
    """Keys and values of one slot, by KV head: uint16 tiles [heads, groups, steps, trees, 64]."""

    keys: np.ndarray
    values: np.ndarray


@dataclass
class RunState:
    """State that operations need besides their operands. Everything below `states` belongs to the running step.

    device: the number of the device that is running; caches, states: by device and slot.
    """

    parameters: Callable[[str], np.ndarray]
    matrix_type: str
    max_length: int
    caches: dict[tuple[int, int], Cache] = field(default_factory=dict)
    states: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    device: int = 0
    position: int = 0
    rows: int = 0
    first_row: int = 0
    layer: int = 0
    slot_base: int = 0
    next_slot: int = 0
    nonfinite: bool = False
    fault: str | None = None

    def begin(self, position: int, rows: int, first_row: int, slots: int) -> None:
        """Starts a step. slots: number of slots that the main function uses by itself."""
        self.position, self.rows, self.first_row = position, rows, first_row
        self.layer, self.slot_base, self.next_slot, self.fault = 0, 0, slots, None

    def watch(self, data: np.ndarray) -> None:
        """Raises the flag of the running operation when the data holds a NaN or an infinity."""
        if data.dtype == np.float32 and not np.isfinite(data).all():
            self.nonfinite = True

    def issue(self, x: np.ndarray) -> np.ndarray:
        """float32 rounded to the matrix type, as bits."""
        bits = FORMATS[self.matrix_type].round(x)
        self.watch(FORMATS[self.matrix_type].load(bits))
        return bits


#: The meaning of each operation that is computed on one device.
MEANINGS = Handlers[Callable[[RunState, Any, Arrays], Arrays]]()
operation = MEANINGS.register


# ---------------------------------------------------------------------------------------------------- sources


@operation(lpu.WeightOp)
def weight(run: RunState, op: lpu.WeightOp, args: Arrays) -> Arrays:
    return (local_rows(parameter_of(op).of_layer(run.layer), run.parameters, run.device),)


@operation(lpu.ConstantOp)
def constant(run: RunState, op: lpu.ConstantOp, args: Arrays) -> Arrays:
    return (np.array(op.value.value.data, np.float32),)


@operation(lpu.LayerConstantOp)
def layer_constant(run: RunState, op: lpu.LayerConstantOp, args: Arrays) -> Arrays:
    if run.layer >= len(op.values):
        raise Forbidden(Fault.LAYER_NUMBER, layer=run.layer, layers=len(op.values))
    return (np.array(op.values[run.layer], np.float32),)


# ---------------------------------------------------------------------------------------------------- elementwise


@operation(lpu.BinaryOp)
def binary(run: RunState, op: lpu.BinaryOp, args: Arrays) -> Arrays:
    return (arithmetic.binary(op.mnemonic(), *args),)


@operation(lpu.UnaryOp)
def unary(run: RunState, op: lpu.UnaryOp, args: Arrays) -> Arrays:
    return (arithmetic.unary(op.mnemonic(), *args),)


@operation(lpu.ReduceOp)
def reduce(run: RunState, op: lpu.ReduceOp, args: Arrays) -> Arrays:
    return (arithmetic.REDUCTIONS[op.mnemonic()](*args),)


# ---------------------------------------------------------------------------------------------------- shapes


@operation(lpu.ReshapeOp)
def reshape(run: RunState, op: lpu.ReshapeOp, args: Arrays) -> Arrays:
    return (args[0].reshape([-1 if n == DYNAMIC_INDEX else n for n in lpu.shape_of(op.res)]),)


@operation(lpu.TransposeOp)
def transpose(run: RunState, op: lpu.TransposeOp, args: Arrays) -> Arrays:
    return (args[0].transpose(op.axes),)


@operation(lpu.SliceOp)
def slice_(run: RunState, op: lpu.SliceOp, args: Arrays) -> Arrays:
    dim, start, stop, step = op.bounds
    return (args[0][(slice(None),) * dim + (slice(start, stop, step),)],)


@operation(lpu.ConcatOp)
def concat(run: RunState, op: lpu.ConcatOp, args: Arrays) -> Arrays:
    return (np.concatenate(args, axis=op.dim.value.data),)


@operation(lpu.BroadcastOp)
def broadcast(run: RunState, op: lpu.BroadcastOp, args: Arrays) -> Arrays:
    source = lpu.shape_of(op.x)
    rows = args[0].shape[source.index(DYNAMIC_INDEX)] if DYNAMIC_INDEX in source else run.rows
    return (np.broadcast_to(args[0], [rows if n == DYNAMIC_INDEX else n for n in lpu.shape_of(op.res)]),)


@operation(lpu.SelectRowsOp)
def select_rows(run: RunState, op: lpu.SelectRowsOp, args: Arrays) -> Arrays:
    return (args[0][run.first_row :],)


@operation(lpu.SelectColumnsOp)
def select_columns(run: RunState, op: lpu.SelectColumnsOp, args: Arrays) -> Arrays:
    columns = lpu.shape_of(op.res)[1]
    selected = args[0][:, run.device * columns : (run.device + 1) * columns]
    return (np.pad(selected, [(0, 0), (0, columns - selected.shape[1])]),)


# ---------------------------------------------------------------------------------------------------- model


def _rows_of(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    outside = (index < 0) | (index >= len(table))
    if outside.any():
        raise Forbidden(Fault.TABLE_ROW, row=index[outside][0], rows=len(table))
    return table[index]


@operation(lpu.EmbeddingOp)
def embedding(run: RunState, op: lpu.EmbeddingOp, args: Arrays) -> Arrays:
    table, index = args
    values = ELEMENTS[str(lpu.element_of(op.table))].load(_rows_of(table, index + op.offset.value.data))
    return (values if op.scale is None else arithmetic.scaled(values, op.scale.value.data),)


@operation(lpu.RotaryTableOp)
def rotary_table(run: RunState, op: lpu.RotaryTableOp, args: Arrays) -> Arrays:
    rows = _rows_of(*args)
    return rows[..., 0, :], rows[..., 1, :]


@operation(lpu.LinearOp)
def linear(run: RunState, op: lpu.LinearOp, args: Arrays) -> Arrays:
    named = iter(args[2:])
    bias, times, plus = (None if v is None else next(named) for v in (op.bias, op.times, op.plus))
    x, matrix = args[:2]
    n = op.columns
    y = linear_steps(
        run,
        x.reshape(-1, x.shape[-1]),
        matrix,
        str(lpu.element_of(op.weight)),
        bias=bias,
        scale=1.0 if op.scale is None else op.scale.value.data,
        softcap=0.0 if op.softcap is None else op.softcap.value.data,
        activation="none" if op.activation is None else op.activation.data,
        gated=op.gated is not None,
        times=None if times is None else times.reshape(-1, n),
        plus=None if plus is None else plus.reshape(-1, n),
    )
    return (y.reshape(*x.shape[:-1], n),)


def linear_steps(run: RunState, x: np.ndarray, matrix: np.ndarray, matrix_type: str, **steps: Any) -> np.ndarray:
    """MAC with all rows of a matrix, and the steps of `epilogue`, each watched. x: float32 [rows, k]."""
    products = mac(tile_view(matrix, _TREES), run.issue(x), matrix_type)[:, : len(matrix)]
    y = np.empty(0, np.float32)
    for y in epilogue(products, **steps):
        run.watch(y)
    return y


@operation(lpu.RmsNormOp)
def rms_norm(run: RunState, op: lpu.RmsNormOp, args: Arrays) -> Arrays:
    weight = None if op.weight is None else args[1]
    return (arithmetic.rms_norm(args[0], weight, op.epsilon.value.data, op.unit_offset is not None),)


@operation(lpu.LayerNormOp)
def layer_norm(run: RunState, op: lpu.LayerNormOp, args: Arrays) -> Arrays:
    named = iter(args[1:])
    weight, bias = (None if v is None else next(named) for v in (op.weight, op.bias))
    unit_offset = op.unit_offset is not None
    return (arithmetic.layer_norm(args[0], weight, bias, op.epsilon.value.data, unit_offset),)


@operation(lpu.RotaryOp)
def rotary(run: RunState, op: lpu.RotaryOp, args: Arrays) -> Arrays:
    x, cos, sin = args
    return (arithmetic.rotary(x, cos, sin, op.style.data),)


@operation(lpu.AttentionOp)
def attention_(run: RunState, op: lpu.AttentionOp, args: Arrays) -> Arrays:
    query, key, value = (run.issue(x) for x in args[:3])
    named = iter(args[3:])
    slopes, sinks = (None if v is None else next(named) for v in (op.slopes, op.sinks))
    rows, heads, _ = query.shape
    groups, size = value.shape[1:]
    cache = _cache_of(run, run.slot_base + op.slot.value.data, key, value)
    for head in range(groups):
        attention.write_keys(cache.keys[head], run.position, key[:, head])
        attention.write_values(cache.values[head], run.position, value[:, head])
    reach = attention.span(run.position, rows, 0 if op.window is None else op.window.value.data)
    scale, softcap = op.scale.value.data, 0.0 if op.softcap is None else op.softcap.value.data
    result = np.empty((rows, heads, size), np.float32)
    for head in range(heads):
        kv_head = op.kv_head(head, run.device)
        scores = attention.scores(query[:, head], cache.keys[kv_head], reach, scale, softcap, run.matrix_type)
        if slopes is not None:
            scores = scores + attention.bias(slopes[head], reach, scale, op.bf16_bias is not None)
        run.watch(scores[reach.seen])
        weights = attention.softmax(scores, reach, None if sinks is None else sinks[head])
        weights = run.issue(np.where(reach.seen, weights, np.float32(0)))
        y = attention.values(weights, cache.values[kv_head], reach, run.matrix_type)
        result[:, head] = y[:, :size]
    return (result,)


@operation(lpu.ShortConvOp)
def short_conv(run: RunState, op: lpu.ShortConvOp, args: Arrays) -> Arrays:
    x, taps, *bias = args
    place = run.device, run.slot_base + op.slot.value.data
    before = run.states.get(place)
    if before is None or run.position == 0:
        before = np.zeros((op.history, taps.shape[0]), np.float32)
    rows = np.concatenate([before, x])
    run.states[place] = rows[len(rows) - op.history :]
    return (arithmetic.short_conv(rows, taps[:, 0].T, *bias),)


def _cache_of(run: RunState, slot: int, key: np.ndarray, value: np.ndarray) -> Cache:
    place = run.device, slot
    if place not in run.caches:
        heads = key.shape[1]
        keys = tile_view(np.zeros((run.max_length, key.shape[2]), key.dtype), _TREES)
        values = tile_view(np.zeros((value.shape[2], run.max_length), value.dtype), _TREES)
        run.caches[place] = Cache(*(np.zeros((heads, *tiles.shape), tiles.dtype) for tiles in (keys, values)))
    return run.caches[place]
