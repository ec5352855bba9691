"""Tables, matrices and attention."""

from __future__ import annotations

from math import prod

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa import HbmRef, LmuUse
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.isa.instructions import KV_BASE, MATRIX_TYPES, ZERO
from hyperdex_ir.memory.collect import parameter_of
from hyperdex_ir.memory.map import CacheMap, ceil_div
from hyperdex_ir.passes.lowering.function import KEYS, OUTPUT, QUERY, VALUES, FunctionLowering, Index
from hyperdex_ir.passes.lowering.views import View
from hyperdex_ir.targets import LANES


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


def lower_linear(to: FunctionLowering, op: lpu.LinearOp) -> None:
    """One `matmul`; one for each head where a matrix works on each head."""
    weight = to.weight(op.weight, MATRIX_TYPES)
    n, k = op.columns, shape_of(op.weight)[1]
    source = to.contiguous(op.x)
    times = None if op.times is None else to.contiguous(op.times)
    plus = None if op.plus is None else to.contiguous(op.plus)
    target = to.result(op.res, source.rows)
    optional = {
        "scale": op.scale and op.scale.value.data,
        "softcap": op.softcap and op.softcap.value.data,
        "activation": op.activation and op.activation.data,
        "gated": int(op.gated is not None),
    }
    for part in range(prod(source.dims[:-1])):
        to.emit(
            "matmul",
            dst=_part(target, part * n),
            src=_part(source, part * k),
            weight=to.address(weight),
            k=k,
            n=n,
            type=parameter_of(weight).dtype,
            bias=to.optional_address(op.bias),
            times=None if times is None else _part(times, part * n),
            plus=None if plus is None else _part(plus, part * n),
            rows=to.rows_register(target.rows),
            **optional,
        )


def _part(view: View, words: int) -> LmuUse:
    return LmuUse(view.buffer, view.offset + words)


# ---------------------------------------------------------------------------------------------------- attention
def lower_attention(to: FunctionLowering, op: lpu.AttentionOp) -> None:
    """Keys and values to the cache, then scores, softmax and values, head by head."""
    _, heads, key_size = shape_of(op.query)
    _, kv_heads, value_size = shape_of(op.value)
    cache = to.function_map.caches[op.slot.value.data]
    _store(to, op, cache)
    target = to.result(op.res, "tokens")
    query = to.use(op.query)
    scores = to.buffer("tokens", ceil_div(to.shared.memory.max_length, LANES) * LANES, "scores")
    base = to.shared.memory.kv_start if to.is_main else 0
    for register in (QUERY, OUTPUT):
        to.emit("set", dst=register, value=0)
    for register in (KEYS, VALUES):
        to.emit("add", dst=register, a=ZERO if to.is_main else KV_BASE, b=ZERO, value=base)

    def one_head() -> None:
        _head(to, op, LmuUse(query.buffer, query.offset, QUERY), LmuUse(target.buffer, target.offset, OUTPUT), scores)
        _advance(to, QUERY, key_size)
        _advance(to, OUTPUT, value_size)

    def one_kv_head() -> None:
        to.repeat(heads // kv_heads, one_head)
        _advance(to, KEYS, cache.key_pitch)
        _advance(to, VALUES, cache.value_pitch)

    to.repeat(kv_heads, one_kv_head)


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
    cache = to.function_map.caches[op.slot.value.data]
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
        **common,
    )
    to.emit("softmax", dst=scores, src=scores, **common)
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
