"""The operations that language models are made of: tables, matrices, norms, rotary positions, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    I64,
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
    i64,
)
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    VarConstraint,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from hyperdex_ir.dialects.f32 import F32, f32_attr
from hyperdex_ir.dialects.lpu_ops.base import TENSOR, LpuOp, is_matrix_element, require, shape_of
from hyperdex_ir.dialects.lpu_ops.choices import ActivationAttr, RotaryStyleAttr
from hyperdex_ir.dialects.lpu_ops.traits import HoldsTable, KeepsZeros, RowWise, StatefulOp

Value = SSAValue | Operation


def _f32(value: float | None) -> FloatAttr | None:
    return None if value is None else f32_attr(value)


def _flag(value: bool) -> UnitAttr | None:
    return UnitAttr() if value else None


class EmbeddingOp(KeepsZeros):
    """Row `index + offset` of a table, as f32, times `scale` where there is one.

    table: [rows, C] of f16, bf16 or f32; index: [..] of i64; result: [.., C] of f32.
    """

    name = "lpu.embedding"
    table = operand_def(TENSOR)
    index = operand_def(TENSOR)
    offset = prop_def(IntegerAttr[I64], default_value=IntegerAttr(0, 64))
    scale = opt_prop_def(FloatAttr[Float32Type])
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (ParsePropInAttrDict(),)
    custom_directives = (F32,)
    assembly_format = (
        "$table `at` $index (`scale` custom<F32>($scale)^)? attr-dict `:` functional-type(operands, results)"
    )

    def __init__(self, table: Value, index: Value, offset: int = 0, *, scale: float | None = None):
        t, i = SSAValue.get(table), SSAValue.get(index)
        super().__init__(
            operands=[t, i],
            properties={"offset": IntegerAttr(offset, 64), "scale": _f32(scale)},
            result_types=[TensorType(f32, [*shape_of(i), shape_of(t)[1]])],
        )

    def verify_(self) -> None:
        table = shape_of(self.table)
        require(len(table) == 2, "lpu.embedding: the table must be [rows, columns]")
        require(shape_of(self.res) == (*shape_of(self.index), table[1]), "lpu.embedding: result shape")


class RotaryTableOp(LpuOp):
    """Cosines and sines for each token's position. table: [positions, 2, d] of f32; results: [.., d] each."""

    name = "lpu.rotary_table"
    table = operand_def(TENSOR)
    position = operand_def(TENSOR)
    cos = result_def(TENSOR)
    sin = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    assembly_format = "$table `at` $position attr-dict `:` functional-type(operands, results)"

    def __init__(self, table: Value, position: Value):
        t, p = SSAValue.get(table), SSAValue.get(position)
        result = TensorType(f32, [*shape_of(p), shape_of(t)[2]])
        super().__init__(operands=[t, p], result_types=[result, result])

    def verify_(self) -> None:
        table = shape_of(self.table)
        require(len(table) == 3 and table[1] == 2, "lpu.rotary_table: the table must be [positions, 2, d]")
        expected = (*shape_of(self.position), table[2])
        require(shape_of(self.cos) == shape_of(self.sin) == expected, "lpu.rotary_table: result shape")


