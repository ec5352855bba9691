"""Functions, layer calls and repeats; the ends of functions.

A layer function works in place: its first argument is the hidden buffer, in which it also leaves its result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from hyperdex_ir.dialects import isa, lpu
from hyperdex_ir.dialects.isa import HbmRef, LmuUse, buffer_type
from hyperdex_ir.dialects.lpu import Elementwise, IsView, has_trait, shape_of
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.isa.instructions import DEVICE, KV_BASE, NEXT_TOKEN, PARAM_BASE, ZERO
from hyperdex_ir.memory.collect import find_function
from hyperdex_ir.passes.lowering import convolution, model, ring, routing, vector  # noqa: F401  they register handlers
from hyperdex_ir.passes.lowering.function import (
    KIND,
    LAYER,
    LOWERINGS,
    ONE,
    FunctionLowering,
    Index,
    Place,
    Scalar,
    Shared,
    lowers,
)
from hyperdex_ir.passes.lowering.views import View


def lower_block(to: FunctionLowering, block: Block) -> None:
    """Emits everything but the block's terminator."""
    for op in block.ops:
        if op is block.last_op:
            to.op = op
            return
        to.op = op
        if isinstance(op, lpu.ConstantOp):
            to.places[op.res] = Scalar(op.value.value.data)
        elif not isinstance(op, lpu.HoldsParameter):
            _lower(to, op)


def _lower(to: FunctionLowering, op: Operation) -> None:
    handler = LOWERINGS.get(type(op))
    if handler is None:
        raise to.error("has no instructions")
    handler(to, op)


# ---------------------------------------------------------------------------------------------------- main
def lower_main(shared: Shared, source: FuncOp) -> FuncOp:
    """Lowers @main: the operations before the layers, the layers, the head; then the logits go to HBM."""
    block = Block()
    to = FunctionLowering(shared, "main", block)
    for argument, index in zip(source.body.block.args, ("token", "position"), strict=True):
        to.places[argument] = Index(index)
    to.op = source
    if shared.layout.layers:
        to.emit("set", dst=PARAM_BASE, value=shared.memory.layer_start)
        to.emit("set", dst=KV_BASE, value=shared.memory.kv_layer_start)
    lower_block(to, source.body.block)
    _give_logits(to)
    first: list[Operation] = [
        isa.OPS["multiply"](dst=register, a=DEVICE, value=words, location=source.location)
        for words, register in shared.offsets.items()
    ]
    if shared.uses_one:
        first.insert(0, isa.OPS["set"](dst=ONE, value=1, location=source.location))
    block.insert_ops_before(first, block.ops.first)  # pyright: ignore[reportArgumentType]
    return _function("main", block, source)


def _give_logits(to: FunctionLowering) -> None:
    logits = to.contiguous(to.op.operands[0])
    if logits.rows != "head":
        raise to.error("the logits must come through lpu.select_rows")
    source, rows = LmuUse(logits.buffer, logits.offset), to.rows_register("head")
    memory, columns = to.shared.memory, logits.columns
    to.emit("store", dst=HbmRef(memory.logits), pitch=4 * columns, src=source, columns=columns, rows=rows)
    settings = HbmRef(memory.sampling)
    to.emit("sample", dst=NEXT_TOKEN, src=source, columns=columns, rows=rows, settings=settings)


def _function(name: str, block: Block, source: FuncOp) -> FuncOp:
    end = ReturnOp()
    end.location = source.location
    block.add_op(end)
    function = FuncOp(name, ([argument.type for argument in block.args], []), Region(block))
    function.location = source.location
    return function


# ---------------------------------------------------------------------------------------------------- layers
@dataclass(frozen=True)
class _Passed:
    """Arguments passed to a function: the buffers, and the place of each argument in them (by the buffer's number)."""

    buffers: tuple[SSAValue, ...]
    places: tuple[Place, ...]
    numbers: tuple[int, ...]

    def described(self) -> list[object]:
        """Description of everything except the identity of the buffers."""
        return [
            (number, buffer_type(place.buffer).at(None), place.offset, place.dims, place.strides)
            if isinstance(place, View)
            else place
            for place, number in zip(self.places, self.numbers, strict=True)
        ]


