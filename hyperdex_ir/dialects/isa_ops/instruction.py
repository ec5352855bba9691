"""Operations of machine instructions, one class each, generated from the instruction table."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from xdsl.dialects.builtin import I64, Float32Type, FloatAttr, IntegerAttr, LocationAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer

from hyperdex_ir.dialects.f32 import f32_attr
from hyperdex_ir.dialects.isa_ops.checks import OperandValue, check_instruction
from hyperdex_ir.dialects.isa_ops.lmu_type import LmuType, LmuUse, ViewUse
from hyperdex_ir.dialects.isa_ops.syntax import parse_operand, print_operand
from hyperdex_ir.isa.fields import default_value, is_default, is_required, register_number
from hyperdex_ir.isa.instructions import BY_NAME, SPECS, Spec
from hyperdex_ir.isa.operands import F32, Enum, Hbm, HbmRef, Imm, Lmu, Operand, Reg, View

_VIEW_DEFAULTS = {"group_stride": 0, "column_stride": 1}


class InstructionOp(IRDLOperation, ABC):
    """One machine instruction.

    The constructor takes each operand of the table by keyword: LmuUse and ViewUse (or a bare buffer, used from its
    start) for LMU and View operands, HbmRef for HBM operands, a number or a name for registers, int, float and str for
    the rest. An operand that is left out has the table's default, or is absent. `operand` gives the same values back.

    In the IR buffers are operands; everything else is properties, `name` or `name_part`, left out at the default.
    """

    def __init__(self, *, location: LocationAttr | None = None, **operands: Any):
        spec = self.spec()
        if unknown := [name for name in operands if all(operand.name != name for operand in spec.operands)]:
            raise TypeError(f"{self.name} has no operand {', '.join(unknown)}")
        buffers: list[SSAValue | None] = []
        properties: dict[str, Attribute | None] = {}
        for operand in spec.operands:
            value = operands.get(operand.name)
            if value is None and is_required(operand):
                raise TypeError(f"{self.name} needs operand {operand.name}")
            if isinstance(operand, Lmu | View):
                use = _as_use(operand, value)
                buffers.append(None if use is None else use.buffer)
                properties |= _use_properties(operand.name, use)
            elif value is not None:
                properties |= _scalar_properties(operand, value)
        super().__init__(operands=buffers, properties=properties)
        if location is not None:
            self.location = location

    @classmethod
    def spec(cls) -> Spec:
        """The instruction's entry in the table."""
        return BY_NAME[cls.name.removeprefix("isa.")]

    def operand(self, name: str) -> Any:
        """The value of one operand, as the constructor takes it; defaults filled in, None when absent."""
        for operand in self.spec().operands:
            if operand.name == name:
                return self._value(operand)
        raise KeyError(f"{self.name} has no operand {name}")

    def values(self) -> dict[str, OperandValue]:
        """All operands by name, in table order."""
        return {operand.name: self._value(operand) for operand in self.spec().operands}

    def uses(self) -> Iterator[tuple[str, LmuUse | ViewUse]]:
        """The LMU and View operands that are present."""
        for name, value in self.values().items():
            if isinstance(value, LmuUse | ViewUse):
                yield name, value

    def _value(self, operand: Operand) -> OperandValue:
        name = operand.name
        if isinstance(operand, Lmu | View):
            return self._use(operand)
        if isinstance(operand, Hbm):
            if f"{name}_offset" not in self.properties:
                return None
            return HbmRef(self._integer(f"{name}_offset"), self._integer(f"{name}_register"))
        attribute = self.properties.get(name)
        if attribute is None:  # as for most operands: isinstance of xDSL's attributes is slow
            return default_value(operand)
        if isinstance(attribute, IntegerAttr | FloatAttr):
            return attribute.value.data
        if isinstance(attribute, StringAttr):
            return attribute.data
        return default_value(operand)

    def _use(self, operand: Lmu | View) -> LmuUse | ViewUse | None:
        name = operand.name
        buffer: SSAValue | None = getattr(self, name)
        if buffer is None:
            return None
        offset, register = self._integer(f"{name}_offset"), self._integer(f"{name}_register")
        if isinstance(operand, Lmu):
            return LmuUse(buffer, offset, register)
        strides = {part: self._integer(f"{name}_{part}", default) for part, default in _VIEW_DEFAULTS.items()}
        return ViewUse(buffer, offset, register, **strides, broadcast_rows=f"{name}_broadcast_rows" in self.properties)

    def _integer(self, name: str, default: int = 0) -> int:
        attribute = self.properties.get(name)
        if attribute is None:
            return default
        return attribute.value.data if isinstance(attribute, IntegerAttr) else default

    def verify_(self) -> None:
        check_instruction(self.spec(), self.values())

    def print(self, printer: Printer) -> None:
        for operand in self.spec().operands:
            value = self._value(operand)
            if not is_default(operand, value):
                print_operand(printer, operand, value)
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> InstructionOp:
        operands = {operand.name: operand for operand in cls.spec().operands}
        values: dict[str, Any] = {}
        while (name := parser.parse_optional_keyword_in(operands)) is not None:
            if name in values:
                parser.raise_error(f"{cls.name}: {name} stands twice")
            parser.parse_punctuation("=")
            values[name] = parse_operand(parser, operands[name])
        missing = [name for name, operand in operands.items() if is_required(operand) and name not in values]
        if missing:
            parser.raise_error(f"{cls.name}: expected {missing[0]}=")
        op = cls(**values)
        if (attributes := parser.parse_optional_attr_dict_with_keyword()) is not None:
            op.attributes.update(attributes.data)
        return op


