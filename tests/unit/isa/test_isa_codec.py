"""The instruction table and its encoding: nothing may change by accident, nothing invalid may pass."""

from __future__ import annotations

import struct

import pytest

from hyperdex_ir.errors import AssemblyError, CapacityError, FileFormatError
from hyperdex_ir.isa.codec import decode, decode_program, encode, encode_program, operand_places, used_bits
from hyperdex_ir.isa.fields import f32_bits, f32_value, format_f32
from hyperdex_ir.isa.instructions import OPCODE_BITS, SPECS, WORD_BITS
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction

#: One word an instruction, packed by hand, without the zeros at its end.
GOLDEN = [
    (
        "embed",
        {"dst": LmuRef(0x1234, 576, 9), "table": HbmRef(0x4000), "index": "token", "ids": HbmRef(0xABCDEF0123, 5)}
        | {"offset": -2, "limit": 49152, "columns": 576, "type": "bf16", "rows": 1, "scale": 12.0},
        "013412004002000900080000001809786f5e2dfeff00c00000400200050000a020",
    ),
    (
        "gather",
        {"dst": LmuRef(0x10, 64), "table": HbmRef(0x80, 5), "index": "position", "ids": HbmRef(0)}
        | {"offset": 2, "limit": 2048, "columns": 64, "rows": 1, "scale": 12.0},
        "021000004000000010000000a00400000000000200000800004000000100002808",
    ),
    (
        "load",
        {"dst": LmuRef(0xFFFFFF, 0, 31), "src": HbmRef(0xFFFFFFFFFF, 31), "columns": 768},
        "03ffffff000000ffffffffffff030c",
    ),
    (
        "store",
        {"dst": HbmRef(0x123456), "pitch": 196608, "src": LmuRef(0x20, 49152), "columns": 49152, "rows": 4},
        "045634120000000060000004000000180000000310",
    ),
    (
        "store_key",
        {"cache": HbmRef(0x1000, 6), "pitch": 0x8000, "src": LmuRef(0x300, 192), "heads": 3, "size": 64}
        | {"limit": 2048, "type": "f16", "rows": 1},
        "05001000000006001000006000001800000c0000010020000010",
    ),
    (
        "store_value",
        {"cache": HbmRef(0x2000, 6), "pitch": 0x4000, "src": LmuRef(0x340, 192, 10), "heads": 3, "size": 128}
        | {"limit": 8192, "type": "bf16", "rows": 1},
        "06002000000006000800006800001800400d0000020080000014",
    ),
    (
        "store_state",
        {"state": HbmRef(0x3000, 6), "src": LmuRef(0x44, 2048), "history": 2, "columns": 2048, "rows": 1},
        "07003000000086080000000100080000200004",
    ),
    (
        "matmul",
        {"dst": LmuRef(0x100, 1536), "src": LmuRef(0x200, 576, 9), "weight": HbmRef(0x40000, 5), "k": 576, "n": 1536}
        | {"type": "f16", "bias": HbmRef(0x99, 5), "scale": 0.125, "softcap": 30.0, "activation": "gelu"}
        | {"times": LmuRef(0x700, 1536), "plus": None, "rows": 1, "gated": 1, "prefetch": 324, "gate_distance": 0},
        "10000100000600004000004800200100100000142001000003006602000000140000001f0000f8a021c001008001000000000000000042a2",
    ),
    (
        "scores",
        {"dst": LmuRef(0x40, 2048), "query": LmuRef(0x80, 576, 9), "cache": HbmRef(0x100, 11), "size": 64}
        | {"scale": 0.125, "softcap": 50.0, "window": 512, "type": "f16", "rows": 1}
        | {"slope": HbmRef(0x4440, 29), "bf16_bias": 1},
        "114000000008000010000048002001040000002c20000000001f00002421000100004220220000801e",
    ),
    (
        "values",
        {"dst": LmuRef(0x80, 576, 10), "src": LmuRef(0x40, 2048), "cache": HbmRef(0x8000, 11), "size": 64}
        | {"limit": 2048, "window": 0, "type": "bf16", "rows": 1},
        "128000004002000a08000000010000000200002c2000000400000000008002",
    ),
    (
        "softmax",
        {"dst": LmuRef(0x40, 2048), "src": LmuRef(0x41, 2048, 1), "window": 4096, "rows": 1}
        | {"sink": HbmRef(0x5550, 30)},
        "2040000000080020080000000120004000008450550000001e",
    ),
    (
        "unary",
        {"function": "gelu_tanh", "dst": ViewRef(1, 2, 3, 1, 4), "a": ViewRef(5, 6, 7, 2, 8), "groups": 9}
        | {"columns": 64, "rows": 1},
        "214b0000800000c0000040a40000c00000e0000040940000040010",
    ),
    (
        "binary",
        {"function": "min", "dst": ViewRef(1, 2, 3, 1, 4), "a": ViewRef(5, 0, 7, 0, 8), "b": ViewRef(9, 10, 11, 3, 12)}
        | {"groups": 1, "columns": 576, "rows": 4},
        "22450000800000c0000040a40000000000e0000000940000a00000b00000300b0000120020",
    ),
    (
        "binary_scalar",
        {"function": "sub", "dst": ViewRef(1, 2), "a": ViewRef(3, 4), "b": -1.5, "reversed": 1, "groups": 1}
        | {"columns": 576, "rows": 1},
        "234100008000000000004060000080000000000020000000fc3b0000480020",
    ),
    (
        "reduce",
        {"function": "row_max", "dst": ViewRef(0x100, 9, 1), "a": ViewRef(0x200, 576, 64), "groups": 9, "columns": 64}
        | {"rows": 1},
        "240240004002004000004000400000480000080020900000040010",
    ),
    (
        "rms_norm",
        {
            "dst": ViewRef(0x100, 576),
            "a": ViewRef(0x200, 576),
            "weight": HbmRef(0x40, 5),
            "epsilon": f32_value(0x3727C5AC),
        }
        | {"groups": 1, "columns": 576, "rows": 1, "unit_offset": 1},
        "2500010040020000000001000100200100000080402000000080c25a7c7213000024001002",
    ),
    (
        "layer_norm",
        {"dst": ViewRef(0x100, 768), "a": ViewRef(0x200, 768), "weight": None, "bias": HbmRef(0x80, 5)}
        | {"epsilon": f32_value(0x3727C5AC), "groups": 1, "columns": 768, "rows": 1, "unit_offset": 1},
        "26000100000300000000010001008001000000800000000000001010000000a0b0169fdc0400000c0084",
    ),
    (
        "rotary",
        {"dst": ViewRef(0x100, 576, 64), "a": ViewRef(0x200, 576, 64), "cos": LmuRef(0x300, 128)}
        | {"sin": LmuRef(0x340, 128), "style": "interleaved", "turned": 32, "groups": 9, "columns": 64, "rows": 1},
        "270001004002004000000100010020010020008000c00000200000001a00000400008100240000010004",
    ),
    (
        "select_rows",
        {"dst": LmuRef(0x500, 576), "src": LmuRef(0x600, 576), "first": 3, "columns": 576, "rows": 4},
        "2800050040020000c000004800000c20010002",
    ),
    (
        "sample",
        {"dst": 7, "src": LmuRef(0x700, 49152), "columns": 49152, "rows": 4, "settings": HbmRef(0x123440, 5)},
        "2a07e0000000180000000310201a09008002",
    ),
    (
        "select_columns",
        {"dst": LmuRef(0x500, 144), "src": LmuRef(0x600, 576), "index": 31, "columns": 144, "limit": 576, "rows": 1},
        "2b00050090000000c000004800007c480000200180",
    ),
    (
        "top_k",
        {"dst": LmuRef(0x500, 3), "src": LmuRef(0x600, 9), "columns": 9, "k": 3}
        | {"groups": 3, "top_groups": 2, "rows": 1},
        "2c00050003000000c000200100002400000c00000c00080004",
    ),
    (
        "take_columns",
        {"dst": LmuRef(0x500, 3), "src": LmuRef(0x600, 9), "index": LmuRef(0x700, 3, 5)}
        | {"columns": 3, "limit": 9, "rows": 1},
        "2d00050003000000c00020010000001c000c000094010080040080",
    ),
    (
        "short_conv",
        {"dst": LmuRef(0x100, 2048), "src": LmuRef(0x44, 2048, 9), "state": HbmRef(0x3000, 6), "taps": HbmRef(0x80, 5)}
        | {"bias": HbmRef(0x99, 5), "history": 2, "columns": 2048, "rows": 1},
        "2e0001000008008008000000012001c00000001840000000803213000000a0080000200004",
    ),
    (
        "send",
        {"src": LmuRef(0x700, 576, 16), "hop": 2, "parts": 4, "pitch": 144, "first": 64, "columns": 80, "rows": 4},
        "4000070040020050008000001200000800000a0080",
    ),
    (
        "receive",
        {"dst": LmuRef(0x700, 576), "hop": 3, "parts": 4, "pitch": 144, "first": 64, "columns": 80, "rows": 4},
        "4100070040020060008000001200000800000a0080",
    ),
    ("halt", {}, "30"),
    ("set", {"dst": 5, "value": -4096}, "310500feffffff1f"),
    ("add", {"dst": 9, "a": 9, "b": 12, "value": 64}, "32293120"),
    ("repeat", {"count": 30, "length": 3}, "331e00000003"),
    ("call", {"target": 0x123456}, "34563412"),
    ("ret", {}, "35"),
    ("lookup", {"dst": 14, "table": HbmRef(0x123400), "index": 13, "limit": 26}, "360e8046020000340d"),
    ("skip_unless", {"a": 14, "value": -2, "length": 3}, "37ceffffffffff7f"),
    ("multiply", {"dst": 16, "a": 31, "value": -144}, "38f0c3fdffffffff03"),
    ("fetch", {"dst": 11, "src": LmuRef(0x500, 3, 15), "limit": 9}, "390ba000600000e025"),
    ("repeat_rows", {"rows": 4, "length": 12}, "3a8401"),
]


