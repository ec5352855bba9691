"""Facts that `hyperdex inspect` shows about a compiled model, from its program and memory map alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.cost_rules import Engine
from hyperdex_ir.isa.instructions import ZERO, Flow, Group
from hyperdex_ir.isa.operands import HbmRef, Holds
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.isa.structure import function_starts
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.memory.map import FunctionMap, MemoryMap
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.performance.estimate import Estimate, estimate
from hyperdex_ir.performance.parameter_stats import divide_parameters
from hyperdex_ir.performance.scoreboard import Budget

_CONTEXTS = (1, 128, 512, 2048, 8192, 32768)
#: Limit for the work of all estimates together, in units of the limit for one.
_ESTIMATES = 2
#: Limit for the number of live ranges of words that are added up, over all instructions.
_MOST_STRETCHES = 10_000_000


def inspect_program(
    program: Program,
    memory: MemoryMap,
    facts: ProgramFacts,
    layout: ModelLayout | None,
    num_device: int,
    name: str,
) -> dict[str, Any]:
    """The facts of `inspect_model`. layout: the layout of one device, when there are several."""
    chunk, rows = facts.chunk, facts.head_rows
    tokens = min(chunk, memory.max_length)
    budget = Budget(_ESTIMATES)
    prefill = estimate(
        program,
        memory.target,
        tokens=tokens,
        position=memory.max_length - tokens,
        head_rows=min(rows, tokens),
        budget=budget,
    )
    functions = _functions(program, prefill)
    divided = {} if layout is None else {"division": _division(layout, memory, num_device)}
    return {
        "model": {"name": name, "target": memory.target.name, "devices": num_device}
        | {key: getattr(facts, key) for key in ("matrix_type", "chunk", "head_rows", "max_length", "vocab_size")}
        | {"instructions": len(program.instructions)},
        "functions": [_count(program, function) for function in functions],
        "memory": _memory(program, memory, functions),
        **divided,
        "lmu": _lmu(program, memory, facts.lmu_words, functions, prefill),
        "decode": [_decode(program, memory, context, num_device, budget) for context in _contexts(memory.max_length)],
    }


# ---------------------------------------------------------------------------------------------------- functions
def _functions(program: Program, run: Estimate) -> list[dict[str, Any]]:
    """The functions with their instructions start..stop-1 and their number of runs in a step, @main first."""
    starts = function_starts(program.instructions)
    stops = [*starts[1:], len(program.instructions)]
    return [
        {"name": program.origins[start].function, "start": start, "stop": stop, "runs": run.executed[stop - 1]}
        for start, stop in zip(starts, stops, strict=True)
    ]


def _count(program: Program, function: dict[str, Any]) -> dict[str, Any]:
    """Instructions of a function, by engine and by group."""
    items = program.instructions[function["start"] : function["stop"]]
    engines = {str(engine): sum(item.spec.engine is engine for item in items) for engine in Engine}
    groups = {str(group): sum(item.spec.group is group for item in items) for group in Group}
    counts = {"engines": engines, "groups": groups}
    return {"name": function["name"], "runs": function["runs"], "instructions": len(items), **counts}


# ---------------------------------------------------------------------------------------------------- HBM
def _memory(program: Program, memory: MemoryMap, functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Bytes by region, in total and of one channel."""
    runs = {function["name"]: function["runs"] for function in functions}
    kinds, known = {kind.value: 0 for kind in Holds}, _kinds(program)
    for name, part in (("main", memory.main), *memory.functions.items()):
        for parameter, size in _sizes(part).items():
            found = known.get((name, part.parameters[parameter]), set())
            kinds[next((kind for kind in Holds if kind in found), Holds.VECTOR).value] += size * runs.get(name, 1)
    kv_bytes = memory.tokens - memory.kv_start
    regions = {**kinds, "kv_cache": kv_bytes, "input_output": memory.end - memory.tokens}
    channels = memory.target.channels
    return {
        "regions": regions,
        "used": memory.end,
        "capacity": memory.target.hbm_bytes,
        "channels": channels,
        "per_channel": {name: size // channels for name, size in regions.items()},
    }


def _sizes(part: FunctionMap) -> dict[str, int]:
    """Bytes of each parameter of a function, from the offsets of their starts."""
    if not part.parameters:
        return {}
    names = sorted(part.parameters, key=lambda name: part.parameters[name])
    starts = [part.parameters[name] for name in names]
    stops = [*starts[1:], starts[0] + part.parameter_bytes]
    return {name: stop - start for name, start, stop in zip(names, starts, stops, strict=True)}


def _kinds(program: Program) -> dict[tuple[str, int], set[Holds]]:
    """Uses of parameters by instructions, by function and offset in its block."""
    found: dict[tuple[str, int], set[Holds]] = {}
    for item, origin in zip(program.instructions, program.origins, strict=True):
        for operand in item.spec.hbm:
            value = item.values[operand.name]
            if isinstance(value, HbmRef) and operand.holds is not None:
                home = "main" if value.register == ZERO else origin.function
                found.setdefault((home, value.offset), set()).add(operand.holds)
    return found


def _division(layout: ModelLayout, memory: MemoryMap, num_device: int) -> dict[str, int]:
    """The terms of the division over devices; see `parameter_stats.py`."""
    division = divide_parameters(layout, memory, num_device)
    return {**asdict(division), "replication": division.replication, "padding": division.padding}


# ---------------------------------------------------------------------------------------------------- LMU
def _lmu(
    program: Program, memory: MemoryMap, words: int, functions: Sequence[dict[str, Any]], run: Estimate
) -> dict[str, Any]:
    """Live words at every instruction, for the greatest possible number of tokens in flight.

    A word is live between its first and last use in a function, and while a callee runs, if it is live at the call.
    """
    lives = {function["start"]: _lives(program.instructions, function, run) for function in functions}
    outer: dict[int, dict[tuple[int, int], None]] = {function["start"]: {} for function in functions}
    uses: dict[int, list[int]] = {}
    looked = 0
    for function in functions:  # main first; callees follow their callers or are reached again through them
        looked = _collect(program.instructions, function, lives[function["start"]], outer, uses, looked)
    parts = []
    peak, place = 0, 0
    for function in functions:
        used = uses[function["start"]]
        top = max(range(len(used)), key=lambda number: (used[number], -number))
        parts.append({"name": function["name"], "used": used})
        if used[top] > peak:
            peak, place = used[top], function["start"] + top
    origin = program.origins[place]
    where = {"function": origin.function, "instruction": program.instructions[place].name, "path": origin.module_path}
    return {
        "capacity": memory.target.lmu_words,
        "allocated": words,
        "peak": {"words": peak, **where},
        "functions": parts,
    }


def _lives(code: Sequence[Instruction], function: dict[str, Any], run: Estimate) -> list[tuple[int, int, int, int]]:
    """Live ranges, (first use, last use, low, high); words used in a repeat are live throughout it."""
    start, stop = function["start"], function["stop"]
    outermost: dict[int, tuple[int, int]] = {}
    for index in range(start, stop):
        if code[index].spec.flow is Flow.LOOP and index not in outermost:
            length = code[index]["length"]
            assert isinstance(length, int)
            outermost |= dict.fromkeys(range(index, index + 1 + length), (index, index + length))
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for index in range(start, stop):
        first, last = outermost.get(index, (index, index))
        for footprint in run.touched.get(index, []):
            key = (footprint.low, footprint.end)
            known = found.get(key, (first, last))
            found[key] = (min(known[0], first), max(known[1], last))
    return [(first, last, low, high) for (low, high), (first, last) in found.items()]


def _collect(
    code: Sequence[Instruction],
    function: dict[str, Any],
    lives: Sequence[tuple[int, int, int, int]],
    outer: dict[int, dict[tuple[int, int], None]],
    uses: dict[int, list[int]],
    looked: int,
) -> int:
    """Adds the live words of a function to `uses`, and the words that are live during its calls to `outer`.

    looked: number of live ranges added up so far; returned with those of this function.
    """
    start, stop = function["start"], function["stop"]
    begins: dict[int, list[tuple[int, int, int, int]]] = {}
    for life in lives:
        begins.setdefault(life[0], []).append(life)
    alive: list[tuple[int, int, int, int]] = []
    used = uses[start] = []
    for index in range(start, stop):
        alive = [life for life in alive if index <= life[1]] + begins.get(index, [])
        looked += len(alive) + len(outer[start])
        if looked > _MOST_STRETCHES:
            raise FileFormatError(f"{looked} stretches of the LMU in use: too many to add up", COMPILE_AGAIN)
        stretches = [(low, high) for _, _, low, high in alive]
        used.append(_union([*stretches, *outer[start]]))
        target = code[index]["target"] if code[index].spec.flow is Flow.CALL else None
        if isinstance(target, int):
            outer[target] |= dict.fromkeys(stretches)
    return looked


def _union(stretches: Iterable[tuple[int, int]]) -> int:
    """Number of words in at least one of the stretches."""
    total = end = 0
    for low, high in sorted(stretches):
        total += max(0, high - max(low, end))
        end = max(end, high)
    return total


# ---------------------------------------------------------------------------------------------------- time
def _contexts(max_length: int) -> list[int]:
    """Sample of context lengths up to the longest."""
    return sorted({*(length for length in _CONTEXTS if length < max_length), max_length})


def _decode(program: Program, memory: MemoryMap, context: int, num_device: int, budget: Budget) -> dict[str, Any]:
    """The estimate of one token with `context` positions of context, its own included."""
    target = memory.target
    run = estimate(program, target, position=context - 1, budget=budget)
    streamed = (run.weight_stripes + run.cache_stripes) * target.stripe_bytes
    seconds = run.cycles / target.clock_hz
    links: dict[str, int] = {}
    if num_device > 1:
        waiting = estimate(program, target, position=context - 1, overlap=False, budget=budget)
        links = {"link_bytes": run.link_bytes, "cycles_without_overlap": waiting.cycles}
    return {
        "context": context,
        "cycles": run.cycles,
        "tokens_per_second": round(1 / seconds, 2),
        "weight_share": round(run.weight_stripes * target.stripe_bytes / (run.cycles * target.hbm_bytes_per_cycle), 4),
        "kv_share": round(run.cache_stripes * target.stripe_bytes / (run.cycles * target.hbm_bytes_per_cycle), 4),
        "bytes_per_second": round(streamed / seconds),
        "busy": {str(engine): round(cycles / run.cycles, 4) for engine, cycles in run.busy.items()},
        **links,
    }


def bar(values: Sequence[int], capacity: int, width: int = 48) -> str:
    """Row of block characters for the values; the full block stands for the capacity.

    Neighbouring values share a block when there are more than `width` of them.
    """
    count = min(width, len(values))
    edges = [number * len(values) // count for number in range(count + 1)]
    highest = [max(values[a:b]) for a, b in pairwise(edges)]
    return "".join(" ▁▂▃▄▅▆▇█"[-(-value * 8 // capacity)] for value in highest)
