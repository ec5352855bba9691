"""Finds the loops over attention heads in a program, so that the native executor can divide the heads among its
threads.

A head loop is a `repeat`, or one inside another, whose body is one `scores`, `softmax` and `values` in a row,
additions that step registers, and at most one `lookup` of the KV head, multiplied by constants. Everything about it
except the registers' first values and the table's numbers is known from the program: the addresses of each trip are
sums of those and constants, and so are the registers after it. Independence of the trips depends on the values too:
compiled code checks it each time (`head_loop.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from hyperdex_ir.isa.instructions import POSITION, ZERO
from hyperdex_ir.isa.operands import HbmRef
from hyperdex_ir.isa.program import Instruction, Program

#: Most trips of a loop, all levels multiplied. A loop with more is run as it stands.
MAX_TRIPS = 4096
#: Most instructions that a loop executes while it is looked at, so that the analysis of a loop without trips ends too.
MAX_EXECUTED = 16 * MAX_TRIPS
#: Instructions that all loops of a program execute while they are looked at; loops that are left then are run as they
#: stand. A model of 126 layers of their own, with 128 heads each, takes a quarter.
MAX_SEARCHED = 1 << 18
#: Bound of constants. Compiled code checks the same bound for registers, so that no sum in the loop overflows 64 bits.
MAX_CONSTANT = 1 << 61
#: The same bound for results of lookups, and for their factors.
MAX_NUMBER, MAX_FACTOR = 1 << 24, 1 << 36
_STAGES = ("scores", "softmax", "values")
_MAX_DEPTH = 2


@dataclass(frozen=True)
class Place:
    """A number that depends on a register and a table: the value of `register` before the loop, plus `constant`, plus
    `factor` times the result of the loop's lookup number `lookup`."""

    register: int
    constant: int
    factor: int = 0
    lookup: int = 0


@dataclass(frozen=True)
class Trip:
    """One execution of the three stages: LMU word addresses of query and result, HBM byte addresses of keys, values,
    slope and sink (0 where absent), and the number of instructions that the loop has executed before it."""

    query: Place
    keys: Place
    values: Place
    result: Place
    slope: Place
    sink: Place
    executed: int

    @property
    def places(self) -> tuple[Place, ...]:
        return self.query, self.keys, self.values, self.result, self.slope, self.sink


@dataclass(frozen=True)
class HeadLoop:
    """A head loop of a program.

    index: the number of its `repeat`; stop: of the first instruction behind it; scores: of the first of the three
    stages; depth: repeats inside each other; finals: values, after the loop, of the registers that it changes; needed:
    registers that must have been set before it; executed: instructions that it executes, the repeats included;
    span: columns from the first to the last that its results take in a row; lookups: the index of each of its lookups,
    the n-th in trip n or before; table, limit: of all lookups.
    """

    index: int
    stop: int
    scores: int
    depth: int
    trips: tuple[Trip, ...]
    finals: Mapping[int, Place]
    needed: tuple[int, ...]
    executed: int
    span: int
    lookups: tuple[Place, ...] = ()
    table: HbmRef = HbmRef(0)
    limit: int = 0


class _NotAHeadLoop(Exception):
    """Says so; the loop is then run as it stands."""


def find_head_loops(program: Program) -> dict[int, HeadLoop]:
    """The outermost head loops of a program, by the number of their `repeat`."""
    found: dict[int, HeadLoop] = {}
    end, left = 0, MAX_SEARCHED
    for index, item in enumerate(program.instructions):
        if left <= 0:
            break
        if item.name != "repeat" or index < end or not _looks_like_one(program.instructions, index):
            continue
        walk = _Walk(program.instructions, most=min(left, MAX_EXECUTED))
        try:
            walk.repeat(index, 1)
            found[index] = walk.result(index)
            end = found[index].stop
        except _NotAHeadLoop:
            pass
        left -= walk.executed
    return found


