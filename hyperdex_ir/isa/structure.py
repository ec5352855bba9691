"""Structure that a program must have, beyond being a row of valid instructions.

A program is a row of functions: stretches that end in halt or ret and hold neither before. The first one is the entry
and ends in halt. A call goes to the start of a function that does not call the caller back, directly or through others.
Repeats run at least once; repeats and skips have bodies, nest, and stay within their function. Bodies and calls
together, along any path, nest at most `MAX_DEPTH` deep, and there are at most `MAX_INSTRUCTIONS`: these limits bound
the time of every analysis of a program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperdex_ir.isa.instructions import SPECS, Flow, Spec
from hyperdex_ir.isa.program import Instruction

ENDS = tuple(spec.name for spec in SPECS if spec.flow in (Flow.END, Flow.RETURN))
#: Their operand `length` counts the instructions of the body that follows.
BODIES = tuple(spec.name for spec in SPECS if spec.flow in (Flow.LOOP, Flow.SKIP))
#: Most bodies and calls inside each other. The machines have room for as many repeats and calls that run at once.
MAX_DEPTH = 16
#: Most instructions. The program of a model of a hundred layers, each of its own, has a fifth of that.
MAX_INSTRUCTIONS = 1 << 16


class StructureError(ValueError):
    """A broken rule of program structure, and the instruction that breaks it."""

    def __init__(self, index: int, message: str):
        super().__init__(message)
        self.index = index


def function_starts(instructions: Sequence[Instruction]) -> tuple[int, ...]:
    """Index of the first instruction of each function, the entry's first."""
    ends = [index for index, instruction in enumerate(instructions) if instruction.name in ENDS]
    return (0, *(index + 1 for index in ends if index + 1 < len(instructions)))


def check_structure(instructions: Sequence[Instruction]) -> None:
    """Raises StructureError at the first instruction that breaks the rules."""
    if not instructions:
        raise StructureError(0, "the program is empty")
    if len(instructions) > MAX_INSTRUCTIONS:
        raise StructureError(
            MAX_INSTRUCTIONS, f"the program has {len(instructions)} instructions, the most is {MAX_INSTRUCTIONS}"
        )
    _check_ends(instructions)
    starts = function_starts(instructions)
    calls: dict[int, list[_Call]] = {start: [] for start in starts}
    depths = dict.fromkeys(starts, 0)  # depth of the bodies in each function
    function = 0
    bodies: list[tuple[int, str]] = []  # end of each open body and the name of its instruction, outermost first
    for index, instruction in enumerate(instructions):
        if index in calls:
            function = index
        while bodies and bodies[-1][0] == index:
            bodies.pop()
        if instruction.name in ENDS and bodies:
            end, owner = bodies[-1]
            raise StructureError(index, f"{instruction.name} inside the body of a {owner}, which ends at {end}")
        if instruction.name in BODIES:
            limit = bodies[-1][0] if bodies else len(instructions)
            bodies.append((_body_end(index, instruction, limit), instruction.name))
            depths[function] = max(depths[function], len(bodies))
            _check_depth(index, len(bodies))
        if instruction.spec.flow is Flow.CALL:
            calls[function].append(_Call(index, _target(index, instruction, calls), len(bodies)))
    _check_calls(calls, depths)


@dataclass(frozen=True)
class _Call:
    """A call: the instruction's index, its target, and the number of bodies around it."""

    index: int
    target: int
    depth: int


def fewest_executed(instructions: Sequence[Instruction]) -> int:
    """Fewest instructions that a step of a valid program executes: bodies of `skip_unless` are skipped, and one row is
    in flight."""
    starts = function_starts(instructions)
    stops = dict(zip(starts, [*starts[1:], len(instructions)], strict=True))
    fewest: dict[int, int] = {}

    def of_function(start: int) -> int:
        if start not in fewest:
            fewest[start] = of_block(start, stops[start])
        return fewest[start]

    def of_block(index: int, stop: int) -> int:
        total = 0
        while index < stop:
            item = instructions[index]
            length = _integer(item, "length") if item.name in BODIES else 0
            body = of_block(index + 1, index + 1 + length) if item.spec.flow is Flow.LOOP else 0
            total += 1 + body * (_integer(item, "count") if _is_counted(item.spec) else 1)
            total += of_function(_integer(item, "target")) if item.spec.flow is Flow.CALL else 0
            index += 1 + length
        return total

    return of_function(0)


def _check_ends(instructions: Sequence[Instruction]) -> None:
    last = len(instructions) - 1
    if instructions[last].name not in ENDS:
        raise StructureError(last, f"the program ends in {instructions[last].name}, must end in halt or ret")
    first_end = next(index for index, instruction in enumerate(instructions) if instruction.name in ENDS)
    if instructions[first_end].spec.flow is not Flow.END:
        raise StructureError(first_end, "ret before any halt: the entry is not called, so it must end in halt")


def _integer(instruction: Instruction, name: str) -> int:
    value = instruction[name]
    assert isinstance(value, int)  # encode and decode have checked it
    return value


def _is_counted(spec: Spec) -> bool:
    """Test for a loop whose number of trips stands in the instruction."""
    return spec.flow is Flow.LOOP and not spec.has_rows


def _body_end(index: int, instruction: Instruction, limit: int) -> int:
    name, length = instruction.name, _integer(instruction, "length")
    count = _integer(instruction, "count") if _is_counted(instruction.spec) else None
    if count is not None and (count < 1 or length < 1):
        raise StructureError(index, f"{name} of {length} instructions, {count} times: both must be at least 1")
    if length < 1:
        raise StructureError(index, f"{name} over {length} instructions: there must be at least 1")
    end = index + 1 + length
    if end > limit:
        raise StructureError(index, f"the body of the {name} ends at {end}, must not go beyond {limit}")
    return end


def _target(index: int, instruction: Instruction, functions: Mapping[int, object]) -> int:
    target = _integer(instruction, "target")
    if target not in functions:
        raise StructureError(index, f"call of {target}, where no function starts")
    return target


def _check_depth(index: int, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise StructureError(index, f"repeats, skips and calls nested {depth} deep, the most is {MAX_DEPTH}")


def _check_calls(calls: Mapping[int, Sequence[_Call]], depths: dict[int, int]) -> None:
    """Removes functions that call none of those left, until none can be removed; functions that remain then call
    themselves.

    depths: nesting depth of each function, on entry without its calls, on return with them.
    """
    waiting = {function: dict.fromkeys(call.target for call in some) for function, some in calls.items()}
    callers: dict[int, list[int]] = {function: [] for function in calls}
    for function, targets in waiting.items():
        for target in targets:
            callers[target].append(function)
    ready = [function for function, targets in waiting.items() if not targets]
    while ready:
        finished = ready.pop()
        del waiting[finished]
        for call in calls[finished]:
            depths[finished] = max(depths[finished], call.depth + 1 + depths[call.target])
            _check_depth(call.index, depths[finished])
        for caller in callers[finished]:
            del waiting[caller][finished]
            if not waiting[caller]:
                ready.append(caller)
    if waiting:
        raise StructureError(min(waiting), "the function calls itself, by way of others or not")
