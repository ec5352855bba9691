"""The instruction set: one entry an instruction, from which everything else is generated.

Each entry says what the instruction does, and has its operands in encoding order, its cost rule, and all other facts
about it. Words are little-endian and 512 bits wide: one beat of one HBM channel. Bits 0 to 7 hold the opcode; operands
follow from bit 8 upwards without gaps; all bits above them are reserved and zero. The arithmetic named here is defined
in `docs/arithmetic.md`. Entries are only ever appended to: opcodes are never reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum as PythonEnum
from enum import StrEnum
from functools import cached_property
from math import prod

from hyperdex_ir.isa import functions
from hyperdex_ir.isa.cost_rules import Cache, Control, CostRule, Engine, Link, Rows, Stored, Vector, Weights
from hyperdex_ir.isa.faults import Fault, operand_faults
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.isa.functions import BINARY, REDUCTIONS, UNARY
from hyperdex_ir.isa.operands import F32, MOST_AHEAD, Area, Enum, Field, Hbm, Holds, Imm, Lmu, Operand, Reg, View
from hyperdex_ir.isa.shapes import ONE, Columns, RingPart, Seen

WORD_BITS = 512
WORD_BYTES = WORD_BITS // 8
OPCODE_BITS = 8

#: Registers with a fixed meaning. The host sets `tokens`, `position`, `first_row`, `head_rows` before each step, and
#: `device`.
ZERO, TOKENS, POSITION, FIRST_ROW, HEAD_ROWS, PARAM_BASE, KV_BASE, NEXT_TOKEN = range(8)
DEVICE = 31
REGISTER_NAMES = {
    ZERO: "zero",  # reads as 0; writes are ignored
    TOKENS: "tokens",  # tokens in flight
    POSITION: "position",  # absolute position of the first of them
    FIRST_ROW: "first_row",  # first row whose logits are wanted
    HEAD_ROWS: "head_rows",  # tokens - first_row
    PARAM_BASE: "param_base",  # byte address of the running layer's parameters
    KV_BASE: "kv_base",  # byte address of the running layer's KV cache
    NEXT_TOKEN: "next_token",  # result of sample
    DEVICE: "device",  # number of this device on the ring
}

MATRIX_TYPES = tuple(FORMATS)
ACTIVATIONS = ("none", *functions.ACTIVATIONS)
ROTARY_STYLES = ("half", "interleaved")
INDEX_SOURCES = ("token", "position")


class Group(StrEnum):
    """Instruction groups."""

    MEM = "MEM"
    COMP = "COMP"
    NET = "NET"
    CTRL = "CTRL"


_GROUPS = {
    Engine.SMA: Group.MEM,
    Engine.SXE: Group.COMP,
    Engine.VXE: Group.COMP,
    Engine.ESL: Group.NET,
    Engine.ICP: Group.CTRL,
}


class Flow(PythonEnum):
    """Control words that make the structure of a program; the `isa` dialect expresses them by its structure."""

    END = "end"  # end of the program
    RETURN = "return"  # end of another function
    CALL = "call"
    LOOP = "loop"  # loop over the `length` instructions behind it
    SKIP = "skip"  # conditional skip of the `length` instructions behind it


@dataclass(frozen=True, eq=False)
class Spec:
    """One instruction of the set.

    flow: its role in the structure of a program; None: it has none. result: of an instruction on registers, the number
    that it sets, from the registers read and the immediate `value`. own_faults: its kinds of fault beside those that
    follow from its operands.
    """

    name: str
    opcode: int
    doc: str
    operands: tuple[Operand, ...]
    cost: CostRule
    flow: Flow | None = None
    result: Callable[[Iterable[int]], int] | None = None
    own_faults: tuple[Fault, ...] = ()

    def fields(self) -> tuple[Field, ...]:
        """All fields above the opcode, lowest bits first."""
        return tuple(field for operand in self.operands for field in operand.fields())

    @property
    def engine(self) -> Engine:
        """The engine that executes it."""
        return self.cost.engine

    @property
    def group(self) -> Group:
        """The group that its engine's instructions are in."""
        return _GROUPS[self.engine]

    @cached_property
    def lmu(self) -> tuple[Lmu | View, ...]:
        """The operands in the LMU."""
        return tuple(operand for operand in self.operands if isinstance(operand, Lmu | View))

    @cached_property
    def hbm(self) -> tuple[Hbm, ...]:
        """The operands in HBM."""
        return tuple(operand for operand in self.operands if isinstance(operand, Hbm))

    @cached_property
    def registers(self) -> tuple[Reg, ...]:
        """The operands that are registers."""
        return tuple(operand for operand in self.operands if isinstance(operand, Reg))

    @cached_property
    def stores(self) -> bool:
        """True if the instruction writes HBM."""
        return any(operand.writes for operand in self.hbm)

    @cached_property
    def ring(self) -> RingPart | None:
        """The part of a row that it sends or receives; None for other instructions."""
        return next((operand.columns for operand in self.lmu if isinstance(operand.columns, RingPart)), None)

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """The kinds of fault that it can raise."""
        kinds = {kind for operand in self.operands for kind in operand_faults(operand)}
        return tuple(sorted({*kinds, *self.own_faults, *((Fault.ROWS,) if self.has_rows else ())}))

    @cached_property
    def has_rows(self) -> bool:
        """True if a register holds the number of rows that it works on; otherwise it works on one row."""
        return ROWS in self.operands


