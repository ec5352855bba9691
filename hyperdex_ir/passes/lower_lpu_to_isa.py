"""`lower-lpu-to-isa`: lowering of values to instructions.

The module must be token-major. Values get buffers of their own; reshapes, slices, transposes and broadcasts are views
of them. Parameters are read from HBM where they are used, at the addresses that `memory.map.plan_memory` gives for the
target and maximum length that the module names; the stages that come later, parameter images and runtime, plan with
the same function. A layer's function works in place on the hidden buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.memory.collect import collect_layout, find_function
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.passes.lowering.function import Shared
from hyperdex_ir.passes.lowering.structure import lower_main
from hyperdex_ir.passes.lpu_token_major import is_token_major
from hyperdex_ir.targets import load_target

#: Chunks of columns in which a matrix makes a result that goes around the ring: all but the last travel while it works.
GATHER_CHUNKS = 2


def lower(module: ModuleOp, gather_chunks: int = GATHER_CHUNKS) -> None:
    """Replaces the functions of an `lpu` module by functions of instructions.

    gather_chunks: the most chunks of columns in which a matrix makes a result that goes around the ring.
    Raises LoweringError for an operation that the machine cannot do, CapacityError when the model does not fit the
    target's HBM.
    """
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    for function in functions:
        if not is_token_major(function):
            raise LoweringError(f"@{function.sym_name.data} is not token-major", "run lpu-token-major before")
    main = find_function(module, "main")
    if len(main.body.block.args) != 2:
        raise LoweringError("@main must take the token ids and the positions")
    layout, facts = collect_layout(module), ModuleFacts(module)
    memory = plan_memory(layout, load_target(facts.target), facts.max_length)
    shared = Shared(module, layout, memory, gather_chunks)
    lowered = [lower_main(shared, main), *(function for _, function in shared.functions.values())]
    for function in functions:
        function.detach()
        function.erase()
    module.body.block.add_ops(lowered)


@dataclass(frozen=True)
class LowerLpuToIsaPass(ModulePass):
    """Turns every operation into machine instructions on buffers."""

    name = "lower-lpu-to-isa"
    exactness: ClassVar[str] = "exact"

    gather_chunks: int = GATHER_CHUNKS

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.gather_chunks < 1:
            raise LoweringError(f"gather-chunks is {self.gather_chunks}, must be at least 1")
        lower(op, self.gather_chunks)
