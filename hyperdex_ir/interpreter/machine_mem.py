"""Instructions of the group MEM: between HBM and the LMU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hyperdex_ir.interpreter.arithmetic import round_to_matrix, scaled, widen
from hyperdex_ir.interpreter.attention import write_keys, write_values
from hyperdex_ir.interpreter.state import State, executes
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.instructions import POSITION


def _indices(s: State, v: Mapping[str, Any], rows: int) -> np.ndarray:
    """The table row of each row in flight, i64 [rows]. Raises Forbidden outside the table."""
    if v["index"] == "token":
        index = s.hbm.read(s.address(v["ids"]), (rows,), np.int64)
    else:
        index = s.register(POSITION) + np.arange(rows)
    index = index + v["offset"]
    outside = (index < 0) | (index >= v["limit"])
    if outside.any():
        raise Forbidden(Fault.TABLE_ROW, row=index[outside][0], rows=v["limit"])
    return index


@executes("embed")
def embed(s: State, v: Mapping[str, Any]) -> None:
    rows = s.rows(v["rows"])
    index = _indices(s, v, rows)
    tiles = s.hbm.tiles(s.address(v["table"]), v["limit"], v["columns"])
    s.check_rows(v["dst"], len(index), v["columns"])
    trees = tiles.shape[2]
    bits = tiles[index // trees, :, index % trees].reshape(rows, -1)[:, : v["columns"]]
    s.write_rows(v["dst"], scaled(widen(bits, v["type"]), v["scale"]))


@executes("gather")
def gather(s: State, v: Mapping[str, Any]) -> None:
    index = _indices(s, v, s.rows(v["rows"]))
    table = s.hbm.view(s.address(v["table"]), (v["limit"], v["columns"]), np.float32)
    s.check_rows(v["dst"], len(index), v["columns"])
    s.write_rows(v["dst"], scaled(table[index], v["scale"]))


@executes("load")
def load(s: State, v: Mapping[str, Any]) -> None:
    s.write_rows(v["dst"], s.hbm.read(s.address(v["src"]), (1, v["columns"]), np.float32))


@executes("store")
def store(s: State, v: Mapping[str, Any]) -> None:
    data = s.read_rows(v["src"], s.rows(v["rows"]), v["columns"])
    s.watch(data)
    address = s.address(v["dst"])
    for row, words in enumerate(data):
        s.hbm.write(address + row * v["pitch"], words)


@executes("store_state")
def store_state(s: State, v: Mapping[str, Any]) -> None:
    rows, columns, history = s.rows(v["rows"]), v["columns"], v["history"]
    position = s.position(rows)
    data = s.read_rows(v["src"], rows, columns)
    address = s.address(v["state"])
    s.hbm.flags(address, (history, columns), np.float32)  # all of it lies in the run-time area
    for row in range(max(0, rows - history), rows):
        s.watch(data[row])
        s.hbm.write(address + 4 * columns * ((position + row) % history), data[row])


@executes("store_key")
def store_key(s: State, v: Mapping[str, Any]) -> None:
    _store_cache(s, v, write_keys, (v["limit"], v["size"]))


@executes("store_value")
def store_value(s: State, v: Mapping[str, Any]) -> None:
    _store_cache(s, v, write_values, (v["size"], v["limit"]))


def _store_cache(
    s: State,
    v: Mapping[str, Any],
    write: Callable[[np.ndarray, int, np.ndarray], None],
    matrix: tuple[int, int],
) -> None:
    rows, heads, size = s.rows(v["rows"]), v["heads"], v["size"]
    position = s.register(POSITION)
    if not 0 <= position <= v["limit"] - rows:
        raise Forbidden(Fault.CACHE_ROWS, first=position, last=position + rows - 1, limit=v["limit"])
    bits = round_to_matrix(s.read_rows(v["src"], rows, heads * size), v["type"])
    s.watch(widen(bits, v["type"]))
    written = np.ones((rows, size), bool)
    for head in range(heads):
        address = s.address(v["cache"]) + head * v["pitch"]
        write(s.hbm.tile_flags(address, *matrix), position, written)
        write(s.hbm.tiles(address, *matrix), position, bits[:, head * size : (head + 1) * size])