def _pass_places(places: list[Place]) -> _Passed:
    buffers: dict[SSAValue, int] = {}
    numbers = [buffers.setdefault(place.buffer, len(buffers)) if isinstance(place, View) else -1 for place in places]
    return _Passed(tuple(buffers), tuple(places), tuple(numbers))


@lowers(lpu.LayerOp)
def lower_layer(to: FunctionLowering, op: lpu.LayerOp) -> None:
    """A call; then the base registers move on to the next layer."""
    if len(op.res) != 1 or not op.inputs or op.inputs[0].type != op.res[0].type:
        raise to.error("must hand on one value, of its first operand's type")
    to.places[op.res[0]] = hidden = _owned(to, op.inputs[0])
    _call(to, op.function, [hidden, *(to.place(value) for value in op.inputs[1:])])


@lowers(lpu.LayersOp)
def lower_layers(to: FunctionLowering, op: lpu.LayersOp) -> None:
    """A repeat over the layers: the table gives the number of the function, and each call is skipped unless it has that
    number."""
    to.places[op.res] = hidden = _owned(to, op.inputs[0])
    places = [hidden, *(to.place(value) for value in op.inputs[1:])]
    count = len(op.numbers)
    table = HbmRef(to.shared.memory.main.parameters[op.key_name])

    def one_layer() -> None:
        to.emit("lookup", dst=KIND, table=table, index=LAYER, limit=count)
        to.emit("add", dst=LAYER, a=LAYER, b=ZERO, value=1)
        for number, name in enumerate(op.functions):
            _skip_unless(to, number, lambda name=name: _call(to, name, places))

    to.emit("set", dst=LAYER, value=0)
    to.repeat(count, one_layer)


def _skip_unless(to: FunctionLowering, number: int, body: Callable[[], None]) -> None:
    """Emits `body` to be run when the layer's function has that number."""
    skip = isa.SkipUnlessOp(KIND, number, location=to.op.location)
    to.block.add_op(skip)
    outer, to.block = to.block, skip.body.block
    body()
    to.block = outer


def _call(to: FunctionLowering, name: str, places: list[Place]) -> None:
    """A call; then the base registers move on to the next layer."""
    if not to.is_main:
        raise to.error("a layer cannot run a layer")
    passed = _pass_places(places)
    if name not in to.shared.functions:
        source = find_function(to.shared.module, name)
        to.shared.functions[name] = (passed.described(), lower_layer_function(to.shared, source, passed))
    elif to.shared.functions[name][0] != passed.described():
        raise to.error(f"calls of @{name} pass values that lie differently")
    to.block.add_op(isa.CallOp(name, passed.buffers, location=to.op.location))
    function = to.shared.memory.functions[name]
    for register, step in ((PARAM_BASE, function.parameter_bytes), (KV_BASE, function.cache_bytes)):
        if step:
            to.emit("add", dst=register, a=register, b=ZERO, value=step)


def _owned(to: FunctionLowering, value: SSAValue) -> View:
    """The buffer of a value that no other operation reads, to be overwritten; a copy when there is no such buffer."""
    view = to.view(value)
    if _is_own(to.op, value) and value.has_one_use() and view.is_front and view.rows != 1:
        return view
    target = to.fresh("tokens" if view.rows == 1 else view.rows, view.dims, value.name_hint)
    to.copy(view, target)
    return target


def _is_own(op: Operation, value: SSAValue) -> bool:
    """Test that the buffer is made anew each time that the operation runs: neither outside of a repeat around it nor by
    the caller of a layer. The hidden buffer counts as made anew.
    """
    owner = value.owner
    if isinstance(value, BlockArgument):
        return owner is op.parent and value.index == 0
    if not isinstance(owner, Operation) or owner.parent is not op.parent or has_trait(owner, IsView):
        return False
    return not isinstance(owner, lpu.HoldsParameter | lpu.RotaryTableOp)


