"""Programs of many instructions that mean harm: control flow and stores in between, numbers from memory that other
instructions write, every operand at its edges.

The instructions themselves come from `instruction_cases`. What is made here encodes and has a valid structure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from hyperdex_ir.isa.instructions import DEVICE, POSITION, TOKENS
from hyperdex_ir.isa.operands import F32, MOST_POSITION, Enum, HbmRef, Imm, LmuRef, Reg, ViewRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.isa.structure import BODIES, MAX_DEPTH
from support.programs.instruction_case import HEADS, LENGTH, LMU_WORDS, OFFSET, ROWS, Case, Choose, op, start_case
from support.programs.instruction_cases import MAKERS, Maker, any_settings

T = TypeVar("T")
BUDGET = 1500
#: Registers of these programs, besides those of `instruction_case`.
FOUND, INDEX, END, TRIP = 19, 20, 21, 22
#: The parameters begin with small numbers, numbers of KV heads, ends of what registers hold (i64), and f32 integers.
SMALL, KV_HEADS, ENDS = 16, 9, 12
TABLES = np.concatenate([
    np.arange(SMALL) % 7,
    np.arange(KV_HEADS) % HEADS,
    [2**63 - 1, -(2**63), -1, 2**62, 2**31, 2**40, 2**24, 2**53, -(2**31), 2**63 - 2, LMU_WORDS, LENGTH],
]).astype(np.int64)  # fmt: skip
INTEGERS = (np.arange(64) % 9).astype(np.float32)
_FLOATS_AT = 8 * len(TABLES)
_SMALL_AT, _HEADS_AT, _ENDS_AT = 0, 8 * SMALL, 8 * (SMALL + KV_HEADS)
#: Words of the LMU where such numbers are put, and i64 numbers of the run-time area that stores write and lookups read.
NUMBERS, CELLS = LMU_WORDS - 100, 16
_SIZES = ("columns", "groups", "k", "n", "size", "heads", "history", "turned", "limit", "pitch")
_PLAIN = sorted(set(MAKERS) - {"head_loop"})
#: Instructions that use the registers that the host sets, besides those that take any register.
_USERS = {
    POSITION: ("embed", "gather", "scores", "softmax", "values", "store_key", "store_value", "short_conv",
               "store_state", "sample"),
    TOKENS: ("sample", "embed", "scores", "matmul", "unary"),
    DEVICE: ("send", "receive"),
}  # fmt: skip
#: Positions that no cache holds, on both sides of the last one.
_FAR = (MOST_POSITION - 64, MOST_POSITION - 1, MOST_POSITION, 1 << 31, (1 << 31) + 4096, 1 << 32, 1 << 40)
_STAGES = ("scores", "softmax", "values")


class Rolled:
    """`instruction_case.Choose` from a seed."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def chance(self, percent: int) -> bool:
        return self._random.random() * 100 < percent


class FromBytes:
    """`instruction_case.Choose` from bytes, two at a time; zeros when they are used up. For a fuzzer."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def integer(self, low: int, high: int) -> int:
        size = 8 if high - low > 0xFFFF else 2
        part = self._data[self._at : self._at + size]
        self._at += size
        return low + int.from_bytes(part, "little") % (high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent


def start_world(c: Choose) -> Case:
    """What several programs start from: few NaNs in memory, as their bits are nobody's promise."""
    case = start_case(c)
    case.lmu_flavour = c.pick(("plain", "plain", "ties", "tiny", "finite"))
    case.hbm_flavour = c.pick(("plain", "plain", "tiny"))
    case.position = min(max(case.position, 0), LENGTH - case.tokens)
    case.settings = any_settings(c, c.integer(1, 400))
    return case


def make_program(c: Choose, case: Case, count: int) -> None:
    """Gives the case a program of about `count` instructions."""
    case.instructions = []
    case.instructions = _Writer(c, case).program(count)


