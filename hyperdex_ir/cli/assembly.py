"""`hyperdex dis` and `hyperdex as`: instruction files to text and back."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from hyperdex_ir.errors import COMPILE_AGAIN, AssemblyError, FileFormatError
from hyperdex_ir.isa.assembly import parse_program, print_program
from hyperdex_ir.isa.codec import decode_program, encode_program
from hyperdex_ir.isa.program import Origin, Program
from hyperdex_ir.support.files import Kind, pack_binary, unpack_binary, write_given
from hyperdex_ir.support.reading import ASSEMBLY, PROGRAM, TABLE, read_given, read_object, read_source


def disassemble(path: Path, out: TextIO) -> None:
    """Writes the text of an instruction file. The .json beside it, if there is one, gives labels and comments.

    Raises FileFormatError when the file, or the .json, is not valid.
    """
    try:
        payload = unpack_binary(read_given(path, PROGRAM), path, Kind.INSTRUCTIONS)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", COMPILE_AGAIN) from None
    try:
        program = decode_program(payload)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}", error.hint) from None
    out.write(print_program(Program(program.instructions, read_origins(path.with_suffix(".json"), program))))


def assemble(path: Path, output: Path) -> None:
    """Assembles a text into an instruction file, which appears whole or not at all.

    Raises AssemblyError with line and column, StorageError when the file cannot be written.
    """
    try:
        text = read_source(path, ASSEMBLY)
    except FileNotFoundError as error:
        raise AssemblyError(f"{path}: {error.strerror}") from None
    program = parse_program(text, str(path))
    write_given(output, pack_binary(Kind.INSTRUCTIONS, encode_program(program.instructions)))


def read_origins(path: Path, program: Program) -> tuple[Origin, ...]:
    """The origin of each instruction, from the file beside the program; empty when there is no such file.

    Raises FileFormatError when the file is no JSON of that form, or belongs to another program.
    """
    try:
        items = read_object(path, TABLE)["origins"]
        known = {
            int(item["index"]): Origin(str(item["function"]), str(item["path"]), str(item["op"])) for item in items
        }
    except FileNotFoundError:
        return ()
    except FileFormatError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise FileFormatError(f"{path}: not a table of origins ({reason})", error.hint) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: not a table of origins ({type(error).__name__})", COMPILE_AGAIN) from None
    count = len(program.instructions)
    if known.keys() - range(count):
        raise FileFormatError(
            f"{path}: names instruction {max(known)}, the program has {count}",
            "it belongs to another program; remove it",
        )
    return tuple(known.get(index, Origin("", "", "")) for index in range(count))
