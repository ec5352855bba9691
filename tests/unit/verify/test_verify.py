"""`hyperdex verify`: breaking one pass on purpose is noticed, with the pass, the operation and its module."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint
from typer.testing import CliRunner
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from hyperdex_ir.cli.main import app
from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu_ops.choices import ChoiceAttr
from hyperdex_ir.errors import PromptError
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.support.xdsl import module_path, print_module
from hyperdex_ir.verify.levels import Level
from hyperdex_ir.verify.model import Model, open_model
from hyperdex_ir.verify.passes import Result, Verifier, random_tokens
from hyperdex_ir.verify.values import Run, Value, first_difference, plan_runs, split_runs


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_llama_config(attention_bias=True, mlp_bias=True)
    return write_checkpoint(config, tmp_path_factory.mktemp("verify") / "model")


@pytest.fixture(scope="module")
def traced(checkpoint: Path) -> Model:
    return open_model(str(checkpoint))


@pytest.fixture
def model(traced: Model) -> Model:
    """A model whose module the test may change."""
    return dataclasses.replace(traced, module=traced.module.clone())


def verified(model: Model, pipeline: str = "default") -> list[Result]:
    return Verifier(model, random_tokens(model, 7, 0)).each_pass(parse_pipeline(pipeline))


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["default", "o0"])
def test_every_pass_is_exact(model: Model, pipeline: str) -> None:
    results = verified(model, pipeline)
    assert [result.name for result in results] == [one.name for one in parse_pipeline(pipeline)]
    assert all(result.equal and result.passed and not result.error for result in results)


@pytest.mark.slow
def test_what_a_pass_leaves_unchanged_is_not_run_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text that the module has on the way is run once."""
    module, passes = model.module.clone(), parse_pipeline("default")
    expected = [print_module(module, locations=True)]
    for one in passes:
        run_pass(module, one)
        expected.append(print_module(module, locations=True))
    texts: list[str] = []
    run = Verifier._run

    def watched(verifier: Verifier, level: Level) -> object:
        texts.append(print_module(verifier._module, locations=True))
        return run(verifier, level)

    monkeypatch.setattr(Verifier, "_run", watched)
    assert len(verified(model)) == len(passes)
    assert texts == list(dict.fromkeys(expected))
    assert len(texts) < len(expected)


@pytest.mark.slow
def test_the_whole_pipeline(model: Model) -> None:
    (result,) = Verifier(model, random_tokens(model, 5, 1)).whole(parse_pipeline("default"))
    assert result.passed
    assert result.equal


# ----------------------------------------------------------------------------------------------------- ten mutations
def find(module: ModuleOp, name: str, path: str) -> Operation:
    """The first operation of that name whose module path ends so."""
    for op in module.walk():
        if op.name == name and module_path(op).endswith(path):
            return op
    raise AssertionError(f"no {name} of {path}")


def set_property(name: str, path: str, key: str, value: object) -> Callable[[ModuleOp], None]:
    def change(module: ModuleOp) -> None:
        op = find(module, name, path)
        old = op.properties.get(key)
        if value is None:
            del op.properties[key]
        elif isinstance(value, str):
            assert isinstance(old, ChoiceAttr)
            op.properties[key] = type(old)(value)
        elif isinstance(value, float):
            op.properties[key] = FloatAttr(value, f32)
        else:
            assert isinstance(old, IntegerAttr)
            op.properties[key] = IntegerAttr(value, old.type)

    return change


def swap_operands(module: ModuleOp) -> None:
    op = find(module, "lpu.rotary", "self_attn")
    _, cos, sin = op.operands
    op.operands[1], op.operands[2] = sin, cos


def shift_slice(module: ModuleOp) -> None:
    op = find(module, "lpu.slice", "k_proj")
    assert isinstance(op, lpu.SliceOp)
    _, start, stop, _ = op.bounds
    op.properties |= {"start": IntegerAttr(start + 1, 64), "stop": IntegerAttr(stop + 1, 64)}


