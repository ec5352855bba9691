"""The native module: the functions of all operations and the loop over them, as machine code."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from hyperdex_ir.isa.instructions import BY_NAME
from hyperdex_ir.native import (  # noqa: F401  they register emitters
    control,
    convolution,
    kv_cache,
    matmul,
    moving,
    network,
    routing,
    sample,
    tables,
    vector,
)
from hyperdex_ir.native.attention import head_loop, operations  # noqa: F401  they too
from hyperdex_ir.native.dispatch import emit_barrier, emit_run
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.operation import EMITTERS, EXTRAS, emit_operation

EMITTERS.check()


def new_module(features: Features, name: str = "hyperdex") -> ir.Module:
    """An empty module for these features."""
    module = ir.Module(name)
    module.triple = features.triple
    return module


def native_module(features: Features) -> ir.Module:
    """The whole native executor: `run`, and a function an operation. Raises ValueError as `EMITTERS.check`."""
    EMITTERS.check()
    module = new_module(features)
    emit_barrier(module, features)
    definitions = [*(EMITTERS[name] for name in BY_NAME), *EXTRAS.values()]
    functions = {item.number: emit_operation(module, features, item) for item in definitions}
    emit_run(module, features, functions)
    return module


def compile_module(module: ir.Module, features: Features) -> bytes:
    """Machine code of a module, as an object file. Raises RuntimeError when the module is not valid."""
    machine = target_machine(features)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    builder = llvm.create_pass_builder(machine, _tuning())
    manager = builder.getModulePassManager()
    manager.run(parsed, builder)
    return machine.emit_object(parsed)


def assembly(module: ir.Module, features: Features) -> str:
    """Machine code of a module as assembly text, for reading."""
    machine = target_machine(features)
    parsed = llvm.parse_assembly(str(module))
    builder = llvm.create_pass_builder(machine, _tuning())
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_assembly(parsed)


def target_machine(features: Features) -> Any:
    """LLVM's code generator for these features."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(features.triple)
    return target.create_target_machine(
        cpu=features.cpu, features=features.attributes, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def _tuning() -> Any:
    """Tuning without LLVM's vectorizing and unrolling: kernels themselves say what is a vector and what is unrolled."""
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_interleaving = False
    return tuning


class Library:
    """Loaded machine code; it lives as long as this object."""

    def __init__(self, code: bytes, features: Features):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(features.triple).create_target_machine(
            cpu=features.cpu, features=features.attributes, codemodel="jitdefault", jit=True
        )
        self._jit = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._jit.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._jit.finalize_object()

    def address(self, name: str) -> int:
        """Address of a public function. Raises KeyError when there is none of that name."""
        address = self._jit.get_function_address(name)
        if not address:
            raise KeyError(name)
        return address


def build(module: ir.Module, features: Features) -> Library:
    """Compiles and loads a module of its own: for tests and experiments with single kernels."""
    return Library(compile_module(module, features), features)
