"""Positions of a text in a model of images, where each position is a time, a height and a width.

In a text these are the same number, so each of the rows that the model makes of them is the text's own positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

from hyperdex_ir.frontend.graph import arguments, shape_of_node
from hyperdex_ir.frontend.operators import ROTARY_TABLE

_ADDS_ROWS = torch.ops.aten.unsqueeze.default
_REPEATS = torch.ops.aten.expand.default
#: Operators that take some of the rows.
_TAKES = (torch.ops.aten.select.int, torch.ops.aten.slice.Tensor)


def take_text_positions(graph: Graph) -> None:
    """Gives each rotary table the text's positions in place of one of the equal rows that were made of them."""
    for node in graph.find_nodes(op="call_function", target=ROTARY_TABLE):
        rows = node.args[0]
        origin = _origin(rows)
        if origin is not None and origin is not rows and shape_of_node(origin) == shape_of_node(rows):
            node.update_arg(0, origin)


def _origin(node: Any) -> Node | None:
    """The positions that a node has a row of; None when it may have other numbers, too."""
    while isinstance(node, Node) and node.op != "placeholder":
        given = arguments(node) if node.target in (_ADDS_ROWS, _REPEATS, *_TAKES) else {}
        if not given or not (node.target is _REPEATS or given["dim"] == 0) or not _keeps_rows(node):
            return None
        node = given["self"]
    return node if isinstance(node, Node) else None


def _keeps_rows(node: Node) -> bool:
    """Test that the last two dimensions of the result are those of the operand."""
    source = node.args[0]
    assert isinstance(source, Node)
    return tuple(node.meta["val"].shape[-2:]) == tuple(source.meta["val"].shape[-2:])
