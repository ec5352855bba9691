"""The facts of a compiled model, from its program and memory map alone: `hyperdex inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperdex_ir.memory.serialize import read_layout
from hyperdex_ir.performance.inspection import inspect_program
from hyperdex_ir.runtime.program import read_program
from hyperdex_ir.support.locations import ModelFolder


def inspect_model(model_dir: Path, num_device: int = 1, name: str = "") -> dict[str, Any]:
    """All facts as JSON values: model, functions, memory, lmu, decode, and for several devices division. Sizes in
    bytes, of the LMU in words.

    Raises NotCompiledError or FileFormatError as `runtime.program.read_program`.
    """
    folder = ModelFolder(model_dir, model_dir, None, made_by_tool=False)
    program, memory, facts = read_program(folder, num_device, name or str(model_dir))
    layout = None if num_device == 1 else read_layout(folder.memory_map(num_device))
    return inspect_program(program, memory, facts, layout, num_device, name or str(model_dir))
