"""Loops over attention heads, with all heads and rows divided among the threads: no thread waits inside.

`heads.py` finds the loops; `head_plan.py` replaces their `repeat`s by an operation of its own. Each time that operation
is executed, compiled code checks that the trips are independent of each other and that none of them faults. Then
threads work on (head, row) pairs, each with scores of its own. Only the last head's scores are written to the LMU, as
those are the ones that the `repeat` would leave there. Where the checks fail, the operation does what the `repeat`
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperdex_ir.isa.instructions import MATRIX_TYPES, POSITION
from hyperdex_ir.isa.operands import REGISTERS
from hyperdex_ir.isa.structure import MAX_DEPTH
from hyperdex_ir.native.attention import kernels
from hyperdex_ir.native.attention.head_plan import FIELDS, FINAL, HEADER, PLACES, TRIP
from hyperdex_ir.native.attention.heads import MAX_CONSTANT, MAX_NUMBER
from hyperdex_ir.native.attention.operations import Workspace, by_spans, cache_bytes, first_seen, whole_steps
from hyperdex_ir.native.attention.rows import RowAccess, row_counts
from hyperdex_ir.native.dispatch import frame_field
from hyperdex_ir.native.emit import F32, I1, I64, POINTER, V
from hyperdex_ir.native.fields import positions_fit
from hyperdex_ir.native.kernels import choose
from hyperdex_ir.native.memory_access import beat_address
from hyperdex_ir.native.operation import Operation, emits_extra
from hyperdex_ir.targets import LANES, TREE_BYTES

_CACHES = ("keys", "values")
_PARAMETERS = {"slope": "bias", "sink": "has_sink"}  #: with the field of the header that is not 0 when they are there
#: Pairs that a thread takes at a time where there are several rows.
_PORTION = 8


# ---------------------------------------------------------------------------------------------------- operation


@emits_extra("head_loop", FIELDS, barrier=False)
def head_loop(op: Operation) -> None:
    e = op.e
    loop = _Loop(op)
    with e.if_then(e.builder.not_(loop.can_be_shared()), likely=False):
        with e.if_then(loop.looks_up):
            op.barrier()  # all threads have decided before the next loop's numbers overwrite these
        repeat = e.module.globals["op_repeat"]
        e.builder.ret(e.call(repeat, e.function.args))
    loop.run()
    loop.leave()
    op.barrier()


class _Loop:
    """The operation's fields, registers and tables in compiled code."""

    def __init__(self, op: Operation):
        self.op, self.e = op, op.e
        self.numbers = {name: op.immediate(name) for name in FIELDS if name not in ("scale", "softcap")}
        header = op.e.element(op.context.load_pointer("plan"), self.numbers["table"], I64)
        self.header = {name: op.e.load(op.e.element(header, at, I64), I64) for at, name in enumerate(HEADER)}
        self.table = op.e.element(header, len(HEADER), I64)
        self.rows = self._register(self.numbers["rows"])
        self.position = self._register(I64(POSITION))
        self.stop = op.e.add(self.position, self.rows)
        self.first = first_seen(op.e, self.position, self.numbers["window"])
        self.bases = {name: self._register(self.numbers[f"{name}_register"]) for name in PLACES}
        self.buffer = op.e.add(self.numbers["buffer_address"], self._register(self.numbers["buffer_register"]))
        self.trees = op.context.load("trees")
        self.executed = op.machine_thread.load("executed")  # the repeat is counted already

    def _register(self, number: V) -> V:
        """A register that may not have been set: `_registers_known` checks all of them together."""
        return self.op.machine_thread.load("registers", number)

    def trip(self, number: V, name: str) -> V:
        """A number of a trip in the table."""
        e = self.e
        return e.load(e.element(self.table, e.add(e.mul(number, len(TRIP)), TRIP.index(name)), I64), I64)

    def address(self, number: V, name: str) -> V:
        """An address of a trip: LMU word or HBM byte."""
        place = self.e.add(self.bases[name], self.trip(number, name))
        return self._plus_looked_up(place, self.trip(number, f"{name}_factor"), number) if name in _CACHES else place

    def _plus_looked_up(self, value: V, factor: V, lookup: V) -> V:
        """The value plus `factor` times the result of a lookup."""
        e = self.e
        total = e.local(I64, value)
        with e.if_then(e.builder.icmp_signed("!=", factor, I64(0))):
            total.set(e.add(value, e.mul(factor, self.looked_up(lookup))))
        return total.get()

    def index(self, lookup: V) -> V:
        """The index of a lookup."""
        return self.e.add(self._register(self.trip(lookup, "index_register")), self.trip(lookup, "index_constant"))

    @property
    def looks_up(self) -> V:
        """i1: there are lookups."""
        return self.e.less(0, self.header["lookups"])

    def looked_up(self, lookup: V) -> V:
        """Result of a lookup; `_look_up` must have been called."""
        return self.e.load(self.e.element(self.op.context.load_pointer("lookups"), lookup, I64), I64)

    def _look_up(self) -> None:
        """Reads the results of all lookups, by one thread and once, as the parameters lie in files that may change. All
        threads meet here; they must also meet before the numbers of another loop are stored in the same place."""
        e, op = self.e, self.op
        kept = op.context.load_pointer("lookups")
        with e.if_then(e.equal(op.thread, 0)), e.loop(0, self.header["lookups"]) as lookup:
            number = e.load_once(self._parameter(e.add(self.first_number, e.mul(self.index(lookup), 8))))
            e.store(number, e.element(kept, lookup, I64))
        op.barrier()

    def _parameter(self, address: V) -> V:
        """Pointer to the byte at an address of the parameters."""
        e, context = self.e, self.op.context
        byte = e.sub(address, context.load("parameters.begin"))
        return e.call(beat_address(e), [context.at("parameters"), context.load("channels"), byte])

    @property
    def first_number(self) -> V:
        """The byte address of the table that lookups use."""
        return self.e.add(self.header["offset"], self._register(self.header["register"]))

    # ------------------------------------------------------------------------------------------------ checks

    def can_be_shared(self) -> V:
        """i1: no trip faults, and none touches words that another writes."""
        e, b = self.e, self.e.builder
        result = e.local(I1, b.and_(self._registers_known(), self._control_fits()))
        with e.if_then(result.get()):
            result.set(self._sizes_fit())
        with e.if_then(result.get()):
            result.set(self._lookups_inside())
        with e.if_then(b.and_(result.get(), self.looks_up)):
            self._look_up()
            result.set(self._lookups_small())
        with e.if_then(result.get()):
            result.set(self._memory_fits())
        return result.get()

    def _lookups_inside(self) -> V:
        """Every lookup is within its table, and that within the parameters."""
        e, b, limit = self.e, self.e.builder, self.header["limit"]
        last = e.sub(self.op.context.load("parameters.end"), e.mul(limit, 8))
        start = self.first_number
        inside = b.and_(e.less(-1, start), b.icmp_signed("<=", start, last))
        on_grid = e.equal(b.and_(start, I64(7)), 0)
        result = e.local(I1, b.or_(b.and_(inside, on_grid), b.not_(self.looks_up)))
        with e.loop(0, self.header["lookups"]) as lookup:
            result.set(b.and_(result.get(), b.icmp_unsigned("<", self.index(lookup), limit)))
        return result.get()

    def _lookups_small(self) -> V:
        """Every lookup gives a small number."""
        e, b = self.e, self.e.builder
        result = e.local(I1, I1(1))
        with e.loop(0, self.header["lookups"]) as lookup:
            result.set(b.and_(result.get(), b.icmp_unsigned("<", self.looked_up(lookup), I64(MAX_NUMBER))))
        return result.get()

    def _registers_known(self) -> V:
        """All registers are set, and so small that no sum overflows."""
        e, b, thread = self.e, self.e.builder, self.op.machine_thread
        result, needed = e.local(I1, I1(1)), self.numbers["needed"]
        with e.loop(0, REGISTERS) as number:
            wanted = b.trunc(b.lshr(needed, number), I1)
            value = thread.load("registers", number)
            small = b.and_(e.less(value, MAX_CONSTANT), e.less(-MAX_CONSTANT, value))
            good = b.and_(e.equal(thread.load("is_set", number), 1), small)
            result.set(b.and_(result.get(), b.or_(b.not_(wanted), good)))
        return result.get()

    def _control_fits(self) -> V:
        """Repeats do not nest too deep, end within the body around them, and within the budget."""
        e, b, thread = self.e, self.e.builder, self.op.machine_thread
        depth = thread.load("depth")
        result = e.local(I1, b.icmp_signed("<=", e.add(depth, self.numbers["depth"]), I64(MAX_DEPTH)))
        last = e.add(e.sub(self.executed, 1), self.numbers["executed"])
        result.set(b.and_(result.get(), b.icmp_signed("<=", last, self.op.context.load("budget"))))
        with e.if_then(e.less(0, depth)):
            stop = e.load(frame_field(e, thread, e.sub(depth, 1), "stop"), I64)
            inside = b.or_(e.equal(stop, 0), b.icmp_signed("<=", self.numbers["stop"], stop))
            result.set(b.and_(result.get(), inside))
        return result.get()

    def _sizes_fit(self) -> V:
        """Rows and positions; rows of the buffer, and of results, do not lie on each other."""
        e, b, n = self.e, self.e.builder, self.numbers
        one = e.equal(self.rows, 1)
        conditions = [
            e.less(0, self.rows),
            b.icmp_signed("<=", self.rows, self.op.context.load("chunk")),
            positions_fit(e, self.position, self.rows),
            b.icmp_signed("<=", self.stop, n["limit"]),
            b.or_(one, b.icmp_signed(">=", n["buffer_stride"], e.sub(self.stop, self.first))),
            b.or_(one, b.icmp_signed(">=", n["result_stride"], n["span"])),
            b.icmp_signed("<=", e.mul(self.rows, n["size"]), self.op.context.load("lmu_words")),
        ]
        return self._all(conditions)

    def _all(self, conditions: Sequence[V]) -> V:
        result, *others = conditions
        for condition in others:
            result = self.e.builder.and_(result, condition)
        return result

    def _memory_fits(self) -> V:
        """Operands lie in LMU and HBM. Buffer, queries and results lie apart, except that a head's result may take the
        place of its query."""
        e, b, n = self.e, self.e.builder, self.numbers
        words = self.op.context.load("lmu_words")
        widths = {"query": n["size"], "result": n["value_size"]}
        low = {name: e.local(I64, words) for name in widths}
        high = {name: e.local(I64, I64(-1)) for name in widths}
        alike, good = e.local(I1, e.equal(n["size"], n["value_size"])), e.local(I1, I1(1))
        with e.loop(0, n["trips"]) as trip:
            starts = {name: self.address(trip, name) for name in widths}
            for name, start in starts.items():
                low[name].set(e.minimum(low[name].get(), start))
                last = e.add(start, e.add(self._rows_before_last(f"{name}_stride"), e.sub(widths[name], 1)))
                high[name].set(e.maximum(high[name].get(), last))
            alike.set(b.and_(alike.get(), e.equal(starts["query"], starts["result"])))
            parameters = [self._parameter_fits(trip, name) for name in _PARAMETERS]
            good.set(self._all([good.get(), self._keys_fit(trip), self._values_fit(trip), *parameters]))
        same_stride = b.or_(e.equal(n["query_stride"], n["result_stride"]), e.equal(self.rows, 1))
        columns = e.sub(self.stop, self.first)
        buffer_low = e.add(self.buffer, self.first)
        buffer_high = e.add(e.add(buffer_low, self._rows_before_last("buffer_stride")), e.sub(columns, 1))
        spans = {name: (low[name].get(), high[name].get()) for name in widths} | {"buffer": (buffer_low, buffer_high)}
        inside = [b.and_(e.less(-1, first), e.less(last, words)) for first, last in spans.values()]
        apart = [self._apart(spans["buffer"], spans[name]) for name in widths]
        in_place = b.and_(alike.get(), same_stride)
        apart.append(b.or_(in_place, self._apart(spans["query"], spans["result"])))
        return self._all([good.get(), *inside, *apart])

    def _rows_before_last(self, stride: str) -> V:
        return self.e.mul(self.e.sub(self.rows, 1), self.numbers[stride])

    def _apart(self, a: tuple[V, V], b: tuple[V, V]) -> V:
        return self.e.builder.or_(self.e.less(a[1], b[0]), self.e.less(b[1], a[0]))

    def _parameter_fits(self, trip: V, name: str) -> V:
        """A slope or a sink lies in the parameters, or there is none."""
        e, b, context = self.e, self.e.builder, self.op.context
        address, last = self.address(trip, name), e.sub(context.load("parameters.end"), 4)
        after_begin = b.icmp_signed("<=", context.load("parameters.begin"), address)
        inside = b.and_(after_begin, b.icmp_signed("<=", address, last))
        on_grid = e.equal(b.and_(address, I64(3)), 0)
        return b.or_(e.equal(self.header[_PARAMETERS[name]], 0), b.and_(inside, on_grid))

    def _keys_fit(self, trip: V) -> V:
        return self._cache_fits(self.address(trip, "keys"), self.stop, self.numbers["size"])

    def _values_fit(self, trip: V) -> V:
        return self._cache_fits(self.address(trip, "values"), self.numbers["value_size"], self.numbers["limit"])

    def _cache_fits(self, address: V, rows: V, columns: V) -> V:
        """A matrix lies on stripes of the run-time area."""
        e, b, context = self.e, self.e.builder, self.op.context
        begin, end = context.load("runtime.begin"), context.load("runtime.end")
        stripe = e.mul(self.trees, TREE_BYTES)
        last = e.sub(end, cache_bytes(e, self.trees, rows, columns))
        inside = b.and_(b.icmp_signed(">=", address, begin), b.icmp_signed("<=", address, last))
        return b.and_(inside, e.equal(b.urem(address, stripe), 0))

    # ------------------------------------------------------------------------------------------------ work

    def run(self) -> None:
        """Computes this thread's pairs of head and row. Pairs are numbered by run of heads, within a run by row, then
        by head. With one row, each thread takes a stretch of heads; with more, threads take portions in turn, as later
        rows take longer."""
        op, e, b = self.op, self.e, self.e.builder
        total = e.mul(self.numbers["trips"], self.rows)
        portion = b.select(e.equal(self.rows, 1), e.ceil_div(total, op.threads), I64(_PORTION))
        space = self._workspace()
        least = e.local(I64, I64(_NEVER))
        with e.loop(e.mul(op.thread, portion), total, e.mul(op.threads, portion)) as start:
            stop = e.minimum(e.add(start, portion), total)
            pair = e.local(I64, start)
            with e.loop_while() as done:
                e.leave(done, b.icmp_signed(">=", pair.get(), stop))
                op.check_stop()
                count = self._block(space, pair.get(), stop, least)
                pair.set(e.add(pair.get(), count))
        self._raise_flag(least.get())

    def _workspace(self) -> Workspace:
        n = self.numbers
        size = self.e.maximum(n["size"], n["value_size"])
        positions = self.e.minimum(n["limit"], self.op.context.load("lmu_words"))
        return Workspace.of(self.op, row_counts(self.op.features)[-1], size, positions)

    def _block(self, space: Workspace, pair: V, stop: V, least: Any) -> V:
        """Computes as many pairs from `pair` on as kernels take and share a cache; returns their number."""
        e, b = self.e, self.e.builder
        trip = b.udiv(pair, self.rows)
        head, heads = self._run_around(trip)
        inside = e.sub(pair, e.mul(head, self.rows))
        left = e.minimum(e.sub(stop, pair), e.sub(e.mul(heads, self.rows), inside))
        count = e.minimum(left, row_counts(self.op.features)[-1])
        self._prepare(space, head, heads, inside, count)
        cases = [
            lambda name=name, rows=rows: self._stages(space, head, name, rows)
            for name in MATRIX_TYPES
            for rows in row_counts(self.op.features)
        ]
        kinds = e.mul(self.numbers["type"], len(row_counts(self.op.features)))
        choose(e, e.add(kinds, e.sub(count, 1)), cases)
        self._note_flags(space, head, heads, inside, count, least)
        return count

    def _run_around(self, trip: V) -> tuple[V, V]:
        """The first and the number of the trips around this one that use the same keys and values."""
        e = self.e
        first, length = (e.local(I64, self.trip(trip, f"run_{name}")) for name in ("first", "length"))
        with e.if_then(self.looks_up):
            own = [self.address(trip, name) for name in _CACHES]

            def ends(other: V) -> V:
                """i1: that trip uses other keys or values."""
                same = [e.equal(self.address(other, name), place) for name, place in zip(_CACHES, own, strict=True)]
                return e.builder.not_(self._all(same))

            with e.loop_while() as begun:
                e.leave(begun, e.equal(first.get(), 0))
                e.leave(begun, ends(e.sub(first.get(), 1)))
                first.set(e.sub(first.get(), 1))
            stop = e.local(I64, e.add(trip, 1))
            with e.loop_while() as ended:
                e.leave(ended, e.equal(stop.get(), self.numbers["trips"]))
                e.leave(ended, ends(stop.get()))
                stop.set(e.add(stop.get(), 1))
            length.set(e.sub(stop.get(), first.get()))
        return first.get(), length.get()

    def _prepare(self, space: Workspace, head: V, heads: V, inside: V, count: V) -> None:
        """The Rows of a block, queries rounded."""
        e, b, n = self.e, self.e.builder, self.numbers
        last = b.udiv(e.add(inside, e.sub(count, 1)), heads)
        first = first_seen(e, e.add(self.position, b.udiv(inside, heads)), n["window"])
        steps = whole_steps(e, first, e.add(e.add(self.position, last), 1))
        lmu = self.op.context.load_pointer("lmu")
        with e.loop(0, count) as number:
            at = e.add(inside, number)
            row, trip = b.udiv(at, heads), e.add(head, b.urem(at, heads))
            own = e.add(self.position, row)
            target = space.prepare(number, first_seen(e, own, n["window"]), e.add(own, 1), *steps)
            result = e.add(self.address(trip, "result"), e.mul(row, n["result_stride"]))
            target.store("result", b.ptrtoint(e.element(lmu, result, F32), I64))
            self._take_parameters(target, trip)
            with e.if_then(e.equal(e.add(trip, 1), n["trips"])):
                word = e.add(self.buffer, e.mul(row, n["buffer_stride"]))
                target.store("scores", b.ptrtoint(e.element(lmu, word, F32), I64))
            query = e.element(lmu, e.add(self.address(trip, "query"), e.mul(row, n["query_stride"])), F32)
            arguments = [target.pointer, query, n["size"]]
            choose(e, n["type"], [lambda t=t: e.call(kernels.round_query(e, t), arguments) for t in MATRIX_TYPES])

    def _take_parameters(self, row: RowAccess, trip: V) -> None:
        """The slope and the sink of a head."""
        e = self.e
        for name, kind in _PARAMETERS.items():
            row.store(kind, self.header[kind])
            with e.if_then(e.builder.icmp_signed("!=", self.header[kind], I64(0)), likely=False):
                row.store_number(name, e.load(self._parameter(self.address(trip, name)), F32))

    def _stages(self, space: Workspace, head: V, matrix_type: str, rows: int) -> None:
        """Scores, softmax and values of a block."""
        e, n = self.e, self.numbers
        keys, values = self._cache(self.address(head, "keys")), self._cache(self.address(head, "values"))
        first, stop = space.row(0).load("first"), space.row(rows - 1).load("stop")
        steps = e.ceil_div(n["size"], LANES)
        scale, cap = self.op.floating("scale"), self.op.floating("softcap")
        scores, sums = kernels.scores_kernel(e, matrix_type, rows), kernels.values_kernel(e, matrix_type, rows)

        def score(begin: V, end: V) -> None:
            e.call(scores, [space.rows, keys, self.trees, steps, begin, end, scale, cap])

        def add_up(begin: V, end: V) -> None:
            limit = e.ceil_div(n["limit"], LANES)
            e.call(sums, [space.rows, values, self.trees, limit, begin, end, space.sums])

        by_spans(self.op, first, stop, e.mul(steps, LANES), LANES, score)
        for number in range(rows):
            e.call(kernels.softmax_kernel(e, matrix_type), [space.row(number).pointer])
        by_spans(self.op, I64(0), n["value_size"], e.sub(stop, first), kernels.ELEMENTS, add_up)

    def _cache(self, address: V) -> V:
        """Pointer to the byte at an address of the run-time area, which begins where its first channel begins."""
        e, context = self.e, self.op.context
        base = e.load(context.load_pointer("runtime.channels"), POINTER)
        return e.offset(base, e.sub(address, context.load("runtime.begin")))

    # ------------------------------------------------------------------------------------------------ outcomes

    def _note_flags(self, space: Workspace, head: V, heads: V, inside: V, count: V, least: Any) -> None:
        """Updates `least`: the smallest 4 * (instructions executed) + stage of the stages that made a NaN or an
        infinity."""
        e, b = self.e, self.e.builder
        with e.loop(0, count) as number:
            row = space.row(number)
            trip = e.add(head, b.urem(e.add(inside, number), heads))
            before = e.add(self.executed, self.trip(trip, "executed"))
            for stage, name in enumerate(("watched_scores", "watched_softmax", "watched_values")):
                with e.if_then(b.icmp_signed(">=", row.load(name), I64(_NOT_FINITE)), likely=False):
                    key = e.add(e.mul(e.add(before, stage), 4), stage)
                    least.set(e.minimum(least.get(), key))

    def _raise_flag(self, least: V) -> None:
        e, b, thread = self.e, self.e.builder, self.op.machine_thread
        first = b.and_(e.less(least, _NEVER), e.equal(thread.load("flag"), 0))
        with e.if_then(first, likely=False):
            inside = e.less(0, thread.load("open_calls"))
            numbers = {
                "flag_pass": self.op.context.load("pass_number"),
                "flag_executed": b.ashr(least, I64(2)),
                "flag_layer": b.select(inside, e.sub(thread.load("calls"), 1), I64(-1)),
                "flag_index": e.add(self.numbers["scores_index"], b.and_(least, I64(3))),
                "flag": I64(1),
            }
            for name, number in numbers.items():
                thread.store(name, number)

    def leave(self) -> None:
        """Sets registers, number of instructions executed and next instruction as they are after the loop."""
        e, thread, n = self.e, self.op.machine_thread, self.numbers
        values = e.buffer(I64, REGISTERS)
        finals = e.element(self.table, e.mul(n["trips"], len(TRIP)), I64)

        def number(index: V, name: str) -> V:
            place = e.add(e.mul(index, len(FINAL)), FINAL.index(name))
            return e.load(e.element(finals, place, I64), I64)

        with e.loop(0, n["finals"]) as index:
            base = thread.load("registers", number(index, "base"))
            value = e.add(base, number(index, "constant"))
            value = self._plus_looked_up(value, number(index, "factor"), number(index, "lookup"))
            e.store(value, e.element(values, index, I64))
        with e.loop(0, n["finals"]) as index:
            self.op.set_register(number(index, "register"), e.load(e.element(values, index, I64), I64))
        thread.store("pc", n["stop"])
        thread.store("executed", e.add(e.sub(self.executed, 1), n["executed"]))


_NEVER = (1 << 63) - 1
_NOT_FINITE = 0x7F800000