@pytest.mark.parametrize(("name", "values", "hexadecimal"), GOLDEN, ids=[name for name, _, _ in GOLDEN])
def test_golden_words(name: str, values: dict, hexadecimal: str) -> None:
    word = bytes.fromhex(hexadecimal).ljust(64, b"\0")
    assert encode(Instruction(name, values)) == word
    assert decode(word) == Instruction(name, values)


def test_a_gate_that_is_further_away_stands_behind_all_other_fields() -> None:
    name, values, hexadecimal = next(entry for entry in GOLDEN if entry[0] == "matmul")
    word = encode(Instruction(name, values | {"gate_distance": 3072}))
    assert word == bytes.fromhex(hexadecimal + "00000006").ljust(64, b"\0")


def test_golden_words_cover_the_instruction_set() -> None:
    assert [name for name, _, _ in GOLDEN] == [spec.name for spec in SPECS]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_fields_neither_overlap_nor_leave_gaps(spec) -> None:
    places = [place for item in operand_places(spec) for place in (item.present, *item.fields) if place is not None]
    low = OPCODE_BITS
    for place in places:
        assert place.low == low
        low = place.high + 1
    assert low == used_bits(spec) <= WORD_BITS
    assert [place.field for place in places] == list(spec.fields())


def test_defaults_are_filled_in() -> None:
    short = Instruction("add", {"dst": 9, "a": 9, "b": 12})
    assert decode(encode(short)) == Instruction("add", {"dst": 9, "a": 9, "b": 12, "value": 0})


