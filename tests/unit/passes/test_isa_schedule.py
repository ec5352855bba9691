"""`isa-schedule` on the shape of SmolLM2, some layers of it: what it moves, what it says, what it leaves alone."""

from __future__ import annotations

import pytest
from support import TESTS
from support.models.tiny import tiny_llama_config
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

from hyperdex_ir.dialects.isa import InstructionOp
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.isa.instructions import SPECS, Engine, Group
from hyperdex_ir.passes.isa_schedule import schedule_module
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.support.xdsl import module_path, parse_module, print_module
from hyperdex_ir.targets import load_target

MAX_LENGTH = 2048


def test_every_instruction_that_writes_hbm_is_known_as_one() -> None:
    """All of SMA that do not write the LMU; one that is missing could pass reads of what it writes."""
    memory = [spec for spec in SPECS if spec.engine is Engine.SMA]
    writers = {spec.name for spec in memory if not any(operand.writes for operand in spec.lmu)}
    assert writers == {spec.name for spec in SPECS if spec.stores}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    config = tiny_llama_config(
        hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
        max_position_embeddings=MAX_LENGTH,
    )  # fmt: skip
    config.save_pretrained(folder)
    module = trace_model(folder, target="u55c", max_length=MAX_LENGTH, matrix_type="f16").module
    return print_module(module, locations=True)


def _scheduled(traced: str, pipeline: str, target: str = "u55c") -> tuple[ModuleOp, tuple[int, int]]:
    """The module up to and with isa-schedule, and the cycles before and after that it notes."""
    module = parse_module(traced.replace('"u55c"', f'"{target}"'))
    for one in parse_pipeline(pipeline):
        run_pass(module, one)
        if one.name == "isa-schedule":
            break
    cycles = [module.attributes[name] for name in ("isa.cycles_before", "isa.cycles")]
    numbers = [attribute.value.data for attribute in cycles if isinstance(attribute, IntegerAttr)]
    return module, (numbers[0], numbers[1])


def _layer(module: ModuleOp) -> list[InstructionOp]:
    function = list(module.ops)[1]
    return [op for op in function.walk() if isinstance(op, InstructionOp)]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["u55c", "asic"])
def test_unfused_values_come_first_and_their_store_hides(traced: str, target: str) -> None:
    module, (before, after) = _scheduled(traced, "o0", target)
    assert after < before
    layer = _layer(module)
    matrices = [module_path(op).rsplit(".", 1)[-1] for op in layer if op.name == "isa.matmul"]
    assert matrices[:4] == ["v_proj", "k_proj", "q_proj", "o_proj"]
    names = [op.name for op in layer]
    store = names.index("isa.store_value")
    assert store > [number for number, name in enumerate(names) if name == "isa.matmul"][2]
    assert max(store, names.index("isa.store_key")) < names.index("isa.scores")


@pytest.mark.parametrize("target", ["u55c", "asic"])
def test_the_fused_layer_keeps_its_size(traced: str, target: str) -> None:
    module, (before, after) = _scheduled(traced, "default", target)
    assert after < 0.99 * before
    layer = _layer(module)
    assert sum(op.spec().group is not Group.CTRL for op in layer) <= 14
    names = [op.name for op in layer]
    assert names.index("isa.store_value") < names.index("isa.store_key"), "values are finished first"
    limit = load_target(target).prefetch_stripes
    ahead = [op.operand("prefetch") for op in layer if op.name == "isa.matmul"]
    assert all(0 < stripes <= limit for stripes in ahead), "each waits for a norm, for attention or for the gate"


def test_the_figures_are_those_of_the_program(traced: str) -> None:
    module, (_, after) = _scheduled(traced, "default")
    program = to_program(module, chunk=1, head_rows=1)
    assert estimate(program, load_target("u55c"), position=MAX_LENGTH - 1).cycles == after


def test_scheduling_again_changes_nothing(traced: str) -> None:
    module, (_, after) = _scheduled(traced, "o0")
    functions = [print_module(op) for op in module.ops]
    result = schedule_module(module)
    assert result is not None
    assert (result.after, result.moved, result.too_large) == (after, (), ())
    assert [print_module(op) for op in module.ops] == functions


def test_an_order_that_does_not_fit_is_counted() -> None:
    module = parse_module((TESTS / "filecheck/passes/isa-schedule.mlir").read_text().split("// -----")[-1])
    result = schedule_module(module)
    assert result is not None
    assert (result.moved, result.too_large) == ((), ("main",))


def test_addresses_are_for_the_order_as_it_stands(traced: str) -> None:
    module = parse_module(traced)
    for one in parse_pipeline("o0"):
        if one.name != "isa-schedule":
            run_pass(module, one)
    before = print_module(module)
    assert schedule_module(module) is None
    assert print_module(module) == before
