"""Phase 4: an allocated `isa` module -> `inst/inst_{n}lpu.bin` and the table of the origin of each instruction.

Neither depends on weights: two checkpoints of one architecture give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import PassError
from hyperdex_ir.isa.codec import encode_program
from hyperdex_ir.memory.program_facts import ProgramFacts, facts_to_json
from hyperdex_ir.memory.serialize import dump_json
from hyperdex_ir.support.files import Kind, write_binary, write_text
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.targets import load_target


@dataclass(frozen=True)
class Encoded:
    """A program as it is stored. code: the encoded instructions. origins: the table of the origin of each, JSON."""

    code: bytes
    origins: str


def _not_left(attribute: str, kind: str) -> PassError:
    hint = "a pipeline for a compile ends with lower-lpu-to-isa,isa-allocate-lmu" if kind == "integer" else ""
    return PassError(f"after the pipeline, the module has no attribute {attribute}", hint)


def program_facts(module: ModuleOp, vocab_size: int) -> ProgramFacts:
    """The facts of a program that the runtime needs. Raises PassError when the pipeline did not leave them."""
    facts = ModuleFacts(module, _not_left)
    return ProgramFacts(
        chunk=facts.chunk,
        head_rows=facts.head_rows,
        lmu_words=facts.lmu_words,
        max_length=facts.max_length,
        matrix_type=facts.matrix_type,
        target=load_target(facts.target).name,
        vocab_size=vocab_size,
        placeholders=facts.placeholders,
    )


def encode_module(module: ModuleOp, vocab_size: int) -> Encoded:
    """The module's program. Raises PassError when it is no allocated `isa` module."""
    facts = program_facts(module, vocab_size)
    program = to_program(module)
    return Encoded(encode_program(program.instructions), dump_json(facts_to_json(facts, program.origins)))


def write_instructions(folder: ModelFolder, encoded: Encoded, num_device: int) -> list[Path]:
    """Writes both files; returns their paths. Raises StorageError when the file system refuses."""
    paths = [folder.instructions(num_device), folder.origins(num_device)]
    write_binary(paths[0], Kind.INSTRUCTIONS, encoded.code, folder.anchor)
    write_text(paths[1], encoded.origins, folder.anchor)
    return paths
