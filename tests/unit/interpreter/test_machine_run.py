"""Results of instructions, control flow, steps and devices."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.programs.machine_programs import (
    HEADS,
    LENGTH,
    LMU_WORDS,
    SIZE,
    VOCAB,
    WIDTH,
    attention,
    embed,
    layout,
    lmu,
    machine,
    memory_map,
    op,
    parameter,
    view,
)

from hyperdex_ir.errors import CheckpointError, FileFormatError, MachineFault, NumericError, PromptError
from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.functions import check_complete
from hyperdex_ir.isa.instructions import ACTIVATIONS, BINARY, REDUCTIONS, ROTARY_STYLES, UNARY
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.support.files import Kind, pack_header, write_binary

HALT = op("halt")
TOKENS = [3, 39, 0]
ROWS = parameter("embedding")[TOKENS].astype(np.float32)


def run(*instructions: Instruction, tokens: Sequence[int] = TOKENS, position: int = 0, first: int = 0) -> Machine:
    target = machine(embed(), *instructions, HALT)
    target.run(tokens, position, first)
    return target


@pytest.mark.parametrize("strides", [(1, 22, 1), (8, 16, 2), (0, 0, 1), (0, 0, 0), (3, 1, 2), (30, 1, 1)])
def test_where_results_lie_on_each_other_the_last_stays(strides: tuple[int, int, int]) -> None:
    address, groups, columns = 3 * WIDTH, 2, 30
    source = ViewRef(0, WIDTH, columns, 1)
    copy = op(
        "unary", function="copy", dst=ViewRef(address, *strides), a=source, groups=groups, columns=columns, rows=1
    )
    target = run(copy)
    expected: dict[int, float] = {}
    for row, group, column in np.ndindex(len(TOKENS), groups, columns):
        word = address + row * strides[0] + group * strides[1] + column * strides[2]
        expected[word] = float(ROWS[row, group * columns + column])
    assert {word: lmu(target, word, 1, 1)[0, 0] for word in expected} == expected


def test_the_order_of_choices_is_that_of_the_binary_format() -> None:
    assert UNARY[:7] == ("copy", "neg", "exp", "tanh", "erf", "sqrt", "rsqrt")
    assert UNARY[7:] == ("relu", "sigmoid", "silu", "gelu", "gelu_tanh")
    assert BINARY == ("add", "sub", "mul", "div", "max", "min")
    assert REDUCTIONS == ("sum", "mean", "row_max")
    assert ACTIVATIONS == ("none", "relu", "silu", "gelu", "gelu_tanh", "sigmoid", "tanh")
    assert ROTARY_STYLES == ("half", "interleaved")


def test_a_function_without_a_definition_is_an_error() -> None:
    with pytest.raises(ValueError, match="either not in the table of functions or not defined: exp, log"):
        check_complete(["neg", "log"], ["neg", "exp"])


def test_embed_widens_rows_of_the_table() -> None:
    assert (lmu(run(), 0, 3, WIDTH) == ROWS).all()


def test_gather_takes_rows_by_position() -> None:
    gather = op(
        "gather", dst=LmuRef(1000, 8), table=HbmRef(memory_map().addresses["table"]), index="position", ids=HbmRef(0),
        offset=2, limit=LENGTH, columns=8, rows=1,
    )  # fmt: skip
    assert (lmu(run(gather, position=50), 1000, 3, 8) == parameter("table")[52:55]).all()


def test_load_and_store() -> None:
    row = HbmRef(memory_map().addresses["row"])
    logits = memory_map().logits
    target = run(
        op("load", dst=LmuRef(1000), src=row, columns=WIDTH),
        op("store", dst=HbmRef(logits), pitch=400, src=LmuRef(0, WIDTH), columns=WIDTH, rows=1),
    )
    assert (lmu(target, 1000, 1, WIDTH)[0] == parameter("row")).all()
    for r in range(3):
        assert (target.hbm.read(logits + 400 * r, (WIDTH,), np.float32) == ROWS[r]).all()


@pytest.mark.parametrize("fused", [False, True])
def test_matmul_applies_its_chain_in_order(fused: bool) -> None:
    weight = HbmRef(memory_map().addresses["matrix"])
    options: dict[str, Any] = {}
    if fused:
        options = {"bias": HbmRef(memory_map().addresses["row"]), "scale": 0.1, "softcap": 0.7, "activation": "silu",
                   "times": LmuRef(0, WIDTH), "plus": LmuRef(0, WIDTH)}  # fmt: skip
    target = run(
        op("matmul", dst=LmuRef(1000, WIDTH), src=LmuRef(0, WIDTH), weight=weight, k=WIDTH, n=WIDTH, type="f16", rows=1,
           **options)
    )  # fmt: skip
    y = ROWS.astype(np.float64) @ parameter("matrix").astype(np.float64).T
    if fused:
        y = (y + parameter("row")) * np.float32(0.1)
        y = np.tanh(y / np.float32(0.7)) * np.float32(0.7)
        y = y / (1 + np.exp(-y)) * ROWS + ROWS
    np.testing.assert_allclose(lmu(target, 1000, 3, WIDTH), y, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_a_gated_matmul_multiplies_by_the_other_half(bias: bool) -> None:
    weight, n = HbmRef(memory_map().addresses["matrix"]), WIDTH // 2
    options: dict[str, Any] = {"bias": HbmRef(memory_map().addresses["row"])} if bias else {}
    target = run(
        op("matmul", dst=LmuRef(1000, n), src=LmuRef(0, WIDTH), weight=weight, k=WIDTH, n=n, type="f16", rows=1,
           scale=0.1, activation="silu", gated=1, plus=LmuRef(0, WIDTH), **options)
    )  # fmt: skip
    y = ROWS.astype(np.float64) @ parameter("matrix").astype(np.float64).T + (parameter("row") if bias else 0)
    gate, up = y[:, :n] * np.float32(0.1), y[:, n:]
    expected = gate / (1 + np.exp(-gate)) * up + ROWS[:, :n]
    np.testing.assert_allclose(lmu(target, 1000, 3, n), expected, rtol=2e-5, atol=2e-5)


def test_a_gated_matmul_is_two_and_a_product_to_the_bit() -> None:
    """Rows 0 to 31, and 32 to 63 from their own address: tiles hold 16 rows."""
    start, n = memory_map().addresses["matrix"], 32
    second = HbmRef(start + n // 16 * -(-WIDTH // 64) * 16 * 64 * 2)
    common = {"src": LmuRef(0, WIDTH), "k": WIDTH, "n": n, "type": "f16", "rows": 1}
    target = run(
        op("matmul", dst=LmuRef(1000, n), weight=second, **common),
        op("matmul", dst=LmuRef(2000, n), weight=HbmRef(start), activation="gelu", times=LmuRef(1000, n), **common),
        op("matmul", dst=LmuRef(3000, n), weight=HbmRef(start), activation="gelu", gated=1, **common),
    )
    assert lmu(target, 3000, 3, n).tobytes() == lmu(target, 2000, 3, n).tobytes()


def test_scales_of_tables_and_offsets_of_norms() -> None:
    row = HbmRef(memory_map().addresses["row"])
    gather = op(
        "gather", dst=LmuRef(9000, 8), table=HbmRef(memory_map().addresses["table"]), index="position", ids=HbmRef(0),
        limit=LENGTH, columns=8, rows=1, scale=0.3,
    )  # fmt: skip
    common = {"a": view(0), "weight": row, "epsilon": 1e-5, "columns": WIDTH, "rows": 1, "unit_offset": 1}
    target = run(
        embed(3000, scale=0.3),
        gather,
        op("rms_norm", dst=view(1000), **common),
        op("layer_norm", dst=view(2000), bias=row, **common),
    )
    weight = np.float32(1) + parameter("row")
    assert (lmu(target, 3000, 3, WIDTH) == ROWS * np.float32(0.3)).all()
    assert (lmu(target, 9000, 3, 8) == parameter("table")[:3] * np.float32(0.3)).all()
    assert (lmu(target, 1000, 3, WIDTH) == arithmetic.rms_norm(ROWS, weight, 1e-5)).all()
    assert (lmu(target, 2000, 3, WIDTH) == arithmetic.layer_norm(ROWS, weight, parameter("row"), 1e-5)).all()


def test_vector_instructions_work_on_strided_views() -> None:
    """Three heads of 20 columns out of 70, written back side by side with gaps of two."""
    a = ViewRef(5, WIDTH, 20)
    dst = ViewRef(2000, 66, 22)
    target = run(
        op("unary", function="exp", dst=dst, a=a, groups=3, columns=20, rows=1),
        op("binary", function="sub", dst=dst, a=dst, b=ViewRef(5, WIDTH, 20), groups=3, columns=20, rows=1),
        op("binary_scalar", function="sub", dst=dst, a=dst, b=2.0, reversed=1, groups=3, columns=20, rows=1),
        op("reduce", function="mean", dst=ViewRef(4000, 3, 1), a=dst, groups=3, columns=20, rows=1),
    )
    heads = ROWS[:, 5:65].reshape(3, 3, 20)
    expected = np.float32(2) - (arithmetic.unary("exp", heads) - heads)
    got = target.state.lmu.read(2000, (3, 3, 20), (66, 22, 1))
    assert (got == expected).all()
    assert (lmu(target, 4000, 3, 3) == arithmetic.row_mean(expected)[..., 0]).all()


def test_a_column_stride_of_zero_broadcasts() -> None:
    target = run(
        op("reduce", function="row_max", dst=view(2000, 1), a=view(0), columns=WIDTH, rows=1),
        op("binary", function="div", dst=view(3000), a=view(0), b=ViewRef(2000, 1, 0, 0), columns=WIDTH, rows=1),
    )
    assert (lmu(target, 3000, 3, WIDTH) == ROWS / ROWS.max(1, keepdims=True)).all()


def test_norms_rotary_and_selection_are_the_arithmetic() -> None:
    row = HbmRef(memory_map().addresses["row"])
    style = "interleaved"
    target = run(
        op("rms_norm", dst=view(1000), a=view(0), weight=row, epsilon=1e-5, columns=WIDTH, rows=1),
        op("layer_norm", dst=view(2000), a=view(0), weight=row, bias=row, epsilon=1e-5, columns=WIDTH, rows=1),
        op("rotary", dst=view(3000), a=view(0), cos=LmuRef(0, WIDTH), sin=LmuRef(8, WIDTH), style=style, turned=8,
           columns=WIDTH, rows=1),
        op("select_rows", dst=LmuRef(4000, WIDTH), src=LmuRef(0, WIDTH), first=3, columns=WIDTH, rows=4),
        first=1,
    )  # fmt: skip
    weight = parameter("row")
    assert (lmu(target, 1000, 3, WIDTH) == arithmetic.rms_norm(ROWS, weight, 1e-5)).all()
    assert (lmu(target, 2000, 3, WIDTH) == arithmetic.layer_norm(ROWS, weight, weight, 1e-5)).all()
    rotated = arithmetic.rotary(ROWS[:, None], ROWS[:, :8], ROWS[:, 8:16], style)[:, 0]
    assert (lmu(target, 3000, 3, WIDTH) == rotated).all()
    assert (lmu(target, 4000, 2, WIDTH) == ROWS[1:]).all()


ATTENTION = [attention(kind) for kind in ("store_key", "store_value", "scores", "softmax", "values")]


def windowed(window: int) -> list[Instruction]:
    return [*ATTENTION[:2], *(attention(kind, window=window) for kind in ("scores", "softmax", "values"))]


@pytest.mark.parametrize("window", [0, 5])
def test_attention_matches_float64_and_any_chunking(window: int) -> None:
    """72 tokens cross a tile of 64 positions; steps of 4, 3 and 1 must agree to the bit."""
    tokens = [(7 * i) % VOCAB for i in range(72)]
    results = {}
    for chunk in (4, 3, 1):
        target = machine(embed(), *windowed(window), HALT)
        parts = []
        for start in range(0, 72, chunk):
            target.run(tokens[start : start + chunk], start, 0)
            parts.append(lmu(target, 9000, chunk, SIZE))
        results[chunk] = np.concatenate(parts)
    assert results[4].tobytes() == results[3].tobytes() == results[1].tobytes()

    x = parameter("embedding")[tokens].astype(np.float64)[:, :SIZE]
    scores = x @ x.T * 0.25
    i, j = np.indices(scores.shape)
    scores[(j > i) | ((j <= i - window) & (window > 0))] = -np.inf
    p = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(results[4], p / p.sum(1, keepdims=True) @ x, rtol=2e-2, atol=2e-3)


def test_stale_cache_beyond_a_row_takes_no_part() -> None:
    """A new conversation in the same cache: old values behind the present position, infinite ones too."""
    fresh = machine(embed(), *ATTENTION, HALT)
    fresh.run([5], 0, 0)
    used = machine(embed(), *ATTENTION, HALT)
    used.run([1, 2, 3], 0, 0)
    cache = memory_map().main.caches[0]
    tiles = used.hbm.tiles(memory_map().kv_start + cache.value_offset, SIZE, LENGTH)
    tiles[:, 0, :, 1:3] = 0x7C00
    used.run([5], 0, 0)
    assert lmu(used, 9000, 1, SIZE).tobytes() == lmu(fresh, 9000, 1, SIZE).tobytes()
    assert used.fault is None


def count(register: int) -> Instruction:
    return op("add", dst=register, a=register, b=0, value=1)


def test_repeats_nest_and_calls_return() -> None:
    program = [
        op("set", dst=9, value=0), op("set", dst=10, value=-5), op("set", dst=0, value=77),
        op("repeat", count=3, length=5),
        op("repeat", count=4, length=1), count(9),
        op("call", target=11), op("repeat", count=0, length=1), count(9),
        op("add", dst=11, a=9, b=10, value=100), HALT,
        count(10), op("repeat", count=2, length=1), count(10), op("ret"),
    ]  # fmt: skip
    target = machine(*program)
    target.run([1], 0, 0)
    assert target.registers[9:12] == [12, -5 + 9, 12 + 4 + 100]
    assert target.registers[0] == 0


def test_repeats_that_end_together() -> None:
    target = machine(
        op("set", dst=9, value=0), op("repeat", count=3, length=2), op("repeat", count=5, length=1), count(9), HALT
    )
    target.run([1], 0, 0)
    assert target.registers[9] == 15


def test_the_host_sets_the_registers_of_a_pass() -> None:
    target = machine(HALT)
    target.run([1, 2, 3], 40, 1)
    assert target.registers[:9] == [0, 3, 40, 1, 2, None, None, None, None]


def logits_program() -> Program:
    """Logits straight from the embeddings: the embedding matrix times the token's own row."""
    table, logits = HbmRef(memory_map().addresses["embedding"]), memory_map().logits
    return Program(
        (
            embed(),
            op("select_rows", dst=LmuRef(1000, WIDTH), src=LmuRef(0, WIDTH), first=3, columns=WIDTH, rows=4),
            op("matmul", dst=LmuRef(2000, VOCAB), src=LmuRef(1000, WIDTH), weight=table, k=WIDTH, n=VOCAB, type="f16",
               rows=4),
            op("store", dst=HbmRef(logits), pitch=4 * VOCAB, src=LmuRef(2000, VOCAB), columns=VOCAB, rows=4),
            op("sample", dst=7, src=LmuRef(2000, VOCAB), columns=VOCAB, rows=4, settings=HbmRef(memory_map().sampling)),
            HALT,
        )
    )  # fmt: skip