@lowers(lpu.RepeatOp)
def lower_repeat(to: FunctionLowering, op: lpu.RepeatOp) -> None:
    """One repeat around the body; the carried value stays in its buffer."""
    if len(op.inputs) != 1:
        raise to.error("must carry one value")
    carried = _owned(to, op.inputs[0])
    to.places[op.body.block.args[0]] = carried
    outer, outer_op = to.block, to.op
    repeat = isa.RepeatOp(op.trip_count.value.data, location=op.location)
    outer.add_op(repeat)
    to.block = repeat.body.block
    lower_block(to, op.body.block)
    _copy_unless_there(to, to.view(to.op.operands[0]), carried)
    to.block, to.op = outer, outer_op
    to.places[op.res[0]] = carried


def _copy_unless_there(to: FunctionLowering, view: View, target: View) -> None:
    if view.buffer is not target.buffer:
        to.copy(view, target)
    elif not view.is_front:  # a copy may take several instructions, which must not see words that the first ones wrote
        to.copy(to.copied(view), target)


def lower_layer_function(shared: Shared, source: FuncOp, passed: _Passed) -> FuncOp:
    """A function that takes the buffers passed to it."""
    name = source.sym_name.data
    block = Block(arg_types=[buffer_type(buffer).at(None) for buffer in passed.buffers])
    to = FunctionLowering(shared, name, block)
    to.op = source
    for argument, place, number in zip(source.body.block.args, passed.places, passed.numbers, strict=True):
        if isinstance(place, View):
            buffer = block.args[number]
            buffer.name_hint = buffer.name_hint or argument.name_hint
            place = View(buffer, place.offset, place.dims, place.strides)
        to.places[argument] = place
    hidden = to.view(source.body.block.args[0])
    end = source.body.block.last_op
    if not isinstance(end, ReturnOp) or len(end.operands) != 1:
        raise LoweringError(f"@{name}: a layer must return one value")
    if _may_work_in_place(source.body.block, end.operands[0], hidden):
        to.targets[end.operands[0]] = hidden
    lower_block(to, source.body.block)
    _copy_unless_there(to, to.view(end.operands[0]), hidden)
    return _function(name, block, source)


# ---------------------------------------------------------------------------------------------------- in place
def _may_work_in_place(block: Block, result: SSAValue, hidden: View) -> bool:
    """Test that the operation that makes the result can write it over the hidden value.

    It can when no operation behind it reads the hidden value, and when it reads the hidden value itself only element by
    element, at the place that it then writes.
    """
    producer = result.owner
    if not isinstance(producer, Operation) or hidden.dims != shape_of(result)[1:]:
        return False
    argument = block.args[0]
    seen = _views_of(argument)
    order = {op: number for number, op in enumerate(block.ops)}
    users = [block.find_ancestor_op_in_block(use.operation) for value in seen for use in value.uses]
    if isinstance(producer, lpu.AllGatherOp):
        start = order.get(ring.first_writer(producer), 0)
        return ring.fits_in(producer, hidden) and all(user is None or order[user] < start for user in users)
    if not _writes_once(producer):
        return False
    if any(user is not None and order[user] > order[producer] for user in users):
        return False
    return all(_reads_in_place(producer, number, argument, seen) for number in range(len(producer.operands)))


def _writes_once(op: Operation) -> bool:
    if isinstance(op, lpu.LinearOp):
        return len(shape_of(op.x)) == 2
    return has_trait(op, Elementwise) or isinstance(op, lpu.RmsNormOp | lpu.LayerNormOp)


def _views_of(argument: BlockArgument) -> list[SSAValue]:
    """The value and all values that may lie in its buffer: views, and values carried by a repeat."""
    found: list[SSAValue] = [argument]
    for value in found:
        users = [use.operation for use in value.uses]
        ops = [op for op in users if has_trait(op, IsView) or isinstance(op, lpu.RepeatOp)]
        found += [result for op in ops for result in op.results]
    return found


def _reads_in_place(op: Operation, number: int, argument: SSAValue, seen: list[SSAValue]) -> bool:
    operand = op.operands[number]
    if operand not in seen:
        return True
    if operand is not argument or operand.type != op.results[0].type:
        return False
    if isinstance(op, lpu.LinearOp):
        return number > 0  # times and plus; x is read by every column
    return has_trait(op, Elementwise)


LOWERINGS.check_complete(lpu.WeightOp, lpu.ConstantOp, lpu.LayerConstantOp, lpu.YieldOp)
