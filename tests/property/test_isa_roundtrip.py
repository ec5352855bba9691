"""Whatever the instruction set can say goes to bytes, to text and to operations, and back, unchanged."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.programs.strategies import EXAMPLES, any_instruction, instructions, plain_instruction, programs
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func, FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region
from xdsl.parser import Parser
from xdsl.printer import Printer

from hyperdex_ir.dialects.isa import ISA, OPS, BufferOp, LmuType, LmuUse, ViewUse
from hyperdex_ir.dialects.isa_ops.lmu_type import LMU_WORDS
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.errors import AssemblyError, FileFormatError
from hyperdex_ir.isa.assembly import parse_program, print_instruction, print_program
from hyperdex_ir.isa.codec import decode, decode_program, encode, encode_program, operand_places
from hyperdex_ir.isa.fields import decode_field, field_range
from hyperdex_ir.isa.instructions import SPECS
from hyperdex_ir.isa.operands import FieldKind, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Origin, Program

pytestmark = pytest.mark.slow

many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# ------------------------------------------------------------------------------------------------ bytes
@many
@given(any_instruction())
def test_instruction_to_bytes_and_back(instruction: Instruction) -> None:
    word = encode(instruction)
    assert encode(decode(word)) == word
    assert repr(decode(word)) == repr(instruction)  # repr: a NaN is not equal to itself


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_field_reaches_its_ends(spec) -> None:
    for places in operand_places(spec):
        for place in places.fields:
            if place.field.kind is FieldKind.FLOAT:
                continue
            low, high = field_range(place.field)
            mask = (1 << place.field.width) - 1
            presence = 1 << places.present.low if places.present else 0
            for raw in (low & mask, high & mask):
                word = spec.opcode | presence | raw << place.low
                data = word.to_bytes(64, "little")
                assert encode(decode(data)) == data
                assert decode_field(place.field, raw) in (low, high, *place.field.choices)


@many
@given(st.binary(min_size=64, max_size=64))
def test_any_64_bytes_are_refused_or_kept(data: bytes) -> None:
    with contextlib.suppress(FileFormatError):
        assert encode(decode(data)) == data


@many
@given(programs(), st.data())
def test_damaged_programs_are_refused_or_kept(program: tuple[Instruction, ...], data: st.DataObject) -> None:
    payload = bytearray(encode_program(program))
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * len(payload) - 1))
        payload[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(FileFormatError):
        assert encode_program(decode_program(bytes(payload)).instructions) == payload


@many
@given(st.lists(st.sampled_from(SPECS).map(lambda spec: spec.opcode), max_size=6), st.binary(max_size=400))
def test_any_payload_is_refused_or_kept(opcodes: list[int], tail: bytes) -> None:
    payload = b"".join(bytes([opcode]) + bytes(63) for opcode in opcodes) + tail
    with contextlib.suppress(FileFormatError):
        assert encode_program(decode_program(payload).instructions) == payload


# ------------------------------------------------------------------------------------------------ text
@many
@given(programs(), st.booleans())
def test_program_to_text_and_back(program: tuple[Instruction, ...], with_origins: bool) -> None:
    origins = tuple(Origin("f n", "a.b\n;c", "isa.x") for _ in program) if with_origins else ()
    text = print_program(Program(program, origins))
    assert encode_program(parse_program(text).instructions) == encode_program(program)


@many
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["set", "dst=r9", "value=1", "halt", "a:", ";", "\n", "[", "]", "0x"])).map(" ".join)
)
def test_any_text_is_refused_or_assembled(text: str) -> None:
    with contextlib.suppress(AssemblyError):
        program = parse_program(text)
        assert decode_program(encode_program(program.instructions)) == program


@many
@given(plain_instruction(), st.data())
def test_damaged_text_is_refused_or_assembled(instruction: Instruction, data: st.DataObject) -> None:
    text = print_instruction(instruction)
    at = data.draw(st.integers(0, len(text) - 1))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", "x", "0", "9" * 5000, "=", "]", "-", "\u0661", "\x00"]))
        + text[at + 1 :]
    )
    with contextlib.suppress(AssemblyError):
        encode_program(parse_program(text + "\nhalt").instructions)


# ------------------------------------------------------------------------------------------------ operations
def _context() -> Context:
    context = Context()
    for dialect in (Builtin, Func, ISA):
        context.load_dialect(dialect)
    return context


def _fitting(instruction: Instruction) -> Instruction:
    """The same with addresses so low that a row fits the LMU."""
    values = {
        name: replace(value, address=min(value.address, LMU_WORDS - max(value.stride, 1)))
        if isinstance(value, LmuRef | ViewRef)
        else value
        for name, value in instruction.values.items()
    }
    return Instruction(instruction.name, values)


def _operations(instruction: Instruction) -> list[Operation]:
    """The operation for an instruction, after a buffer for each of its references."""
    buffers: list[Operation] = []
    operands = dict(instruction.values)
    for name, value in instruction.values.items():
        if isinstance(value, LmuRef | ViewRef):
            buffer = BufferOp(LmuType("tokens" if value.stride else 1, value.stride or 1, value.address))
            buffers.append(buffer)
            operands[name] = LmuUse(buffer.res, 0, value.register)
        if isinstance(value, ViewRef):
            operands[name] = ViewUse(buffer.res, 0, value.register, value.group_stride, value.column_stride)
    return [*buffers, OPS[instruction.name](**operands)]


@many
@given(st.sampled_from([spec for spec in SPECS if spec.name in OPS]).flatmap(instructions).map(_fitting))
def test_operation_to_text_and_back(instruction: Instruction) -> None:
    block = Block([*_operations(instruction), ReturnOp()])
    module = ModuleOp([FuncOp("main", ((), ()), Region(block))])
    # Buffers may be too narrow for the columns drawn: that is the verifier's business, not the text's.
    word = encode(instruction)
    assert encode(to_program(module, chunk=1, head_rows=1).instructions[0]) == word
    custom = str(module)
    generic = io.StringIO()
    Printer(generic, print_generic_format=True).print_op(module)
    for text in (custom, generic.getvalue()):
        parsed = Parser(_context(), text).parse_module()
        assert str(parsed) == custom
    assert all(len(line) <= 240 for line in custom.splitlines())
    if "nan" not in repr(instruction):
        assert encode(to_program(parsed, chunk=1, head_rows=1).instructions[0]) == word
