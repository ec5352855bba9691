"""Rotary frequencies of GGUF files: those of the model that the file was made from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.models.gguf_models import llama3_factors, make_model, write_gguf
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hyperdex_ir.checkpoint.gguf import write_small_files, write_weights
from hyperdex_ir.errors import CheckpointError, HyperdexError, UnsupportedModelError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.folder_access import place_of
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(0).integers(0, 256, 20).tolist()
F32 = gguf.GGMLQuantizationType.F32
#: With the tiny model's waves of 6, 20, 63, 199, ... positions: one lies between, or none does.
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}  # fmt: skip
WITHOUT_MEAN = LLAMA3 | {"high_freq_factor": 1.125}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope", "rope_theta": 2e4, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 16,
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.45], "long_factor": [1.1, 1.3, 2.2, 3.4, 5.1, 9.7],
}  # fmt: skip
PHI3: dict[str, Any] = {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
    "beta_slow": 1.0,
}  # fmt: skip
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def _rotary(model: PreTrainedModel) -> Any:
    return model.get_submodule("model.rotary_emb")


def _ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.view(torch.int32).long() - b.view(torch.int32).long()).abs().max())


@pytest.mark.parametrize(
    ("arch", "more"),
    [
        ("llama", {"rope_parameters": LLAMA3}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5}}),
        ("phi3", PHI3),
        ("stablelm", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        ("qwen2", {"rope_parameters": YARN}),
        ("gemma3", {"rope_parameters": GEMMA3, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_the_frequencies_of_the_original(tmp_path: Path, arch: str, more: dict[str, Any]) -> None:
    write_gguf(tmp_path / "tiny.gguf", arch, F32, **more)
    folder = tmp_path / "made"
    write_small_files(tmp_path / "tiny.gguf", folder)
    write_weights(tmp_path / "tiny.gguf", folder)
    read_config(folder)
    model = make_model(arch, **more)
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if arch == "gemma3":  # which layers slide is in no such file: every sixth one does not
        made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, layer_types=more["layer_types"])
    for length in (8, len(TOKENS)):
        with torch.no_grad():
            expected, found = (one(torch.tensor([TOKENS[:length]])).logits[0] for one in (model, made))
        assert (found - expected).abs().max() < 1e-5 * expected.std()
        ours, theirs = (dict(_rotary(one).named_buffers()) for one in (made, model))
        for name in theirs:
            assert _ulps(ours[name], theirs[name]) <= 1, name
    changed: dict[str, Any] = more | {"rope_parameters": None}
    plain = make_model(arch, **changed)
    with torch.no_grad():
        assert (plain(torch.tensor([TOKENS])).logits[0] - expected).abs().max() > 0.01 * expected.std()


@pytest.mark.parametrize(("head", "theta", "factor"), [(128, 5e5, 8.0), (64, 5e5, 32.0), (128, 5e5, 10.0)])
def test_the_frequencies_of_llama3(head: int, theta: float, factor: float) -> None:
    """The factors of Llama 3.1 and 3.2 give transformers' own frequencies, some of them the next float32."""
    rule = LLAMA3 | {"rope_theta": theta, "factor": factor, "original_max_position_embeddings": 8192}
    factors = llama3_factors(rule, head).tolist()
    assert {1.0, factor} < set(factors)
    assert any(1 < value < factor for value in factors)
    longrope = {
        "rope_type": "longrope", "rope_theta": theta, "short_factor": factors, "long_factor": factors, "factor": 1.0,
        "attention_factor": 1.0, "original_max_position_embeddings": 131072,
    }  # fmt: skip
    sizes: dict[str, Any] = {"hidden_size": 2 * head, "num_attention_heads": 2, "max_position_embeddings": 131072}
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**sizes, rope_parameters=rule))
    found, scaling = ROPE_INIT_FUNCTIONS["longrope"](LlamaConfig(**sizes, rope_parameters=longrope))
    assert _ulps(found, expected) <= 1
    assert scaling == 1.0


def test_bits_of_llama3(tmp_path: Path) -> None:
    """Where no wave lies between, all factors are powers of two: the same bits as of the original checkpoint."""
    more: dict[str, Any] = {"rope_parameters": WITHOUT_MEAN}
    write_gguf(tmp_path / "tiny.gguf", "llama", F32, **more)
    made = AutoCompiler().compile(str(tmp_path / "tiny.gguf"), max_length=24)
    original = tmp_path / "original"
    make_model("llama", **more).save_pretrained(original)
    AutoCompiler().compile(str(original), max_length=24)
    logits = [CompiledModel.open(root).logits(TOKENS) for root in (made.root, original)]
    assert logits[0].tobytes() == logits[1].tobytes()


@pytest.mark.parametrize("max_length", [16, 24])
def test_bits_of_longrope(tmp_path: Path, max_length: int) -> None:
    """Within and beyond the original length."""
    write_gguf(tmp_path / "tiny.gguf", "phi3", F32, **PHI3)
    made = AutoCompiler().compile(str(tmp_path / "tiny.gguf"), max_length=max_length)
    model = make_model("phi3", **PHI3)
    model.save_pretrained(tmp_path / "original")
    AutoCompiler().compile(str(tmp_path / "original"), max_length=max_length)
    tokens = TOKENS[:max_length]
    logits = [CompiledModel.open(root).logits(tokens) for root in (made.root, tmp_path / "original")]
    assert logits[0].tobytes() == logits[1].tobytes()
    with torch.no_grad():
        exact = model(torch.tensor([tokens])).logits[0].numpy()
    assert np.abs(logits[0] - exact).max() < 0.02 * exact.std()


