"""From `isa` modules to programs."""

from __future__ import annotations

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp, UnknownLoc
from xdsl.dialects.func import Func
from xdsl.dialects.test import Test
from xdsl.parser import Parser

from hyperdex_ir.dialects.isa import ISA
from hyperdex_ir.dialects.isa_program import module_path, to_program
from hyperdex_ir.errors import CapacityError, LoweringError
from hyperdex_ir.isa.codec import decode_program, encode_program
from hyperdex_ir.isa.operands import LmuRef, ViewRef
from hyperdex_ir.isa.program import Origin


def _parse(text: str) -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Func, ISA, Test):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


MODEL = """
builtin.module attributes {isa.chunk = 4 : i64, isa.head_rows = 2 : i64} {
  func.func @layer(%h: !isa.lmu<tokens x 64>, %w: !isa.lmu<1 x 64>) {
    %t = isa.buffer : !isa.lmu<tokens x 64>
    isa.binary function=mul dst=%t[8, row 0] a=%h b=%w[column 0] columns=8 rows=tokens loc("model.layers.*.mlp")
    isa.repeat 3 {
      isa.add dst=r9 a=r9 b=zero value=1
      isa.repeat 2 {
        isa.unary function=exp dst=%h a=%t[r9] columns=8 rows=tokens
      }
    }
    func.return
  }
  func.func @main() {
    %h = isa.buffer : !isa.lmu<tokens x 64>
    %w = isa.buffer : !isa.lmu<1 x 64>
    %l = isa.buffer : !isa.lmu<head x 100>
    isa.load dst=%w[1] src=hbm[0] columns=8 loc("model.norm")
    isa.repeat 30 {
      isa.call @layer(%h, %w) : !isa.lmu<tokens x 64>, !isa.lmu<1 x 64>
    }
    isa.select_rows dst=%l src=%h first=first_row columns=64 rows=head_rows
    func.return loc("model")
  }
}
"""


def test_linear_order_addresses_and_origins() -> None:
    program = to_program(_parse(MODEL))
    names = [instruction.name for instruction in program.instructions]
    assert names[:5] == ["load", "repeat", "call", "select_rows", "halt"]
    assert names[5:] == ["binary", "repeat", "add", "repeat", "unary", "ret"]
    at = program.instructions
    assert (at[1]["count"], at[1]["length"]) == (30, 1)
    assert (at[6]["count"], at[6]["length"]) == (3, 3)
    assert (at[8]["count"], at[8]["length"]) == (2, 1)
    assert at[2]["target"] == 5
    # %h, %w and %l lie one after another, main's buffers before those of @layer
    assert at[0]["dst"] == LmuRef(4 * 64 + 1, 0)
    assert at[3]["dst"] == LmuRef(5 * 64, 100)
    assert at[5]["dst"] == ViewRef(5 * 64 + 200 + 8, 0)
    assert at[5]["a"] == ViewRef(0, 64)
    assert at[5]["b"] == ViewRef(4 * 64, 0, 0, 0)
    assert at[9]["a"] == ViewRef(5 * 64 + 200, 64, 0, 1, 9)
    assert program.origins[0] == Origin("main", "model.norm", "isa.load")
    assert program.origins[4] == Origin("main", "model", "func.return")
    assert program.origins[5] == Origin("layer", "model.layers.*.mlp", "isa.binary")
    assert program.origins[6] == Origin("layer", "", "isa.repeat")
    assert len(program.origins) == len(program.instructions)
    assert decode_program(encode_program(program.instructions)).instructions == program.instructions


def test_capacities_from_arguments_and_by_default() -> None:
    assert to_program(_parse(MODEL), chunk=1, head_rows=1).instructions[3]["dst"] == LmuRef(128, 100)
    without = _parse(MODEL)
    without.attributes.clear()
    assert to_program(without).instructions[3]["dst"] == LmuRef(257 * 64, 100)


def test_new_buffers_lie_behind_allocated_ones() -> None:
    program = to_program(
        _parse("""
        func.func @main() {
          %a = isa.buffer : !isa.lmu<tokens x 64>
          %b = isa.buffer : !isa.lmu<2 x 64 at 1000>
          isa.load dst=%a src=hbm[0] columns=1
          isa.load dst=%b src=hbm[0] columns=1
          func.return
        }"""),
        chunk=4,
    )
    assert [instruction["dst"] for instruction in program.instructions[:2]] == [LmuRef(1128, 64), LmuRef(1000, 64)]


def test_empty_repeats_vanish() -> None:
    program = to_program(_parse("func.func @main() {\n isa.repeat 3 {\n isa.repeat 2 {\n }\n }\n func.return\n}"))
    assert [instruction.name for instruction in program.instructions] == ["halt"]
    assert len(program.origins) == 1


def test_module_path_of_other_locations() -> None:
    module = _parse('func.func @main() {\n isa.set dst=r9 value=1 loc("file.py":1:2)\n func.return\n}')
    assert to_program(module).origins[0].module_path == ""
    assert module_path(UnknownLoc()) == ""


def test_too_many_words() -> None:
    module = _parse("func.func @main() {\n %a = isa.buffer : !isa.lmu<tokens x 65537>\n func.return\n}")
    with pytest.raises(CapacityError) as caught:
        to_program(module)
    assert str(caught.value) == (
        "the buffers take 16,777,472 words with 256 tokens in flight and 256 wanted rows,"
        " LMU addresses reach 16,777,216"
    )


CALLER = "func.func @main() {{\n {} \n func.return\n}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("func.func @other() {\n func.return\n}", "the isa module has no function @main"),
        ("func.func @main(%a: !isa.lmu<1 x 1>) {\n func.return\n}", "@main of an isa module takes no arguments"),
        ('"test.op"() : () -> ()', "test.op at the top of an isa module: only functions can be made into a program"),
        (CALLER.format('"test.op"() : () -> ()'), "@main: test.op is no machine instruction"),
        (CALLER.format("isa.call @main()"), "@main calls itself: main -> main"),
        (
            CALLER.format("isa.call @f()") + "func.func @f() {\n isa.call @g()\n func.return\n}\n"
            "func.func @g() {\n isa.call @f()\n func.return\n}",
            "@f calls itself: main -> f -> g -> f",
        ),
        (
            CALLER.format("")
            + "func.func @f(%a: !isa.lmu<1 x 1>) {\n isa.load dst=%a src=hbm[0] columns=1\n func.return\n}",
            "@f is never called, so its arguments have no addresses",
        ),
        (
            CALLER.format("")
            + "func.func @f(%a: !isa.lmu<1 x 1>) {\n isa.call @f2(%a) : !isa.lmu<1 x 1>\n func.return\n}\n"
            "func.func @f2(%a: !isa.lmu<1 x 1>) {\n func.return\n}",
            "@f is never called, so its arguments have no addresses",
        ),
        (
            CALLER.format(
                "%a = isa.buffer : !isa.lmu<1 x 1>\n %b = isa.buffer : !isa.lmu<1 x 1>\n"
                "isa.call @f(%a) : !isa.lmu<1 x 1>\n isa.call @f(%b) : !isa.lmu<1 x 1>"
            )
            + "func.func @f(%a: !isa.lmu<1 x 1>) {\n func.return\n}",
            "@f: argument 0 is the buffer at 0, a call passes one at 1",
        ),
    ],
)
def test_modules_that_are_no_program(text: str, message: str) -> None:
    with pytest.raises(LoweringError) as caught:
        to_program(_parse(text))
    assert str(caught.value) == message
