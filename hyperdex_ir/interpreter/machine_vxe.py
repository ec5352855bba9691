"""Instructions of the engine VXE except softmax: one vector operation each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdex_ir.interpreter import arithmetic, sampling
from hyperdex_ir.interpreter.state import State, executes
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.instructions import POSITION, TOKENS
from hyperdex_ir.isa.operands import LmuRef, ViewRef
from hyperdex_ir.isa.settings import REFUSALS, SETTINGS_BYTES, Settings
from hyperdex_ir.memory.map import ceil_div


def _read(s: State, v: Mapping[str, Any], name: str) -> np.ndarray:
    """A view operand, float32 [rows, groups, columns]."""
    ref: ViewRef = v[name]
    return s.read_view(ref, s.rows(v["rows"]), v["groups"], v["columns"])


@executes("unary")
def unary(s: State, v: Mapping[str, Any]) -> None:
    s.write_view(v["dst"], arithmetic.unary(v["function"], _read(s, v, "a")))


@executes("binary")
def binary(s: State, v: Mapping[str, Any]) -> None:
    s.write_view(v["dst"], arithmetic.binary(v["function"], _read(s, v, "a"), _read(s, v, "b")))


@executes("binary_scalar")
def binary_scalar(s: State, v: Mapping[str, Any]) -> None:
    a = _read(s, v, "a")
    b = np.full_like(a, v["b"])
    s.write_view(v["dst"], arithmetic.binary(v["function"], *((b, a) if v["reversed"] else (a, b))))


@executes("reduce")
def reduce(s: State, v: Mapping[str, Any]) -> None:
    s.write_view(v["dst"], arithmetic.REDUCTIONS[v["function"]](_read(s, v, "a")))


@executes("rms_norm")
def rms_norm(s: State, v: Mapping[str, Any]) -> None:
    weight = s.parameter(v["weight"], v["columns"])
    s.write_view(v["dst"], arithmetic.rms_norm(_read(s, v, "a"), weight, v["epsilon"], bool(v["unit_offset"])))


@executes("layer_norm")
def layer_norm(s: State, v: Mapping[str, Any]) -> None:
    weight, bias = (s.parameter(v[name], v["columns"]) for name in ("weight", "bias"))
    a, unit_offset = _read(s, v, "a"), bool(v["unit_offset"])
    s.write_view(v["dst"], arithmetic.layer_norm(a, weight, bias, v["epsilon"], unit_offset))


@executes("rotary")
def rotary(s: State, v: Mapping[str, Any]) -> None:
    turned, columns = v["turned"], v["columns"]
    if turned > columns or turned % 2:
        raise Forbidden(Fault.TURNED, turned=turned, columns=columns)
    rows = s.rows(v["rows"])
    cos, sin = (s.read_rows(v[name], rows, turned) for name in ("cos", "sin"))
    s.write_view(v["dst"], arithmetic.rotary(_read(s, v, "a"), cos, sin, v["style"]))


@executes("short_conv")
def short_conv(s: State, v: Mapping[str, Any]) -> None:
    rows, columns, history = s.rows(v["rows"]), v["columns"], v["history"]
    position = s.position(rows)
    data = s.read_rows(v["src"], rows, columns)
    before = np.zeros((0, columns), np.float32)
    if history:
        address = s.address(v["state"])
        s.hbm.flags(address, (history, columns), np.float32)  # all of it lies in the run-time area
        before = np.zeros((history, columns), np.float32)
        for number in range(max(0, history - position), history):
            row = (position - history + number) % history
            before[number] = s.hbm.read(address + 4 * columns * row, (columns,), np.float32)
    taps = s.hbm.read(s.address(v["taps"]), (columns, history + 1), np.float32)
    bias = s.parameter(v["bias"], columns)
    s.write_rows(v["dst"], arithmetic.short_conv(np.concatenate([before, data]), taps.T, bias))


@executes("select_rows")
def select_rows(s: State, v: Mapping[str, Any]) -> None:
    rows, first = s.rows(v["rows"]), s.register(v["first"])
    if first < 0 or first + rows > s.chunk:
        raise Forbidden(Fault.SELECTED_ROWS, first=first, last=first + rows - 1, chunk=s.chunk)
    src = v["src"]
    start = src.address + s.register(src.register) + first * src.stride
    data = s.lmu.read(start, (rows, v["columns"]), (src.stride, 1))
    s.write_rows(v["dst"], data.copy())


@executes("select_columns")
def select_columns(s: State, v: Mapping[str, Any]) -> None:
    rows, columns, start = s.rows(v["rows"]), v["columns"], s.register(v["index"]) * v["columns"]
    if start < 0:
        raise Forbidden(Fault.SELECTED_COLUMNS, first=start)
    src, there = v["src"], min(columns, max(0, v["limit"] - start))
    found = s.read_rows(LmuRef(src.address + start, src.stride, src.register), rows, there) if there else None
    s.check_rows(v["dst"], rows, columns)
    data = np.zeros((rows, columns), np.float32)
    if found is not None:
        data[:, :there] = found
    s.write_rows(v["dst"], data)


@executes("sample")
def sample(s: State, v: Mapping[str, Any]) -> None:
    rows, columns = s.rows(v["rows"]), v["columns"]
    if not columns:
        raise Forbidden(Fault.NO_COLUMNS)
    logits = s.read_rows(v["src"], rows, columns)[-1]
    settings, seen = _settings(s, s.address(v["settings"]), columns)
    if seen is not None:
        logits = sampling.penalized(logits, seen, settings.repetition_penalty)
    s.watch(logits)
    position = s.register(POSITION) + s.register(TOKENS) - 1
    s.set_register(v["dst"], 0 if s.nonfinite else sampling.choose(logits, settings, position))


def _settings(s: State, address: int, columns: int) -> tuple[Settings, np.ndarray | None]:
    """The settings at an address, and which tokens the text holds, bool [columns], or None where that has no effect."""
    marks = ceil_div(columns, 8)
    s.hbm.flags(address, (SETTINGS_BYTES // 8 + marks,), np.int64)  # all of it lies in the run-time area
    settings = Settings.unpack(s.hbm.read(address, (SETTINGS_BYTES // 8,), np.int64).tobytes())
    refusal = settings.refusal()
    if refusal is not None:
        raise Forbidden(Fault.SETTINGS, refusal=REFUSALS[refusal])
    if settings.repetition_penalty == 1:
        return settings, None
    seen = s.hbm.read(address + SETTINGS_BYTES, (marks,), np.int64).view(np.uint8)
    return settings, seen[:columns] != 0
