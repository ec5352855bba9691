"""Phase 4: an allocated `isa` module -> `inst/inst_{n}lpu.bin` and the table of where each instruction came from.

Neither depends on weights: two checkpoints of one architecture give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.errors import PassError
from hyperdex_ir.isa.codec import encode_program
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.serialize import FORMAT, dump_json
from hyperdex_ir.support.files import Kind, write_binary, write_text
from hyperdex_ir.support.locations import ModelFolder

_NUMBERS = {"chunk": "isa.chunk", "head_rows": "isa.head_rows", "lmu_words": "isa.lmu_words"}


@dataclass(frozen=True)
class Encoded:
    """A program as it is stored. code: the encoded instructions. origins: the table of where each came from, JSON."""

    code: bytes
    origins: str


def program_facts(module: ModuleOp, vocab_size: int) -> dict[str, Any]:
    """What the runtime must know of a program. Raises PassError when the pipeline did not leave it."""
    facts: dict[str, Any] = {}
    for name, attribute in {**_NUMBERS, "max_length": "lpu.max_length"}.items():
        value = module.attributes.get(attribute)
        if not isinstance(value, IntegerAttr):
            raise PassError(
                f"after the pipeline, the module has no attribute {attribute}",
                "a pipeline for a compile ends with lower-lpu-to-isa,isa-allocate-lmu",
            )
        facts[name] = value.value.data
    for name in ("matrix_type", "target"):
        value = module.attributes.get(f"lpu.{name}")
        if not isinstance(value, StringAttr):
            raise PassError(f"after the pipeline, the module has no attribute lpu.{name}")
        facts[name] = value.data
    return {**facts, "vocab_size": vocab_size}


def _origins(program: Program) -> list[dict[str, Any]]:
    return [
        {"index": index, "function": origin.function, "path": origin.module_path, "op": origin.operation}
        for index, origin in enumerate(program.origins)
    ]


def encode_module(module: ModuleOp, vocab_size: int) -> Encoded:
    """The module's program. Raises PassError when it is no allocated `isa` module."""
    facts = program_facts(module, vocab_size)
    program = to_program(module)
    origins = dump_json({"format": FORMAT, **facts, "origins": _origins(program)})
    return Encoded(encode_program(program.instructions), origins)


def write_instructions(folder: ModelFolder, encoded: Encoded, num_device: int) -> list[Path]:
    """Writes both files; returns their paths. Raises StorageError when the file system refuses."""
    paths = [folder.instructions(num_device), folder.origins(num_device)]
    write_binary(paths[0], Kind.INSTRUCTIONS, encoded.code, folder.anchor)
    write_text(paths[1], encoded.origins, folder.anchor)
    return paths
