"""Values that go around the ring: every device puts its part into a buffer of all parts, and hands on the parts that it
receives.

The result of a matrix is written into that buffer right away, in chunks of columns, each of which travels while the
next one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa import LmuUse, buffer_type
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.isa.instructions import DEVICE
from hyperdex_ir.memory.map import ceil_div
from hyperdex_ir.passes.lowering.function import FunctionLowering, lowers
from hyperdex_ir.passes.lowering.views import View, contiguous_strides, elementwise_blocks


@dataclass(frozen=True)
class OwnPart:
    """Place of a chunk of this device's part: from column `first` of the part on, the part at `R[register]`."""

    gather: lpu.AllGatherOp
    buffer: SSAValue
    first: int
    register: int

    def at(self, column: int) -> LmuUse:
        """From a column of the chunk on."""
        return LmuUse(self.buffer, self.first + column, self.register)


def gather_of(value: SSAValue) -> lpu.AllGatherOp | None:
    """The collective in the same block that is the only user of a value; None when there is none."""
    if not value.has_one_use():
        return None
    user, owner = next(iter(value.uses)).operation, value.owner
    same_block = isinstance(owner, Operation) and user.parent is owner.parent
    return user if same_block and isinstance(user, lpu.AllGatherOp) else None


def first_writer(gather: lpu.AllGatherOp) -> Operation:
    """The first operation that writes to the buffer of all parts, when matrices write into it."""
    owners = [chunk.owner for chunk in gather.chunks if is_written_in_place(chunk)]
    first = [owner for owner in owners if isinstance(owner, Operation)]
    return min(first, key=_position, default=gather)


def _position(op: Operation) -> int:
    assert op.parent is not None  # found in a block
    return op.parent.get_operation_index(op)


def is_written_in_place(value: SSAValue) -> bool:
    """Test that the operation that makes the value writes it to the place from which it is sent."""
    return isinstance(value.owner, lpu.LinearOp) and len(shape_of(value)) == 2 and gather_of(value) is not None


def fits_in(gather: lpu.AllGatherOp, view: View) -> bool:
    """Test that the rows of a view's buffer have room for all parts, padding included."""
    return view.offset == 0 and buffer_type(view.buffer).width >= gather.count * gather.part


def own_part(to: FunctionLowering, value: SSAValue, gather: lpu.AllGatherOp, rows: int | str) -> OwnPart:
    """The place to which a value that is gathered has to be written."""
    if gather not in to.gathers:
        known = to.targets.get(gather.res)
        width = gather.count * gather.part
        to.gathers[gather] = to.buffer(rows, width, gather.res.name_hint) if known is None else known.buffer
    chunks = list(gather.chunks)
    first = sum(shape_of(chunk)[1] for chunk in chunks[: chunks.index(value)])
    return OwnPart(gather, to.gathers[gather], first, to.device_offset(gather.part))


def column_chunks(to: FunctionLowering, columns: int) -> Iterator[tuple[int, int]]:
    """(first, columns) of the chunks in which a matrix makes its result: whole groups of MAC trees."""
    trees = to.shared.memory.target.trees
    groups = ceil_div(columns, trees)
    count = min(to.shared.gather_chunks, groups)
    edges = [groups * number // count * trees for number in range(count)] + [columns]
    for first, end in pairwise(edges):
        yield first, end - first


def pass_on(to: FunctionLowering, part: OwnPart, first: int, columns: int) -> None:
    """Sends columns of the chunk around, and takes those of all other devices."""
    gather, start = part.gather, part.first + first
    rows = to.rows_register(buffer_type(part.buffer).rows)
    common = {"parts": gather.count, "pitch": gather.part, "first": start, "columns": columns, "rows": rows}
    for hop in range(gather.count - 1):
        to.emit("send", src=LmuUse(part.buffer), hop=hop, **common)
        to.emit("receive", dst=LmuUse(part.buffer), hop=hop + 1, **common)


@lowers(lpu.AllGatherOp)
def lower_all_gather(to: FunctionLowering, op: lpu.AllGatherOp) -> None:
    """Copies chunks that no matrix has written to the buffer of all parts into that buffer."""
    for chunk in op.chunks:
        if is_written_in_place(chunk):
            continue
        view = to.view(chunk)
        part = own_part(to, chunk, op, view.rows)
        target = View(part.buffer, part.first, view.dims, contiguous_strides(view.dims))
        for block in elementwise_blocks(view.dims, [target, view]):
            to.emit(
                "unary",
                function="copy",
                dst=replace(block.uses[0], register=part.register),
                a=block.uses[1],
                groups=block.groups,
                columns=block.columns,
                rows=to.rows_register(view.rows),
            )
        pass_on(to, part, 0, view.columns)
    to.places[op.res] = View(to.gathers[op], 0, (shape_of(op.res)[1],), (1,))


@lowers(lpu.SelectColumnsOp)
def lower_select_columns(to: FunctionLowering, op: lpu.SelectColumnsOp) -> None:
    """One `select_columns`."""
    source = to.contiguous(op.x)
    target = to.result(op.res, source.rows)
    to.emit(
        "select_columns",
        dst=LmuUse(target.buffer, target.offset),
        src=LmuUse(source.buffer, source.offset),
        index=DEVICE,
        columns=target.columns,
        limit=source.columns,
        rows=to.rows_register(target.rows),
    )
