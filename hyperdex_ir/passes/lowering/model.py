"""Tables, matrices and attention."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa import HbmRef, LmuUse, buffer_type
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.isa.instructions import DEVICE, KV_BASE, MATRIX_TYPES, ZERO
from hyperdex_ir.memory.collect import parameter_of
from hyperdex_ir.memory.map import CacheMap, ceil_div, matrix_bytes
from hyperdex_ir.passes.lowering import ring
from hyperdex_ir.passes.lowering.function import (
    HEAD,
    KEYS,
    OUTPUT,
    QUERY,
    SINK,
    SLOPE,
    VALUES,
    FunctionLowering,
    Index,
    lowers,
)
from hyperdex_ir.passes.lowering.views import View
from hyperdex_ir.targets import LANES

_WORD_BYTES = 4  # bytes of an f32


@lowers(lpu.EmbeddingOp)
def lower_embedding(to: FunctionLowering, op: lpu.EmbeddingOp) -> None:
    """One `embed` from a matrix, or one `gather` from an f32 table."""
    table = to.weight(op.table, (*MATRIX_TYPES, "f32"))
    index = to.place(op.index)
    if not isinstance(index, Index):
        raise to.error("the index must be the token ids or the positions")
    dtype = parameter_of(table).dtype
    target = to.result(op.res, "tokens")
    operands = {"scale": op.scale and op.scale.value.data} | ({"type": dtype} if dtype != "f32" else {})
    rows, columns = shape_of(op.table)
    to.emit(
        "gather" if dtype == "f32" else "embed",
        dst=LmuUse(target.buffer, target.offset),
        table=to.address(table),
        index=index.source,
        ids=HbmRef(to.shared.memory.tokens),
        offset=op.offset.value.data,
        limit=rows,
        columns=columns,
        rows=to.rows_register("tokens"),
        **operands,
    )


@lowers(lpu.RotaryTableOp)
def lower_rotary_table(to: FunctionLowering, op: lpu.RotaryTableOp) -> None:
    """One `gather` of cosines and sines together."""
    table = to.weight(op.table, ("f32",))
    index = to.place(op.position)
    if not isinstance(index, Index):
        raise to.error("the index must be the positions")
    limit, _, size = shape_of(op.table)
    both = to.buffer("tokens", 2 * size, op.cos.name_hint)
    to.emit(
        "gather",
        dst=LmuUse(both),
        table=to.address(table),
        index=index.source,
        ids=HbmRef(to.shared.memory.tokens),
        limit=limit,
        columns=2 * size,
        rows=to.rows_register("tokens"),
    )
    to.places[op.cos] = View(both, 0, (size,), (1,))
    to.places[op.sin] = View(both, size, (size,), (1,))


@lowers(lpu.LinearOp)
def lower_linear(to: FunctionLowering, op: lpu.LinearOp) -> None:
    """One `matmul`; one for each head where a matrix works on each head, one for each chunk where the result goes
    around the ring."""
    linear = _Linear.of(to, op)
    gather = ring.gather_of(op.res)
    if gather is not None and ring.is_written_in_place(op.res):
        part = ring.own_part(to, op.res, gather, linear.source.rows)
        for first, columns in ring.column_chunks(to, linear.n):
            linear.multiply(to, part.at(first), 0, first, columns)
            ring.pass_on(to, part, first, columns)
        return
    target = to.result(op.res, linear.source.rows)
    for number in range(prod(linear.source.dims[:-1])):
        linear.multiply(to, _part(target, number * linear.n), number, 0, linear.n)


@dataclass(frozen=True)
class _Linear:
    """A linear layer with n outputs of k inputs, and the places of its operands."""

    op: lpu.LinearOp
    weight: lpu.WeightOp
    n: int
    k: int
    source: View
    times: View | None
    plus: View | None

    @classmethod
    def of(cls, to: FunctionLowering, op: lpu.LinearOp) -> _Linear:
        weight = to.weight(op.weight, MATRIX_TYPES)
        source = to.contiguous(op.x)
        times, plus = (None if value is None else to.contiguous(value) for value in (op.times, op.plus))
        return cls(op, weight, op.columns, shape_of(op.weight)[1], source, times, plus)

    def multiply(self, to: FunctionLowering, dst: LmuUse, number: int, first: int, columns: int) -> None:
        """Columns `first` and on, `columns` of them, of the matrix times vector `number` of each row.

        `first` is a multiple of the target's MAC trees.
        """
        op, target = self.op, to.shared.memory.target
        dtype = parameter_of(self.weight).dtype
        skipped = matrix_bytes(first, self.k, dtype, target)
        bias = to.optional_address(op.bias)
        start = number * self.n + first
        gated = op.gated is not None
        to.emit(
            "matmul",
            dst=dst,
            src=_part(self.source, number * self.k),
            weight=_further(to.address(self.weight), skipped),
            k=self.k,
            n=columns,
            type=dtype,
            bias=None if bias is None else _further(bias, 4 * first),
            times=None if self.times is None else _part(self.times, start),
            plus=None if self.plus is None else _part(self.plus, start),
            rows=to.rows_register(buffer_type(dst.buffer).rows),
            scale=op.scale and op.scale.value.data,
            softcap=op.softcap and op.softcap.value.data,
            activation=op.activation and op.activation.data,
            gated=int(gated),
            gate_distance=self.n if gated and columns != self.n else 0,
        )


def _further(address: HbmRef, size: int) -> HbmRef:
    return HbmRef(address.offset + size, address.register)


def _part(view: View, words: int) -> LmuUse:
    return LmuUse(view.buffer, view.offset + words)


# ---------------------------------------------------------------------------------------------------- attention
@lowers(lpu.AttentionOp)
def lower_attention(to: FunctionLowering, op: lpu.AttentionOp) -> None:
    """Keys and values to the cache, then scores, softmax and values, head by head."""
    _, heads, key_size = shape_of(op.query)
    _, kv_heads, value_size = shape_of(op.value)
    cache = _cache_of(to, op)
    _store(to, op, cache)
    target = to.result(op.res, "tokens")
    query = to.use(op.query)
    scores = to.buffer("tokens", ceil_div(to.shared.memory.max_length, LANES) * LANES, "scores")
    for register in (QUERY, OUTPUT):
        to.emit("set", dst=register, value=0)
    given = ((SLOPE, op.slopes), (SINK, op.sinks))
    parameters = {register: to.address(to.weight(v, ("f32",))) for register, v in given if v is not None}
    for register, address in parameters.items():
        to.emit("add", dst=register, a=address.register, b=ZERO, value=address.offset)

    def one_head() -> None:
        _head(to, op, LmuUse(query.buffer, query.offset, QUERY), LmuUse(target.buffer, target.offset, OUTPUT), scores)
        _advance(to, QUERY, key_size)
        _advance(to, OUTPUT, value_size)
        for register in parameters:
            _advance(to, register, _WORD_BYTES)

    def one_kv_head() -> None:
        to.repeat(heads // kv_heads, one_head)
        _advance(to, KEYS, cache.key_pitch)
        _advance(to, VALUES, cache.value_pitch)

    def one_head_by_table() -> None:
        _look_up(to, op, cache)
        one_head()

    if (table := op.kv_head_table) is None:
        for register in (KEYS, VALUES):
            _from_base(to, register, ZERO)
        to.repeat(kv_heads, one_kv_head)
    else:
        if len(table) > heads:
            to.emit("multiply", dst=HEAD, a=DEVICE, value=heads)
        else:
            to.emit("set", dst=HEAD, value=0)
        to.repeat(heads, one_head_by_table)


def _cache_of(to: FunctionLowering, op: lpu.AttentionOp) -> CacheMap:
    cache = to.function_map.caches[op.slot.value.data]
    assert isinstance(cache, CacheMap)
    return cache


def _from_base(to: FunctionLowering, register: int, distance: int) -> None:
    """Sets the register to the base of the KV cache plus the bytes in the register `distance`."""
    base = to.shared.memory.kv_start if to.is_main else 0
    to.emit("add", dst=register, a=ZERO if to.is_main else KV_BASE, b=distance, value=base)


def _look_up(to: FunctionLowering, op: lpu.AttentionOp, cache: CacheMap) -> None:
    """Looks up, in a table, the KV head that the next query head of this device uses."""
    assert op.kv_heads_key is not None
    assert op.kv_head_table is not None
    table = HbmRef(to.shared.memory.main.parameters[op.kv_heads_key.data])
    to.emit("lookup", dst=KEYS, table=table, index=HEAD, limit=len(op.kv_head_table))
    _advance(to, HEAD, 1)
    for register, pitch in ((VALUES, cache.value_pitch), (KEYS, cache.key_pitch)):
        to.emit("multiply", dst=register, a=KEYS, value=pitch)
        _from_base(to, register, register)


def _advance(to: FunctionLowering, register: int, step: int) -> None:
    to.emit("add", dst=register, a=register, b=ZERO, value=step)


def _store(to: FunctionLowering, op: lpu.AttentionOp, cache: CacheMap) -> None:
    base = (to.shared.memory.kv_start, ZERO) if to.is_main else (0, KV_BASE)
    for name, value, offset, pitch in (
        ("store_key", op.key, cache.key_offset, cache.key_pitch),
        ("store_value", op.value, cache.value_offset, cache.value_pitch),
    ):
        _, heads, size = shape_of(value)
        to.emit(
            name,
            cache=HbmRef(base[0] + offset, base[1]),
            pitch=pitch,
            src=to.use(value),
            heads=heads,
            size=size,
            limit=to.shared.memory.max_length,
            type=to.shared.layout.matrix_type,
            rows=to.rows_register("tokens"),
        )


def _head(to: FunctionLowering, op: lpu.AttentionOp, query: LmuUse, target: LmuUse, scores: object) -> None:
    cache = _cache_of(to, op)
    common = {
        "window": op.window.value.data if op.window is not None else 0,
        "rows": to.rows_register("tokens"),
    }
    matrix_type = to.shared.layout.matrix_type
    to.emit(
        "scores",
        dst=scores,
        query=query,
        cache=HbmRef(cache.key_offset, KEYS),
        size=shape_of(op.query)[2],
        scale=op.scale.value.data,
        softcap=op.softcap and op.softcap.value.data,
        type=matrix_type,
        slope=None if op.slopes is None else HbmRef(0, SLOPE),
        bf16_bias=int(op.bf16_bias is not None),
        **common,
    )
    to.emit("softmax", dst=scores, src=scores, sink=None if op.sinks is None else HbmRef(0, SINK), **common)
    to.emit(
        "values",
        dst=target,
        src=scores,
        cache=HbmRef(cache.value_offset, VALUES),
        size=shape_of(op.value)[2],
        limit=to.shared.memory.max_length,
        type=matrix_type,
        **common,
    )
