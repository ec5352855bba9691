"""`hyperdex diff` on tiny models: silent when all is well, and the right module when an instruction is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.models.program_mutations import MUTATIONS, edit_on_disk, edited_device
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from typer.testing import CliRunner

from hyperdex_ir.cli.main import app
from hyperdex_ir.errors import CheckpointError, NotCompiledError, PromptError
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.verify.against import FORWARDS, Comparison, Comparisons, compare_program, compare_with_transformers
from hyperdex_ir.verify.reference import Reference, run_reference

pytestmark = pytest.mark.slow

References = tuple[Reference, list[Reference]]
TOKENS = [int(token) for token in np.random.default_rng(5).integers(0, 256, 21)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled Llama with biases, so that every mutation has something to break."""
    config = tiny_llama_config(attention_bias=True, mlp_bias=True)
    folder = write_checkpoint(config, tmp_path_factory.mktemp("diff") / "model")
    AutoCompiler().compile(model_id=str(folder), max_length=64)
    return folder


@pytest.fixture(scope="module")
def references(model: Path) -> References:
    (exact,) = run_reference(model, "f32", TOKENS)
    return exact, run_reference(model, "f16", TOKENS, FORWARDS)


@pytest.fixture(scope="module")
def device(model: Path) -> InterpreterDevice:
    device = CompiledModel.open(model, engine="interpreter").device
    assert isinstance(device, InterpreterDevice)
    return device


def test_nothing_is_off(device: InterpreterDevice, references: References) -> None:
    found = Comparisons(compare_program(device, TOKENS, *references), "f16")
    assert found.first_off is None
    layer = ["input_layernorm", "self_attn.v_proj", "self_attn.k_proj", "self_attn.q_proj", "self_attn"]
    layer += ["self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj+up_proj", "mlp.down_proj"]
    layers = [f"model.layers.{number}.{name}" for number in (0, 1) for name in layer]
    first, last = found.values[:2], found.values[20:]
    assert [value.path for value in found.values[2:20]] == layers
    assert {value.path for value in first} == {"model.embed_tokens", "model.rotary_emb"}
    assert [value.path for value in last] == ["LlamaForCausalLM", "model.norm", "lm_head"]
    assert [value.path for value in found.by_layer()][1:3] == ["model.layers.0.mlp.down_proj", layers[-1]]
    assert all(value.ours < 1e-2 * value.rms for value in found.values)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_instruction_is_found(name: str, device: InterpreterDevice, references: References) -> None:
    edit, path = MUTATIONS[name]
    first = Comparisons(compare_program(edited_device(device, edit), TOKENS, *references), "f16").first_off
    assert first is not None
    assert re.fullmatch(path, first.path)


@pytest.mark.parametrize("pipeline", ["o0", "default"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_opt_and_unfused_programs(pipeline: str, dtype: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tiny_opt_config(), tmp_path / "opt", dtype)
    AutoCompiler().compile(model_id=str(folder), max_length=64, pipeline=pipeline)
    found = compare_with_transformers(str(folder), TOKENS)
    assert found.first_off is None
    assert {"float16": "f16", "bfloat16": "bf16"}[dtype] == found.matrix_type
    assert len(found.values) >= 15


def test_what_counts() -> None:
    assert not Comparison("a", "output", 1.0, 2e-3, 1e-3).is_off
    assert Comparison("a", "output", 1.0, 2.1e-3, 1e-3).is_off
    assert not Comparison("a", "output", 1.0, 1e-6, 0.0).is_off
    assert Comparison("a", "output", 1.0, 2e-6, 0.0).is_off
    assert Comparison("a", "output", 1.0, float("nan"), 1e-3).is_off
    assert Comparison("model.layers.12.mlp", "output", 1.0, 0.0, 0.0).layer == "12"
    assert Comparison("lm_head", "output", 1.0, 0.0, 0.0).layer == ""


# ----------------------------------------------------------------------------------------------------- command line
def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["diff", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_command(model: Path, tmp_path: Path) -> None:
    code, text = run(str(model), "--prompt", "Hello, world")
    assert code == 0
    assert "none is off" in text
    assert [line.split()[0] for line in text.splitlines() if " model.layers." in line] == ["0", "1"]
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    edit_on_disk(broken, MUTATIONS["wrong residual"][0])
    code, text = run(str(broken), "--prompt", "Hello, world", "--all")
    assert code == 1
    assert "first module that is off: model.layers.0.mlp.down_proj" in text
    code, text = run(str(broken), "--tokens", "1,2,3,4", "--json")
    assert code == 1
    assert json.loads(text)["first_off"]["module"] == "model.layers.0.mlp.down_proj"


def test_errors_are_one_line(model: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    with pytest.raises(NotCompiledError, match="not compiled"):
        compare_with_transformers(str(folder), TOKENS)
    with pytest.raises(PromptError, match="the compiled model takes 1 to 64"):
        compare_with_transformers(str(model), [1] * 65)
    with pytest.raises(PromptError, match="outside the vocabulary of 272"):
        compare_with_transformers(str(model), [1, 272])
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        run_reference(tmp_path / "nothing", "f32", TOKENS)