def device(chunk: int = 4, head_rows: int = 2, get: Any = parameter) -> InterpreterDevice:
    hbm = Hbm.from_parameters(memory_map(), layout(), get)
    return InterpreterDevice(logits_program(), hbm, memory_map(), chunk, head_rows, LMU_WORDS)


@pytest.mark.parametrize("head_rows", [1, 2, 4])
@pytest.mark.parametrize("first", [None, 0, 5, 9])
def test_device_splits_into_passes(head_rows: int, first: int | None) -> None:
    tokens = [(3 * i) % VOCAB for i in range(10)]
    runner = device(head_rows=head_rows)
    got = runner.forward(tokens, 0, first)
    table = parameter("embedding").astype(np.float32)
    wanted = tokens[9 if first is None else first :]
    assert got.shape == (len(wanted), VOCAB)
    np.testing.assert_allclose(got, table[wanted] @ table.T, rtol=1e-4, atol=1e-4)
    assert runner.next_token == int(np.argmax(got[-1])) == tokens[-1]


def test_device_refuses_what_does_not_fit() -> None:
    runner = device()
    with pytest.raises(MachineFault, match="no step has chosen"):
        _ = runner.next_token
    with pytest.raises(PromptError, match="no tokens"):
        runner.forward([], 0)
    with pytest.raises(PromptError, match="3 tokens from position 98 on; the compiled model holds 100 positions"):
        runner.forward([1, 2, 3], 98)
    with pytest.raises(PromptError, match="from row 3 on, there are 3 rows"):
        runner.forward([1, 2, 3], 0, 3)