class _Writer:
    """Writes one program. edges: percent of the instructions that get an operand at its edge."""

    def __init__(self, c: Choose, case: Case):
        self.c, self.case, self.maker = c, case, Maker(c, case)
        self.edges = c.pick((0, 0, 2, 5, 15))
        self.functions: list[list[Instruction]] = []

    def program(self, count: int) -> list[Instruction]:
        """The entry, its halt, the functions. `Case.program` puts the registers' first values before it, and a halt
        behind it; so the last function ends there, and nothing calls it."""
        c = self.c
        start = [op("lookup", dst=END, table=HbmRef(_ENDS_AT), index=INDEX, limit=ENDS)]
        start = [op("set", dst=INDEX, value=c.integer(0, ENDS - 1)), *start, op("set", dst=FOUND, value=0)]
        start += self._fill()
        main = [*start, *self.block(count, 0)]
        if not self.functions:
            return main
        first = len(self.case.program) + len(main)
        starts = [
            first + sum(len(body) + 1 for body in self.functions[:number]) for number in range(len(self.functions))
        ]
        body = [*main, op("halt")]
        for function in self.functions:
            body += [*function, op("ret")]
        return [self._called(item, starts) for item in body]

    def _called(self, item: Instruction, starts: Sequence[int]) -> Instruction:
        if item.name != "call":
            return item
        return op("call", target=starts[item.values["target"]])

    def _fill(self) -> list[Instruction]:
        """Numbers in the LMU and in the cells: what fetches and lookups find."""
        first = op("load", dst=LmuRef(NUMBERS, 1), src=HbmRef(_FLOATS_AT), columns=64)
        return [first, *self._cells()]

    def _cells(self) -> list[Instruction]:
        table = self.c.pick((_SMALL_AT, _SMALL_AT, _HEADS_AT))
        place = LmuRef(NUMBERS + 64, 1)
        return [
            op("load", dst=place, src=HbmRef(table), columns=2 * self.c.integer(1, KV_HEADS)),
            op("store", dst=self.cell(), pitch=8, src=place, columns=2, rows=self.c.pick((TOKENS, ROWS))),
        ]

    def cell(self) -> HbmRef:
        return HbmRef(self.case.map.logits + 8 * self.c.integer(0, CELLS - 1))

    # ------------------------------------------------------------------------------------------------ blocks

    def block(self, count: int, depth: int) -> list[Instruction]:
        """About `count` instructions, at least one."""
        result: list[Instruction] = []
        while len(result) < max(1, count):
            result += self._next(count - len(result), depth)
        return result

    def _next(self, left: int, depth: int) -> list[Instruction]:
        c = self.c
        if depth < 3 and left > 3 and c.chance(18):
            return self._body(min(left, c.integer(1, 8)), depth + 1)
        if c.chance(35):
            return c.pick(_SNIPPETS)(self)
        if c.chance(4):
            return self._nested(self.any_loop(depth), depth, 25)
        name = c.pick(_PLAIN)
        return self._nested([self._spoiled(item) for item in MAKERS[name](self.maker, name)], depth, 3)

    def _nested(self, items: list[Instruction], depth: int, percent: int) -> list[Instruction]:
        """The instructions; so often, in repeats of one trip, mostly in as many as may be around them."""
        c, most = self.c, MAX_DEPTH - depth - _depth_of(items)
        if not c.chance(percent):
            return items
        for _ in range(c.pick((most, most, c.integer(0, most)))):
            items = [op("repeat", count=1, length=len(items)), *items]
        return items

    def _body(self, count: int, depth: int) -> list[Instruction]:
        """A repeat, a skip, or a call of a new function; two levels deep at most, so that the budget lasts."""
        c = self.c
        body = self.block(count, depth)
        match c.integer(0, 5):
            case 0 | 1:
                trips = 1 << 31 if c.chance(1) else c.integer(1, 3)
                return [op("repeat", count=trips, length=len(body)), *body]
            case 2:
                return [op("repeat_rows", rows=c.pick((ROWS, TOKENS, TOKENS, 4)), length=len(body)), *body]
            case 3:
                skip = op("skip_unless", a=c.pick((FOUND, FOUND, 0, TOKENS)), value=c.integer(0, 3), length=len(body))
                return [skip, *body]
            case _:
                if any(item.name == "call" for item in body):
                    return body
                self.functions.append(body)
                return [op("call", target=len(self.functions) - 1)]

    # ------------------------------------------------------------------------------------------------ numbers

    def look_up(self) -> list[Instruction]:
        """A number that instructions have written; what comes of it depends on it."""
        c = self.c
        table = self.cell() if c.chance(80) else HbmRef(c.pick((self.case.map.tokens, self.case.map.logits, 0)))
        store = self._cells() if c.chance(60) else []
        found = [op("lookup", dst=FOUND, table=table, index=c.pick((0, 0, 0, FOUND)), limit=c.pick((8, 1, 1 << 31)))]
        return [*found, *store, *found] if c.chance(30) else [*store, *found, *self._use()]

    def fetch(self) -> list[Instruction]:
        c = self.c
        load = self._fill()[:1] if c.chance(60) else []
        fetch = op("fetch", dst=FOUND, src=LmuRef(NUMBERS + c.integer(0, 63), 1, 0), limit=c.pick((9, 9, 1 << 23)))
        return [*load, fetch, *self._use()]

    def _use(self) -> list[Instruction]:
        """The number becomes part of an address, decides about the next instructions, or goes to memory again."""
        c = self.c
        match c.integer(0, 3):
            case 0:
                return [op("add", dst=OFFSET, a=FOUND, b=0, value=self.case.offset)]
            case 1:
                name = c.pick(_PLAIN)
                body = MAKERS[name](self.maker, name)
                return [op("skip_unless", a=FOUND, value=c.integer(0, 3), length=len(body)), *body]
            case _:
                return []

    def arithmetic(self) -> list[Instruction]:
        c = self.c
        register = lambda: c.pick((FOUND, INDEX, TRIP, 0, TOKENS, POSITION))  # noqa: E731
        dst = c.pick((FOUND, INDEX, TRIP, 0))
        value = c.pick((0, 1, -1, 2, 8, (1 << 47) - 1, -(1 << 47))) if c.chance(20) else c.integer(0, 3)
        if c.chance(30):
            return [op("set", dst=dst, value=value)]
        if c.chance(20):
            return [op("multiply", dst=dst, a=c.pick((FOUND, TRIP, 0, END)), value=c.integer(-1, 1))]
        return [op("set", dst=TRIP, value=0), op("add", dst=dst, a=register(), b=TRIP, value=value)]

    def tokens_moved(self) -> list[Instruction]:
        """A store over the token numbers, and an embed of them."""
        place = LmuRef(NUMBERS + 64, 1)
        load = op("load", dst=place, src=HbmRef(_SMALL_AT + 8 * self.c.integer(0, 4)), columns=2)
        store = op("store", dst=HbmRef(self.case.map.tokens), pitch=8, src=place, columns=2, rows=ROWS)
        name = self.c.pick(("embed", "gather"))
        return [load, store, *MAKERS[name](self.maker, name)]

    # ------------------------------------------------------------------------------------------------ host registers

    def registers_moved(self) -> list[Instruction]:
        """Another value in a register that the host sets, at its limits or beyond; what uses it; mostly, as it was."""
        c, case = self.c, self.case
        before = {POSITION: case.position, TOKENS: case.tokens, DEVICE: case.device}
        register = c.pick((POSITION, POSITION, POSITION, TOKENS, DEVICE))
        name = c.pick(_USERS[register])
        used = [self._spoiled(item) for item in MAKERS[name](self.maker, name)]
        back = [] if c.chance(5) else [op("set", dst=register, value=before[register])]
        return [*self._moved(register), *used, *back]

    def _moved(self, register: int) -> list[Instruction]:
        c, case = self.c, self.case
        if c.chance(8):
            return self._end_in(register)
        last = LENGTH - case.tokens
        values = {
            POSITION: (0, 63, 64, last, c.integer(0, last), c.integer(0, last), last + 1, LENGTH, -1, c.pick(_FAR)),
            TOKENS: (1, case.tokens, c.integer(1, case.chunk), case.chunk, case.chunk + 1, 0),
            DEVICE: (0, 3, 8, (1 << 16) - 2, (1 << 16) - 1, -1),
        }
        return [op("set", dst=register, value=c.pick(values[register]))]

    def _end_in(self, register: int) -> list[Instruction]:
        """An end of what registers hold."""
        start = op("set", dst=INDEX, value=self.c.integer(0, ENDS - 1))
        return [start, op("lookup", dst=register, table=HbmRef(_ENDS_AT), index=INDEX, limit=ENDS)]

    def far_away(self) -> list[Instruction]:
        """Attention at positions that no cache holds, of keys and values without elements; once, or as a loop over
        heads. INDEX brings its columns to the LMU's first words."""
        c, case = self.c, self.case
        position, window = c.pick(_FAR) - c.pick((0, 0, case.rows, case.tokens)), c.pick((1, 2, 5, 64, 65))
        table, slot = LmuRef(c.integer(0, 300), window + 40, INDEX), self.case.map.main.caches[0]
        caches = [HbmRef(case.map.kv_start + offset) for offset in (slot.key_offset, slot.value_offset)]
        common: dict[str, Any] = {"window": window, "rows": c.pick((ROWS, TOKENS))}
        sizes = {"size": 0, "type": case.matrix_type}
        bias = {"slope": self.maker.row(1) if c.chance(80) else None, "bf16_bias": c.integer(0, 1)}
        body = [
            op("scores", dst=table, query=LmuRef(8000), cache=caches[0], scale=0.5, **bias, **common, **sizes),
            op("softmax", dst=table, src=table, **common),
            op("values", dst=LmuRef(9000), src=table, cache=caches[1], limit=(1 << 32) - 1, **common, **sizes),
        ]
        first = [op("set", dst=POSITION, value=position), op("set", dst=INDEX, value=-max(0, position - window + 1))]
        loop = [op("repeat", count=c.integer(1, 3), length=len(body))] if c.chance(50) else []
        return [*first, *loop, *body, op("set", dst=POSITION, value=case.position), op("set", dst=INDEX, value=0)]

    # ------------------------------------------------------------------------------------------------ head loops

    def any_loop(self, depth: int) -> list[Instruction]:
        """A loop over heads; of half of them, something is at its edge. Seldom, the budget ends inside."""
        c, items = self.c, head_loop(self.maker)
        if depth == 0 and c.chance(4):
            return [op("repeat", count=c.integer(BUDGET - 250, BUDGET - 30), length=1), *self.arithmetic()[:1], *items]
        for _ in range(c.pick((0, 0, 0, 1, 1, 2))):
            items = self._loop_at_edge(items)
        return items

    def _loop_at_edge(self, items: list[Instruction]) -> list[Instruction]:
        c, size = self.c, self.case.head_size
        match c.integer(0, 6):
            case 0:
                names = c.pick((("scores",), ("values",), ("scores", "values")))
                return _changed(items, names, "size", c.pick((0, 0, 1, size - 1, 64, 65, 128, 65535)))
            case 1:
                return _changed(items, ("values",), "limit", c.pick((0, 1, 64, LENGTH - 1, LENGTH + 5, (1 << 32) - 1)))
            case 2:
                return _changed(items, _STAGES, "window", c.pick((1, 2, 63, 64, 65, 129, (1 << 32) - 1)))
            case 3:
                return _changed(items, ("scores",), "softcap", c.pick((0.5, 1e-40, float("inf"))))
            case 4:
                name, part = c.pick((("scores", "query"), ("values", "dst"), ("scores", "dst")))
                ref = next(item for item in items if item.name == name).values[part]
                return _changed(items, (name,), part, replace(ref, stride=c.pick((0, 1, 2, (1 << 24) - 1))))
            case 5:
                return self._base_at_edge(items)
            case _:
                places = [number for number, item in enumerate(items) if item.name not in BODIES]
                at = c.pick(places)
                return [*items[:at], self._at_edge(items[at]), *items[at + 1 :]]

    def _base_at_edge(self, items: list[Instruction]) -> list[Instruction]:
        """A register from which the loop goes on from head to head, or the position, is something else."""
        c = self.c
        starts = [number for number, item in enumerate(items) if item.name == "set"]
        if not starts or c.chance(30):
            back = op("set", dst=POSITION, value=self.case.position)
            return [*self._moved(POSITION), *items, back]
        at = c.pick(starts)
        register = items[at].values["dst"]
        number = c.pick((-1, 1, 64, 1000, 1 << 31, (1 << 47) - 1, -(1 << 47)))
        base = self._end_in(register) if c.chance(40) else [op("set", dst=register, value=number)]
        return [*items[:at], *base, *items[at + 1 :]]

    # ------------------------------------------------------------------------------------------------ edges

    def _spoiled(self, item: Instruction) -> Instruction:
        """The instruction, or what has no elements, or an operand at its edge."""
        if self.c.chance(4):
            sizes = [operand.name for operand in item.spec.operands if operand.name in _SIZES]
            return op(item.name, **{**item.values, self.c.pick(sizes): 0}) if sizes else item
        if not self.c.chance(self.edges):
            return item
        for _ in range(self.c.pick((1, 1, 1, 2, 3))):
            item = self._at_edge(item)
        return item

    def _at_edge(self, item: Instruction) -> Instruction:
        """The instruction with one operand, or a part of one, at its edge."""
        operand = self.c.pick(item.spec.operands)
        value = item.values.get(operand.name)
        values = dict(item.values)
        if operand.optional and self.c.chance(20):
            values.pop(operand.name, None)
        elif isinstance(operand, Enum):
            values[operand.name] = self.c.pick(operand.choices)
        elif isinstance(operand, Reg):
            if item.name != "sample" or operand.name != "dst":
                values[operand.name] = self.c.pick((END, FOUND, 0, TOKENS, POSITION, DEVICE))
        elif isinstance(operand, F32):
            values[operand.name] = self.c.pick((0.0, -0.0, 1.0, 1e-45, 3.4e38, float("inf"), float("-inf")))
        elif isinstance(operand, Imm):
            values[operand.name] = self._number(operand.width, bool(operand.signed), value)
        elif isinstance(value, LmuRef | ViewRef | HbmRef):
            values[operand.name] = self._reference(value)
        return op(item.name, **values)

    def _number(self, width: int, signed: bool, value: Any) -> int:
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
        near = value if isinstance(value, int) else 1
        number = self.c.pick((0, 0, 0, 1, near + 1, near - 1, 2 * near, low, high, 1 << 12))
        return min(high, max(low, number))

    def _reference(self, ref: LmuRef | ViewRef | HbmRef) -> LmuRef | ViewRef | HbmRef:
        c = self.c
        if c.chance(30):
            return replace(ref, register=c.pick((END, END, FOUND, INDEX)))
        if isinstance(ref, HbmRef):
            m = self.case.map
            edge = c.pick((0, m.parameter_end, m.end, m.tokens, m.sampling, m.logits, (1 << 40) - 1))
            return replace(ref, offset=min((1 << 40) - 1, max(0, edge - c.pick((0, 0, 4, 8, 64, 2048, -4)))))
        if c.chance(50):
            return replace(ref, address=max(0, LMU_WORDS - c.pick((0, 1, 2, 16, 64, 300, -1))))
        part = c.pick(("stride", "group_stride", "column_stride") if isinstance(ref, ViewRef) else ("stride",))
        most = 3 if part == "column_stride" else (1 << 24) - 1
        return replace(ref, **{part: min(most, c.pick((0, 1, 2, 3, getattr(ref, part) + 1, most)))})


