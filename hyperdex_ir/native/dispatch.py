"""The compiled loop that executes a plan, and the barrier that its threads meet at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.structure import MAX_DEPTH
from hyperdex_ir.native.context import Context, Frame, Reason, Thread
from hyperdex_ir.native.emit import I32, I64, POINTER, VOID, Emitter, V, define
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.program_rows import SLOTS
from hyperdex_ir.native.shared import Shared, offset_of

#: Rounds of waiting at a barrier before other processes get the core: tens of microseconds.
_SPINS = 500
_MXCSR_DEFAULT = 0x1F80  # round to nearest, subnormals kept, exceptions masked


def emit_barrier(module: ir.Module, features: Features) -> Any:
    """i64 barrier(ptr context, ptr thread): waits until all threads have come; 0, or STOPPED when the stop flag is set.

    `arrived` only grows: a thread that has passed b barriers waits until (b + 1) * threads have come.
    """
    function = define(module, "barrier", I64, (POINTER, POINTER))
    e = Emitter(function, features)
    b = e.builder
    context, thread = Shared(e, function.args[0], Context), Shared(e, function.args[1], Thread)
    threads = context.load("threads")
    with e.if_then(e.equal(threads, 1)):
        b.ret(I64(0))
    thread.add("barriers", 1)
    target = e.mul(thread.load("barriers"), threads)
    before = b.atomic_rmw("add", context.at("arrived"), I64(1), "acq_rel")
    with e.if_then(e.less(e.sub(target, 2), before)):
        b.ret(I64(0))
    spins = e.local(I64, I64(0))
    with e.loop_while() as stopped:
        arrived = b.load_atomic(context.at("arrived"), "acquire", 8, typ=I64)
        with e.if_then(b.icmp_signed(">=", arrived, target)):
            b.ret(I64(0))
        e.leave(stopped, b.icmp_signed("!=", b.load_atomic(context.at("stop"), "monotonic", 8, typ=I64), I64(0)))
        _pause(e)
        spins.set(e.add(spins.get(), 1))
        with e.if_then(e.less(_SPINS, spins.get()), likely=False):
            e.call_at(context.at("yield_cpu"), I32, [])
    b.ret(I64(Reason.STOPPED))
    return function


def emit_run(module: ir.Module, features: Features, operations: Mapping[int, Any]) -> Any:
    """i64 run(ptr context, ptr thread): executes from Thread.pc on until something ends the run; returns a Reason.

    operations: the function of each operation number.
    """
    function = define(module, "run", I64, (POINTER, POINTER), public=True)
    e = Emitter(function, features)
    context, thread = Shared(e, function.args[0], Context), Shared(e, function.args[1], Thread)
    with _float_environment(e) as leave:
        with e.loop_while():
            fields = _fetch(e, context, thread, leave)
            reason = _execute(e, function.args, fields, operations)
            with e.if_then(e.builder.icmp_signed("!=", reason, I64(Reason.NEXT)), likely=False):
                leave(reason)
            _record_flag(e, context, thread)
            _close_repeats(e, thread)
        e.builder.unreachable()
    return function


@contextmanager
def _float_environment(e: Emitter) -> Any:
    """Sets the function's floating-point environment to IEEE's default inside; `with` gives a function that returns a
    value."""
    b = e.builder
    if not e.features.is_x86:
        get, put = e.declare("llvm.aarch64.get.fpcr", I64, ()), e.declare("llvm.aarch64.set.fpcr", VOID, (I64,))
        saved = b.call(get, [])
        b.call(put, [I64(0)])

        def leave(value: V) -> None:
            b.call(put, [saved])
            b.ret(value)
    else:
        load, store = (e.declare(f"llvm.x86.sse.{name}", VOID, (POINTER,)) for name in ("ldmxcsr", "stmxcsr"))
        own, ours = e.buffer(I32, 1, 4), e.buffer(I32, 1, 4)
        b.call(store, [own])
        e.store(e.i32(_MXCSR_DEFAULT), ours)
        b.call(load, [ours])

        def leave(value: V) -> None:
            b.call(load, [own])
            b.ret(value)

    yield leave


def _fetch(e: Emitter, context: Shared, thread: Shared, leave: Any) -> V:
    """The plan row of the next instruction, which is counted; faults when there is none, or the budget is used up."""
    b = e.builder
    stop = b.load_atomic(context.at("stop"), "monotonic", 8, typ=I64)
    with e.if_then(b.icmp_signed("!=", stop, I64(0)), likely=False):
        leave(I64(Reason.STOPPED))
    pc, executed = thread.load("pc"), thread.load("executed")
    thread.store("index", pc)
    count, budget = context.load("instructions"), context.load("budget")
    for wrong, code, number in (
        (b.icmp_unsigned(">=", pc, count), Fault.NO_HALT, count),
        (b.icmp_signed(">=", executed, budget), Fault.BUDGET, executed),
    ):
        with e.if_then(wrong, likely=False):
            thread.store("fault_numbers", number, 0)
            thread.store("fault", int(code))
            leave(I64(Reason.FAULT))
    thread.store("executed", e.add(executed, 1))
    thread.store("pc", e.add(pc, 1))
    return e.element(context.load_pointer("plan"), e.mul(pc, SLOTS), I64)


def _execute(e: Emitter, arguments: Any, fields: V, operations: Mapping[int, Any]) -> V:
    """Calls the instruction's function; gives its Reason."""
    b = e.builder
    result = e.local(I64, I64(Reason.FAULT))
    unknown, after = e.function.append_basic_block("unknown"), e.function.append_basic_block("executed")
    choice = b.switch(e.load(fields, I64), unknown)
    for number, function in operations.items():
        block = e.function.append_basic_block(function.name)
        choice.add_case(I64(number), block)
        b.position_at_end(block)
        result.set(b.call(function, [*arguments, fields]))
        b.branch(after)
    b.position_at_end(unknown)
    b.unreachable()  # the machine refuses plans with other numbers
    b.position_at_end(after)
    return result.get()


