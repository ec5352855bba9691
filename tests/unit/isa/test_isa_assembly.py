"""Assembly text, and `hyperdex dis` and `hyperdex as`."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hyperdex_ir.cli.assembly import assemble, disassemble
from hyperdex_ir.errors import AssemblyError, FileFormatError, StorageError
from hyperdex_ir.isa.assembly import parse_program, print_program
from hyperdex_ir.isa.codec import encode_program
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.support.files import Kind, read_binary, write_binary

TEXT = """\
main:
    set dst=param_base value=-4096
    repeat count=30 length=4
        call target=layer
        repeat count=3 length=1
            add dst=r9 a=r9 b=zero value=64
        softmax dst=lmu[0x1000:2048] src=lmu[0x1000+r9:2048] window=512 rows=tokens
    sample dst=next_token src=lmu[0x2000:49152] columns=49152 rows=head_rows settings=hbm[0x8000]
    halt

layer:
    matmul dst=lmu[0x0:576] src=lmu[0x300+r9:576] weight=hbm[0x4000+param_base] k=576 n=576 type=f16 \
scale=0.088388346 activation=silu plus=lmu[0x0:0] rows=tokens
    unary function=gelu dst=view[0x40:576,64,1] a=view[0x40+r30:0,64,0] groups=9 columns=64 rows=tokens
    ret
