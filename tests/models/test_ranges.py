"""Values beyond float16: a residual stream of 1e5, which is right in either type, and activations that overflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models.architectures import CASES, write_case
from support.models.dense_cases import Case
from transformers import AutoModelForCausalLM

from hyperdex_ir.errors import NumericError
from hyperdex_ir.memory.serialize import load_json
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(3).integers(0, 256, 24).tolist()


#: What comes last before a sum into the residual.
LAST = {
    "gemma-untied": ("o_proj.weight", "down_proj.weight"),
    "gemma3-softcap": ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"),
}


def scaled(case: Case, directory: Path, factor: Callable[[str], float]) -> Path:
    """The checkpoint of a case with each tensor multiplied by a number that depends on its name."""
    write_case(case, directory, 0)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, case.dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(factor(name))
    model.save_pretrained(directory)
    return directory


def theirs(folder: Path, dtype: str) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].float().numpy()


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@pytest.fixture(scope="module", params=["gemma-untied", "gemma3-softcap"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma of which every layer adds some 1e5 to the residual, in bfloat16."""
    case = replace(CASES[request.param], dtype="bfloat16")
    last = LAST[request.param]
    return scaled(case, tmp_path_factory.mktemp("large"), lambda name: 2.0**16 if name.endswith(last) else 1.0)


def test_the_residual_is_beyond_float16(large: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(large, dtype=torch.float32)
    with torch.no_grad():
        states = model(torch.tensor([TOKENS]), output_hidden_states=True).hidden_states
    assert max(float(state.abs().max()) for state in states[1:-1]) > 1e5
    assert not np.isfinite(theirs(large, "float16")).all()


@pytest.mark.parametrize(("dtype", "stored"), [("auto", "bf16"), ("float16", "f16")])
def test_a_residual_beyond_float16(large: Path, dtype: str, stored: str, tmp_path: Path) -> None:
    AutoCompiler().compile(str(large), max_length=len(TOKENS), dtype=dtype, output_dir=str(tmp_path))
    assert load_json(tmp_path / "ckpt" / "hyperdex_config.json")["matrix_type"] == stored
    native = CompiledModel.open(tmp_path, engine="native").logits(TOKENS)
    exact = theirs(large, "float32")
    assert exact.std() >= 1
    assert rms(native - exact) <= 0.9 * rms(theirs(large, "bfloat16") - exact)
    assert CompiledModel.open(tmp_path, engine="interpreter").logits(TOKENS).tobytes() == native.tobytes()


def test_an_activation_that_overflows_is_named(tmp_path: Path) -> None:
    """gate * up is 1e5 and more in layer 1: finite in float32, infinite when down_proj rounds it to float16."""
    folder = scaled(CASES["llama"], tmp_path / "model", lambda name: 2.0**16 if "layers.1.mlp.up_proj" in name else 1.0)
    AutoCompiler().compile(str(folder), max_length=len(TOKENS))
    errors = []
    for engine in ("native", "interpreter"):
        with pytest.raises(NumericError, match="NaN or infinity made in chunk 0, layer 1, ") as caught:
            CompiledModel.open(folder, engine=engine).logits(TOKENS)
        assert str(caught.value).endswith("(matmul) of model.layers.1.mlp.down_proj")
        assert caught.value.hint is not None
        assert "bfloat16" in caught.value.hint
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    AutoCompiler().compile(str(folder), max_length=len(TOKENS), dtype="bfloat16", output_dir=str(tmp_path / "bf16"))
    logits = CompiledModel.open(tmp_path / "bf16").logits(TOKENS)
    assert rms(logits - theirs(folder, "float32")) < 0.1 * logits.std()