# ------------------------------------------------------------------------------------------------ floats
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1e-6, "1.0e-06"),
        (128**-0.5, "0.088388346"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (3e38, "3.0e+38"),
        (1.401298464324817e-45, "1.0e-45"),
        (16777216.0, "16777216.0"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (3.4025001647762064e38, "3.4025002e+38"),
        (float("inf"), "0x7f800000"),
        (float("-inf"), "0xff800000"),
        (float("nan"), "0x7fc00000"),
    ],
)
def test_floats_print_short_and_exact(value: float, text: str) -> None:
    assert format_f32(value) == text
    if not text.startswith("0x"):
        assert f32_bits(float(text)) == f32_bits(value)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FA12345, 0, 0x80000000, 1, 0x7F7FFFFF])
def test_float_bits_survive(bits: int) -> None:
    assert f32_bits(f32_value(bits)) == bits


def test_nan_payload_that_float32_cannot_hold_stays_a_nan() -> None:
    value = struct.unpack("<d", (0x7FF0000000000001).to_bytes(8, "little"))[0]
    assert f32_bits(value) == 0x7FC00000


# ------------------------------------------------------------------------------------------------ what encode refuses
LOAD = {"dst": LmuRef(0, 0), "src": HbmRef(0), "columns": 1}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("load", {"columns": 1 << 24}, "load: columns is 16777216, must be in 0..16777215"),
        ("load", {"columns": -1}, "load: columns is -1, must be in 0..16777215"),
        ("load", {"dst": LmuRef(1 << 24)}, "load: dst.address is 16777216, must be in 0..16777215"),
        ("load", {"dst": LmuRef(0, 0, 32)}, "load: dst.register is 32, must be in 0..31"),
        ("load", {"src": HbmRef(1 << 40)}, "load: src.offset is 1099511627776, must be in 0..1099511627775"),
        ("set", {"dst": 1, "value": 1 << 47}, f"set: value is {1 << 47}, must be in {-(1 << 47)}..{(1 << 47) - 1}"),
    ],
)
def test_numbers_outside_their_field(name: str, values: dict, message: str) -> None:
    with pytest.raises(CapacityError) as caught:
        encode(Instruction(name, values if name == "set" else LOAD | values))
    assert str(caught.value) == message


