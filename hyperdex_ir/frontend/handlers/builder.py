"""Builder that handlers use: values of nodes, and operations with their locations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import Node
from xdsl.dialects.builtin import NameLoc, NoneAttr, StringAttr, TensorType, f32
from xdsl.ir import Attribute, Block, Operation, SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import UnsupportedOpError
from hyperdex_ir.frontend.attention_scales import uneven_scales
from hyperdex_ir.frontend.graph import Graph, operator_name, shape_of_node, tensor_of


@dataclass(frozen=True)
class Index:
    """A tensor of integers: token ids or positions, plus a number."""

    value: SSAValue
    offset: int = 0

    def shifted(self, by: int) -> Index:
        return Index(self.value, self.offset + by)


Value = SSAValue | Index | tuple[SSAValue, ...]


class Builder:
    """Appends operations to a block.

    max_length: number of positions of the compiled model. stand_in: nodes that are not imported -> the nodes whose
    value is taken instead.
    """

    def __init__(
        self, graph: Graph, block: Block, matrix_type: Attribute, max_length: int, stand_in: Mapping[Node, Node]
    ):
        self.graph = graph
        self.block = block
        self.matrix_type = matrix_type
        self.max_length = max_length
        self.stand_in = stand_in
        self.values: dict[Node, Value] = {}
        self.weights: dict[str, SSAValue] = {}
        self.slots = 0
        self.scales = uneven_scales(graph)
        self._locations: dict[str, NameLoc] = {}
        self._location = self.location(graph.root)

    def location(self, path: str) -> NameLoc:
        """Location that names a module."""
        if path not in self._locations:
            self._locations[path] = NameLoc(StringAttr(path), NoneAttr())
        return self._locations[path]

    def at(self, path: str) -> None:
        """Sets the module that the following operations belong to."""
        self._location = self.location(path)

    def add(self, op: Operation) -> Operation:
        """Appends an operation at the current location."""
        op.location = self._location
        self.block.add_op(op)
        return op

    def emit(self, op: Operation) -> SSAValue:
        """Appends an operation with one result, and returns the result."""
        return self.add(op).results[0]

    def weight(self, key: str, shape: tuple[int, ...], element: Attribute = f32) -> SSAValue:
        """The parameter of a key, created at its first use."""
        if key not in self.weights:
            self.weights[key] = self.emit(lpu.WeightOp([key], TensorType(element, shape)))
        return self.weights[key]

    def value(self, node: Node) -> Value:
        """Value of a node; a parameter's operation is created here."""
        node = self.stand_in.get(node, node)
        if node not in self.values:
            self.values[node] = self._parameter(node)
        return self.values[node]

    def _parameter(self, node: Node) -> SSAValue:
        name = self.graph.parameters[node]
        if name in self.graph.constants:
            return self.constant(self.graph.constants[name])
        shape = shape_of_node(node)
        assert shape is not None, "parameters have static shapes"
        if name in self.graph.transposed:
            shape = (*shape[:-2], shape[-1], shape[-2])
        return self.weight(name, shape, self.matrix_type if name in self.graph.matrices else f32)

    def tensor(self, node: Node) -> SSAValue:
        """The f32 tensor of a node."""
        value = self.value(node)
        assert isinstance(value, SSAValue), f"{node.name} is no tensor of float32"
        return value

    def index(self, node: Node) -> Index:
        """The integer tensor of a node."""
        value = self.value(node)
        assert isinstance(value, Index), f"{node.name} is no tensor of integers"
        return value

    def operand(self, given: Node | float) -> SSAValue:
        """A tensor, or a number as a constant."""
        return self.tensor(given) if isinstance(given, Node) else self.constant(float(given))

    def constant(self, number: float) -> SSAValue:
        return self.emit(lpu.ConstantOp(number))

    def reshape(self, value: SSAValue, shape: tuple[int, ...]) -> SSAValue:
        """The same elements in another shape; emits nothing when the shape is the same."""
        return value if lpu.shape_of(value) == shape else self.emit(lpu.ReshapeOp(value, shape))

    def slice(self, value: SSAValue, dim: int, start: int, stop: int, step: int = 1) -> SSAValue:
        """A part of one dimension; emits nothing when it is the whole dimension."""
        whole = (start, stop, step) == (0, lpu.shape_of(value)[dim], 1)
        return value if whole else self.emit(lpu.SliceOp(value, dim, start, stop, step))

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of a node's tensor; the pre-scan has made sure that it has one."""
        shape = shape_of_node(node)
        assert shape is not None, f"{node.name} has no shape of its own"
        return shape

    def finish(self, node: Node, value: Value) -> None:
        """Records the value of a node. Raises UnsupportedOpError when its shape is not the one that torch computed."""
        if isinstance(value, SSAValue) and tensor_of(node) is not None and lpu.shape_of(value) != self.shape(node):
            raise UnsupportedOpError(
                f"{operator_name(node)} at {self.graph.path(node)}: imported with shape {list(lpu.shape_of(value))}, "
                f"torch has {list(self.shape(node))}"
            )
        self.values[node] = value
