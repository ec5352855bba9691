"""Structures that compiled code and Python share: a Context for the machine, and a Thread for each of its threads.

Compiled code reaches a field by its byte offset, taken from these classes: they are defined once, here. Every field
except arrays is 8 bytes wide.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.operands import REGISTERS
from hyperdex_ir.isa.structure import MAX_DEPTH
from hyperdex_ir.native.faults import number_count

#: Numbers that a fault keeps for its message.
FAULT_NUMBERS = max(map(number_count, Fault))
CACHE_LINE = 64

_I64 = ctypes.c_int64
_POINTER = ctypes.c_void_p


class Reason(IntEnum):
    """Result of `run` and of the functions of instructions."""

    NEXT = 0  # only from an instruction: go on with the next one
    HALT = 1  # the program ended
    FAULT = 2  # Thread.fault_* describe the fault
    STOPPED = 3  # the stop flag was seen
    NETWORK = 4  # a receive waits for a message; it has done nothing, and can be run again


class Arrival(IntEnum):
    """Python's answer when compiled code asks it for a message."""

    NONE = 0  # it has not arrived
    MESSAGE = 1  # `message` points at it
    OTHER = 2  # it is not the expected message: `other` says which it is
    FAILED = 3  # the link raised an exception


class Region(ctypes.Structure):
    """A part begin..end-1 of the HBM's byte addresses.

    The byte at address a is at `channels[(r / 64) % C] + (r / 64 / C) * stride + r % 64`, where r = a - begin and C is
    the number of channels. `channels` points at C pointers.
    """

    _fields_ = [("begin", _I64), ("end", _I64), ("channels", _POINTER), ("stride", _I64)]


class Context(ctypes.Structure):
    """One machine. Fields that change while threads run lie in cache lines of their own, at the end."""

    _fields_ = [
        ("plan", _POINTER),  # i64 [instructions, slots]
        ("instructions", _I64),
        ("lmu", _POINTER),  # f32 [lmu_words]
        ("lmu_words", _I64),
        ("parameters", Region),
        ("runtime", Region),
        ("channels", _I64),
        ("trees", _I64),
        ("scratch", _POINTER),  # f32, shared by all threads
        ("scratch_words", _I64),
        ("threads", _I64),
        ("chunk", _I64),
        ("budget", _I64),  # instructions of one step
        ("pass_number", _I64),  # steps since the flag was cleared
        ("yield_cpu", _POINTER),  # sched_yield of the C library
        ("linked", _I64),  # 1: the machine has links; the two functions below are Python's, see network.Exchange
        ("send_message", _POINTER),
        ("receive_message", _POINTER),
        ("pad0", _I64 * 8),
        ("arrival", _I64),  # an Arrival, for the message that is being received
        ("message", _POINTER),  # its words, f32 [rows, columns]
        ("other", _I64 * 4),  # number, rows, columns and part of a message that is not the expected one
        ("agreed", _I64 * 2),  # numbers that one thread has read for all: see Operation.agreed
        ("lookups", _POINTER),  # the same for the lookups of a head loop: i64 [heads.MAX_TRIPS]
        ("pad1", _I64 * 8),
        ("stop", _I64),  # not 0: threads return as soon as they read it
        ("pad2", _I64 * 7),
        ("arrived", _I64),  # at barriers, by all threads, since the machine was last reset
        ("pad3", _I64 * 7),
    ]


class Frame(ctypes.Structure):
    """A running repeat (stop > 0: its body is start..stop-1) or call (stop 0: start is where it returns to)."""

    _fields_ = [("start", _I64), ("stop", _I64), ("remaining", _I64)]


class Thread(ctypes.Structure):
    """One thread's state. All threads run the same control flow, each on its own registers.

    Fields before `registers` live from step to step.
    """

    _fields_ = [
        ("number", _I64),
        ("barriers", _I64),  # barriers that this thread has passed
        ("flag", _I64),  # 1: the four numbers below are the first instruction that made a NaN or an infinity
        ("flag_pass", _I64),
        ("flag_executed", _I64),
        ("flag_layer", _I64),  # -1: in the main function
        ("flag_index", _I64),
        ("registers", _I64 * REGISTERS),
        ("is_set", _I64 * REGISTERS),  # 1: the register has been set in this step
        ("pc", _I64),
        ("index", _I64),  # index of the running instruction
        ("executed", _I64),
        ("calls", _I64),  # calls in this step
        ("open_calls", _I64),  # frames that are calls
        ("sent", _I64),  # messages in this step
        ("received", _I64),
        ("words_ahead", _I64),  # in messages sent, less those in messages received
        ("depth", _I64),
        ("frames", Frame * MAX_DEPTH),
        ("nonfinite", _I64),  # the running instruction made a NaN or an infinity
        ("fault", _I64),  # a code of faults.Fault, 0: none
        ("fault_numbers", _I64 * FAULT_NUMBERS),
        ("pad", _I64 * 8),
    ]
