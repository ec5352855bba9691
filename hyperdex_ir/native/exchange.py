"""The links of a native machine: compiled code calls them to send and receive messages."""

from __future__ import annotations

import ctypes

import numpy as np

from hyperdex_ir.interpreter.link import Link, Message
from hyperdex_ir.native.context import Arrival, Context

_WORD = 4  # bytes
_I64 = ctypes.c_int64
_SEND = ctypes.CFUNCTYPE(_I64, *[_I64] * 6)
_RECEIVE = ctypes.CFUNCTYPE(_I64, *[_I64] * 4)


class Exchange:
    """Connects a machine's context and LMU to its link. One thread at a time calls it.

    failure: the exception that the link raised in the running step; the machine raises it again to its caller.
    """

    def __init__(self, context: Context, lmu: np.ndarray, link: Link):
        self.failure: BaseException | None = None
        self._context, self._lmu, self._link = context, lmu, link
        self._words = np.empty(0, np.float32)  # words of the message that is being received: kept while they are read
        self._functions = _SEND(self._send), _RECEIVE(self._receive)
        context.send_message, context.receive_message = (
            ctypes.cast(function, ctypes.c_void_p).value for function in self._functions
        )
        context.linked = 1

    def interrupt(self) -> None:
        """Makes a call return that waits for a message; called from another thread."""
        self._link.interrupt()

    def _send(self, number: int, part: int, start: int, stride: int, rows: int, columns: int) -> int:
        """Sends rows of the LMU from word `start` on; 0, or 1 when the link fails."""
        try:
            view = np.ndarray((rows, columns), np.float32, self._lmu, start * _WORD, (stride * _WORD, _WORD))
            self._link.send(Message(number, part, view.copy()))
        except BaseException as error:  # it must not end in a foreign frame
            self.failure = error
            return 1
        return 0

    def _receive(self, number: int, part: int, rows: int, columns: int) -> int:
        """Takes the next message, which should be this one; gives an Arrival."""
        try:
            return self._take(self._link.receive(), (number, part, rows, columns))
        except BaseException as error:
            self.failure = error
            return Arrival.FAILED

    def _take(self, message: Message | None, expected: tuple[int, int, int, int]) -> int:
        if message is None:
            return Arrival.NONE
        rows, columns = message.words.shape
        if (message.number, message.part, rows, columns) != expected:
            self._context.other[:] = (message.number, rows, columns, message.part)
            return Arrival.OTHER
        self._words = np.ascontiguousarray(message.words, np.float32)
        self._context.message = self._words.ctypes.data
        return Arrival.MESSAGE
