"""The reference page of the instruction set, `docs/isa.md`, from the table:

python -m hyperdex_ir.isa.reference > docs/isa.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from hyperdex_ir.isa.codec import OperandPlaces, Place, operand_places, used_bits
from hyperdex_ir.isa.faults import MACHINE_FAULTS
from hyperdex_ir.isa.fields import default_value, field_range, format_f32
from hyperdex_ir.isa.instructions import OPCODE_BITS, REGISTER_NAMES, SPECS, WORD_BITS, WORD_BYTES, Group, Spec
from hyperdex_ir.isa.operands import (
    F32,
    HBM_OFFSET_BITS,
    LMU_ADDRESS_BITS,
    REGISTER_BITS,
    REGISTERS,
    Enum,
    Field,
    FieldKind,
    Hbm,
    Holds,
    Lmu,
    Operand,
    Reg,
    View,
)
from hyperdex_ir.isa.shapes import Columns, RingPart, Seen
from hyperdex_ir.isa.structure import MAX_DEPTH, MAX_INSTRUCTIONS

_LINE = 32  # bits a line of a picture
_REGISTER_NOTES = {
    "zero": "reads as 0; writes are ignored",
    "tokens": "tokens in flight; the host sets it before each step",
    "position": "absolute position of the first token in flight; set by the host",
    "first_row": "first row whose logits are wanted; set by the host",
    "head_rows": "number of such rows, `tokens - first_row`; set by the host",
    "param_base": "byte address of the running layer's parameters",
    "kv_base": "byte address of the running layer's KV cache",
    "next_token": "result of sample",
    "device": "number of this device on the ring, 0 when it is alone; set by the host",
}

_HEAD = f"""\
<!-- Generated: python -m hyperdex_ir.isa.reference > docs/isa.md -->

# Instruction set

What each instruction computes, to the bit, is defined in [arithmetic.md](arithmetic.md). The table behind this page
is `hyperdex_ir/isa/instructions.py`; encoder, decoder, assembler, the `isa` dialect and the [cost model](cost.md) are
made from the same table.

| short for | |
| --- | --- |
| HBM | high-bandwidth memory, outside the chip: parameters, KV cache, tokens, logits |
| LMU | local memory unit, the scratchpad on the chip: values of the tokens in flight |
| MAC | multiply-accumulate; `MAC(w, x)` is a matrix row times a vector, `w` of the matrix type, `x` f32 |
| SMA | streamlined memory access: the engine between HBM and the LMU |
| SXE | streamlined execution engine: the MAC trees |
| VXE | vector execution engine |
| ESL | expandable synchronization link: the engine that exchanges messages with other devices |
| ICP | instruction control processor: hands out instructions, and executes those that control |

A *step* is one run of the program over the tokens in flight. A *row* is a row in the LMU, one for each token in flight
or for each token whose logits are wanted; a *matrix row* is a row of a matrix in HBM, a column of its result.

## Words

An instruction is one word of {WORD_BITS} bits, {WORD_BYTES} bytes, little-endian. Bits 0 to {OPCODE_BITS - 1} hold the
opcode, the operands' fields follow without gaps, lowest bits first, and all bits above them are zero. A word with
another bit set, an opcode or a choice that is not listed, or bits in an absent operand is refused.

A program is a row of functions. Each ends in `halt` or `ret` and holds neither before its end; the first is the
entry and ends in `halt`. A call goes to the first instruction of a function, and no function calls itself, directly
or by way of others. A `repeat` runs at least once; the bodies of `repeat`, `repeat_rows` and `skip_unless` hold at
least one instruction and stay within their function and within the body that they stand in. Bodies and calls together,
by any way, nest at most {MAX_DEPTH} deep; a program has at most {MAX_INSTRUCTIONS:,} instructions. Instruction numbers
count words from the start of the program.

An instruction file, `inst_{{n}}lpu.bin`, is a 16-byte header (magic `HDXI`, u16 format version, u16 kind 1, u32
length in units of 64 bytes, u32 CRC-32 of what follows) and then the words. `hyperdex dis FILE` prints one as text,
`hyperdex as FILE -o OUT` makes the same bytes from that text.
"""

_REGISTERS = f"""\
## Registers

{REGISTERS} registers of 64 bits, signed. A sum that needs more is a fault, and so is reading a register that nothing
has set in this step.

"""

_OPERANDS = f"""\
## Operands

