"""`lpu-outline-layers`: one function, run repeatedly, for layers that differ only in their number.

Layers are told apart by module path (`model.layers.3...`). Two are the same function when they are equal up to the
layer number in parameter keys and locations, up to where their KV slots start, and up to the numbers of their
`lpu.constant`s; those that differ become parameters. Runs and periods of equal layers become nested `lpu.repeat`s
around `lpu.layer`; an order that this does not shorten becomes one `lpu.layers`, a table of function numbers.
Parameters and constants move into the function; one value is carried from layer to layer; every other value that a
layer captures is the same for all layers. When the layers do not form such a chain, the module stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from hyperdex_ir.dialects import lpu
from hyperdex_ir.isa.fields import f32_bits
from hyperdex_ir.passes.outlining.chain import Layer, LayerChain, find_chain
from hyperdex_ir.passes.outlining.match import LayerStack, find_stack
from hyperdex_ir.passes.outlining.order import Item, compress, is_shorter_as_table
from hyperdex_ir.support.xdsl import module_path, path_location


# ---------------------------------------------------------------------------------------------------- the functions
def _generic(op: Operation, layer: Layer, stack: LayerStack) -> None:
    """Takes the layer's number out of a copied operation."""
    op.location = path_location(stack.generic(module_path(op), layer.number))
    if isinstance(op, lpu.WeightOp):
        op.keys = lpu.WeightOp([stack.generic(key, layer.number) for key in op.key_names], op.res.type).keys
    if isinstance(op, lpu.StatefulOp):
        op.slot = IntegerAttr(op.slot.value.data - layer.first_slot, op.slot.type)


class _FunctionBuilder:
    """Copies a layer into a function; `order` has all layers that run, `arguments` the values passed to it."""

    def __init__(self, layer: Layer, order: Sequence[Layer], stack: LayerStack, arguments: Sequence[SSAValue]):
        self.layer = layer
        self.stack = stack
        self.order = order
        self.block = Block(arg_types=[value.type for value in arguments])
        self.values: dict[SSAValue, SSAValue] = dict(zip(arguments, self.block.args, strict=True))
        self.constants: dict[tuple[int, ...], SSAValue] = {}
        self.used_constants = 0
        for value, argument in self.values.items():
            argument.name_hint = value.name_hint
        self.block.args[0].name_hint = "hidden"

    def build(self, name: str) -> FuncOp:
        for op in self.layer.ops:
            self._copy_with_leaves(op)
        result = self.values[self.layer.output]
        end = ReturnOp(result)
        end.location = path_location(self.stack.prefix)
        self.block.add_op(end)
        inputs = [argument.type for argument in self.block.args]
        function = FuncOp(name, (inputs, [result.type]), Region(self.block))
        function.location = end.location
        return function

    def _copy_with_leaves(self, op: Operation) -> None:
        leaves = [(number, value.owner) for number, value in enumerate(op.operands)]
        constants = {number: self._constant(op, leaf) for number, leaf in leaves if isinstance(leaf, lpu.ConstantOp)}
        for value in op.operands:
            if value not in self.values and isinstance(value.owner, lpu.HoldsParameter):
                self._copy(value.owner)
        new = self._copy(op)
        for number, constant in constants.items():
            new.operands[number] = constant

    def _copy(self, op: Operation) -> Operation:
        new = op.clone(self.values)
        _generic(new, self.layer, self.stack)
        self.block.add_op(new)
        return new

    def _constant(self, user: Operation, original: lpu.ConstantOp) -> SSAValue:
        """The next constant of the layer, for one operand of `user`: a parameter when it is not the same everywhere."""
        number = self.used_constants
        self.used_constants += 1
        alike = [layer.kind == self.layer.kind for layer in self.order]
        values = [layer.constants[number] if same else 0.0 for layer, same in zip(self.order, alike, strict=True)]
        bits = [f32_bits(value) for value in values]
        own = {pattern for pattern, same in zip(bits, alike, strict=True) if same}
        key = tuple(bits) if len(own) > 1 else tuple(own)
        if key not in self.constants:
            path = self.stack.generic(module_path(user), self.layer.number)
            op = self._layer_constant(path, values) if len(own) > 1 else original.clone()
            op.location = path_location(path)
            self.block.add_op(op)
            self.constants[key] = op.results[0]
        return self.constants[key]

    def _layer_constant(self, path: str, values: Sequence[float]) -> Operation:
        path = path if "*" in path else f"{self.stack.prefix}.*"
        number = sum(isinstance(value.owner, lpu.LayerConstantOp) for value in self.constants.values())
        return lpu.LayerConstantOp(f"{path}.constant{number}", values)