"""


def test_text_of_a_program() -> None:
    program = parse_program(TEXT)
    assert print_program(Program(program.instructions, _origins(program))) == TEXT
    assert program.instructions[0] == Instruction("set", {"dst": 5, "value": -4096})
    assert program.instructions[2] == Instruction("call", {"target": 8})
    assert program.instructions[5].values["src"] == LmuRef(0x1000, 2048, 9)
    matmul, unary = program.instructions[8:10]
    assert matmul["weight"] == HbmRef(0x4000, 5)
    assert matmul["bias"] is None
    assert matmul["softcap"] == 0.0
    assert matmul["plus"] == LmuRef(0, 0, 0)
    assert unary["a"] == ViewRef(0x40, 0, 64, 0, 30)


def _origins(program: Program) -> tuple[Origin, ...]:
    return tuple(Origin("main" if index < 8 else "layer", "", "") for index in range(len(program.instructions)))


def test_origins_become_labels_and_comments() -> None:
    program = parse_program("call target=2\nhalt\nret\nret")
    origins = [Origin("main", "", "isa.call"), Origin("main", "", "func.return")]
    origins += [Origin("a b", "model.layers.*.mlp", "func.return"), Origin("a b", "", "")]
    assert print_program(Program(program.instructions, tuple(origins))) == (
        "main:\n    call target=a_b  ; isa.call\n    halt  ; func.return\n"
        "\na_b:\n    ret  ; func.return model.layers.*.mlp\n\nf3.a_b:\n    ret\n"
    )


def test_labels_are_unique_whatever_the_origins_are() -> None:
    program = parse_program("call target=3\ncall target=5\nhalt\nset dst=r9 value=1\nret\nset dst=r9 value=2\nret")
    names = ["x"] * 3 + ["f5.x"] * 2 + ["x"] * 2
    text = print_program(Program(program.instructions, tuple(Origin(name, "", "") for name in names)))
    assert "\nf5.x:\n" in text
    assert "\nf5.f5.x:\n" in text
    assert parse_program(text).instructions == program.instructions


def test_labels_without_origins() -> None:
    assert (
        print_program(parse_program("call target=2\nhalt\nret"))
        == "main:\n    call target=f2\n    halt\n\nf2:\n    ret\n"
    )


def test_freedom_of_form() -> None:
    program = parse_program(
        "\n; nothing\nstart: other: add  b=r0\tdst=r9 a=r1 ; sum\nset value=0x10 dst=r5\n halt;\r\n"
    )
    assert program.instructions == (
        Instruction("add", {"dst": 9, "a": 1, "b": 0, "value": 0}),
        Instruction("set", {"dst": 5, "value": 16}),
        Instruction("halt", {}),
    )


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("-.5", -0.5), ("1e-6", 9.999999974752427e-07), ("0x3f800000", 1.0)]
)
def test_floats(text: str, value: float) -> None:
    line = f"binary_scalar function=mul dst=view[0:0,0,1] a=view[0:0,0,1] b={text} columns=1 rows=r1"
    assert parse_program(f"{line}\nhalt").instructions[0]["b"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t:1:1: the program is empty"),
        ("  nop", "t:1:3: expected a label or an instruction (embed, gather,"),
        ("halt\n set dst=r9 valeu=3", "t:2:13: set: expected dst=, value=, got 'valeu=3'"),
        ("halt now", "t:1:6: halt: expected nothing, got 'now'"),
        ("set dst=r9 dst=r9", "t:1:12: set: dst stands twice"),
        ("set dst=r9", "t:1:1: set: expected value="),
        ("set dst=r32 value=1", "t:1:9: expected a register (zero, tokens, position,"),
        ("set dst=r9 value=1.5", "t:1:18: expected a whole number, got '1.5'"),
        ("set dst=r9 value=0x800000000000", "t:1:18: set: value is 140737488355328, must be in -140737488355328.."),
        ("load dst=lmu[0] src=hbm[0] columns=1", "t:1:10: expected lmu[address+register:stride], got 'lmu[0]'"),
        ("load dst=lmu[0:0] src=hbm[x] columns=1", "t:1:23: expected hbm[offset+register], got 'hbm[x]'"),
        ("load dst=lmu[-1:0] src=hbm[0] columns=1", "t:1:10: load: dst.address is -1, must be in 0..16777215"),
        ("unary function=sin", "t:1:16: expected one of copy, neg, exp"),
        ("unary function=exp dst=lmu[0:0]", "t:1:24: expected view[address+register:row stride,"),
        (
            "rms_norm epsilon=nan",
            "t:1:18: expected a decimal number, or the bits of a float32 in hexadecimal, got 'nan'",
        ),
        ("rms_norm epsilon=1e39", "t:1:18: 1e39 is outside float32"),
        ("call target=there\nhalt", "t:1:13: no label there"),
        ("a:\na: halt", "t:2:1: label a stands twice"),
        ("halt\nset dst=r9 value=1", "t:2:1: the program ends in set, must end in halt or ret"),
        ("repeat count=2 length=3\nhalt", "t:1:1: the body of the repeat ends at 4, must not go beyond 2"),
        ("f: call target=f\nhalt", "t:1:4: the function calls itself, by way of others or not"),
    ],
)
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        parse_program(text, "t")
    assert str(caught.value).startswith(message)


# ------------------------------------------------------------------------------------------------ files
@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "inst_1lpu.bin"
    write_binary(path, Kind.INSTRUCTIONS, encode_program(parse_program(TEXT).instructions))
    return path


def _disassembled(path: Path) -> str:
    out = io.StringIO()
    disassemble(path, out)
    return out.getvalue()


def test_dis_and_as_are_inverse(image: Path, tmp_path: Path) -> None:
    text = tmp_path / "program.s"
    text.write_text(_disassembled(image))
    assemble(text, tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == image.read_bytes()
    assert read_binary(image, Kind.INSTRUCTIONS)[:1] == b"\x31"


def test_companion_names_module_paths(image: Path) -> None:
    origin = {"index": 8, "function": "layer", "path": "model.layers.*.mlp.gate_proj", "op": "isa.matmul"}
    image.with_suffix(".json").write_text(json.dumps({"format": 2, "origins": [origin]}))
    text = _disassembled(image)
    assert "rows=tokens  ; isa.matmul model.layers.*.mlp.gate_proj\n" in text
    assert "\nlayer:\n" in text
    assert encode_program(parse_program(text).instructions) == read_binary(image, Kind.INSTRUCTIONS)


@pytest.mark.parametrize(
    "companion", ["{", "[]", "{}", '{"origins": [{"index": "x"}]}', '{"origins": 3}', "[" * 100_000]
)
def test_broken_companion(image: Path, companion: str) -> None:
    image.with_suffix(".json").write_text(companion)
    with pytest.raises(FileFormatError, match=r"inst_1lpu\.json: not a table of origins"):
        _disassembled(image)


def test_companion_of_another_program(image: Path) -> None:
    origin = {"index": 99, "function": "f", "path": "", "op": ""}
    image.with_suffix(".json").write_text(json.dumps({"origins": [origin]}))
    with pytest.raises(FileFormatError, match="names instruction 99, the program has 11"):
        _disassembled(image)


def test_dis_refuses_what_is_no_program(image: Path, tmp_path: Path) -> None:
    write_binary(image, Kind.INSTRUCTIONS, bytes(64))
    with pytest.raises(FileFormatError, match=r"inst_1lpu\.bin: instruction 0: unknown opcode 0x00$"):
        _disassembled(image)
    with pytest.raises(FileFormatError, match="no such file"):
        _disassembled(tmp_path / "nothing.bin")
    with pytest.raises(FileFormatError, match="directory"):
        _disassembled(tmp_path)


def test_as_leaves_nothing_behind_on_errors(tmp_path: Path) -> None:
    text, output = tmp_path / "t.s", tmp_path / "out.bin"
    for content in (b"halt now", b"\xff\xfe"):
        text.write_bytes(content)
        with pytest.raises(AssemblyError, match=r"t\.s"):
            assemble(text, output)
    with pytest.raises(AssemblyError, match="No such file"):
        assemble(tmp_path / "nothing.s", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.s"]


def test_as_replaces_files_only(image: Path, tmp_path: Path) -> None:
    text, target, link = tmp_path / "program.s", tmp_path / "target.bin", tmp_path / "link.bin"
    text.write_text(_disassembled(image))
    link.symlink_to(target)
    assemble(text, link)
    assert link.is_symlink()
    assert target.read_bytes() == image.read_bytes()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for output in (tmp_path / "pipe", tmp_path, Path()):
        with pytest.raises(StorageError, match=r": not a file, and a file must have this name$"):
            assemble(text, output)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(tmp_path.iterdir()) == before


# ---------------------------------------------------------------------------------------------------- pipes
@pytest.mark.parametrize(("stdin", "stdout"), [("-", "-"), ("/dev/stdin", "/dev/stdout")])
def test_pipes(stdin: str, stdout: str, image: Path) -> None:
    hyperdex = shlex.quote(str(Path(sys.executable).with_name("hyperdex")))
    command = f"{hyperdex} dis {stdin} | {hyperdex} as {stdin} -o {stdout}"
    done = subprocess.run(command, shell=True, input=image.read_bytes(), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (image.read_bytes(), b"")


def test_a_byte_order_mark_is_skipped(image: Path, tmp_path: Path) -> None:
    (tmp_path / "t.s").write_text("\ufeff" + TEXT, encoding="utf-8")
    assemble(tmp_path / "t.s", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    ("right", "wrong", "hint"),
    [
        ("softmax dst", "sofmax dst", "did you mean softmax?"),
        ("window=512", "windw=512", "did you mean window?"),
        ("activation=silu", "activation=sillu", "did you mean silu?"),
        ("call target=layer", "call target=layr", "did you mean layer?"),
        ("softmax dst", "nothing dst", ""),
    ],
)
def test_the_name_that_is_meant(right: str, wrong: str, hint: str) -> None:
    with pytest.raises(AssemblyError) as error:
        parse_program(TEXT.replace(right, wrong))
    assert error.value.hint == hint
