"""The fields of an instruction in the plan, the registers that they name, and faults."""

from __future__ import annotations

from collections.abc import Sequence

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import POSITION
from hyperdex_ir.isa.operands import MOST_POSITION, Field
from hyperdex_ir.native.context import Context, Reason, Thread
from hyperdex_ir.native.emit import F32, I1, I64, Emitter, V
from hyperdex_ir.native.faults import number_count
from hyperdex_ir.native.program_rows import slots_of
from hyperdex_ir.native.shared import Shared


def positions_fit(e: Emitter, first: V, rows: V) -> V:
    """i1: the positions of the rows, from 1 row to the chunk size, are from 0 to the last position."""
    inside = e.builder.icmp_signed("<=", first, e.sub(I64(MOST_POSITION + 1), rows))
    return e.builder.and_(e.less(-1, first), inside)


class Fields:
    """The operands of one instruction as numbers. `e`: the Emitter; `context`, `machine_thread`: the shared structures
    by field name."""

    def __init__(self, e: Emitter, fields: Sequence[Field]):
        self.e = e
        self.context = Shared(e, e.function.args[0], Context)
        self.machine_thread = Shared(e, e.function.args[1], Thread)
        self._fields, self._slots = e.function.args[2], slots_of(fields)

    def _slot(self, name: str) -> V:
        return self.e.element(self._fields, self._slots[name], I64)

    def immediate(self, name: str) -> V:
        """The number in a field, i64: an operand, or a part such as `dst.stride`."""
        return self.e.load(self._slot(name), I64)

    choice = immediate  #: the position of an Enum operand's word in its list, i64

    def floating(self, name: str) -> V:
        """An F32 operand, f32."""
        return self.e.load(self._slot(name), F32)

    def present(self, name: str) -> V:
        """i1: an optional operand is present."""
        return self.e.builder.trunc(self.immediate(f"{name}.present"), I1)

    def register(self, name: str) -> V:
        """The value of the register that a field names, i64. Fault when nothing has set it."""
        return self.register_value(self.immediate(name))

    def register_value(self, number: int | V) -> V:
        """The value of a register by number. Fault when nothing has set it."""
        number = self.e.i64(number)
        unset = self.e.equal(self.machine_thread.load("is_set", number), 0)
        self.fault_if(unset, Fault.REGISTER_UNSET, number)
        return self.machine_thread.load("registers", number)

    def set_register(self, number: V, value: V) -> None:
        """Sets a register of this thread; r0 stays 0."""
        self.machine_thread.store("registers", value, number)
        self.machine_thread.store("is_set", 1, number)
        self.machine_thread.store("registers", 0, 0)

    def rows(self, name: str = "rows") -> V:
        """The row count in the register that a field names, i64. Fault unless it is from 1 to the chunk size."""
        rows, chunk = self.register(name), self.context.load("chunk")
        e = self.e
        outside = e.builder.or_(e.less(rows, 1), e.less(chunk, rows))
        self.fault_if(outside, Fault.ROWS, self.immediate(name), rows, chunk)
        return rows

    def position(self, rows: V) -> V:
        """The position of the first row in flight, i64. Fault when a row's position is not from 0 to the last
        position."""
        e, position = self.e, self.register_value(POSITION)
        self.fault_if(e.builder.not_(positions_fit(e, position, rows)), Fault.POSITION, position, rows)
        return position

    def fault_if(self, condition: V, code: Fault, *numbers: int | V) -> None:
        """Ends the step with a machine fault where the condition (i1) holds."""
        with self.e.if_then(condition, likely=False):
            self.fault(code, *numbers)

    def fault(self, code: Fault, *numbers: int | V) -> None:
        """Ends the step with a machine fault; code that follows in this block is not reached."""
        if len(numbers) != number_count(code):
            raise ValueError(f"{len(numbers)} numbers, {code.name} has {number_count(code)}")
        for index, number in enumerate(numbers):
            self.machine_thread.store("fault_numbers", number, index)
        self.machine_thread.store("fault", int(code))
        self.e.builder.ret(I64(Reason.FAULT))
