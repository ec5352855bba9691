"""An instruction is added in three places, from outside the package, and everything knows it.

`added_instruction.py` does that in a process of its own: the table of this one stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from support import TESTS

from hyperdex_ir.isa.cost_rules import Control, Vector
from hyperdex_ir.isa.instructions import BY_NAME, SPECS, Spec, add_instruction
from hyperdex_ir.isa.operands import Enum, Imm, Lmu
from hyperdex_ir.isa.shapes import Columns


@pytest.mark.slow
def test_an_instruction_is_added_from_outside() -> None:
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(TESTS / "support/programs/added_instruction.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "added\n"), done.stderr[-3000:]
    assert "scale_columns" not in BY_NAME


GOOD = Spec("noise", 0x61, "", (Lmu("dst", writes=True, columns=Columns(("columns",))), Imm("columns")), Vector())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(GOOD, name="unary"), "the name or the opcode of unary stands twice"),
        (replace(GOOD, opcode=0x21), "the name or the opcode of noise stands twice"),
        (replace(GOOD, opcode=256), "the opcode of noise is 256"),
        (replace(GOOD, operands=(*GOOD.operands, Imm("columns"))), "noise has a field twice"),
        (
            replace(GOOD, operands=(*GOOD.operands, *(Imm(f"i{n}") for n in range(20)))),
            "needs 565 bits, a word has 512",
        ),
        (replace(GOOD, operands=(*GOOD.operands, Enum("e", choices=("a", "b", "c"), width=1))), "noise.e has too many"),
        (replace(GOOD, operands=GOOD.operands[:1], cost=Control()), "noise has no immediate columns"),
        (replace(GOOD, cost=Vector(sweeps=("times",))), "noise has no immediate times"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(spec: Spec, message: str) -> None:
    before = list(SPECS)
    with pytest.raises(ValueError, match=message):
        add_instruction(spec)
    assert before == SPECS
