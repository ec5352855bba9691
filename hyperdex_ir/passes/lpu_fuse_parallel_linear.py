"""`lpu-fuse-parallel-linear`: fusion of matrices that work on the same x.

Each output of a matrix depends on its own row alone, so rows can be put together in any order and no bit changes. There
are two cases:

- the three projections of an attention become one matrix with the rows of V, K and Q in this order, of which the
  attention takes slices. Values are stored first, so they stream first.
- `activation(gate) * up` becomes one gated matrix: the rows of the gate, then those of the other factor. The same holds
  when the checkpoint has both in one matrix already.

Only weights with one user are put together, as they are then stored together; all must be sharded or none. Only linears
that carry nothing but a bias are put together; all must have one or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import LocationAttr, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import element_of, shape_of
from hyperdex_ir.passes.matching import either_order, is_activation
from hyperdex_ir.support.xdsl import module_path, path_location

#: Operations (on operand 0) that may lie between a projection and its attention.
_BETWEEN = (lpu.ReshapeOp, lpu.TransposeOp, lpu.SliceOp, lpu.RotaryOp, lpu.RmsNormOp, lpu.LayerNormOp)


# ---------------------------------------------------------------------------------------------------- conditions
def _is_plain(linear: lpu.LinearOp) -> bool:
    """Test that the linear carries nothing except, perhaps, a bias."""
    parts = (linear.scale, linear.softcap, linear.activation, linear.times, linear.plus, linear.gated)
    return all(part is None for part in parts)


def _own_keys(value: SSAValue, counts: Counter[str]) -> Sequence[str] | None:
    """The keys of a parameter that has no other user; None for any other value."""
    op = value.owner
    if not isinstance(op, lpu.WeightOp) or not value.has_one_use() or any(counts[key] > 1 for key in op.key_names):
        return None
    return op.key_names


def _is_sharded(value: SSAValue) -> bool:
    return isinstance(value.owner, lpu.WeightOp) and value.owner.shards is not None


def _can_merge(linears: Sequence[lpu.LinearOp], counts: Counter[str]) -> bool:
    first = linears[0]
    if len(set(linears)) != len(linears) or not all(_is_plain(one) and one.x is first.x for one in linears):
        return False
    for parameters in ([one.weight for one in linears], [one.bias for one in linears]):
        given = [value for value in parameters if value is not None]
        if given and len(given) != len(linears):
            return False
        if any(_own_keys(value, counts) is None or element_of(value) != element_of(given[0]) for value in given):
            return False
        if len({_is_sharded(value) for value in given}) > 1:
            return False
    return all(one.parent is first.parent for one in linears)


# ---------------------------------------------------------------------------------------------------- merging
def _common_location(ops: Sequence[Operation]) -> LocationAttr:
    """The innermost module that all of the operations are in."""
    paths = [module_path(op).split(".") for op in ops]
    common = []
    for components in zip(*paths, strict=False):
        if len(set(components)) > 1:
            break
        common.append(components[0])
    return path_location(".".join(common))


def _joined(values: Sequence[SSAValue], before: Operation) -> SSAValue:
    """One parameter with the rows of several, which are erased."""
    ops = [value.owner for value in values if isinstance(value.owner, lpu.WeightOp)]
    keys = [key for op in ops for key in op.key_names]
    shards = [shard for op in ops for shard in op.shards or ()]
    rows = sum(shape_of(value)[0] for value in values)
    type_ = TensorType(element_of(values[0]), [rows, *shape_of(values[0])[1:]])
    return _insert(lpu.WeightOp(keys, type_, shards or None), before, _common_location(ops))


def _insert(op: Operation, before: Operation, location: LocationAttr) -> SSAValue:
    op.location = location
    block = before.parent
    assert block is not None
    block.insert_op_before(op, before)
    return op.results[0]


def _erase_dead(op: Operation | Block) -> None:
    """Erases an operation without users, and the operations that only it used."""
    if not isinstance(op, Operation) or op.parent is None or any(result.uses for result in op.results):
        return
    owners = [value.owner for value in op.operands]
    op.detach()
    op.erase()
    for owner in owners:
        _erase_dead(owner)


def _merged(
    linears: Sequence[lpu.LinearOp], before: Operation, activation: str | None = None, gated: bool = False
) -> SSAValue:
    """One linear in place of several, in front of an operation. The linears themselves are not erased."""
    weight = _joined([one.weight for one in linears], before)
    biases = [one.bias for one in linears if one.bias is not None]
    bias = _joined(biases, before) if biases else None
    linear = lpu.LinearOp(linears[0].x, weight, bias, activation=activation, gated=gated)
    return _insert(linear, before, _common_location(linears))


# ---------------------------------------------------------------------------------------------------- projections
def _projection(value: SSAValue) -> lpu.LinearOp | None:
    """The linear that an operand of an attention comes from, through operations that do not change x."""
    while not isinstance(op := value.owner, lpu.LinearOp):
        source = _source(op)
        if source is None:
            return None
        value = source
    return op


def _source(op: Operation | Block) -> SSAValue | None:
    if isinstance(op, _BETWEEN):
        return op.operands[0]
    if isinstance(op, lpu.MulOp | lpu.AddOp):
        for value, other in either_order(op):
            if isinstance(other.owner, lpu.WeightOp | lpu.ConstantOp):
                return value
    return None


def merge_projections(attention: lpu.AttentionOp, counts: Counter[str]) -> None:
    """Makes one linear of the three that feed an attention."""
    found = [_projection(value) for value in (attention.value, attention.key, attention.query)]
    linears = [linear for linear in found if linear is not None]
    if len(linears) != 3 or not _can_merge(linears, counts):
        return
    block = attention.parent
    assert block is not None
    first = min(linears, key=block.get_operation_index)
    merged = _merged(linears, first)
    merged.name_hint = "vkq"
    dim, start = len(shape_of(merged)) - 1, 0
    for linear in linears:
        stop = start + linear.columns
        part = _insert(lpu.SliceOp(merged, dim, start, stop), first, linear.location)
        part.name_hint = linear.res.name_hint
        linear.res.replace_all_uses_with(part)
        start = stop
    for linear in linears:
        _erase_dead(linear)


# ---------------------------------------------------------------------------------------------------- gates
def _factors(product: lpu.MulOp) -> Iterator[tuple[SSAValue, SSAValue, str | None]]:
    """(gate before its activation, other factor, activation) in every reading of the product."""
    if product.lhs.type != product.rhs.type or not (product.lhs.has_one_use() and product.rhs.has_one_use()):
        return
    for gate, up in either_order(product):
        op = gate.owner
        if isinstance(op, lpu.UnaryOp) and is_activation(op) and op.x.has_one_use():
            yield op.x, up, op.mnemonic()
    yield product.lhs, product.rhs, None


def merge_gate(product: lpu.MulOp, counts: Counter[str]) -> None:
    """Makes one gated linear of a product of two."""
    for gate, up, activation in _factors(product):
        merged = _gated(gate, up, activation, product, counts)
        if merged is None:
            continue
        merged.name_hint = product.res.name_hint
        product.res.replace_all_uses_with(merged)
        _erase_dead(product)
        return


def _gated(
    gate: SSAValue, up: SSAValue, activation: str | None, product: lpu.MulOp, counts: Counter[str]
) -> SSAValue | None:
    first, second = gate.owner, up.owner
    if isinstance(first, lpu.LinearOp) and isinstance(second, lpu.LinearOp) and _can_merge([first, second], counts):
        return _merged([first, second], product, activation, gated=True)
    whole = _halved(first, second)
    if whole is None:
        return None
    linear = lpu.LinearOp(whole.x, whole.weight, whole.bias, activation=activation, gated=True)
    return _insert(linear, product, whole.location)


def _halved(first: Operation | Block, second: Operation | Block) -> lpu.LinearOp | None:
    """The linear whose result is cut into these two halves and has no other use."""
    if not isinstance(first, lpu.SliceOp) or not isinstance(second, lpu.SliceOp) or first.x is not second.x:
        return None
    linear = first.x.owner
    if not isinstance(linear, lpu.LinearOp) or not _is_plain(linear):
        return None
    dim, columns = len(shape_of(linear.res)) - 1, linear.columns
    halves = [(dim, 0, columns // 2, 1), (dim, columns // 2, columns, 1)]
    if [first.bounds, second.bounds] != halves or any(use.operation not in (first, second) for use in linear.res.uses):
        return None
    return linear


def merge(function: FuncOp, counts: Counter[str]) -> None:
    """Merges all mergeable linears of a function. `counts`: number of parameters of the module that name each key."""
    for op in list(function.body.block.ops):
        if isinstance(op, lpu.AttentionOp):
            merge_projections(op, counts)
        elif isinstance(op, lpu.MulOp) and op.parent is not None:
            merge_gate(op, counts)


def _counts(op: Operation) -> Counter[str]:
    """Number of weights below an operation for each key. Equal keys with a `*` in two functions belong to different
    layers."""
    return Counter(key for one in op.walk() if isinstance(one, lpu.WeightOp) for key in one.key_names)


@dataclass(frozen=True)
class LpuFuseParallelLinearPass(ModulePass):
    """Makes one matrix of query, key and value projections, and one gated matrix of gate and up projections."""

    name = "lpu-fuse-parallel-linear"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        shared = Counter({key: count for key, count in _counts(op).items() if "*" not in key})
        for function in op.ops:
            if isinstance(function, FuncOp) and not function.is_declaration:
                merge(function, shared | _counts(function))
