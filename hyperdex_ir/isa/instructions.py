"""The instruction set: one entry an instruction, from which everything else is generated.

Each entry says which group and engine the instruction belongs to, its operands in encoding order, and what it does.
Words are little-endian and 512 bits wide: one beat of one HBM channel. Bits 0 to 7 hold the opcode; operands follow
from bit 8 upwards without gaps; all bits above them are reserved and zero. The arithmetic named here is defined in
`docs/arithmetic.md`. Entries are only ever appended to: opcodes are never reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hyperdex_ir.isa import functions
from hyperdex_ir.isa.functions import BINARY, REDUCTIONS, UNARY
from hyperdex_ir.isa.operands import F32, MOST_AHEAD, Enum, Field, Hbm, Imm, Lmu, Operand, Reg, View

WORD_BITS = 512
WORD_BYTES = WORD_BITS // 8
OPCODE_BITS = 8

#: Registers with a fixed meaning. The host sets `tokens`, `position`, `first_row`, `head_rows` before each pass, and
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

MATRIX_TYPES = ("f16", "bf16")
ACTIVATIONS = ("none", *functions.ACTIVATIONS)
ROTARY_STYLES = ("half", "interleaved")
INDEX_SOURCES = ("token", "position")


class Group(StrEnum):
    """Instruction groups."""

    MEM = "MEM"
    COMP = "COMP"
    NET = "NET"
    CTRL = "CTRL"


class Engine(StrEnum):
    """Engines, each with its own in-order queue."""

    SMA = "SMA"
    SXE = "SXE"
    VXE = "VXE"
    ESL = "ESL"
    ICP = "ICP"


@dataclass(frozen=True)
class Spec:
    """One instruction of the set."""

    name: str
    opcode: int
    group: Group
    engine: Engine
    doc: str
    operands: tuple[Operand, ...] = ()

    def fields(self) -> tuple[Field, ...]:
        """All fields above the opcode, lowest bits first."""
        return tuple(field for operand in self.operands for field in operand.fields())


ROWS = Reg("rows", "register that holds the number of rows")
MATRIX_TYPE = Enum("type", "matrix type", choices=MATRIX_TYPES, width=2)
UNIT_OFFSET = Imm("unit_offset", "1: the weight is 1 + what HBM holds", width=1, default=0)
WINDOW = Imm("window", "positions seen, the row's own included; 0: all", width=32, default=0)
_PART = (
    Imm("hop", "hops from the device that made the part", width=16),
    Imm("parts", "devices on the ring", width=16),
    Imm("pitch", "columns of a part"),
    Imm("first", "first column within the part", default=0),
    Imm("columns"),
)

SPECS = (
    # ------------------------------------------------------------------------------------------------ MEM
    Spec("embed", 0x01, Group.MEM, Engine.SMA,
        "Row `index + offset` of a matrix in tile order, widened to f32, times `scale`, for each row in flight. The"
        " index of row r is the i64 at `ids + 8 * r` (token) or `R[position] + r` (position). Faults when it is outside"
        " 0..limit-1.",
        (Lmu("dst"), Hbm("table"), Enum("index", choices=INDEX_SOURCES, width=1), Hbm("ids"),
         Imm("offset", "added to the index", width=16, signed=True, default=0),
         Imm("limit", "rows in the table", width=32), Imm("columns"), MATRIX_TYPE, ROWS, F32("scale", default=1.0))),
    Spec("gather", 0x02, Group.MEM, Engine.SMA,
        "Row `index + offset` of an f32 table whose rows lie one after another, times `scale`, for each row in flight."
        " Index and fault as for embed.",
        (Lmu("dst"), Hbm("table"), Enum("index", choices=INDEX_SOURCES, width=1), Hbm("ids"),
         Imm("offset", "added to the index", width=16, signed=True, default=0),
         Imm("limit", "rows in the table", width=32), Imm("columns"), ROWS, F32("scale", default=1.0))),
    Spec("load", 0x03, Group.MEM, Engine.SMA,
        "One row of f32 from HBM to the LMU.",
        (Lmu("dst"), Hbm("src"), Imm("columns"))),
    Spec("store", 0x04, Group.MEM, Engine.SMA,
        "Rows of f32 from the LMU to HBM; row r goes to `dst + r * pitch`.",
        (Hbm("dst"), Imm("pitch", "bytes from row to row", width=32), Lmu("src"), Imm("columns"), ROWS)),
    Spec("store_key", 0x05, Group.MEM, Engine.SMA,
        "Rounds rows of keys to the matrix type and writes row r, head g (columns g*size to g*size+size-1 of the row)"
        " as matrix row `R[position] + r` of the cache at `cache + g * pitch`, which is a matrix of `size` columns in"
        " tile order. Faults when a position reaches the limit.",
        (Hbm("cache"), Imm("pitch", "bytes from head to head", width=32), Lmu("src"), Imm("heads", width=16),
         Imm("size", "head size", width=16), Imm("limit", "positions in the cache", width=32), MATRIX_TYPE, ROWS)),
    Spec("store_value", 0x06, Group.MEM, Engine.SMA,
        "As store_key, transposed on the way: element i of head g becomes column `R[position] + r` of matrix row i. The"
        " cache is a matrix of `limit` columns in tile order.",
        (Hbm("cache"), Imm("pitch", "bytes from head to head", width=32), Lmu("src"), Imm("heads", width=16),
         Imm("size", "head size", width=16), Imm("limit", "positions in the cache", width=32), MATRIX_TYPE, ROWS)),
    Spec("store_state", 0x07, Group.MEM, Engine.SMA,
        "Keeps the last `history` rows of f32 (all, when there are no more): row r, at position p = R[position] + r,"
        " goes to row `p mod history` of the state, whose rows lie one after another.",
        (Hbm("state"), Lmu("src"), Imm("history", "rows of the state", width=16), Imm("columns"), ROWS)),
    # ------------------------------------------------------------------------------------------------ COMP, SXE
    Spec("matmul", 0x10, Group.COMP, Engine.SXE,
        "y = MAC(src, weight) for each row, then in this order, each where present: y + bias; y * scale;"
        " tanh(y / softcap) * softcap; activation(y); y * times; y + plus. The weight is [n, k] in tile order, the bias"
        " n f32 in HBM. Gated: the weight is [2n, k], the bias 2n f32; after the activation, y[j] is multiplied by"
        " MAC(src, row n + j) + bias[n + j]. A gate_distance stands for n in `n + j`, of the row and of the bias:"
        " the n rows are part of a larger matrix.",
        (Lmu("dst"), Lmu("src"), Hbm("weight"), Imm("k"), Imm("n"), MATRIX_TYPE, Hbm("bias", optional=True),
         F32("scale", default=1.0), F32("softcap", "0: none", default=0.0),
         Enum("activation", choices=ACTIVATIONS, default="none"), Lmu("times", optional=True),
         Lmu("plus", optional=True), ROWS, Imm("gated", "1: the weight has 2n rows", width=1, default=0),
         Imm("prefetch", "stripes of the weight that may stream in before src is there; no effect on results",
             default=0),
         Imm("gate_distance", "gated: rows from a row to that of its gate; 0: n", default=0))),
    Spec("scores", 0x11, Group.COMP, Engine.SXE,
        "Scores of one query head. Row r, at position p = R[position] + r, gets column j = MAC(query row, key row j) *"
        " scale, then tanh(. / softcap) * softcap, then . + slope * (j - p), each where present, for each j seen:"
        " p - window < j <= p. Other columns are not written. The key cache is a matrix of `size` columns in tile"
        " order. The slope is an f32 in HBM; with bf16_bias, bf16(slope * bf16(j)) * scale is added.",
        (Lmu("dst"), Lmu("query"), Hbm("cache"), Imm("size", "head size", width=16), F32("scale"),
         F32("softcap", "0: none", default=0.0), WINDOW, MATRIX_TYPE, ROWS, Hbm("slope", optional=True),
         Imm("bf16_bias", "1: the bias is rounded to bf16", width=1, default=0))),
    Spec("values", 0x12, Group.COMP, Engine.SXE,
        "Row r gets column i = MAC(probabilities of row r, row i of the cache) over the positions seen. The cache is a"
        " matrix of `limit` columns in tile order.",
        (Lmu("dst"), Lmu("src"), Hbm("cache"), Imm("size", "head size", width=16),
         Imm("limit", "positions in the cache", width=32), WINDOW, MATRIX_TYPE, ROWS)),
    # ------------------------------------------------------------------------------------------------ COMP, VXE
    Spec("softmax", 0x20, Group.COMP, Engine.VXE,
        "e = exp(src - max), dst = e / sum, over the positions that the row sees; the sum in MAC order over absolute"
        " positions. Other columns are not written. With a sink, an f32 in HBM: max is that of all and the sink,"
        " exp(sink - max) is added to the sum last.",
        (Lmu("dst"), Lmu("src"), WINDOW, ROWS, Hbm("sink", optional=True))),
    Spec("unary", 0x21, Group.COMP, Engine.VXE,
        "dst = function(a), elementwise over rows, groups and columns.",
        (Enum("function", choices=UNARY), View("dst"), View("a"), Imm("groups", width=16, default=1),
         Imm("columns"), ROWS)),
    Spec("binary", 0x22, Group.COMP, Engine.VXE,
        "dst = a function b, elementwise. Strides of 0 broadcast.",
        (Enum("function", choices=BINARY), View("dst"), View("a"), View("b"), Imm("groups", width=16, default=1),
         Imm("columns"), ROWS)),
    Spec("binary_scalar", 0x23, Group.COMP, Engine.VXE,
        "dst = a function b, elementwise, b an immediate; reversed: dst = b function a.",
        (Enum("function", choices=BINARY), View("dst"), View("a"), F32("b"), Imm("reversed", width=1, default=0),
         Imm("groups", width=16, default=1), Imm("columns"), ROWS)),
    Spec("reduce", 0x24, Group.COMP, Engine.VXE,
        "One number from the columns of each row and group, written to column 0 of dst. Of no columns: +0, a NaN for"
        " the mean, -infinity for row_max.",
        (Enum("function", choices=REDUCTIONS), View("dst"), View("a"), Imm("groups", width=16, default=1),
         Imm("columns"), ROWS)),
    Spec("rms_norm", 0x25, Group.COMP, Engine.VXE,
        "(a * rsqrt(mean(a * a) + epsilon)) * weight over the columns of each row and group; weight: f32 in HBM, to"
        " which 1 is added first where unit_offset says so.",
        (View("dst"), View("a"), Hbm("weight", optional=True), F32("epsilon"), Imm("groups", width=16, default=1),
         Imm("columns"), ROWS, UNIT_OFFSET)),
    Spec("layer_norm", 0x26, Group.COMP, Engine.VXE,
        "c = a - mean(a); ((c * rsqrt(mean(c * c) + epsilon)) * weight) + bias over the columns of each row and group;"
        " weight and bias: f32 in HBM; unit_offset as for rms_norm.",
        (View("dst"), View("a"), Hbm("weight", optional=True), Hbm("bias", optional=True), F32("epsilon"),
         Imm("groups", width=16, default=1), Imm("columns"), ROWS, UNIT_OFFSET)),
    Spec("rotary", 0x27, Group.COMP, Engine.VXE,
        "Rotates the first `turned` columns of each group: dst[i] = a[i] * cos[i] + r(a)[i] * sin[i], where r(a)[i] is"
        " the pair's other element, negated for the first of the pair. The other columns up to `columns` are copied.",
        (View("dst"), View("a"), Lmu("cos"), Lmu("sin"), Enum("style", choices=ROTARY_STYLES, width=2),
         Imm("turned", width=16), Imm("groups", width=16, default=1), Imm("columns"), ROWS)),
    Spec("select_rows", 0x28, Group.COMP, Engine.VXE,
        "Row r of dst is row R[first] + r of src.",
        (Lmu("dst"), Lmu("src"), Reg("first", "register that holds the first row"), Imm("columns"), ROWS)),
    # 0x29 was argmax
    Spec("sample", 0x2A, Group.COMP, Engine.VXE,
        "Chooses a token: an index from 0 to columns - 1. The logits are the first `columns` words of the last row,"
        " whose position is `R[position] + R[tokens] - 1`. At `settings`, a multiple of 8, are i64 mode (0: greedy, 1:"
        " sample), i64 top_k (0: all), u64 seed, f32 temperature, f32 top_p and f32 repetition_penalty; at"
        " `settings + 64` a byte for each column, not 0 when the text holds the token, which counts unless the penalty"
        " is 1. All of that, the bytes rounded up to a multiple of 8, lies in the run-time area. Faults when there are"
        " no columns, and on settings outside their ranges.",
        (Reg("dst"), Lmu("src"), Imm("columns"), ROWS, Hbm("settings"))),
    Spec("select_columns", 0x2B, Group.COMP, Engine.VXE,
        "Column j of dst is column R[index] * columns + j of src, and +0 where that is not below `limit`.",
        (Lmu("dst"), Lmu("src"), Reg("index", "register that holds the number of the block"), Imm("columns"),
         Imm("limit", "columns of src"), ROWS)),
    Spec("top_k", 0x2C, Group.COMP, Engine.VXE,
        "Word j of a row of dst is the number of the column with the j-th largest number of the row of src, as f32; of"
        " equal ones the lowest column comes first. The columns are `groups` groups of equal size, one after another;"
        " only those of the `top_groups` groups with the largest sums of their two largest numbers are chosen, of equal"
        " ones the lowest. Faults on groups that are not equal, or are of one column, and when there are not k columns"
        " to choose from.",
        (Lmu("dst"), Lmu("src"), Imm("columns"), Imm("k"), Imm("groups", width=16, default=1),
         Imm("top_groups", width=16, default=1), ROWS)),
    Spec("take_columns", 0x2D, Group.COMP, Engine.VXE,
        "Column j of dst is column index[j] of src; the index, an f32, faults unless it is an integer in 0..limit-1.",
        (Lmu("dst"), Lmu("src"), Lmu("index"), Imm("columns"), Imm("limit", "columns of src"), ROWS)),
    Spec("short_conv", 0x2E, Group.COMP, Engine.VXE,
        "Each column by itself: y = taps[0] * x[r - history], then y + taps[j] * x[r - history + j] for j = 1 .."
        " history, then y + bias, each step rounded. x[s] is row s of src; for s < 0 the row `(R[position] + s) mod"
        " history` of the state, as store_state left it, and +0 before position 0. The taps of a column lie one after"
        " another, column after column.",
        (Lmu("dst"), Lmu("src"), Hbm("state"), Hbm("taps"), Hbm("bias", optional=True),
         Imm("history", "taps - 1, which is rows of the state", width=16), Imm("columns"), ROWS)),
    # ------------------------------------------------------------------------------------------------ NET
    Spec("send", 0x40, Group.NET, Engine.ESL,
        "Sends columns `part * pitch + first` and on of each row, `columns` of them, to the next device on the ring,"
        " number `(R[device] + 1) mod parts`. The part is `(R[device] - hop) mod parts`."
        f" Faults when the device would have sent more than {MOST_AHEAD} messages beyond those that it has received in"
        " this pass, or more words beyond theirs than the LMU has.",
        (Lmu("src"), *_PART, ROWS)),
    Spec("receive", 0x41, Group.NET, Engine.ESL,
        "Waits for the next message of the device before this one on the ring, and writes it to columns `part * pitch +"
        " first` and on of each row. The part is as for send. The n-th receive of a pass takes the message of the n-th"
        " send; one for another part, or of other size, is a fault.",
        (Lmu("dst"), *_PART, ROWS)),
    # ------------------------------------------------------------------------------------------------ CTRL
    Spec("halt", 0x30, Group.CTRL, Engine.ICP, "Ends the pass."),
    Spec("set", 0x31, Group.CTRL, Engine.ICP, "R[dst] = value.",
        (Reg("dst"), Imm("value", width=48, signed=True))),
    Spec("add", 0x32, Group.CTRL, Engine.ICP, "R[dst] = R[a] + R[b] + value.",
        (Reg("dst"), Reg("a"), Reg("b"), Imm("value", width=48, signed=True, default=0))),
    Spec("repeat", 0x33, Group.CTRL, Engine.ICP,
        "Runs the next `length` instructions `count` times, both at least 1; repeats nest, a body may not cross its"
        " parent's end.",
        (Imm("count", "trip count", width=32), Imm("length", "instructions in the body", width=24))),
    Spec("call", 0x34, Group.CTRL, Engine.ICP, "Continues at instruction `target` until its ret.",
        (Imm("target", width=24),)),
    Spec("ret", 0x35, Group.CTRL, Engine.ICP, "Returns to the instruction after the call."),
    Spec("lookup", 0x36, Group.CTRL, Engine.ICP,
        "R[dst] = the i64 at `table + 8 * R[index]`. Faults when R[index] is outside 0..limit-1.",
        (Reg("dst"), Hbm("table"), Reg("index", "register that holds the index"),
         Imm("limit", "numbers in the table", width=32))),
    Spec("skip_unless", 0x37, Group.CTRL, Engine.ICP,
        "Passes over the next `length` instructions, at least 1, unless R[a] = value. They stay within the body around"
        " them, and none of their repeats and skips goes beyond them.",
        (Reg("a"), Imm("value", width=48, signed=True), Imm("length", "instructions in the body", width=24))),
    Spec("multiply", 0x38, Group.CTRL, Engine.ICP, "R[dst] = R[a] * value.",
        (Reg("dst"), Reg("a"), Imm("value", width=48, signed=True))),
    Spec("fetch", 0x39, Group.CTRL, Engine.ICP,
        "R[dst] = the number in the first word of src, an f32. Faults unless it is an integer in 0..limit-1.",
        (Reg("dst"), Lmu("src"), Imm("limit"))),
    Spec("repeat_rows", 0x3A, Group.CTRL, Engine.ICP,
        "Runs the next `length` instructions, at least 1, once for each row in flight: R[rows] times. Nests as repeat"
        " does.",
        (ROWS, Imm("length", "instructions in the body", width=24))),
)  # fmt: skip

BY_NAME = {spec.name: spec for spec in SPECS}
BY_OPCODE = {spec.opcode: spec for spec in SPECS}


def _check_table() -> None:
    """Fails at import when the table contradicts itself."""
    if len(BY_NAME) != len(SPECS) or len(BY_OPCODE) != len(SPECS):
        raise ValueError("instruction table: a name or an opcode stands twice")
    for spec in SPECS:
        names = [field.name for field in spec.fields()]
        width = OPCODE_BITS + sum(field.width for field in spec.fields())
        if len(set(names)) != len(names):
            raise ValueError(f"instruction table: {spec.name} has a field twice")
        if width > WORD_BITS:
            raise ValueError(f"instruction table: {spec.name} needs {width} bits, a word has {WORD_BITS}")
        for field in spec.fields():
            if len(field.choices) > 1 << field.width:
                raise ValueError(f"instruction table: {spec.name}.{field.name} has too many choices")


_check_table()