ROWS = Reg("rows", "register that holds the number of rows")
MATRIX_TYPE = Enum("type", "matrix type", choices=MATRIX_TYPES, width=2)
UNIT_OFFSET = Imm("unit_offset", "1: the weight is 1 + what HBM holds", width=1, default=0)
WINDOW = Imm("window", "positions seen, the row's own included; 0: all", width=32, default=0)
GROUPS = Imm("groups", width=16, default=1)
COLUMNS = Columns(("columns",))
_PART = (
    Imm("hop", "hops from the device that made the part", width=16),
    Imm("parts", "devices on the ring", width=16),
    Imm("pitch", "columns of a part"),
    Imm("first", "first column within the part", default=0),
    Imm("columns"),
)
_N, _SIZE, _HEADS, _SEEN = Columns(("n",)), Columns(("size",)), Columns(("heads", "size")), Seen()
_LIMIT, _TURNED = Columns(("limit",)), Columns(("turned",))
_BODY = (Fault.BODY_PROGRAM, Fault.BODY_REPEAT)
_LOOP = (Fault.EMPTY_REPEAT, *_BODY, Fault.NESTING)
_RING = (Fault.NO_LINKS, Fault.DEVICE)
_GROUPED = Columns(("groups", "columns"))
_KEYS, _VALUES, _STATES, _SETTINGS = (Area.KEYS,), (Area.VALUES,), (Area.STATES,), (Area.SETTINGS,)

