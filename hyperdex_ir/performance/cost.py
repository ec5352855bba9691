"""How long an instruction takes: the cost model, one function of the target file.

The assumptions, each of which is one number of `targets/*.toml` or one line below:

* Cycles are those of the target's clock. There is no contention but for what is said here.
* HBM delivers a stripe (one beat of every channel, one tile of a matrix) a cycle, less where its bandwidth is lower;
  the first beat comes `hbm_latency_seconds` after the request. f32 parameters of a norm or a bias, slopes and sinks
  come for nothing.
* SMA streams a matrix once for all rows in flight. SXE works on one tile of one row a cycle: a matrix of g groups of
  `trees` columns and s steps of 64 lanes takes g * s * rows cycles; a result is there `tree_latency_cycles` after its
  last tile, `vector_latency_cycles` later where there is an epilogue. Columns finish group by group.
* scores streams the keys of the positions seen, values their values; a tile a cycle and row as for a matrix.
* VXE works on `vector_lanes` elements a cycle. Each pass over them adds `vector_latency_cycles`: softmax and layer_norm
  take three passes, rms_norm two, top_k one for each number that it chooses and one for its groups, short_conv one a
  tap, all else one: sample as for a greedy choice, its settings come for nothing.
* Rows of embed are in one pair of channels each: a step a cycle. gather, load, store and store_state take a stripe a
  cycle.
* store_key writes a beat a cycle. store_value writes single elements into beats until 32 tokens fill one: each such
  beat takes `partial_write_cycles`.
* ICP takes a cycle for each word, its own or handed to another engine; lookup waits for HBM.
* ESL sends `link_bytes_per_second`; a message is there `link_latency_seconds` after its last word has left. Sending and
  receiving are independent. A receive takes nothing itself: it is over when its message is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperdex_ir.isa.formats import ITEM_BYTES
from hyperdex_ir.isa.instructions import BY_NAME, Engine
from hyperdex_ir.targets import BEAT_BYTES, LANES, Target

_PASSES = {"softmax": 3, "layer_norm": 3, "rms_norm": 2}


@dataclass(frozen=True)
class Cost:
    """What one execution of an instruction takes.

    engine: the engine that executes it. cycles: how long it keeps that engine from the next instruction. latency: from
    then until its result is there. stripes: what SMA streams for it (matmul, scores, values). group_cycles: cycles
    after which each further group of `trees` columns of the result is finished; 0 when all are finished at the end.
    """

    engine: Engine
    cycles: int
    latency: int = 0
    stripes: int = 0
    group_cycles: int = 0


def instruction_cost(name: str, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    """The cost of instruction `name` for `rows` rows, the first at absolute position `position`.

    values: the operands by name; only immediates and the presence of optional operands count, so those of the `isa`
    dialect will do as well as those of a program. The module's docstring has the assumptions.
    """
    engine = BY_NAME[name].engine
    if engine is Engine.SXE:
        return _matrix(name, values, target, rows, position)
    if engine is Engine.VXE:
        return _vector(name, values, target, rows, position)
    if engine is Engine.SMA:
        return _transfer(name, values, target, rows)
    if name == "send":
        cycles = _divide(4 * values["columns"] * rows, target.link_bytes_per_cycle)
        return Cost(engine, cycles, target.link_latency_cycles)
    if name == "receive":
        return Cost(engine, 0)
    return Cost(engine, 1 + (target.hbm_latency_cycles if name == "lookup" else 0))


def positions_seen(position: int, rows: int, window: int) -> tuple[int, int]:
    """First and last (excluded) of the positions that `rows` rows see, the first row at `position`."""
    return (max(0, position + 1 - window) if window else 0), position + rows


def stream_cycles(stripes: int, target: Target) -> int:
    """Cycles that HBM takes to deliver that many stripes."""
    return _divide(stripes * target.stripe_bytes, target.hbm_bytes_per_cycle)


def _divide(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def _matrix(name: str, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    latency = target.tree_latency_cycles
    if name == "matmul":
        halves = 1 + values["gated"]
        steps = _divide(values["k"], LANES)
        stripes = _groups(values, target.trees) * steps
        group = steps * halves
    else:
        first, last = positions_seen(position, rows, values["window"])
        if name == "scores":
            group = _divide(values["size"], LANES)
            stripes = (_divide(last, target.trees) - first // target.trees) * group
        else:
            group = _divide(last, LANES) - first // LANES
            stripes = _divide(values["size"], target.trees) * group
    if name == "scores" or (name == "matmul" and has_epilogue(values)):
        latency += target.vector_latency_cycles
    cycles = max(stripes * rows, stream_cycles(stripes, target))
    return Cost(Engine.SXE, cycles, latency, stripes, max(group * rows, stream_cycles(group, target)))


def _groups(values: Mapping[str, Any], trees: int) -> int:
    """Groups of columns that a matmul streams; gates that are further away have groups of their own."""
    n, distance = values["n"], values["gate_distance"] if values["gated"] else 0
    if not distance:
        return _divide(n * (1 + values["gated"]), trees)
    return _divide(n, trees) + _divide(distance + n, trees) - distance // trees


def has_epilogue(values: Mapping[str, Any]) -> bool:
    """Whether a matmul does anything to what comes out of the trees."""
    present = any(values[name] is not None for name in ("bias", "times", "plus")) or bool(values["gated"])
    return present or values["scale"] != 1.0 or bool(values["softcap"]) or values["activation"] != "none"


def _passes(name: str, values: Mapping[str, int]) -> int:
    """How often a vector instruction goes over its elements."""
    if name == "top_k":
        return values["k"] + (values["groups"] > 1)
    return values["history"] + 1 if name == "short_conv" else _PASSES.get(name, 1)


def _vector(name: str, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    if name == "softmax":
        first, last = positions_seen(position, rows, values["window"])
        elements = last - first
    else:
        elements = values["columns"] * (1 if name == "top_k" else values.get("groups", 1))
    if name == "sample":
        rows = 1  # the last one
    passes = _passes(name, values)
    cycles = passes * _divide(elements, target.vector_lanes) * rows + (passes - 1) * target.vector_latency_cycles
    return Cost(Engine.VXE, max(1, cycles), target.vector_latency_cycles)


def _transfer(name: str, values: Mapping[str, Any], target: Target, rows: int) -> Cost:
    latency = target.hbm_latency_cycles
    if name == "store_key":
        return Cost(Engine.SMA, values["heads"] * _divide(values["size"] * ITEM_BYTES, BEAT_BYTES) * rows, latency)
    if name == "store_value":
        full = BEAT_BYTES // ITEM_BYTES
        beats = values["heads"] * values["size"] * _divide(rows, full)
        return Cost(Engine.SMA, beats * (target.partial_write_cycles if rows < full else 1), latency)
    if name == "embed":
        return Cost(Engine.SMA, _divide(values["columns"], LANES) * rows, latency * _requests(values))
    rows = 1 if name == "load" else min(rows, values["history"]) if name == "store_state" else rows
    latency *= _requests(values)
    return Cost(Engine.SMA, stream_cycles(_divide(4 * values["columns"], target.stripe_bytes), target) * rows, latency)


def _requests(values: Mapping[str, Any]) -> int:
    """A token id has to be fetched before its row is."""
    return 2 if values.get("index") == "token" else 1
