"""Canonicalization of operations that move elements: operations without effect are removed, several in a row become
one."""

from __future__ import annotations

from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_ir.dialects.lpu_ops.base import shape_of
from hyperdex_ir.dialects.lpu_ops.shapes import BroadcastOp, ReshapeOp, ReshapingOp, TransposeOp


class DropIdentity(RewritePattern):
    """A reshape, transpose or broadcast whose result is its operand."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReshapingOp, rewriter: PatternRewriter, /) -> None:
        if op.x.type != op.res.type:
            return
        moves_nothing = isinstance(op, ReshapeOp | BroadcastOp)
        if moves_nothing or (isinstance(op, TransposeOp) and list(op.axes) == sorted(op.axes)):
            rewriter.replace(op, (), (op.x,))


class JoinReshapes(RewritePattern):
    """reshape(reshape(x)) is reshape(x)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReshapeOp, rewriter: PatternRewriter, /) -> None:
        if isinstance(inner := op.x.owner, ReshapeOp):
            joined = ReshapeOp(inner.x, shape_of(op.res))
            joined.location = op.location
            rewriter.replace(op, joined)