def _function_names(chain: LayerChain, prefix: str) -> list[str]:
    count = len(chain.kinds())
    return [prefix] if count == 1 else [f"{prefix}.kind{i}" for i in range(count)]


# ---------------------------------------------------------------------------------------------------- the calls
@dataclass(frozen=True)
class _Caller:
    """Emits repeats and calls. invariants: for each function, its arguments besides the carried value."""

    stack: LayerStack
    names: Sequence[str]
    invariants: Sequence[Sequence[SSAValue]]

    def emit(self, items: Sequence[Item], hidden: SSAValue, block: Block) -> SSAValue:
        """Adds the calls to the end of the block; returns the value that the last layer hands on."""
        for item in items:
            op = self._layer(item, hidden) if isinstance(item, int) else self._repeat(*item, hidden)
            hidden = self._add(op, block)
        return hidden

    def emit_table(self, order: Sequence[int], hidden: SSAValue, block: Block) -> SSAValue:
        """Adds all calls as one operation; the functions take the same arguments."""
        inputs = [hidden, *self.invariants[0]]
        return self._add(lpu.LayersOp(f"{self.stack.prefix}.order", order, self.names, inputs), block)

    def _add(self, op: Operation, block: Block) -> SSAValue:
        op.location = path_location(self.stack.prefix)
        op.results[0].name_hint = "hidden"
        block.add_op(op)
        return op.results[0]

    def _layer(self, kind: int, hidden: SSAValue) -> lpu.LayerOp:
        return lpu.LayerOp(self.names[kind], [hidden, *self.invariants[kind]], [hidden.type])

    def _repeat(self, count: int, items: Sequence[Item], hidden: SSAValue) -> lpu.RepeatOp:
        body = Block(arg_types=[hidden.type])
        body.args[0].name_hint = "hidden"
        end = lpu.YieldOp(self.emit(items, body.args[0], body))
        end.location = path_location(self.stack.prefix)
        body.add_op(end)
        return lpu.RepeatOp(count, [hidden], Region(body))


def _rebuild_main(block: Block, chain: LayerChain, caller: _Caller, as_table: bool) -> None:
    """Rebuilds the block: all operations that need no layer, then the calls, then the rest."""
    layer_ops = [op for layer in chain.layers for op in layer.ops]
    gone = set(layer_ops)
    others = [op for op in block.ops if op not in gone]
    for op in others:
        op.detach()
    block.add_ops(op for op in others if op not in chain.behind)
    order, first = [layer.kind for layer in chain.order], chain.layers[0].carried
    result = caller.emit_table(order, first, block) if as_table else caller.emit(compress(order), first, block)
    chain.layers[-1].output.replace_uses_with_if(result, lambda use: use.operation not in gone)
    for op in reversed(layer_ops):
        op.detach()
        op.erase()
    block.add_ops(op for op in others if op in chain.behind)
    for op in others:
        if lpu.has_trait(op, lpu.Source) and not op.results[0].uses:
            op.detach()
            op.erase()


def outline(module: ModuleOp, function: FuncOp, order: Sequence[int] | None = None) -> bool:
    """Outlines the layers of a function; returns True if it did.

    order: for each layer that runs, the number of the layer in the function that stands for it; None: all layers are in
    the function.
    """
    block = function.body.block
    if (stack := find_stack(block)) is None or (chain := find_chain(block, stack, order)) is None:
        return False
    kinds = chain.kinds()
    as_table = is_shorter_as_table([layer.kind for layer in chain.order])
    invariants = [layer.invariants for layer in kinds]
    if as_table:  # all functions take the same arguments
        union = list(dict.fromkeys(value for values in invariants for value in values))
        invariants = [union] * len(kinds)
    names = _function_names(chain, stack.prefix)
    functions = [
        _FunctionBuilder(layer, chain.order, stack, [layer.carried, *values]).build(name)
        for name, layer, values in zip(names, kinds, invariants, strict=True)
    ]
    _rebuild_main(block, chain, _Caller(stack, names, invariants), as_table)
    module.body.block.add_ops(functions)
    return True


@dataclass(frozen=True)
class LpuOutlineLayersPass(ModulePass):
    """Makes one function of all layers that differ only in their number and their constants."""

    name = "lpu-outline-layers"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [f for f in op.ops if isinstance(f, FuncOp) and not f.is_declaration]:
            if function.sym_name.data == "main":
                outline(op, function)
