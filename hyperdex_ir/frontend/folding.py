"""Equal layers of a traced graph, found before import, so that one layer of each kind is imported.

A layer consists of the nodes below one number of the module list that holds the first attention or convolution. It uses
one value of the layer before it and values that no layer makes, and has one result. Two layers are equal when they call
the same operators, with the same arguments and shapes, in the same order, in modules of the same names, on parameters
of the same names, apart from the layer's own number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.fx import Node

from hyperdex_ir.frontend.graph import Graph, is_tensors, shape_of_tensor
from hyperdex_ir.frontend.operators import ATTENTION, SHORT_CONV
from hyperdex_ir.passes.outlining.match import LayerStack, stack_of

#: Operators with a state that lives from step to step: every layer has one.
_STATEFUL = (ATTENTION, SHORT_CONV)


@dataclass(frozen=True)
class Folding:
    """The layers that are imported, and those that they stand for.

    order: for each layer that runs, the number of the imported layer. skipped: the nodes of the layers that are not
    imported. stand_in: the result of a layer that is not imported -> the imported layer's result that replaces it.
    """

    order: tuple[int, ...]
    skipped: frozenset[Node]
    stand_in: Mapping[Node, Node]


@dataclass(frozen=True)
class _Layer:
    nodes: list[Node]
    carried: Node
    output: Node


def fold_layers(graph: Graph, kinds: Sequence[int] | None = None) -> Folding | None:
    """Folding of the layers of a graph; None when they form no chain.

    kinds: for each layer, the number of the layer in the graph that stands for it; None: the graph has all layers. The
    result is also None when a layer of the graph is not equal to the one that stands for it.
    """
    stack = next((stack_of(graph.path(node)) for node in graph.live if node.target in _STATEFUL), None)
    if stack is None:
        return None
    paths = {node: graph.path(node) for node in graph.live}
    number_of = {path: stack.number(path) for path in paths.values()}
    numbers = {node: number_of[path] for node, path in paths.items()}
    members: dict[int, list[Node]] = {}
    for node, number in numbers.items():
        if number is not None:
            members.setdefault(number, []).append(node)
    present = list(members)
    kinds = range(len(present)) if kinds is None else kinds
    if present != sorted(present) or not set(kinds) <= set(present) or present[-1] >= len(kinds):
        return None
    layers: list[_Layer] = []
    for number, nodes in members.items():
        layer = _make_layer(graph, numbers, nodes, layers[-1].output if layers else None, number)
        if layer is None:
            return None
        layers.append(layer)
    for layer, pair in zip(layers, pairwise(present), strict=False):
        if any(numbers.get(user, pair[0]) not in pair for user in layer.output.users):
            return None
    fingerprints = {n: _fingerprint(paths, graph, stack, n, layer) for n, layer in zip(present, layers, strict=True)}
    if any(fingerprints[number] != fingerprints[kinds[number]] for number in present):
        return None
    return _fold(layers, fingerprints, kinds)


def _make_layer(
    graph: Graph, numbers: Mapping[Node, int | None], nodes: list[Node], before: Node | None, number: int
) -> _Layer | None:
    """The layer of these nodes; None when it uses another layer's value other than the result of the one before it."""
    inputs = dict.fromkeys(source for node in nodes for source in node.all_input_nodes)
    captured = [source for source in inputs if numbers.get(source) != number]
    of_layers = [source for source in captured if numbers.get(source) is not None]
    outputs = [node for node in nodes if any(user in numbers and numbers[user] != number for user in node.users)]
    outputs += [node for node in nodes if node is graph.output and node not in outputs]
    if len(outputs) != 1 or of_layers != ([] if before is None else [before]):
        return None
    carried = before
    if carried is None:
        alike = (source for source in captured if source not in graph.parameters and _type(source) == _type(outputs[0]))
        carried = next(alike, None)
    return None if carried is None or _type(carried) != _type(outputs[0]) else _Layer(nodes, carried, outputs[0])


def _fold(layers: Sequence[_Layer], fingerprints: Mapping[int, object], kinds: Sequence[int]) -> Folding:
    """Folding by equal fingerprints. fingerprints: of the layers, by their numbers."""
    first: dict[object, int] = {}
    places = [(first.setdefault(one, number), number) for number, one in fingerprints.items()]
    kept = [place for place, (kind, number) in enumerate(places) if kind == number]
    order = tuple(first[fingerprints[kind]] for kind in kinds)
    skipped = (node for place, layer in enumerate(layers) if place not in kept for node in layer.nodes)
    stand_in = {layers[place - 1].output: layers[before].output for before, place in pairwise(kept)}
    stand_in[layers[-1].output] = layers[kept[-1]].output
    return Folding(order, frozenset(skipped), {node: other for node, other in stand_in.items() if node is not other})


# ---------------------------------------------------------------------------------------------------- comparing
def _fingerprint(paths: Mapping[Node, str], graph: Graph, stack: LayerStack, number: int, layer: _Layer) -> object:
    """Description of a layer that can be compared: equal layers have equal fingerprints."""
    names: dict[Node, object] = {layer.carried: "carried"}
    parts: list[object] = []
    generic = {path: stack.generic(path, number) for path in dict.fromkeys(paths[node] for node in layer.nodes)}
    for node in layer.nodes:
        given = [_described(graph, stack, number, names, value) for value in (*node.args, *node.kwargs.values())]
        parts.append((node.target, tuple(node.kwargs), tuple(given), generic[paths[node]], _type(node)))
        names[node] = len(parts)
    return tuple(parts), names[layer.output]


def _described(graph: Graph, stack: LayerStack, number: int, names: Mapping[Node, object], value: Any) -> object:
    """Description of an argument: a node by its position, a parameter by its name, a number by its type and digits."""
    if isinstance(value, Node):
        if value in names:
            return "node", names[value]
        if value in graph.parameters:
            key = graph.parameters[value]
            if key in graph.constants:
                return "constant", graph.constants[key]
            return "parameter", stack.generic(key, number), _type(value), key in graph.matrices
        return ("size", str(value.meta.get("val"))) if not is_tensors(value) else ("outside", value.name)
    if isinstance(value, list | tuple):
        return tuple(_described(graph, stack, number, names, item) for item in value)
    return type(value), repr(value)


def _type(node: Node) -> object:
    """Shape and element type of a node's result, or of each of its results."""
    value = node.meta.get("val")
    parts = value if isinstance(value, tuple | list) else (value,)
    return tuple((shape_of_tensor(part), part.dtype) for part in parts if isinstance(part, torch.Tensor))