ONES = np.ones(8, np.float32)
HALF = {"rope_factors_long": np.ones(8, np.float32)}


def _with(value: float) -> dict[str, np.ndarray]:
    values = ONES.copy()
    values[3] = value
    return {"rope_freqs": values}


@pytest.mark.parametrize(
    ("arch", "factors", "error", "words"),
    [
        ("llama", {"rope_freqs": ONES[:7]}, CheckpointError, "has 7 numbers, expected 8, one for each rotary freq"),
        ("llama", _with(np.nan), CheckpointError, "rope_freqs.weight has nan at 3, expected positive numbers"),
        ("llama", _with(np.inf), CheckpointError, "has inf at 3"),
        ("llama", _with(0.0), CheckpointError, "has 0.0 at 3"),
        ("llama", _with(-1.0), CheckpointError, "has -1.0 at 3"),
        ("llama", {"rope_freqs": np.ones(8, np.int32)}, CheckpointError, "rope_freqs.weight is I32, expected F32"),
        ("phi3", HALF, CheckpointError, "expected rope_freqs.weight or both rope_factors_short.weight and rope_fac"),
        ("phi3", HALF | {"rope_freqs": ONES}, CheckpointError, "rope_factors_long.weight and rope_freqs.weight, exp"),
        ("phi3", HALF | {"rope_factors_short": ONES}, CheckpointError, "no field phi3.rope.scaling.original_context"),
        ("gpt2", {"rope_freqs": ONES}, UnsupportedModelError, "no place in gpt2, which has no rotary positions"),
        ("gemma3", {"rope_freqs": ONES}, UnsupportedModelError, "rope_freqs.weight beside other rules"),
    ],
)
def test_broken_factors(
    tmp_path: Path, arch: str, factors: dict[str, np.ndarray], error: type[HyperdexError], words: str
) -> None:
    write_gguf(tmp_path / "tiny.gguf", arch, F32, factors)
    with pytest.raises(error) as raised:
        write_small_files(tmp_path / "tiny.gguf", tmp_path / "made")
    assert str(raised.value).startswith(f"{tmp_path / 'tiny.gguf'}: ")
    assert words in str(raised.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"scaling.type": "wavy"}, UnsupportedModelError, "llama.rope.scaling.type wavy is not supported"),
        ({"scaling.factor": -2.0}, CheckpointError, "llama.rope.scaling.factor is -2.0, expected a positive number"),
        ({"scaling.factor": math.nan}, CheckpointError, "llama.rope.scaling.factor is nan"),
        ({"scaling.type": "longrope"}, CheckpointError, "is longrope, but there is no rope_factors_long.weight"),
        ({"scaling.type": "yarn", "scaling.factor": 2.0}, CheckpointError, "llama.rope.scaling.original_context_len"),
        (
            {"scaling.type": "yarn", "scaling.factor": 2.0, "scaling.original_context_length": 0.5},
            CheckpointError,
            "original_context_length is 0.5, expected a whole number",
        ),
        (
            {"scaling.type": "yarn", "scaling.factor": 2.0, "scaling.yarn_log_multiplier": 0.1},
            UnsupportedModelError,
            "llama.rope.scaling.yarn_log_multiplier of yarn is not supported",
        ),
    ],
)
def test_broken_rules(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, str | float],
    error: type[HyperdexError],
    words: str,
) -> None:
    _write_fields(tmp_path / "tiny.gguf", monkeypatch, fields)
    with pytest.raises(error) as raised:
        write_small_files(tmp_path / "tiny.gguf", tmp_path / "made")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"scaling.factor": 4.0}, ("linear", 4.0)),  # what llama.cpp takes for a file without a type
        ({"scale_linear": 3.0}, ("linear", 3.0)),
        ({"scaling.type": "none", "scaling.factor": 4.0}, ("default", None)),
        ({"scaling.type": "linear", "scaling.factor": 1.0}, ("default", None)),
    ],
)
def test_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str | float], expected: tuple[str, float | None]
) -> None:
    _write_fields(tmp_path / "tiny.gguf", monkeypatch, fields)
    write_small_files(tmp_path / "tiny.gguf", tmp_path / "made")
    rope = json.loads((tmp_path / "made/config.json").read_text())["rope_parameters"]
    assert (rope["rope_type"], rope.get("factor")) == expected


def _write_fields(path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str | float]) -> None:
    close = gguf.GGUFWriter.write_header_to_file

    def add(writer: gguf.GGUFWriter) -> None:
        for name, value in fields.items():
            key = f"llama.rope.{name}"
            writer.add_string(key, value) if isinstance(value, str) else writer.add_float32(key, value)
        close(writer)

    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", add)
    write_gguf(path, "llama", F32)


def test_what_an_earlier_version_made_is_made_anew(tmp_path: Path) -> None:
    """A config.json without the factors beside weights without them would be another model."""
    path, folder = tmp_path / "tiny.gguf", tmp_path / "made"
    write_gguf(path, "llama", F32, rope_parameters=LLAMA3)
    write_small_files(path, folder)
    expected = (folder / "config.json").read_text()
    marker = json.loads((folder / "hyperdex_gguf.json").read_text())
    (folder / "config.json").write_text("{}")
    marker |= {"code": "earlier", "made": marker["made"] | {"config.json": place_of((folder / "config.json").stat())}}
    (folder / "hyperdex_gguf.json").write_text(json.dumps(marker))
    write_small_files(path, folder)
    assert (folder / "config.json").read_text() == expected
    write_weights(path, folder)
    assert not [name for name in load_file(folder / "model.safetensors") if "rope" in name]
