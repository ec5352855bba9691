"""The layers of a function as a chain: the values that each captures and hands on, and the kinds of equal layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.ir import Block, Operation, SSAValue
from xdsl.traits import is_side_effect_free

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import Elementwise, MovesData, Source, has_trait
from hyperdex_ir.passes.outlining.match import LayerStack


@dataclass
class Layer:
    """One layer: its operations in order, without parameters and constants.

    carried: the value that the layer before it hands on; invariants: the other values that it captures, in order of
    first use.
    constants: the numbers that its operations take, one for each operand that is a constant.
    """

    number: int
    ops: list[Operation]
    carried: SSAValue
    invariants: list[SSAValue]
    output: SSAValue
    first_slot: int
    kind: int = -1
    constants: tuple[float, ...] = ()


@dataclass
class LayerChain:
    """Layers in running order, and the operations that need the last one's output.

    order: for each layer that runs, the number of the one in `layers` that stands for it. These are all of them, unless
    equal layers are present only once.
    """

    layers: list[Layer]
    order: list[Layer] = field(default_factory=list)
    behind: set[Operation] = field(default_factory=set)

    def kinds(self) -> list[Layer]:
        """The first layer of each kind."""
        first: dict[int, Layer] = {}
        for layer in self.layers:
            first.setdefault(layer.kind, layer)
        return list(first.values())


def find_chain(block: Block, stack: LayerStack, order: Sequence[int] | None = None) -> LayerChain | None:
    """The chain of a block's layers, or None when they do not form one.

    order: for each layer that runs, the number of the layer in the block that stands for it; None: each for itself.
    """
    numbers = _numbers(block, stack)
    by_number: dict[int, list[Operation]] = {}
    for op, number in numbers.items():
        if number is not None:
            by_number.setdefault(number, []).append(op)
    order = range(len(by_number)) if order is None else order
    if not by_number or list(by_number) != list(dict.fromkeys(order)):
        return None
    chain = LayerChain([], behind=_behind(block, numbers))
    for number, ops in by_number.items():
        layer = _make_layer(number, ops, chain.layers)
        if layer is None:
            return None
        chain.layers.append(layer)
    if not _is_closed(chain, numbers):
        return None
    _number_kinds(chain, stack)
    present = {layer.number: layer for layer in chain.layers}
    chain.order = [present[number] for number in order]
    return chain


# ---------------------------------------------------------------------------------------------------- layers of ops
def _numbers(block: Block, stack: LayerStack) -> dict[Operation, int | None]:
    """The layer of every operation but parameters and constants.

    An operation that layers share (a reshape of the rotary tables, made once by CSE) belongs to none of them.
    """
    numbers = {op: stack.number_of(op) for op in block.ops if not has_trait(op, Source)}
    for op, number in numbers.items():
        users = [numbers.get(use.operation) for result in op.results for use in result.uses]
        shared = number is not None and any(user is not None and user != number for user in users)
        if shared and (chain := _movable(op, numbers)) is not None:
            numbers.update(dict.fromkeys(chain))
    return numbers


def _movable(op: Operation, numbers: dict[Operation, int | None]) -> list[Operation] | None:
    """The operation and the producers that would have to leave the layer with it; None when they cannot."""
    if not (has_trait(op, Elementwise) or has_trait(op, MovesData)):
        return None
    found: list[Operation] = [op]
    for value in op.operands:
        owner = value.owner
        if isinstance(owner, Block) or numbers.get(owner) is None:
            continue
        if (more := _movable(owner, numbers)) is None:
            return None
        found += more
    return found


def _behind(block: Block, numbers: dict[Operation, int | None]) -> set[Operation]:
    """The operations outside of layers that depend on one, the block's terminator among them."""
    tainted: set[Operation] = set()
    behind: set[Operation] = set()
    for op in block.ops:
        depends = any(value.owner in tainted for value in op.operands)
        if numbers.get(op) is not None:
            tainted.add(op)
        elif depends or op is block.last_op:
            tainted.add(op)
            behind.add(op)
    return behind


