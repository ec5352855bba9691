"""Random instructions of every kind: operands that fit, that overlap, and now and then that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from engine_case import BASE, HEADS, LENGTH, LMU_WORDS, OFFSET, OTHER, ROWS, VOCABULARY, Case, Choose, op, start_case

from hyperdex_ir.isa.instructions import ACTIVATIONS, BINARY, REDUCTIONS, ROTARY_STYLES, TOKENS, UNARY
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.isa.settings import Settings

T = TypeVar("T")


def make_case(c: Choose, names: Sequence[str], most: int) -> Case:
    """One to `most` instructions of these names."""
    case = start_case(c)
    maker = Maker(c, case)
    for _ in range(c.integer(1, most)):
        name = c.pick(names)
        case.instructions += MAKERS[name](maker, name)
    return case


class Maker:
    """Makes operands for one case."""

    def __init__(self, c: Choose, case: Case):
        self.c, self.case, self.map = c, case, case.map
        self.known: list[LmuRef] = []

    def size(self, most: int) -> int:
        """From 1 to `most`; sizes around a vector's and a tree's more often."""
        c = self.c
        return min(most, c.pick((c.integer(1, most), 1, 8, 16, 17, 63, 64, 65, 128)))

    def rows_register(self) -> tuple[int, int]:
        """(register, the rows that it says); seldom one that is not set, or that says too many."""
        c = self.c
        if c.chance(2):
            return c.pick((0, OTHER, BASE)), 1
        return c.pick(((ROWS, self.case.rows), (TOKENS, self.case.tokens)))

    def _place(self, reach: int, register: int) -> int:
        """A first word that leaves room for `reach` more; seldom any."""
        c, added = self.c, self.case.offset if register else 0
        if c.chance(2):
            return c.integer(0, LMU_WORDS + 100)
        high = max(0, LMU_WORDS - 1 - reach - added)
        return min(high, c.pick((0, high, c.integer(0, high), c.integer(0, 300))))

    def lmu(self, rows: int, columns: int, *, written: bool = False) -> LmuRef:
        """Rows; those that are written do not overlap each other. Now and then rows that another operand has."""
        c = self.c
        if self.known and c.chance(25):
            return c.pick(self.known)
        stride = columns + c.pick((0, 0, 1, 13))
        if not written and c.chance(20):
            stride = c.pick((0, 1, columns // 2))
        register = c.pick((0, 0, OFFSET))
        ref = LmuRef(self._place((rows - 1) * stride + columns - 1, register), stride, register)
        if stride >= columns:
            self.known.append(ref)
        return ref

    def fresh(self, rows: int, columns: int) -> LmuRef:
        """Rows that are written: of another operand only when they are as wide."""
        self.known = [ref for ref in self.known if ref.stride >= columns]
        return self.lmu(rows, columns, written=True)

    def view(self, rows: int, groups: int, columns: int, *, written: bool = False) -> ViewRef:
        """A strided view; one that is written does not overlap itself."""
        c = self.c
        step = c.pick((1, 1, 1, 2, 3))
        group = columns * step + c.pick((0, 0, 5))
        stride = groups * group + c.pick((0, 0, 3))
        if c.chance(15):  # groups outside, rows inside
            stride = columns * step
            group = rows * stride
        if not written and c.chance(30):
            stride, group, step = c.pick(
                ((0, group, step), (stride, 0, step), (stride, group, 0), (1, 1, 1), (0, 0, 0))
            )
        register = c.pick((0, 0, OFFSET))
        reach = (rows - 1) * stride + (groups - 1) * group + (columns - 1) * step
        return ViewRef(self._place(reach, register), stride, group, step, register)

    def source(self, dst: ViewRef, rows: int, groups: int, columns: int) -> ViewRef:
        """A view that is read: now and then the one that is written, or one word further on."""
        c = self.c
        if c.chance(25):
            return dst
        if c.chance(10):
            return ViewRef(dst.address + 1, dst.stride, dst.group_stride, dst.column_stride, dst.register)
        return self.view(rows, groups, columns)

    def parameter(self, size: int, grid: int) -> HbmRef:
        """`size` bytes of the parameters, on a grid; seldom anywhere in HBM."""
        c = self.c
        if c.chance(3):
            return HbmRef(c.integer(0, self.map.end + 4096), c.pick((0, BASE)))
        register = c.pick((0, 0, BASE))
        room = self.map.parameter_end - size - (self.case.base if register else 0)
        return HbmRef(grid * c.integer(0, max(0, room // grid)), register)

    def matrix(self, rows: int, columns: int) -> HbmRef:
        target = self.map.target
        groups, steps = -(-rows // target.trees), -(-columns // 64)
        return self.parameter(groups * steps * target.stripe_bytes, target.stripe_bytes)

    def row(self, columns: int) -> HbmRef:
        return self.parameter(4 * columns, 4)

    def maybe(self, percent: int, make: Callable[[], T]) -> T | None:
        return make() if self.c.chance(percent) else None

    def elsewhere(self) -> HbmRef:
        """In the parameters, in the KV cache but off its grid, or beyond HBM."""
        c, start = self.c, self.map.kv_start
        place = c.pick((c.integer(0, start), start + c.integer(1, 4096), self.map.end))
        return HbmRef(place // 1024 * 1024)

    def cache(self, *, keys: bool) -> HbmRef:
        """The keys or values of a head; seldom another place."""
        c, slot = self.c, self.map.main.caches[0]
        if c.chance(4):
            return self.elsewhere()
        offset, pitch = (slot.key_offset, slot.key_pitch) if keys else (slot.value_offset, slot.value_pitch)
        return HbmRef(self.map.kv_start + offset + c.integer(0, HEADS - 1) * pitch)

    def window(self) -> int:
        c = self.c
        return c.pick((0, 0, 1, 5, 64, c.integer(1, LENGTH)))


# ---------------------------------------------------------------------------------------------------- vector engine


def _shape(m: Maker) -> tuple[int, int, int, int]:
    """(rows register, rows, groups, columns)."""
    register, rows = m.rows_register()
    groups = m.c.pick((1, 1, 2, 5))
    return register, rows, groups, m.size(max(1, min(200, 2000 // (rows * groups))))


def _unary(m: Maker, name: str) -> list[Instruction]:
    register, *shape = _shape(m)
    dst = m.view(*shape, written=True)
    return [
        op(
            name,
            function=m.c.pick(UNARY),
            dst=dst,
            a=m.source(dst, *shape),
            groups=shape[1],
            columns=shape[2],
            rows=register,
        )
    ]


def _binary(m: Maker, name: str) -> list[Instruction]:
    register, *shape = _shape(m)
    dst = m.view(*shape, written=True)
    values = {"function": m.c.pick(BINARY), "dst": dst, "groups": shape[1], "columns": shape[2], "rows": register}
    if name == "binary":
        return [op(name, a=m.source(dst, *shape), b=m.source(dst, *shape), **values)]
    scalar = m.c.pick((0.0, -0.0, 1.0, -2.5, 1e-45, 3.4e38, float("inf"), float("nan")))
    return [op(name, a=m.source(dst, *shape), b=scalar, reversed=m.c.integer(0, 1), **values)]


def _reduce(m: Maker, name: str) -> list[Instruction]:
    register, rows, groups, columns = _shape(m)
    dst = m.view(rows, groups, 1, written=True)
    a = m.view(rows, groups, columns)
    return [op(name, function=m.c.pick(REDUCTIONS), dst=dst, a=a, groups=groups, columns=columns, rows=register)]


def _norm(m: Maker, name: str) -> list[Instruction]:
    register, *shape = _shape(m)
    dst = m.view(*shape, written=True)
    values: dict[str, Any] = {"weight": m.maybe(70, lambda: m.row(shape[2])), "unit_offset": m.c.integer(0, 1)}
    if name == "layer_norm":
        values["bias"] = m.maybe(70, lambda: m.row(shape[2]))
    epsilon = m.c.pick((1e-5, 0.0, 1e-45, 1.0))
    a = m.source(dst, *shape)
    return [op(name, dst=dst, a=a, epsilon=epsilon, groups=shape[1], columns=shape[2], rows=register, **values)]


def _rotary(m: Maker, name: str) -> list[Instruction]:
    register, rows, groups, columns = _shape(m)
    turned = columns - columns % 2 if m.c.chance(50) else 2 * m.c.integer(0, columns // 2)
    turned += m.c.chance(2)
    dst = m.view(rows, groups, columns, written=True)
    cos, sin = (m.lmu(rows, max(1, turned)) for _ in range(2))
    style = m.c.pick(ROTARY_STYLES)
    a = m.source(dst, rows, groups, columns)
    return [
        op(
            name,
            dst=dst,
            a=a,
            cos=cos,
            sin=sin,
            style=style,
            turned=turned,
            groups=groups,
            columns=columns,
            rows=register,
        )
    ]


def _select_rows(m: Maker, name: str) -> list[Instruction]:
    register, rows = m.rows_register()
    columns, first = m.size(100), m.c.integer(-1 if m.c.chance(5) else 0, max(0, m.case.chunk - rows))
    src = m.lmu(m.case.chunk, columns)
    start = op("set", dst=12, value=first)
    return [start, op(name, dst=m.fresh(rows, columns), src=src, first=12, columns=columns, rows=register)]


def _select_columns(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    register, rows = m.rows_register()
    columns, limit = m.size(100), m.size(200)
    block = c.pick((-1, 1 << 40)) if c.chance(4) else c.integer(0, limit // columns + 1)
    src = m.lmu(rows, limit)
    start = op("set", dst=12, value=block)
    values = {"index": 12, "columns": columns, "limit": limit, "rows": register}
    return [start, op(name, dst=m.fresh(rows, columns), src=src, **values)]


def _exchange(m: Maker, name: str) -> list[Instruction]:
    """Messages to the device itself: what is sent comes back, now and then later, or as another than is expected."""
    c = m.c
    register, rows = m.rows_register()
    columns, hop, parts = m.size(100), c.integer(0, 9), c.pick((4, 4, 5, 9, m.case.device + 1))
    pitch, first = c.pick((columns, 100)), c.pick((0, 0, 3))
    part = (m.case.device - hop) % parts
    values = {"hop": hop, "parts": parts, "pitch": pitch, "first": first, "columns": columns, "rows": register}
    refs = {"src": m.lmu(rows, columns), "dst": m.fresh(rows, columns)}
    back = part * pitch + first  # so that the part lies where the operand was meant to
    refs = {key: LmuRef(max(0, ref.address - back), ref.stride, ref.register) for key, ref in refs.items()}
    if name == "send":
        return [op("send", src=refs["src"], **values)]
    others = (
        values | c.pick(({"columns": columns + 1}, {"hop": hop + 1}, {"parts": m.case.device}))
        if c.chance(6)
        else values
    )
    sends = [] if c.chance(4) else [op("send", src=refs["src"], **values)]
    return [*sends, op("receive", dst=refs["dst"], **others)]


def any_settings(c: Choose, columns: int) -> Settings:
    """Settings for so many columns; now and then some that are refused."""
    return Settings(
        mode=2 if c.chance(3) else c.pick((0, 1, 1, 1)),
        top_k=-1 if c.chance(3) else c.pick((0, 0, 1, 5, columns, columns + 9, c.integer(0, columns))),
        seed=c.pick((0, 7, (1 << 64) - 1)),
        temperature=0.0 if c.chance(3) else c.pick((1.0, 0.7, 1e-45, 3e38, 8.0)),
        top_p=1.5 if c.chance(3) else c.pick((1.0, 1.0, 0.0, 0.9, 0.3, 1e-30)),
        repetition_penalty=-1.0 if c.chance(3) else c.pick((1.0, 1.2, 0.5, 1e-40, 3e38)),
    )


def _sample(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    columns = m.size(400)
    m.case.settings = any_settings(c, columns)
    register, rows = m.rows_register()
    place = HbmRef(m.map.sampling) if c.chance(95) else HbmRef(c.integer(0, m.map.end))
    return [op(name, dst=c.pick((7, 0)), src=m.lmu(rows, columns), columns=columns, rows=register, settings=place)]


# ---------------------------------------------------------------------------------------------------- MAC trees


def _matmul(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    register, rows = m.rows_register()
    k, n = m.size(300), m.size(90)
    gated = c.pick((0, 0, 1))
    distance = c.pick((0, n, n + 7, c.integer(1, 90))) if c.chance(50) else 0
    matrix_rows = n + (distance or n) if gated else n
    values: dict[str, Any] = {
        "weight": m.matrix(matrix_rows, k),
        "bias": m.maybe(40, lambda: m.row(matrix_rows)),
        "scale": c.pick((1.0, 1.0, 0.125, -3.0)),
        "softcap": c.pick((0.0, 0.0, 30.0, 1.0)),
        "activation": c.pick(("none", *ACTIVATIONS)),
        "src": m.lmu(rows, k),
        "times": m.maybe(25, lambda: m.lmu(rows, n)),
        "plus": m.maybe(40, lambda: m.lmu(rows, n)),
    }
    dst = m.fresh(rows, n)
    return [op(name, dst=dst, k=k, n=n, type=m.case.matrix_type, rows=register, gated=gated,
               gate_distance=distance, **values)]  # fmt: skip


def _attention(m: Maker, name: str) -> list[Instruction]:
    c, size = m.c, m.case.head_size
    register, rows = m.rows_register()
    size = size if c.chance(80) else c.integer(1, size)
    table, window = m.lmu(rows, LENGTH, written=True), m.window()
    other = table if c.chance(70) else m.lmu(rows, LENGTH, written=True)
    if table.stride < LENGTH or other.stride < LENGTH:
        table = other = LmuRef(m.c.integer(0, 300), LENGTH)
    values: dict[str, Any] = {"window": window, "rows": register}
    if name == "softmax":
        return [op(name, dst=table, src=other, sink=m.maybe(40, lambda: m.row(1)), **values)]
    values |= {"size": size, "type": m.case.matrix_type}
    if name == "scores":
        cap, query = c.pick((0.0, 0.0, 20.0)), m.lmu(rows, size)
        scale, slope, bf16 = c.pick((0.125, 1.0, -0.5, 1e30)), m.maybe(40, lambda: m.row(1)), c.pick((0, 1))
        values |= {"scale": scale, "softcap": cap, "slope": slope, "bf16_bias": bf16}
        return [op(name, dst=table, query=query, cache=m.cache(keys=True), **values)]
    limit = LENGTH if c.chance(95) else c.integer(1, LENGTH)
    return [op(name, dst=m.fresh(rows, size), src=table, cache=m.cache(keys=False), limit=limit, **values)]


def _head_loop(m: Maker, name: str) -> list[Instruction]:
    """Attention over all heads: a repeat, or one in another, as the compiler writes them."""
    c, size, slot = m.c, m.case.head_size, m.map.main.caches[0]
    register, rows = m.rows_register()
    group, window = c.pick((1, 2, 3)), m.window()
    width = HEADS * group * size
    table = LmuRef(0, LENGTH)
    query, result = 8000, 8000 if c.chance(30) else 12000
    stride = width if c.chance(80) or rows > 1 else width + 3
    if rows * LENGTH > query or (rows - 1) * stride + width > result - query:
        table, result = LmuRef(14000, 1), query  # overlapping rows: the loop cannot be shared out
    common = {"window": window, "rows": register}
    keys = HbmRef(m.map.kv_start + slot.key_offset, 15)
    values = HbmRef(m.map.kv_start + slot.value_offset, 16)
    slopes, sinks = (m.maybe(40, lambda: m.row(HEADS * group)) for _ in range(2))
    scores = op(
        "scores",
        slope=slopes and HbmRef(slopes.offset, 17),
        bf16_bias=c.pick((0, 1)),
        dst=table,
        query=LmuRef(query, stride, 14),
        cache=keys,
        size=size,
        scale=0.25,
        type=m.case.matrix_type,
        **common,
    )
    total = op(
        "values",
        dst=LmuRef(result, stride, 14),
        src=table,
        cache=values,
        size=size,
        limit=LENGTH,
        type=m.case.matrix_type,
        **common,
    )
    step = [op("add", dst=14, a=14, b=0, value=size)]
    step += [op("add", dst=number, a=number, b=0, value=4) for number, ref in ((17, slopes), (18, sinks)) if ref]
    softmax = op("softmax", dst=table, src=table, sink=sinks and HbmRef(sinks.offset, 18), **common)
    body = [scores, softmax, total, *step]
    pitches = [op("add", dst=15, a=15, b=0, value=slot.key_pitch), op("add", dst=16, a=16, b=0, value=slot.value_pitch)]
    inner = [op("repeat", count=group, length=len(body)), *body] if group > 1 or c.chance(50) else body
    outer = [*inner, *pitches]
    start = [op("set", dst=number, value=0) for number in (14, 15, 16)]
    start += [op("add", dst=number, a=ref.register, b=0, value=0) for number, ref in ((17, slopes), (18, sinks)) if ref]
    return [*start, op("repeat", count=HEADS, length=len(outer)), *outer]


# ---------------------------------------------------------------------------------------------------- memory


def _embed(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    register, rows = m.rows_register()
    columns, by = m.size(200), c.pick(("token", "position"))
    limit = c.pick((VOCABULARY, LENGTH, LENGTH + 7))
    table = m.matrix(limit, columns) if name == "embed" else m.parameter(4 * limit * columns, 4)
    values: dict[str, Any] = {"type": m.case.matrix_type} if name == "embed" else {}
    offset, scale = c.pick((0, 0, 2, -1)), c.pick((1.0, 1.0, 0.5, 1e30))
    dst = m.fresh(rows, columns)
    return [
        op(name, dst=dst, table=table, index=by, ids=HbmRef(m.map.tokens), offset=offset, limit=limit, columns=columns,
           rows=register, scale=scale, **values)
    ]  # fmt: skip


def _load(m: Maker, name: str) -> list[Instruction]:
    columns = m.size(300)
    return [op(name, dst=m.fresh(1, columns), src=m.row(columns), columns=columns)]


def _store(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    register, rows = m.rows_register()
    columns = m.size(200)
    pitch = 4 * columns + c.pick((0, 0, 4, 64))
    room = m.map.end - m.map.logits - rows * pitch
    dst = HbmRef(m.map.logits + 4 * c.integer(0, max(0, room // 4))) if c.chance(95) else m.row(columns)
    return [op(name, dst=dst, pitch=pitch, src=m.lmu(rows, columns), columns=columns, rows=register)]


def _store_cache(m: Maker, name: str) -> list[Instruction]:
    c, size, slot = m.c, m.case.head_size, m.map.main.caches[0]
    register, rows = m.rows_register()
    heads, keys = c.integer(1, HEADS), name == "store_key"
    pitch = slot.key_pitch if keys else slot.value_pitch
    offset = slot.key_offset if keys else slot.value_offset
    cache = HbmRef(m.map.kv_start + offset) if c.chance(95) else m.elsewhere()
    src = m.lmu(rows, heads * size)
    limit = LENGTH if c.chance(95) else c.integer(1, LENGTH)
    return [
        op(
            name,
            cache=cache,
            pitch=pitch,
            src=src,
            heads=heads,
            size=size,
            limit=limit,
            type=m.case.matrix_type,
            rows=register,
        )
    ]


def _top_k(m: Maker, name: str) -> list[Instruction]:
    """Now and then k is beyond the columns, or groups are not equal; for take_columns, indices that are none."""
    c = m.c
    register, rows = m.rows_register()
    groups = c.pick((1, 1, 1, 2, 3, 5))
    columns = groups * m.size(max(2, 200 // groups)) + c.chance(3)
    top_groups = c.integer(1, groups) + c.chance(2)
    k = c.pick((1, 2, 8, c.integer(1, max(1, columns // groups * top_groups)))) - c.chance(2)
    src, chosen = m.lmu(rows, columns), m.fresh(rows, k)
    choose = op("top_k", dst=chosen, src=src, columns=columns, k=k, groups=groups, top_groups=top_groups, rows=register)
    if name == "top_k":
        return [choose]
    limit, index = columns - c.chance(10), m.lmu(rows, k) if c.chance(5) else chosen
    source, dst = m.lmu(rows, limit), m.fresh(rows, k)
    return [choose, op(name, dst=dst, src=source, index=index, columns=k, limit=limit, rows=register)]


def _short_conv(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    register, rows = m.rows_register()
    columns, history = m.size(150), c.pick((0, 1, 2, 2, 4, 9))
    room = m.map.tokens - m.map.kv_start - 4 * history * columns
    place = HbmRef(m.map.kv_start + 4 * c.integer(0, room // 4))
    values = {"state": place if c.chance(95) else m.elsewhere(), "history": history, "columns": columns}
    if name == "store_state":
        return [op(name, src=m.lmu(rows, columns), rows=register, **values)]
    taps, bias = m.parameter(4 * (history + 1) * columns, 4), m.maybe(50, lambda: m.row(columns))
    src = m.lmu(rows, columns)
    return [op(name, dst=m.fresh(rows, columns), src=src, taps=taps, bias=bias, rows=register, **values)]


MAKERS: dict[str, Callable[[Maker, str], list[Instruction]]] = {
    "unary": _unary,
    "binary": _binary,
    "binary_scalar": _binary,
    "reduce": _reduce,
    "rms_norm": _norm,
    "layer_norm": _norm,
    "rotary": _rotary,
    "select_rows": _select_rows,
    "select_columns": _select_columns,
    "top_k": _top_k,
    "take_columns": _top_k,
    "send": _exchange,
    "receive": _exchange,
    "sample": _sample,
    "matmul": _matmul,
    "scores": _attention,
    "softmax": _attention,
    "values": _attention,
    "head_loop": _head_loop,
    "embed": _embed,
    "gather": _embed,
    "load": _load,
    "store": _store,
    "store_key": _store_cache,
    "store_value": _store_cache,
    "short_conv": _short_conv,
    "store_state": _short_conv,
}
