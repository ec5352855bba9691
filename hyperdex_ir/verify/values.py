"""Digests of the values that a run computed: equal for a value that survives a pass, in any shape and at any level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, TensorType
from xdsl.ir import Attribute, Operation

from hyperdex_ir.dialects.lpu import AttentionOp, ExpertLinearOp
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.runtime.device import InterpreterDevice, RingDevice
from hyperdex_ir.support.xdsl import module_path
from hyperdex_ir.verify.recorder import Executed, record


@dataclass(frozen=True)
class Run:
    """One step over `tokens`, the first of them at `position`; logits are wanted from row `first_row` on."""

    tokens: tuple[int, ...]
    position: int
    first_row: int


@dataclass(frozen=True)
class Value:
    """One result of one executed operation.

    digest: of its float32 bits, token dimension first, the rest row-major; None for a result without a token
    dimension. parts: digests of the parts that another level computes one by one. sources: numbers of the values that
    it was made of.
    """

    operation: str
    path: str
    digest: bytes | None
    parts: tuple[bytes, ...]
    sources: tuple[int, ...]


def plan_runs(tokens: Sequence[int]) -> list[Run]:
    """Runs that test all logits, the KV cache of an earlier step, and the choice of logit rows."""
    half = (len(tokens) + 1) // 2
    first, rest = tuple(tokens[:half]), tuple(tokens[half:])
    runs = [Run(first, 0, 0)]
    if rest:
        runs.append(Run(rest, half, 0))
    if len(rest) > 1:
        runs.append(Run(rest, half, len(rest) - 1))
    return runs


def split_runs(runs: Sequence[Run], most: int) -> list[Run]:
    """The same rows in steps of at most `most` tokens, each of which computes the logits of at least one row."""
    parts: list[Run] = []
    for run in runs:
        for start in range(0, len(run.tokens), most):
            tokens = run.tokens[start : start + most]
            first = min(max(0, run.first_row - start), len(tokens) - 1)
            parts.append(Run(tokens, run.position + start, first))
    return parts


def _digest(rows: np.ndarray) -> bytes:
    """Digest of a value. rows: float32 [tokens, ...]."""
    shape = f"{len(rows)}x{rows.size}".encode()
    return blake2b(rows.astype(np.float32, copy=False).tobytes(), digest_size=16, key=shape).digest()


def _token_dimension(type_: Attribute) -> int | None:
    """Dimension of a tensor that counts tokens, or None."""
    if not isinstance(type_, TensorType):
        return None
    shape = type_.get_shape()
    return shape.index(DYNAMIC_INDEX) if shape.count(DYNAMIC_INDEX) == 1 else None


def _parts(op: Operation, rows: np.ndarray) -> tuple[bytes, ...]:
    """Digests of parts: the machine computes attention head by head, and experts row by row and rank by rank."""
    if isinstance(op, AttentionOp):
        return tuple(_digest(rows[:, head]) for head in range(rows.shape[1]))
    if not isinstance(op, ExpertLinearOp):
        return ()
    ranks = [rows] if op.sum is not None else [rows[:, :, rank] for rank in range(op.ranks)]
    return tuple(_digest(one[row : row + 1]) for one in ranks for row in range(len(rows)))


class _LpuTrace:
    """Collects the values of an interpreter that hands arrays on without copying them."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._numbers: dict[int, int] = {}  # identity of an array -> number of its value
        self._kept: list[np.ndarray] = []  # keeps arrays alive, so that no identity is reused

    def add(self, layer: int, op: Operation, operands: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        sources = tuple(self._numbers[id(operand)] for operand in operands if id(operand) in self._numbers)
        path = module_path(op).replace("*", str(layer))
        for result, array in zip(op.results, results, strict=True):
            dimension = _token_dimension(result.type)
            if dimension is None or id(array) in self._numbers:  # a layer returns its operations' arrays
                continue
            rows = np.moveaxis(array, dimension, 0)
            self._numbers[id(array)] = len(self.values)
            self._kept.append(array)
            self.values.append(Value(op.name, path, _digest(rows), _parts(op, rows), sources))


def trace_lpu(
    module: ModuleOp, parameters: Callable[[str], np.ndarray], max_length: int, runs: Sequence[Run]
) -> list[Value]:
    """Values of an `lpu` module in the order in which they are made, up to the first fault, if any."""
    trace = _LpuTrace()

    def hook(op: Operation, operands: tuple[np.ndarray, ...], results: tuple[np.ndarray, ...]) -> None:
        trace.add(interpreter.layer, op, operands, results)

    interpreter = LpuInterpreter(module, parameters, max_length, hook)
    try:
        for run in runs:
            interpreter.forward(run.tokens, run.position, run.first_row)
    except HyperdexError:
        return trace.values
    return trace.values


def trace_program(device: InterpreterDevice | RingDevice, runs: Sequence[Run]) -> list[Value]:
    """Values of a program, one for each executed instruction, up to the first fault, if any.

    With several devices, the values of the first.
    """
    values: list[Value] = []

    def add(executed: Executed) -> None:
        digest = None if executed.result is None else _digest(executed.result)
        values.append(Value(executed.operation, executed.path, digest, (), executed.sources))

    machine = device.machine if isinstance(device, InterpreterDevice) else device.machine.machines[0]
    assert isinstance(machine, Machine)  # `verify` runs the interpreter
    with record(machine, add):
        try:
            for run in runs:
                device.machine.run(run.tokens, run.position, run.first_row)
        except HyperdexError:
            return values
    return values


def first_difference(values: Sequence[Value], reference: Sequence[Value]) -> Value | None:
    """The first of `values` that is not in `reference` and from which no value in `reference` follows.

    A fused operation removes some values and adds others, but does not change the values that follow from them.
    """
    known = {digest for value in reference for digest in (value.digest, *value.parts)}
    followed = [False] * len(values)
    for number in reversed(range(len(values))):
        value = values[number]
        if followed[number] or (value.digest is not None and value.digest in known):
            followed[number] = True
            for source in value.sources:
                followed[source] = True
    found = (value for value, is_fine in zip(values, followed, strict=True) if value.digest and not is_fine)
    return next(found, None)