def _looks_like_one(instructions: Sequence[Instruction], index: int) -> bool:
    """Test that a `repeat` has the instructions of a head loop, the stages once; no body is looked at more than
    twice."""
    stop = index + 1 + _number(instructions[index].values, "length")
    stages = 0
    ends = [stop]  # ends of the loops around the instruction
    for number in range(index + 1, min(stop, len(instructions))):
        item = instructions[number]
        while ends[-1] <= number:
            ends.pop()
        if item.name == "repeat" and len(ends) < _MAX_DEPTH:
            ends.append(number + 1 + _number(item.values, "length"))
        elif item.name in _STAGES:
            stages += 1
        elif item.name not in _STEPS:
            return False
    return stages == len(_STAGES)


@dataclass
class _Walk:
    """Runs a loop on registers of which only the first values are unknown."""

    instructions: Sequence[Instruction]
    places: dict[int, Place] = field(default_factory=dict)
    needed: set[int] = field(default_factory=set)
    trips: list[Trip] = field(default_factory=list)
    lookups: list[Place] = field(default_factory=list)
    tables: set[tuple[HbmRef, int]] = field(default_factory=set)
    scores: int | None = None
    depth: int = 0
    executed: int = 0
    most: int = MAX_EXECUTED

    def repeat(self, index: int, depth: int) -> None:
        """Executes the `repeat` at `index` to its end."""
        values = self.instructions[index].values
        count, start, stop = _number(values, "count"), index + 1, index + 1 + _number(values, "length")
        if count < 1 or stop == start or stop > len(self.instructions) or depth > _MAX_DEPTH:
            raise _NotAHeadLoop
        self.depth = max(self.depth, depth)
        self._count()
        for _ in range(count):
            self._body(start, stop, depth)

    def _body(self, start: int, stop: int, depth: int) -> None:
        index = start
        while index < stop:
            item = self.instructions[index]
            if item.name == "repeat":
                after = index + 1 + _number(item.values, "length")
                if after > stop:
                    raise _NotAHeadLoop
                self.repeat(index, depth + 1)
                index = after
            elif (step := _STEPS.get(item.name)) is not None:
                self._count()
                place = step(self, item.values)
                if (dst := _number(item.values, "dst")) != ZERO:
                    self.places[dst] = place
                index += 1
            else:
                self._trip(index, stop)
                index += len(_STAGES)

    def _count(self) -> None:
        self.executed += 1
        if self.executed > self.most:
            raise _NotAHeadLoop

    def add(self, values: Mapping[str, Any]) -> Place:
        a, b = self._place(values["a"], 0), self._place(values["b"], 0)
        if (a.register != ZERO and b.register != ZERO) or (a.factor and b.factor):
            raise _NotAHeadLoop
        total = a.constant + b.constant + _number(values, "value")
        looked_up = a if a.factor else b
        return _checked(Place(a.register or b.register, total, looked_up.factor, looked_up.lookup))

    def multiply(self, values: Mapping[str, Any]) -> Place:
        a, times = self._place(values["a"], 0), _number(values, "value")
        if a.register != ZERO or times == 0:
            raise _NotAHeadLoop
        return _checked(Place(ZERO, a.constant * times, a.factor * times, a.lookup))

    def lookup(self, values: Mapping[str, Any]) -> Place:
        index = self._place(values["index"], 0)
        self.tables.add((values["table"], _number(values, "limit")))
        if index.factor or len(self.tables) > 1 or len(self.lookups) > len(self.trips):
            raise _NotAHeadLoop
        self.lookups.append(index)
        return Place(ZERO, 0, 1, len(self.lookups) - 1)

    def _place(self, register: int, constant: int) -> Place:
        """Sum of a register's value and a constant."""
        if register == ZERO:
            return Place(ZERO, constant)
        if register not in self.places:
            self.needed.add(register)
        known = self.places.get(register, Place(register, 0))
        return replace(known, constant=known.constant + constant)

    def _trip(self, index: int, stop: int) -> None:
        """The three stages from `index` on."""
        names = tuple(item.name for item in self.instructions[index : min(index + len(_STAGES), stop)])
        if names != _STAGES or self.scores not in (None, index) or len(self.trips) == MAX_TRIPS:
            raise _NotAHeadLoop
        self.scores = index
        scores, softmax, values = self._stages(index)
        query, result = (self._place(ref.register, ref.address) for ref in (scores["query"], values["dst"]))
        keys, cache = (self._place(ref.register, ref.offset) for ref in (scores["cache"], values["cache"]))
        parameters = (scores.get("slope"), softmax.get("sink"))
        slope, sink = (Place(ZERO, 0) if ref is None else self._place(ref.register, ref.offset) for ref in parameters)
        if any(place.factor for place in (query, result, slope, sink)):
            raise _NotAHeadLoop
        if any(place.factor and place.lookup != len(self.trips) for place in (keys, cache)):
            raise _NotAHeadLoop
        self.trips.append(Trip(query, keys, cache, result, slope, sink, self.executed))
        self.executed += len(_STAGES)

    def _stages(self, index: int) -> list[Mapping[str, Any]]:
        """The operands of the three stages from `index` on."""
        return [item.values for item in self.instructions[index : index + len(_STAGES)]]

    def result(self, index: int) -> HeadLoop:
        """The loop that has been run. Raises _NotAHeadLoop when its stages do not belong together."""
        if self.scores is None:
            raise _NotAHeadLoop
        scores, softmax, values = self._stages(self.scores)
        _check_stages(scores, softmax, values)
        table, limit = next(iter(self.tables), (HbmRef(0), 0))
        used = (scores["dst"].register, scores["rows"], POSITION, table.register)
        first, *others = self.trips
        bases = [place.register for place in first.places]
        if any(register in self.places for register in used):
            raise _NotAHeadLoop
        if any([place.register for place in trip.places] != bases for trip in others):
            raise _NotAHeadLoop
        if len(self.lookups) > len(self.trips):
            raise _NotAHeadLoop
        self.needed.update(register for register in used if register != ZERO)
        return HeadLoop(
            index=index,
            stop=index + 1 + _number(self.instructions[index].values, "length"),
            scores=self.scores,
            depth=self.depth,
            trips=tuple(self.trips),
            finals=dict(sorted(self.places.items())),
            needed=tuple(sorted(self.needed)),
            executed=self.executed,
            span=_span(sorted(trip.result.constant for trip in self.trips), values["size"]),
            lookups=tuple(self.lookups),
            table=table,
            limit=limit,
        )


