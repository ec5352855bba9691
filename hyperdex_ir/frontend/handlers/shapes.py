"""Operators that move elements, or do nothing."""

from __future__ import annotations

import operator

import torch
from torch.fx import Node
from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.frontend.graph import TOKENS, arguments, dimension, is_float, shape_of_node, tensor_of
from hyperdex_ir.frontend.handlers.builder import Builder, Value
from hyperdex_ir.frontend.handlers.registry import handles

aten = torch.ops.aten


def _source(node: Node) -> Node:
    return node.all_input_nodes[0]


@handles(aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default, integers=True)
def _same(builder: Builder, node: Node) -> Value:
    return builder.value(arguments(node)["self"])


def _check_dropout(node: Node) -> str | None:
    return "dropout of a model in training" if arguments(node)["train"] else None


@handles(aten.dropout.default, check=_check_dropout)
def _dropout(builder: Builder, node: Node) -> Value:
    return builder.value(arguments(node)["input"])


def _check_cast(node: Node) -> str | None:
    types = [None if tensor is None else tensor.dtype for tensor in map(tensor_of, (_source(node), node))]
    if types[0] is None or types[0] != types[1]:
        return f"cast from {types[0]} to {types[1]}".replace("torch.", "")
    return None


@handles(
    aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten._to_copy.default, aten.type_as.default,
    check=_check_cast, integers=True,
)  # fmt: skip
def _cast(builder: Builder, node: Node) -> Value:
    return builder.value(arguments(node)["self"])


def _check_reshape(node: Node) -> str | None:
    source, result = shape_of_node(_source(node)), shape_of_node(node)
    if source is None or result is None or source.count(TOKENS) != result.count(TOKENS):
        return "merges the tokens with another dimension"
    return None if is_float(node) or source == result else "reshapes integers"


@handles(
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.flatten.using_ints, aten.unflatten.int,
    check=_check_reshape, integers=True,
)  # fmt: skip
def _reshape(builder: Builder, node: Node) -> Value:
    x = builder.value(arguments(node)["self"])
    return builder.reshape(x, builder.shape(node)) if isinstance(x, SSAValue) else x


@handles(aten.expand.default, aten.expand_as.default)
def _expand(builder: Builder, node: Node) -> Value:
    x, shape = builder.tensor(arguments(node)["self"]), builder.shape(node)
    return x if lpu.shape_of(x) == shape else builder.emit(lpu.BroadcastOp(x, shape))


def _transposed(builder: Builder, node: Node, permutation: list[int]) -> Value:
    x = builder.tensor(arguments(node)["self"])
    return x if permutation == sorted(permutation) else builder.emit(lpu.TransposeOp(x, permutation))


