"""`lpu-propagate-sharding`: choice of the part of each value, and of each parameter, that a device computes and holds.

Annotates operations with `lpu.sharding`; no type changes, and the module keeps its meaning. A result without annotation
is whole on every device. Nothing is ever summed across devices:

- Attention is split by blocks of query heads. From there the demand goes back to the projections: queries by the same
  blocks, keys and values by the heads that a device's queries need, which may overlap. A matrix that holds several
  projections gives the parts of all.
- Other matrices and embedding tables are split by blocks of columns of their result.
- Results computed element by element, or head by head, from a sharded value are sharded too. Operands of operations
  across columns (norms, matrices), and arguments and results of functions, stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import (
    SHARDING,
    ShardingAttr,
    block_segment,
    grid_of,
    shape_of,
)
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.passes.sharding_padding import is_harmless
from hyperdex_ir.passes.sharding_rules import (
    block_of,
    cut_segment,
    cuts,
    folded,
    has_tokens,
    kv_sharding,
    operand_shardings,
    result_sharding,
)

Plan = dict[SSAValue, ShardingAttr]


class _Propagation:
    """Decides on the values of one block."""

    def __init__(self, block: Block, devices: int):
        self.block = block
        self.devices = devices
        self.plan: Plan = {}

    def run(self) -> None:
        ops = list(self.block.ops)
        for op in ops:
            if isinstance(op, lpu.AttentionOp):
                self._demand(op)
        for op in ops:
            if len(op.results) > 0 and op.results[0] not in self.plan:
                self._propagate(op)
        for op in ops:
            self._annotate(op)

    # ------------------------------------------------------------------------------------------------ attention
    def _demand(self, op: lpu.AttentionOp) -> None:
        """Shards the heads of an attention; keys and values stay whole when they cannot be sharded so."""
        heads = block_of(op.query, self.devices)
        self.plan[op.res] = heads
        self._try([(op.query, heads)])
        self._try([(op.key, kv_sharding(op, self.devices)), (op.value, kv_sharding(op, self.devices))])

    def _try(self, wanted: list[tuple[SSAValue, ShardingAttr]]) -> bool:
        """Shards values like this, with the values that they are made of, if all of them can be; returns True if so."""
        plan = dict(self.plan)
        if not all(self._supply(value, sharding, plan) for value, sharding in wanted):
            return False
        if not all(self._is_private(value, plan) for value in plan if value not in self.plan):
            return False
        self.plan = plan
        return True

    def _supply(self, value: SSAValue, sharding: ShardingAttr, plan: Plan) -> bool:
        """Adds to the plan the shardings that make the value sharded like this; returns False if that is impossible."""
        if value in plan:
            return plan[value] == sharding
        op = value.owner
        if isinstance(op, Block):
            return False
        if isinstance(op, lpu.WeightOp):
            return len(op.keys) == 1
        if not has_tokens(value) and not value.has_one_use():
            return False
        if isinstance(op, lpu.SliceOp) and (linear := _cut_out_of(op)) is not None:
            plan[value] = sharding
            return self._cut(linear, dict(plan))
        return self._supply_operands(op, sharding, plan)

    def _supply_operands(self, op: Operation, sharding: ShardingAttr, plan: Plan) -> bool:
        operands = operand_shardings(op, sharding)
        if operands is None or not is_harmless(op, sharding):
            return False
        plan[op.results[0]] = sharding
        for operand, needed in zip(op.operands, operands, strict=True):
            if needed is None:
                continue
            trial = dict(plan)
            if self._supply(operand, needed, trial):
                plan.update(trial)
            elif not (_can_be_whole(operand, plan) and needed.is_block):
                return False
        return True

    def _is_private(self, value: SSAValue, plan: Plan) -> bool:
        """Test that the value is sharded in blocks, so that other users can have it whole, or that it has no other
        users."""
        if plan[value].is_block:
            return True
        users = [use.operation for use in value.uses]
        return all(isinstance(op, lpu.AttentionOp) or (op.results and op.results[0] in plan) for op in users)

    # ------------------------------------------------------------------------------------------------ everything else
    def _propagate(self, op: Operation) -> None:
        """Shards an operation that begins a sharded chain, or that follows from one."""
        value = op.results[0]
        if isinstance(op, lpu.LinearOp) and _is_cut_up(op) and self._cut(op, plan := dict(self.plan)):
            self.plan = plan
        elif isinstance(op, lpu.ExpertLinearOp) or (
            isinstance(op, lpu.LinearOp | lpu.EmbeddingOp) and len(shape_of(value)) == 2
        ):
            self._try([(value, block_of(value, self.devices))])
        else:
            for sharding in self._candidates(op):
                if self._try([(value, sharding)]):
                    return

    def _cut(self, op: lpu.LinearOp, plan: Plan) -> bool:
        """Plans a matrix whose result is cut up, so that each device computes its part of every cut; returns True if
        possible."""
        slices = cuts(op)
        for one in slices:
            plan.setdefault(one.res, _block_of_cut(one, self.devices))
        segments = [cut_segment(one, plan[one.res]) for one in slices]
        values: list[SSAValue] = [op.res, *(between for one in slices for between in _between(one))]
        for value in values:
            if (sharding := folded(segments, shape_of(value))) is None:
                return False
            plan[value] = sharding
        return all(plan[one.x].dim == one.bounds[0] for one in slices)

    def _candidates(self, op: Operation) -> Iterator[ShardingAttr]:
        """Shardings of the result that follow from a sharded operand."""
        for number, operand in enumerate(op.operands):
            sharding = self.plan.get(operand)
            if sharding is None or not sharding.is_block:
                continue
            if (found := result_sharding(op, number, sharding)) is not None:
                yield found

    # ------------------------------------------------------------------------------------------------ the result
    def _annotate(self, op: Operation) -> None:
        if not op.results or (sharding := self.plan.get(op.results[0])) is None:
            return
        op.attributes[SHARDING] = sharding
        for number, needed in enumerate(operand_shardings(op, sharding) or ()):
            if needed is not None and isinstance(weight := op.operands[number].owner, lpu.WeightOp):
                op.operands[number] = _sharded(weight, needed)


def _can_be_whole(value: SSAValue, plan: Plan) -> bool:
    """Test that a device can select its block of the whole value."""
    return has_tokens(value) and (value not in plan or plan[value].is_block)


def _is_cut_up(op: lpu.LinearOp) -> bool:
    """Test that the result is cut into slices and has no other use, and that the parameters can be sharded to fit."""
    parameters = [value.owner for value in (op.weight, op.bias) if value is not None]
    plain = all(isinstance(one, lpu.WeightOp) and len(one.keys) == 1 for one in parameters)
    has_more = any(part is not None for part in (op.times, op.plus, op.gated))
    return plain and not has_more and len(shape_of(op.res)) == 2 and bool(cuts(op))


def _cut_out_of(op: lpu.SliceOp) -> lpu.LinearOp | None:
    """The matrix from whose result the slice is cut."""
    owner = (_between(op) or [op.x])[-1].owner
    linear = owner.x.owner if isinstance(owner, lpu.ReshapeOp) else owner
    return linear if isinstance(linear, lpu.LinearOp) and _is_cut_up(linear) and op in cuts(linear) else None


def _between(op: lpu.SliceOp) -> list[SSAValue]:
    """The reshaped forms of a matrix's result that a slice is cut out of, the last first."""
    found: list[SSAValue] = []
    value = op.x
    while isinstance(value.owner, lpu.ReshapeOp):
        found.append(value)
        value = value.owner.x
    return found


