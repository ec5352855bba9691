"""Instructions of three devices that exchange parts of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hyperdex_ir.isa.instructions import DEVICE
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction
from support.programs.machine_programs import LMU_WORDS, WIDTH, embed, op, parameter

HALT = op("halt")
TOKENS = [3, 39, 0]
ROWS = parameter("embedding")[TOKENS].astype(np.float32)


def exchange(name: str, hop: int, **changes: Any) -> Instruction:
    """Sends or receives columns 2 to 4 of parts of 5 columns at LMU word 1000, of three devices."""
    values = {"hop": hop, "parts": 3, "pitch": 5, "first": 2, "columns": 3, "rows": 1}
    return op(name, **{("src" if name == "send" else "dst"): LmuRef(1000, 15)}, **(values | changes))


#: Each device's own part: the embeddings of its tokens, columns 10 * device to 10 * device + 4.
OWN = (
    embed(),
    op("multiply", dst=16, a=DEVICE, value=10),
    op("multiply", dst=17, a=DEVICE, value=5),
    op(
        "unary",
        function="copy",
        dst=ViewRef(1000, 15, register=17),
        a=ViewRef(0, WIDTH, register=16),
        columns=5,
        rows=1,
    ),
)
GATHER = tuple(exchange(name, hop + (name == "receive")) for hop in range(2) for name in ("send", "receive"))
FAULT = op("load", dst=LmuRef(LMU_WORDS, 0), src=HbmRef(0), columns=1)
INFINITE = op("binary_scalar", function="div", dst=ViewRef(4000, 0), a=ViewRef(0, 0), b=0.0, columns=1, rows=1)