_STEPS = {"add": _Walk.add, "multiply": _Walk.multiply, "lookup": _Walk.lookup}


def _checked(place: Place) -> Place:
    """Raises _NotAHeadLoop unless its numbers are small."""
    if abs(place.constant) > MAX_CONSTANT or abs(place.factor) > MAX_FACTOR:
        raise _NotAHeadLoop
    return place


def _number(values: Mapping[str, Any], name: str) -> int:
    """An integer operand; one that is left out is 0, as the table's defaults of `add` are."""
    return values.get(name) or 0


def _check_stages(scores: Mapping[str, Any], softmax: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raises _NotAHeadLoop unless the stages work on the same rows, of the same type, in one buffer."""
    buffers = {scores["dst"], softmax["src"], softmax["dst"], values["src"]}
    windows = {_number(stage, "window") for stage in (scores, softmax, values)}
    rows = {stage["rows"] for stage in (scores, softmax, values)}
    if len(buffers) > 1 or len(windows) > 1 or len(rows) > 1 or scores["type"] != values["type"]:
        raise _NotAHeadLoop


def _span(columns: Sequence[int], size: int) -> int:
    """Columns that the results take in a row, together. Raises _NotAHeadLoop when two of them overlap."""
    if any(after - before < size for before, after in pairwise(columns)):
        raise _NotAHeadLoop
    return columns[-1] + size - columns[0]