def _block_of_cut(op: lpu.SliceOp, devices: int) -> ShardingAttr:
    dim = op.bounds[0]
    return ShardingAttr(dim, [block_segment(shape_of(op.res)[dim], devices)])


def _sharded(weight: lpu.WeightOp, sharding: ShardingAttr) -> SSAValue:
    """The parameter with this sharding: a tensor that is used in several ways has several weight operations."""
    block = weight.parent
    known = weight.attributes.get(SHARDING)
    if known is None and weight.res.has_one_use():
        weight.attributes[SHARDING] = sharding
        return weight.res
    if known == sharding:
        return weight.res
    following = weight.next_op
    if isinstance(following, lpu.WeightOp) and following.keys == weight.keys:
        return _sharded(following, sharding)
    again = weight.clone()
    again.attributes[SHARDING] = sharding
    again.res.name_hint = weight.res.name_hint
    assert block is not None
    block.insert_op_after(again, weight)
    return again.res


def _is_sharded(op: Operation) -> bool:
    has_shards = isinstance(op, lpu.WeightOp) and op.shards is not None
    return has_shards or isinstance(op, lpu.AllGatherOp | lpu.SelectColumnsOp) or SHARDING in op.attributes


@dataclass(frozen=True)
class LpuPropagateShardingPass(ModulePass):
    """Annotates what each device computes and holds, when the module is for several (`lpu.grid`)"""

    name = "lpu-propagate-sharding"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if any(_is_sharded(one) for one in op.walk()):
            raise LoweringError("the module is sharded already", "a pipeline shards once")
        devices = grid_of(op)
        if devices == 1:
            return
        for function in op.ops:
            if isinstance(function, FuncOp) and not function.is_declaration:
                _Propagation(function.body.block, devices).run()
