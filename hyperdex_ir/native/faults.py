"""Machine faults as compiled code reports them: a kind, and 64-bit numbers from which the numbers of its text
follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.settings import REFUSALS

_LOW = (1 << 64) - 1


def _stretch(first: int, count: int, **others: int) -> dict[str, int]:
    return {"first": first, "last": first + count - 1, **others}


#: Numbers of a fault's text from those of compiled code, where the two differ: a number that 64 bits may not hold is
#: left in parts.
_NUMBERS: Mapping[Fault, Callable[..., Mapping[str, object]]] = {
    Fault.REGISTER_OVERFLOW: lambda register, low, high: {"register": register, "value": (high << 64) + (low & _LOW)},
    Fault.LMU: lambda address, register, distance, words: _stretch(address + register, distance + 1, words=words),
    Fault.HBM: lambda register, added, size, end: _stretch(register + added, size, end=end),
    Fault.HBM_STRADDLE: lambda address, size, end: _stretch(address, size, end=end),
    Fault.CACHE_ROWS: lambda first, rows, limit: _stretch(first, rows, limit=limit),
    Fault.POSITION: lambda first, rows: _stretch(first, rows),
    Fault.SELECTED_ROWS: lambda first, rows, chunk: _stretch(first, rows, chunk=chunk),
    Fault.RET_IN_REPEAT: lambda start, stop: _stretch(start, stop - start),
    Fault.SELECTED_COLUMNS: lambda block, columns: {"first": block * columns},
    Fault.SETTINGS: lambda number: {"refusal": REFUSALS[number]},
}


def number_count(kind: Fault) -> int:
    """Number of numbers that compiled code gives with a fault."""
    return _NUMBERS[kind].__code__.co_argcount if kind in _NUMBERS else len(kind.numbers)


def message(code: int, numbers: Sequence[int]) -> str:
    """The message of a fault with the numbers that compiled code left (more than it needs are ignored)."""
    kind = Fault(code)
    given = numbers[: number_count(kind)]
    named = _NUMBERS[kind](*given) if kind in _NUMBERS else dict(zip(kind.numbers, given, strict=True))
    return kind.text(**named)
