"""Estimates the cycles of a program: each engine is an in-order queue of instructions with their costs.

The rules, on top of those of `cost.py`:

* ICP issues one word a cycle, far ahead of the engines; the queues are unbounded.
* An instruction starts when its predecessor in its engine's queue allows it and its operands are available. The words
  that it writes must be free when its first result is ready. A consumer of some columns of a matrix's result waits for
  these columns only. Epilogue operands are needed when the columns that they apply to are finished.
* SMA has one queue, with a port for reading and one for writing HBM. Its instructions start in order; a store may run
  beside a stream that started before it. HBM addresses are not compared: a read waits for all stores before it.
* matmul, scores and values stream through SMA. Streaming starts when the operand is available; a matmul's may start
  `prefetch` stripes (at most the size of the target's stream buffer) ahead of that.
* The devices of a ring run in lockstep: the n-th message to a device arrives when the n-th message that it sent arrives
  at the next device. This is the estimate of device 0. Without `overlap`, nothing else runs from the start of a send to
  the end of its receive.
* When a trip of a repeat leaves all engines in the same state as the trip before, only later, the remaining trips are
  extrapolated: the result is exact. The value that `lookup` reads is unknown: the functions it chooses from count in
  turn. ICP waits for the word that `fetch` reads, which counts as 0: all experts cost the same.

Integers throughout: the same program, target and context give the same number on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.cost_rules import Control, Engine
from hyperdex_ir.isa.footprint import Footprint
from hyperdex_ir.isa.instructions import FIRST_ROW, HEAD_ROWS, POSITION, ROWS, TOKENS, ZERO, Flow
from hyperdex_ir.isa.operands import LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.performance.scoreboard import Budget
from hyperdex_ir.performance.simulator import Engines, Prepared
from hyperdex_ir.targets import Target

#: Limit for the instructions that are executed one by one, without extrapolated trips. The comparison after a trip
#: counts as one instruction for each `_COMPARED` numbers.
MOST_EXECUTED = 2_000_000
_COMPARED = 64
#: Limit for the number of prepared instructions, one for each combination of the registers that affect them.
_MOST_KINDS = 1 << 17
_WORD_LIMIT = 1 << 63


@dataclass
class Estimate:
    """Estimate of one step.

    cycles: until the last result is available. busy: cycles in which each engine works. For SMA these are the cycles in
    which it reads; for ESL, which is listed only if it does anything, those in which it sends. weight_stripes,
    cache_stripes: streamed stripes. link_bytes: bytes that the device sent. executed: number of executions of each
    instruction. waits: for each matmul, by its index, the greatest number of cycles by which its stream could have
    started before its operand was available. touched: for each instruction that ran, by its index, the words of the LMU
    that it read or wrote.
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
    """Estimates one step of a valid program over `tokens` tokens, the first at absolute position `position`.

    head_rows: the logits of as many last rows are wanted. Decode with a context of c positions: one token at position
    c - 1. budget: shared with other estimates; None: one of its own.
    Raises FileFormatError for a program that the machine would stop, or that has too many trips to estimate.
    """
    registers = {TOKENS: tokens, POSITION: position, FIRST_ROW: tokens - head_rows, HEAD_ROWS: head_rows}
    run = _Run(program, Engines(target, position, overlap, budget), registers)
    run.block(0, len(program.instructions))
    return run.result()


