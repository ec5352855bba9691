"""Attention whose scale depends on the layer: scaling the queries instead makes the layers equal."""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import Node

from hyperdex_ir.frontend.graph import Graph, arguments, shape_of_node
from hyperdex_ir.frontend.operators import ATTENTION
from hyperdex_ir.passes.outlining.match import stack_of


def uneven_scales(graph: Graph) -> dict[Node, float]:
    """Attention nodes -> their common scale, for corresponding nodes of different layers whose scales differ.

    Corresponding nodes are in modules of the same name, apart from the layer's number, and have equal arguments apart
    from the scale. The common scale is the largest of their scales. The queries of a node are multiplied by the ratio
    of its own scale to the common one: a constant, in which layers may differ.
    """
    groups: dict[object, list[Node]] = {}
    for node in graph.live:
        if node.target is ATTENTION:
            groups.setdefault(_kind(graph, node), []).append(node)
    scales: dict[Node, float] = {}
    for nodes in groups.values():
        given = [arguments(node)["scale"] for node in nodes]
        if min(given) > 0 and min(given) < max(given):
            common: float = max(given)
            scales.update((node, common) for node in nodes)
    return scales


def _kind(graph: Graph, node: Node) -> object:
    path = graph.path(node)
    stack = stack_of(path)
    number = None if stack is None else stack.number(path)
    generic = path if stack is None or number is None else stack.generic(path, number)
    others = ((name, value) for name, value in arguments(node).items() if name != "scale")
    return generic, tuple((name, _described(value)) for name, value in others)


def _described(value: object) -> object:
    """Description of an argument: shapes for tensors, the value itself for anything else."""
    if isinstance(value, Node):
        return shape_of_node(value)
    return tuple(map(_described, value)) if isinstance(value, Iterable) and not isinstance(value, str) else value
