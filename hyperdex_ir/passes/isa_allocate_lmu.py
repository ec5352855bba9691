"""`isa-allocate-lmu`: allocation of all buffers in the on-chip memory.

A buffer lives from its first to its last use in program order; a buffer that is used in a repeat but made outside lives
through the whole repeat. Buffers that live at the same time do not overlap; a called function's buffers lie above those
that are live in its callers at the calls. The *chunk*, the most tokens in flight, is the largest power of two for which
all buffers fit, at most 256 and at most the maximum length; the number of wanted rows is then as large as still fits.

Sets `isa.chunk`, `isa.head_rows` and `isa.lmu_words` (the words used) on the module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import FunctionType, IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from hyperdex_ir.dialects.isa import LmuType, buffer_type
from hyperdex_ir.dialects.module_facts import CHUNK, HEAD_ROWS, LMU_WORDS, ModuleFacts
from hyperdex_ir.errors import CapacityError
from hyperdex_ir.memory.map import MAX_CHUNK
from hyperdex_ir.passes.lmu_liveness import Frame, find_frames
from hyperdex_ir.targets import Target, load_target

ALIGNMENT = 16  # words: one beat of an HBM channel


@dataclass(frozen=True)
class Placement:
    """An address for every buffer, for at most this many tokens in flight and wanted rows."""

    chunk: int
    head_rows: int
    addresses: dict[SSAValue, int]
    words: int


def _aligned(words: int) -> int:
    return -(-words // ALIGNMENT) * ALIGNMENT


def place(frames: list[Frame], chunk: int, head_rows: int) -> Placement:
    """Places all buffers, callers first: each at the lowest address that is free while it lives."""
    addresses: dict[SSAValue, int] = {}
    bases = {frame.name: 0 for frame in frames}
    used = 0

    def end(value: SSAValue) -> int:
        return addresses[value] + _aligned(buffer_type(value).words(chunk, head_rows))

    for frame in frames:
        placed: list[SSAValue] = []
        for value in sorted(frame.lives, key=lambda v: frame.lives[v].start):
            neighbours = [other for other in placed if frame.lives[other].meets(frame.lives[value])]
            taken = sorted((addresses[other], end(other)) for other in neighbours)
            addresses[value] = _lowest_gap(taken, bases[frame.name], buffer_type(value).words(chunk, head_rows))
            used = max(used, end(value))
            placed.append(value)
        for call in frame.calls:
            alive = [value for value in frame.lives if frame.lives[value].covers(call.position)]
            top = max([bases[frame.name], *(end(value) for value in alive)])
            bases[call.callee] = max(bases[call.callee], top)
            for parameter, passed in zip(call.parameters, call.passed, strict=True):
                addresses.setdefault(parameter, addresses[passed])
    return Placement(chunk, head_rows, addresses, used)


def _lowest_gap(taken: list[tuple[int, int]], base: int, words: int) -> int:
    address = base
    for start, end in taken:
        if start - address >= _aligned(words):
            break
        address = max(address, end)
    return address


# ---------------------------------------------------------------------------------------------------- chunk size
def _powers_of_two(limit: int) -> list[int]:
    """All powers of two up to the limit, the largest first."""
    return [1 << i for i in reversed(range(limit.bit_length()))]


def choose(frames: list[Frame], target: Target, max_length: int) -> Placement:
    """The placement with the most tokens in flight, then the most wanted rows.

    Raises CapacityError with the numbers when not even one token fits.
    """
    for chunk in _powers_of_two(min(MAX_CHUNK, max_length)):
        if place(frames, chunk, 1).words <= target.lmu_words:
            options = (place(frames, chunk, rows) for rows in _powers_of_two(chunk))
            return next(option for option in options if option.words <= target.lmu_words)
    raise _too_large(frames, target, max_length)


def _too_large(frames: list[Frame], target: Target, max_length: int) -> CapacityError:
    placement = place(frames, 1, 1)
    widest = max((buffer_type(value) for value in placement.addresses), key=lambda type_: type_.width)
    of_scores = widest.width >= max_length and widest.width - max_length < 64
    reason = f", as many as positions (max-length {max_length:,})" if of_scores else ""
    return CapacityError(
        f"the LMU of {target.name} has {target.lmu_words:,} words; with one token in flight the buffers take"
        f" {placement.words:,}, a row of the widest {widest.width:,}{reason}",
        "choose a smaller --max-length" if of_scores else "choose a target with a larger LMU (--type-device)",
    )


# ---------------------------------------------------------------------------------------------------- attributes
def _apply(module: ModuleOp, placement: Placement) -> None:
    for value, address in placement.addresses.items():
        Rewriter.replace_value_with_new_type(value, buffer_type(value).at(address))
    for function in module.ops:
        if isinstance(function, FuncOp):
            inputs = [argument.type for argument in function.body.block.args]
            function.function_type = FunctionType.from_lists(inputs, [])
    for name, number in (
        (CHUNK, placement.chunk),
        (HEAD_ROWS, placement.head_rows),
        (LMU_WORDS, placement.words),
    ):
        module.attributes[name] = IntegerAttr(number, 64)


def _forget_addresses(module: ModuleOp) -> None:
    """Removes the addresses that an earlier run has set."""
    for op in module.walk():
        values = [*op.results, *(arg for region in op.regions for block in region.blocks for arg in block.args)]
        for value in values:
            if isinstance(value.type, LmuType) and value.type.address is not None:
                Rewriter.replace_value_with_new_type(value, value.type.at(None))


@dataclass(frozen=True)
class IsaAllocateLmuPass(ModulePass):
    """Gives every buffer its address in the LMU, and chooses how many tokens can be in flight."""

    name = "isa-allocate-lmu"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _forget_addresses(op)
        facts = ModuleFacts(op)
        target = load_target(facts.target)
        _apply(op, choose(find_frames(op), target, facts.max_length))
