"""A compiled model, opened from `config/`, `inst/` and `param/` alone: no checkpoint, no torch, no transformers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.errors import FileFormatError, NotCompiledError
from hyperdex_ir.files import Kind, read_binary, read_header
from hyperdex_ir.isa.program import Origin, Program
from hyperdex_ir.locations import ModelFolder
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.memory.serialize import load_json, read_map
from hyperdex_ir.runtime.engines import DEFAULT_ENGINE, check_engine, open_device
from hyperdex_ir.runtime.generate import Device, Generation, Limits, all_logits, generate
from hyperdex_ir.runtime.sampling import Sampling


class CompiledModel:
    """A model ready to run. It holds one conversation state: the KV cache of what it ran last."""

    def __init__(self, device: Device, limits: Limits, facts: dict[str, Any]):
        self.device = device
        self.limits = limits
        self.matrix_type: str = facts["matrix_type"]
        self.target: str = facts["target"]

    @classmethod
    def open(
        cls,
        model_dir: Path | str,
        num_device: int = 1,
        engine: str = DEFAULT_ENGINE,
        *,
        threads: int | None = None,
        name: str | None = None,
    ) -> CompiledModel:
        """Opens what `hyperdex compile` left in `model_dir`; `name` is what errors call the model.

        engine: `native`, or `interpreter`, the reference: the same bits. threads: of the native engine, by default all
        cores that the process may use.
        Raises NotCompiledError when the model is not compiled for `num_device`, FileFormatError when a file is missing,
        truncated, corrupted or does not belong to the others.
        """
        check_engine(engine, threads)
        folder = ModelFolder(Path(model_dir), Path(model_dir), None, made_by_tool=False)
        program, memory_map, facts = read_program(folder, num_device, name or os.fspath(folder.root))
        images = _check_images(folder, num_device, memory_map)
        limits = Limits(facts["chunk"], facts["head_rows"], memory_map.max_length, memory_map.vocab_size)
        device = open_device(engine, threads, program, images, memory_map, facts)
        return cls(device, limits, facts)

    @property
    def max_length(self) -> int:
        """Positions that the KV cache and tables hold, prompt and response together."""
        return self.limits.max_length

    @property
    def vocab_size(self) -> int:
        return self.limits.vocab_size

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        """One pass over at most `chunk` tokens at absolute positions from `position` on.

        Returns float32 [wanted rows, vocab_size]: from `first_row` on; None: the last row only.
        """
        return self.device.forward(tokens, position, first_row)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits at every position of a text, float32 [tokens, vocab_size].

        Raises PromptError when it is empty or longer than the model was compiled for.
        """
        return all_logits(self.device, ids, self.limits)

    def generate(
        self,
        ids: Sequence[int],
        max_new_tokens: int,
        eos_ids: Collection[int] = (),
        on_token: Callable[[int], None] | None = None,
        sampling: Sampling | None = None,
    ) -> Generation:
        """Generation, greedy without `sampling`; `on_token` is called with each new token as it comes.

        See `runtime.generate.generate`.
        """
        return generate(self.device, ids, self.limits, max_new_tokens, eos_ids, on_token, sampling)


def read_program(folder: ModelFolder, num_device: int, name: str) -> tuple[Program, MemoryMap, dict[str, Any]]:
    """The program of a compiled model, its memory map, and what inst_{n}lpu.json says of it; `param/` is not read.

    Raises NotCompiledError when the model, which errors call `name`, is not compiled for `num_device`, FileFormatError
    when a file is missing, corrupted or does not belong to the others.
    """
    from hyperdex_ir.isa.codec import decode_program

    listed = _listed_files(folder, num_device, name)
    path = folder.instructions(num_device)
    for file in (folder.memory_map(num_device), path, folder.origins(num_device)):
        _check_hash(file, listed.get(file.relative_to(folder.root).as_posix()))
    memory_map = read_map(folder.memory_map(num_device))
    facts = _read_facts(folder.origins(num_device), memory_map)
    instructions = decode_program(read_binary(path, Kind.INSTRUCTIONS)).instructions
    return Program(instructions, _read_origins(path, facts)), memory_map, facts


