"""The interface of emitters: checked operands of one instruction, the share of work of each thread, faults and the
flag.

An instruction of the table is one LLVM function `i64 op_<name>(ptr context, ptr thread, ptr fields)`. Its body is
written by a function that is registered under the instruction's name:

    @emits("select_rows")
    def select_rows(op: Operation) -> None:
        e = op.e
        rows, first = op.rows(), op.register("first")
        columns = op.immediate("columns")
        dst = op.lmu("dst", rows, columns)
        ...
        begin, end = op.share(rows)                  # this thread's rows
        with e.loop(begin, end) as row:
            ...

Rules:

- All threads execute every instruction, each on its own registers. Checks come first, in the order in which the
  interpreter's handler makes them, and every thread makes them all: then all threads take the same fault. Only the work
  on data is split, by `share`.
- When the function ends, the threads meet (`barrier=True`): data that one thread has written, the others may read from
  then on. Inside, `op.barrier()` does the same. All threads must come to the same barriers: there must be none inside a
  loop over a share, nor in code that only some threads reach.
- A number in memory that decides control flow, an address or a size is read once, checked, and used from the copy. A
  number on which all threads must agree is read by one of them: `op.agreed`. The parameters lie in mapped files, which
  may be rewritten at any time; LMU, run-time area and scratch memory change between barriers only.
- Addresses and numbers that have been checked stay in registers, on the stack or in the Context: no instruction writes
  there.
- An instruction reads everything before it writes. Where operands may overlap (`op.apart`), write to
  `op.scratch` first. Rows of a result may lie on each other (`op.share_rows`).
- Long work asks `op.check_stop()` now and then (every few microseconds' worth is plenty). No stretch without it grows
  with a product of operands that no limit of the LMU bounds: `SPAN` elements at a time.
- Every value that docs/arithmetic.md, section 10, counts is given to `op.watch`.
- LMU and scratch memory may be read up to 64 words past the last one; never written. HBM memory must not.

`scratch` says how many f32 words of memory an instruction needs besides its operands, given its operand values (a
mapping as in `Instruction.values`, defaults filled in) and the machine's `Sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperdex_ir.isa.handlers import Handlers
from hyperdex_ir.isa.instructions import BY_NAME
from hyperdex_ir.isa.operands import Field
from hyperdex_ir.native import memory_access
from hyperdex_ir.native.context import Reason
from hyperdex_ir.native.emit import F32, I32, I64, POINTER, Emitter, Local, V, define
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.fields import Fields
from hyperdex_ir.native.memory_access import LmuRows, LmuView, Tiles, Words


@dataclass(frozen=True)
class Sizes:
    """Numbers on which scratch sizes depend: most rows in flight, MAC trees, threads, words of the LMU, bytes of
    HBM."""

    chunk: int
    trees: int
    threads: int
    lmu_words: int
    hbm_bytes: int

    def fit(self, *columns: int) -> bool:
        """Test that rows of so many columns can be in the LMU. An instruction whose rows cannot faults before it uses
        scratch memory, so it needs none."""
        return max(columns) <= self.lmu_words


Values = Mapping[str, Any]
Scratch = Callable[[Values, Sizes], int]
Body = Callable[["Operation"], None]


@dataclass(frozen=True)
class Definition:
    """Emitter of an operation of the plan. extra: the names of its fields, when it is not an instruction."""

    name: str
    body: Body
    scratch: Scratch | None
    barrier: bool
    extra: tuple[str, ...] | None = None

    @property
    def number(self) -> int:
        """The operation's number, in slot 0 of its row in the plan."""
        return BY_NAME[self.name].opcode if self.extra is None else FIRST_EXTRA + list(EXTRAS).index(self.name)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of its row in the plan."""
        return BY_NAME[self.name].fields() if self.extra is None else tuple(Field(name, 64) for name in self.extra)


#: The emitter of each instruction.
EMITTERS: Handlers[Definition] = Handlers("emitter of the native executor")
#: Emitters of operations that are not instructions, which the executor itself puts into a plan.
EXTRAS: Handlers[Definition] = Handlers("emitter of the native executor")

#: Elements between two `check_stop`s, where their number is bounded by HBM alone.
SPAN = 1 << 25

FIRST_EXTRA = 256  #: numbers from here on are of operations that are not instructions of the table


def emits(*names: str, scratch: Scratch | None = None, barrier: bool = True) -> Callable[[Body], Body]:
    """Registers the function that writes the body of these instructions.

    barrier: threads meet when it ends; False for an instruction that touches only the thread's own state.
    """

    def register(body: Body) -> Body:
        for name in names:
            EMITTERS.add(name, Definition(name, body, scratch, barrier))
        return body

    return register


def emits_extra(name: str, fields: Sequence[str], *, barrier: bool = True) -> Callable[[Body], Body]:
    """As `emits`, for an operation that is not an instruction of the table. fields: the names of its slots."""

    def register(body: Body) -> Body:
        EXTRAS.add(name, Definition(name, body, None, barrier, tuple(fields)))
        return body

    return register


def emit_operation(module: Any, features: Features, definition: Definition) -> Any:
    """The function op_<name> of the module."""
    function = define(module, f"op_{definition.name}", I64, (POINTER, POINTER, POINTER))
    op = Operation(Emitter(function, features), definition)
    definition.body(op)
    op.finish()
    return function


class Operation(Fields):
    """One instruction while its function is being written. `threads`, `thread`: the number of threads, and this one's
    number (i64)."""

    def __init__(self, e: Emitter, definition: Definition):
        super().__init__(e, definition.fields)
        self.features = e.features
        self.definition = definition
        self.threads = self.context.load("threads")
        self.thread = self.machine_thread.load("number")
        self._watched: dict[str, Local] = {}

    # ------------------------------------------------------------------------------------------------ operands

    def lmu(self, name: str, rows: int | V, columns: int | V, *, added: int | V = 0) -> LmuRows:
        """An Lmu operand (`added` words further on) as rows of f32. Fault when a word lies outside."""
        return memory_access.lmu_rows(self, name, self.e.i64(rows), self.e.i64(columns), self.e.i64(added))

    def view(self, name: str, rows: int | V, groups: int | V, columns: int | V) -> LmuView:
        """A View operand as f32 [rows, groups, columns]. Fault when a word lies outside."""
        return memory_access.lmu_view(self, name, self.e.i64(rows), self.e.i64(groups), self.e.i64(columns))

    def tiles(self, name: str, rows: int | V, columns: int | V, *, added: int | V = 0, written: bool = False) -> Tiles:
        """An Hbm operand (`added` bytes further on) as a matrix [rows, columns] in tile order.

        Fault when the matrix lies outside HBM or off the stripes, or is `written` to and lies in the parameters.
        """
        rows, columns = self.e.i64(rows), self.e.i64(columns)
        return memory_access.tiles(self, name, rows, columns, self.e.i64(added), written)

    def words(self, name: str, count: int | V, *, item: int = 4, added: int | V = 0, written: bool = False) -> Words:
        """An Hbm operand (`added` bytes further on) as `count` elements of `item` bytes one after another.

        Fault when the elements lie outside HBM or off their grid, or are `written` to and lie in the parameters.
        """
        return memory_access.words(self, name, self.e.i64(count), item, self.e.i64(added), written)

    def scratch(self, offset: int | V = 0) -> V:
        """A pointer to the scratch memory that all threads share, `offset` words into it."""
        return self.e.element(self.context.load_pointer("scratch"), offset, F32)

    def apart(self, a: LmuRows | LmuView, b: LmuRows | LmuView) -> V:
        """i1: no word of a lies between the first and the last word of b, nor the other way round."""
        e = self.e
        return e.builder.or_(e.less(a.last, b.first), e.less(b.last, a.first))

    # ------------------------------------------------------------------------------------------------ threads

    def share(self, count: int | V) -> tuple[V, V]:
        """(begin, end): this thread's part of 0..count-1; parts are neighbours and differ by at most one in size."""
        e, count = self.e, self.e.i64(count)
        begin = e.builder.udiv(e.mul(count, self.thread), self.threads)
        end = e.builder.udiv(e.mul(count, e.add(self.thread, 1)), self.threads)
        return begin, end

    def share_rows(self, dst: LmuRows, rows: V, columns: V) -> tuple[V, V]:
        """`share` of the rows that an instruction writes. Where rows lie on each other, all are the first thread's, so
        that the last one stays."""
        return self.share_apart(rows, self.e.builder.icmp_signed(">=", dst.stride, columns))

    def share_apart(self, count: V, apart: V) -> tuple[V, V]:
        """`share` where the i1 holds; else everything is the first thread's."""
        e, (begin, end) = self.e, self.share(count)
        own = e.builder.select(e.equal(self.thread, 0), count, I64(0))
        return e.builder.select(apart, begin, I64(0)), e.builder.select(apart, end, own)

    def barrier(self) -> None:
        """All threads wait for each other. Returns from the instruction when the stop flag is set."""
        e = self.e
        function = e.declare("barrier", I64, (POINTER, POINTER))
        stopped = e.call(function, [self.context.pointer, self.machine_thread.pointer])
        with e.if_then(e.builder.icmp_signed("!=", stopped, I64(0)), likely=False):
            e.builder.ret(I64(Reason.STOPPED))

    def agreed(self, read: Callable[[], V]) -> V:
        """An i64 that the first thread reads and all threads get: a number on which control flow or addresses depend is
        the same for all threads, even when the memory changes meanwhile. All threads meet here.

        Two places take turns: all threads have read one before any thread comes to the barrier behind which it may
        change.
        """
        e = self.e
        turn = e.builder.and_(self.machine_thread.load("barriers"), I64(1))
        with e.if_then(e.equal(self.thread, 0)):
            self.context.store("agreed", read(), turn)
        self.barrier()
        return self.context.load("agreed", turn)

    def check_stop(self) -> None:
        """Returns from the instruction when the stop flag is set; threads that wait at a barrier see the flag too."""
        e = self.e
        stop = e.builder.load_atomic(self.context.at("stop"), "monotonic", 8, typ=I64)
        with e.if_then(e.builder.icmp_signed("!=", stop, I64(0)), likely=False):
            e.builder.ret(I64(Reason.STOPPED))

    # ------------------------------------------------------------------------------------------------ outcomes

    def watch(self, value: V, mask: V | None = None) -> None:
        """Raises the flag when the f32 (or a lane of the vector, where `mask`) is a NaN or an infinity."""
        bits = self.e.magnitude_bits(value)
        if mask is not None:
            bits = self.e.builder.select(mask, bits, self.e.zero(bits.type))
        self.watch_bits(bits)

    def watch_bits(self, bits: V) -> None:
        """As `watch`, for `e.magnitude_bits` of values, or the largest of them: an i32 or a vector of i32."""
        key = str(bits.type)
        if key not in self._watched:
            self._watched[key] = self._accumulator(bits.type)
        seen = self._watched[key]
        old = seen.get()
        seen.set(self.e.builder.select(self.e.builder.icmp_unsigned(">", bits, old), bits, old))

    def _accumulator(self, type_: Any) -> Local:
        local = self.e.local(type_)
        with self.e.builder.goto_block(self.e.entry):
            local.set(self.e.zero(type_))
        return local

    def finish(self) -> None:
        """Ends the function: records the flag, meets at the barrier, goes on to the next instruction. Called once the
        body is written."""
        e = self.e
        if e.builder.block.is_terminated:
            return
        for seen in self._watched.values():
            bits = seen.get()
            most = bits if bits.type == I32 else e.reduce_umax(bits)
            with e.if_then(e.builder.icmp_unsigned(">=", most, I32(0x7F800000)), likely=False):
                self.machine_thread.store("nonfinite", 1)
        if self.definition.barrier:
            self.barrier()
        e.builder.ret(I64(Reason.NEXT))
