"""Recognition of routing within groups of experts: the operators that mask the other groups become one operator.

group_scores = scores.view(-1, G, E / G).topk(2)[0].sum(-1)
mask = zeros_like(group_scores).scatter(1, group_scores.topk(top)[1], 1)        for each expert of a group
indices = scores.masked_fill(not mask, -inf).topk(k)[1]
"""

from __future__ import annotations

import operator
from math import inf
from typing import Any

import torch
from torch.fx import Node

from hyperdex_ir.frontend.experts import TOP_K
from hyperdex_ir.frontend.graph import arguments, shape_of_node

aten = torch.ops.aten

#: Operators that return the same elements, or 0 and 1 as false and true.
_SAME = (
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.expand.default,
    aten.to.dtype, aten._to_copy.default, aten.clone.default,
)  # fmt: skip


def rewrite_group_routing(graph: torch.fx.Graph) -> None:
    """Replaces each top-k whose scores are masked by groups by `hyperdex::top_k`."""
    for node in list(graph.nodes):
        found = _match(node)
        if found is None:
            continue
        indices = [user for user in node.users if user.users]
        if any(_part(user, 1) is not node for user in indices):
            continue
        with graph.inserting_before(node):
            chosen = graph.call_function(TOP_K, found)
        for user in indices:
            chosen.meta = dict(user.meta)
            chosen.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
            user.replace_all_uses_with(chosen)


def _match(node: Node) -> tuple[Any, ...] | None:
    """(scores, k, groups, top groups) of a top-k within groups."""
    masked = _operand(node, aten.topk.default)
    if masked is None or masked.target is not aten.masked_fill.Scalar or masked.args[2] != -inf:
        return None
    scores, mask = masked.args[:2]
    mask = _through(_operand(mask, aten.bitwise_not.default, aten.logical_not.default))
    if mask is None or mask.target is not aten.scatter.value:
        return None
    given = arguments(mask)
    best = _operand(_part(given["index"], 1), aten.topk.default, whole=True)
    zeros = given["self"].target in (aten.zeros_like.default, aten.zeros.default)
    if best is None or not zeros or given["dim"] not in (1, -1) or given["value"] != 1:
        return None
    total = _operand(best, aten.topk.default)
    two = _operand(_part(_operand(total, aten.sum.dim_IntList), 0), aten.topk.default, whole=True)
    grouped = _operand(two, aten.topk.default)
    if two is None or grouped is None or arguments(two)["k"] != 2 or _through(grouped) is not _through(scores):
        return None
    shape = shape_of_node(grouped)
    return None if shape is None else (scores, arguments(node)["k"], shape[1], arguments(best)["k"])


def _operand(node: Any, *targets: Any, whole: bool = False) -> Node | None:
    """The first operand of a call of one of these operators, or the call itself if `whole`; None for any other node."""
    if not isinstance(node, Node) or node.target not in targets:
        return None
    if node.target is aten.topk.default and (arguments(node)["dim"] != -1 or not arguments(node)["largest"]):
        return None
    return node if whole else node.all_input_nodes[0]


def _part(node: Any, number: int) -> Node | None:
    """The call whose result number `number` is this node; None when it is not."""
    if not isinstance(node, Node) or node.target is not operator.getitem or node.args[1] != number:
        return None
    source = node.args[0]
    return source if isinstance(source, Node) else None


def _through(node: Any) -> Node | None:
    """The node whose elements this node returns unchanged."""
    while isinstance(node, Node) and node.target in _SAME:
        node = node.args[0]
    return node if isinstance(node, Node) else None
