"""The state of lowering one function: the places of its values, and the emission of instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from hyperdex_ir.dialects import isa, lpu
from hyperdex_ir.dialects.isa import HbmRef, LmuType, LmuUse
from hyperdex_ir.dialects.lpu import Handlers, shape_of
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.isa.instructions import DEVICE, HEAD_ROWS, PARAM_BASE, TOKENS
from hyperdex_ir.memory.collect import is_shared, parameter_of
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.memory.map import FunctionMap, MemoryMap
from hyperdex_ir.passes.lowering.views import View, contiguous_strides, elementwise_blocks
from hyperdex_ir.support.xdsl import module_path

#: Registers by their use in the lowering; 0 to 7 are named in the instruction table.
ONE = 8  # holds 1: the number of rows of a value that is the same for all tokens
QUERY, OUTPUT, KEYS, VALUES = 9, 10, 11, 12  # words into query and output rows, bytes into the KV cache
LAYER, KIND = 13, 14  # the number of the running layer, and that of its function
HEAD = 15  # the number of a query head among those of all devices
SLOPE, SINK = DEVICE - 2, DEVICE - 1  # byte addresses of a query head's slope and sink
_OFFSETS = range(16, SLOPE)  # words from the first device's part of a row to this device's, one for each size of part

_ROWS_REGISTER = {"tokens": TOKENS, "head": HEAD_ROWS, 1: ONE}


@dataclass(frozen=True)
class Index:
    """Token ids or positions: they are in HBM and a register, not in the LMU."""

    source: str


@dataclass(frozen=True)
class Scalar:
    """A constant: an immediate of the instruction that uses it."""

    value: float


Place = View | Index | Scalar


@dataclass
class Shared:
    """State that the lowering of all functions shares."""

    module: ModuleOp
    layout: ModelLayout
    memory: MemoryMap
    gather_chunks: int
    uses_one: bool = False
    offsets: dict[int, int] = field(default_factory=dict)  # the register for each size of part
    functions: dict[str, Any] = field(default_factory=dict)


class FunctionLowering:
    """Emits the instructions of one function."""

    def __init__(self, shared: Shared, name: str, block: Block):
        self.shared = shared
        self.name = name
        self.block = block
        self.places: dict[SSAValue, Place] = {}
        self.loads: dict[tuple[Block, str], View] = {}
        self.targets: dict[SSAValue, View] = {}  # required places of results
        self.gathers: dict[lpu.AllGatherOp, SSAValue] = {}  # the buffers of all parts
        self.op: Operation

    @property
    def is_main(self) -> bool:
        return self.name == "main"

    @property
    def function_map(self) -> FunctionMap:
        return self.shared.memory.main if self.is_main else self.shared.memory.functions[self.name]

    def error(self, reason: str) -> LoweringError:
        """An error that names the operation being lowered."""
        path = module_path(self.op)
        return LoweringError(f"{self.op.name}{f' at {path}' if path else ''}: {reason}", "this model is not supported")

    # ------------------------------------------------------------------------------------------------ emitting
    def emit(self, name: str, **operands: Any) -> None:
        """Appends an instruction."""
        self.block.add_op(isa.OPS[name](location=self.op.location, **operands))

    def buffer(self, rows: int | str, width: int, hint: str | None = None) -> SSAValue:
        """A new buffer."""
        op = isa.BufferOp(LmuType(rows, width))
        op.location = self.op.location
        op.res.name_hint = hint
        self.block.add_op(op)
        return op.res

    def rows_register(self, rows: int | str) -> int:
        """The register that holds this number of rows."""
        if rows == 1:
            self.shared.uses_one = True
        return _ROWS_REGISTER[rows]

    def device_offset(self, words: int) -> int:
        """The register that holds the number of this device times so many words."""
        offsets = self.shared.offsets
        if words not in offsets and len(offsets) == len(_OFFSETS):
            raise self.error(f"more than {len(_OFFSETS)} widths of values that are sharded")
        return offsets.setdefault(words, _OFFSETS.start + len(offsets))

    def repeat(self, count: int, body: Callable[[], None]) -> None:
        """Emits `body` in a repeat, or bare when it runs once."""
        if count == 1:
            body()
            return
        op = isa.RepeatOp(count, location=self.op.location)
        self.block.add_op(op)
        outer, self.block = self.block, op.body.block
        body()
        self.block = outer

    # ------------------------------------------------------------------------------------------------ values
    def place(self, value: SSAValue) -> Place:
        """The place of a value; parameters of f32 are loaded when they are first met."""
        if isinstance(value.owner, lpu.HoldsParameter) and value not in self.places:
            return self._load(value.owner)
        return self.places[value]

    def view(self, value: SSAValue) -> View:
        """The words that hold a value. Raises LoweringError when it is a constant or an index."""
        place = self.place(value)
        if not isinstance(place, View):
            raise self.error("cannot take a constant or an index as this operand")
        return place

    def _load(self, op: lpu.HoldsParameter) -> View:
        parameter = parameter_of(op)
        if parameter.dtype != "f32":
            raise self.error(f"cannot compute with {parameter.name}, which is stored as {parameter.dtype}")
        key = (self.block, parameter.name)
        if key not in self.loads:
            dims = shape_of(op.res)
            view = self.fresh(1, dims, op.res.name_hint)
            self.emit("load", dst=LmuUse(view.buffer), src=self.address(op), columns=view.columns)
            self.loads[key] = view
        return self.loads[key]

    def address(self, op: lpu.HoldsParameter) -> HbmRef:
        """The HBM address of a parameter."""
        parameter = parameter_of(op)
        if self.is_main or is_shared(parameter):
            return HbmRef(self.shared.memory.main.parameters[parameter.name])
        return HbmRef(self.function_map.parameters[parameter.name], PARAM_BASE)

    def weight(self, value: SSAValue, dtypes: Sequence[str]) -> lpu.WeightOp:
        """The operation of a parameter operand. Raises LoweringError when it is something else."""
        op = value.owner
        if not isinstance(op, lpu.WeightOp) or parameter_of(op).dtype not in dtypes:
            raise self.error(f"this operand must be a parameter of type {' or '.join(dtypes)}")
        return op

    def optional_address(self, value: SSAValue | None) -> HbmRef | None:
        """The HBM address of an optional f32 parameter; None when it is absent."""
        return None if value is None else self.address(self.weight(value, ("f32",)))

    def fresh(self, rows: int | str, dims: Sequence[int], hint: str | None = None) -> View:
        """A value in a new buffer of its own."""
        strides = contiguous_strides(dims)
        width = max(1, dims[0] * strides[0] if dims else 1)
        return View(self.buffer(rows, width, hint), 0, tuple(dims), strides)

    def result(self, value: SSAValue, rows: int | str) -> View:
        """The view into which an operation's result goes."""
        if value in self.targets:
            view = self.targets[value]
        else:
            view = self.fresh(rows, features(value), value.name_hint)
        self.places[value] = view
        return view

    def copied(self, view: View, hint: str | None = None) -> View:
        """A contiguous copy of the value in a new buffer."""
        target = self.fresh(view.rows, view.dims, hint)
        self.copy(view, target)
        return target

    def copy(self, source: View, target: View) -> None:
        """Copies elements."""
        for part in elementwise_blocks(target.dims, [target, source.broadcast(target.dims)]):
            self.emit(
                "unary",
                function="copy",
                dst=part.uses[0],
                a=part.uses[1],
                groups=part.groups,
                columns=part.columns,
                rows=self.rows_register(target.rows),
            )

    def contiguous(self, value: SSAValue) -> View:
        """A value whose rows lie without gaps; copied when they do not."""
        view = self.view(value)
        return view if view.is_contiguous else self.copied(view, value.name_hint)

    def use(self, value: SSAValue) -> LmuUse:
        """A value as an instruction's Lmu operand."""
        view = self.contiguous(value)
        return LmuUse(view.buffer, view.offset)


def features(value: SSAValue) -> tuple[int, ...]:
    """The dimensions of a value without that of the tokens."""
    shape = shape_of(value)
    return shape[1:] if DYNAMIC_INDEX in shape else shape


def common_rows(views: Sequence[View]) -> int | str:
    """The rows of a result computed from these views: those of the first view that has more than one row."""
    return next((view.rows for view in views if view.rows != 1), 1)


#: Emit the instructions of an operation.
LOWERINGS = Handlers[Callable[[FunctionLowering, Any], None]]()
lowers = LOWERINGS.register
