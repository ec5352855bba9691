"""Layout of the tensors that an `lpu` module stores, from which memory is planned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle, islice

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.isa.instructions import MATRIX_TYPES
from hyperdex_ir.memory.layout import ConvState, FunctionLayout, KvCache, ModelLayout, Parameter, Shard, Slot

#: Element types of weights.
_STORED = (*MATRIX_TYPES, "f32")
#: Limit for the layers of a model: config.json has the same, and a module's text could ask for any number in few lines.
MAX_LAYERS = 4096


def find_function(module: ModuleOp, name: str) -> FuncOp:
    """The function with this name. Raises LoweringError when there is none."""
    for op in module.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == name:
            return op
    raise LoweringError(f"the module has no function @{name}")


def parameter_of(op: lpu.HoldsParameter) -> Parameter:
    """The parameter that a weight operation names, or that of a constant with a different value in each layer.

    Raises LoweringError for an element type that checkpoints are not converted to.
    """
    if isinstance(op, lpu.LayerConstantOp):
        return Parameter(op.key_names[0], "f32", (), op.key_names, op.values)
    type_ = op.res.type
    assert isinstance(op, lpu.WeightOp)
    assert isinstance(type_, TensorType)
    shards = None if op.shards is None else tuple(_shard_of(shard) for shard in op.shards)
    names = op.key_names if shards is None else map(_sharded_name, op.key_names, shards)
    name, element = "+".join(names), str(type_.element_type)
    if element not in _STORED:
        raise LoweringError(f"{name}: elements of type {element}, stored are {', '.join(_STORED)}")
    return Parameter(name, element, shape_of(type_), op.key_names, shards=shards)


def _shard_of(sharding: lpu.ShardingAttr) -> Shard:
    (segment,) = sharding.segments
    return Shard(sharding.dim, segment.size, segment.extent, segment.starts)


def _sharded_name(key: str, shard: Shard) -> str:
    """Name with the sharded dimension, since one tensor may be stored twice: a table by columns, the head by rows."""
    return f"{key}@{('rows', 'columns')[shard.dim]}"


def is_shared(parameter: Parameter) -> bool:
    """Test for a parameter of a layer function that is the same for all layers."""
    return not any("*" in key for key in parameter.keys)


def running_order(main: FuncOp) -> list[str]:
    """The layer functions that main runs, one name for each layer. Raises LoweringError for more than MAX_LAYERS."""
    order = list(islice(_layers(main.body.block.ops), MAX_LAYERS + 1))
    if len(order) > MAX_LAYERS:
        raise LoweringError(f"@main runs more than {MAX_LAYERS} layers", "an lpu.repeat of fewer trips is expected")
    return order


def _layers(ops: Iterable[Operation]) -> Iterator[str]:
    for op in ops:
        if isinstance(op, lpu.LayerOp):
            yield op.function
        elif isinstance(op, lpu.LayersOp):
            yield from (op.functions[number] for number in op.numbers)
        elif isinstance(op, lpu.RepeatOp):
            body = list(islice(_layers(op.body.block.ops), MAX_LAYERS + 1))
            yield from islice(cycle(body), min(op.trip_count.value.data, MAX_LAYERS + 1) * len(body))


def _parameters(function: FuncOp) -> list[Parameter]:
    """The parameters of a function, in order of first use."""
    found: dict[str, Parameter] = {}
    for op in function.walk():
        for value in op.operands:
            if isinstance(value.owner, lpu.HoldsParameter):
                _add(found, parameter_of(value.owner))
        if isinstance(op, lpu.HoldsTable) and op.table is not None:
            key, numbers = op.table
            _add(found, Parameter(key, "i64", (len(numbers),), (key,), numbers))
    return list(found.values())


def _add(found: dict[str, Parameter], parameter: Parameter) -> None:
    """Adds a parameter unless it has been added. Raises LoweringError when a different one has its name."""
    if found.setdefault(parameter.name, parameter) != parameter:
        raise LoweringError(f"{parameter.name}: used in two forms", "this model cannot be sharded in this way")


def _slot_of(op: lpu.StatefulOp) -> Slot:
    match op:
        case lpu.AttentionOp():
            _, heads, key_size = shape_of(op.key)
            return KvCache(heads, key_size, shape_of(op.value)[2])
        case lpu.ShortConvOp():
            return ConvState(op.history, shape_of(op.taps)[0])
    raise NotImplementedError(op.name)


def _caches(function: FuncOp) -> tuple[Slot, ...]:
    """The caches of a function, in order of slots. Raises LoweringError unless the slots are 0, 1, 2, ..."""
    slots: dict[int, Slot] = {}
    for op in function.walk():
        if isinstance(op, lpu.StatefulOp):
            slots[op.slot.value.data] = _slot_of(op)
    if sorted(slots) != list(range(len(slots))):
        raise LoweringError(f"@{function.sym_name.data}: KV slots {sorted(slots)} must be numbered from 0 without gaps")
    return tuple(slots[i] for i in range(len(slots)))


def collect_layout(module: ModuleOp) -> ModelLayout:
    """The layout of an `lpu` module, its layers outlined or not.

    A parameter of a layer function without `*` in its keys belongs to main. Raises LoweringError when the module lacks
    @main, an attribute, or a layer's function, or when a constant does not have one number for each layer.
    """
    main = find_function(module, "main")
    order = running_order(main)
    names = list(dict.fromkeys(order))
    main_parameters = {parameter.name: parameter for parameter in _parameters(main)}
    if of_layers := [p.name for p in main_parameters.values() if p.values is not None and not is_shared(p)]:
        raise LoweringError(f"@main uses {of_layers[0]}, which is another in each layer")
    functions: list[FunctionLayout] = []
    for name in names:
        function = find_function(module, name)
        own = []
        for parameter in _parameters(function):
            if is_shared(parameter):
                _add(main_parameters, parameter)
            else:
                own.append(parameter)
            count = None if parameter.values is None or is_shared(parameter) else len(parameter.values)
            if count not in (None, len(order)):
                raise LoweringError(f"{parameter.name} has {count} numbers, there are {len(order)} layers")
        functions.append(FunctionLayout(name, tuple(own), _caches(function)))
    return ModelLayout(
        matrix_type=ModuleFacts(module).matrix_type,
        vocab_size=_vocab_size(main.function_type.outputs.data),
        main=FunctionLayout("main", tuple(main_parameters.values()), _caches(main)),
        functions=tuple(functions),
        layers=tuple(names.index(name) for name in order),
    )


def _vocab_size(outputs: tuple[Attribute, ...]) -> int:
    if len(outputs) != 1 or not isinstance(outputs[0], TensorType) or len(shape_of(outputs[0])) != 2:
        raise LoweringError("@main must give logits of type tensor<?xVxf32>")
    return shape_of(outputs[0])[1]