| written as | fields, lowest bits first | meaning |
| --- | --- | --- |
| `lmu[address+register:stride]` | address {LMU_ADDRESS_BITS}, stride {LMU_ADDRESS_BITS}, register {REGISTER_BITS} \
| rows in the LMU: row r starts at word `address + R[register] + r * stride` |
| `view[address+register:stride,group_stride,column_stride]` | address {LMU_ADDRESS_BITS}, stride {LMU_ADDRESS_BITS}, \
group_stride {LMU_ADDRESS_BITS}, column_stride 2, register {REGISTER_BITS} | element (row, group, column) is word \
`address + R[register] + row * stride + group * group_stride + column * column_stride` |
| `hbm[offset+register]` | offset {HBM_OFFSET_BITS}, register {REGISTER_BITS} | byte address `offset + R[register]` |
| register | {REGISTER_BITS} | a register by name |
| number | as listed | an integer; signed ones in two's complement |
| f32 | 32 | a float32, by its bits |
| word of a list | as listed | its position in the list |

LMU words have 32 bits. `+register` is left out when it is `zero`. An operand marked optional has a bit `present`
before its fields; when that is 0 the operand is absent and all its fields are zero. An operand with a default is left
out of the text when it has that value.

For each instruction a picture shows where the fields lie, 32 bits a line, the lowest on the left. Of an operand in the
LMU the table says which columns of each row the instruction reads or writes, of a parameter what it is.
"""

_MEMORY = """\
## Memory

A device's HBM is one linear byte address space: parameters from 0 on, then the run-time area (KV caches, tokens,
settings, logits). Each access is checked before anything of it is done, and ends the step with a fault when

- it leaves HBM or the LMU;
- an operand in the LMU has more elements, rows times groups times columns, than the LMU has words, as strides of 0
  would allow; what attention sees counts as rows times positions;
- an address is no multiple of the element's size, or a matrix in tile order starts off a stripe (a beat of every
  channel);
- an operand is partly in the parameters and partly in the run-time area;
- it writes to the parameters.

Every size may be 0. An operand without elements begins in the LMU or right behind it, in HBM or right behind it, on the
grid of its elements; nothing of it is read or written. A MAC or a sum of nothing is +0, the mean of nothing a NaN, its
largest number -infinity; the last two raise the flag. Where an instruction needs something, it says that it faults.

A position from which attention, `short_conv` or `store_state` counts is from 0 to 2^31 - 1, for each row in flight;
another one is a fault.

An instruction reads all its operands before it writes. What it writes counts row by row, in a row group by group, in a
group column by column: where results lie on each other, the last one stays.

Reading LMU or run-time HBM that nothing has written is an error in a program. The interpreter finds it, word by word;
the native executor does not. Both refuse tokens at a position when those before have not been run.
"""

_FAULTS = """\
## Faults

Kinds of fault, and their texts with names for the numbers. Each instruction lists its own. The first two belong to
none: no instruction stands where the step has come to, or the step has executed too many.

