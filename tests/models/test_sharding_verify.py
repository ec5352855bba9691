"""`hyperdex verify` on several devices: every pass is exact, and a wrong one is found although one device is right."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint
from typer.testing import CliRunner
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, IntegerAttr, ModuleOp, i64
from xdsl.passes import ModulePass

from hyperdex_ir.cli.main import app
from hyperdex_ir.dialects import lpu
from hyperdex_ir.passes.lower_lpu_to_isa import LowerLpuToIsaPass
from hyperdex_ir.passes.lpu_partition import LpuPartitionPass
from hyperdex_ir.passes.pipeline import parse_pipeline
from hyperdex_ir.verify.model import Model, open_model
from hyperdex_ir.verify.passes import Verifier, random_tokens

pytestmark = pytest.mark.slow

NINE_HEADS = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(**NINE_HEADS), tmp_path_factory.mktemp("sharded") / "model")


@pytest.fixture(scope="module")
def traced(checkpoint: Path) -> Model:
    return open_model(str(checkpoint), 2)


@pytest.fixture
def model(traced: Model) -> Model:
    return dataclasses.replace(traced, module=traced.module.clone())


@pytest.mark.parametrize("pipeline", ["default", "o0"])
def test_every_pass_is_exact(model: Model, pipeline: str) -> None:
    results = Verifier(model, random_tokens(model, 7, 0)).each_pass(parse_pipeline(pipeline))
    assert [result.name for result in results] == [one.name for one in parse_pipeline(pipeline)]
    assert all(result.equal and not result.error for result in results)


def test_the_command(checkpoint: Path) -> None:
    arguments = ["verify", str(checkpoint), "--num-device", "3", "--tokens", "1,2,3", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["passed"] is True


def _take_another_kv_head(module: ModuleOp) -> None:
    """For the last query head of device 1."""
    for op in module.walk():
        if isinstance(op, lpu.AttentionOp):
            table = list(op.kv_head_table or ())
            table[8] = 1 - table[8]
            op.kv_heads = DenseArrayBase.from_list(i64, table)


def _hold_other_columns(module: ModuleOp) -> None:
    """Device 1 holds rows of layer 1's last matrix that begin one later."""
    weights = [op for op in module.walk() if isinstance(op, lpu.WeightOp)]
    weight = next(op for op in weights if "layers.1.mlp.down_proj" in op.key_names[0])
    assert weight.shards is not None
    (segment,) = weight.shards.data[0].segments
    moved = lpu.Segment(segment.size, segment.extent, (0, segment.starts[1] + 1))
    weight.shards = ArrayAttr([lpu.ShardingAttr(0, [moved])])


def _select_too_few(module: ModuleOp) -> None:
    """Of the residual, the columns of device 1 but the last."""
    op = next(op for op in module.walk() if op.name == "isa.select_columns")
    limit = op.properties["limit"]
    assert isinstance(limit, IntegerAttr)
    op.properties["limit"] = IntegerAttr(limit.value.data - 1, limit.type)


MUTATIONS: dict[str, tuple[type[ModulePass], Callable[[ModuleOp], None], str]] = {
    "wrong KV head": (LpuPartitionPass, _take_another_kv_head, r"model\.layers\.0\.self_attn.*"),
    "wrong shard": (LpuPartitionPass, _hold_other_columns, r"model\.layers\.1\..*"),
    "wrong columns": (LowerLpuToIsaPass, _select_too_few, r"model\.layers\.0.*"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_pass_is_named(model: Model, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    one, change, path = MUTATIONS[name]
    original = one.apply

    def apply(self: ModulePass, ctx: Context, module: ModuleOp) -> None:
        original(self, ctx, module)
        change(module)

    monkeypatch.setattr(one, "apply", apply)
    results = Verifier(model, random_tokens(model, 7, 0)).each_pass(parse_pipeline("default"))
    wrong = [result for result in results if not result.passed]
    assert [result.name for result in wrong] == [one.name]
    difference = wrong[0].difference
    assert difference is not None
    assert difference.after is not None
    assert re.fullmatch(path, difference.after.path)
