"""Instructions of the group NET: messages to and from the neighbours on the ring.

Python owns the links (`exchange.py`). The first thread calls Python, while the others stay in compiled code. Only when
a message has not arrived do all threads return, so that the step can be resumed when it has.
"""

from __future__ import annotations

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import DEVICE
from hyperdex_ir.isa.operands import MOST_AHEAD
from hyperdex_ir.native.context import Arrival, Reason
from hyperdex_ir.native.emit import I64, V
from hyperdex_ir.native.memory_access import LmuRows
from hyperdex_ir.native.moving import watch_words
from hyperdex_ir.native.operation import Operation, emits


@emits("send")
def send(op: Operation) -> None:
    e, b, thread = op.e, op.e.builder, op.machine_thread
    part, rows, columns = _part(op), op.rows(), op.immediate("columns")
    src = op.lmu("src", rows, columns, added=_first_column(op, part))
    number, words = thread.load("sent"), e.mul(rows, columns)
    _check_ahead(op, number, words)
    thread.store("sent", e.add(number, 1))
    thread.add("words_ahead", words)
    with e.if_then(e.equal(op.thread, 0)):
        with e.loop(0, rows) as row:
            watch_words(op, src.row(row), 0, columns)
        arguments = [number, part, src.first, src.stride, rows, columns]
        failed = e.call_at(op.context.at("send_message"), I64, arguments)
        with e.if_then(b.icmp_signed("!=", failed, I64(0)), likely=False):
            b.ret(I64(Reason.STOPPED))


def _check_ahead(op: Operation, sent: V, words: V) -> None:
    """Fault when more would have been sent beyond what has been received than the machine allows."""
    e, thread, most = op.e, op.machine_thread, op.context.load("lmu_words")
    messages = e.sub(e.add(sent, 1), thread.load("received"))
    ahead = e.add(thread.load("words_ahead"), words)
    outside = e.builder.or_(e.less(MOST_AHEAD, messages), e.less(most, ahead))
    op.fault_if(outside, Fault.AHEAD, messages, ahead, most)


@emits("receive")
def receive(op: Operation) -> None:
    e, thread = op.e, op.machine_thread
    part, rows, columns = _part(op), op.rows(), op.immediate("columns")
    number = thread.load("received")
    op.fault_if(e.builder.icmp_signed(">=", number, thread.load("sent")), Fault.EARLY_RECEIVE, number)
    arrival = _take(op, number, part, rows, columns)
    with e.if_then(e.equal(arrival, int(Arrival.NONE))):
        thread.store("pc", thread.load("index"))
        thread.add("executed", -1)
        e.builder.ret(I64(Reason.NETWORK))
    found = [op.context.load("other", index) for index in range(4)]
    other = e.equal(arrival, int(Arrival.OTHER))
    op.fault_if(other, Fault.MESSAGE, number, rows, columns, part, *found)
    thread.store("received", e.add(number, 1))
    thread.add("words_ahead", e.sub(I64(0), e.mul(rows, columns)))
    dst = op.lmu("dst", rows, columns, added=_first_column(op, part))
    words = LmuRows(e, op.context.load_pointer("message"), columns, I64(0), I64(0))
    begin, end = op.share_rows(dst, rows, columns)
    with e.loop(begin, end) as row:
        e.copy(dst.row(row), words.row(row), e.mul(columns, 4))
        watch_words(op, words.row(row), 0, columns)


def _take(op: Operation, number: V, part: V, rows: V, columns: V) -> V:
    """The link's answer when the first thread asks it for the next message: an Arrival, the same for all threads."""
    e, b = op.e, op.e.builder
    with e.if_then(e.equal(op.thread, 0)):
        arrival = e.call_at(op.context.at("receive_message"), I64, [number, part, rows, columns])
        op.context.store("arrival", arrival)
        with e.if_then(e.equal(arrival, int(Arrival.FAILED)), likely=False):
            b.ret(I64(Reason.STOPPED))
    op.barrier()
    return op.context.load("arrival")


def _part(op: Operation) -> V:
    """The part that an instruction is about. Fault without links, and when there is no part for this device."""
    e, b = op.e, op.e.builder
    op.fault_if(e.equal(op.context.load("linked"), 0), Fault.NO_LINKS)
    device, parts = op.register_value(DEVICE), op.immediate("parts")
    op.fault_if(b.icmp_unsigned(">=", device, parts), Fault.DEVICE, device, parts)
    distance = b.srem(e.sub(device, op.immediate("hop")), parts)
    return b.srem(e.add(distance, parts), parts)


def _first_column(op: Operation, part: V) -> V:
    return op.e.add(op.e.mul(part, op.immediate("pitch")), op.immediate("first"))
