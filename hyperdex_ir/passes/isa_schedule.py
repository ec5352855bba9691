"""`isa-schedule`: an order of instructions with less waiting.

The work of the vector engine and the writes to the KV cache go behind the streaming of weights where dependences allow
it: values are computed before queries and keys, as writing them takes longest; a store goes behind the streams that
need not wait for it; independent work goes in between. A matmul whose operand is late gets the field `prefetch`: its
weights may stream in as far as the target's stream buffer holds them.

The new order of a function stays only if the estimate (`performance/estimate.py`) of a decode step gets better at the
first and at the last position together, at neither worse, and if the buffers still fit the LMU as they did. The
estimates at the last position become the attributes `isa.cycles_before` and `isa.cycles` of the module. It comes before
`isa-allocate-lmu`: a module that has addresses is left alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass

from hyperdex_ir.dialects.isa import BufferOp, InstructionOp, buffer_type
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import CapacityError
from hyperdex_ir.isa.cost_rules import Weights
from hyperdex_ir.isa.program import Program
from hyperdex_ir.passes.isa_allocate_lmu import Placement, choose, place
from hyperdex_ir.passes.isa_dependences import dependences, work_of
from hyperdex_ir.passes.isa_order import RULES, schedule
from hyperdex_ir.passes.lmu_liveness import find_frames
from hyperdex_ir.performance.cost import instruction_cost
from hyperdex_ir.performance.estimate import Estimate, estimate
from hyperdex_ir.targets import Target, load_target


@dataclass(frozen=True)
class Order:
    """The operations of a block in order."""

    block: Block
    ops: list[Operation]

    @cached_property
    def work(self) -> list[Operation]:
        """The operations whose order counts."""
        return work_of(self.ops)

    @cached_property
    def waits(self) -> list[list[int]] | None:
        """The dependences of `work`. None: an operation is not known."""
        return dependences(self.work)

    def arrange(self) -> None:
        """Gives the block this order."""
        for op in self.ops:
            op.detach()
        self.block.add_ops(self.ops)


@dataclass(frozen=True)
class Scheduled:
    """Result of scheduling. before, after: cycles of a decode step at the last position. moved: functions with a new
    order; too_large: functions with a possible order that would not fit the LMU; prefetched: matmuls that stream ahead.
    """

    before: int
    after: int
    moved: tuple[str, ...]
    too_large: tuple[str, ...]
    prefetched: int


class _Scheduler:
    """Schedules the functions of one module."""

    def __init__(self, module: ModuleOp, target: Target, max_length: int):
        self.module = module
        self.target = target
        #: For estimates: buffers are not placed yet, and some of their words have numbers beyond the LMU's last.
        self.roomy = replace(target, lmu_bytes=sys.maxsize)
        self.max_length = max_length
        self.placement: Placement = choose(find_frames(module), target, max_length)
        self.functions = [op for op in module.ops if isinstance(op, FuncOp)]

    def run(self) -> Scheduled:
        for op, rule in self._matmuls():
            op.properties.pop(rule.prefetch, None)
        before = now = self._cycles()
        moved: list[str] = []
        too_large: dict[str, None] = {}
        for function in self.functions:
            best = old = orders_of(function)
            tried = [old]
            for rule in RULES:
                if not reorder(old, rule, self.target, self.max_length - 1):
                    continue
                if (order := orders_of(function)) in tried:
                    continue
                tried.append(order)
                if not self._fits():
                    too_large[function.sym_name.data] = None
                elif _is_better(new := self._cycles(), now):
                    best, now = order, new
            for order in best:
                order.arrange()
            if best is not old:
                moved.append(function.sym_name.data)
        prefetched = self._prefetch()
        after = self._cycles() if prefetched else now
        return Scheduled(before[1], after[1], tuple(moved), tuple(too_large), prefetched)

    def _estimates(self, program: Program) -> tuple[Estimate, Estimate]:
        """Estimates of a decode step at the first and at the last position."""
        first, last = (estimate(program, self.roomy, position=position) for position in (0, self.max_length - 1))
        return first, last

    def _cycles(self) -> tuple[int, int]:
        first, last = self._estimates(to_program(self.module, chunk=1, head_rows=1))
        return first.cycles, last.cycles

    def _fits(self) -> bool:
        placement = place(find_frames(self.module), self.placement.chunk, self.placement.head_rows)
        return placement.words <= self.target.lmu_words

    # ------------------------------------------------------------------------------------------------ prefetch
    def _matmuls(self) -> list[tuple[InstructionOp, Weights]]:
        """All instructions that stream weights, with their rules, in the order of the program, main's first."""
        main_first = sorted(self.functions, key=lambda function: function.sym_name.data != "main")
        ops = [op for function in main_first for op in function.walk() if isinstance(op, InstructionOp)]
        return [(op, rule) for op in ops if isinstance(rule := op.spec().cost, Weights)]

    def _prefetch(self) -> int:
        """Lets the weights stream in ahead where the operand is late; returns the number of these matmuls."""
        program = to_program(self.module, chunk=1, head_rows=1)
        indices = [index for index, item in enumerate(program.instructions) if isinstance(item.spec.cost, Weights)]
        waits = [found.waits for found in self._estimates(program)]
        count = 0
        for index, (op, rule) in zip(indices, self._matmuls(), strict=True):
            if max(found.get(index, 0) for found in waits) <= 0:
                continue
            stripes = instruction_cost(op.spec().name, op.values(), self.target, 1, 0).stripes
            op.properties[rule.prefetch] = IntegerAttr(min(stripes, self.target.prefetch_stripes), 64)
            count += 1
        return count


