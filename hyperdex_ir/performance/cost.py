"""Cost model: the cycles of an instruction, from the cost rule in its table entry and the target file.

docs/cost.md has the rules in words, generated from the table. The assumptions, each of which is one number of
`targets/*.toml` or one line below:

* Cycles are those of the target's clock. There is no contention except as described here.
* HBM delivers a stripe (one beat of every channel, one tile of a matrix) a cycle, less where its bandwidth is lower;
  the first beat comes `hbm_latency_seconds` after the request. Reading f32 parameters of a norm or a bias, slopes,
  sinks and the settings of sample costs no cycles.
* SMA streams a matrix once for all rows in flight. SXE works on one tile of one row a cycle. Columns finish group by
  group.
* Each sweep of VXE over its elements adds `vector_latency_cycles`. sample counts as a greedy choice.
* Single elements are written into beats until 32 tokens fill one: each such beat takes `partial_write_cycles`.
* ICP takes a cycle for each word, its own or one that it issues to another engine.
* Sending and receiving are independent; a message arrives `link_latency_seconds` after its last word was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, singledispatch
from typing import Any

from hyperdex_ir.isa import cost_rules as rules
from hyperdex_ir.isa.cost_rules import CostRule, Engine
from hyperdex_ir.isa.fields import default_value, is_required
from hyperdex_ir.isa.formats import ITEM_BYTES
from hyperdex_ir.isa.instructions import BY_NAME, Spec
from hyperdex_ir.isa.shapes import positions_seen
from hyperdex_ir.targets import BEAT_BYTES, LANES, Target


@dataclass(frozen=True)
class Cost:
    """Cost of one execution of an instruction.

    engine: the engine that executes it. cycles: time until that engine can start the next instruction. latency: from
    then until the result is available. stripes: number that SMA streams for it (matmul, scores, values). group_cycles:
    cycles after which each further group of `trees` columns of the result is finished; 0 when all are finished at the
    end.
    """

    engine: Engine
    cycles: int
    latency: int = 0
    stripes: int = 0
    group_cycles: int = 0


def instruction_cost(name: str, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    """The cost of instruction `name` for `rows` rows, the first at absolute position `position`.

    values: the operands by name; only immediates and the presence of optional operands count, so they
    may be those of the `isa` dialect or those of a program. The module's docstring has the assumptions.
    """
    spec = BY_NAME[name]
    cost = _cost(spec.cost, values, target, rows, position)
    if cost.engine is Engine.SXE and _has_epilogue(spec, values):
        latency = cost.latency + target.vector_latency_cycles
        return Cost(Engine.SXE, cost.cycles, latency, cost.stripes, cost.group_cycles)
    return cost


def stream_cycles(stripes: int, target: Target) -> int:
    """Cycles that HBM takes to deliver `stripes` stripes."""
    return _divide(stripes * target.stripe_bytes, target.hbm_bytes_per_cycle)


def _divide(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def _has_epilogue(spec: Spec, values: Mapping[str, Any]) -> bool:
    """Test for an epilogue, an operation on the output of the trees."""
    always, optional = _epilogue(spec)
    return always or any(values[name] != nothing for name, nothing in optional)


@cache
def _epilogue(spec: Spec) -> tuple[bool, tuple[tuple[str, Any], ...]]:
    """Test for a part of the epilogue that is always present; and the optional operands with their neutral values."""
    operands = [operand for operand in spec.operands if operand.epilogue]
    return any(map(is_required, operands)), tuple((one.name, default_value(one)) for one in operands)


# ---------------------------------------------------------------------------------------------------- rules
@singledispatch
def _cost(rule: CostRule, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    """Cost by a rule, without the epilogue."""
    raise NotImplementedError(type(rule).__name__)


@_cost.register
def _weights(rule: rules.Weights, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    halves, steps = 1 + values[rule.gated], _divide(values[rule.k], LANES)
    return _matrix(target, rows, _groups(rule, values, target.trees) * steps, steps * halves)


def _groups(rule: rules.Weights, values: Mapping[str, Any], trees: int) -> int:
    """Groups of columns that are streamed; gates at a distance have groups of their own."""
    n, distance = values[rule.n], values[rule.gate_distance] if values[rule.gated] else 0
    if not distance:
        return _divide(n * (1 + values[rule.gated]), trees)
    return _divide(n, trees) + _divide(distance + n, trees) - distance // trees


@_cost.register
def _cache(rule: rules.Cache, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    first, last = positions_seen(position, rows, values[rule.window])
    if rule.transposed:
        group = _divide(last, LANES) - first // LANES
        return _matrix(target, rows, _divide(values[rule.size], target.trees) * group, group)
    group = _divide(values[rule.size], LANES)
    return _matrix(target, rows, (_divide(last, target.trees) - first // target.trees) * group, group)


def _matrix(target: Target, rows: int, stripes: int, group: int) -> Cost:
    """Cost of a matrix of `stripes` stripes, `group` of them for each group of columns."""
    cycles = max(stripes * rows, stream_cycles(stripes, target))
    group_cycles = max(group * rows, stream_cycles(group, target))
    return Cost(Engine.SXE, cycles, target.tree_latency_cycles, stripes, group_cycles)


@_cost.register
def _vector(rule: rules.Vector, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    first, last = rule.elements.span(values, rows, position)
    sweeps = sum(item if isinstance(item, int) else values[item] for item in rule.sweeps)
    sweeps += rule.choice is not None and values[rule.choice] > 1
    work = _divide(last - first, target.vector_lanes) * (1 if rule.last_row else rows)
    cycles = sweeps * work + (sweeps - 1) * target.vector_latency_cycles
    return Cost(Engine.VXE, max(1, cycles), target.vector_latency_cycles)


@_cost.register
def _stored(rule: rules.Stored, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    if not rule.transposed:
        beats = values[rule.heads] * _divide(values[rule.size] * ITEM_BYTES, BEAT_BYTES)
        return Cost(Engine.SMA, beats * rows, target.hbm_latency_cycles)
    full = BEAT_BYTES // ITEM_BYTES
    beats = values[rule.heads] * values[rule.size] * _divide(rows, full)
    cycles = beats * (target.partial_write_cycles if rows < full else 1)
    return Cost(Engine.SMA, cycles, target.hbm_latency_cycles)


@_cost.register
def _rows(rule: rules.Rows, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    columns = values[rule.columns]
    if rule.one_row:
        rows = 1
    elif rule.most_rows is not None:
        rows = min(rows, values[rule.most_rows])
    stripes = stream_cycles(_divide(4 * columns, target.stripe_bytes), target)
    requests = 2 if rule.index is not None and values[rule.index] == "token" else 1  # the token id first, then its row
    cycles = _divide(columns, LANES) if rule.tiled else stripes
    return Cost(Engine.SMA, cycles * rows, target.hbm_latency_cycles * requests)


@_cost.register
def _link(rule: rules.Link, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    if not rule.sends:
        return Cost(Engine.ESL, 0)
    cycles = _divide(4 * values[rule.columns] * rows, target.link_bytes_per_cycle)
    return Cost(Engine.ESL, cycles, target.link_latency_cycles)


@_cost.register
def _control(rule: rules.Control, values: Mapping[str, Any], target: Target, rows: int, position: int) -> Cost:
    return Cost(Engine.ICP, 1 + (target.hbm_latency_cycles if rule.reads_hbm else 0))