def take_wrong_residual(module: ModuleOp) -> None:
    wrong, right = find(module, "lpu.linear", "0.self_attn.o_proj"), find(module, "lpu.linear", "0.mlp.down_proj")
    assert isinstance(wrong, lpu.LinearOp)
    assert isinstance(right, lpu.LinearOp)
    assert wrong.plus is not None
    right.operands[len(right.operands) - 1] = wrong.plus


def drop_bias(module: ModuleOp) -> None:
    op = find(module, "lpu.linear", "1.self_attn.o_proj")
    assert isinstance(op, lpu.LinearOp)
    assert op.bias is not None
    new = lpu.LinearOp(op.x, op.weight, plus=op.plus)
    new.location = op.location
    assert op.parent is not None
    op.parent.insert_op_before(new, op)
    op.res.replace_all_uses_with(new.res)
    op.detach()
    op.erase()


def share_kv_slot(module: ModuleOp) -> None:
    set_property("lpu.attention", "1.self_attn", "slot", 0)(module)


def stay_at_the_first_kv_head(module: ModuleOp) -> None:
    """The address of the KV head is no longer advanced."""
    layer = [op for op in module.ops if isinstance(op, FuncOp)][1]
    adds = [op for op in layer.walk() if op.name == "isa.add" and op.properties.get("dst") == register(layer, "scores")]
    adds[-1].properties["value"] = IntegerAttr(0, 64)


def register(layer: FuncOp, name: str) -> object:
    (op,) = (op for op in layer.walk() if op.name == f"isa.{name}")
    return op.properties["cache_register"]


MUTATIONS: dict[str, tuple[str, Callable[[ModuleOp], None], str]] = {
    "swapped operand": ("lpu-fuse-rotary", swap_operands, r"model\.layers\.0\.self_attn.*"),
    "dropped scale": (
        "lpu-token-major",
        set_property("lpu.attention", "0.self_attn", "scale", 1.0),
        r"model\.layers\.0\.self_attn",
    ),
    "off-by-one slice": ("lpu-fuse-parallel-linear", shift_slice, r"model\.layers\.0\.self_attn.*"),
    "wrong epsilon": (
        "lpu-fuse-norm",
        set_property("lpu.rms_norm", "0.post_attention_layernorm", "epsilon", 0.1),
        r"model\.layers\.0\.post_attention_layernorm",
    ),
    "wrong residual": ("lpu-fuse-epilogue", take_wrong_residual, r"model\.layers\.0\.mlp\.down_proj"),
    "missing bias": ("cse", drop_bias, r"model\.layers\.1\.self_attn\.o_proj"),
    "wrong half of rotary": (
        "lpu-fuse-rotary",
        set_property("lpu.rotary", "1.self_attn", "style", "interleaved"),
        r"model\.layers\.1\.self_attn.*",
    ),
    "wrong KV slot": ("lpu-hoist-select-rows", share_kv_slot, r"model\.layers\.[01]\.self_attn"),
    "wrong KV head": ("lower-lpu-to-isa", stay_at_the_first_kv_head, r"model\.layers\.0\.self_attn"),
    "dropped gate activation": (
        "lpu-fuse-parallel-linear",
        set_property("lpu.linear", "0.mlp", "activation", None),
        r"model\.layers\.0\.mlp",
    ),
}