class _Run:
    """One step: executes control instructions, and queues all others at the engines."""

    def __init__(self, program: Program, engines: Engines, registers: dict[int, int]):
        self.code = program.instructions
        self.engines = engines
        self.registers = registers
        self.executed = [0] * len(self.code)
        self.prepared: dict[tuple[int, ...], Prepared] = {}
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
            raise FileFormatError(f"a step of 2^{cycles.bit_length() - 1} cycles: too many to estimate", COMPILE_AGAIN)
        touched: dict[int, list[Footprint]] = {}
        for item in self.prepared.values():
            numbers = (*item.reads, *item.epilogue, *item.writes)
            touched.setdefault(item.index, []).extend(map(engines.board.footprint, numbers))
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
            match item.spec.flow:
                case Flow.END | Flow.RETURN:
                    return
                case Flow.LOOP:
                    self._repeat(index, index + values["length"], self._trips(index - 1, item))
                    index += values["length"]
                case Flow.SKIP:
                    index += 0 if self._register(values["a"]) == values["value"] else values["length"]
                case Flow.CALL:
                    self.block(values["target"], len(self.code))
                case _ if item.spec.engine is Engine.ICP:
                    self._scalar(index - 1, item)
                case _:
                    self.engines.execute(self._prepare(index - 1, item))

    def _trips(self, index: int, loop: Instruction) -> int:
        values: Any = loop.values
        if not loop.spec.has_rows:
            return values["count"]
        rows = self._register(values[ROWS.name])
        self.engines.check_rows(index, loop.name, rows)
        return rows

    def _count(self, number: int) -> None:
        budget = self.engines.budget
        budget.executed += number
        if budget.executed > (most := MOST_EXECUTED * budget.estimates):
            raise FileFormatError(f"{most} instructions and no halt: too many to estimate", COMPILE_AGAIN)

    def _register(self, number: int) -> int:
        return self.registers.get(number, 0)

    def _scalar(self, index: int, item: Instruction) -> None:
        """Executes a control instruction that sets registers; numbers from memory are unknown."""
        spec, values = item.spec, cast(Any, item.values)
        if spec.lmu:
            self.engines.fetch(self._prepare(index, item))
        reads_hbm = isinstance(spec.cost, Control) and spec.cost.reads_hbm
        if reads_hbm:
            self.engines.issue += self.engines.target.hbm_latency_cycles
        for register in (values[operand.name] for operand in spec.registers if operand.writes):
            if spec.result is not None:
                read = [self._register(values[operand.name]) for operand in spec.registers if not operand.writes]
                result = spec.result([*read, values["value"]])
            else:
                result = self._choose(register) if reads_hbm else 0
            if not -_WORD_LIMIT <= result < _WORD_LIMIT:
                raise FileFormatError(f"register r{register} holds 64 bits, {result} does not fit", COMPILE_AGAIN)
            self.registers[register] = result if register != ZERO else 0

    def _choose(self, register: int) -> int:
        """Assumed result of a lookup: a value that skips compare it with, in turn; 0 if there are none."""
        if register not in self.choices:
            return 0
        self.lookups += 1
        return self.choices[register][(self.lookups - 1) % len(self.choices[register])]

    def _prepare(self, index: int, item: Instruction) -> Prepared:
        key = (index, *(self._register(register) for register in self.shaping[index]))
        if key not in self.prepared:
            if len(self.prepared) == _MOST_KINDS:
                raise FileFormatError(
                    f"instructions that work on {_MOST_KINDS} places: too many to estimate", COMPILE_AGAIN
                )
            self.prepared[key] = self.engines.prepare(index, item, self._register)
        return self.prepared[key]

    # ------------------------------------------------------------------------------------------------ repeats
    def _repeat(self, start: int, stop: int, count: int) -> None:
        """Runs all trips; once a trip leaves the same state as the trip before, the rest are extrapolated."""
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
        """Adds the growth of each counter since `before` to it, `times` times."""
        engines, names = self.engines, list(self.engines.busy)
        values = [now + (now - then) * times for now, then in zip(self._counters(), before, strict=True)]
        engines.busy = dict(zip(names, values, strict=False))
        engines.weight_stripes, engines.cache_stripes, engines.link_bytes = values[len(names) : len(names) + 3]
        self.executed = values[len(names) + 3 :]


def _shaping_registers(item: Instruction) -> tuple[int, ...]:
    """Registers that affect an instruction's words in the LMU, or the execution of other instructions."""
    spec = item.spec
    found = [value.register for value in item.values.values() if isinstance(value, LmuRef | ViewRef)]
    if spec.engine is not Engine.ICP or spec.flow is not None:
        read = [operand.name for operand in spec.registers if not operand.writes]
        found += [value for name in read if isinstance(value := item.values[name], int)]
    return tuple(dict.fromkeys(found))


def _choices(code: Sequence[Instruction]) -> dict[Any, tuple[Any, ...]]:
    """Registers that skips compare -> the values that they compare them with."""
    found: dict[Any, dict[Any, None]] = {}
    for item in code:
        if item.spec.flow is Flow.SKIP:
            found.setdefault(item["a"], {})[item["value"]] = None
    return {register: tuple(values) for register, values in found.items()}
