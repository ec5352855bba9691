"""Removal of in-place operators from a traced graph, where the difference cannot be seen, and of no-op casts."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from hyperdex_ir.frontend.graph import arguments, shape_of_node

aten = torch.ops.aten

#: In-place operator -> the operator that returns a new value.
_FUNCTIONAL: dict[Any, Any] = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.add_.Scalar: aten.add.Scalar,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.mul_.Scalar: aten.mul.Scalar,
    aten.div_.Tensor: aten.div.Tensor,
    aten.div_.Scalar: aten.div.Scalar,
    aten.clamp_.default: aten.clamp.default,
    aten.scatter_.value: aten.scatter.value,
}


def make_functional(graph: torch.fx.Graph) -> None:
    """Replaces operators that change an intermediate value in place, and drops casts to the type that a value has."""
    for node in list(graph.nodes):
        if node.target is aten.to.dtype and _same_type(node):
            node.replace_all_uses_with(node.args[0])
    for node in list(graph.nodes):
        if node.target is aten.new_empty.default:
            _assemble(graph, node)
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.target in _FUNCTIONAL:
            _replace_change(node, order)


def _same_type(node: Node) -> bool:
    types = [getattr(one.meta.get("val"), "dtype", None) for one in (node, node.all_input_nodes[0])]
    return types[0] is not None and types[0] == types[1]


def _replace_change(node: Node, order: dict[Node, int]) -> None:
    """Replaces the in-place change of a value without views by a new value, which later users take."""
    changed = node.args[0]
    if not isinstance(changed, Node) or not _is_own(changed):
        return
    if any(_gives_view(user) for user in changed.users if order[user] < order[node]):
        return
    node.target = _FUNCTIONAL[node.target]
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])


def _assemble(graph: torch.fx.Graph, empty: Node) -> None:
    """Replaces an empty tensor, filled by copies of parts along one dimension, by the concatenation of the parts."""
    slices = [user for user in empty.users if user.target is aten.slice.Tensor]
    copies = [user for part in slices for user in part.users]
    if not slices or len(copies) != len(slices) or any(copy.target is not aten.copy_.default for copy in copies):
        return
    pairs = [(arguments(copy)["self"], arguments(copy)["src"]) for copy in copies]
    pairs.sort(key=lambda pair: arguments(pair[0])["start"] or 0)
    given = [arguments(part) for part, _ in pairs]
    dim = given[0]["dim"]
    size = empty.meta["val"].shape[dim]
    starts = [bounds["start"] or 0 for bounds in given]
    stops = [min(bounds["end"], size) for bounds in given]
    plain = all(bounds["dim"] == dim and bounds["step"] == 1 for bounds in given)
    alike = all(shape_of_node(part) == shape_of_node(value) for part, value in pairs)
    if not plain or not alike or [*starts, size] != [0, *stops]:
        return
    with graph.inserting_after(max(copies)):
        joined = graph.call_function(aten.cat.default, ([value for _, value in pairs], dim))
    joined.meta = dict(empty.meta)
    empty.replace_all_uses_with(joined, delete_user_cb=lambda user: user not in slices)
    for node in (*copies, *slices):
        graph.erase_node(node)


def _is_own(node: Node) -> bool:
    """Test for a node whose value is new, not a view of another."""
    if node.op != "call_function":
        return False
    source = node.args[0] if not isinstance(node.target, torch._ops.OpOverload) and node.args else node
    return isinstance(source, Node) and isinstance(source.target, torch._ops.OpOverload) and not _gives_view(source)


def _gives_view(node: Node) -> bool:
    """Test for a call whose result may be a view of an operand."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return any(result.alias_info is not None for result in target._schema.returns)