def test_device_raises_on_the_sticky_flag() -> None:
    runner = device(get=lambda key: np.full_like(parameter(key), np.inf))
    message = "NaN or infinity made in chunk 0, by instruction 0 (embed)"
    with pytest.raises(NumericError, match=re.escape(message)):
        runner.forward([1, 2, 3], 0)


def test_hbm_from_images_is_hbm_from_parameters(tmp_path: Path) -> None:
    plan = memory_map()
    built = Hbm.from_parameters(plan, layout(), parameter)
    stripes = built.bytes[: plan.parameter_end].reshape(-1, plan.target.channels, 64)
    paths = [tmp_path / f"{channel}.bin" for channel in range(plan.target.channels)]
    for channel, path in enumerate(paths):
        write_binary(path, Kind.PARAMETERS, stripes[:, channel].tobytes())
    assert (Hbm.from_images(paths, plan).bytes == built.bytes).all()

    with pytest.raises(FileFormatError, match="3 parameter images, u55c has 32 channels"):
        Hbm.from_images(paths[:3], plan)
    payload = bytearray(paths[4].read_bytes())
    payload[40] ^= 1
    paths[4].write_bytes(payload)
    with pytest.raises(FileFormatError, match="corrupted"):
        Hbm.from_images(paths, plan)
    short = bytes(64)
    paths[4].write_bytes(pack_header(Kind.PARAMETERS, 64, zlib.crc32(short)) + short)
    with pytest.raises(FileFormatError, match="64 bytes, the memory map says"):
        Hbm.from_images(paths, plan)


