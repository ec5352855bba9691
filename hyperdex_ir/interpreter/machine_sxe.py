"""Instructions of the engine SXE: matrices that stream through the MAC trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdex_ir.interpreter import attention
from hyperdex_ir.interpreter.arithmetic import epilogue, mac
from hyperdex_ir.interpreter.attention import Span, span
from hyperdex_ir.interpreter.state import State, executes
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.formats import FORMATS


def _issue(s: State, x: np.ndarray, matrix_type: str) -> np.ndarray:
    """float32 rounded to the matrix type, as bits; watched, since rounding can overflow."""
    bits = FORMATS[matrix_type].round(x)
    s.watch(FORMATS[matrix_type].load(bits))
    return bits


def _check_written(flags: np.ndarray, reach: Span) -> None:
    """flags: [positions, elements]. Raises Forbidden when a position has not been stored."""
    missing = ~flags.all(axis=1)
    if missing.any():
        raise Forbidden(Fault.CACHE_UNWRITTEN, position=reach.first + int(np.argmax(missing)))


def reach_of(s: State, rows: int, window: int) -> Span:
    """The positions that the rows in flight see. Raises Forbidden as `position`, and for too many positions."""
    position = s.position(rows)
    s.lmu.check_count(rows * (position + rows - (max(0, position - window + 1) if window else 0)))
    return span(position, rows, window)


@executes("matmul")
def matmul(s: State, v: Mapping[str, Any]) -> None:
    rows, n = s.rows(v["rows"]), v["n"]
    x = _issue(s, s.read_rows(v["src"], rows, v["k"]), v["type"])
    times, plus = (None if v[name] is None else s.read_rows(v[name], rows, n) for name in ("times", "plus"))
    weights = [(first, s.hbm.tiles(s.address(v["weight"]), first + n, v["k"])) for first in _first_rows(v)]
    bias = _bias(s, v)
    s.check_rows(v["dst"], rows, n)
    steps = epilogue(
        np.concatenate([_product(v, x, first, tiles) for first, tiles in weights], axis=1),
        bias=bias,
        scale=v["scale"],
        softcap=v["softcap"],
        activation=v["activation"],
        gated=bool(v["gated"]),
        times=times,
        plus=plus,
    )
    y = np.empty(0, np.float32)
    for y in steps:
        s.watch(y)
    s.write_rows(v["dst"], y)


def _first_rows(v: Mapping[str, Any]) -> tuple[int, ...]:
    """The first of the n rows of the weight; where gated, also the first of the gates' rows."""
    return (0, v["gate_distance"] or v["n"]) if v["gated"] else (0,)


def _product(v: Mapping[str, Any], x: np.ndarray, first: int, tiles: np.ndarray) -> np.ndarray:
    """MAC with n rows of the weight from `first` on, float32 [rows, n]. x: uint16 [rows, k], rounded."""
    group, lead = divmod(first, tiles.shape[2])
    return mac(tiles[group:], x, v["type"])[:, lead : lead + v["n"]]


def _bias(s: State, v: Mapping[str, Any]) -> np.ndarray | None:
    if v["bias"] is None:
        return None
    firsts = _first_rows(v)
    bias = s.hbm.read(s.address(v["bias"]), (firsts[-1] + v["n"],), np.float32)
    return np.concatenate([bias[first : first + v["n"]] for first in firsts])


@executes("scores")
def scores(s: State, v: Mapping[str, Any]) -> None:
    rows, size = s.rows(v["rows"]), v["size"]
    reach = reach_of(s, rows, v["window"])
    address = s.address(v["cache"])
    keys = s.hbm.tiles(address, reach.stop, size)
    flags = s.hbm.tile_flags(address, reach.stop, size)
    _check_written(attention.read_keys(flags, reach.first, reach.stop)[:, :size], reach)
    query = _issue(s, s.read_rows(v["query"], rows, size), v["type"])
    y = attention.scores(query, keys, reach, v["scale"], v["softcap"], v["type"])
    if (slope := s.parameter(v["slope"], 1)) is not None:
        y = y + attention.bias(slope[0], reach, v["scale"], bool(v["bf16_bias"]))
    _write_seen(s, v, y, reach)


@executes("softmax")
def softmax(s: State, v: Mapping[str, Any]) -> None:
    reach = reach_of(s, s.rows(v["rows"]), v["window"])
    x, sink = _read_seen(s, v, reach), s.parameter(v["sink"], 1)
    _write_seen(s, v, attention.softmax(x, reach, None if sink is None else sink[0]), reach)


@executes("values")
def values(s: State, v: Mapping[str, Any]) -> None:
    size, limit = v["size"], v["limit"]
    reach = reach_of(s, s.rows(v["rows"]), v["window"])
    if reach.stop > limit:
        raise Forbidden(Fault.CACHE_LIMIT, position=reach.stop - 1, limit=limit)
    address = s.address(v["cache"])
    flags = s.hbm.tile_flags(address, size, limit)
    _check_written(attention.read_values(flags, reach.first, reach.stop)[:, :size], reach)
    weights = _issue(s, _read_seen(s, v, reach), v["type"])
    y = attention.values(weights, s.hbm.tiles(address, size, limit), reach, v["type"])
    s.write_rows(v["dst"], y[:, :size])


def _read_seen(s: State, v: Mapping[str, Any], reach: Span) -> np.ndarray:
    """float32 [rows, columns] of `src`, column by absolute position; zero where not seen."""
    start = v["src"].address + s.register(v["src"].register) + reach.first
    data = s.lmu.read(start, reach.seen.shape, (v["src"].stride, 1), reach.seen)
    return np.where(reach.seen, data, np.float32(0))


def _write_seen(s: State, v: Mapping[str, Any], data: np.ndarray, reach: Span) -> None:
    """Writes the columns seen to `dst`, column by absolute position, and watches them."""
    s.watch(data[reach.seen])
    start = v["dst"].address + s.register(v["dst"].register) + reach.first
    s.lmu.write(start, (v["dst"].stride, 1), data, reach.seen)