def read_eos_ids(*folders: Path) -> tuple[int, ...]:
    """End-of-text ids: generation_config.json's, else config.json's, of the first of `folders` that names any."""
    for folder in folders:
        for name in ("generation_config.json", "config.json"):
            value = read_json_object(folder / name).get("eos_token_id")
            if value is not None:
                return tuple(value) if isinstance(value, list) else (value,)
    return ()


def read_generation_config(*folders: Path) -> dict[str, Any]:
    """generation_config.json of the first of `folders` that says anything in one, else {}."""
    configs = (read_json_object(folder / "generation_config.json") for folder in folders)
    return next(filter(None, configs), {})


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object of the checkpoint, empty when there is no such file. Raises FileFormatError when it is broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FileFormatError(f"{path}: not a JSON object")
    return value


def _listed_files(folder: ModelFolder, num_device: int, name: str) -> dict[str, Any]:
    """The manifest's table of files. Raises NotCompiledError when it has none for `num_device`."""
    command = f"hyperdex compile {name}" + (f" --num-device {num_device}" if num_device != 1 else "")
    if not folder.manifest.is_file():
        raise NotCompiledError(f"{name}: not compiled", command)
    listed = load_json(folder.manifest).get("files")
    if not isinstance(listed, dict):
        raise FileFormatError(f"{folder.manifest}: names no files", "compile the model again")
    if folder.memory_map(num_device).relative_to(folder.root).as_posix() not in listed:
        raise NotCompiledError(f"{name}: not compiled for {num_device} device{'' if num_device == 1 else 's'}", command)
    return listed


def _check_hash(path: Path, entry: Any) -> None:
    """Raises FileFormatError when a small file is missing or is not the one that the manifest describes."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", "compile the model again") from None
    if not isinstance(entry, dict) or entry.get("sha256") != found:
        raise FileFormatError(f"{path}: corrupted (its hash is not the manifest's)", "compile the model again")


def _read_facts(path: Path, memory_map: MemoryMap) -> dict[str, Any]:
    """What inst_{n}lpu.json says of the program, checked against the memory map."""
    facts = load_json(path)
    expected = {
        "max_length": memory_map.max_length,
        "vocab_size": memory_map.vocab_size,
        "target": memory_map.target.name,
    }
    for key in ("chunk", "head_rows", "lmu_words", "matrix_type"):
        if key not in facts:
            raise FileFormatError(f"{path}: says nothing of {key}", "compile the model again")
    for key, value in expected.items():
        if facts.get(key) != value:
            raise FileFormatError(
                f"{path}: {key} is {facts.get(key)}, the memory map says {value}", "compile the model again"
            )
    return facts


def _check_images(folder: ModelFolder, num_device: int, memory_map: MemoryMap) -> list[Path]:
    """The parameter images of device 0 by channel, headers and sizes checked against the memory map."""
    channels = memory_map.target.channels
    expected = memory_map.parameter_end // channels
    paths = [folder.parameter_file(num_device, 0, channel) for channel in range(channels)]
    for path in paths:
        size = _payload_bytes(path)
        if size != expected:
            raise FileFormatError(f"{path}: {size} bytes, the memory map says {expected}", "compile the model again")
    return paths


def _payload_bytes(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return read_header(file, path, Kind.PARAMETERS)[0]
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", "compile the model again") from None


def _read_origins(path: Path, facts: dict[str, Any]) -> tuple[Origin, ...]:
    try:
        return tuple(Origin(entry["function"], entry["path"], entry["op"]) for entry in facts["origins"])
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path.with_suffix('.json')}: no table of origins ({error})", "compile again") from None
