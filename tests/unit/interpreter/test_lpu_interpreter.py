"""The interpreter of the `lpu` dialect: every operation, stages that must agree, caches, faults."""

from __future__ import annotations

import re

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.ir import Operation
from xdsl.parser import Parser

from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import LoweringError, MachineFault, NumericError, PromptError
from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.interpreter.lpu_ops import MEANINGS
from hyperdex_ir.isa.formats import F16, FORMATS

VOCAB, WIDTH, LENGTH = 20, 8, 90
INPUTS = "%ids: tensor<?xi64>, %positions: tensor<?xi64>"


def parse(text: str, matrix_type: str = "f16") -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Func, lpu.LPU):
        context.load_dialect(dialect)
    source = f'builtin.module attributes {{lpu.matrix_type = "{matrix_type}"}} {{{text}}}'
    module = Parser(context, source).parse_module()
    module.verify()
    return module


SHAPES = {"embedding": (VOCAB, WIDTH), "table": (LENGTH, 2, 4), "bias": (WIDTH,), "norm": (WIDTH,)}


def parameter(key: str, matrix_type: str = "f16") -> np.ndarray:
    """Values by key, the same each time: matrices are 8 by 8 unless listed."""
    shape = SHAPES.get(key.rpartition(".")[2], (WIDTH, WIDTH))
    values = np.random.default_rng(sum(key.encode())).standard_normal(shape).astype(np.float32)
    if key.rpartition(".")[2] in ("table", "bias", "norm"):
        return values
    return FORMATS[matrix_type].round(values).view(np.float16 if matrix_type == "f16" else np.uint16)


def body(expression: str, result: str = "?x8") -> str:
    return f"""
func.func @main({INPUTS}) -> tensor<{result}xf32> {{
  %e = lpu.weight "embedding" : tensor<20x8xf16>
  %x = lpu.embedding %e at %ids : (tensor<20x8xf16>, tensor<?xi64>) -> tensor<?x8xf32>
  {expression}
  func.return %y : tensor<{result}xf32>
}}"""


