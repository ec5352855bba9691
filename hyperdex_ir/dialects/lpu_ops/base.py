"""Common parts of the operations of the `lpu` dialect: shapes, element types, broadcasting."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType, f32
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation, base, irdl_op_definition
from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.isa.formats import FORMATS

TENSOR = base(TensorType)


#: The operations of the dialect.
OPERATIONS: list[type[Operation]] = []


class LpuOp(IRDLOperation, ABC):
    """Base of the operations of the dialect; a subclass with a `name` is an operation."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            OPERATIONS.append(irdl_op_definition(cls))

    @classmethod
    def mnemonic(cls) -> str:
        """The name without the dialect's: that of the function, or instruction, that does the same."""
        return cls.name.removeprefix("lpu.")

    @property
    def depends_on_device(self) -> bool:
        """True if results may differ between devices that give the same operands."""
        return False


def shape_of(value: SSAValue | Attribute) -> tuple[int, ...]:
    """The shape of a tensor value or type; DYNAMIC_INDEX stands for the tokens in flight."""
    type_ = value if isinstance(value, Attribute) else value.type
    assert isinstance(type_, TensorType)
    return type_.get_shape()


def shape_text(shape: Sequence[int]) -> str:
    """A shape as MLIR writes it: `?x4x16`."""
    return "x".join("?" if extent == DYNAMIC_INDEX else str(extent) for extent in shape)


def element_of(value: SSAValue | Attribute) -> Attribute:
    """The element type of a tensor value or type."""
    type_ = value if isinstance(value, Attribute) else value.type
    assert isinstance(type_, TensorType)
    return type_.element_type


def tokens_type(*features: int, element: Attribute = f32) -> TensorType:
    """`tensor<?x...>`: a value with one row a token."""
    return TensorType(element, [DYNAMIC_INDEX, *features])


def is_matrix_element(element: Attribute) -> bool:
    """Test that the MAC trees can stream this element type."""
    return str(element) in FORMATS


def require(condition: bool, message: str) -> None:
    if not condition:
        raise VerifyException(message)


def broadcast_shapes(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """NumPy broadcasting where DYNAMIC_INDEX is the token dimension, equal only to itself and to 1.

    Raises VerifyException when the shapes do not go together.
    """
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    for x, y in zip(left, right, strict=True):
        require(x == y or 1 in (x, y), f"shapes {shape_text(a)} and {shape_text(b)} do not broadcast")
    return tuple(y if x == 1 else x for x, y in zip(left, right, strict=True))
