"""The matmul of the native executor against the interpreter's, bit by bit: kernels, epilogue, overlapping operands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.programs.machine_programs import op

from hyperdex_ir.interpreter.arithmetic import quiet
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.native.features import available
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

LMU_WORDS, CHUNK = 60_000, 40
FEATURES = {item.name: item for item in available()}
SRC, DST, TIMES, PLUS = 0, 20_000, 30_000, 40_000
feature_sets = pytest.mark.parametrize("features", FEATURES)


@dataclass
class Case:
    """A matmul and what it works on. Operands by name replace or add to the usual ones."""

    rows: int
    k: int
    n: int
    type: str = "f16"
    gated: bool = False
    bias: bool = False
    target: str = "u55c"
    threads: int = 2
    features: str = next(iter(FEATURES))
    operands: dict[str, Any] = field(default_factory=dict)
    scale_of_inputs: float = 1.0
    weight: np.ndarray | None = None
    source: np.ndarray | None = None

    def run(self) -> tuple[np.ndarray, bool]:
        """The LMU after it, float32, and whether the flag went up: of both executors, which must agree."""
        hbm, lmu, instruction = self._memory(), self._lmu(), self._instruction()
        program = Program((instruction, op("halt")))
        expected, flag = self._interpreted(program, hbm, lmu)
        machine = NativeMachine(
            program, hbm, chunk=CHUNK, lmu_words=LMU_WORDS, threads=self.threads, features=FEATURES[self.features]
        )
        machine.write_lmu(0, lmu)
        machine.run([0] * self.rows, 0, 0)
        result = machine.lmu(0, 1, LMU_WORDS)[0]
        assert (machine.fault is not None) == flag
        same_bits(result, expected)
        return result, flag

    @property
    def matrix_rows(self) -> int:
        return 2 * self.n if self.gated else self.n

    def _memory(self) -> Hbm:
        rng = np.random.default_rng(self.k + self.n)
        shape = (self.matrix_rows, self.k)
        weight = rng.standard_normal(shape, np.float32) if self.weight is None else self.weight
        values = {
            "weight": FORMATS[self.type].round(weight.astype(np.float32)),
            "bias": rng.standard_normal(self.matrix_rows, np.float32),
        }
        parameters = (
            Parameter("other", "f32", (7,), ("other",), (1.0,) * 7),
            Parameter("weight", self.type, shape, ("weight",)),
            Parameter("bias", "f32", (self.matrix_rows,), ("bias",)),
        )
        main = FunctionLayout("main", parameters, (KvCache(1, 8, 8),))
        layout = ModelLayout(self.type, 8, main, (), ())
        memory_map = plan_memory(layout, load_target(self.target), 64)
        self._addresses = memory_map.addresses
        return Hbm.from_parameters(memory_map, layout, values.__getitem__)

    def _lmu(self) -> np.ndarray:
        lmu = np.random.default_rng(self.rows).standard_normal(LMU_WORDS, np.float32)
        lmu[SRC : SRC + self.rows * self.k] *= self.scale_of_inputs
        if self.source is not None:
            lmu[SRC : SRC + self.source.size] = self.source.reshape(-1)
        return lmu

    def _instruction(self) -> Any:
        values: dict[str, Any] = {
            "dst": LmuRef(DST, self.n), "src": LmuRef(SRC, self.k), "weight": HbmRef(self._addresses["weight"]),
            "k": self.k, "n": self.n, "type": self.type, "rows": 1, "gated": int(self.gated),
        }  # fmt: skip
        if self.bias:
            values["bias"] = HbmRef(self._addresses["bias"])
        return op("matmul", **{**values, **self.operands})

    def _interpreted(self, program: Program, hbm: Hbm, lmu: np.ndarray) -> tuple[np.ndarray, bool]:
        machine = Machine(program, hbm, chunk=CHUNK, lmu_words=LMU_WORDS)
        lmu_state = machine.state.lmu
        forget = lmu_state.forget

        def filled() -> None:
            forget()
            lmu_state.write(0, (1,), lmu)

        lmu_state.forget = filled
        machine.run([0] * self.rows, 0, 0)
        return lmu_state.read(0, (LMU_WORDS,), (1,)).copy(), machine.fault is not None


def same_bits(result: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the bit; a NaN equals a NaN."""
    both_nan = np.isnan(result) & np.isnan(expected)
    different = (result.view(np.uint32) != expected.view(np.uint32)) & ~both_nan
    assert not different.any(), f"word {int(np.argmax(different))} of {int(different.sum())} that differ"


@feature_sets
@pytest.mark.parametrize("type_", ["f16", "bf16"])
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 13])
@pytest.mark.parametrize(("k", "n"), [(64, 16), (70, 33), (200, 100), (1, 1), (130, 5)])
def test_products(features: str, type_: str, rows: int, k: int, n: int) -> None:
    Case(rows, k, n, type_, features=features).run()