def test_float_outside_its_field() -> None:
    norm = {"dst": ViewRef(0), "a": ViewRef(0), "epsilon": 1e39, "columns": 1, "rows": 1}
    with pytest.raises(CapacityError, match=r"^rms_norm: epsilon is 1e\+39, which is outside float32$"):
        encode(Instruction("rms_norm", norm))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("nope", {}, "no instruction 'nope'"),
        ("load", LOAD | {"weight": 1}, "load: no operand 'weight'; there are dst, src, columns"),
        ("load", {"dst": LmuRef(0)}, "load: operand src is missing"),
        ("load", LOAD | {"dst": HbmRef(0)}, "must be an LmuRef"),
        ("load", LOAD | {"src": 3}, "load: src is 3, must be an HbmRef"),
        ("load", LOAD | {"columns": "many"}, "load: columns is 'many', must be an integer"),
        ("load", LOAD | {"columns": LmuRef(0)}, "must be a number or a word"),
        (
            "unary",
            {"function": "sin", "dst": ViewRef(0), "a": ViewRef(0), "columns": 1, "rows": 1},
            "unary: function is 'sin', must be one of copy, neg, exp",
        ),
        (
            "rms_norm",
            {"dst": ViewRef(0), "a": ViewRef(0), "epsilon": "x", "columns": 1, "rows": 1},
            "rms_norm: epsilon is 'x', must be a number",
        ),
    ],
)
def test_operands_of_the_wrong_kind(name: str, values: dict, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        encode(Instruction(name, values))
    assert message in str(caught.value)


# ------------------------------------------------------------------------------------------------ what decode refuses
def _word(name: str, values: dict, *, flip: int) -> bytes:
    return (int.from_bytes(encode(Instruction(name, values)), "little") ^ 1 << flip).to_bytes(64, "little")


LAYER_NORM = {"dst": ViewRef(0), "a": ViewRef(0), "epsilon": 1.0, "columns": 1, "rows": 1}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (bytes(64), "unknown opcode 0x00"),
        (b"\xff" * 64, "unknown opcode 0xff"),
        (bytes(63), "an instruction of 63 bytes, must have 64"),
        (_word("halt", {}, flip=511), "halt: bit 511 is set, bits 8 to 511 must be zero"),
        (_word("load", LOAD, flip=130), "load: bit 130 is set, bits 130 to 511 must be zero"),
        (_word("layer_norm", LAYER_NORM, flip=168), "layer_norm: weight.offset is 0x2, but the operand is absent"),
        (b"\x21\x3f" + bytes(62), "unary: function is 63, must be in 0..11"),
    ],
)
def test_words_that_are_no_instruction(word: bytes, message: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        decode(word)
    assert str(caught.value) == message


# ------------------------------------------------------------------------------------------------ programs
HALT, RET = Instruction("halt"), Instruction("ret")
STEP = Instruction("set", {"dst": 9, "value": 0})


def _repeat(length: int, count: int = 1) -> Instruction:
    return Instruction("repeat", {"count": count, "length": length})


def _skip(length: int) -> Instruction:
    return Instruction("skip_unless", {"a": 14, "value": 1, "length": length})


def _call(target: int) -> Instruction:
    return Instruction("call", {"target": target})


@pytest.mark.parametrize(
    "instructions",
    [
        [HALT],
        [_repeat(3, 5), STEP, _repeat(1), STEP, HALT],
        [_repeat(2), _repeat(1), STEP, HALT],
        [_repeat(4, 5), STEP, _skip(2), _repeat(1), STEP, HALT],
        [_skip(3), _skip(2), _skip(1), STEP, HALT],
        [_call(2), HALT, _call(5), STEP, RET, RET],
        [HALT, RET, STEP, HALT],
    ],
)
def test_valid_programs(instructions: list[Instruction]) -> None:
    payload = encode_program(instructions)
    assert len(payload) == 64 * len(instructions)
    assert decode_program(payload).instructions == tuple(instructions)


INVALID_PROGRAMS = [
    ([], "instruction 0: the program is empty"),
    ([HALT, STEP], "instruction 1: the program ends in set, must end in halt or ret"),
    ([STEP, RET, HALT], "instruction 1: ret before any halt: the entry is not called, so it must end in halt"),
    ([_repeat(0), HALT], "instruction 0: repeat of 0 instructions, 1 times: both must be at least 1"),
    ([_repeat(1, 0), STEP, HALT], "instruction 0: repeat of 1 instructions, 0 times: both must be at least 1"),
    ([_repeat(2), STEP, HALT], "instruction 2: halt inside the body of a repeat, which ends at 3"),
    ([_repeat(9), STEP, HALT], "instruction 0: the body of the repeat ends at 10, must not go beyond 3"),
    (
        [_repeat(2), _repeat(2), STEP, STEP, HALT],
        "instruction 1: the body of the repeat ends at 4, must not go beyond 3",
    ),
    ([_skip(0), HALT], "instruction 0: skip_unless over 0 instructions: there must be at least 1"),
    ([_skip(1), HALT], "instruction 1: halt inside the body of a skip_unless, which ends at 2"),
    ([_skip(9), STEP, HALT], "instruction 0: the body of the skip_unless ends at 10, must not go beyond 3"),
    ([_skip(1), _repeat(1), STEP, HALT], "instruction 1: the body of the repeat ends at 3, must not go beyond 2"),
    ([_repeat(1), _skip(1), STEP, HALT], "instruction 1: the body of the skip_unless ends at 3, must not go beyond 2"),
    ([_call(1), STEP, HALT], "instruction 0: call of 1, where no function starts"),
    ([_call(99), HALT], "instruction 0: call of 99, where no function starts"),
    ([_call(0), HALT], "instruction 0: the function calls itself, by way of others or not"),
    ([HALT, _call(3), RET, _call(1), RET], "instruction 1: the function calls itself, by way of others or not"),
]


@pytest.mark.parametrize(("instructions", "message"), INVALID_PROGRAMS)
def test_invalid_programs(instructions: list[Instruction], message: str) -> None:
    with pytest.raises(AssemblyError) as refused:
        encode_program(instructions)
    assert str(refused.value) == message
    with pytest.raises(FileFormatError) as unreadable:
        decode_program(b"".join(map(encode, instructions)))
    assert str(unreadable.value) == message


def test_errors_name_the_instruction() -> None:
    with pytest.raises(CapacityError, match=r"^instruction 1: call: target is -1, must be in 0\.\.16777215$"):
        encode_program([STEP, _call(-1), HALT])
    with pytest.raises(AssemblyError, match=r"^instruction 0: set: operand dst is missing$"):
        encode_program([Instruction("set"), HALT])
    with pytest.raises(FileFormatError, match=r"^instruction 1: unknown opcode 0x00$"):
        decode_program(encode(STEP) + bytes(64))
    with pytest.raises(FileFormatError, match=r"^a program of 65 bytes, must be a multiple of 64$"):
        decode_program(bytes(65))
