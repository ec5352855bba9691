"""The live intervals of the buffers of an `isa` module."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue

from hyperdex_ir.dialects.isa import BufferOp, CallOp, RepeatOp, RepeatRowsOp, SkipUnlessOp
from hyperdex_ir.errors import LoweringError


@dataclass(frozen=True)
class Live:
    """The interval from the first to the last operation, by position in the function, both included."""

    start: int
    end: int

    def meets(self, other: Live) -> bool:
        """Test that both live at some position."""
        return self.start <= other.end and other.start <= self.end

    def covers(self, position: int) -> bool:
        """Test that the interval contains a position."""
        return self.start <= position <= self.end

    def joined(self, other: Live) -> Live:
        """The least interval around both."""
        return Live(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Call:
    """A call: its position, the function called, and the buffer for each parameter."""

    position: int
    callee: str
    parameters: tuple[SSAValue, ...]
    passed: tuple[SSAValue, ...]


@dataclass
class Frame:
    """A function's own buffers (not its arguments), with their live intervals, and its calls."""

    name: str
    lives: dict[SSAValue, Live] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)


def find_frames(module: ModuleOp) -> list[Frame]:
    """The frames of the functions that @main reaches, callers first. Raises LoweringError for recursion."""
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    finished: dict[str, Frame] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path or name not in functions:
            raise LoweringError(f"@{name} calls itself" if name in path else f"there is no function @{name}")
        if name in finished:
            return
        frame = _find_frame(functions[name], functions)
        for call in frame.calls:
            visit(call.callee, (*path, name))
        finished[name] = frame

    visit("main", ())
    return list(reversed(finished.values()))


def _find_frame(function: FuncOp, functions: dict[str, FuncOp]) -> Frame:
    frame = Frame(function.sym_name.data)
    spans: dict[Operation, Live] = {}
    _number(function.body.block, spans, 0)
    for op, span in spans.items():
        for value in op.operands:
            if isinstance(value.owner, BufferOp):
                live = _projected(op, value.owner.parent, spans)
                frame.lives[value] = frame.lives[value].joined(live) if value in frame.lives else live
        if isinstance(op, CallOp):
            callee = functions.get(op.function)
            parameters = tuple(callee.body.block.args) if callee is not None else ()
            frame.calls.append(Call(span.start, op.function, parameters, tuple(op.buffers)))
    for op in spans:
        if isinstance(op, BufferOp):
            frame.lives.setdefault(op.res, spans[op])
    return frame


def _number(block: Block, spans: dict[Operation, Live], position: int) -> int:
    """Gives every operation its positions, a repeat or skip those of its body too; returns the next free one."""
    for op in block.ops:
        start = position
        position += 1
        if isinstance(op, RepeatOp | RepeatRowsOp | SkipUnlessOp):
            position = _number(op.body.block, spans, position)
        spans[op] = Live(start, position - 1)
    return position


def _projected(op: Operation, block: Block | None, spans: dict[Operation, Live]) -> Live:
    """The use as the block that makes the buffer sees it: a use in a repeat lasts as long as the repeat."""
    while op.parent is not block:
        parent = op.parent_op()
        assert parent is not None  # the buffer is visible here
        op = parent
    return spans[op]
