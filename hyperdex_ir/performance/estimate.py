"""Estimates how many cycles a program takes: every engine an in-order queue, every instruction with its cost.

The rules, on top of those of `cost.py`:

* ICP hands out one word a cycle, far ahead of the engines; the queues are as long as they need be.
* An instruction starts when the one before it in its engine's queue lets it and its operands are there; the words that
  it writes must not be in use any more when its first result comes. A consumer of some columns of a matrix's result
  waits for these columns, not for all; epilogue operands are needed when the columns that they meet are finished.
* SMA has one queue, with a port for reading and one for writing HBM. Its instructions start in order; a store may run
  beside a stream that started before it. HBM addresses are not compared: what is read waits for all stores before it.
* matmul, scores and values stream through SMA. Streaming starts when the operand is there; a matmul's may start
  `prefetch` stripes (at most what the target's stream buffer holds) ahead of that.
* The devices of a ring do the same at the same time: a message is there when the one that the device sent itself, the
  n-th of both, is there at the next one. This is the estimate of device 0. Without `overlap`, nothing else goes on from
  the start of a send to the end of its receive.
* A repeat whose trip leaves all engines as the trip before did, but later, goes on like that: exact, and quick. What
  `lookup` reads is not known here: the functions it chooses from count in turn. ICP waits for the word that `fetch`
  reads, which counts as 0: experts are alike.

Integers throughout: the same program, target and context give the same number on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.cost_rules import Control, Engine
from hyperdex_ir.isa.footprint import Footprint
from hyperdex_ir.isa.instructions import FIRST_ROW, HEAD_ROWS, POSITION, TOKENS, ZERO
from hyperdex_ir.isa.operands import LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.performance.scoreboard import Budget
from hyperdex_ir.performance.simulator import Engines, Step
from hyperdex_ir.targets import Target

#: Instructions that are gone through one by one; those of trips that are like the one before do not count. What a trip
#: compares counts as an instruction for each `_COMPARED` numbers.
MOST_STEPS = 2_000_000
_COMPARED = 64
#: Instructions with the registers that decide what they do: as many are kept.
_MOST_KINDS = 1 << 17
_WORD_LIMIT = 1 << 63


@dataclass
class Estimate:
    """What one pass takes.

    cycles: until the last result is there. busy: cycles in which each engine works; for SMA those in which it reads,
    for ESL, which is there when it does anything, those in which it sends. weight_stripes, cache_stripes: what was
    streamed. link_bytes: what the device sent. executed: how often each instruction ran. waits: for each matmul, by its
    index, the most cycles that its stream could have started before its operand was there. touched: for each
    instruction that ran, by its index, the words of the LMU that it read or wrote.
    """

    cycles: int
    busy: dict[Engine, int]
    weight_stripes: int
    cache_stripes: int
    link_bytes: int
    executed: list[int]
    waits: dict[int, int]
    touched: dict[int, list[Footprint]]


def estimate(
    program: Program,
    target: Target,
    *,
    tokens: int = 1,
    position: int = 0,
    head_rows: int = 1,
    overlap: bool = True,
    budget: Budget | None = None,
) -> Estimate:
    """The estimate of one pass of a valid program over `tokens` tokens, the first at absolute position `position`, with
    the logits of the last `head_rows` rows wanted. Decode with a context of c positions: one token at position c - 1.
    budget: shared with other estimates; None: one of its own.

    Raises FileFormatError for a program that the machine would stop, or whose trips are too many to go through.
    """
    registers = {TOKENS: tokens, POSITION: position, FIRST_ROW: tokens - head_rows, HEAD_ROWS: head_rows}
    run = _Run(program, Engines(target, position, overlap, budget), registers)
    run.block(0, len(program.instructions))
    return run.result()


class _Run:
    """One pass: executes control, hands everything else to the engines."""

    def __init__(self, program: Program, engines: Engines, registers: dict[int, int]):
        self.code = program.instructions
        self.engines = engines
        self.registers = registers
        self.executed = [0] * len(self.code)
        self.steps: dict[tuple[int, ...], Step] = {}
        self.shaping = [_shaping_registers(item) for item in self.code]
        self.watched = sorted({register for registers in self.shaping for register in registers})
        self.choices = _choices(self.code)
        self.lookups = 0

    def result(self) -> Estimate:
        engines = self.engines
        busy = {engine: cycles for engine, cycles in engines.busy.items() if cycles or engine is not Engine.ESL}
        busy[Engine.ICP] = sum(self.executed)
        cycles = max(engines.end, engines.issue)
        if cycles >= _WORD_LIMIT:
            raise FileFormatError(f"a pass of 2^{cycles.bit_length() - 1} cycles: too many to estimate", COMPILE_AGAIN)
        touched: dict[int, list[Footprint]] = {}
        for step in self.steps.values():
            numbers = (*step.reads, *step.epilogue, *step.writes)
            touched.setdefault(step.index, []).extend(map(engines.board.footprint, numbers))
        moved = engines.weight_stripes, engines.cache_stripes, engines.link_bytes
        return Estimate(cycles, busy, *moved, self.executed, engines.waits, touched)

    def block(self, index: int, stop: int) -> None:
        """Runs instructions up to `stop`, or to the halt or ret before it."""
        while index < stop:
            item = self.code[index]
            values: Any = item.values
            self.engines.issue += 1
            self.executed[index] += 1
            self._count(1)
            index += 1
            match item.name:
                case "halt" | "ret":
                    return
                case "repeat":
                    self._repeat(index, index + values["length"], values["count"])
                    index += values["length"]
                case "repeat_rows":
                    rows = self._register(values["rows"])
                    self.engines.check_rows(index - 1, item.name, rows)
                    self._repeat(index, index + values["length"], rows)
                    index += values["length"]
                case "skip_unless":
                    index += 0 if self._register(values["a"]) == values["value"] else values["length"]
                case "call":
                    self.block(values["target"], len(self.code))
                case _ if item.spec.engine is Engine.ICP:
                    self._scalar(index - 1, item)
                case _:
                    self.engines.execute(self._step(index - 1, item))

    def _count(self, steps: int) -> None:
        budget = self.engines.budget
        budget.steps += steps
        if budget.steps > (most := MOST_STEPS * budget.estimates):
            raise FileFormatError(f"{most} instructions and no halt: too many to estimate", COMPILE_AGAIN)

    def _register(self, number: int) -> int:
        return self.registers.get(number, 0)

    def _scalar(self, index: int, item: Instruction) -> None:
        """A control instruction that sets registers: numbers that come from memory are not known."""
        spec, values = item.spec, cast(Any, item.values)
        if spec.lmu:
            self.engines.fetch(self._step(index, item))
        reads_hbm = isinstance(spec.cost, Control) and spec.cost.reads_hbm
        if reads_hbm:
            self.engines.issue += self.engines.target.hbm_latency_cycles
        for register in (values[operand.name] for operand in spec.registers if operand.writes):
            if spec.name == "set":
                result = values["value"]
            elif spec.name == "add":
                result = self._register(values["a"]) + self._register(values["b"]) + values["value"]
            elif spec.name == "multiply":
                result = self._register(values["a"]) * values["value"]
            else:
                result = self._choose(register) if reads_hbm else 0
            if not -_WORD_LIMIT <= result < _WORD_LIMIT:
                raise FileFormatError(f"register r{register} holds 64 bits, {result} does not fit", COMPILE_AGAIN)
            self.registers[register] = result if register != ZERO else 0

    def _choose(self, register: int) -> int:
        """What a lookup reads, when skips compare it; else 0."""
        if register not in self.choices:
            return 0
        self.lookups += 1
        return self.choices[register][(self.lookups - 1) % len(self.choices[register])]

    def _step(self, index: int, item: Instruction) -> Step:
        key = (index, *(self._register(register) for register in self.shaping[index]))
        if key not in self.steps:
            if len(self.steps) == _MOST_KINDS:
                raise FileFormatError(
                    f"instructions that work on {_MOST_KINDS} places: too many to estimate", COMPILE_AGAIN
                )
            self.steps[key] = self.engines.prepare(index, item, self._register)
        return self.steps[key]

    # ------------------------------------------------------------------------------------------------ repeats
    def _repeat(self, start: int, stop: int, count: int) -> None:
        """All trips; once one leaves the state that the one before it left, the rest are added up."""
        state: object = None
        for left in reversed(range(count)):
            self._count((len(self.code) + len(self.engines.board) + len(self.engines.arrivals)) // _COMPARED)
            before, board = self.engines.clocks(), self.engines.board.times()
            counted, lookups = self._counters(), self.lookups
            self.block(start, stop)
            previous, state = state, self._state(before)
            if left and state == previous and lookups == self.lookups:
                self.engines.repeat_trip(before, board, left)
                self._count_again(counted, left)
                return

    def _state(self, before: dict[str, int]) -> object:
        return self.engines.state(before), [self._register(register) for register in self.watched]

    def _counters(self) -> list[int]:
        engines = self.engines
        moved = engines.weight_stripes, engines.cache_stripes, engines.link_bytes
        return [*engines.busy.values(), *moved, *self.executed]

    def _count_again(self, before: list[int], times: int) -> None:
        """Adds to each counter what it has grown since `before`, so many times."""
        engines, names = self.engines, list(self.engines.busy)
        values = [now + (now - then) * times for now, then in zip(self._counters(), before, strict=True)]
        engines.busy = dict(zip(names, values, strict=False))
        engines.weight_stripes, engines.cache_stripes, engines.link_bytes = values[len(names) : len(names) + 3]
        self.executed = values[len(names) + 3 :]


def _shaping_registers(item: Instruction) -> tuple[int, ...]:
    """The registers that decide what an instruction does in the LMU, or whether others run."""
    spec = item.spec
    found = [value.register for value in item.values.values() if isinstance(value, LmuRef | ViewRef)]
    if spec.engine is not Engine.ICP or spec.flow is not None:
        read = [operand.name for operand in spec.registers if not operand.writes]
        found += [value for name in read if isinstance(value := item.values[name], int)]
    return tuple(dict.fromkeys(found))


def _choices(code: Sequence[Instruction]) -> dict[Any, tuple[Any, ...]]:
    """For each register that skips compare, the values that they compare it with."""
    found: dict[Any, dict[Any, None]] = {}
    for item in code:
        if item.name == "skip_unless":
            found.setdefault(item["a"], {})[item["value"]] = None
    return {register: tuple(values) for register, values in found.items()}
