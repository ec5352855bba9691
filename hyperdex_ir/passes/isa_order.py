"""A list scheduler: an order of a block's operations in which the engines wait less.

It repeatedly takes, of the operations whose dependences are met, the one that can start first. Of several, the rule
decides: `tail` takes the one with the longest path behind it to the end (Schrage's rule: that path should overlap with
the others); `length` the one with the longest path to the end, its own time included; `short` the quickest, so that the
operations that wait for it start early. A store goes behind streams that would wait for it. Control words go where they
are first needed. Messages are received in the order in which they are sent: the n-th receive still takes the message of
the n-th send. The times are those of the cost model, simpler than the estimate's: a repeat or a call is one unit that
takes all engines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.ir import Operation

from hyperdex_ir.dialects.isa import InstructionOp, RepeatOp
from hyperdex_ir.isa.cost_rules import Engine, Link
from hyperdex_ir.performance.cost import Cost, instruction_cost
from hyperdex_ir.targets import Target

_ALL = (Engine.SMA, Engine.SXE, Engine.VXE, Engine.ESL)


@dataclass
class _Node:
    """An operation: its cost, the operations that it waits for (`waits`) and that wait for it (`followers`), and
    `tail`, the cycles from its end to the end of all."""

    cost: Cost
    is_store: bool
    is_unit: bool
    waits: list[int]
    followers: list[int]
    tail: int = 0
    result: int = 0  # the time at which its result is there


def schedule(
    ops: Sequence[Operation], waits: Sequence[Sequence[int]], target: Target, position: int, rule: str
) -> list[int]:
    """The order, as numbers of `ops`, for decode at an absolute position. Every operation stays behind those in
    `waits`, which are numbers of earlier ones. rule: one of `RULES`.
    """
    nodes = [_node(op, list(before), target, position) for op, before in zip(ops, waits, strict=True)]
    sends, receives = _links(ops, sends=True), _links(ops, sends=False)
    if len(sends) != len(receives):
        return list(range(len(ops)))
    for send, receive in zip(sends, receives, strict=True):
        nodes[receive].waits.append(send)
    for number, node in enumerate(nodes):
        for before in node.waits:
            nodes[before].followers.append(number)
    for node in reversed(nodes):
        behind = (nodes[follower].cost.cycles + nodes[follower].tail for follower in node.followers)
        node.tail = node.cost.latency + max(behind, default=0)
    order = _Queue(nodes, RULES[rule], dict(zip(receives, sends, strict=True))).order()
    return order if len(order) == len(ops) else list(range(len(ops)))


def _links(ops: Sequence[Operation], sends: bool) -> list[int]:
    rules = (op.spec().cost if isinstance(op, InstructionOp) else None for op in ops)
    return [number for number, rule in enumerate(rules) if isinstance(rule, Link) and rule.sends is sends]


def _node(op: Operation, waits: list[int], target: Target, position: int) -> _Node:
    cost = _cost(op, target, position)
    is_unit = not isinstance(op, InstructionOp)
    return _Node(cost, isinstance(op, InstructionOp) and op.spec().stores, is_unit, waits, [])


def _cost(op: Operation, target: Target, position: int) -> Cost:
    """Cost of an operation in decode. Instructions inside a repeat are added up; a call counts nothing."""
    if isinstance(op, InstructionOp):
        values: Any = op.values()
        return instruction_cost(op.spec().name, values, target, 1, position)
    inner = [_cost(child, target, position) for region in op.regions for block in region.blocks for child in block.ops]
    cycles = sum(cost.cycles + cost.latency for cost in inner if cost.engine is not Engine.ICP)
    return Cost(Engine.SXE, cycles * (op.count if isinstance(op, RepeatOp) else 1))


#: Sort keys of operations that can start at the same time: the one with the least key is taken first.
RULES: Mapping[str, Callable[[_Node], tuple[int, ...]]] = {
    "tail": lambda node: (-node.tail,),
    "length": lambda node: (-node.tail - node.cost.cycles,),
    "short": lambda node: (node.cost.cycles, -node.tail),
}


class _Queue:
    """Takes nodes one after another. sends: for each receive, the send of its message."""

    def __init__(self, nodes: list[_Node], rule: Callable[[_Node], tuple[int, ...]], sends: Mapping[int, int]):
        self.nodes = nodes
        self.rule = rule
        self.sends = sends
        self.sending = frozenset(sends.values())
        self.sent: deque[int] = deque()  # sends whose message has not been received yet
        self.free: dict[Engine, int] = dict.fromkeys(_ALL, 0)
        self.written = 0  # end of the last store: later streams wait for it

    def order(self) -> list[int]:
        """Numbers of all nodes in the order taken; only some of them when the chosen order of messages cannot be
        continued."""
        waiting = [len(node.waits) for node in self.nodes]
        ready = [number for number, count in enumerate(waiting) if not count]
        taken: list[int] = []
        while possible := [number for number in ready if self._may_come(number)]:
            chosen = self._choose(possible)
            self._run(chosen)
            taken.append(chosen)
            ready.remove(chosen)
            for follower in self.nodes[chosen].followers:
                waiting[follower] -= 1
                if not waiting[follower]:
                    ready.append(follower)
        return taken

    def _may_come(self, number: int) -> bool:
        return number not in self.sends or self.sends[number] == self.sent[0]

    def _choose(self, ready: list[int]) -> int:
        work = [number for number in ready if self.nodes[number].cost.engine is not Engine.ICP] or ready
        starts = {number: self._start(self.nodes[number]) for number in work}
        ranked = sorted(work, key=lambda number: (starts[number], self.rule(self.nodes[number]), number))
        first = self.nodes[ranked[0]]
        if not first.is_store:
            return ranked[0]
        end = starts[ranked[0]] + first.cost.cycles
        return next((n for n in ranked if self.nodes[n].cost.engine is Engine.SXE and starts[n] < end), ranked[0])

    def _start(self, node: _Node) -> int:
        operands = max((self.nodes[before].result for before in node.waits), default=0)
        if node.is_unit:
            return max(operands, self.written, *self.free.values())
        if node.is_store:
            return max(operands, self.written)
        streams = node.cost.engine not in (Engine.VXE, Engine.ESL)
        return max(operands, self.free.get(node.cost.engine, 0), self.written if streams else 0)

    def _run(self, number: int) -> None:
        node = self.nodes[number]
        if number in self.sends:
            self.sent.popleft()
        elif number in self.sending:
            self.sent.append(number)
        end = self._start(node) + node.cost.cycles
        node.result = end + node.cost.latency
        if node.is_unit:
            self.free = dict.fromkeys(_ALL, end)
        elif node.is_store:
            self.written = end
        elif node.cost.engine in self.free:
            self.free[node.cost.engine] = end