_SNIPPETS: tuple[Callable[[_Writer], list[Instruction]], ...] = (
    _Writer.look_up,
    _Writer.look_up,
    _Writer.fetch,
    _Writer.arithmetic,
    _Writer.tokens_moved,
    _Writer.registers_moved,
    _Writer.far_away,
)


def _depth_of(items: Sequence[Instruction]) -> int:
    """The depth of bodies in instructions without calls."""
    deepest, stops = 0, list[int]()
    for number, item in enumerate(items):
        stops = [stop for stop in stops if number < stop]
        if item.name in BODIES:
            stops.append(number + 1 + item.values["length"])
        deepest = max(deepest, len(stops))
    return deepest


def _changed(items: Sequence[Instruction], names: Sequence[str], part: str, value: Any) -> list[Instruction]:
    """The instructions, with another value of an operand in those of some names."""
    return [op(item.name, **{**item.values, part: value}) if item.name in names else item for item in items]


def head_loop(m: Maker) -> list[Instruction]:
    """A loop over heads; half of them look up their KV head."""
    c = m.c
    if c.chance(50):
        return MAKERS["head_loop"](m, "head_loop")
    size, slot = m.case.head_size, m.map.main.caches[0]
    caches = {"scores": HbmRef(m.map.kv_start + slot.key_offset, 15)}
    caches["values"] = HbmRef(m.map.kv_start + slot.value_offset, 16)
    heads = c.integer(1, KV_HEADS)
    table, stride = LmuRef(0, LENGTH), heads * size
    start, rows = 8000, c.pick((ROWS, TOKENS))
    if (m.case.chunk - 1) * stride + stride > 3900 or m.case.chunk * LENGTH > start:
        heads, rows, stride = 1, 0, size
        table = LmuRef(0, 1)
    common = {"window": m.window(), "rows": rows}
    sizes = {"type": m.case.matrix_type, "size": size}
    stages = [
        op("scores", dst=table, query=LmuRef(start, stride, 14), cache=caches["scores"], scale=0.5, **common, **sizes),
        op("softmax", dst=table, src=table, **common),
        op("values", dst=LmuRef(start + 3950, stride, 14), src=table, cache=caches["values"], limit=LENGTH, **common,
           **sizes),
    ]  # fmt: skip
    places = (HbmRef(_HEADS_AT), HbmRef(_HEADS_AT), HbmRef(m.map.logits), HbmRef(_ENDS_AT))
    walk = [op("lookup", dst=TRIP, table=c.pick(places), index=17, limit=KV_HEADS)]
    walk += [op("multiply", dst=15, a=TRIP, value=slot.key_pitch)]
    walk += [op("multiply", dst=16, a=TRIP, value=slot.value_pitch)]
    steps = [op("add", dst=14, a=14, b=0, value=size), op("add", dst=17, a=17, b=0, value=1)]
    body = [*walk, *stages, *steps]
    return [
        *(op("set", dst=register, value=0) for register in (14, 17)),
        op("repeat", count=heads, length=len(body)),
        *body,
    ]
