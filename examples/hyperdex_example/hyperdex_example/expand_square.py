"""The pass `example-expand-square`."""

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_example.dialect import SquareOp
from hyperdex_ir.dialects import lpu
from hyperdex_ir.support.xdsl import apply_patterns, replace_with


class ExpandSquare(RewritePattern):
    """example.square becomes x * x."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: SquareOp, rewriter: PatternRewriter, /) -> None:
        replace_with(rewriter, op, lpu.MulOp(op.x, op.x), op)


@dataclass(frozen=True)
class ExampleExpandSquarePass(ModulePass):
    """Turns every example.square into the product that the machine knows."""

    name = "example-expand-square"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, ExpandSquare())