_TABLE = (
    # ------------------------------------------------------------------------------------------------ MEM
    Spec("embed", 0x01,
        "Row `index + offset` of a matrix in tile order, widened to f32, times `scale`, for each row in flight. The"
        " index of row r is the i64 at `ids + 8 * r` (token) or `R[position] + r` (position). Faults when it is outside"
        " 0..limit-1.",
        (Lmu("dst", writes=True, columns=COLUMNS), Hbm("table", holds=Holds.EMBEDDING),
         Enum("index", choices=INDEX_SOURCES, width=1), Hbm("ids"),
         Imm("offset", "added to the index", width=16, signed=True, default=0),
         Imm("limit", "rows in the table", width=32), Imm("columns"), MATRIX_TYPE, ROWS,
         F32("scale", default=1.0, epilogue=True)),
        Rows(tiled=True, index="index"), own_faults=(Fault.TABLE_ROW,)),
    Spec("gather", 0x02,
        "Row `index + offset` of an f32 table whose rows lie one after another, times `scale`, for each row in flight."
        " Index and fault as for embed.",
        (Lmu("dst", writes=True, columns=COLUMNS), Hbm("table", holds=Holds.TABLE),
         Enum("index", choices=INDEX_SOURCES, width=1), Hbm("ids"),
         Imm("offset", "added to the index", width=16, signed=True, default=0),
         Imm("limit", "rows in the table", width=32), Imm("columns"), ROWS,
         F32("scale", default=1.0, epilogue=True)),
        Rows(index="index"), own_faults=(Fault.TABLE_ROW,)),
    Spec("load", 0x03,
        "One row of f32 from HBM to the LMU.",
        (Lmu("dst", writes=True, columns=COLUMNS), Hbm("src", holds=Holds.VECTOR), Imm("columns")),
        Rows(one_row=True)),
    Spec("store", 0x04,
        "Rows of f32 from the LMU to HBM; row r goes to `dst + r * pitch`.",
        (Hbm("dst", writes=True, areas=tuple(Area)), Imm("pitch", "bytes from row to row", width=32),
         Lmu("src", columns=COLUMNS), Imm("columns"), ROWS),
        Rows()),
    Spec("store_key", 0x05,
        "Rounds rows of keys to the matrix type and writes row r, head g (columns g*size to g*size+size-1 of the row)"
        " as matrix row `R[position] + r` of the cache at `cache + g * pitch`, which is a matrix of `size` columns in"
        " tile order. Faults when a position reaches the limit.",
        (Hbm("cache", writes=True, areas=_KEYS), Imm("pitch", "bytes from head to head", width=32),
         Lmu("src", columns=_HEADS), Imm("heads", width=16), Imm("size", "head size", width=16),
         Imm("limit", "positions in the cache", width=32), MATRIX_TYPE, ROWS),
        Stored(transposed=False), own_faults=(Fault.CACHE_ROWS,)),
    Spec("store_value", 0x06,
        "As store_key, transposed on the way: element i of head g becomes column `R[position] + r` of matrix row i. The"
        " cache is a matrix of `limit` columns in tile order.",
        (Hbm("cache", writes=True, areas=_VALUES), Imm("pitch", "bytes from head to head", width=32),
         Lmu("src", columns=_HEADS), Imm("heads", width=16), Imm("size", "head size", width=16),
         Imm("limit", "positions in the cache", width=32), MATRIX_TYPE, ROWS),
        Stored(transposed=True), own_faults=(Fault.CACHE_ROWS,)),
    Spec("store_state", 0x07,
        "Keeps the last `history` rows of f32 (all, when there are no more): row r, at position p = R[position] + r,"
        " goes to row `p mod history` of the state, whose rows lie one after another.",
        (Hbm("state", writes=True, areas=_STATES), Lmu("src", columns=COLUMNS),
         Imm("history", "rows of the state", width=16), Imm("columns"), ROWS),
        Rows(most_rows="history")),
    # ------------------------------------------------------------------------------------------------ COMP, SXE
    Spec("matmul", 0x10,
        "y = MAC(weight, src) for each row, then in this order, each where present: y + bias; y * scale;"
        " tanh(y / softcap) * softcap; activation(y); y * times; y + plus. The weight is [n, k] in tile order, the bias"
        " n f32 in HBM. Gated: the weight is [2n, k], the bias 2n f32; after the activation, y[j] is multiplied by"
        " MAC(row n + j, src) + bias[n + j]. A gate_distance stands for n in `n + j`, of the row and of the bias:"
        " the n rows are part of a larger matrix.",
        (Lmu("dst", writes=True, columns=_N), Lmu("src", columns=Columns(("k",))), Hbm("weight", holds=Holds.MATRIX),
         Imm("k"), Imm("n"), MATRIX_TYPE, Hbm("bias", optional=True, epilogue=True, holds=Holds.VECTOR),
         F32("scale", default=1.0, epilogue=True), F32("softcap", "0: none", default=0.0, epilogue=True),
         Enum("activation", choices=ACTIVATIONS, default="none", epilogue=True),
         Lmu("times", optional=True, epilogue=True, columns=_N), Lmu("plus", optional=True, epilogue=True, columns=_N),
         ROWS, Imm("gated", "1: the weight has 2n rows", width=1, default=0, epilogue=True),
         Imm("prefetch", "stripes of the weight that may stream in before src is there; no effect on results",
             default=0),
         Imm("gate_distance", "gated: rows from a row to that of its gate; 0: n", default=0)),
        Weights()),
    Spec("scores", 0x11,
        "Scores of one query head. Row r, at position p = R[position] + r, gets column j = MAC(key row j, query row) *"
        " scale, then tanh(. / softcap) * softcap, then . + slope * (j - p), each where present, for each j seen:"
        " p - window < j <= p. Other columns are not written. The key cache is a matrix of `size` columns in tile"
        " order. The slope is an f32 in HBM; with bf16_bias, bf16(slope * bf16(j)) * scale is added.",
        (Lmu("dst", writes=True, columns=_SEEN), Lmu("query", columns=_SIZE), Hbm("cache", areas=_KEYS),
         Imm("size", "head size", width=16), F32("scale", epilogue=True),
         F32("softcap", "0: none", default=0.0, epilogue=True), WINDOW, MATRIX_TYPE, ROWS,
         Hbm("slope", optional=True, epilogue=True, holds=Holds.VECTOR),
         Imm("bf16_bias", "1: the bias is rounded to bf16", width=1, default=0, epilogue=True)),
        Cache(transposed=False), own_faults=(Fault.CACHE_UNWRITTEN,)),
    Spec("values", 0x12,
        "Row r gets column i = MAC(row i of the cache, probabilities of row r) over the positions seen. The cache is a"
        " matrix of `limit` columns in tile order.",
        (Lmu("dst", writes=True, columns=_SIZE), Lmu("src", columns=_SEEN), Hbm("cache", areas=_VALUES),
         Imm("size", "head size", width=16), Imm("limit", "positions in the cache", width=32), WINDOW, MATRIX_TYPE,
         ROWS),
        Cache(transposed=True), own_faults=(Fault.CACHE_LIMIT, Fault.CACHE_UNWRITTEN)),
    # ------------------------------------------------------------------------------------------------ COMP, VXE
    Spec("softmax", 0x20,
        "e = exp(src - max), dst = e / sum, over the positions that the row sees; the sum in MAC order over absolute"
        " positions. Other columns are not written. With a sink, an f32 in HBM: max is that of all and the sink,"
        " exp(sink - max) is added to the sum last.",
        (Lmu("dst", writes=True, columns=_SEEN), Lmu("src", columns=_SEEN), WINDOW, ROWS,
         Hbm("sink", optional=True, holds=Holds.VECTOR)),
        Vector(_SEEN, sweeps=(3,))),
    Spec("unary", 0x21,
        "dst = function(a), elementwise over rows, groups and columns.",
        (Enum("function", choices=UNARY), View("dst", writes=True), View("a"), GROUPS, Imm("columns"), ROWS),
        Vector(_GROUPED)),
    Spec("binary", 0x22,
        "dst = a function b, elementwise. Strides of 0 broadcast.",
        (Enum("function", choices=BINARY), View("dst", writes=True), View("a"), View("b"), GROUPS, Imm("columns"),
         ROWS),
        Vector(_GROUPED)),
    Spec("binary_scalar", 0x23,
        "dst = a function b, elementwise, b an immediate; reversed: dst = b function a.",
        (Enum("function", choices=BINARY), View("dst", writes=True), View("a"), F32("b"),
         Imm("reversed", width=1, default=0), GROUPS, Imm("columns"), ROWS),
        Vector(_GROUPED)),
    Spec("reduce", 0x24,
        "One number from the columns of each row and group, written to column 0 of dst. Of no columns: +0, a NaN for"
        " the mean, -infinity for row_max.",
        (Enum("function", choices=REDUCTIONS), View("dst", writes=True, columns=ONE), View("a"), GROUPS,
         Imm("columns"), ROWS),
        Vector(_GROUPED)),
    Spec("rms_norm", 0x25,
        "(a * rsqrt(mean(a * a) + epsilon)) * weight over the columns of each row and group; weight: f32 in HBM, to"
        " which 1 is added first where unit_offset says so.",
        (View("dst", writes=True), View("a"), Hbm("weight", optional=True, holds=Holds.VECTOR), F32("epsilon"), GROUPS,
         Imm("columns"), ROWS, UNIT_OFFSET),
        Vector(_GROUPED, sweeps=(2,))),
    Spec("layer_norm", 0x26,
        "c = a - mean(a); ((c * rsqrt(mean(c * c) + epsilon)) * weight) + bias over the columns of each row and group;"
        " weight and bias: f32 in HBM; unit_offset as for rms_norm.",
        (View("dst", writes=True), View("a"), Hbm("weight", optional=True, holds=Holds.VECTOR),
         Hbm("bias", optional=True, holds=Holds.VECTOR), F32("epsilon"), GROUPS, Imm("columns"), ROWS, UNIT_OFFSET),
        Vector(_GROUPED, sweeps=(3,))),
    Spec("rotary", 0x27,
        "Rotates the first `turned` columns of each group: dst[i] = a[i] * cos[i] + r(a)[i] * sin[i], where r(a)[i] is"
        " the pair's other element, negated for the first of the pair. The other columns up to `columns` are copied.",
        (View("dst", writes=True), View("a"), Lmu("cos", columns=_TURNED), Lmu("sin", columns=_TURNED),
         Enum("style", choices=ROTARY_STYLES, width=2), Imm("turned", width=16), GROUPS, Imm("columns"), ROWS),
        Vector(_GROUPED), own_faults=(Fault.TURNED,)),
    Spec("select_rows", 0x28,
        "Row r of dst is row R[first] + r of src.",
        (Lmu("dst", writes=True, columns=COLUMNS), Lmu("src", columns=COLUMNS),
         Reg("first", "register that holds the first row"), Imm("columns"), ROWS),
        Vector(), own_faults=(Fault.SELECTED_ROWS,)),
    # 0x29 was argmax
    Spec("sample", 0x2A,
        "Chooses a token: an index from 0 to columns - 1. The logits are the first `columns` words of the last row,"
        " whose position is `R[position] + R[tokens] - 1`. At `settings`, a multiple of 8, are i64 mode (0: greedy, 1:"
        " sample), i64 top_k (0: all), u64 seed, f32 temperature, f32 top_p and f32 repetition_penalty; at"
        " `settings + 64` a byte for each column, not 0 when the text holds the token, which counts unless the penalty"
        " is 1. All of that, the bytes rounded up to a multiple of 8, lies in the run-time area. Faults when there are"
        " no columns, and on settings outside their ranges.",
        (Reg("dst", writes=True), Lmu("src", columns=COLUMNS), Imm("columns"), ROWS, Hbm("settings", areas=_SETTINGS)),
        Vector(last_row=True), own_faults=(Fault.NO_COLUMNS, Fault.SETTINGS)),
    Spec("select_columns", 0x2B,
        "Column j of dst is column R[index] * columns + j of src, and +0 where that is not below `limit`.",
        (Lmu("dst", writes=True, columns=COLUMNS), Lmu("src", columns=_LIMIT),
         Reg("index", "register that holds the number of the block"), Imm("columns"), Imm("limit", "columns of src"),
         ROWS),
        Vector(), own_faults=(Fault.SELECTED_COLUMNS,)),
    Spec("top_k", 0x2C,
        "Word j of a row of dst is the number of the column with the j-th largest number of the row of src, as f32; of"
        " equal ones the lowest column comes first. The columns are `groups` groups of equal size, one after another;"
        " only those of the `top_groups` groups with the largest sums of their two largest numbers are chosen, of equal"
        " ones the lowest. Faults on groups that are not equal, or are of one column, and when there are not k columns"
        " to choose from.",
        (Lmu("dst", writes=True, columns=Columns(("k",))), Lmu("src", columns=COLUMNS), Imm("columns"), Imm("k"),
         GROUPS, Imm("top_groups", width=16, default=1), ROWS),
        Vector(sweeps=("k",), choice="groups"), own_faults=(Fault.CHOICE,)),
    Spec("take_columns", 0x2D,
        "Column j of dst is column index[j] of src; the index, an f32, faults unless it is an integer in 0..limit-1.",
        (Lmu("dst", writes=True, columns=COLUMNS), Lmu("src", columns=_LIMIT), Lmu("index", columns=COLUMNS),
         Imm("columns"), Imm("limit", "columns of src"), ROWS),
        Vector(), own_faults=(Fault.COLUMN_NUMBER,)),
    Spec("short_conv", 0x2E,
        "Each column by itself: y = taps[0] * x[r - history], then y + taps[j] * x[r - history + j] for j = 1 .."
        " history, then y + bias, each step rounded. x[s] is row s of src; for s < 0 the row `(R[position] + s) mod"
        " history` of the state, as store_state left it, and +0 before position 0. The taps of a column lie one after"
        " another, column after column.",
        (Lmu("dst", writes=True, columns=COLUMNS), Lmu("src", columns=COLUMNS), Hbm("state", areas=_STATES),
         Hbm("taps", holds=Holds.VECTOR), Hbm("bias", optional=True, holds=Holds.VECTOR),
         Imm("history", "taps - 1, which is rows of the state", width=16), Imm("columns"), ROWS),
        Vector(sweeps=("history", 1))),
    # ------------------------------------------------------------------------------------------------ NET
    Spec("send", 0x40,
        "Sends columns `part * pitch + first` and on of each row, `columns` of them, to the next device on the ring,"
        " number `(R[device] + 1) mod parts`. The part is `(R[device] - hop) mod parts`."
        f" Faults when the device would have sent more than {MOST_AHEAD} messages beyond those that it has received in"
        " this step, or more words beyond theirs than the LMU has.",
        (Lmu("src", columns=RingPart()), *_PART, ROWS),
        Link(sends=True), own_faults=(*_RING, Fault.AHEAD)),
    Spec("receive", 0x41,
        "Waits for the next message of the device before this one on the ring, and writes it to columns `part * pitch +"
        " first` and on of each row. The part is as for send. The n-th receive of a step takes the message of the n-th"
        " send; one for another part, or of other size, is a fault.",
        (Lmu("dst", writes=True, columns=RingPart()), *_PART, ROWS),
        Link(sends=False), own_faults=(*_RING, Fault.EARLY_RECEIVE, Fault.MESSAGE)),
    # ------------------------------------------------------------------------------------------------ CTRL
    Spec("halt", 0x30, "Ends the step.", (), Control(), Flow.END),
    Spec("set", 0x31, "R[dst] = value.",
        (Reg("dst", writes=True), Imm("value", width=48, signed=True)),
        Control(), result=sum),
    Spec("add", 0x32, "R[dst] = R[a] + R[b] + value.",
        (Reg("dst", writes=True), Reg("a"), Reg("b"), Imm("value", width=48, signed=True, default=0)),
        Control(), result=sum, own_faults=(Fault.REGISTER_OVERFLOW,)),
    Spec("repeat", 0x33,
        "Runs the next `length` instructions `count` times, both at least 1; repeats nest, a body may not cross its"
        " parent's end.",
        (Imm("count", "trip count", width=32), Imm("length", "instructions in the body", width=24)),
        Control(), Flow.LOOP, own_faults=_LOOP),
    Spec("call", 0x34, "Continues at instruction `target` until its ret.",
        (Imm("target", width=24),),
        Control(), Flow.CALL, own_faults=(Fault.CALL_TARGET, Fault.NESTING)),
    Spec("ret", 0x35, "Returns to the instruction after the call.", (), Control(), Flow.RETURN,
        own_faults=(Fault.RET_ALONE, Fault.RET_IN_REPEAT)),
    Spec("lookup", 0x36,
        "R[dst] = the i64 at `table + 8 * R[index]`. Faults when R[index] is outside 0..limit-1.",
        (Reg("dst", writes=True), Hbm("table", holds=Holds.TABLE), Reg("index", "register that holds the index"),
         Imm("limit", "numbers in the table", width=32)),
        Control(reads_hbm=True), own_faults=(Fault.LOOKUP,)),
    Spec("skip_unless", 0x37,
        "Skips the next `length` instructions, at least 1, unless R[a] = value. They stay within the body around"
        " them, and none of their repeats and skips goes beyond them.",
        (Reg("a"), Imm("value", width=48, signed=True), Imm("length", "instructions in the body", width=24)),
        Control(), Flow.SKIP, own_faults=(Fault.EMPTY_SKIP, *_BODY)),
    Spec("multiply", 0x38, "R[dst] = R[a] * value.",
        (Reg("dst", writes=True), Reg("a"), Imm("value", width=48, signed=True)),
        Control(), result=prod, own_faults=(Fault.REGISTER_OVERFLOW,)),
    Spec("fetch", 0x39,
        "R[dst] = the number in the first word of src, an f32. Faults unless it is an integer in 0..limit-1.",
        (Reg("dst", writes=True), Lmu("src", columns=ONE), Imm("limit")),
        Control(), own_faults=(Fault.NUMBER,)),
    Spec("repeat_rows", 0x3A,
        "Runs the next `length` instructions, at least 1, once for each row in flight: R[rows] times. Nests as repeat"
        " does.",
        (ROWS, Imm("length", "instructions in the body", width=24)),
        Control(), Flow.LOOP, own_faults=_LOOP),
)  # fmt: skip