def _record_flag(e: Emitter, context: Shared, thread: Shared) -> None:
    """Keeps the first instruction that made a NaN or an infinity."""
    with e.if_then(e.builder.icmp_signed("!=", thread.load("nonfinite"), I64(0)), likely=False):
        thread.store("nonfinite", 0)
        with e.if_then(e.equal(thread.load("flag"), 0)):
            inside = e.less(0, thread.load("open_calls"))
            layer = e.builder.select(inside, e.sub(thread.load("calls"), 1), I64(-1))
            numbers = {
                "flag_pass": context.load("pass_number"),
                "flag_executed": thread.load("executed"),
                "flag_layer": layer,
                "flag_index": thread.load("index"),
                "flag": I64(1),
            }
            for name, number in numbers.items():
                thread.store(name, number)


def frame_field(e: Emitter, thread: Shared, number: V, name: str) -> V:
    """The address of a field of a frame."""
    place = e.add(e.mul(number, _frame_bytes()), offset_of(Frame, name))
    return e.offset(thread.at("frames"), place)


def _frame_bytes() -> int:
    size = offset_of(Frame, "remaining") + 8
    if Thread.frames.size != size * MAX_DEPTH:
        raise ValueError("the frames of a thread do not lie one after another")
    return size


def _close_repeats(e: Emitter, thread: Shared) -> None:
    """At the end of a repeat's body, jumps back to its start, or goes on after the last trip."""
    b = e.builder
    with e.loop_while() as done:
        depth, pc = thread.load("depth"), thread.load("pc")
        e.leave(done, e.equal(depth, 0))
        top = e.sub(depth, 1)
        stop = e.load(frame_field(e, thread, top, "stop"), I64)
        e.leave(done, b.or_(b.icmp_signed("!=", stop, pc), e.equal(stop, 0)))  # 0: the frame of a call
        place = frame_field(e, thread, top, "remaining")
        remaining = e.sub(e.load(place, I64), 1)
        e.store(remaining, place)
        again = b.icmp_signed("!=", remaining, I64(0))
        start = e.load(frame_field(e, thread, top, "start"), I64)
        thread.store("pc", b.select(again, start, pc))
        thread.store("depth", b.select(again, depth, top))
        e.leave(done, again)


def _pause(e: Emitter) -> None:
    """Tells the processor that this is a waiting loop."""
    if e.features.is_x86:
        e.call(e.declare("llvm.x86.sse2.pause", VOID, ()), [])
        return
    e.call(e.declare("llvm.aarch64.hint", VOID, (I32,)), [I32(1)])
