"""Programs as text, one instruction a line, and back. The text of a program assembles to the program's bytes.

    main:                                  ; a label stands before what follows; calls go to labels or to numbers
        matmul dst=lmu[0x1000:576] src=lmu[0x0+r9:576] weight=hbm[0x4000+param_base] k=576 n=576 type=f16 rows=tokens
        repeat count=3 length=1
            unary function=exp dst=view[0x40:576,64,1] a=view[0x40+r9:576,64,1] groups=9 columns=64 rows=tokens
        call target=layer
        halt

`lmu[address:row stride]`, `view[address:row stride,group stride,column stride]`, `hbm[offset]`; `+register` behind an
address or offset. Numbers are decimal or 0x hexadecimal. A float is a decimal number; in hexadecimal it is its 32
bits. Operands stand in any order; those at their default, and absent ones, are left out. Space is free between
operands, not within one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from hyperdex_ir.errors import AssemblyError, CapacityError
from hyperdex_ir.isa.fields import (
    check_operand,
    default_value,
    f32_bits,
    f32_value,
    format_f32,
    is_default,
    is_required,
    register_name,
    register_number,
)
from hyperdex_ir.isa.instructions import BY_NAME, SPECS, Flow
from hyperdex_ir.isa.operands import (
    F32,
    REGISTERS,
    Enum,
    Hbm,
    HbmRef,
    Imm,
    Lmu,
    LmuRef,
    Operand,
    Reg,
    Value,
    View,
    ViewRef,
)
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.isa.structure import BODIES, MAX_INSTRUCTIONS, StructureError, check_structure, function_starts

INDENT = "    "
ENTRY_LABEL = "main"
#: Characters of names that are compared for what may be meant.
_LONGEST = 100

_LABEL = r"[A-Za-z_.$][\w.$]*"
_NUMBER = r"-?(?:0[xX][0-9a-fA-F]{1,32}|[0-9]{1,32})"
_ADDRESS = rf"({_NUMBER})(?:\+(\w+))?"
_LMU = re.compile(rf"lmu\[{_ADDRESS}:({_NUMBER})\]", re.ASCII)
_VIEW = re.compile(rf"view\[{_ADDRESS}:({_NUMBER}),({_NUMBER}),({_NUMBER})\]", re.ASCII)
_HBM = re.compile(rf"hbm\[{_ADDRESS}\]", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
_BITS = re.compile(r"0[xX][0-9a-fA-F]{1,8}", re.ASCII)
_WORD = re.compile(r"\S+")
_LABEL_WORD = re.compile(rf"({_LABEL}):", re.ASCII)


# ---------------------------------------------------------------------------------------------------- to text
def print_program(program: Program) -> str:
    """The text of a valid program. Origins, where known, give the labels and a comment for each line."""
    labels = _labels(program)
    lines: list[str] = []
    bodies: list[int] = []
    for index, instruction in enumerate(program.instructions):
        while bodies and bodies[-1] == index:
            bodies.pop()
        if index in labels:
            lines += ["", f"{labels[index]}:"] if lines else [f"{labels[index]}:"]
        text = INDENT * (1 + len(bodies)) + print_instruction(instruction, labels)
        comment = _comment(program.origins[index]) if program.origins else ""
        lines.append(f"{text}  ; {comment}" if comment else text)
        length = instruction["length"] if instruction.name in BODIES else None
        if isinstance(length, int):
            bodies.append(index + 1 + length)
    return "\n".join(lines) + "\n"


def print_instruction(instruction: Instruction, labels: Mapping[int, str] | None = None) -> str:
    """The text of one instruction; `labels` has the names of call targets."""
    words = [instruction.name]
    for operand in instruction.spec.operands:
        value = instruction.values.get(operand.name)
        if is_default(operand, value):
            continue
        label = labels.get(value) if labels and instruction.spec.flow is Flow.CALL and isinstance(value, int) else None
        words.append(f"{operand.name}={label or _value_text(operand, value)}")
    return " ".join(words)


def _labels(program: Program) -> dict[int, str]:
    """A label for the start of each function: its name where known, made unique."""
    labels: dict[int, str] = {}
    taken: set[str] = set()
    for index in function_starts(program.instructions):
        known = program.origins[index].function if program.origins else ""
        name = re.sub(r"[^A-Za-z0-9_.$]", "_", known) or (f"f{index}" if index else ENTRY_LABEL)
        if not re.match(r"[A-Za-z_.$]", name):
            name = f"f{index}.{name}"
        while name in taken:
            name = f"f{index}.{name}"
        taken.add(name)
        labels[index] = name
    return labels


def _comment(origin: Origin) -> str:
    return " ".join(f"{origin.operation} {origin.module_path}".split())


def _value_text(operand: Operand, value: Value) -> str:
    match value:
        case LmuRef():
            return f"lmu[{_address_text(value.address, value.register)}:{value.stride}]"
        case ViewRef():
            strides = f"{value.stride},{value.group_stride},{value.column_stride}"
            return f"view[{_address_text(value.address, value.register)}:{strides}]"
        case HbmRef():
            return f"hbm[{_address_text(value.offset, value.register)}]"
        case int() if isinstance(operand, Reg):
            return register_name(value)
        case int() | float() if isinstance(operand, F32):
            return format_f32(value)
    return str(value)


def _address_text(address: int, register: int) -> str:
    return f"0x{address:x}+{register_name(register)}" if register else f"0x{address:x}"


# ---------------------------------------------------------------------------------------------------- from text
def parse_program(text: str, source: str = "<text>") -> Program:
    """The program that a text stands for, ready to be encoded. `source` names the text in errors.

    Raises AssemblyError with line, column and the expected text.
    """
    reader = _Reader(source)
    for number, line in enumerate(text.splitlines(), start=1):
        reader.read_line(number, line)
    instructions = reader.resolve()
    try:
        check_structure(instructions)
    except StructureError as error:
        _fail(reader.places[error.index] if reader.places else _Word(source, 1, 1, ""), str(error))
    return Program(instructions)


@dataclass(frozen=True)
class _Word:
    """A stretch of text without spaces and where it stands, from 1."""

    source: str
    line: int
    column: int
    text: str

    def tail(self, start: int) -> _Word:
        return _Word(self.source, self.line, self.column + start, self.text[start:])


def _fail(word: _Word, message: str, hint: str = "") -> NoReturn:
    raise AssemblyError(f"{word.source}:{word.line}:{word.column}: {message}", hint)


def _nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the name that may be meant; empty when none is near."""
    nearest = difflib.get_close_matches(name[:_LONGEST], (item for item in names if len(item) <= _LONGEST), n=1)
    return f"did you mean {nearest[0]}?" if nearest else ""


