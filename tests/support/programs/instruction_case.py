"""A program for the engine tests and what it starts from; programs of control instructions.

Random choices are a `Choose`'s, so that a case does not depend on where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, TypeVar

from hyperdex_ir.isa.instructions import MATRIX_TYPES
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.isa.settings import Settings
from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter
from hyperdex_ir.memory.map import MemoryMap, plan_memory
from hyperdex_ir.targets import load_target

LMU_WORDS = 16_000
LENGTH, HEADS, VOCABULARY = 330, 3, 50
BLOB = 120_000  # words of parameters, which any instruction takes for what it likes
#: Registers: LMU words, rows, HBM bytes, and one that nothing sets.
OFFSET, ROWS, BASE, OTHER = range(8, 12)

T = TypeVar("T")


class Choose(Protocol):
    """Where random choices come from."""

    def integer(self, low: int, high: int) -> int: ...

    def pick(self, options: Sequence[T]) -> T: ...

    def chance(self, percent: int) -> bool: ...


@cache
def memory_map(target: str, head_size: int = 64) -> MemoryMap:
    """A blob of parameters and one KV slot."""
    main = FunctionLayout(
        "main", (Parameter("blob", "f32", (BLOB,), ("blob",)),), (KvCache(HEADS, head_size, head_size),)
    )
    return plan_memory(ModelLayout("f16", VOCABULARY, main, (), ()), load_target(target), LENGTH)


@dataclass
class Case:
    """A program and what it starts from. seed, flavours: of the data in LMU and HBM."""

    target: str
    chunk: int
    tokens: int
    position: int
    rows: int
    offset: int
    base: int
    head_size: int
    matrix_type: str
    seed: int
    lmu_flavour: str
    hbm_flavour: str
    settings: Settings = Settings()  # of sample
    device: int = 0
    waits: int = 0  # messages that are not there when they are first asked for
    linked: bool = True
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def map(self) -> MemoryMap:
        return memory_map(self.target, self.head_size)

    @property
    def program(self) -> tuple[Instruction, ...]:
        """The registers set, the instructions, the halt."""
        given = {OFFSET: self.offset, ROWS: self.rows, BASE: self.base}
        first = [op("set", dst=register, value=value) for register, value in given.items()]
        return (*first, *self.instructions, op("halt"))


#: Of the numbers in the LMU, and of those in HBM.
FLAVOURS = ("plain", "plain", "plain", "finite", "mixed", "bits", "halfway", "tiny", "huge", "ties")
HBM_FLAVOURS = ("plain", "plain", "plain", "tiny", "finite", "bits")


def op(name: str, **values: Any) -> Instruction:
    return Instruction(name, values)


_NUMBERS = (0, 1, -1, 2, 3, 7, 1 << 20, (1 << 47) - 1, -(1 << 47))


def make_control_case(c: Choose) -> Case:
    """A program of control instructions, valid or not, with a few others in between."""
    case = start_case(c)
    case.hbm_flavour = c.pick(("plain", "bits"))  # the second has NaNs: loads raise the flag
    length = c.integer(3, 16)
    case.instructions = [_control(c, case, length) for _ in range(length)]
    return case


def _control(c: Choose, case: Case, length: int) -> Instruction:
    register = lambda: c.pick((0, 1, 2, OFFSET, ROWS, 12, 12, 13))  # noqa: E731
    last = length + 4  # instructions, those that set registers and the halt included
    match c.integer(0, 12):
        case 0:
            return op("set", dst=register(), value=c.pick(_NUMBERS))
        case 1 | 2:
            return op("add", dst=register(), a=register(), b=register(), value=c.pick(_NUMBERS))
        case 3 | 4:
            return op("repeat", count=c.integer(0, 4), length=c.pick((1, 2, 3, c.integer(0, last))))
        case 5:
            return op("call", target=c.integer(0, last))
        case 6:
            return op("skip_unless", a=register(), value=c.pick(_NUMBERS), length=c.pick((1, 2, c.integer(0, last))))
        case 7:
            return op(c.pick(("ret", "ret", "halt")))
        case 8:
            return op("multiply", dst=register(), a=register(), value=c.pick(_NUMBERS))
        case 10:
            return op("repeat_rows", rows=register(), length=c.pick((1, 2, 3, c.integer(0, last))))
        case 11:
            return op(
                "fetch", dst=register(), src=LmuRef(c.integer(0, 40), 0, register()), limit=c.pick((1, 9, 1 << 23))
            )
        case 9:
            table = HbmRef(c.pick((0, 8, 8 * c.integer(0, 999), case.map.tokens, c.integer(0, case.map.end + 8))))
            return op("lookup", dst=register(), table=table, index=register(), limit=c.pick((1, 4, (1 << 32) - 1)))
        case _:
            return op("load", dst=LmuRef(c.integer(0, 99), 1), src=HbmRef(4 * c.integer(0, 999)), columns=40)


def start_case(c: Choose) -> Case:
    """What a program starts from."""
    target = c.pick(("u55c", "u55c", "u55c", "asic"))
    chunk = c.pick((1, 3, 6, 6, 20, 40))
    tokens = c.integer(1, chunk)
    last = LENGTH - tokens
    return Case(
        target,
        chunk,
        tokens,
        position=c.pick((-1, LENGTH, LENGTH + 70)) if c.chance(4) else c.pick((0, last, c.integer(0, last))),
        rows=c.pick((tokens, c.integer(1, chunk))),
        offset=c.pick((0, 1, 17, c.integer(0, 500))),
        base=load_target(target).stripe_bytes * c.integer(0, 3),
        head_size=c.pick((64, 24, 7, 100)),
        matrix_type=c.pick(MATRIX_TYPES),
        seed=c.integer(0, 1 << 30),
        lmu_flavour=c.pick(FLAVOURS),
        hbm_flavour=c.pick(HBM_FLAVOURS),
        device=c.integer(0, 3),
        waits=c.pick((0, 0, 1, 2)),
        linked=not c.chance(2),
    )
