"""Calls single kernels of the native executor, and whole programs on it and on the interpreter, for tests."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.native.codegen import Library, build, new_module
from hyperdex_ir.native.emit import F32, I1, I32, I64, POINTER, Emitter, define
from hyperdex_ir.native.features import Features, available
from hyperdex_ir.native.machine import NativeMachine
from support.programs.machine_programs import layout, memory_map, parameter

CHUNK = 8
WORDS = 8000
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40, -1e-40, 1.1754944e-38, 3.4028235e38, -3.4028235e38,
     0.625, 1, -1, 4, 88.72283, 88.72284, 89, -103.97208, -104, 65504, 65519.996, 65520],
    np.float32,
)  # fmt: skip
FEATURES = [item.name for item in available()]
_C_TYPES = {POINTER: ctypes.c_void_p, I64: ctypes.c_int64, I32: ctypes.c_int32, F32: ctypes.c_float, I1: ctypes.c_bool}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """float32 arrays with equal bits; a NaN equals a NaN."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


def numbers(rng: np.random.Generator, shape: tuple[int, ...], wild: bool) -> np.ndarray:
    """Normal float32 numbers; wild: with random exponents, and special numbers among them."""
    x = rng.standard_normal(shape).astype(np.float32)
    if not wild:
        return x
    with np.errstate(over="ignore"):
        x = x * np.float32(10) ** rng.integers(-44, 38, shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.05, rng.choice(SPECIAL, shape), x)


def compile_kernels(features: Features, kernels: Sequence[Callable[[Emitter], Any]]) -> dict[str, Callable[..., int]]:
    """The functions that these give, by name, to be called from Python; arrays are given by their addresses."""
    module = new_module(features)
    types: dict[str, tuple[Any, list[Any]]] = {}
    for index, make in enumerate(kernels):
        holder = Emitter(define(module, f"holder_{index}", I64, ()), features)
        kernel = make(holder)
        holder.builder.ret(I64(0))
        signature = kernel.function_type
        wrapper = define(module, f"call_{kernel.name}", signature.return_type, signature.args, public=True)
        e = Emitter(wrapper, features)
        e.builder.ret(e.call(kernel, wrapper.args))
        types[kernel.name] = signature.return_type, list(signature.args)
    library = build(module, features)
    return {name: _callable(library, name, *given) for name, given in types.items()}


def _callable(library: Library, name: str, result: Any, parameters: Sequence[Any]) -> Callable[..., int]:
    prototype = ctypes.CFUNCTYPE(_C_TYPES[result], *(_C_TYPES[item] for item in parameters))
    function = prototype(library.address(f"call_{name}"))

    def call(*arguments: Any, _library: Library = library) -> Any:
        return function(*(item.ctypes.data if isinstance(item, np.ndarray) else item for item in arguments))

    return call


# ---------------------------------------------------------------------------------------------------- programs


def new_hbm(rng: np.random.Generator, wild: bool = False) -> Hbm:
    """The HBM of `machine_programs`, its KV cache full of numbers, all of it written."""
    hbm = Hbm.from_parameters(memory_map(), layout(), parameter)
    area = hbm.bytes[hbm.map.kv_start : hbm.map.tokens].view(np.float16)
    area[:] = rng.standard_normal(area.size)
    if wild:
        area.view(np.uint16)[:] = rng.integers(0, 1 << 16, area.size)
    hbm._written[:] = True
    return hbm


def interpreter(program: Sequence[Instruction], hbm: Hbm, words: np.ndarray) -> Machine:
    """The interpreter, its LMU holding `words`, all of them written."""
    machine = Machine(Program(tuple(program)), hbm, chunk=CHUNK, lmu_words=WORDS)
    lmu = machine.state.lmu
    lmu._words[:], lmu._written[:] = words, True
    lmu.forget = lambda: None  # type: ignore[method-assign]
    return machine


def engine(program: Sequence[Instruction], hbm: Hbm, words: np.ndarray, threads: int = 2) -> NativeMachine:
    """The native machine, its LMU holding `words`."""
    machine = NativeMachine(Program(tuple(program)), hbm, chunk=CHUNK, lmu_words=WORDS, threads=threads)
    machine.write_lmu(0, words)
    return machine


def run(machine: Machine | NativeMachine, rows: int, position: int = 0) -> str:
    """One step; the text of its machine fault, or nothing."""
    try:
        machine.run([0] * rows, position, 0)
    except MachineFault as fault:
        return str(fault)
    return ""


def assert_same(
    program: Sequence[Instruction], words: np.ndarray, rows: int, position: int = 0, **options: Any
) -> None:
    """Both machines leave the same LMU, registers and flag, or the same fault."""
    wild, threads = options.get("wild", False), options.get("threads", 2)
    first = interpreter(program, new_hbm(np.random.default_rng(7), wild), words)
    second = engine(program, new_hbm(np.random.default_rng(7), wild), words, threads)
    faults = run(first, rows, position), run(second, rows, position)
    second.close()
    assert faults[0] == faults[1]
    if faults[0]:
        return
    assert same_bits(second.lmu(0, 1, WORDS)[0], first.state.lmu._words)
    assert second.registers == first.registers
    assert second.fault == first.fault