@handles(aten.transpose.int)
def _transpose(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    permutation = list(range(len(builder.shape(node))))
    a, b = (dimension(given[name], len(permutation)) for name in ("dim0", "dim1"))
    permutation[a], permutation[b] = permutation[b], permutation[a]
    return _transposed(builder, node, permutation)


@handles(aten.t.default)
def _t(builder: Builder, node: Node) -> Value:
    return _transposed(builder, node, list(range(len(builder.shape(node))))[::-1])


@handles(aten.permute.default)
def _permute(builder: Builder, node: Node) -> Value:
    dims = arguments(node)["dims"]
    return _transposed(builder, node, [dimension(d, len(dims)) for d in dims])


def _bounds(node: Node) -> tuple[int, int, int, int] | None:
    """(dimension, start, stop, step) of a slice; None for a slice that takes all tokens."""
    given = arguments(node)
    shape = shape_of_node(given["self"]) or ()
    dim = dimension(given["dim"], len(shape))
    if shape[dim] == TOKENS:
        return None
    start, stop, step = slice(given["start"], given["end"], given["step"]).indices(shape[dim])
    return dim, start, stop, step


def _check_slice(node: Node) -> str | None:
    given = arguments(node)
    shape = shape_of_node(given["self"])
    if shape is None or any(isinstance(given[name], Node) for name in ("start", "end", "step")):
        return "bounds that are computed from the number of tokens"
    if shape[dimension(given["dim"], len(shape))] == TOKENS:
        whole = given["start"] in (None, 0) and given["end"] in (None, torch.iinfo(torch.int64).max)
        return None if whole and given["step"] == 1 else "takes some of the tokens"
    bounds = _bounds(node)
    if bounds is None or bounds[1] < bounds[2]:
        return None
    return None if all(user.target is aten.cat.default for user in node.users) else "an empty slice"


@handles(aten.slice.Tensor, check=_check_slice)
def _slice(builder: Builder, node: Node) -> Value:
    x, bounds = builder.tensor(arguments(node)["self"]), _bounds(node)
    if bounds is None:
        return x
    # An empty tensor has no type here; a concatenation leaves it out.
    return builder.slice(x, *bounds) if bounds[1] < bounds[2] else ()


def _check_static_dimension(node: Node) -> str | None:
    given = arguments(node)
    shape = shape_of_node(_source(node))
    if shape is None or shape[dimension(given["dim"], len(shape))] == TOKENS:
        return "works along the tokens"
    return None


@handles(aten.select.int, check=_check_static_dimension)
def _select(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.tensor(given["self"])
    shape = lpu.shape_of(x)
    dim = dimension(given["dim"], len(shape))
    start = dimension(given["index"], shape[dim])
    return builder.reshape(builder.slice(x, dim, start, start + 1), builder.shape(node))


def _check_cat(node: Node) -> str | None:
    if 0 in (shape_of_node(node) or ()):
        return "nothing but empty slices"
    return _check_static_dimension(node)


@handles(aten.cat.default, check=_check_cat)
def _cat(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    parts = [builder.tensor(part) for part in given["tensors"] if 0 not in builder.shape(part)]
    dim = dimension(given["dim"], len(builder.shape(node)))
    return parts[0] if len(parts) == 1 else builder.emit(lpu.ConcatOp(parts, dim))


def _check_stack(node: Node) -> str | None:
    return "a shape that is computed from the number of tokens" if shape_of_node(node) is None else None


@handles(aten.stack.default, check=_check_stack)
def _stack(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    shape = list(builder.shape(node))
    dim = dimension(given["dim"], len(shape))
    shape[dim] = 1
    return builder.emit(lpu.ConcatOp([builder.reshape(builder.tensor(x), tuple(shape)) for x in given["tensors"]], dim))


def _check_repeat(node: Node) -> str | None:
    return "without a dimension" if arguments(node)["dim"] is None else _check_static_dimension(node)


@handles(aten.repeat_interleave.self_int, check=_check_repeat)
def _repeat_interleave(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.tensor(given["self"])
    shape = list(lpu.shape_of(x))
    place = dimension(given["dim"], len(shape)) + 1
    one_by_one = builder.reshape(x, (*shape[:place], 1, *shape[place:]))
    repeated = builder.emit(lpu.BroadcastOp(one_by_one, [*shape[:place], given["repeats"], *shape[place:]]))
    return builder.reshape(repeated, builder.shape(node))


def _check_repeats(node: Node) -> str | None:
    given = arguments(node)
    shape, repeats = shape_of_node(given["self"]) or (), given["repeats"]
    if len(repeats) != len(shape) or any(not isinstance(count, int) or count < 1 for count in repeats):
        return f"repeats {repeats} of a tensor of {len(shape)} dimensions"
    along = any(count > 1 and size == TOKENS for size, count in zip(shape, repeats, strict=True))
    return "works along the tokens" if along else None


@handles(aten.repeat.default, check=_check_repeats)
def _repeat(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.tensor(given["self"])
    for dim, count in enumerate(given["repeats"]):
        x = builder.emit(lpu.ConcatOp([x] * count, dim)) if count > 1 else x
    return x


@handles(
    aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, aten.chunk.default,
    check=_check_static_dimension,
)  # fmt: skip
def _split(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.tensor(given["self"])
    dim = dimension(given["dim"], len(lpu.shape_of(x)))
    parts, start = [], 0
    for part in node.meta["val"]:
        parts.append(builder.slice(x, dim, start, start + part.shape[dim]))
        start += part.shape[dim]
    return tuple(parts)


@handles(operator.getitem, integers=True)
def _getitem(builder: Builder, node: Node) -> Value:
    source, index = node.args
    assert isinstance(source, Node)
    assert isinstance(index, int)
    values = builder.value(source)
    assert isinstance(values, tuple)
    return values[index]
