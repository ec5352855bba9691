"""Checks of a module for several devices: its grid, the shardings of values, collectives and messages must agree."""

from __future__ import annotations

from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, TensorType
from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa import InstructionOp
from hyperdex_ir.dialects.lpu import GRID, SHARDING, GridAttr, ShardingAttr, grid_of
from hyperdex_ir.dialects.lpu_ops.base import require
from hyperdex_ir.support.xdsl import show_operation


def check_grid(module: ModuleOp) -> None:
    """Raises VerifyException, as `check_module` does, for an operation that is not for the devices of the module's
    grid.

    A module that names no grid may be a part of one: then only shardings are checked, against their values.
    """
    grid = module.attributes.get(GRID)
    if grid is not None and not isinstance(grid, GridAttr):
        raise VerifyException(f"{GRID} of a module must be an #lpu.grid<devices>, not {grid}")
    for op in module.walk():
        try:
            _check_sharding(op)
            if grid is not None:
                _check_devices(op, grid_of(module))
        except VerifyException as error:
            raise VerifyException(f"{error}\n{show_operation(op)}") from None


def _check_sharding(op: Operation) -> None:
    """Checks that an operation's sharding fits its first result."""
    sharding = op.attributes.get(SHARDING)
    if sharding is None:
        return
    if not isinstance(sharding, ShardingAttr):
        raise VerifyException(f"{op.name}: {SHARDING} must be an #lpu.sharding<...>, not {sharding}")
    type_ = op.results[0].type if op.results else None
    if not isinstance(type_, TensorType):
        raise VerifyException(f"{op.name}: has no tensor to shard")
    shape, dim = type_.get_shape(), sharding.dim
    require(dim < len(shape), f"{op.name}: has no dimension {dim} to shard")
    require(shape[dim] != DYNAMIC_INDEX, f"{op.name}: dimension {dim} is that of the tokens, it is not sharded")
    end = max(segment.extent for segment in sharding.segments)
    require(end <= shape[dim], f"{op.name}: sharded up to {end}, dimension {dim} has {shape[dim]}")


def _check_devices(op: Operation, devices: int) -> None:
    for what, count in _device_counts(op):
        require(count == devices, f"{op.name}: {what} {count} devices, the module is for {devices}")


def _device_counts(op: Operation) -> list[tuple[str, int]]:
    """The number of devices of an operation, from each of its parts that states one."""
    sharding = op.attributes.get(SHARDING)
    counts = [("sharded over", sharding.devices)] if isinstance(sharding, ShardingAttr) else []
    match op:
        case lpu.AllGatherOp():
            counts.append(("gathers over", op.count))
        case lpu.WeightOp() if op.shards is not None:
            counts.append(("shards for", op.shards.data[0].devices))
        case lpu.AttentionOp() if op.kv_head_table is not None:
            counts.append(("kv_heads for", len(op.kv_head_table) // lpu.shape_of(op.query)[1]))
        case InstructionOp() if (ring := op.spec().ring) is not None:
            counts.append(("parts of", op.operand(ring.parts)))
    return counts
