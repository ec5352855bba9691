"""`lpu-partition`: conversion of a module with shardings to the module that every device runs.

Types become those of a device's part, parameters carry their shards, attention finds its KV heads among those of the
device. A sharded value that is needed whole is gathered as soon as it is made; where a part of a whole value is needed,
the device selects its columns. Values pass from layer to layer whole, whether layers are functions or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DenseArrayBase,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.grid import check_grid
from hyperdex_ir.dialects.lpu import SHARDING, ShardingAttr, element_of, grid_of, shape_of, sharding_of
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.passes.outlining.match import find_stack
from hyperdex_ir.passes.sharding_rules import (
    Operands,
    block_of,
    cut_segment,
    flat_segments,
    has_tokens,
    kv_head_table,
    kv_sharding,
    local_shape,
    operand_shardings,
)
from hyperdex_ir.support.xdsl import module_path


@dataclass(frozen=True)
class _Plan:
    """Plan for one operation, decided while all types are still those of whole values.

    sharding: that of its first result; needed: those of its operands. None: whole.
    """

    op: Operation
    sharding: ShardingAttr | None
    needed: Operands
    shape: tuple[int, ...]  # shape of a device's part of the first result
    properties: dict[str, Attribute]


def _error(op: Operation, reason: str) -> LoweringError:
    path = module_path(op)
    return LoweringError(f"{op.name}{f' at {path}' if path else ''}: {reason}")


# ---------------------------------------------------------------------------------------------------- decisions
def _decide(op: Operation) -> _Plan:
    sharding = sharding_of(op)
    if sharding is None:
        return _Plan(op, None, [None] * len(op.operands), (), {})
    needed, properties = _needed(op, sharding)
    return _Plan(op, sharding, needed, local_shape(op.results[0], sharding), properties)


def _needed(op: Operation, sharding: ShardingAttr) -> tuple[Operands, dict[str, Attribute]]:
    """Shardings that the operands must have, and the properties that differ on a device."""
    if isinstance(op, lpu.WeightOp):
        return [], _shards(op, sharding)
    if isinstance(op, lpu.SliceOp) and (whole := _sharding_of(op.x)) is not None and whole.dim == op.bounds[0]:
        return _cut(op, sharding, whole)
    if isinstance(op, lpu.AttentionOp):
        return _attention(op, sharding)
    needed = operand_shardings(op, sharding)
    if needed is None:
        raise _error(op, "cannot be computed in parts like this")
    return needed, {}


def _shards(op: lpu.WeightOp, sharding: ShardingAttr) -> dict[str, Attribute]:
    if len(op.keys) != 1:
        raise _error(op, "only the parameter of a single key can be sharded")
    shards = [ShardingAttr(sharding.dim, [segment]) for segment in sharding.segments]
    return {"keys": ArrayAttr(op.keys.data * len(shards)), "shards": ArrayAttr(shards)}


def _cut(op: lpu.SliceOp, sharding: ShardingAttr, whole: ShardingAttr) -> tuple[Operands, dict[str, Attribute]]:
    """Slice of one of the segments of a matrix's result."""
    segments = flat_segments(op.x, whole)
    if cut_segment(op, sharding) not in segments:
        raise _error(op, "is not a segment of what it is cut out of")
    place = segments.index(cut_segment(op, sharding))
    start = sum(segment.size for segment in whole.segments[:place])
    stop = start + whole.segments[place].size
    return [whole], {"start": IntegerAttr(start, 64), "stop": IntegerAttr(stop, 64)}


def _attention(op: lpu.AttentionOp, sharding: ShardingAttr) -> tuple[Operands, dict[str, Attribute]]:
    if sharding != block_of(op.query, sharding.devices):
        raise _error(op, "query heads are sharded by blocks")
    wanted = kv_sharding(op, sharding.devices)
    is_local = wanted.is_block or _sharding_of(op.key) == _sharding_of(op.value) == wanted
    (segment,) = wanted.segments
    groups = segment.extent
    starts, held = (segment.starts, segment.size) if is_local else ((0,) * sharding.devices, groups)
    table = kv_head_table(op, starts, held)
    properties: dict[str, Attribute] = {}
    if table is not None:
        properties["kv_heads_key"] = StringAttr(
            f"kv_heads.{shape_of(op.query)[1]}.{groups}" + ("" if is_local else ".all")
        )
        properties["kv_heads"] = DenseArrayBase.from_list(i64, table)
    parameters = (operand_shardings(op, sharding) or [])[3:]
    return [sharding, *[wanted if is_local else None] * 2, *parameters], properties


def _sharding_of(value: SSAValue) -> ShardingAttr | None:
    return sharding_of(value.owner) if isinstance(value.owner, Operation) else None


