"""Pre-scan of a graph, before anything is built: all operators that cannot be imported, reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch.fx import Node

from hyperdex_ir.errors import UnsupportedOpError
from hyperdex_ir.frontend.graph import (
    MATRIX_OPERATORS,
    Graph,
    is_float,
    is_mutation,
    is_transposed,
    matrix_of,
    operator_name,
    shape_of_node,
    source_line,
    tensor_of,
)
from hyperdex_ir.frontend.handlers import HANDLERS

_IN_PLACE = "changes an operand in place"
_MIXED = "takes a parameter that is a matrix elsewhere"
_BOTH_WAYS = "takes a matrix that is taken the other way round elsewhere"


@dataclass(frozen=True, order=True)
class UnsupportedOp:
    """One operator that cannot be imported.

    name: the overload, `aten.cumsum.default`. reason: the unsupported use; empty when all of the operator is
    unsupported. count: calls. path: the module of the first call. source: its line of code. nearest: a supported
    operator of a similar name, if any.
    """

    name: str
    reason: str
    count: int
    path: str
    source: str
    nearest: str

    def __str__(self) -> str:
        place = f"{self.path}, {self.source}" if self.source else self.path
        reason = f", {self.reason}" if self.reason else ""
        nearest = f", nearest supported {self.nearest}" if self.nearest else ""
        return f"{self.name} x{self.count} (first in {place}{reason}{nearest})"


def find_unsupported(graph: Graph) -> list[UnsupportedOp]:
    """All operators that the importer does not support at all, or not with these arguments; sorted by name."""
    found: dict[tuple[str, str], list[Node]] = {}
    refusals = [(node, _refusal_in(graph, node)) for node in graph.live]
    refusals += [(node, _IN_PLACE) for node in graph.mutations if node not in graph.live]
    for node, reason in refusals:
        if reason is not None:
            found.setdefault((operator_name(node), reason), []).append(node)
    return sorted(
        UnsupportedOp(name, reason, len(nodes), graph.path(nodes[0]), source_line(nodes[0]), _nearest(name))
        for (name, reason), nodes in found.items()
    )


def check_supported(graph: Graph, skipped: Collection[Node] = ()) -> None:
    """Raises UnsupportedOpError, listing all of them, when there are unsupported operators.

    skipped: nodes that are not checked, because each equals a node that is.
    """
    if not graph.mutations and all(_refusal_in(graph, node) is None for node in graph.live if node not in skipped):
        return
    if unsupported := find_unsupported(graph):
        noun = "operation" if len(unsupported) == 1 else "operations"
        raise UnsupportedOpError(
            f"{graph.root}: {len(unsupported)} unsupported {noun}: {'; '.join(str(op) for op in unsupported)}"
        )


def _refusal_in(graph: Graph, node: Node) -> str | None:
    if _mixes(graph, node):
        return _MIXED
    return _BOTH_WAYS if _turns(graph, node) else _refusal(node)


def _refusal(node: Node) -> str | None:
    """Reason why a node cannot be imported: empty when its operator is unknown, None when it can be imported."""
    if is_mutation(node):
        return _IN_PLACE
    handler = HANDLERS.get(node.target)
    if handler is None:
        return ""
    if tensor_of(node) is not None and shape_of_node(node) is None:
        return "a shape that is computed from the number of tokens"
    if not handler.integers and not all(is_float(source) for source in _operands(node)):
        return "works on other numbers than float32"
    return handler.check(node) if handler.check is not None else None


def _mixes(graph: Graph, node: Node) -> bool:
    """Test for a parameter that is stored as a matrix and used as a vector as well."""
    used = (graph.parameters.get(source) for source in node.all_input_nodes)
    return node.target not in MATRIX_OPERATORS and any(name in graph.matrices for name in used)


def _turns(graph: Graph, node: Node) -> bool:
    """Test for a matrix that another operator takes with its dimensions swapped."""
    if node.target not in MATRIX_OPERATORS or is_transposed(node):
        return False
    return graph.parameters.get(matrix_of(node)) in graph.transposed


def _operands(node: Node) -> list[Node]:
    return [operand for operand in (node, *node.all_input_nodes) if tensor_of(operand) is not None]


def _nearest(name: str) -> str:
    """A supported operator of a similar name, overloads ignored; empty when there is none."""
    known = sorted(str(target) for target in HANDLERS if isinstance(target, torch._ops.OpOverload))
    if name in known:
        return ""
    by_base = {_base(other): other for other in reversed(known)}
    return "".join(by_base[match] for match in difflib.get_close_matches(_base(name), by_base, 1))


def _base(name: str) -> str:
    """Base name of an operator: `aten.add.Tensor` -> `add`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else name
