"""The `isa` dialect: a program for the machine, with buffers as values and control as structure.

    func.func @layer(%h: !isa.lmu<tokens x 576>) {
      %n = isa.buffer : !isa.lmu<tokens x 576>
      isa.rms_norm dst=%n a=%h weight=hbm[param_base] epsilon=1.0e-05 columns=576 rows=tokens
      isa.matmul dst=%h src=%n weight=hbm[4096 + param_base] k=576 n=576 type=f16 plus=%h rows=tokens
      func.return
    }

There is one operation for each instruction of `hyperdex_ir.isa.instructions`, with its operands by name;
`OPS["matmul"]` is the class of `isa.matmul`. The control words halt, repeat, repeat_rows, skip_unless, call and ret are
`isa.repeat`, `isa.repeat_rows`, `isa.skip_unless`, `isa.call` and the ends of functions.
Buffers live in the LMU; pass `isa-allocate-lmu` gives each an address. A buffer's rows are the tokens in flight, the
rows whose logits are wanted (`head`), or a number; the row stride of an instruction's operand is the buffer's width, 0
when it has one row.
`@main` takes nothing and runs to the end of the step. The operations are in `isa_ops/`.
"""

from collections.abc import Iterator

from xdsl.ir import Dialect, Operation

from hyperdex_ir.dialects.isa_ops.control import CallOp, RepeatOp, RepeatRowsOp, SkipUnlessOp
from hyperdex_ir.dialects.isa_ops.instruction import OPS, InstructionOp
from hyperdex_ir.dialects.isa_ops.lmu_type import BufferOp, LmuType, LmuUse, ViewUse, buffer_type
from hyperdex_ir.isa.operands import HbmRef


class _IsaDialect(Dialect):
    """The dialect with an operation for each instruction that the table has when the dialect is loaded."""

    @property
    def operations(self) -> Iterator[type[Operation]]:
        return iter((BufferOp, *OPS.values(), RepeatOp, RepeatRowsOp, SkipUnlessOp, CallOp))


ISA = _IsaDialect("isa", [], [LmuType])
"""The operations and the type of the `isa` dialect."""

__all__ = [
    "ISA",
    "OPS",
    "BufferOp",
    "CallOp",
    "HbmRef",
    "InstructionOp",
    "LmuType",
    "LmuUse",
    "RepeatOp",
    "RepeatRowsOp",
    "SkipUnlessOp",
    "ViewUse",
    "buffer_type",
]
