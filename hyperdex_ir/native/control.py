"""Instructions of the group CTRL: each thread executes them on its own registers, which are the same for all.

A number from memory (`lookup`, `fetch`) is read by one thread: `Operation.agreed`.
"""

from __future__ import annotations

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.structure import MAX_DEPTH
from hyperdex_ir.native.context import Reason
from hyperdex_ir.native.dispatch import frame_field
from hyperdex_ir.native.emit import F32, I32, I64, I128, V
from hyperdex_ir.native.operation import Operation, emits
from hyperdex_ir.native.routing import number_in


@emits("halt", barrier=False)
def halt(op: Operation) -> None:
    op.e.builder.ret(I64(Reason.HALT))


@emits("set", barrier=False)
def set_(op: Operation) -> None:
    op.set_register(op.immediate("dst"), op.immediate("value"))


@emits("add", barrier=False)
def add(op: Operation) -> None:
    b = op.e.builder
    parts = [op.register("a"), op.register("b"), op.immediate("value")]
    first, *rest = (b.sext(part, I128) for part in parts)
    total = first
    for part in rest:
        total = b.add(total, part)
    _set_wide(op, total)


@emits("multiply", barrier=False)
def multiply(op: Operation) -> None:
    b = op.e.builder
    first, second = (b.sext(part, I128) for part in (op.register("a"), op.immediate("value")))
    _set_wide(op, b.mul(first, second))


def _set_wide(op: Operation, value: V) -> None:
    """R[dst] = the i128. Fault when 64 bits do not hold it."""
    b, low = op.e.builder, op.e.builder.trunc(value, I64)
    beyond = b.icmp_signed("!=", b.sext(low, I128), value)
    high = b.trunc(b.ashr(value, I128(64)), I64)
    op.fault_if(beyond, Fault.REGISTER_OVERFLOW, op.immediate("dst"), low, high)
    op.set_register(op.immediate("dst"), low)


@emits("lookup", barrier=False)
def lookup(op: Operation) -> None:
    e = op.e
    index, limit = op.register("index"), op.immediate("limit")
    outside = e.builder.or_(e.less(index, 0), e.builder.icmp_signed(">=", index, limit))
    op.fault_if(outside, Fault.LOOKUP, index, limit)
    place = op.words("table", 1, item=8, added=e.mul(index, 8))
    op.set_register(op.immediate("dst"), op.agreed(lambda: e.load_once(place.pointer(0))))


@emits("repeat", barrier=False)
def repeat(op: Operation) -> None:
    e, thread = op.e, op.machine_thread
    start, stop = _body(op, Fault.EMPTY_REPEAT)
    count = op.immediate("count")
    with e.if_else(e.equal(count, 0)) as (none, some):
        with none:
            thread.store("pc", stop)
        with some:
            _push(op, start, stop, count)


@emits("repeat_rows", barrier=False)
def repeat_rows(op: Operation) -> None:
    start, stop = _body(op, Fault.EMPTY_REPEAT)
    _push(op, start, stop, op.rows())


@emits("fetch", barrier=False)
def fetch(op: Operation) -> None:
    e, b = op.e, op.e.builder
    limit, place = op.immediate("limit"), op.lmu("src", 1, 1).pointer
    bits = op.agreed(lambda: b.zext(e.load(place, I32), I64))
    valid, number = number_in(e, b.bitcast(b.trunc(bits, I32), F32), limit)
    op.fault_if(b.not_(valid), Fault.NUMBER, limit)
    op.set_register(op.immediate("dst"), number)


@emits("skip_unless", barrier=False)
def skip_unless(op: Operation) -> None:
    e, thread = op.e, op.machine_thread
    _, stop = _body(op, Fault.EMPTY_SKIP)
    differs = e.builder.icmp_signed("!=", op.register("a"), op.immediate("value"))
    with e.if_then(differs):
        thread.store("pc", stop)


@emits("call", barrier=False)
def call(op: Operation) -> None:
    e, thread = op.e, op.machine_thread
    target, count = op.immediate("target"), op.context.load("instructions")
    op.fault_if(e.builder.icmp_signed(">=", target, count), Fault.CALL_TARGET, target, count)
    _push(op, thread.load("pc"), I64(0), I64(0))
    thread.store("pc", target)
    thread.add("calls", 1)
    thread.add("open_calls", 1)


@emits("ret", barrier=False)
def ret(op: Operation) -> None:
    e, thread = op.e, op.machine_thread
    depth = thread.load("depth")
    op.fault_if(e.equal(depth, 0), Fault.RET_ALONE)
    top = e.sub(depth, 1)
    start, stop = (e.load(frame_field(e, thread, top, name), I64) for name in ("start", "stop"))
    op.fault_if(e.builder.icmp_signed("!=", stop, I64(0)), Fault.RET_IN_REPEAT, start, stop)
    thread.store("depth", top)
    thread.add("open_calls", -1)
    thread.store("pc", start)


def _body(op: Operation, empty: Fault) -> tuple[V, V]:
    """Start and end of the body that begins here. Fault when the body is empty or reaches beyond the body around it."""
    e, thread = op.e, op.machine_thread
    b = e.builder
    start, length, count = thread.load("pc"), op.immediate("length"), op.context.load("instructions")
    stop = e.add(start, length)
    op.fault_if(e.less(length, 1), empty)
    op.fault_if(e.less(count, stop), Fault.BODY_PROGRAM, stop, count)
    depth = thread.load("depth")
    with e.if_then(e.less(0, depth)):
        parent = e.load(frame_field(e, thread, e.sub(depth, 1), "stop"), I64)
        is_repeat = b.icmp_signed("!=", parent, I64(0))
        op.fault_if(b.and_(is_repeat, e.less(parent, stop)), Fault.BODY_REPEAT, stop, parent)
    return start, stop


def _push(op: Operation, start: V, stop: V, remaining: V) -> None:
    e, thread = op.e, op.machine_thread
    depth = thread.load("depth")
    op.fault_if(e.equal(depth, MAX_DEPTH), Fault.NESTING, MAX_DEPTH)
    for name, value in (("start", start), ("stop", stop), ("remaining", remaining)):
        e.store(value, frame_field(e, thread, depth, name))
    thread.store("depth", e.add(depth, 1))