def _is_better(new: tuple[int, int], old: tuple[int, int]) -> bool:
    return sum(new) < sum(old) and all(a <= b for a, b in zip(new, old, strict=True))


def orders_of(function: FuncOp) -> list[Order]:
    """Every block of a function, the outermost first, with its operations as they stand."""
    blocks = [function.body.block]
    for block in blocks:
        blocks += [inner for op in block.ops for region in op.regions for inner in region.blocks]
    return [Order(block, list(block.ops)) for block in blocks]


def reorder(old: list[Order], rule: str, target: Target, position: int) -> bool:
    """Gives every block the order that a rule (of `isa_order.RULES`) makes of the old one, for decode at an absolute
    position; returns True if an order is new. A block with operations that are not known keeps its order.
    """
    changed = False
    for order in old:
        numbers = [] if order.waits is None else schedule(order.work, order.waits, target, position, rule)
        order.arrange()
        if numbers != sorted(numbers):
            Order(order.block, _with_buffers(order.ops, [order.work[number] for number in numbers])).arrange()
            changed = True
    return changed


def _with_buffers(old: list[Operation], work: list[Operation]) -> list[Operation]:
    """The new order of all operations: each buffer right before its first use, unused ones and the terminator last."""
    buffers = {op: None for op in old if isinstance(op, BufferOp)}
    order: dict[Operation, None] = {}
    for op in work:
        owners = [operand.owner for inner in op.walk() for operand in inner.operands]
        order |= {owner: None for owner in owners if isinstance(owner, BufferOp) and owner in buffers}
        order[op] = None
    unused = [op for op in buffers if op not in order]
    return [*order, *unused, *(op for op in old if op not in order and op not in buffers)]


def schedule_module(module: ModuleOp) -> Scheduled | None:
    """Schedules an `isa` module for its target, as this file's docstring says. None: the module is left alone, because
    its buffers do not fit the LMU, or have addresses already, which are right only for the present order.
    """
    facts = ModuleFacts(module)
    target = load_target(facts.target)
    if any(isinstance(op, BufferOp) and buffer_type(op.res).address is not None for op in module.walk()):
        return None
    try:
        result = _Scheduler(module, target, facts.max_length).run()
    except CapacityError:
        return None
    module.attributes["isa.cycles_before"] = IntegerAttr(result.before, 64)
    module.attributes["isa.cycles"] = IntegerAttr(result.after, 64)
    return result


@dataclass(frozen=True)
class IsaSchedulePass(ModulePass):
    """Reorders instructions to hide vector work and KV writes behind the streaming of weights."""

    name = "isa-schedule"
    exactness: ClassVar[str] = "exact"

    report: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        result = schedule_module(op)
        if self.report:
            print(f"isa-schedule: {_describe(result)}", file=sys.stderr)


def _describe(result: Scheduled | None) -> str:
    if result is None:
        return "left alone, the buffers do not fit the LMU or have their addresses"
    moved = ", ".join(f"@{name}" for name in result.moved) or "nothing"
    text = f"{result.before} -> {result.after} cycles a token (decode, last position); reordered {moved}"
    skipped = f"; too large reordered: {', '.join(f'@{name}' for name in result.too_large)}" if result.too_large else ""
    return f"{text}; {result.prefetched} matmuls prefetch{skipped}"
