"""An oracle for `isa-allocate-lmu`: an `isa` module is executed, and each LMU word remembers the buffer that took it.

It knows nothing of live intervals. A buffer takes its words at its first use in an activation of its function. Each
later use must find them still its own: whoever took one in between shares it with a buffer that is alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects.isa import BufferOp, CallOp, RepeatOp, RepeatRowsOp, buffer_type


def find_overlaps(module: ModuleOp, chunk: int, head_rows: int) -> list[str]:
    """Every use of a buffer that finds another's words in its place, one line each."""
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    return list(_Owners(functions, chunk, head_rows).run(functions["main"].body.block.ops, {}))


class _Activation:
    """A buffer in one activation of its function; it has its words from its first use on."""

    is_placed = False


class _Owners:
    """owner: of each word, the one that took it last."""

    def __init__(self, functions: Mapping[str, FuncOp], chunk: int, head_rows: int):
        self.functions = functions
        self.chunk = chunk
        self.head_rows = head_rows
        self.owner: dict[int, _Activation] = {}

    def run(self, ops: Iterable[Operation], active: dict[SSAValue, _Activation]) -> Iterator[str]:
        """Execute operations; active: the buffers of the function around them, arguments included."""
        for op in ops:
            if isinstance(op, BufferOp):
                active[op.res] = _Activation()
            elif isinstance(op, CallOp):
                yield from self._call(op, active)
            else:
                for value in op.operands:
                    yield from self._use(value, active[value])
            for _ in range(2 if isinstance(op, RepeatOp | RepeatRowsOp) else 1):
                for region in op.regions:
                    yield from self.run(region.block.ops, active)

    def _call(self, op: CallOp, active: dict[SSAValue, _Activation]) -> Iterator[str]:
        body = self.functions[op.function].body.block
        for parameter, passed in zip(body.args, op.buffers, strict=True):
            if parameter.type != passed.type:
                yield f"{passed.type} is passed for {parameter.type}"
        inner = {parameter: active[passed] for parameter, passed in zip(body.args, op.buffers, strict=True)}
        yield from self.run(body.ops, inner)

    def _use(self, value: SSAValue, activation: _Activation) -> Iterator[str]:
        type_ = buffer_type(value)
        start = type_.address or 0
        words = range(start, start + type_.words(self.chunk, self.head_rows))
        if not activation.is_placed:
            activation.is_placed = True
            self.owner |= dict.fromkeys(words, activation)
        if any(self.owner[word] is not activation for word in words):
            yield f"{type_}: others have taken words of it"
