"""Dependences between the operations of an `isa` block, from the words, registers and HBM areas that they read and
write.

Buffers are memory: a write depends on every earlier read or write of the same words. An offset in a register stands for
the whole row, except a device's offset among the parts of a value, which stands for the same columns of every part. KV
cache and everything else in HBM are told apart, parameters are never written; addresses are not compared. An operation
that sends and receives inside (a call, a repeat) keeps its order among all operations that send or receive.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.traits import SymbolTable

from hyperdex_ir.dialects.isa import (
    OPS,
    BufferOp,
    CallOp,
    InstructionOp,
    LmuUse,
    RepeatRowsOp,
    SkipUnlessOp,
    ViewUse,
    buffer_type,
)
from hyperdex_ir.isa.instructions import DEVICE, POSITION, TOKENS, Group
from hyperdex_ir.isa.operands import Lmu, View
from hyperdex_ir.isa.shapes import RingPart

#: The ring, as a resource of operations that send or receive.
RING = "ring"


@dataclass(frozen=True)
class Extent:
    """Words `low` to `high - 1` of the rows of a buffer; with a pitch, of every part of that many words."""

    buffer: SSAValue
    low: int
    high: int
    pitch: int = 0

    def meets(self, other: Extent) -> bool:
        """Test that both may have a word in common."""
        if self.buffer is not other.buffer:
            return False
        return self.pitch != other.pitch or (self.low < other.high and other.low < self.high)


@dataclass
class Effects:
    """Reads and writes of an operation: extents of buffers; registers and areas of HBM by name."""

    reads: list[Extent] = field(default_factory=list)
    writes: list[Extent] = field(default_factory=list)
    uses: dict[Hashable, None] = field(default_factory=dict)
    changes: dict[Hashable, None] = field(default_factory=dict)

    def join(self, other: Effects) -> None:
        """Adds the effects of another operation."""
        self.reads += other.reads
        self.writes += other.writes
        self.uses |= other.uses
        self.changes |= other.changes


def device_offsets(op: Operation) -> dict[int, int]:
    """The registers that hold the number of this device times so many words, throughout the module around `op`."""
    root = op
    while (parent := root.parent_op()) is not None:
        root = parent
    found: dict[int, set[int | None]] = {}
    for inner in root.walk():
        if isinstance(inner, InstructionOp):
            is_offset = isinstance(inner, OPS["multiply"]) and inner.operand("a") == DEVICE
            for register in (inner.operand(one.name) for one in inner.spec().registers if one.writes):
                found.setdefault(register, set()).add(inner.operand("value") if is_offset else None)
    return {register: pitch for register, (pitch, *others) in found.items() if pitch is not None and not others}


def effects_of(op: Operation, offsets: Mapping[int, int]) -> Effects | None:
    """Effects of an operation and of all operations inside it; offsets: as `device_offsets` gives them. None: the
    operation is not known, and no other may be moved across it.
    """
    if isinstance(op, BufferOp | ReturnOp):
        return Effects()
    if isinstance(op, InstructionOp):
        return _instruction(op, offsets)
    if isinstance(op, CallOp):
        return _call(op)
    if not op.regions:
        return None
    effects = Effects()
    if isinstance(op, RepeatRowsOp | SkipUnlessOp):
        effects.uses[op.register] = None
    for inner in (inner for region in op.regions for block in region.blocks for inner in block.ops):
        part = effects_of(inner, offsets)
        if part is None:
            return None
        effects.join(part)
    return _as_unit(effects)


def _as_unit(effects: Effects) -> Effects:
    """Effects of an operation with others inside: if it sends or receives, it keeps its place among all that do."""
    if RING in effects.uses:
        effects.changes[RING] = None
    return effects


def _instruction(op: InstructionOp, offsets: Mapping[int, int]) -> Effects:
    spec, values = op.spec(), cast(Any, op.values())
    effects = Effects()
    for operand in spec.lmu:
        use = values[operand.name]
        if isinstance(use, LmuUse | ViewUse):
            extents = effects.writes if operand.writes else effects.reads
            extents.append(_extent(operand, use, values, offsets))
            effects.uses[use.register] = None
    for operand in spec.hbm:
        if (place := values[operand.name]) is not None:
            effects.uses[place.register] = None
            (effects.changes if operand.writes else effects.uses).update(dict.fromkeys(operand.areas))
    for operand in spec.registers:
        (effects.changes if operand.writes else effects.uses)[values[operand.name]] = None
    if spec.group is not Group.CTRL:
        effects.uses |= dict.fromkeys((POSITION, TOKENS))
    if spec.ring is not None:
        effects.uses[RING] = None
    return effects


def _extent(operand: Lmu | View, use: LmuUse | ViewUse, values: Any, offsets: Mapping[int, int]) -> Extent:
    width = buffer_type(use.buffer).width
    if isinstance(ring := operand.columns, RingPart) and not (use.offset or use.register):
        first = values[ring.first]
        return Extent(use.buffer, first, first + values[ring.columns], values[ring.pitch])
    words = operand.row_words(use, values)
    pitch = offsets.get(use.register, 0)
    if words is not None and use.offset + words <= pitch:
        return Extent(use.buffer, use.offset, use.offset + words, pitch)
    if use.register or words is None:
        return Extent(use.buffer, 0, width)
    return Extent(use.buffer, use.offset, use.offset + words)


def _call(op: CallOp) -> Effects | None:
    callee = SymbolTable.lookup_symbol(op, op.callee)
    if not isinstance(callee, FuncOp):
        return None
    effects = Effects()
    for inner in callee.body.block.ops:
        part = effects_of(inner, {})
        if part is None:
            return None
        effects.uses |= part.uses
        effects.changes |= part.changes
    extents = [Extent(buffer, 0, buffer_type(buffer).width) for buffer in op.buffers]
    return _as_unit(Effects(extents, extents, effects.uses, effects.changes))


def work_of(ops: Iterable[Operation]) -> list[Operation]:
    """The operations whose order counts: all but buffers and the terminator."""
    return [op for op in ops if not isinstance(op, BufferOp | ReturnOp)]


def dependences(ops: Sequence[Operation]) -> list[list[int]] | None:
    """For each operation, numbers of earlier operations that it must stay behind. Only the transitive closure is
    complete. None: an operation is not known.
    """
    history = _History()
    offsets = device_offsets(ops[0]) if ops else {}
    result: list[list[int]] = []
    for number, op in enumerate(ops):
        effects = effects_of(op, offsets)
        if effects is None:
            return None
        result.append(sorted(history.before(effects)))
        history.add(number, effects)
    return result


class _History:
    """Earlier reads and writes. Of a register or area of HBM only the last change and the uses since then count."""

    def __init__(self) -> None:
        self._changed: dict[Hashable, int] = {}
        self._used: dict[Hashable, list[int]] = {}
        self._reads: dict[SSAValue, list[tuple[int, Extent]]] = {}
        self._writes: dict[SSAValue, list[tuple[int, Extent]]] = {}

    def before(self, effects: Effects) -> dict[int, None]:
        """The operations that an operation with these effects must stay behind."""
        found: dict[int, None] = {}
        for name in (*effects.uses, *effects.changes):
            if name in self._changed:
                found[self._changed[name]] = None
        for name in effects.changes:
            found |= dict.fromkeys(self._used.get(name, ()))
        for extents, earlier in ((effects.reads, (self._writes,)), (effects.writes, (self._reads, self._writes))):
            for extent in extents:
                known = (entry for table in earlier for entry in table.get(extent.buffer, ()))
                found |= {number: None for number, other in known if extent.meets(other)}
        return found

    def add(self, number: int, effects: Effects) -> None:
        """Notes an operation."""
        for name in effects.uses:
            self._used.setdefault(name, []).append(number)
        for name in effects.changes:
            self._changed[name], self._used[name] = number, []
        for extents, table in ((effects.reads, self._reads), (effects.writes, self._writes)):
            for extent in extents:
                table.setdefault(extent.buffer, []).append((number, extent))
