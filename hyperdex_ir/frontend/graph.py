"""Queries of the importer about a torch graph: shapes, named arguments, module paths, dependences of the logits."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from xdsl.dialects.builtin import DYNAMIC_INDEX

from hyperdex_ir.frontend.experts import EXPERT_LINEAR
from hyperdex_ir.frontend.operators import ROTARY_TABLE

#: The size in tensor types that stands for the tokens in flight.
TOKENS = DYNAMIC_INDEX
#: Operators with a matrix operand, which is stored in the matrix type -> the name of that argument.
MATRIX_OPERATORS: dict[Any, str] = {
    torch.ops.aten.linear.default: "weight",
    torch.ops.aten.embedding.default: "weight",
    torch.ops.aten.addmm.default: "mat2",
    EXPERT_LINEAR: "weight",
}
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def tensor_of(node: Node) -> torch.Tensor | None:
    """The shape and element type that export saw for a node, or None when its result is not one tensor."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def is_tensors(node: Node) -> bool:
    """Test for a node whose result is one or more tensors, not a size."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        return all(isinstance(v, torch.Tensor) for v in value)
    return isinstance(value, torch.Tensor)


def is_float(node: Node) -> bool:
    """Test for a node whose result is one float32 tensor."""
    tensor = tensor_of(node)
    return tensor is not None and tensor.dtype == torch.float32


def shape_of_tensor(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The shape, with TOKENS for the tokens in flight; None when a dimension is another expression of their number."""
    shape = []
    for size in tensor.shape:
        if isinstance(size, int):
            shape.append(size)
        elif size.node.expr.is_Symbol:
            shape.append(TOKENS)
        else:
            return None
    return tuple(shape)


def shape_of_node(node: Node) -> tuple[int, ...] | None:
    """`shape_of_tensor` of a node's result; None also when the result is not one tensor."""
    tensor = tensor_of(node)
    return None if tensor is None else shape_of_tensor(tensor)


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operator call by name, with the defaults of its schema."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return dict(node.kwargs)
    given: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(node.args) and not argument.kwarg_only:
            given[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            given[argument.name] = node.kwargs[argument.name]
        else:
            given[argument.name] = argument.default_value
    return given


def matrix_of(node: Node) -> Node:
    """Matrix operand of a call of one of MATRIX_OPERATORS."""
    return arguments(node)[MATRIX_OPERATORS[node.target]]


def is_transposed(node: Node) -> bool:
    """Test for a call whose matrix is [K, N]; the MAC trees take [N, K]."""
    return node.target is torch.ops.aten.addmm.default or arguments(node).get("is_transposed", False)


def dimension(index: int, rank: int) -> int:
    """The index of a dimension, counted from the front."""
    return index + rank if index < 0 else index


def operator_name(node: Node) -> str:
    """Name of the called operator, `aten.add.Tensor`, or of any other callee."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return str(getattr(target, "__name__", target))


def source_line(node: Node) -> str:
    """`modeling_llama.py:64`: the innermost line, in some module's forward, that made a node; empty when unknown."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [(path, line) for path, line in frames if "/torch/" not in path.replace("\\", "/")]
    if not own:
        return ""
    path, line = own[-1]
    return f"{PurePath(path).name}:{line}"


class Graph:
    """An exported program, reduced to the nodes that its result depends on.

    live: the operator calls that the logits depend on, in order, without sizes and dead integer arithmetic.
    parameters: the placeholder nodes of parameters and buffers -> their names in the model's state dict.
    inputs: the placeholder nodes of the wrapper's arguments. matrices: the parameters that the MAC trees stream.
    transposed: the matrices whose last two dimensions are swapped in the checkpoint.
    constants: the buffers among the parameters that are one number, known before any checkpoint is read.
    contentless: names of tensors that the logits depend on and no checkpoint holds. mutations: calls that change an
    operand.
    """

    def __init__(
        self,
        program: ExportedProgram,
        wrapped: str,
        root: str,
        canonical: Mapping[str, str],
        buffers: Mapping[str, np.ndarray],
    ):
        """Analyses the program. wrapped: first component of all names, dropped. root: name of the model in locations.

        canonical: names of shared parameters -> the one name used for all of them. buffers: the values of the buffers
        that no checkpoint holds.
        """
        self.wrapped = wrapped
        self.root = root
        nodes = list(program.graph.nodes)
        self.output = _result(nodes)
        reached = _reached(self.output)
        self.parameters: dict[Node, str] = {}
        self.inputs: list[Node] = []
        self.contentless: list[str] = []
        placeholders = [node for node in nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            name = str(spec.target or node.name).removeprefix(f"{wrapped}.")
            if spec.kind is InputKind.USER_INPUT:
                self.inputs.append(node)
                continue
            self.parameters[node] = canonical.get(name, name)
            saved = spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent)
            if node in reached and not saved and name not in buffers:
                self.contentless.append(name)
        self.constants = {name: float(value) for name, value in buffers.items() if value.ndim == 0}
        self.live = _in_order(node for node in nodes if node in reached and node.op == "call_function")
        self.mutations = [node for node in nodes if is_mutation(node)]
        calls = [node for node in self.live if node.target in MATRIX_OPERATORS]
        self.matrices = self._matrices(calls)
        self.transposed = self._matrices(filter(is_transposed, calls))

    def _matrices(self, calls: Iterable[Node]) -> frozenset[str]:
        return frozenset(self.parameters[matrix] for matrix in map(matrix_of, calls) if matrix in self.parameters)

    def path(self, node: Node) -> str:
        """The module that a node belongs to, as the model names it: `model.layers.0.self_attn.q_proj`."""
        stack = node.meta.get("nn_module_stack") or {}
        path = str(next(reversed(stack.values()))[0]) if stack else ""
        return path.removeprefix(self.wrapped).removeprefix(".") or self.root


def _result(nodes: list[Node]) -> Node:
    """The one tensor that the program returns."""
    returned = next(node for node in reversed(nodes) if node.op == "output").args[0]
    assert isinstance(returned, tuple | list)
    (result,) = returned
    assert isinstance(result, Node)
    return result


def _in_order(nodes: Iterable[Node]) -> list[Node]:
    """The nodes, with adjacent rotary tables sorted by key: a model may make them by iterating over a set."""
    runs = (list(run) for _, run in groupby(nodes, lambda node: _table_key(node) != ""))
    return [node for run in runs for node in sorted(run, key=_table_key)]


def _table_key(node: Node) -> str:
    """The key of the rotary table that a node makes or takes a part of; empty for other nodes."""
    table = node.args[0] if node.target is operator.getitem else node
    return str(arguments(table)["key"]) if isinstance(table, Node) and table.target is ROTARY_TABLE else ""


def _reached(output: Node) -> dict[Node, None]:
    """The nodes that a result depends on through tensors."""
    reached: dict[Node, None] = {}
    pending = [output]
    while pending:
        node = pending.pop()
        if node in reached:
            continue
        reached[node] = None
        pending.extend(source for source in node.all_input_nodes if is_tensors(source))
    return reached


def is_mutation(node: Node) -> bool:
    """Test for a call that changes one of its operands."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
