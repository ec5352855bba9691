"""The engines of the estimate: times at which they are free, updated by each instruction. Rules: see `estimate.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.cost_rules import Engine, Weights
from hyperdex_ir.isa.footprint import Footprint
from hyperdex_ir.isa.instructions import ROWS, Spec
from hyperdex_ir.isa.operands import Lmu, LmuRef, View, ViewRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.performance.cost import Cost, instruction_cost, stream_cycles
from hyperdex_ir.performance.scoreboard import Budget, Scoreboard, Write
from hyperdex_ir.targets import Target

_CLOCKS = ("matrix", "vector", "started", "read", "write", "sent", "received")


@dataclass(frozen=True)
class Prepared:
    """One instruction for certain register values: its cost, and the numbers of the footprints that it touches."""

    index: int
    spec: Spec
    cost: Cost
    reads: tuple[int, ...]
    epilogue: tuple[int, ...]  # read when columns finish
    writes: tuple[int, ...]
    prefetch: int


class Engines:
    """Times at which engines and buffers are free, in cycles from the start of the step, which begins at `position`.

    issue: ICP; matrix: SXE; vector: VXE; started: the last start in SMA's queue; read, write: SMA's ports; sent,
    received: ESL's. arrivals: arrival times of the messages under way. overlap: see `estimate.py`. budget: the limit
    for work.
    """

    def __init__(self, target: Target, position: int, overlap: bool = True, budget: Budget | None = None):
        self.target = target
        self.position = position
        self.overlap = overlap
        self.budget = budget or Budget()
        self.board = Scoreboard(target.trees, self.budget)
        self.issue = self.matrix = self.vector = self.started = self.read = self.write = self.end = 0
        self.sent = self.received = 0
        self.arrivals: deque[int] = deque()
        self.busy = {Engine.SMA: 0, Engine.SXE: 0, Engine.VXE: 0, Engine.ESL: 0}
        self.weight_stripes = self.cache_stripes = self.link_bytes = 0
        self.waits: dict[int, int] = {}

    def prepare(self, index: int, item: Instruction, register: Callable[[int], int]) -> Prepared:
        """Prepares an instruction for the current register values.

        Raises FileFormatError when the machine would stop there because of rows or words of the LMU. HBM accesses are
        not checked.
        """
        spec, values = item.spec, cast(Any, item.values)
        rows = register(values[ROWS.name]) if spec.has_rows else 1
        if spec.ring is not None and values[spec.ring.parts] < 1:
            raise FileFormatError(f"instruction {index} ({spec.name}): {values[spec.ring.parts]} parts", COMPILE_AGAIN)
        self.check_rows(index, spec.name, rows)
        cost = instruction_cost(spec.name, values, self.target, rows, self.position)
        reads: list[int] = []
        epilogue: list[int] = []
        writes: list[int] = []
        for operand in spec.lmu:
            if (value := values.get(operand.name)) is not None:
                kind = writes if operand.writes else epilogue if operand.epilogue else reads
                footprint = self._footprint(operand, values, value, register(value.register), rows)
                self._check(index, spec.name, footprint)
                kind.append(self.board.number(footprint))
        prefetch = values[spec.cost.prefetch] if isinstance(spec.cost, Weights) else 0
        prefetch = min(prefetch, self.target.prefetch_stripes)
        return Prepared(index, spec, cost, tuple(reads), tuple(epilogue), tuple(writes), prefetch)

    def check_rows(self, index: int, name: str, rows: int) -> None:
        """Raises FileFormatError for an impossible number of rows: each row takes at least one word of the LMU."""
        if not 1 <= rows <= self.target.lmu_words:
            most = f", the LMU has {self.target.lmu_words} words" if rows > 1 else ""
            raise FileFormatError(f"instruction {index} ({name}): {rows} rows{most}", COMPILE_AGAIN)

    def _check(self, index: int, name: str, footprint: Footprint) -> None:
        if footprint.low < 0 or footprint.end > self.target.lmu_words:
            raise FileFormatError(
                f"instruction {index} ({name}): LMU words {footprint.low} to {footprint.end - 1}, there are"
                f" {self.target.lmu_words}",
                COMPILE_AGAIN,
            )

    def _footprint(self, operand: Lmu | View, values: Any, ref: LmuRef | ViewRef, added: int, rows: int) -> Footprint:
        rows = rows if ref.stride else 1
        first, last = operand.row_span(ref, values, rows, self.position)
        low = ref.address + added
        return Footprint(low + first, low + last, ref.stride, rows)

    # ------------------------------------------------------------------------------------------------ executing
    def execute(self, prepared: Prepared) -> None:
        """Queues one instruction other than control."""
        operands = max((self.board.ready(number) for number in prepared.reads), default=0)
        free = max((self.board.free(number) for number in prepared.writes), default=0) - prepared.cost.latency
        if prepared.cost.engine is Engine.SXE:
            self._multiply(prepared, operands, free)
        elif prepared.cost.engine is Engine.VXE:
            start = max(self.issue, self.vector, operands, free)
            self.vector = start + prepared.cost.cycles
            self.busy[Engine.VXE] += prepared.cost.cycles
            self._finish(prepared, self.vector)
        elif prepared.cost.engine is Engine.ESL:
            self._send(prepared, operands) if prepared.reads else self._receive(prepared, free)
        elif prepared.spec.stores:
            self.started = max(self.issue, self.started, self.write, operands)
            self.write = self.started + prepared.cost.cycles
            self._finish(prepared, self.write)
        else:
            self.started = max(self.issue, self.started, self.read, self.write, free)
            self.read = self.started + prepared.cost.cycles
            self.busy[Engine.SMA] += prepared.cost.cycles
            self._finish(prepared, self.read)

    def fetch(self, prepared: Prepared) -> None:
        """Makes ICP wait for a word of the LMU."""
        self.issue = max([self.issue, *map(self.board.ready, prepared.reads)])
        for number in prepared.reads:
            self.board.read(number, self.issue)

    def _send(self, prepared: Prepared, operands: int) -> None:
        start = max(self.issue, self.sent, operands, 0 if self.overlap else self.end)
        self.sent = start + prepared.cost.cycles
        self.arrivals.append(self.sent + prepared.cost.latency)
        self.busy[Engine.ESL] += prepared.cost.cycles
        self.link_bytes += sum(self.board.footprint(number).words for number in prepared.reads) * 4
        for number in prepared.reads:
            self.board.read(number, self.sent)

    def _receive(self, prepared: Prepared, free: int) -> None:
        arrival = self.arrivals.popleft() if self.arrivals else 0
        self.received = max(self.issue, self.received, arrival, free)
        if not self.overlap:
            self.issue = self.received
        self._finish(prepared, self.received)

    def _finish(self, prepared: Prepared, end: int) -> None:
        for number in prepared.reads:
            self.board.read(number, end)
        for number in prepared.writes:
            self.board.write(number, end + prepared.cost.latency)
        self.end = max(self.end, end + prepared.cost.latency)

    def _multiply(self, prepared: Prepared, operands: int, free: int) -> None:
        """Queues a matrix: SMA streams it, SXE works on the stripes that have arrived."""
        cost, first_beat = prepared.cost, self.target.hbm_latency_cycles
        streaming = stream_cycles(cost.stripes, self.target)
        could_start = max(self.issue, self.started, self.read, self.write)
        request = could_start if prepared.prefetch else max(could_start, operands)
        begin = max(self.matrix, operands, request + first_beat, free - cost.group_cycles)
        for number in prepared.epilogue:
            first, last = self.board.ready(number, self.target.trees), self.board.ready(number)
            to_trees = self.target.tree_latency_cycles
            begin = max(begin, first - cost.group_cycles - to_trees, last - cost.cycles - to_trees)
        end = max(begin + cost.cycles, request + first_beat + streaming)
        buffered = prepared.prefetch * cost.cycles // max(cost.stripes, 1)
        self.started, self.matrix = request, end
        self.read = max(request + streaming, end - first_beat - buffered)
        self._count_matrix(prepared, streaming, operands - could_start)
        for number in (*prepared.reads, *prepared.epilogue):
            self.board.read(number, end)
        for number in prepared.writes:
            self.board.write(number, end + cost.latency, begin + cost.latency, cost.group_cycles)
        self.end = max(self.end, end + cost.latency)

    def _count_matrix(self, prepared: Prepared, streaming: int, wait: int) -> None:
        self.busy[Engine.SXE] += prepared.cost.cycles
        self.busy[Engine.SMA] += streaming
        if isinstance(prepared.spec.cost, Weights):
            self.weight_stripes += prepared.cost.stripes
            self.waits[prepared.index] = max(wait, self.waits.get(prepared.index, 0))
        else:
            self.cache_stripes += prepared.cost.stripes

    # ------------------------------------------------------------------------------------------------ repeats
    def clocks(self) -> dict[str, int]:
        """All clocks in cycles, by name."""
        return {name: getattr(self, name) for name in (*_CLOCKS, "issue", "end")}

    def _floor(self, before: dict[str, int]) -> int:
        """Lower bound for the start of any instruction in another trip like the one since `before`."""
        moved = [time for name, time in self.clocks().items() if name in _CLOCKS and time != before[name]]
        return max(self.issue, min(moved, default=0))

    def state(self, before: dict[str, int]) -> object:
        """State that decides the timing of another trip like the one since `before`, relative to the latest time."""
        clocks, floor = self.clocks(), self._floor(before)
        latest = max(clocks[name] for name in (*_CLOCKS, "issue"))
        times = {name: max(clocks[name], floor) - latest for name in _CLOCKS if clocks[name] != before[name]}
        queue = tuple(arrival - latest for arrival in self.arrivals)
        board = self.board.state(floor, latest)
        return times, max(self.issue, floor) - latest, board, queue, latest - self._latest(before)

    @staticmethod
    def _latest(clocks: dict[str, int]) -> int:
        return max(clocks[name] for name in (*_CLOCKS, "issue"))

    def repeat_trip(self, before: dict[str, int], board: tuple[list[Write], list[int]], times: int) -> None:
        """Adds `times` trips like the one since `before`, when the scoreboard held the times `board`."""
        clocks = self.clocks()
        shift = (self._latest(clocks) - self._latest(before)) * times
        for name in _CLOCKS:
            if clocks[name] != before[name]:
                setattr(self, name, clocks[name] + shift)
        if clocks["end"] != before["end"]:
            self.end += shift
        self.arrivals = deque(arrival + shift for arrival in self.arrivals)
        self.board.shift(shift, board)
        self.issue += (clocks["issue"] - before["issue"]) * times
