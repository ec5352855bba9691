"""Values that go round in repeats and layers lie in one buffer: nothing that is still needed may be written over."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from hyperdex_ir.passes.pipeline import run_pipeline
from hyperdex_ir.support.xdsl import parse_module
from hyperdex_ir.verify.levels import IsaLevel, LpuLevel
from hyperdex_ir.verify.values import Run

MAX_LENGTH = 16
RUNS = (Run((3, 1, 4), 0, 0), Run((1, 5, 9, 2, 6), 3, 1), Run((5,), 8, 0))

#: A row of 27 numbers, also as a cube whose axes can be exchanged.
FLAT, CUBE = "tensor<?x27xf32>", "tensor<?x3x3x3xf32>"
MODULE = f"""
builtin.module attributes {{"lpu.target" = "u55c", "lpu.max_length" = {MAX_LENGTH} : i64, "lpu.matrix_type" = "f16"}} {{
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x32xf32> {{
  %e = lpu.weight "embed" : tensor<32x27xf16>
  %p = lpu.weight "places" : tensor<32x27xf16>
  %x = lpu.embedding %e at %ids : (tensor<32x27xf16>, tensor<?xi64>) -> {FLAT}
  %y = lpu.embedding %p at %pos : (tensor<32x27xf16>, tensor<?xi64>) -> {FLAT}
  %cube = lpu.reshape %x : ({FLAT}) -> {CUBE}
  MAIN
  %s = lpu.select_rows %z : {FLAT}
  %l = lpu.linear %s by %e : {FLAT}, tensor<32x27xf16> -> tensor<?x32xf32>
  func.return %l : tensor<?x32xf32>
}}
LAYER
}}
"""


def _binary(name: str, result: str, a: str, b: str, b_type: str = FLAT) -> str:
    return f"%{result} = lpu.{name} %{a}, %{b} : ({FLAT}, {b_type}) -> {FLAT}"


def _repeat(result: str, argument: str, start: str, body: str, yielded: str, type_: str = FLAT) -> str:
    return f"%{result} = lpu.repeat 3 (%{argument} = %{start} : {type_}) {{\n{body}\nlpu.yield %{yielded} : {type_}\n}}"


def _layer(body: str, result: str, type_: str = FLAT) -> str:
    return f"func.func @f(%h: {type_}, %o: {FLAT}) -> {type_} {{\n{body}\nfunc.return %{result} : {type_}\n}}"


def _call(result: str, a: str, b: str, type_: str = FLAT) -> str:
    return f"%{result} = lpu.layer @f(%{a}, %{b}) : ({type_}, {FLAT}) -> {type_}"


def _halve(result: str, a: str) -> str:
    constant = f"%half_{result} = lpu.constant 0.5 : tensor<f32>"
    return constant + "\n" + _binary("mul", result, a, f"half_{result}", "tensor<f32>")


TURN = f"%t = lpu.transpose %h [0, 3, 2, 1] : ({CUBE}) -> {CUBE}"
TO_FLAT = f"%z = lpu.reshape %c : ({CUBE}) -> {FLAT}"

CASES = {
    "a repeat in a repeat starts from what is outside of both": (
        _repeat("z", "a", "x", _repeat("b", "i", "y", _halve("j", "i"), "j") + "\n" + _binary("add", "c", "a", "b"),
                "c"), "",
    ),
    "a layer in a repeat starts from what is outside": (
        _repeat("z", "a", "x", _call("b", "y", "a") + "\n" + _binary("add", "c", "a", "b"), "c"),
        _layer(_binary("mul", "r", "h", "o"), "r"),
    ),
    "a repeat in a layer starts from what all layers are given": (
        _repeat("z", "a", "x", _call("b", "a", "y"), "b"),
        _layer(_repeat("w", "i", "o", _halve("j", "i"), "j") + "\n" + _binary("add", "r", "h", "w"), "r"),
    ),
    "a repeat in a layer looks at the hidden value": (
        _repeat("z", "a", "x", _call("b", "a", "y"), "b"),
        _layer(
            _repeat("w", "i", "o", _binary("sub", "j", "i", "h"), "j") + "\n" + _halve("k", "w") + "\n"
            + _binary("mul", "r", "h", "k"), "r",
        ),
    ),
    "a layer hands over the hidden value turned": (
        _repeat("c", "a", "cube", _call("b", "a", "y", CUBE), "b", CUBE) + "\n" + TO_FLAT,
        _layer(TURN, "t", CUBE),
    ),
    "a repeat hands over its value turned": (_repeat("c", "h", "cube", TURN, "t", CUBE) + "\n" + TO_FLAT, ""),
    "what a repeat in a layer makes of the hidden value is turned": (
        _repeat("c", "a", "cube", _call("b", "a", "y", CUBE), "b", CUBE) + "\n" + TO_FLAT,
        _layer(
            f"%w = lpu.repeat 2 (%i = %h : {CUBE}) {{\n%j = lpu.exp %i : {CUBE}\n%k = lpu.tanh %j : {CUBE}\n"
            f"lpu.yield %k : {CUBE}\n}}\n%t = lpu.transpose %w [0, 3, 2, 1] : ({CUBE}) -> {CUBE}\n"
            f"%r = lpu.neg %t : {CUBE}", "r", CUBE,
        ),
    ),
}  # fmt: skip


def _parameter(key: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal((32, 27)).astype(np.float16)


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_is_needed_is_written_over(name: str) -> None:
    main, layer = CASES[name]
    module = parse_module(MODULE.replace("MAIN", main).replace("LAYER", layer))
    lpu = module.clone()
    expected = LpuLevel(lpu, _parameter, MAX_LENGTH).logits(RUNS).tobytes()
    for passes in ("lower-lpu-to-isa", "isa-schedule", "isa-allocate-lmu"):
        run_pipeline(module, passes)
        assert IsaLevel(module, lpu, _parameter, MAX_LENGTH).logits(RUNS).tobytes() == expected, passes