@dataclass
class _Reader:
    source: str
    names: list[str] = field(default_factory=list)
    values: list[dict[str, Value]] = field(default_factory=list)
    places: list[_Word] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    calls: dict[int, _Word] = field(default_factory=dict)  # label of each call to a label, by the call's index

    def read_line(self, number: int, line: str) -> None:
        code = line.partition(";")[0]
        words = (_Word(self.source, number, m.start() + 1, m.group()) for m in _WORD.finditer(code))
        for word in words:
            label = _LABEL_WORD.fullmatch(word.text)
            if label is None:
                self._read_instruction(word, words)
            else:
                self._read_label(word, label.group(1))

    def _read_label(self, word: _Word, name: str) -> None:
        if name in self.labels:
            _fail(word, f"label {name} stands twice")
        if len(self.labels) == MAX_INSTRUCTIONS:
            _fail(word, f"a program has at most {MAX_INSTRUCTIONS} labels")
        self.labels[name] = len(self.names)

    def _read_instruction(self, mnemonic: _Word, words: Iterator[_Word]) -> None:
        spec = BY_NAME.get(mnemonic.text)
        if spec is None:
            known = ", ".join(spec.name for spec in SPECS)
            message = f"expected a label or an instruction ({known}), got {mnemonic.text!r}"
            _fail(mnemonic, message, _nearest(mnemonic.text, BY_NAME))
        operands = {operand.name: operand for operand in spec.operands}
        written: dict[str, Value] = {}
        for word in words:
            name = word.text.partition("=")[0]
            if name == word.text or name not in operands:
                wanted = ", ".join(f"{operand}=" for operand in operands) or "nothing"
                _fail(word, f"{spec.name}: expected {wanted}, got {word.text!r}", _nearest(name, operands))
            if name in written:
                _fail(word, f"{spec.name}: {name} stands twice")
            written[name] = self._read_operand(spec.name, operands[name], word.tail(len(name) + 1))
        values: dict[str, Value] = {}
        for name, operand in operands.items():
            if name not in written and is_required(operand):
                _fail(mnemonic, f"{spec.name}: expected {name}=")
            values[name] = written.get(name, default_value(operand))
        if len(self.names) == MAX_INSTRUCTIONS:
            _fail(mnemonic, f"a program has at most {MAX_INSTRUCTIONS} instructions")
        self.names.append(spec.name)
        self.values.append(values)
        self.places.append(mnemonic)

    def _read_operand(self, owner: str, operand: Operand, word: _Word) -> Value:
        if BY_NAME[owner].flow is Flow.CALL and re.fullmatch(_LABEL, word.text, re.ASCII):
            self.calls[len(self.names)] = word
            return 0
        value = _parse_value(operand, word)
        try:
            check_operand(owner, operand, value)
        except (AssemblyError, CapacityError) as error:
            _fail(word, str(error))
        return value

    def resolve(self) -> tuple[Instruction, ...]:
        for index, word in self.calls.items():
            if word.text not in self.labels:
                _fail(word, f"no label {word.text}", _nearest(word.text, self.labels))
            self.values[index]["target"] = self.labels[word.text]
        return tuple(Instruction(name, values) for name, values in zip(self.names, self.values, strict=True))


