"""Facts about a program that the runtime needs, and the origins of its instructions: `inst/inst_{n}lpu.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hyperdex_ir.isa.instructions import MATRIX_TYPES
from hyperdex_ir.isa.program import Origin
from hyperdex_ir.memory.fields import Fields, shown
from hyperdex_ir.memory.map import MAX_CHUNK, MemoryMap
from hyperdex_ir.memory.serialize import FORMAT


@dataclass(frozen=True)
class ProgramFacts:
    """Facts about a program, in the order of the file.

    chunk: greatest number of tokens in a step. head_rows: greatest number of logit rows in a step. lmu_words: words of
    the LMU that the buffers take. max_length: positions. target: the target's name. placeholders: the tokens that stand
    for images or sounds in the model whose text part this is, by name; the file has them if there are any.
    """

    chunk: int
    head_rows: int
    lmu_words: int
    max_length: int
    matrix_type: str
    target: str
    vocab_size: int
    placeholders: Mapping[str, int] = field(default_factory=dict)


def facts_to_json(facts: ProgramFacts, origins: Sequence[Origin]) -> dict[str, Any]:
    """The facts and the origins as JSON values, `format` first."""
    table = [
        {"index": index, "function": origin.function, "path": origin.module_path, "op": origin.operation}
        for index, origin in enumerate(origins)
    ]
    values = asdict(facts)
    if not facts.placeholders:
        del values["placeholders"]
    return {"format": FORMAT, **values, "origins": table}


def facts_from_json(value: Mapping[str, Any], memory_map: MemoryMap) -> ProgramFacts:
    """The facts that `facts_to_json` wrote, of a program that runs with this memory map.

    Raises KeyError when one is missing, TypeError when one is out of range, or contradicts the map.
    """
    fields = Fields(value, "")
    chunk = fields.whole("chunk", 1, MAX_CHUNK)
    facts = ProgramFacts(
        chunk=chunk,
        head_rows=fields.whole("head_rows", 1, chunk),
        lmu_words=fields.whole("lmu_words", 0, memory_map.target.lmu_words),
        matrix_type=fields.text("matrix_type", MATRIX_TYPES),
        max_length=memory_map.max_length,
        vocab_size=memory_map.vocab_size,
        target=memory_map.target.name,
        placeholders=fields.offsets("placeholders") if "placeholders" in fields else {},
    )
    for key in ("max_length", "vocab_size", "target"):
        if fields.value(key) != (expected := getattr(facts, key)):
            raise TypeError(f"{key} is {shown(fields.value(key))}, the memory map says {expected}")
    return facts


def origins_from_json(value: Mapping[str, Any]) -> tuple[Origin, ...]:
    """The origins that `facts_to_json` wrote. Raises KeyError or TypeError when they are invalid."""
    entries = Fields(value, "").objects("origins")
    return tuple(Origin(*(entry.text(key) for key in ("function", "path", "op"))) for entry in entries)
