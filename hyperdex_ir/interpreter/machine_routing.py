"""Instructions that choose columns: they route tokens to experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdex_ir.interpreter.routing import check_choice, column_numbers
from hyperdex_ir.interpreter.routing import top_k as largest
from hyperdex_ir.interpreter.state import State, executes


@executes("top_k")
def top_k(s: State, v: Mapping[str, Any]) -> None:
    rows, columns = s.rows(v["rows"]), v["columns"]
    choice = v["k"], v["groups"], v["top_groups"]
    check_choice(columns, *choice)
    indices = largest(s.read_rows(v["src"], rows, columns), *choice)
    s.write_rows(v["dst"], indices.astype(np.float32))


@executes("take_columns")
def take_columns(s: State, v: Mapping[str, Any]) -> None:
    rows, columns, limit = s.rows(v["rows"]), v["columns"], v["limit"]
    indices = column_numbers(s.read_rows(v["index"], rows, columns), limit)
    s.write_rows(v["dst"], np.take_along_axis(s.read_rows(v["src"], rows, limit), indices, axis=1))