def run(expression: str, result: str = "?x8", tokens: tuple[int, ...] = (3, 7, 11)) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): the embeddings of the tokens, and what the expression makes of them."""
    got = LpuInterpreter(parse(body(expression, result)), parameter, LENGTH).forward(tokens, 0, 0)
    return parameter("embedding")[list(tokens)].astype(np.float32), got


def test_a_missing_or_surplus_handler_is_an_error() -> None:
    structural = (lpu.RepeatOp, lpu.YieldOp, lpu.LayerOp, lpu.LayersOp, lpu.AllGatherOp)
    MEANINGS.check_complete(*structural)
    with pytest.raises(TypeError, match=r"lpu\.all_gather: has no handler"):
        MEANINGS.check_complete(*structural[:-1])
    with pytest.raises(TypeError, match=r"lpu\.tanh: has a surplus handler"):
        MEANINGS.check_complete(*structural, lpu.TanhOp)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "max", "min"])
def test_binary_operations_broadcast(name: str) -> None:
    constant = "%c = lpu.constant 5.0e-01 : tensor<f32>\n"
    x, y = run(f"{constant} %y = lpu.{name} %c, %x : (tensor<f32>, tensor<?x8xf32>) -> tensor<?x8xf32>")
    assert (y == arithmetic.binary(name, np.full_like(x, 0.5), x)).all()


@pytest.mark.parametrize("name", ["neg", "exp", "tanh", "erf", "relu", "sigmoid", "silu", "gelu", "gelu_tanh"])
def test_unary_operations(name: str) -> None:
    x, y = run(f"%y = lpu.{name} %x : tensor<?x8xf32>")
    assert (y == arithmetic.unary(name, x)).all()


@pytest.mark.parametrize("name", ["sum", "mean", "row_max"])
def test_reductions_keep_the_dimension(name: str) -> None:
    x, y = run(f"%y = lpu.{name} %x : (tensor<?x8xf32>) -> tensor<?x1xf32>", "?x1")
    assert (y == arithmetic.REDUCTIONS[name](x)).all()


def test_shape_operations() -> None:
    x, y = run(
        """%a = lpu.reshape %x : (tensor<?x8xf32>) -> tensor<1x?x2x4xf32>
  %b = lpu.transpose %a [0, 2, 1, 3] : (tensor<1x?x2x4xf32>) -> tensor<1x2x?x4xf32>
  %c = lpu.slice %b dim 3 from 1 to 4 {step = 2 : i64} : (tensor<1x2x?x4xf32>) -> tensor<1x2x?x2xf32>
  %d = lpu.concat %c, %c dim 1 : (tensor<1x2x?x2xf32>, tensor<1x2x?x2xf32>) -> tensor<1x4x?x2xf32>
  %f = lpu.transpose %d [0, 2, 1, 3] : (tensor<1x4x?x2xf32>) -> tensor<1x?x4x2xf32>
  %y = lpu.reshape %f : (tensor<1x?x4x2xf32>) -> tensor<?x8xf32>"""
    )
    picked = x.reshape(3, 2, 4)[:, :, 1::2]
    assert (y == np.concatenate([picked, picked], axis=1).reshape(3, 8)).all()


def test_broadcast_repeats() -> None:
    text = "%m = lpu.mean %x : (tensor<?x8xf32>) -> tensor<?x1xf32>\n"
    x, y = run(text + "%y = lpu.broadcast %m : (tensor<?x1xf32>) -> tensor<?x8xf32>")
    assert (y == np.repeat(arithmetic.row_mean(x), 8, axis=1)).all()


def test_linear_chain_norms_and_rotary() -> None:
    x, y = run(
        """%w = lpu.weight "w" : tensor<8x8xf16>
  %b = lpu.weight "bias" : tensor<8xf32>
  %t = lpu.weight "table" : tensor<90x2x4xf32>
  %l = lpu.linear %x by %w bias %b : tensor<8xf32> scale 5.0e-01 then silu times %x plus %x : tensor<?x8xf32>, tensor<8x8xf16> -> tensor<?x8xf32>
  %n = lpu.layer_norm %l weight %b : tensor<8xf32> bias %b : tensor<8xf32> epsilon 1.0e-05 : tensor<?x8xf32>
  %r = lpu.rms_norm %n weight %b : tensor<8xf32> epsilon 1.0e-05 : tensor<?x8xf32>
  %cos, %sin = lpu.rotary_table %t at %positions : (tensor<90x2x4xf32>, tensor<?xi64>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
  %h = lpu.reshape %r : (tensor<?x8xf32>) -> tensor<?x2x4xf32>
  %o = lpu.rotary %h cos %cos sin %sin style half : (tensor<?x2x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x2x4xf32>
  %y = lpu.reshape %o : (tensor<?x2x4xf32>) -> tensor<?x8xf32>"""  # noqa: E501
    )
    bias, table = parameter("bias"), parameter("table")
    tiles = F16.round(parameter("w").astype(np.float32)).reshape(8, 1, 1, 8)
    padded = np.zeros((8, 1, 1, 64), np.uint16)
    padded[..., :8] = tiles
    mac = arithmetic.mac(padded, F16.round(x), "f16")
    chained = arithmetic.unary("silu", (mac + bias) * np.float32(0.5)) * x + x
    normed = arithmetic.rms_norm(arithmetic.layer_norm(chained, bias, bias, 1e-5), bias, 1e-5)
    turned = arithmetic.rotary(normed.reshape(3, 2, 4), table[:3, 0], table[:3, 1], "half")
    assert (y == turned.reshape(3, 8)).all()


LAYER = """
  %n{i} = lpu.rms_norm %h{i} epsilon 1.0e-05 : tensor<?x8xf32>
  %q{i} = lpu.weight "layers.{L}.q" : tensor<8x8xf16>
  %k{i} = lpu.weight "layers.{L}.k", "layers.{L}.v" : tensor<16x8xf16>
  %a{i} = lpu.linear %n{i} by %q{i} : tensor<?x8xf32>, tensor<8x8xf16> -> tensor<?x8xf32>
  %b{i} = lpu.linear %n{i} by %k{i} : tensor<?x8xf32>, tensor<16x8xf16> -> tensor<?x16xf32>
  %c{i} = lpu.reshape %a{i} : (tensor<?x8xf32>) -> tensor<?x2x4xf32>
  %d{i} = lpu.reshape %b{i} : (tensor<?x16xf32>) -> tensor<?x4x4xf32>
  %s{i} = lpu.slice %d{i} dim 1 from 0 to 1 : (tensor<?x4x4xf32>) -> tensor<?x1x4xf32>
  %t{i} = lpu.slice %d{i} dim 1 from 2 to 3 : (tensor<?x4x4xf32>) -> tensor<?x1x4xf32>
  %o{i} = lpu.attention %c{i}, %s{i}, %t{i} slot {slot} scale 5.0e-01 : (tensor<?x2x4xf32>, tensor<?x1x4xf32>, tensor<?x1x4xf32>) -> tensor<?x2x4xf32>
  %p{i} = lpu.reshape %o{i} : (tensor<?x2x4xf32>) -> tensor<?x8xf32>
  %h{j} = lpu.add %h{i}, %p{i} : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>"""  # noqa: E501

HEAD = """
  %e = lpu.weight "embedding" : tensor<20x8xf16>
  %h0 = lpu.embedding %e at %ids : (tensor<20x8xf16>, tensor<?xi64>) -> tensor<?x8xf32>"""
TAIL = """
  %z = lpu.select_rows %last : tensor<?x8xf32>
  %y = lpu.linear %z by %e : tensor<?x8xf32>, tensor<20x8xf16> -> tensor<?x20xf32>
  func.return %y : tensor<?x20xf32>"""


def layer(i: int, number: str, slot: int) -> str:
    names = {"{i}": str(i), "{j}": str(i + 1), "{L}": number, "{slot}": str(slot)}
    return re.sub("|".join(re.escape(n) for n in names), lambda match: names[match[0]], LAYER)


def flat() -> str:
    layers = "".join(layer(i, str(i), i) for i in range(3))
    return f"func.func @main({INPUTS}) -> tensor<?x20xf32> {{{HEAD}{layers}{TAIL.replace('%last', '%h3')}}}"


def outlined() -> str:
    """Two trips of a repeat, then one more call of the same function."""
    call = "lpu.layer @layer(%{}) : (tensor<?x8xf32>) -> tensor<?x8xf32>"
    repeat = (
        "%h9 = lpu.repeat 2 (%g = %h0 : tensor<?x8xf32>) { %m = "
        + call.format("g")
        + "\n lpu.yield %m : tensor<?x8xf32> }\n%h8 = "
        + call.format("h9")
    )
    function = "func.func @layer(%h0: tensor<?x8xf32>) -> tensor<?x8xf32> {" + layer(0, "*", 0)
    tail = TAIL.replace("%last", "%h8")
    main = f"func.func @main({INPUTS}) -> tensor<?x20xf32> {{{HEAD}\n{repeat}{tail}}}"
    return f"{main}\n{function}\nfunc.return %h1 : tensor<?x8xf32> }}"


def logits(text: str, chunk: int, matrix_type: str = "f16") -> np.ndarray:
    text = text.replace("f16", matrix_type)
    module = parse(text, matrix_type)
    runner = LpuInterpreter(module, lambda key: parameter(key, matrix_type), LENGTH)
    tokens = [(5 * i + i * i) % VOCAB for i in range(70)]
    return np.concatenate([runner.forward(tokens[i : i + chunk], i, 0) for i in range(0, 70, chunk)])


@pytest.mark.slow
@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
def test_flat_and_outlined_and_any_chunk_give_the_same_bits(matrix_type: str) -> None:
    expected = logits(flat(), 70, matrix_type)
    for text, chunk in ((flat(), 7), (outlined(), 70), (outlined(), 1)):
        assert logits(text, chunk, matrix_type).tobytes() == expected.tobytes()
    assert len(np.unique(expected)) > 1000


def test_only_wanted_rows_reach_the_head_and_values_are_dropped() -> None:
    seen: list[tuple[Operation, tuple[int, ...]]] = []
    runner = LpuInterpreter(
        parse(flat()), parameter, LENGTH, lambda op, _, results: seen.append((op, results[0].shape if results else ()))
    )
    assert runner.forward([1, 2, 3], 0).shape == (1, VOCAB)
    assert seen[-1][1] == (1, VOCAB)
    assert [op.name for op, _ in seen].count("lpu.attention") == 3
    assert runner.forward([4, 5], 3, 0).shape == (2, VOCAB)


def test_faults() -> None:
    runner = LpuInterpreter(parse(flat()), parameter, LENGTH)
    with pytest.raises(PromptError, match="no tokens"):
        runner.forward([], 0)
    with pytest.raises(PromptError, match="2 tokens from position 89 on; there are 90 positions"):
        runner.forward([1, 2], 89)
    with pytest.raises(PromptError, match="from row 2 on"):
        runner.forward([1, 2], 0, 2)
    with pytest.raises(MachineFault, match=re.escape("lpu.embedding: row 20 of a table of 20 rows")):
        runner.forward([20], 0)
    with pytest.raises(LoweringError, match=re.escape("no string attribute lpu.matrix_type")):
        LpuInterpreter(ModuleOp([]), parameter, LENGTH)
    with pytest.raises(LoweringError, match="no function @main"):
        LpuInterpreter(parse(""), parameter, LENGTH)


def test_a_nan_or_an_infinity_names_the_first_operation() -> None:
    located = 'loc("model.layers.3.mlp")'
    expression = f"""%a = lpu.exp %x : tensor<?x8xf32>
  %b = lpu.sub %a, %a : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %c = lpu.div %a, %b : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32> {located}
  %y = lpu.tanh %c : tensor<?x8xf32>"""
    with pytest.raises(NumericError, match=re.escape("made by lpu.div of model.layers.3.mlp")):
        run(expression)