@pytest.fixture(params=MUTATIONS)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Breaks one pass; gives its name and what the module path must match."""
    name, change, path = MUTATIONS[request.param]
    (one,) = parse_pipeline(name)
    original = type(one).apply

    def apply(self: object, ctx: Context, module: ModuleOp) -> None:
        original(self, ctx, module)  # pyright: ignore
        change(module)

    monkeypatch.setattr(type(one), "apply", apply)
    return name, path


@pytest.mark.slow
def test_a_broken_pass_is_named(model: Model, broken: tuple[str, str]) -> None:
    name, path = broken
    wrong = [result for result in verified(model) if not result.passed]
    assert [result.name for result in wrong] == [name]
    difference = wrong[0].difference
    assert difference is not None
    assert difference.after is not None
    assert re.fullmatch(path, difference.after.path)


@pytest.mark.slow
def test_a_pass_that_fails_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = parse_pipeline("lpu-fuse-norm")

    def apply(self: object, ctx: Context, module: ModuleOp) -> None:
        op = find(module, "lpu.linear", "0.mlp.down_proj")
        op.operands[0] = op.operands[1]

    monkeypatch.setattr(type(one), "apply", apply)
    result = verified(model)[-1]
    assert (result.name, result.passed) == ("lpu-fuse-norm", False)
    assert "model.layers.0.mlp.down_proj" in result.error
    assert (model.folder.root / "repro" / "before.mlir").is_file()


# ----------------------------------------------------------------------------------------------------- finding the op
def value(name: str, *sources: int) -> Value:
    return Value(f"lpu.{name}", name, name.encode(), (), sources)


def test_fusion_that_is_right_differs_nowhere() -> None:
    before = [value("a"), value("b", 0), value("c", 1), value("d", 2)]
    after = [value("a"), value("fused", 0), value("d", 1)]
    assert first_difference(after, before) is None
    assert first_difference(before, after) is None


def test_the_first_wrong_value_is_found_by_data_flow() -> None:
    """What does not depend on it comes after it, and is right."""
    before = [value("x"), value("v", 0), value("k", 0), value("sum", 1, 2)]
    after = [value("x"), value("wrong", 0), value("k", 0), value("other", 1, 2)]
    found = first_difference(after, before)
    assert found is not None
    assert found.path == "wrong"
    lost = first_difference(before, after)
    assert lost is not None
    assert lost.path == "v"


def test_runs() -> None:
    runs = plan_runs([1, 2, 3, 4, 5])
    assert runs == [Run((1, 2, 3), 0, 0), Run((4, 5), 3, 0), Run((4, 5), 3, 1)]
    assert plan_runs([9]) == [Run((9,), 0, 0)]
    assert split_runs(runs[:1], 2) == [Run((1, 2), 0, 0), Run((3,), 2, 0)]
    assert split_runs(runs[2:], 1) == [Run((4,), 3, 0), Run((5,), 4, 0)]


# ----------------------------------------------------------------------------------------------------- command line
@pytest.mark.slow
def test_command(checkpoint: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(checkpoint), "--each-pass", "--tokens", "1,2,3", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["passed"]
    assert found["tokens"] == [1, 2, 3]
    assert [entry["pass"] for entry in found["passes"]] == [one.name for one in parse_pipeline("default")]


@pytest.mark.slow
def test_command_reports_a_broken_pass(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = parse_pipeline("lpu-fuse-norm")
    original = type(one).apply

    def apply(self: object, ctx: Context, module: ModuleOp) -> None:
        original(self, ctx, module)  # pyright: ignore
        set_property("lpu.rms_norm", "1.input_layernorm", "epsilon", 0.1)(module)

    monkeypatch.setattr(type(one), "apply", apply)
    result = CliRunner().invoke(app, ["verify", str(checkpoint), "--each-pass", "--prompt", "Hello"])
    assert result.exit_code == 1
    line = next(line for line in result.stdout.splitlines() if line.startswith("lpu-fuse-norm"))
    assert "DIFFERENT" in line
    assert "lpu.rms_norm of model.layers.1.input_layernorm" in result.stdout
    assert sum("DIFFERENT" in line for line in result.stdout.splitlines()) == 1


def test_tokens_must_be_tokens(model: Model) -> None:
    for tokens in ([], [272], [-1], [1] * 200):
        with pytest.raises(PromptError):
            Verifier(model, tokens)


def test_no_more_random_tokens_than_positions(model: Model) -> None:
    with pytest.raises(PromptError, match=r"^1000000000000 tokens; there are 128 positions$"):
        random_tokens(model, 10**12, 0)


def test_random_tokens_depend_on_the_seed_alone(model: Model) -> None:
    first, again, other = (random_tokens(model, 20, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert all(0 <= token < 272 for token in first)
    assert np.unique(first).size > 5