class LinearOp(KeepsZeros):
    """A matrix times a vector for each token, then a chain of vector operations, each rounded to f32 and each optional.

    y = MAC(weight, x); y = y + bias; y = y * scale; y = tanh(y / softcap) * softcap; y = activation(y);
    y = y * times; y = y + plus.
    x: [.., K]; weight: [N, K] of the matrix type; bias: [N]; times, plus: the result's shape, [.., N].
    gated: the weight is [2N, K] and the bias [2N]; scale, softcap and activation work on columns 0 to N - 1, which are
    then multiplied by columns N to 2N - 1.
    """

    name = "lpu.linear"
    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(TENSOR)
    weight = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    times = opt_operand_def(T)
    plus = opt_operand_def(T)
    scale = opt_prop_def(FloatAttr[Float32Type])
    softcap = opt_prop_def(FloatAttr[Float32Type])
    activation = opt_prop_def(ActivationAttr)
    gated = opt_prop_def(UnitAttr)
    res = result_def(T)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    custom_directives = (F32,)
    assembly_format = (
        "$x `by` $weight (`gated` $gated^)? (`bias` $bias^ `:` type($bias))? (`scale` custom<F32>($scale)^)? "
        "(`softcap` custom<F32>($softcap)^)? (`then` $activation^)? (`times` $times^)? (`plus` $plus^)? attr-dict "
        "`:` type($x) `,` type($weight) `->` type($res)"
    )

    def __init__(
        self,
        x: Value,
        weight: Value,
        bias: Value | None = None,
        *,
        scale: float | None = None,
        softcap: float | None = None,
        activation: str | None = None,
        times: Value | None = None,
        plus: Value | None = None,
        gated: bool = False,
    ):
        rows = shape_of(SSAValue.get(weight))[0]
        shape = (*shape_of(SSAValue.get(x))[:-1], rows // 2 if gated else rows)
        super().__init__(
            operands=[x, weight, bias, times, plus],
            properties={
                "scale": _f32(scale),
                "softcap": _f32(softcap),
                "activation": None if activation is None else ActivationAttr(activation),
                "gated": _flag(gated),
            },
            result_types=[TensorType(f32, shape)],
        )

    @property
    def columns(self) -> int:
        """N: columns of the result."""
        rows = shape_of(self.weight)[0]
        return rows if self.gated is None else rows // 2

    def zeros_from(self) -> tuple[SSAValue, ...] | None:
        is_plain = all(part is None for part in (self.activation, self.plus, self.softcap))
        return () if is_plain and len(shape_of(self.res)) == 2 else None

    def verify_(self) -> None:
        x, weight, result = shape_of(self.x), shape_of(self.weight), shape_of(self.res)
        require(len(weight) == 2, "lpu.linear: the weight must be [N, K]")
        require(x[-1] == weight[1], f"lpu.linear: x has {x[-1]} columns, the weight {weight[1]}")
        require(self.gated is None or weight[0] % 2 == 0, "lpu.linear: gated needs a weight of 2N rows")
        require(result == (*x[:-1], self.columns), "lpu.linear: result shape")
        weight_type = self.weight.type
        assert isinstance(weight_type, TensorType)
        require(is_matrix_element(weight_type.element_type), "lpu.linear: the weight must be f16 or bf16")
        expected = "[2N]" if self.gated is not None else "[N]"
        require(self.bias is None or shape_of(self.bias) == (weight[0],), f"lpu.linear: the bias must be {expected}")
        for operand in (self.times, self.plus):
            require(
                operand is None or shape_of(operand) == result, "lpu.linear: times and plus have the result's shape"
            )


class RmsNormOp(KeepsZeros):
    """(x * rsqrt(mean(x * x) + epsilon)) * weight, over the last dimension. weight: [C].

    unit_offset: 1 + weight in place of the weight.
    """

    name = "lpu.rms_norm"
    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(T)
    weight = opt_operand_def(TENSOR)
    epsilon = prop_def(FloatAttr[Float32Type])
    unit_offset = opt_prop_def(UnitAttr)
    res = result_def(T)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (ParsePropInAttrDict(),)
    custom_directives = (F32,)
    assembly_format = (
        "$x (`weight` $weight^ `:` type($weight))? (`unit_offset` $unit_offset^)? `epsilon` custom<F32>($epsilon) "
        "attr-dict `:` type($res)"
    )

    def __init__(self, x: Value, weight: Value | None, epsilon: float, *, unit_offset: bool = False):
        value = SSAValue.get(x)
        super().__init__(
            operands=[value, weight],
            properties={"epsilon": f32_attr(epsilon), "unit_offset": _flag(unit_offset)},
            result_types=[value.type],
        )

    def zeros_from(self) -> tuple[SSAValue, ...]:
        return (self.x,)

    def verify_(self) -> None:
        columns = shape_of(self.x)[-1]
        require(self.weight is None or shape_of(self.weight) == (columns,), "lpu.rms_norm: the weight must be [C]")
        _require_offset_of_weight(self)


class LayerNormOp(KeepsZeros):
    """c = x - mean(x); ((c * rsqrt(mean(c * c) + epsilon)) * weight) + bias, over the last dimension.

    unit_offset: 1 + weight in place of the weight.
    """

    name = "lpu.layer_norm"
    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(T)
    weight = opt_operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    epsilon = prop_def(FloatAttr[Float32Type])
    unit_offset = opt_prop_def(UnitAttr)
    res = result_def(T)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    custom_directives = (F32,)
    assembly_format = (
        "$x (`weight` $weight^ `:` type($weight))? (`unit_offset` $unit_offset^)? (`bias` $bias^ `:` type($bias))? "
        "`epsilon` custom<F32>($epsilon) attr-dict `:` type($res)"
    )

    def __init__(
        self, x: Value, weight: Value | None, bias: Value | None, epsilon: float, *, unit_offset: bool = False
    ):
        value = SSAValue.get(x)
        super().__init__(
            operands=[value, weight, bias],
            properties={"epsilon": f32_attr(epsilon), "unit_offset": _flag(unit_offset)},
            result_types=[value.type],
        )

    def zeros_from(self) -> tuple[SSAValue, ...] | None:
        return (self.x,) if self.bias is None else None

    def verify_(self) -> None:
        columns = shape_of(self.x)[-1]
        for operand in (self.weight, self.bias):
            require(operand is None or shape_of(operand) == (columns,), "lpu.layer_norm: weight and bias must be [C]")
        _require_offset_of_weight(self)


def _require_offset_of_weight(op: RmsNormOp | LayerNormOp) -> None:
    require(op.unit_offset is None or op.weight is not None, f"{op.name}: unit_offset needs a weight")


class RotaryOp(KeepsZeros):
    """Rotates pairs of the first d elements of each head by the token's angles; the rest stays.

    x: [?, H, D]; cos, sin: [?, d]. With r(x) the pair's partner, negated for the first of the pair:
    y[i] = x[i] * cos[i] + r(x)[i] * sin[i], three roundings.
    """

    name = "lpu.rotary"
    x = operand_def(TENSOR)
    cos = operand_def(TENSOR)
    sin = operand_def(TENSOR)
    style = prop_def(RotaryStyleAttr)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `cos` $cos `sin` $sin `style` $style attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: Value, cos: Value, sin: Value, style: str):
        value = SSAValue.get(x)
        super().__init__(
            operands=[value, cos, sin], properties={"style": RotaryStyleAttr(style)}, result_types=[value.type]
        )

    def zeros_from(self) -> tuple[SSAValue, ...]:
        return (self.x,)

    def verify_(self) -> None:
        x, cos = shape_of(self.x), shape_of(self.cos)
        require(len(x) == 3 and x[0] == DYNAMIC_INDEX, "lpu.rotary: x must be [?, heads, head size]")
        require(cos == shape_of(self.sin) and len(cos) == 2, "lpu.rotary: cos and sin must both be [?, d]")
        require(cos[1] <= x[2] and cos[1] % 2 == 0, "lpu.rotary: d must be even and at most the head size")
        require(shape_of(self.res) == x, "lpu.rotary: result shape")