def test_hbm_from_parameters_checks_shapes_and_types() -> None:
    with pytest.raises(CheckpointError, match=re.escape("embedding: shape [40, 69], expected [40, 70]")):
        Hbm.from_parameters(memory_map(), layout(), lambda key: parameter(key)[..., :-1])
    with pytest.raises(CheckpointError, match="embedding: dtype float32, expected f16"):
        Hbm.from_parameters(memory_map(), layout(), lambda key: parameter(key).astype(np.float32))
    assert HEADS * SIZE <= WIDTH


# ---------------------------------------------------------------------------------------------------- order of layers
def test_a_table_says_which_body_runs() -> None:
    """lookup and skip_unless in a repeat: the numbers 2, 0, 1 take one body each."""
    bodies = [
        item
        for number in range(3)
        for item in (op("skip_unless", a=14, value=number, length=1), op("add", dst=10, a=10, b=10, value=number + 1))
    ]
    target = machine(
        op("set", dst=10, value=0),
        op("set", dst=13, value=0),
        op("repeat", count=3, length=8),
        op("lookup", dst=14, table=HbmRef(memory_map().addresses["numbers"]), index=13, limit=3),
        op("add", dst=13, a=13, b=0, value=1),
        *bodies,
        HALT,
    )
    target.run([1], 0, 0)
    assert target.registers[10] == ((0 * 2 + 3) * 2 + 1) * 2 + 2
    assert target.registers[13] == 3


@pytest.mark.parametrize("index", [-1, 3])
def test_a_lookup_outside_its_table_is_a_fault(index: int) -> None:
    table = HbmRef(memory_map().addresses["numbers"])
    target = machine(op("set", dst=13, value=index), op("lookup", dst=14, table=table, index=13, limit=3), HALT)
    with pytest.raises(MachineFault, match=rf"^instruction 1 \(lookup\): number {index} of a table of 3$"):
        target.run([1], 0, 0)


def test_a_lookup_outside_hbm_is_a_fault() -> None:
    table = HbmRef((1 << 40) - 8)
    target = machine(op("lookup", dst=14, table=table, index=0, limit=3), HALT)
    with pytest.raises(MachineFault, match=r"^instruction 0 \(lookup\): HBM bytes "):
        target.run([1], 0, 0)


def test_a_skip_stays_in_its_repeat() -> None:
    target = machine(op("repeat", count=1, length=1), op("skip_unless", a=0, value=1, length=1), HALT, HALT)
    with pytest.raises(MachineFault, match=r"^instruction 1 \(skip_unless\): the body ends at 3, that of the repeat"):
        target.run([1], 0, 0)