# ---------------------------------------------------------------------------------------------------- rewriting
class _Partition:
    """Rewrites one block in place."""

    def __init__(self, block: Block, devices: int):
        self.block = block
        self.devices = devices
        self.stack = find_stack(block)
        self.shardings: dict[SSAValue, ShardingAttr] = {}
        self.shapes: dict[SSAValue, tuple[int, ...]] = {}  # whole shapes of sharded values
        self.whole: dict[SSAValue, SSAValue] = {}
        self.parts: dict[tuple[SSAValue, ShardingAttr], SSAValue] = {}

    def run(self) -> None:
        plans = [_decide(op) for op in self.block.ops]
        for plan in plans:
            for number, needed in enumerate(plan.needed):
                plan.op.operands[number] = self._converted(plan.op.operands[number], needed, plan.op)
            if plan.sharding is not None:
                self._localize(plan, plan.sharding)

    def _localize(self, plan: _Plan, sharding: ShardingAttr) -> None:
        op, value = plan.op, plan.op.results[0]
        del op.attributes[SHARDING]
        op.properties.update(plan.properties)
        self.shapes[value] = shape_of(value)
        local = Rewriter.replace_value_with_new_type(value, TensorType(element_of(value), plan.shape))
        self.shapes[local] = self.shapes.pop(value)
        self.shardings[local] = sharding

    # ------------------------------------------------------------------------------------------------ collectives
    def _converted(self, value: SSAValue, needed: ShardingAttr | None, user: Operation) -> SSAValue:
        """The value in the form that a user needs."""
        found = self.shardings.get(value)
        if found == needed and not (found is not None and self._changes_layer(value, user)):
            return value
        whole = value if found is None else self._gathered(value, found)
        return whole if needed is None else self._selected(whole, needed, user)

    def _changes_layer(self, value: SSAValue, user: Operation) -> bool:
        if self.stack is None or isinstance(value.owner, Block) or not has_tokens(value):
            return False
        return self.stack.number_of(value.owner) != self.stack.number_of(user)

    def _gathered(self, value: SSAValue, sharding: ShardingAttr) -> SSAValue:
        """The whole value, gathered right behind the operation that makes the parts."""
        if value in self.whole:
            return self.whole[value]
        owner = value.owner
        if isinstance(owner, Block) or not has_tokens(value) or not sharding.is_block:
            raise _error(self._owner(value), "is needed whole, and cannot be gathered")
        shape = self.shapes[value]
        ops: list[Operation] = []
        part = _reshaped(value, (DYNAMIC_INDEX, _columns(shape_of(value))), ops)
        ops.append(gather := lpu.AllGatherOp([part], self.devices, _columns(shape)))
        self.whole[value] = _reshaped(gather.res, shape, ops)
        self._name(ops, owner, value.name_hint)
        self.block.insert_ops_after(ops, owner)
        return self.whole[value]

    def _selected(self, value: SSAValue, sharding: ShardingAttr, user: Operation) -> SSAValue:
        """This device's part of a whole value, selected in front of the first user."""
        if (value, sharding) in self.parts:
            return self.parts[value, sharding]
        if not has_tokens(value) or not sharding.is_block:
            raise _error(user, "needs a part of a value that cannot be had of the whole")
        shape = shape_of(value)
        ops: list[Operation] = []
        (segment,) = flat_segments(value, sharding)
        whole = _reshaped(value, (DYNAMIC_INDEX, _columns(shape)), ops)
        ops.append(select := lpu.SelectColumnsOp(whole, segment.size))
        part = _reshaped(select.res, local_shape(value, sharding), ops)
        self._name(ops, user, value.name_hint)
        self.block.insert_ops_before(ops, user)
        self.parts[value, sharding] = part
        return part

    def _owner(self, value: SSAValue) -> Operation:
        owner = value.owner
        assert isinstance(owner, Operation)  # arguments are whole
        return owner

    def _name(self, ops: list[Operation], origin: Operation, hint: str | None) -> None:
        for op in ops:
            op.location = origin.location
            op.results[0].name_hint = hint


def _columns(shape: tuple[int, ...]) -> int:
    return prod(shape[1:])


def _reshaped(value: SSAValue, shape: tuple[int, ...], ops: list[Operation]) -> SSAValue:
    """The value in another shape, which it may have already."""
    if shape_of(value) == shape:
        return value
    ops.append(op := lpu.ReshapeOp(value, shape))
    return op.res


@dataclass(frozen=True)
class LpuPartitionPass(ModulePass):
    """Makes the module that every device runs of one with shardings: local shapes, shards, collectives"""

    name = "lpu-partition"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        check_grid(op)
        devices = grid_of(op)
        for function in op.ops:
            if isinstance(function, FuncOp) and not function.is_declaration:
                _Partition(function.body.block, devices).run()
