"""Random instructions of every kind: operands that fit, that overlap, and now and then that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hyperdex_ir.isa.fields import default_value
from hyperdex_ir.isa.instructions import BY_NAME, MATRIX_TYPE, SPECS, TOKENS, Group, Spec
from hyperdex_ir.isa.operands import F32, Area, Enum, Hbm, HbmRef, Imm, Lmu, LmuRef, Operand, Reg, Value, View, ViewRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.isa.settings import Settings
from hyperdex_ir.isa.shapes import Seen
from support.programs.instruction_case import (
    BASE,
    HEADS,
    LENGTH,
    LMU_WORDS,
    OFFSET,
    OTHER,
    ROWS,
    VOCABULARY,
    Case,
    Choose,
    op,
    start_case,
)

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

    # ------------------------------------------------------------------------------------------------ from the table
    def instruction(self, name: str, rows: tuple[int, int] | None = None, **given: Value) -> Instruction:
        """An instruction whose operands fit what the table says of them, but for those that are given.

        rows: the register, and the rows that it says.
        """
        spec = BY_NAME[name]
        register, count = (0, 1) if not spec.has_rows else self.rows_register() if rows is None else rows
        values: dict[str, Any] = {"rows": register} if spec.has_rows else {}
        values |= given
        self._fill_scalars(spec, count, values)
        for operand in sorted((one for one in spec.lmu if one.name not in values), key=_last_written):
            values[operand.name] = self._optional(operand, lambda one=operand: self._place_of(one, spec, count, values))
        for operand in (one for one in spec.hbm if one.name not in values):
            values[operand.name] = self._optional(operand, lambda one=operand: self._memory_of(one, values))
        return op(name, **values)

    def _optional(self, operand: Operand, make: Callable[[], Value]) -> Value:
        return self.maybe(70, make) if operand.optional else make()

    def _fill_scalars(self, spec: Spec, rows: int, values: dict[str, Any]) -> None:
        """Immediates, words and registers; sizes so that what the instruction touches is not large."""
        c, sizes = self.c, {name for operand in spec.lmu for name in operand.immediates()}
        groups = values.setdefault("groups", c.pick((1, 1, 2, 5))) if "groups" in sizes else 1
        for operand in (one for one in spec.operands if one.name not in values):
            match operand:
                case Enum():
                    values[operand.name] = self.case.matrix_type if operand == MATRIX_TYPE else c.pick(operand.choices)
                case F32():
                    values[operand.name] = c.pick(
                        (1.0, *_NUMBERS) if operand.default is None else (operand.default, 1.0)
                    )
                case Imm(name="window"):
                    values[operand.name] = self.window()
                case Imm() if operand.name in sizes:
                    values[operand.name] = self.size(max(1, min(200, 2000 // (rows * groups))))
                case Imm():
                    low = default_value(operand) or 0
                    values[operand.name] = c.integer(0, 1) if operand.width == 1 else c.pick((low, low, 1, 9))
                case Reg():
                    values[operand.name] = c.pick((7, 12)) if operand.writes else c.pick((TOKENS, ROWS))

    def _place_of(self, operand: Lmu | View, spec: Spec, rows: int, values: dict[str, Any]) -> LmuRef | ViewRef:
        """A place in the LMU of the operand's shape."""
        if isinstance(operand, View):
            shape = rows, values[operand.groups], operand.columns.words(values)
            others = [
                one for one in spec.lmu if isinstance(one, View) and one.writes and one.columns == operand.columns
            ]
            if operand.writes or not others:
                return self.view(*shape, written=operand.writes)
            return self.source(values[others[0].name], *shape)
        columns = LENGTH if isinstance(operand.columns, Seen) else operand.columns.words(values) or 1
        return self.fresh(rows, columns) if operand.writes else self.lmu(rows, columns)

    def _memory_of(self, operand: Hbm, values: dict[str, Any]) -> HbmRef:
        """A place in HBM for the operand: a cache's, or a row of parameters."""
        for area, keys in ((Area.KEYS, True), (Area.VALUES, False)):
            if operand.areas == (area,):
                return self.cache(keys=keys)
        return self.row(values.get("columns", 1))


#: Numbers that instructions find hard.
_NUMBERS = (0.0, -0.0, -2.5, 1e-45, 3.4e38, float("inf"), float("nan"))


def _last_written(operand: Lmu | View) -> bool:
    """Rows that are written come behind those that are read; strided views, which sources look like, before."""
    return operand.writes if isinstance(operand, Lmu) else not operand.writes


def _any(m: Maker, name: str) -> list[Instruction]:
    """Operands made from the table alone."""
    return [m.instruction(name)]


# ---------------------------------------------------------------------------------------------------- vector engine