# ---------------------------------------------------------------------------------------------------- one layer
def _captures(ops: list[Operation]) -> list[SSAValue]:
    inside = set(ops)
    captures: dict[SSAValue, None] = {}
    for op in ops:
        for value in op.operands:
            if value.owner not in inside and not has_trait(value.owner, Source):
                captures[value] = None
    return list(captures)


def _outputs(ops: list[Operation]) -> list[SSAValue]:
    inside = set(ops)
    results = [result for op in ops for result in op.results]
    return [result for result in results if any(use.operation not in inside for use in result.uses)]


def _make_layer(number: int, ops: list[Operation], before: list[Layer]) -> Layer | None:
    captures, outputs = _captures(ops), _outputs(ops)
    if len(outputs) != 1 or any(op.regions for op in ops):
        return None
    if before:
        carried = before[-1].output
    else:
        carried = next((value for value in captures if value.type == outputs[0].type), None)
    if carried is None or carried not in captures or carried.type != outputs[0].type:
        return None
    stateful = [op for op in ops if isinstance(op, lpu.StatefulOp)]
    if len(stateful) != sum(not is_side_effect_free(op) for op in ops):
        return None
    first_slot = sum(isinstance(op, lpu.StatefulOp) for layer in before for op in layer.ops)
    if [op.slot.value.data for op in stateful] != [first_slot + i for i in range(len(stateful))]:
        return None
    invariants = [value for value in captures if value is not carried]
    return Layer(number, ops, carried, invariants, outputs[0], first_slot)


def _is_closed(chain: LayerChain, numbers: dict[Operation, int | None]) -> bool:
    """Test that layers take only values made before the first layer, and hand on only to the next one."""
    for layer in chain.layers:
        for value in (*layer.invariants, *([layer.carried] if layer is chain.layers[0] else ())):
            if value.owner in chain.behind or numbers.get(value.owner) is not None:  # pyright: ignore[reportArgumentType]
                return False
    for layer, following in zip(chain.layers, chain.layers[1:], strict=False):
        allowed = (layer.number, following.number)
        if any(numbers.get(use.operation) not in allowed for use in layer.output.uses):
            return False
    return True


# ---------------------------------------------------------------------------------------------------- equal layers
def _number_kinds(chain: LayerChain, stack: LayerStack) -> None:
    kinds: dict[str, int] = {}
    outside: dict[SSAValue, int] = {}
    for layer in chain.layers:
        for value in layer.invariants:
            outside.setdefault(value, len(outside))
        layer.kind = kinds.setdefault(_fingerprint(layer, stack, outside), len(kinds))
        operands = [value.owner for op in layer.ops for value in op.operands]
        layer.constants = tuple(op.value.value.data for op in operands if isinstance(op, lpu.ConstantOp))


def _fingerprint(layer: Layer, stack: LayerStack, outside: dict[SSAValue, int]) -> str:
    """A text that is the same for layers that are equal up to their number and their constants."""
    names = {value: f"outside{number}" for value, number in outside.items()} | {layer.carried: "carried"}
    lines: list[str] = []
    for op in layer.ops:
        operands = [names.get(value) or _leaf(value, layer, stack) for value in op.operands]
        properties = [f"{key}={_property(op, key, layer)}" for key in sorted(op.properties)]
        types = [str(result.type) for result in op.results]
        lines.append(" ".join([op.name, *operands, *properties, *types]))
        names.update({result: f"{len(lines)}.{i}" for i, result in enumerate(op.results)})
    return "\n".join([*lines, names[layer.output]])


def _property(op: Operation, key: str, layer: Layer) -> str:
    if isinstance(op, lpu.StatefulOp) and key == "slot":
        return str(op.slot.value.data - layer.first_slot)
    return str(op.properties[key])


def _leaf(value: SSAValue, layer: Layer, stack: LayerStack) -> str:
    op = value.owner
    if isinstance(op, lpu.WeightOp):
        shards = "" if op.shards is None else f"{op.shards}"
        return f"{[stack.generic(key, layer.number) for key in op.key_names]}{shards}:{value.type}"
    return "constant" if isinstance(op, lpu.ConstantOp) else str(value.owner)
