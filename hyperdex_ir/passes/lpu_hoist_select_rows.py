"""`lpu-hoist-select-rows`: early removal of the rows whose logits are not wanted.

Row-wise operations give the same rows whether rows are selected before or after them, so `lpu.select_rows` moves up
through them: above the head, and above the final norm. It stops at attention, at a layer of the stack (so that the
layers stay alike), at values with other users, and where one selection would have to become two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import RowWise, element_of, has_trait, shape_of
from hyperdex_ir.passes.outlining.match import LayerStack, find_stack


def _token_operands(op: Operation) -> list[int]:
    return [i for i, value in enumerate(op.operands) if DYNAMIC_INDEX in shape_of(value)]


def _operand_to_select(select: lpu.SelectRowsOp, stack: LayerStack | None) -> int | None:
    """Number of the producer's operand that could be selected instead, or None when the selection has to stay."""
    producer = select.x.owner
    if not has_trait(producer, RowWise) or not select.x.has_one_use():
        return None
    if stack is not None and stack.number_of(producer) is not None:
        return None
    operands = _token_operands(producer)
    values: list[SSAValue] = [producer.operands[i] for i in operands]
    if len(operands) != 1 or shape_of(values[0])[0] != DYNAMIC_INDEX or element_of(values[0]) != f32:
        return None
    return operands[0]


def _move_up(select: lpu.SelectRowsOp, number: int) -> lpu.SelectRowsOp:
    """Selects rows of the producer's operand; the producer's result then replaces the selection's."""
    producer = select.x.owner
    assert isinstance(producer, Operation)  # _operand_to_select has checked it
    above = lpu.SelectRowsOp(producer.operands[number])
    above.location = select.location
    Rewriter().insert_op(above, InsertPoint.before(producer))
    producer.operands[number] = above.res
    select.res.replace_all_uses_with(select.x)
    select.detach()
    select.erase()
    return above


def hoist(function: FuncOp) -> None:
    """Moves the selections of a function as far up as is legal and worth it."""
    stack = find_stack(function.body.block)
    for select in [op for op in function.body.block.ops if isinstance(op, lpu.SelectRowsOp)]:
        while (number := _operand_to_select(select, stack)) is not None:
            select = _move_up(select, number)


@dataclass(frozen=True)
class LpuHoistSelectRowsPass(ModulePass):
    """Selects the wanted rows before the final norm instead of after the head."""

    name = "lpu-hoist-select-rows"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.ops:
            if isinstance(function, FuncOp) and not function.is_declaration:
                hoist(function)
