"""A fusion pattern: what `lpu-apply-patterns{names=example-fuse-square}` applies."""

from typing import ClassVar

from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_example.dialect import SquareOp
from hyperdex_ir.dialects import lpu
from hyperdex_ir.support.xdsl import replace_with


class FuseSquare(RewritePattern):
    """x * x becomes example.square."""

    exactness: ClassVar[str] = "exact"

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        if op.lhs is op.rhs:
            replace_with(rewriter, op, SquareOp(op.lhs), op)
