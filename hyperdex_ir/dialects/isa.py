"""The `isa` dialect: a program for the machine, with buffers as values and control as structure.

    func.func @layer(%h: !isa.lmu<tokens x 576>) {
      %n = isa.buffer : !isa.lmu<tokens x 576>
      isa.rms_norm dst=%n a=%h weight=hbm[param_base] epsilon=1.0e-05 columns=576 rows=tokens
      isa.matmul dst=%h src=%n weight=hbm[4096 + param_base] k=576 n=576 type=f16 plus=%h rows=tokens
      func.return
    }

There is one operation an instruction of `hyperdex_ir.isa.instructions`, with its operands by name; the control words
halt, repeat, repeat_rows, skip_unless, call and ret are `isa.repeat`, `isa.repeat_rows`, `isa.skip_unless`, `isa.call`
and the ends of functions.
Buffers live in the LMU; pass `isa-allocate-lmu` gives each an address. A buffer's rows are the tokens in flight, the
rows whose logits are wanted (`head`), or a number; the row stride of an instruction's operand is the buffer's width, 0
when it has one row.
`@main` takes nothing and runs to the end of the pass. The operations are in `isa_ops/`.
"""

from xdsl.ir import Dialect

from hyperdex_ir.dialects.isa_ops.control import CallOp, RepeatOp, RepeatRowsOp, SkipUnlessOp
from hyperdex_ir.dialects.isa_ops.instruction import OPS, InstructionOp
from hyperdex_ir.dialects.isa_ops.lmu_type import BufferOp, LmuType, LmuUse, ViewUse, buffer_type
from hyperdex_ir.isa.operands import HbmRef

EmbedOp = OPS["embed"]
GatherOp = OPS["gather"]
LoadOp = OPS["load"]
StoreOp = OPS["store"]
StoreKeyOp = OPS["store_key"]
StoreValueOp = OPS["store_value"]
StoreStateOp = OPS["store_state"]
MatmulOp = OPS["matmul"]
ScoresOp = OPS["scores"]
ValuesOp = OPS["values"]
SoftmaxOp = OPS["softmax"]
UnaryOp = OPS["unary"]
BinaryOp = OPS["binary"]
BinaryScalarOp = OPS["binary_scalar"]
ReduceOp = OPS["reduce"]
RmsNormOp = OPS["rms_norm"]
LayerNormOp = OPS["layer_norm"]
ShortConvOp = OPS["short_conv"]
RotaryOp = OPS["rotary"]
SelectRowsOp = OPS["select_rows"]
SelectColumnsOp = OPS["select_columns"]
SampleOp = OPS["sample"]
TopKOp = OPS["top_k"]
TakeColumnsOp = OPS["take_columns"]
SetOp = OPS["set"]
AddOp = OPS["add"]
LookupOp = OPS["lookup"]
FetchOp = OPS["fetch"]
MultiplyOp = OPS["multiply"]
SendOp = OPS["send"]
ReceiveOp = OPS["receive"]

ISA = Dialect("isa", [BufferOp, *OPS.values(), RepeatOp, RepeatRowsOp, SkipUnlessOp, CallOp], [LmuType])
"""The operations and the type of the `isa` dialect."""

__all__ = [
    "ISA",
    "OPS",
    "AddOp",
    "BinaryOp",
    "BinaryScalarOp",
    "BufferOp",
    "CallOp",
    "EmbedOp",
    "FetchOp",
    "GatherOp",
    "HbmRef",
    "InstructionOp",
    "LayerNormOp",
    "LmuType",
    "LmuUse",
    "LoadOp",
    "LookupOp",
    "MatmulOp",
    "MultiplyOp",
    "ReceiveOp",
    "ReduceOp",
    "RepeatOp",
    "RepeatRowsOp",
    "RmsNormOp",
    "RotaryOp",
    "SampleOp",
    "ScoresOp",
    "SelectColumnsOp",
    "SelectRowsOp",
    "SendOp",
    "SetOp",
    "ShortConvOp",
    "SkipUnlessOp",
    "SoftmaxOp",
    "StoreKeyOp",
    "StoreOp",
    "StoreStateOp",
    "StoreValueOp",
    "TakeColumnsOp",
    "TopKOp",
    "UnaryOp",
    "ValuesOp",
    "ViewUse",
    "buffer_type",
]
