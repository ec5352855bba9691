"""The MAC on LLVM values, 64 lanes a column: docs/arithmetic.md, section 3.

The 64 lanes of a column are 64 / L vectors of L lanes, lane 0 first, L being `features.lanes`. Activations are f32, of
the matrix type already (`convert.rounded`). `fold.py` reduces the lanes to one number.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.native.convert import load_widened
from hyperdex_ir.native.emit import F32, F64, Emitter, Local, V, vector
from hyperdex_ir.native.features import Features
from hyperdex_ir.targets import LANES, STREAM_LANES


def vectors(features: Features) -> int:
    """Vectors in the 64 lanes of a column."""
    return LANES // features.lanes


def registers(features: Features) -> int:
    """Vector registers of the processor."""
    return 16 if features.is_x86 and features.lanes < 16 else 32


def no_lanes(e: Emitter) -> list[Local]:
    """64 lanes of +0."""
    type_ = vector(F32, e.features.lanes)
    return [e.local(type_, e.zero(type_)) for _ in range(vectors(e.features))]


def multiply_add(e: Emitter, weights: V, x: V, lanes: V, matrix_type: str) -> V:
    """lanes + weights * x rounded once, <n x f32>; weights and x are of the matrix type, widened."""
    if e.features.has_fma:
        return e.fma(weights, x, lanes)
    if FORMATS[matrix_type].exact_products:
        return e.fadd(lanes, e.fmul(weights, x))
    wide = vector(F64, lanes.type.count)  # exact in f64, and rounding the sum twice is innocuous
    a, w, y = (e.builder.fpext(value, wide) for value in (lanes, weights, x))
    return e.builder.fptrunc(e.fadd(a, e.fmul(w, y)), lanes.type)


def step(e: Emitter, lanes: Sequence[Local], low: V, high: V, activations: V, matrix_type: str) -> None:
    """One step of a column: elements of the matrix for lanes 0..31 at `low`, for the others at `high`; activations."""
    size = e.features.lanes
    for index, sums in enumerate(lanes):
        half, inside = divmod(index * size, STREAM_LANES)
        weights = load_widened(e, (low, high)[half], inside, size, matrix_type)
        x = e.load(e.element(activations, index * size, F32), vector(F32, size))
        sums.set(multiply_add(e, weights, x, sums.get(), matrix_type))
