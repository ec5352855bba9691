"""`lpu-token-major`: the form of all values with one row a token.

A traced model works on `[1, ?, C]` and `[1, H, ?, D]`. Each value gets its canonical form: the leading batch dimension
of size 1 is removed, the token dimension comes first, the others follow in their order. Moving a token dimension moves
no element of a row, so transposes that only do this disappear. Values without tokens (parameters) stay as they are. The
functions of layers, and the values passed to them, are rewritten alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, FunctionType, ModuleOp, TensorType, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import Handlers, element_of, shape_of, shape_text
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.support.xdsl import module_path

Shape = tuple[int, ...]


def canonical_shape(shape: Sequence[int]) -> Shape:
    """The canonical form of a traced shape: `[1, H, ?, D]` becomes `[?, H, D]`."""
    if DYNAMIC_INDEX not in shape:
        return tuple(shape)
    return tuple(shape[i] for i in canonical_order(shape))


def canonical_order(shape: Sequence[int]) -> Shape:
    """The traced dimension of each canonical one; the shape must have a token dimension."""
    token = list(shape).index(DYNAMIC_INDEX)
    rest = [i for i in range(len(shape)) if i != token]
    if token > 0 and shape[0] == 1:
        rest.remove(0)
    return (token, *rest)


def _canonical_type(type_: Attribute) -> Attribute:
    if not isinstance(type_, TensorType):
        return type_
    return TensorType(type_.element_type, canonical_shape(type_.get_shape()))


def is_token_major(function: FuncOp) -> bool:
    """Test that every value of the function has its canonical form already."""
    types = [argument.type for argument in function.body.block.args]
    types += [result.type for op in function.walk() for result in op.results]
    return all(_canonical_type(type_) == type_ for type_ in types)


#: Functions that emit an operation in its token-major form.
_HANDLERS = Handlers[Callable[["_Rewriter", Any], None]]()


class _Rewriter:
    """Emits the operations of one block again, into a new block, on canonical values."""

    op: Operation

    def __init__(self, source: Block, outer: Mapping[SSAValue, SSAValue] = MappingProxyType({})) -> None:
        """outer: the canonical values of values from the blocks around it."""
        self.block = Block(arg_types=[_canonical_type(argument.type) for argument in source.args])
        self.values: dict[SSAValue, SSAValue] = {**outer, **dict(zip(source.args, self.block.args, strict=True))}
        for old, new in zip(source.args, self.block.args, strict=True):
            new.name_hint = old.name_hint
        for op in source.ops:
            self.op = op
            self.rewrite(op)

    def rewrite(self, op: Operation) -> None:
        if not _has_tokens(op):
            self.emit(op.clone({value: self[value] for value in op.operands}))
            return
        handler = _HANDLERS.get(type(op))
        if handler is None:
            raise self.error("has no token-major form")
        handler(self, op)

    def error(self, reason: str) -> LoweringError:
        path = module_path(self.op)
        where = f" at {path}" if path else ""
        shapes = ", ".join(shape_text(shape_of(v)) for v in self.op.operands if isinstance(v.type, TensorType))
        return LoweringError(
            f"{self.op.name}{where}: {reason} (operand shapes {shapes})", "this model is not supported"
        )

    # ------------------------------------------------------------------------------------------------ emitting
    def insert(self, new: Operation) -> SSAValue:
        """Inserts an operation at the current place and returns its first result."""
        self.insert_only(new)
        return new.results[0]

    def insert_only(self, new: Operation) -> None:
        new.location = self.op.location
        self.block.add_op(new)

    def emit(self, new: Operation) -> None:
        """Inserts the operation whose results replace those of the current one."""
        self.insert_only(new)
        self.bind(*new.results)

    def bind(self, *results: SSAValue) -> None:
        """Records the canonical values of the current operation's results."""
        for old, new in zip(self.op.results, results, strict=True):
            expected = canonical_shape(shape_of(old))
            value = self.reshaped(new, expected)
            if old.name_hint is not None and value.name_hint is None:
                value.name_hint = old.name_hint
            self.values[old] = value

    def reshaped(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """The value in another shape of the same elements in the same order."""
        if shape_of(value) == tuple(shape):
            return value
        return self.insert(lpu.ReshapeOp(value, shape))

    def __getitem__(self, value: SSAValue) -> SSAValue:
        return self.values[value]

    def aligned(self, value: SSAValue, result_shape: Sequence[int]) -> SSAValue:
        """The canonical value with dimensions lined up, as broadcasting does, with a canonical result."""
        traced = shape_of(value)
        padded = (1,) * (len(result_shape) - len(traced)) + traced
        token = list(result_shape).index(DYNAMIC_INDEX)
        if DYNAMIC_INDEX in padded and padded.index(DYNAMIC_INDEX) != token:
            raise self.error("pairs tokens with tokens")
        wanted = tuple(padded[i] for i in canonical_order(result_shape))
        if DYNAMIC_INDEX not in padded:
            if padded[token] != 1:
                raise self.error("pairs tokens with a static dimension")
            wanted = _strip_leading_ones(wanted, len(traced))
        return self.reshaped(self[value], wanted)

    # ------------------------------------------------------------------------------------------------ operations
    @_HANDLERS.register(lpu.BinaryOp, lpu.UnaryOp)
    def elementwise(self, op: Operation) -> None:
        shape = shape_of(op.results[0])
        if sum(extent == DYNAMIC_INDEX for extent in shape) != 1:
            raise self.error("pairs tokens with tokens")
        self.emit(type(op)(*(self.aligned(value, shape) for value in op.operands)))

    @_HANDLERS.register(lpu.ReduceOp)
    def reduction(self, op: lpu.ReduceOp) -> None:
        self.emit(type(op)(self[op.x]))

    @_HANDLERS.register(lpu.TransposeOp)
    def transpose(self, op: lpu.TransposeOp) -> None:
        source = shape_of(op.x)
        before = list(canonical_order(source)[1:])
        after = [op.axes[i] for i in canonical_order(shape_of(op.res))[1:]]
        if [i for i in before if source[i] != 1] == [i for i in after if source[i] != 1]:
            self.bind(self[op.x])
            return
        kept = [i for i in before if i in after]
        value = self.reshaped(self[op.x], (DYNAMIC_INDEX, *(source[i] for i in kept)))
        order = [kept.index(i) for i in after if i in kept]
        self.bind(self.insert(lpu.TransposeOp(value, (0, *(1 + i for i in order)))))

    @_HANDLERS.register(lpu.ReshapeOp)
    def reshape(self, op: lpu.ReshapeOp) -> None:
        source, result = shape_of(op.x), shape_of(op.res)
        if _before_tokens(source) != _before_tokens(result):
            raise self.error(f"reshapes to {shape_text(result)} across the token dimension")
        self.bind(self[op.x])

    @_HANDLERS.register(lpu.SliceOp)
    def slice(self, op: lpu.SliceOp) -> None:
        dim, start, stop, step = op.bounds
        value, place = self.with_dimension(op.x, dim)
        self.bind(self.insert(lpu.SliceOp(value, place, start, stop, step)))

    @_HANDLERS.register(lpu.ConcatOp)
    def concat(self, op: lpu.ConcatOp) -> None:
        dim = op.dim.value.data
        if any(DYNAMIC_INDEX not in shape_of(value) for value in op.inputs):
            raise self.error("joins values with and without tokens")
        pairs = [self.with_dimension(value, dim) for value in op.inputs]
        self.bind(self.insert(lpu.ConcatOp([value for value, _ in pairs], pairs[0][1])))

    def with_dimension(self, value: SSAValue, dim: int) -> tuple[SSAValue, int]:
        """The value in a token-major shape that has traced dimension `dim`, and the place of that dimension."""
        shape = shape_of(value)
        order = canonical_order(shape)
        if dim in order:
            return self[value], order.index(dim)
        order = (order[0], dim, *order[1:])
        return self.reshaped(self[value], [shape[i] for i in order]), 1

    @_HANDLERS.register(lpu.BroadcastOp)
    def broadcast(self, op: lpu.BroadcastOp) -> None:
        shape = shape_of(op.res)
        value = self.aligned(op.x, shape)
        target = canonical_shape(shape)
        self.bind(value if shape_of(value) == target else self.insert(lpu.BroadcastOp(value, target)))

    @_HANDLERS.register(lpu.EmbeddingOp, lpu.RotaryTableOp, lpu.LinearOp, lpu.RmsNormOp, lpu.LayerNormOp, lpu.RotaryOp)
    @_HANDLERS.register(lpu.TopKOp, lpu.TakeColumnsOp, lpu.ExpertLinearOp)
    @_HANDLERS.register(lpu.AttentionOp, lpu.ShortConvOp, lpu.SelectRowsOp)
    def row_wise(self, op: Operation) -> None:
        """Emits an operation whose last dimension holds a row's elements: all operands are in canonical form."""
        for value in op.operands:
            if shape_of(value) and shape_of(value)[-1] == DYNAMIC_INDEX and element_of(value) == f32:
                raise self.error("works across tokens")
        new = type(op).create(
            operands=[self[value] for value in op.operands],
            result_types=[_canonical_type(result.type) for result in op.results],
            properties=op.properties,
            attributes=op.attributes,
        )
        self.emit(new)

    @_HANDLERS.register(lpu.LayerOp, lpu.LayersOp)
    def layer(self, op: lpu.LayerOp | lpu.LayersOp) -> None:
        self.emit(
            type(op).create(
                operands=[self[value] for value in op.operands],
                result_types=[_canonical_type(result.type) for result in op.results],
                properties=op.properties,
                attributes=op.attributes,
            )
        )

    @_HANDLERS.register(lpu.RepeatOp)
    def repeat(self, op: lpu.RepeatOp) -> None:
        body = Region(_Rewriter(op.body.block, self.values).block)
        new = lpu.RepeatOp(op.trip_count.value.data, [self[value] for value in op.inputs], body)
        new.attributes.update(op.attributes)
        self.emit(new)

    @_HANDLERS.register(ReturnOp, lpu.YieldOp)
    def finish(self, op: ReturnOp | lpu.YieldOp) -> None:
        self.insert_only(type(op)(*(self[value] for value in op.operands)))


def _has_tokens(op: Operation) -> bool:
    values = (*op.operands, *op.results)
    return any(isinstance(v.type, TensorType) and DYNAMIC_INDEX in shape_of(v) for v in values)


def _before_tokens(shape: Shape) -> int:
    """Number of elements in the dimensions before that of the tokens."""
    return prod(shape[: shape.index(DYNAMIC_INDEX)])


def _strip_leading_ones(shape: Shape, rank: int) -> Shape:
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    return shape


_HANDLERS.check_complete(
    lpu.WeightOp, lpu.ConstantOp, lpu.LayerConstantOp, lpu.AllGatherOp, lpu.SelectColumnsOp
)  # they take no tokens, or are token-major already


def rewrite_function(function: FuncOp) -> None:
    """Brings one function to token-major form, its signature included.

    Raises LoweringError that names the first operation that has no such form.
    """
    old = function.body.block
    new = _Rewriter(old).block
    results = [_canonical_type(type_) for type_ in function.function_type.outputs]
    function.body.detach_block(old)
    old.erase()
    function.body.add_block(new)
    function.function_type = FunctionType.from_lists([argument.type for argument in new.args], results)


@dataclass(frozen=True)
class LpuTokenMajorPass(ModulePass):
    """Brings every value to the form `[?, C]` or `[?, H, D]`: no batch dimension, one row a token."""

    name = "lpu-token-major"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.ops:
            if isinstance(function, FuncOp) and not function.is_declaration and not is_token_major(function):
                rewrite_function(function)
