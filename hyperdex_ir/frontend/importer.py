"""A traced graph -> a module of the `lpu` dialect."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import builtin
from xdsl.dialects.builtin import FunctionType, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region

from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import OptionError, UnsupportedModelError
from hyperdex_ir.frontend.equal_layers import IrregularLayersError
from hyperdex_ir.frontend.folding import Folding, fold_layers
from hyperdex_ir.frontend.graph import TOKENS, Graph
from hyperdex_ir.frontend.handlers import HANDLERS
from hyperdex_ir.frontend.handlers.builder import Builder, Index
from hyperdex_ir.frontend.prescan import check_supported
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.passes.lpu_outline_layers import outline


def import_graph(
    graph: Graph,
    *,
    target: str,
    max_length: int,
    matrix_type: str,
    outlined: bool = True,
    kinds: Sequence[int] | None = None,
) -> ModuleOp:
    """Imports a graph as a module whose `@main(input_ids, position_ids)` computes the same.

    outlined: equal layers that form a chain are imported once, as a function; otherwise everything is in `@main`.
    kinds: for each layer, the number of the layer in the graph that stands for it; None: the graph has all layers.
    Raises UnsupportedOpError for unknown operators (all at once), UnsupportedModelError for tensors that no checkpoint
    holds, OptionError for an unknown matrix type, IrregularLayersError when `kinds` does not fit the graph.
    """
    if matrix_type not in FORMATS:
        raise OptionError(f"matrix type {matrix_type!r}: must be one of {', '.join(FORMATS)}")
    folding = fold_layers(graph, kinds) if outlined else None
    if kinds is not None and folding is None:
        raise IrregularLayersError("the layers form no chain")
    check_supported(graph, () if folding is None else folding.skipped)
    if graph.contentless:
        raise UnsupportedModelError(f"{graph.root}: not in any checkpoint: {', '.join(graph.contentless)}")
    main = _import_main(graph, getattr(builtin, matrix_type), max_length, folding)
    attributes: dict[str, Attribute] = {
        "lpu.target": StringAttr(target),
        "lpu.max_length": IntegerAttr(max_length, 64),
        "lpu.matrix_type": StringAttr(matrix_type),
    }
    module = ModuleOp([main], attributes)
    if folding is not None and not outline(module, main, folding.order):
        if kinds is not None:
            raise IrregularLayersError("the layers cannot be outlined")
        return import_graph(graph, target=target, max_length=max_length, matrix_type=matrix_type, outlined=False)
    module.verify()
    return module


def _import_main(graph: Graph, matrix_type: Attribute, max_length: int, folding: Folding | None) -> FuncOp:
    """Imports the whole graph; with a folding, one layer of each kind, one after another."""
    ids = lpu.tokens_type(element=i64)
    block = Block(arg_types=[ids, ids])
    builder = Builder(graph, block, matrix_type, max_length, {} if folding is None else folding.stand_in)
    for argument, node, name in zip(block.args, graph.inputs, ("input_ids", "position_ids"), strict=True):
        argument.name_hint = name
        builder.values[node] = Index(builder.reshape(argument, (1, TOKENS)))
    skipped = frozenset() if folding is None else folding.skipped
    for node in graph.live:
        if node not in skipped:
            builder.at(graph.path(node))
            builder.finish(node, HANDLERS[node.target].build(builder, node))
    builder.at(graph.root)
    logits = builder.tensor(graph.output)
    wanted = builder.emit(lpu.SelectRowsOp(builder.reshape(logits, lpu.shape_of(logits)[1:])))
    builder.add(ReturnOp(wanted))
    return FuncOp("main", FunctionType.from_lists([ids, ids], [wanted.type]), Region(block))