#: All instructions, in the order in which they were added; `add_instruction` appends.
SPECS: list[Spec] = []
BY_NAME: dict[str, Spec] = {}
BY_OPCODE: dict[int, Spec] = {}


def add_instruction(spec: Spec) -> None:
    """Appends an entry to the table; everything derived from the table knows the instruction from then on.

    To run, it needs a meaning in the interpreter and a kernel in the native executor, too.
    Raises ValueError when the entry contradicts itself or earlier entries.
    """
    _check_entry(spec)
    SPECS.append(spec)
    BY_NAME[spec.name] = BY_OPCODE[spec.opcode] = spec


def _check_entry(spec: Spec) -> None:
    if spec.name in BY_NAME or spec.opcode in BY_OPCODE:
        raise ValueError(f"instruction table: the name or the opcode of {spec.name} stands twice")
    if not 0 < spec.opcode < 1 << OPCODE_BITS:
        raise ValueError(f"instruction table: the opcode of {spec.name} is {spec.opcode}")
    fields = spec.fields()
    if len({field.name for field in fields}) != len(fields):
        raise ValueError(f"instruction table: {spec.name} has a field twice")
    if (width := OPCODE_BITS + sum(field.width for field in fields)) > WORD_BITS:
        raise ValueError(f"instruction table: {spec.name} needs {width} bits, a word has {WORD_BITS}")
    for field in fields:
        if len(field.choices) > 1 << field.width:
            raise ValueError(f"instruction table: {spec.name}.{field.name} has too many choices")
    numbers = {operand.name for operand in spec.operands if isinstance(operand, Imm | Enum)}
    used = [*spec.cost.immediates(), *(name for operand in spec.lmu for name in operand.immediates())]
    if unknown := [name for name in used if name not in numbers]:
        raise ValueError(f"instruction table: {spec.name} has no immediate {unknown[0]}")


for _spec in _TABLE:
    add_instruction(_spec)