@feature_sets
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 9])
def test_any_number_of_threads(features: str, threads: int, rows: int) -> None:
    Case(rows, 150, 100, gated=True, bias=True, threads=threads, features=features).run()


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("gated", [False, True])
def test_a_target_with_32_trees(rows: int, gated: bool) -> None:
    Case(rows, 100, 70, target="asic", gated=gated, bias=True).run()


EPILOGUES = {
    "bias": {},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 2.5},
    "times": {"times": LmuRef(TIMES, 50)},
    "plus": {"plus": LmuRef(PLUS, 45)},
    "all": {
        "scale": -1.5, "softcap": 30.0, "activation": "gelu", "times": LmuRef(TIMES, 50), "plus": LmuRef(PLUS, 45),
    },
    **{name: {"activation": name} for name in ("relu", "silu", "gelu", "gelu_tanh", "sigmoid", "tanh")},
}  # fmt: skip


@feature_sets
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogue(features: str, rows: int, gated: bool, name: str) -> None:
    bias = name in ("bias", "all")
    Case(rows, 90, 41, gated=gated, bias=bias, operands=EPILOGUES[name], features=features).run()


@feature_sets
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize(("n", "distance"), [(25, 41), (16, 66), (41, 41), (30, 7), (60, 1)])
def test_gates_at_a_distance(features: str, threads: int, rows: int, n: int, distance: int) -> None:
    """Part of the columns of a gated matrix, whose gates lie behind all of them."""
    operands = {"n": n, "gate_distance": distance, "activation": "silu", "dst": LmuRef(DST, 60)}
    Case(rows, 90, 41, gated=True, bias=True, operands=operands, threads=threads, features=features).run()


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    "operands",
    [
        {"dst": LmuRef(DST, 41), "plus": LmuRef(DST, 41)},
        {"dst": LmuRef(DST, 41), "plus": LmuRef(DST + 3, 41)},
        {"dst": LmuRef(DST, 41), "times": LmuRef(DST - 7, 50)},
        {"dst": LmuRef(SRC, 41)},
        {"dst": LmuRef(SRC + 30, 90)},
        {"dst": LmuRef(DST, 10)},
        {"dst": LmuRef(DST, 0), "plus": LmuRef(DST, 0)},
        {"dst": LmuRef(DST, 60), "src": LmuRef(SRC, 0)},
    ],
)
def test_operands_that_overlap(rows: int, operands: dict[str, Any]) -> None:
    Case(rows, 90, 41, operands=operands, threads=3).run()


@feature_sets
@pytest.mark.parametrize("type_", ["f16", "bf16"])
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e-6, 1e4])
def test_extremes(features: str, type_: str, rows: int, scale: float) -> None:
    """Subnormals, products that leave float32, and infinities at issue (the flag), in both matrix types."""
    weight = np.random.default_rng(1).standard_normal((40, 100)) * scale
    if type_ == "f16":
        weight = np.clip(weight, -60000, 60000)
    Case(rows, 100, 40, type_, weight=weight, scale_of_inputs=scale, features=features).run()


@feature_sets
@pytest.mark.parametrize("rows", [1, 7])
def test_sums_of_nothing_but_minus_zero(features: str, rows: int) -> None:
    """bf16 products that underflow to -0 in every lane: the result is +0."""
    weight = np.full((20, 128), -1e-38)
    source = np.full((rows, 128), 1e-38, np.float32)
    lmu, _ = Case(rows, 128, 20, "bf16", weight=weight, source=source, features=features).run()
    assert (lmu[DST : DST + 20].view(np.uint32) == 0).all()


@feature_sets
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 70000.0])
def test_the_flag(features: str, rows: int, bad: float) -> None:
    source = np.ones((rows, 80), np.float32)
    source[-1, 79] = bad
    assert Case(rows, 80, 30, source=source, features=features).run()[1]


@feature_sets
def test_the_flag_does_not_see_padding(features: str) -> None:
    """What lies behind the last column and the last element of a row has no say."""
    source = np.full(400, np.nan, np.float32)
    source[:70] = 1
    with quiet():
        _, flag = Case(1, 70, 33, source=source, features=features, operands={"plus": LmuRef(TIMES, 33)}).run()
    assert not flag


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "none"])
def test_each_step_is_watched(activation: str) -> None:
    """An infinity after the scale raises the flag, even where the activation hides it."""
    operands = {"scale": 1e38, "activation": activation}
    assert Case(1, 64, 16, operands=operands, source=np.full(64, 1000.0, np.float32)).run()[1]


@pytest.mark.parametrize("type_", ["f16", "bf16"])
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("size", [{"k": 0}, {"n": 0}])
def test_a_matrix_of_nothing(type_: str, rows: int, size: dict[str, Any]) -> None:
    """No columns write nothing, no elements sum to +0."""
    Case(rows, 64, 16, type_, operands=size).run()