"""


def reference_page() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD, _registers(), _OPERANDS, _MEMORY, _faults(), _overview()]
    for group in Group:
        specs = [spec for spec in SPECS if spec.group is group]
        if specs:
            parts.append(f"## {group.value} instructions\n")
            parts += [_instruction(spec) for spec in specs]
    return "\n".join(parts)


def _registers() -> str:
    rows = [[f"r{number}", f"`{name}`", _REGISTER_NOTES[name]] for number, name in REGISTER_NAMES.items()]
    free = [number for number in range(REGISTERS) if number not in REGISTER_NAMES]
    rows.insert(free[0], [f"r{free[0]} to r{free[-1]}", f"`r{free[0]}` ...", "free"])
    return _REGISTERS + _table(("number", "name", "holds"), rows)


def _faults() -> str:
    kinds = sorted({*MACHINE_FAULTS, *(kind for spec in SPECS for kind in spec.faults)})
    return _FAULTS + _table(("kind", "text"), [[f"`{kind.name}`", f"`{kind.words}`"] for kind in kinds])


def _overview() -> str:
    rows = [
        [
            f"0x{spec.opcode:02x}",
            f"[{spec.name}](#{spec.name})",
            spec.group.value,
            spec.engine.value,
            str(used_bits(spec)),
        ]
        for spec in SPECS
    ]
    return "## Overview\n\n" + _table(("opcode", "instruction", "group", "engine", "bits"), rows)


def _instruction(spec: Spec) -> str:
    lines = [
        f"### {spec.name}\n",
        f"Opcode 0x{spec.opcode:02x}, group {spec.group.value}, engine {spec.engine.value}.\n",
    ]
    lines.append(f"{spec.doc}\n")
    if spec.operands:
        lines.append(f"```text\n{_picture(spec)}```\n")
        rows = [row for places in operand_places(spec) for row in _field_rows(places)]
        lines.append(_table(("bits", "field", "values", "meaning"), rows))
    if spec.faults:
        lines.append(f"Faults: {', '.join(f'`{kind.name}`' for kind in spec.faults)}.\n")
    return "\n".join(lines)


def _picture(spec: Spec) -> str:
    """The word as lines of 32 bits, two characters a bit; a field is named on the line with most of its bits."""
    places = [place for one in operand_places(spec) for place in (one.present, *one.fields) if place is not None]
    cells = [" "] * (2 * used_bits(spec)) + ["|"]
    for place in (Place(Field("opcode", OPCODE_BITS), 0), *places):
        cells[2 * place.low] = "|"
        lines = range(place.low // _LINE, place.high // _LINE + 1)
        stretches = [(max(place.low, line * _LINE), min(place.high + 1, (line + 1) * _LINE)) for line in lines]
        low, end = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
        name = place.field.name
        room = 2 * (end - low) - 1
        text = name if len(name) <= room else name.rpartition(".")[2][:room]
        cells[2 * low + 1 : 2 * low + 1 + len(text)] = text
    rows = ("".join(cells[start : start + 2 * _LINE]) for start in range(0, len(cells) - 1, 2 * _LINE))
    closed = (f"{number * _LINE:3} {row.rstrip()}" for number, row in enumerate(rows))
    return "".join(f"{row}\n" for row in closed)


def _field_rows(places: OperandPlaces) -> Iterator[list[str]]:
    operand = places.operand
    notes = [part for part in (_access(operand), operand.doc, _presence(operand)) if part]
    if places.present is not None:
        yield [_bits(places.present), f"`{places.present.field.name}`", "0 to 1", "; ".join(notes)]
        notes = []
    for place in places.fields:
        yield [_bits(place), f"`{place.field.name}`", _values(place), "; ".join(notes)]
        notes = []


def _access(operand: Operand) -> str:
    """The access of an instruction to the words that the operand refers to."""
    verb = "writes" if operand.writes else "reads"
    late = ", each when its result is there" if operand.epilogue else ""
    match operand:
        case Lmu(columns=Seen()):
            return f"{verb} a column for each position seen"
        case Lmu(columns=RingPart(columns=columns)):
            return f"{verb} `{columns}` columns of the part"
        case Lmu(columns=Columns() as columns):
            return f"{verb} {_columns(columns)}{late}"
        case View():
            return f"{verb} `{operand.groups}` groups of {_columns(operand.columns)}"
        case Hbm(holds=Holds() as holds):
            return f"{verb} a parameter: {holds}"
        case Hbm(areas=(area,)):
            return f"{verb} the {area}"
        case Hbm():
            return f"{verb} any area"
        case Reg():
            return "written" if operand.writes else "read"
    return ""


def _columns(columns: Columns) -> str:
    return f"`{columns}` columns" if columns.factors else "one column"


def _presence(operand: Operand) -> str:
    default = default_value(operand)
    if default is None:
        return "optional" if operand.optional else ""
    text = format_f32(float(default)) if isinstance(operand, F32) else str(default)
    return f"default `{text}`" if isinstance(operand, Enum) else f"default {text}"


def _bits(place: Place) -> str:
    return f"{place.high}:{place.low}" if place.high > place.low else str(place.low)


def _values(place: Place) -> str:
    field = place.field
    if field.kind is FieldKind.FLOAT:
        return "f32"
    if field.kind is FieldKind.REGISTER:
        return "register"
    if field.kind is FieldKind.ENUM:
        return ", ".join(f"{number} `{choice}`" for number, choice in enumerate(field.choices))
    low, high = field_range(field)
    return f"-2^{field.width - 1} to 2^{field.width - 1} - 1" if low else f"0 to {high if high < 10 else _power(high)}"


def _power(high: int) -> str:
    return f"2^{high.bit_length()} - 1"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
