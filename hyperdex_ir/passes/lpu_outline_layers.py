"""`lpu-outline-layers`: layers that differ only in their number become one function, run again and again.

Layers are told apart by module path (`model.layers.3...`). Two are the same function when they are equal up to the
layer number in parameter keys and locations, and up to where their KV slots start. Runs and periods of equal layers
become nested `lpu.repeat`s around `lpu.layer`. Parameters and constants move into the function; one value is carried
from layer to layer; all else that a layer captures is the same for all. When the layers do not form such a chain, the
module stays as it is.
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
from hyperdex_ir.passes.layer_chain import Layer, LayerChain, find_chain
from hyperdex_ir.passes.layers import LayerStack, find_stack
from hyperdex_ir.xdsl_support import module_path, path_location

Item = int | tuple[int, "list[Item]"]


def compress(kinds: Sequence[int]) -> list[Item]:
    """A sequence as nested repeats: (count, items), or a kind that stands alone.

    From the left, the period that covers most is taken; of equals, the shortest.
    """
    items: list[Item] = []
    place = 0
    while place < len(kinds):
        period, count = _best_period(kinds[place:])
        body = list(kinds[place : place + period])
        items.append((count, compress(body)) if count > 1 else body[0])
        place += period * count
    return items


def _best_period(kinds: Sequence[int]) -> tuple[int, int]:
    best = (1, 1)
    for period in range(1, len(kinds) // 2 + 1):
        count = 1
        while kinds[count * period : (count + 1) * period] == kinds[:period]:
            count += 1
        if count > 1 and period * count > best[0] * best[1]:
            best = (period, count)
    return best


# ---------------------------------------------------------------------------------------------------- the functions
def _generic(op: Operation, layer: Layer, stack: LayerStack) -> None:
    """Takes the layer's number out of a copied operation."""
    op.location = path_location(stack.generic(module_path(op), layer.number))
    if isinstance(op, lpu.WeightOp):
        op.keys = lpu.WeightOp([stack.generic(key, layer.number) for key in op.key_names], op.res.type).keys
    if isinstance(op, lpu.AttentionOp):
        op.slot = IntegerAttr(op.slot.value.data - layer.first_slot, op.slot.type)


def build_function(name: str, layer: Layer, stack: LayerStack) -> FuncOp:
    """The function of a layer: the carried value comes first, then what else it captures."""
    arguments = [layer.carried, *layer.invariants]
    block = Block(arg_types=[value.type for value in arguments])
    values: dict[SSAValue, SSAValue] = {}
    for value, argument in zip(arguments, block.args, strict=True):
        argument.name_hint = value.name_hint
        values[value] = argument
    block.args[0].name_hint = "hidden"

    def copy(op: Operation) -> None:
        new = op.clone(values)
        _generic(new, layer, stack)
        block.add_op(new)

    for op in layer.ops:
        for value in op.operands:
            if value not in values and isinstance(value.owner, lpu.WeightOp | lpu.ConstantOp):
                copy(value.owner)
        copy(op)
    block.add_op(ReturnOp(values[layer.output]))
    return FuncOp(name, ([value.type for value in arguments], [layer.output.type]), Region(block))


def _function_names(chain: LayerChain, prefix: str) -> list[str]:
    count = len(chain.kinds())
    return [prefix] if count == 1 else [f"{prefix}.kind{i}" for i in range(count)]


# ---------------------------------------------------------------------------------------------------- the calls
@dataclass(frozen=True)
class _Caller:
    """Emits repeats and calls."""

    stack: LayerStack
    names: Sequence[str]
    kinds: Sequence[Layer]

    def emit(self, items: Sequence[Item], hidden: SSAValue, block: Block) -> SSAValue:
        """Adds the calls to the end of the block; gives the value that comes out."""
        for item in items:
            op = self._layer(item, hidden) if isinstance(item, int) else self._repeat(*item, hidden)
            op.location = path_location(self.stack.prefix)
            op.res[0].name_hint = "hidden"
            block.add_op(op)
            hidden = op.res[0]
        return hidden

    def _layer(self, kind: int, hidden: SSAValue) -> lpu.LayerOp:
        return lpu.LayerOp(self.names[kind], [hidden, *self.kinds[kind].invariants], [hidden.type])

    def _repeat(self, count: int, items: Sequence[Item], hidden: SSAValue) -> lpu.RepeatOp:
        body = Block(arg_types=[hidden.type])
        body.args[0].name_hint = "hidden"
        body.add_op(lpu.YieldOp(self.emit(items, body.args[0], body)))
        return lpu.RepeatOp(count, [hidden], Region(body))


def _rebuild_main(block: Block, chain: LayerChain, caller: _Caller, items: Sequence[Item]) -> None:
    """Everything that needs no layer, then the calls, then the rest."""
    layer_ops = [op for layer in chain.layers for op in layer.ops]
    gone = set(layer_ops)
    others = [op for op in block.ops if op not in gone]
    for op in others:
        op.detach()
    block.add_ops(op for op in others if op not in chain.behind)
    result = caller.emit(items, chain.layers[0].carried, block)
    chain.layers[-1].output.replace_uses_with_if(result, lambda use: use.operation not in gone)
    for op in reversed(layer_ops):
        op.detach()
        op.erase()
    block.add_ops(op for op in others if op in chain.behind)
    for op in others:
        if isinstance(op, lpu.WeightOp | lpu.ConstantOp) and not op.res.uses:
            op.detach()
            op.erase()


def outline(module: ModuleOp, function: FuncOp) -> bool:
    """Outlines the layers of a function; says whether it did."""
    block = function.body.block
    if (stack := find_stack(block)) is None or (chain := find_chain(block, stack)) is None:
        return False
    names = _function_names(chain, stack.prefix)
    functions = [build_function(name, layer, stack) for name, layer in zip(names, chain.kinds(), strict=True)]
    items = compress([layer.kind for layer in chain.layers])
    _rebuild_main(block, chain, _Caller(stack, names, chain.kinds()), items)
    module.body.block.add_ops(functions)
    return True


@dataclass(frozen=True)
class LpuOutlineLayersPass(ModulePass):
    """Makes one function of all layers that differ only in their number."""

    name = "lpu-outline-layers"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [f for f in op.ops if isinstance(f, FuncOp) and not f.is_declaration]:
            if function.sym_name.data == "main":
                outline(op, function)