def _as_use(operand: Lmu | View, value: Any) -> LmuUse | ViewUse | None:
    if isinstance(value, SSAValue):
        return LmuUse(value) if isinstance(operand, Lmu) else ViewUse(value)
    if value is not None and not isinstance(value, LmuUse if isinstance(operand, Lmu) else ViewUse):
        raise TypeError(f"{operand.name}: expected {type(operand).__name__}Use, got {value!r}")
    return value


def _use_properties(name: str, use: LmuUse | ViewUse | None) -> dict[str, Attribute | None]:
    if use is None:
        return {}
    parts = {"offset": use.offset, "register": use.register}
    properties: dict[str, Attribute | None] = {}
    if isinstance(use, ViewUse):
        parts |= {part: getattr(use, part) for part in _VIEW_DEFAULTS}
        if use.broadcast_rows:
            properties[f"{name}_broadcast_rows"] = UnitAttr()
    for part, value in parts.items():
        if value != _VIEW_DEFAULTS.get(part, 0):
            properties[f"{name}_{part}"] = IntegerAttr(value, 64)
    return properties


def _scalar_properties(operand: Operand, value: Any) -> dict[str, Attribute | None]:
    name = operand.name
    if isinstance(operand, Hbm):
        register = {f"{name}_register": IntegerAttr(value.register, 64)} if value.register else {}
        return {f"{name}_offset": IntegerAttr(value.offset, 64), **register}
    if is_default(operand, value):
        return {}
    if isinstance(operand, Reg) and isinstance(value, str):
        number = register_number(value)
        if number is None:
            raise TypeError(f"{name}: no register {value!r}")
        return {name: IntegerAttr(number, 64)}
    if isinstance(operand, F32):
        return {name: f32_attr(value)}
    return {name: StringAttr(value) if isinstance(operand, Enum) else IntegerAttr(value, 64)}


def _definitions(operand: Operand) -> Mapping[str, Any]:
    """The operand and property definitions that carry one operand of the table."""
    name, integer = operand.name, IntegerAttr[I64]
    match operand:
        case Lmu() | View():
            buffer = opt_operand_def(LmuType) if operand.optional else operand_def(LmuType)
            parts = ("offset", "register", *(_VIEW_DEFAULTS if isinstance(operand, View) else ()))
            flags = {f"{name}_broadcast_rows": opt_prop_def(UnitAttr)} if isinstance(operand, View) else {}
            return {name: buffer, **{f"{name}_{part}": opt_prop_def(integer) for part in parts}, **flags}
        case Hbm():
            offset = opt_prop_def(integer) if operand.optional else prop_def(integer)
            return {f"{name}_offset": offset, f"{name}_register": opt_prop_def(integer)}
    kind = {F32: FloatAttr[Float32Type], Enum: StringAttr, Imm: integer, Reg: integer}[type(operand)]
    return {name: prop_def(kind) if is_required(operand) else opt_prop_def(kind)}


@cache
def _operation_class(spec: Spec) -> type[InstructionOp]:
    class_name = "".join(word.capitalize() for word in spec.name.split("_")) + "Op"
    namespace: dict[str, Any] = {"name": f"isa.{spec.name}", "__doc__": spec.doc, "__module__": __name__}
    for operand in spec.operands:
        namespace |= _definitions(operand)
    if sum(operand.optional for operand in spec.lmu) > 1:
        namespace["irdl_options"] = (AttrSizedOperandSegments(as_property=True),)
    return irdl_op_definition(type(class_name, (InstructionOp,), namespace))


class _Operations(Mapping[str, type[InstructionOp]]):
    """The classes, made when they are asked for: the instruction table may grow."""

    def __getitem__(self, name: str) -> type[InstructionOp]:
        spec = BY_NAME[name]
        if spec.flow is not None:
            raise KeyError(name)
        return _operation_class(spec)

    def __iter__(self) -> Iterator[str]:
        return (spec.name for spec in SPECS if spec.flow is None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


#: The class of each instruction that has one, by instruction name. Control words without a class are expressed by the
#: structure of the module.
OPS: Mapping[str, type[InstructionOp]] = _Operations()
