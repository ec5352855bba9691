"""The program and images of a compiled model on disk, checked against each other and against the manifest."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError, NotCompiledError, OptionError
from hyperdex_ir.interpreter.step import BUDGET
from hyperdex_ir.isa.program import Program
from hyperdex_ir.isa.structure import fewest_executed
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.memory.program_facts import ProgramFacts, facts_from_json, origins_from_json
from hyperdex_ir.memory.serialize import load_json, manifest_entries, read_map
from hyperdex_ir.support import reading
from hyperdex_ir.support.files import Kind, read_binary, read_header
from hyperdex_ir.support.locations import ModelFolder


def read_program(folder: ModelFolder, num_device: int, name: str) -> tuple[Program, MemoryMap, ProgramFacts]:
    """The program of a compiled model, its memory map, and its facts in inst_{n}lpu.json; `param/` is not read.

    Raises NotCompiledError when the model, which errors call `name`, is not compiled for `num_device`, OptionError when
    that can be no number of devices, FileFormatError when a file is missing, corrupted or does not belong to the
    others.
    """
    from hyperdex_ir.isa.codec import decode_program

    listed = listed_files(folder, num_device, name)
    path = folder.instructions(num_device)
    files = (folder.memory_map(num_device), path, folder.origins(num_device))
    for file, kind in zip(files, (reading.TABLE, reading.PROGRAM, reading.TABLE), strict=True):
        _check_hash(file, kind, listed.get(file.relative_to(folder.root).as_posix()))
    memory_map = read_map(folder.memory_map(num_device))
    where = folder.origins(num_device)
    table = load_json(where)
    facts = _read_facts(where, table, memory_map)
    instructions = decode_program(read_binary(path, Kind.INSTRUCTIONS)).instructions
    if (executed := fewest_executed(instructions)) > BUDGET:
        raise FileFormatError(
            f"{path}: a step of {executed} instructions, the machine executes {BUDGET}", COMPILE_AGAIN
        )
    try:
        origins = origins_from_json(table)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{where}: no table of origins ({error})", COMPILE_AGAIN) from None
    if len(origins) != len(instructions):
        raise FileFormatError(f"{where}: {len(origins)} origins of {len(instructions)} instructions", COMPILE_AGAIN)
    return Program(instructions, origins), memory_map, facts


def listed_files(folder: ModelFolder, num_device: int, name: str) -> dict[str, Any]:
    """The manifest's table of files.

    Raises NotCompiledError when it has none for `num_device`, OptionError when that can be no number of devices.
    """
    if isinstance(num_device, bool) or not isinstance(num_device, int) or num_device < 1:
        raise OptionError(f"num_device is {num_device!r}: must be a positive whole number")
    command = f"hyperdex compile {shlex.quote(name)}" + (f" --num-device {num_device}" if num_device != 1 else "")
    if not folder.manifest.is_file():
        raise NotCompiledError(f"{name}: not compiled", command)
    entries = manifest_entries(folder.manifest)
    if str(num_device) not in entries:
        raise NotCompiledError(
            f"{name}: not compiled for {num_device} device{'' if num_device == 1 else 's'}",
            command,
        )
    return entries[str(num_device)]["files"]


def check_images(folder: ModelFolder, num_device: int, device: int, memory_map: MemoryMap) -> list[Path]:
    """The parameter images of a device by channel, headers checked against the memory map and the manifest."""
    listed = listed_files(folder, num_device, str(folder.root))
    channels = memory_map.target.channels
    expected = memory_map.parameter_end // channels
    paths = [folder.parameter_file(num_device, device, channel) for channel in range(channels)]
    for path in paths:
        size, crc = _read_header(path)
        if size != expected:
            raise FileFormatError(f"{path}: {size} bytes, the memory map says {expected}", COMPILE_AGAIN)
        entry = listed.get(path.relative_to(folder.root).as_posix())
        if not isinstance(entry, dict) or entry.get("crc32", crc) != crc:  # older manifests have none
            raise FileFormatError(f"{path}: not the image that the manifest lists", COMPILE_AGAIN)
    return paths


def _check_hash(path: Path, kind: reading.FileKind, entry: Any) -> None:
    """Raises FileFormatError when a small file is missing or is not the one that the manifest describes."""
    try:
        found = hashlib.sha256(reading.read_bytes(path, kind)).hexdigest()
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", COMPILE_AGAIN) from None
    if not isinstance(entry, dict) or entry.get("sha256") != found:
        raise FileFormatError(f"{path}: corrupted (its hash is not the manifest's)", COMPILE_AGAIN)


def _read_facts(path: Path, table: dict[str, Any], memory_map: MemoryMap) -> ProgramFacts:
    """The facts of the program in inst_{n}lpu.json, checked against the memory map."""
    try:
        return facts_from_json(table, memory_map)
    except KeyError as error:
        raise FileFormatError(f"{path}: says nothing of {error.args[0]}", COMPILE_AGAIN) from None
    except TypeError as error:
        raise FileFormatError(f"{path}: {error}", COMPILE_AGAIN) from None


def _read_header(path: Path) -> tuple[int, int]:
    """Payload bytes and CRC-32 of a parameter image."""
    try:
        with reading.open_regular(path, FileFormatError, COMPILE_AGAIN) as file:
            return read_header(file, path, Kind.PARAMETERS)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", COMPILE_AGAIN) from None
