"""Tensors of a checkpoint that its model has no place for: harmless, or perhaps meant to be a matrix of the model.

transformers reports such tensors and goes on. A mask, a scale or a head for training changes nothing. An adapter that
was not merged, a layer beyond those of config.json, or a head under another name does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from hyperdex_ir.checkpoint.tensors import Tensor

#: Number of names that a line lists; the rest are counted.
LISTED = 8
_NUMBER = "*"


def starred(name: str) -> str:
    """The name with `*` in the place of each number between dots: one for the tensors of all layers."""
    return ".".join(_NUMBER if part.isdecimal() else part for part in name.split("."))


def listed(texts: Collection[str]) -> str:
    """The first of the texts, and the number of the others."""
    more = f", and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return ", ".join([*texts][:LISTED]) + more


def summary(names: Collection[str]) -> str:
    """The names in short: those of several layers as one, with their number."""
    counts = Counter(map(starred, names))
    first = {starred(name): name for name in reversed([*names])}
    return listed([first[kind] if count == 1 else f"{kind} ({count})" for kind, count in counts.items()])


def suspects(
    leftover: Iterable[tuple[str, str, Tensor]], shapes: Mapping[str, tuple[int, ...]], absent: Collection[str]
) -> list[str]:
    """The names of those leftover tensors that may stand for, or change, a matrix of the model.

    leftover: name, name by the rules of the model, tensor. shapes: those of the model's parameters. absent: the
    parameters that the checkpoint has not under their own names, such as a head that config.json ties.
    """
    matrices = [name for name, shape in shapes.items() if len(shape) > 1]
    kinds = set(map(starred, matrices))
    # The innermost modules with a matrix.
    owners = {_owner(name) for name in matrices} - {above for name in shapes for above in _above(_owner(name))}
    wanted = [shapes[name] for name in absent if len(shapes[name]) > 1]
    return [
        name
        for name, known, tensor in leftover
        if len(tensor.shape) > 1
        and tensor.dtype != "BOOL"
        and (starred(known) in kinds or tensor.shape in wanted or any(above in owners for above in _above(known)))
    ]


def _owner(name: str) -> str:
    """The module of a parameter."""
    return name.rpartition(".")[0]


def _above(name: str) -> list[str]:
    """The modules that a tensor lies in: `a.b` and `a` for `a.b.weight`."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