def _parse_value(operand: Operand, word: _Word) -> Value:
    match operand:
        case Lmu():
            address, register, stride = _parse_reference(_LMU, word, "lmu[address+register:stride]")
            return LmuRef(address, stride, register)
        case View():
            form = "view[address+register:row stride,group stride,column stride]"
            address, register, *strides = _parse_reference(_VIEW, word, form)
            return ViewRef(address, *strides, register=register)
        case Hbm():
            return HbmRef(*_parse_reference(_HBM, word, "hbm[offset+register]"))
        case Reg():
            return _parse_register(word, word.text)
        case F32():
            return _parse_f32(word)
        case Enum():
            if word.text not in operand.choices:
                choices = operand.choices
                _fail(word, f"expected one of {', '.join(choices)}, got {word.text!r}", _nearest(word.text, choices))
            return word.text
        case Imm():
            if not re.fullmatch(_NUMBER, word.text, re.ASCII):
                _fail(word, f"expected a whole number, got {word.text!r}")
            return _integer(word.text)
    raise NotImplementedError(type(operand).__name__)


def _integer(text: str) -> int:
    return int(text, 16 if "x" in text.lower() else 10)


def _parse_reference(pattern: re.Pattern[str], word: _Word, form: str) -> list[int]:
    """Address, register and strides of `name[address+register:strides]`."""
    match = pattern.fullmatch(word.text)
    if match is None:
        _fail(word, f"expected {form}, got {word.text!r}")
    address, register, *strides = match.groups()
    number = 0 if register is None else _parse_register(word, register)
    return [_integer(address), number, *map(_integer, strides)]


def _parse_register(word: _Word, name: str) -> int:
    number = register_number(name)
    if number is None:
        names = ", ".join(dict.fromkeys(map(register_name, range(REGISTERS))))
        _fail(word, f"expected a register ({names}), got {name!r}")
    return number


def _parse_f32(word: _Word) -> float:
    if _BITS.fullmatch(word.text):
        return f32_value(int(word.text, 16))
    if not _DECIMAL.fullmatch(word.text):
        _fail(word, f"expected a decimal number, or the bits of a float32 in hexadecimal, got {word.text!r}")
    try:
        return f32_value(f32_bits(float(word.text)))
    except OverflowError:
        _fail(word, f"{word.text} is outside float32")
