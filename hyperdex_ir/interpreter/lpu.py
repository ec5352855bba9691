"""Runs modules of the `lpu` dialect at any stage: right after import, flat, or with layers outlined.

The arithmetic is the machine's own, so the logits are the machine's to the bit. `lpu_ops.py` has the meaning of each
operation. Several devices go in lockstep, operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from xdsl.dialects.builtin import ModuleOp, NameLoc
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from hyperdex_ir.dialects.lpu import (
    AllGatherOp,
    LayerOp,
    LayersOp,
    LpuOp,
    RepeatOp,
    ShortConvOp,
    StatefulOp,
    YieldOp,
    grid_of,
    shape_of,
)
from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import LoweringError, MachineFault, NumericError, PromptError
from hyperdex_ir.interpreter import lpu_routing  # noqa: F401  it registers operations
from hyperdex_ir.interpreter.arithmetic import quiet
from hyperdex_ir.interpreter.lpu_ops import MEANINGS, RunState
from hyperdex_ir.isa.faults import Forbidden

MEANINGS.check_complete(AllGatherOp, LayerOp, LayersOp, RepeatOp, YieldOp)

Hook = Callable[[Operation, tuple[np.ndarray, ...], tuple[np.ndarray, ...]], None]
#: A value: the array of each device. A value that is the same on all devices is one array.
Value = tuple[np.ndarray, ...]


class LpuInterpreter:
    """Runs `@main` of a module step by step, and keeps its KV caches.

    parameters: key -> array in its logical shape, type `dtype` or `stored` of its elements (isa/formats.py).
    on_op: called after each operation with its operands and results, which are the very arrays that other operations
    get. For a layer or a repeat it is called after all operations inside, with the layer's or repeat's own operands and
    results. With several devices, the arrays are those of the first one.
    """

    def __init__(
        self,
        module: ModuleOp,
        parameters: Callable[[str], np.ndarray],
        max_length: int,
        on_op: Hook | None = None,
    ):
        matrix_type = ModuleFacts(module).matrix_type
        self._functions = {op.sym_name.data: op for op in module.walk() if isinstance(op, FuncOp)}
        if "main" not in self._functions:
            raise LoweringError("the module has no function @main")
        self._devices = grid_of(module)
        self._state = RunState(parameters, matrix_type, max_length)
        self._on_op = on_op
        self._has_states = any(isinstance(op, ShortConvOp) for op in module.walk())
        self._next = 0  # the position behind the last one that the state of operations holds
        self._dead: dict[Block, dict[Operation, list[SSAValue]]] = {}

    @property
    def layer(self) -> int:
        """Layers that have ended in the running step: the number of the running layer."""
        return self._state.layer

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        """Appends tokens, the first of them at `position`, to the KV caches, in one step.

        Returns the logits of the rows from `first_row` on (None: of the last row), float32 [wanted rows, vocab_size].
        Raises PromptError when there are no tokens or more than the caches hold, or when they do not follow those of
        the last step in a model with short convolutions; MachineFault for an index outside a table; NumericError when a
        NaN or an infinity was made.
        """
        run, count = self._state, len(tokens)
        first = count - 1 if first_row is None else first_row
        if count == 0:
            raise PromptError("no tokens to run", "give at least one token")
        if position < 0 or position + count > run.max_length:
            raise PromptError(f"{count} tokens from position {position} on; there are {run.max_length} positions")
        if not 0 <= first < count:
            raise PromptError(f"logits wanted from row {first} on, there are {count} rows")
        if self._has_states and position not in (0, self._next):
            raise PromptError(f"tokens from position {position} on; the states of convolutions stand at {self._next}")
        main = self._functions["main"]
        self._next = 0
        run.begin(position, count, first, slots=_slots(main))
        inputs = (np.array(tokens, np.int64), position + np.arange(count, dtype=np.int64))
        with quiet():
            (logits,) = self._call(main, [self._everywhere(array) for array in inputs])
        if run.fault is not None:
            raise NumericError(f"a NaN or an infinity was made by {run.fault}")
        self._next = position + count
        return logits[0]

    def _everywhere(self, array: np.ndarray) -> Value:
        return (array,) * self._devices

    def _call(self, function: FuncOp, inputs: Sequence[Value]) -> tuple[Value, ...]:
        values: dict[SSAValue, Value] = {}
        return self._block(function.body.block, inputs, values)

    def _block(self, block: Block, inputs: Sequence[Value], values: dict[SSAValue, Value]) -> tuple[Value, ...]:
        """Runs a block; returns the operands of its terminator. Values are dropped after their last use."""
        if block not in self._dead:
            self._dead[block] = _last_uses(block)
        dead = self._dead[block]
        values.update(zip(block.args, inputs, strict=True))
        for op in block.ops:
            operands = tuple(values[operand] for operand in op.operands)
            if isinstance(op, ReturnOp | YieldOp):
                return operands
            results = self._run(op, operands, values)
            values.update(zip(op.results, results, strict=True))
            if self._on_op is not None:
                self._on_op(op, tuple(value[0] for value in operands), tuple(value[0] for value in results))
            for value in dead.get(op, ()):
                values.pop(value, None)
        raise LoweringError("a function without a return")

    def _run(self, op: Operation, operands: tuple[Value, ...], values: dict[SSAValue, Value]) -> tuple[Value, ...]:
        if isinstance(op, RepeatOp):
            for _ in range(op.trip_count.value.data):
                operands = self._block(op.body.block, operands, values)
            return operands
        if isinstance(op, LayerOp):
            return self._layer(self._functions[op.function], operands)
        if isinstance(op, LayersOp):
            for number in op.numbers:
                results = self._layer(self._functions[op.functions[number]], operands)
                operands = (*results, *operands[1:])
            return operands[:1]
        if isinstance(op, AllGatherOp):
            if op.count != self._devices:
                raise LoweringError(f"{op.name}: over {op.count} devices, the module is for {self._devices}")
            return (self._everywhere(_gathered(op, operands)),)
        is_apart = isinstance(op, LpuOp) and op.depends_on_device
        if is_apart or any(array is not value[0] for value in operands for array in value):
            results = [self._compute(op, device, [value[device] for value in operands]) for device in self._numbers]
            return tuple(zip(*results, strict=True))
        return tuple(self._everywhere(result) for result in self._compute(op, 0, [value[0] for value in operands]))

    @property
    def _numbers(self) -> range:
        return range(self._devices)

    def _compute(self, op: Operation, device: int, operands: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """One operation on one device."""
        operation = MEANINGS.get(type(op))
        if operation is None:
            raise LoweringError(f"{op.name}: not an operation that can be run")
        run = self._state
        run.nonfinite, run.device = False, device
        try:
            results = tuple(np.asarray(result) for result in operation(run, op, tuple(operands)))
        except Forbidden as error:
            raise MachineFault(f"{self._describe(op)}: {error}") from None
        for result in results:
            run.watch(result)
        if run.nonfinite and run.fault is None:
            run.fault = self._describe(op)
        return results

    def _layer(self, function: FuncOp, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        """Runs the next layer: the slots of its function follow those handed out so far."""
        run = self._state
        outer = run.slot_base
        run.slot_base = run.next_slot
        results = self._call(function, operands)
        run.next_slot += _slots(function)
        run.slot_base = outer
        run.layer += 1
        return results

    def _describe(self, op: Operation) -> str:
        path = op.location.desc.data if isinstance(op.location, NameLoc) else ""
        path = path.replace("*", str(self._state.layer))
        return op.name + (f" of {path}" if path else "")


def _gathered(op: AllGatherOp, chunks: Sequence[Value]) -> np.ndarray:
    """The blocks of all devices one after another, without padding."""
    blocks = [chunk[device] for device in range(op.count) for chunk in chunks]
    return np.concatenate(blocks, axis=1)[:, : shape_of(op.res)[1]]


def _slots(function: FuncOp) -> int:
    """Slots that a function uses by itself."""
    slots = [op.slot.value.data for op in function.walk() if isinstance(op, StatefulOp)]
    return max(slots) + 1 if slots else 0


def _last_uses(block: Block) -> dict[Operation, list[SSAValue]]:
    """For each operation of a block, the block's own values that no later operation uses."""
    result: dict[Operation, list[SSAValue]] = {}
    used: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        inner = [operand for nested in op.walk() for operand in nested.operands]
        for value in [*inner, *op.results]:
            if value in used or not (value.owner is block or _made_in(value, block)):
                continue
            used.add(value)
            result.setdefault(op, []).append(value)
    return result


def _made_in(value: SSAValue, block: Block) -> bool:
    return isinstance(value.owner, Operation) and value.owner.parent is block
