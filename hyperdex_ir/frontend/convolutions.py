"""Short causal convolutions in a traced graph: found by their arithmetic, and made one node.

In torch they are a depthwise convolution, padded on both sides, followed by a slice that keeps the first tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

from hyperdex_ir.frontend.graph import arguments, tensor_of
from hyperdex_ir.frontend.operators import SHORT_CONV

aten = torch.ops.aten
_RESHAPING = (aten.squeeze.dim, aten.unsqueeze.default, aten.view.default, aten.reshape.default)


def fuse_short_convs(graph: Graph) -> None:
    """Replaces each short convolution by one `hyperdex::short_conv`; others stay as they are."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.conv1d.default and (parts := _operands(node)) is not None:
            _replace(graph, node, parts)


def _operands(conv: Node) -> tuple[Node, Node, Node | None] | None:
    """Input, taps and bias of a causal depthwise convolution over all tokens; None for any other convolution."""
    given = arguments(conv)
    x, taps = tensor_of(given["input"]), _parameter(given["weight"])
    if x is None or taps is None or x.dim() != 3 or x.shape[0] != 1:
        return None
    channels, length = x.shape[1], taps.meta["val"].shape[-1]
    plain = (given["stride"], given["dilation"]) == ([1], [1])
    shapes = tuple(taps.meta["val"].shape) == (channels, 1, length) and given["groups"] == channels
    users = list(conv.users)
    if not (plain and shapes and given["padding"] == [length - 1] and users):
        return None
    return (given["input"], taps, given["bias"]) if all(_keeps_first(user, x) for user in users) else None


def _parameter(node: Node) -> Node | None:
    """The parameter that a node reshapes, in its stored shape; None when the node is something else."""
    shape = node.meta["val"].shape
    while node.target in _RESHAPING:
        node = node.all_input_nodes[0]
    return node if node.op == "placeholder" and node.meta["val"].shape == shape else None


def _keeps_first(node: Node, x: torch.Tensor) -> bool:
    """Test for a slice that keeps as many tokens of the convolution as the input has, from the first on."""
    result = tensor_of(node)
    if node.target is not aten.slice.Tensor or result is None:
        return False
    given = arguments(node)
    from_start = given["start"] in (None, 0) and given["step"] == 1
    return from_start and given["dim"] in (2, -1) and _is_same(result.shape[2], x.shape[2])


def _is_same(a: Any, b: Any) -> bool:
    """Test for equal sizes: the same number, or the same expression of the number of tokens."""
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return a.node.expr == b.node.expr


def _replace(graph: Graph, conv: Node, operands: tuple[Node, Node, Node | None]) -> None:
    for user in list(conv.users):
        with graph.inserting_before(user):
            new = graph.call_function(SHORT_CONV, operands)
        new.meta = dict(user.meta) | {key: conv.meta[key] for key in _PLACE if key in conv.meta}
        user.replace_all_uses_with(new)
        graph.erase_node(user)
    graph.erase_node(conv)


#: Metadata that says which part of the model a node came from.
_PLACE = ("nn_module_stack", "stack_trace")
