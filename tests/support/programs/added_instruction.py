"""An instruction that is added from outside the package, taken through everything; run as a program.

What stands above `main` is all that adding one takes: an entry, a meaning, a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from hyperdex_ir.interpreter.state import State, executes
from hyperdex_ir.isa.cost_rules import Vector
from hyperdex_ir.isa.instructions import GROUPS, ROWS, Spec, add_instruction
from hyperdex_ir.isa.operands import Hbm, Holds, Imm, View
from hyperdex_ir.isa.shapes import Columns
from hyperdex_ir.native.emit import F32, I32, V
from hyperdex_ir.native.operation import Operation, Sizes, emits
from hyperdex_ir.native.operation import Values as Immediates
from hyperdex_ir.native.views import ViewWalk, scratch_words

NAME, OPCODE = "scale_columns", 0x60

add_instruction(
    Spec(
        NAME,
        OPCODE,
        "dst = a * weight, column by column of each group; weight: f32 in HBM.",
        (View("dst", writes=True), View("a"), Hbm("weight", holds=Holds.VECTOR), GROUPS, Imm("columns"), ROWS),
        Vector(Columns(("groups", "columns"))),
    )
)


@executes(NAME)
def meaning(s: State, v: Mapping[str, Any]) -> None:
    rows, weight = s.rows(v["rows"]), s.parameter(v["weight"], v["columns"])
    s.write_view(v["dst"], s.read_view(v["a"], rows, v["groups"], v["columns"]) * weight)


def scratch(values: Immediates, sizes: Sizes) -> int:
    return scratch_words(values, sizes, 1)


@emits(NAME, scratch=scratch)
def kernel(op: Operation) -> None:
    e = op.e
    rows, groups, columns = op.rows(), op.immediate("groups"), op.immediate("columns")
    weight = op.words("weight", columns)
    a = op.view("a", rows, groups, columns)
    dst = op.view("dst", rows, groups, columns)

    def compute(row: V, group: V, first: V, target: V, operands: Sequence[V], count: V) -> V:
        bits = e.local(I32, I32(0))
        with e.loop(0, count) as column:
            factor = e.load(weight.pointer(e.add(first, column)), F32)
            product = e.builder.fmul(e.load(e.element(operands[0], column, F32), F32), factor)
            e.builder.store(product, e.element(target, column, F32))
            found = e.magnitude_bits(product)
            more = e.builder.icmp_unsigned(">", found, bits.get())
            bits.set(e.builder.select(more, found, bits.get()))
        return bits.get()

    ViewWalk(op, dst, (a,), rows, groups, columns, columns, blocks=True).run(compute)


# ---------------------------------------------------------------------------------------------------- the way through
WORD = "scale_columns dst=view[0x40:8,0,1] a=view[0x0:8,0,1] weight=hbm[0x100] columns=8 rows=tokens"
MODULE = """
func.func @main() {
  %x = isa.buffer : !isa.lmu<tokens x 8>
  %y = isa.buffer : !isa.lmu<tokens x 8>
  isa.unary function=neg dst=%x a=%x columns=8 rows=tokens
  isa.scale_columns dst=%y a=%x weight=hbm[256] columns=8 rows=tokens
  isa.unary function=exp dst=%x a=%x columns=8 rows=tokens
  isa.scale_columns dst=%y a=%y weight=hbm[256] columns=8 rows=tokens
  func.return
}
"""


def check_words() -> None:
    from hyperdex_ir.errors import FileFormatError
    from hyperdex_ir.isa.assembly import parse_program, print_program
    from hyperdex_ir.isa.codec import decode, decode_program, encode_program, operand_places, used_bits

    program = parse_program(f"{WORD}\nhalt")
    payload = encode_program(program.instructions)
    assert payload[0] == OPCODE
    assert encode_program(decode_program(payload).instructions) == payload
    assert WORD in print_program(decode_program(payload))
    spec = program.instructions[0].spec
    assert used_bits(spec) == operand_places(spec)[-1].fields[-1].high + 1
    with pytest.raises(FileFormatError, match=f"^{NAME}: bit 511 is set"):
        decode(payload[:63] + b"\x80")


def check_dialect() -> None:
    from xdsl.utils.exceptions import VerifyException

    from hyperdex_ir.dialects.isa import OPS, InstructionOp
    from hyperdex_ir.dialects.isa_program import to_program
    from hyperdex_ir.isa.codec import encode
    from hyperdex_ir.passes.isa_dependences import dependences, work_of
    from hyperdex_ir.passes.isa_order import RULES, schedule
    from hyperdex_ir.support.xdsl import parse_module, print_module
    from hyperdex_ir.targets import load_target

    module = parse_module(MODULE)
    module.verify()
    text = print_module(module)
    assert "isa.scale_columns dst=%y a=%x weight=hbm[256] columns=8 rows=tokens" in text
    assert print_module(parse_module(text)) == text
    (function,) = module.ops
    ops = [op for op in function.walk() if isinstance(op, InstructionOp)]
    assert [type(op) is OPS[NAME] for op in ops] == [False, True, False, True]
    narrow = parse_module(MODULE.replace("%x weight=hbm[256] columns=8", "%x weight=hbm[256] columns=9"))
    with pytest.raises(VerifyException, match="dst reaches word 8 of rows that have 8 words"):
        narrow.verify()
    words = [item for item in to_program(module, chunk=4, head_rows=1).instructions if item.name == NAME]
    assert encode(words[0])[0] == OPCODE
    # it waits for what makes x; what overwrites x waits for it
    work = work_of(function.regions[0].block.ops)
    waits = dependences(work)
    assert waits == [[], [0], [0, 1], [1]]
    assert waits is not None
    assert sorted(schedule(work, waits, load_target("u55c"), 3, next(iter(RULES)))) == [0, 1, 2, 3]


def check_cost() -> None:
    from hyperdex_ir.isa.assembly import parse_program
    from hyperdex_ir.isa.reference import reference_page
    from hyperdex_ir.performance.cost import Cost, Engine, instruction_cost
    from hyperdex_ir.performance.estimate import estimate
    from hyperdex_ir.performance.reference import cost_table
    from hyperdex_ir.targets import load_target

    target = load_target("u55c")
    values = {"columns": 65, "groups": 2}
    assert instruction_cost(NAME, values, target, 3, 0) == Cost(Engine.VXE, 9, target.vector_latency_cycles)
    found = estimate(parse_program(f"{WORD}\nhalt"), target, tokens=3)
    assert found.busy[Engine.VXE] == 3
    assert sorted(one.low for one in found.touched[0]) == [0, 0x40]
    page = reference_page()
    assert f"### {NAME}\n\nOpcode 0x60, group COMP, engine VXE.\n" in page
    assert "reads a parameter: vector" in page.split(f"### {NAME}\n")[1]
    assert f"`rotary`, `{NAME}` | VXE" in cost_table()


def check_machines(count: int) -> None:
    """Both machines on instructions that the fuzz maker makes of the entry."""
    from support.programs.both_machines import interpreted, native
    from support.programs.instruction_cases import MAKERS, make_case
    from support.programs.random_programs import Rolled

    assert NAME in MAKERS
    done = 0
    for seed in range(count):
        case = make_case(Rolled(seed), (NAME,), 3)
        expected = interpreted(case)
        difference = native(case, 1 + seed % 3).differences(expected)
        assert not difference, f"seed {seed}: {difference}"
        done += expected.error is None
    assert done > count // 2


def main() -> None:
    """Everything, or AssertionError."""
    check_words()
    check_dialect()
    check_cost()
    check_machines(40)
    print("added")


if __name__ == "__main__":
    main()