class AttentionOp(StatefulOp, HoldsTable):
    """Causal attention of the tokens in flight over the KV cache, to which their keys and values are appended first.

    query: [?, H, D]; key: [?, G, D]; value: [?, G, Dv]; result: [?, H, Dv]; query head h uses KV head h * G / H.
    window: positions seen, the token's own included (absent: all).
    slopes: [H], the bias of position j in head h for a token at position p is slopes[h] * (j - p), added to the score;
    bf16_bias: bf16(slopes[h] * bf16(j)) * scale instead. sinks: [H], a score of each head that takes part in the
    softmax and has no value.
    kv_heads, on several devices, where the KV heads of a device's query heads do not follow that rule: the number of
    the KV head, among those that the device holds, of each query head of the first device, then of the second, ...;
    kv_heads_key names this table in memory.
    """

    name = "lpu.attention"
    query = operand_def(TENSOR)
    key = operand_def(TENSOR)
    value = operand_def(TENSOR)
    slopes = opt_operand_def(TENSOR)
    sinks = opt_operand_def(TENSOR)
    scale = prop_def(FloatAttr[Float32Type])
    window = opt_prop_def(IntegerAttr[I64])
    softcap = opt_prop_def(FloatAttr[Float32Type])
    bf16_bias = opt_prop_def(UnitAttr)
    kv_heads_key = opt_prop_def(StringAttr)
    kv_heads = opt_prop_def(DenseArrayBase.constr(i64))
    res = result_def(TENSOR)
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    custom_directives = (F32,)
    assembly_format = (
        "$query `,` $key `,` $value `slot` $slot `scale` custom<F32>($scale) (`window` $window^)? "
        "(`softcap` custom<F32>($softcap)^)? (`slopes` $slopes^ `:` type($slopes))? (`bf16_bias` $bf16_bias^)? "
        "(`sinks` $sinks^ `:` type($sinks))? (`kv_heads` $kv_heads_key^ $kv_heads)? attr-dict "
        "`:` `(` type($query) `,` type($key) `,` type($value) `)` `->` type($res)"
    )

    def __init__(
        self,
        query: Value,
        key: Value,
        value: Value,
        *,
        slot: int,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        slopes: Value | None = None,
        bf16_bias: bool = False,
        sinks: Value | None = None,
        kv_heads: tuple[str, Sequence[int]] | None = None,
    ):
        q, v = shape_of(SSAValue.get(query)), shape_of(SSAValue.get(value))
        super().__init__(
            operands=[query, key, value, slopes, sinks],
            properties={
                "slot": IntegerAttr(slot, 64),
                "scale": f32_attr(scale),
                "window": None if window is None else IntegerAttr(window, 64),
                "softcap": _f32(softcap),
                "bf16_bias": _flag(bf16_bias),
                "kv_heads_key": None if kv_heads is None else StringAttr(kv_heads[0]),
                "kv_heads": None if kv_heads is None else DenseArrayBase.from_list(i64, kv_heads[1]),
            },
            result_types=[TensorType(f32, [q[0], q[1], v[2]])],
        )

    @property
    def table(self) -> tuple[str, tuple[int, ...]] | None:
        numbers, key = self.kv_head_table, self.kv_heads_key
        return None if numbers is None or key is None else (key.data, numbers)

    @property
    def kv_head_table(self) -> tuple[int, ...] | None:
        """The KV head, among those of the device, of each query head, device after device; None: h * G / H."""
        return None if self.kv_heads is None else tuple(int(head) for head in self.kv_heads.get_values())

    def kv_head(self, head: int, device: int = 0) -> int:
        """The KV head of a query head of a device, both counted among those that the device holds."""
        heads, groups = shape_of(self.query)[1], shape_of(self.key)[1]
        table = self.kv_head_table
        return head * groups // heads if table is None else table[device * heads + head]

    def verify_(self) -> None:
        query, key, value = (shape_of(v) for v in (self.query, self.key, self.value))
        require(len(query) == len(key) == len(value) == 3, "lpu.attention: operands must be [?, heads, head size]")
        require(query[2] == key[2], f"lpu.attention: head sizes differ, {query[2]} and {key[2]}")
        divides = self.kv_heads is not None or query[1] % key[1] == 0
        require(key[1] == value[1] and divides, "lpu.attention: heads must be a multiple of KV heads")
        require(shape_of(self.res) == (query[0], query[1], value[2]), "lpu.attention: result shape")
        require(self.window is None or self.window.value.data > 0, "lpu.attention: the window must be positive")
        for operand in (self.slopes, self.sinks):
            require(operand is None or shape_of(operand) == (query[1],), "lpu.attention: slopes and sinks must be [H]")
        require(self.bf16_bias is None or self.slopes is not None, "lpu.attention: bf16_bias needs slopes")
        self._verify_table(query[1], key[1])

    def _verify_table(self, heads: int, groups: int) -> None:
        require((self.kv_heads is None) == (self.kv_heads_key is None), "lpu.attention: kv_heads needs its key")
        table = self.kv_head_table or ()
        require(len(table) % heads == 0, f"lpu.attention: kv_heads must have {heads} numbers for each device")
        require(all(0 <= head < groups for head in table), f"lpu.attention: kv_heads outside 0..{groups - 1}")
