"""The functions of the vector engine: the facts on which instructions, operations of `lpu` and the interpreter must
agree.

`interpreter/functions.py` and `docs/arithmetic.md` define what each computes. The order is part of the encoding of
instructions: the table is only ever appended to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Function:
    """A function of one or two operands, element by element, or a reduction of the last dimension.

    activation: its number among the functions that a matrix instruction can apply to its result.
    is_partial: the result is infinite or not a number for some finite operands that are not large.
    is_operation: `lpu` has an operation of this name.
    """

    name: str
    arity: int
    activation: int | None = None
    is_partial: bool = False
    is_reduction: bool = False
    is_operation: bool = True


FUNCTIONS = (
    Function("copy", 1, is_operation=False),
    Function("neg", 1),
    Function("exp", 1),
    Function("tanh", 1, activation=6),
    Function("erf", 1),
    Function("sqrt", 1, is_partial=True),
    Function("rsqrt", 1, is_partial=True),
    Function("relu", 1, activation=1),
    Function("sigmoid", 1, activation=5),
    Function("silu", 1, activation=2),
    Function("gelu", 1, activation=3),
    Function("gelu_tanh", 1, activation=4),
    Function("add", 2),
    Function("sub", 2),
    Function("mul", 2),
    Function("div", 2, is_partial=True),
    Function("max", 2),
    Function("min", 2),
    Function("sum", 1, is_reduction=True),
    Function("mean", 1, is_reduction=True),
    Function("row_max", 1, is_reduction=True),
)
BY_NAME = {function.name: function for function in FUNCTIONS}

UNARY = tuple(one.name for one in FUNCTIONS if one.arity == 1 and not one.is_reduction)
BINARY = tuple(one.name for one in FUNCTIONS if one.arity == 2)
REDUCTIONS = tuple(one.name for one in FUNCTIONS if one.is_reduction)
_NUMBERED = {one.activation: one.name for one in FUNCTIONS if one.activation is not None}
#: In the order of their numbers, which begin at 1.
ACTIVATIONS = tuple(_NUMBERED[number] for number in range(1, len(_NUMBERED) + 1))


def check_complete(definitions: Iterable[str], names: Iterable[str]) -> None:
    """Raises ValueError, at import, when a name has no definition or a definition no name."""
    if different := sorted(set(definitions) ^ set(names)):
        raise ValueError(f"either not in the table of functions or not defined: {', '.join(different)}")