def _shape(m: Maker) -> tuple[int, int, int, int]:
    """(rows register, rows, groups, columns)."""
    register, rows = m.rows_register()
    groups = m.c.pick((1, 1, 2, 5))
    return register, rows, groups, m.size(max(1, min(200, 2000 // (rows * groups))))


def _norm(m: Maker, name: str) -> list[Instruction]:
    return [m.instruction(name, epsilon=m.c.pick((1e-5, 0.0, 1e-45, 1.0)))]


def _rotary(m: Maker, name: str) -> list[Instruction]:
    register, rows, groups, columns = _shape(m)
    turned = columns - columns % 2 if m.c.chance(50) else 2 * m.c.integer(0, columns // 2)
    turned += m.c.chance(2)
    cos, sin = (m.lmu(rows, max(1, turned)) for _ in range(2))
    given = {"groups": groups, "columns": columns, "turned": turned, "cos": cos, "sin": sin}
    return [m.instruction(name, (register, rows), **given)]


def _select_rows(m: Maker, name: str) -> list[Instruction]:
    register, rows = m.rows_register()
    columns, first = m.size(100), m.c.integer(-1 if m.c.chance(5) else 0, max(0, m.case.chunk - rows))
    start = op("set", dst=12, value=first)
    src = m.lmu(m.case.chunk, columns)
    return [start, m.instruction(name, (register, rows), src=src, first=12, columns=columns)]


def _select_columns(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    columns, limit = m.size(100), m.size(200)
    block = c.pick((-1, 1 << 40)) if c.chance(4) else c.integer(0, limit // columns + 1)
    return [op("set", dst=12, value=block), m.instruction(name, index=12, columns=columns, limit=limit)]


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
    place = HbmRef(m.map.sampling) if c.chance(95) else HbmRef(c.integer(0, m.map.end))
    return [m.instruction(name, dst=c.pick((7, 0)), columns=columns, settings=place)]


# ---------------------------------------------------------------------------------------------------- MAC trees


def _matmul(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    k, n = m.size(300), m.size(90)
    gated = c.pick((0, 0, 1))
    distance = c.pick((0, n, n + 7, c.integer(1, 90))) if c.chance(50) else 0
    matrix_rows = n + (distance or n) if gated else n
    given: dict[str, Any] = {
        "k": k, "n": n, "gated": gated, "gate_distance": distance, "prefetch": 0,
        "weight": m.matrix(matrix_rows, k), "bias": m.maybe(40, lambda: m.row(matrix_rows)),
        "scale": c.pick((1.0, 1.0, 0.125, -3.0)), "softcap": c.pick((0.0, 0.0, 30.0, 1.0)),
    }  # fmt: skip
    return [m.instruction(name, **given)]


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
    columns, limit = m.size(200), c.pick((VOCABULARY, LENGTH, LENGTH + 7))
    table = m.matrix(limit, columns) if name == "embed" else m.parameter(4 * limit * columns, 4)
    given = {"columns": columns, "limit": limit, "table": table, "ids": HbmRef(m.map.tokens)}
    given |= {"offset": c.pick((0, 0, 2, -1)), "scale": c.pick((1.0, 1.0, 0.5, 1e30))}
    return [m.instruction(name, **given)]


def _store(m: Maker, name: str) -> list[Instruction]:
    c = m.c
    register, rows = m.rows_register()
    columns = m.size(200)
    pitch = 4 * columns + c.pick((0, 0, 4, 64))
    room = m.map.end - m.map.logits - rows * pitch
    dst = HbmRef(m.map.logits + 4 * c.integer(0, max(0, room // 4))) if c.chance(95) else m.row(columns)
    return [op(name, dst=dst, pitch=pitch, src=m.lmu(rows, columns), columns=columns, rows=register)]


def _store_cache(m: Maker, name: str) -> list[Instruction]:
    c, slot, keys = m.c, m.map.main.caches[0], name == "store_key"
    pitch, offset = (slot.key_pitch, slot.key_offset) if keys else (slot.value_pitch, slot.value_offset)
    cache = HbmRef(m.map.kv_start + offset) if c.chance(95) else m.elsewhere()
    limit = LENGTH if c.chance(95) else c.integer(1, LENGTH)
    given = {"cache": cache, "pitch": pitch, "heads": c.integer(1, HEADS), "size": m.case.head_size, "limit": limit}
    return [m.instruction(name, **given)]


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
    columns, history = m.size(150), c.pick((0, 1, 2, 2, 4, 9))
    room = m.map.tokens - m.map.kv_start - 4 * history * columns
    place = HbmRef(m.map.kv_start + 4 * c.integer(0, room // 4))
    given: dict[str, Any] = {"state": place if c.chance(95) else m.elsewhere(), "history": history, "columns": columns}
    if name == "short_conv":
        given["taps"] = m.parameter(4 * (history + 1) * columns, 4)
    return [m.instruction(name, **given)]


#: By instruction; those that are not named here need nothing that the table does not say.
MAKERS: dict[str, Callable[[Maker, str], list[Instruction]]] = {
    **{spec.name: _any for spec in SPECS if spec.group is not Group.CTRL},
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
    "store": _store,
    "store_key": _store_cache,
    "store_value": _store_cache,
    "short_conv": _short_conv,
    "store_state": _short_conv,
}
