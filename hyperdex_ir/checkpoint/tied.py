"""Parameters that config.json ties: are they equal where a checkpoint holds both?

Equal are those that the MAC trees would stream as equal: in different types, or apart by less than the rounding, they
give the same logits. transformers compares them after it has loaded them in one type, and ties no others either.
"""

from __future__ import annotations

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.tensors import row_bytes, row_count
from hyperdex_ir.checkpoint.values import are_equal
from hyperdex_ir.isa.formats import FLOATS

#: Bytes of a matrix that are compared at a time.
_BLOCK_BYTES = 4 << 20


def stored_apart(checkpoint: Checkpoint, names: tuple[str, str], matrix_type: str) -> tuple[str, str] | None:
    """The two tensors with these last components, if the checkpoint holds both with different values; else None.

    matrix_type: the type that they are compared in.
    """
    ends = [[name for name in checkpoint.tensors if f".{name}".endswith(f".{end}")] for end in names]
    if any(len(found) != 1 for found in ends):
        return None
    first, second = (checkpoint.tensors[found] for (found,) in ends)
    if first.shape != second.shape or first.dtype not in FLOATS or second.dtype not in FLOATS:
        return None  # reported with the other tensors
    step = max(_BLOCK_BYTES // max(row_bytes(first), 1), 1)
    for start in range(0, row_count(first), step):
        stop = min(start + step, row_count(first))
        values = (first.rows(start, stop), second.rows(start, stop))
        if not are_equal(values, (first.dtype, second.dtype), matrix_type):
            return ends[0][0], ends[1][0]
    return None
