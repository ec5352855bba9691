"""The package's logits are, bit for bit, those of an implementation written from docs/arithmetic.md alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import chosen
from support.models.second_implementation import Floats, frequencies, llama_logits, opt_logits
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from transformers import LlamaConfig, OPTConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

VOCABULARY = 96
SEED = 3  # weights for which a rounding elsewhere in a function shows: most do not outlive the rounding at issue
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 70).tolist()
SIZES = {"hidden_size": 152, "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}

# What differs from the tiny models (with SIZES), and the type that the checkpoint is in.
LLAMAS: dict[str, tuple[dict[str, Any], str]] = {
    "tied": ({"tie_word_embeddings": True}, "float16"),
    "biases-llama3": ({"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}, "bfloat16"),
    "head-dim": ({"head_dim": 20, "num_key_value_heads": 1, "intermediate_size": 250}, "float32"),
    "yarn-gelu-tanh": (
        {"rope_parameters": YARN, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 1500},
        "float32",
    ),
    "quick-gelu": ({"hidden_act": "quick_gelu"}, "float16"),
}
OPTS: dict[str, tuple[dict[str, Any], str]] = {
    "before": ({}, "float16"),
    "after-projected": ({"do_layer_norm_before": False, "word_embed_proj_dim": 136}, "float32"),
    "plain-gelu": (
        {"enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu", "ffn_dim": 1500},
        "bfloat16",
    ),
    "untied-no-last-norm": (
        {"tie_word_embeddings": False, "_remove_final_layer_norm": True, "activation_function": "gelu_fast"},
        "float32",
    ),
}

TYPES = ("f16", "bf16")
both_types = pytest.mark.parametrize("matrix_type", TYPES)


def llama_config(**overrides: Any) -> LlamaConfig:
    """A tiny Llama whose sizes are no multiples of 64."""
    return tiny_llama_config(**(SIZES | {"intermediate_size": 200} | overrides))


def opt_config(**overrides: Any) -> OPTConfig:
    """A tiny OPT whose sizes are no multiples of 64."""
    return tiny_opt_config(**(SIZES | {"ffn_dim": 200, "word_embed_proj_dim": 152} | overrides))


def ours(directory: Path, config: LlamaConfig | OPTConfig, matrix_type: str) -> Floats:
    """The second implementation's logits. transformers gives the rotary frequencies, which are data."""
    if isinstance(config, OPTConfig):
        return opt_logits(directory, TOKENS, matrix_type)
    rotary = LlamaRotaryEmbedding(config)
    return llama_logits(directory, TOKENS, matrix_type, rotary.inv_freq.numpy(), rotary.attention_scaling)


def of_package(folder: Path, matrix_type: str) -> Floats:
    """The package's logits of the checkpoint in folder/ckpt."""
    AutoCompiler().compile(model_id=str(folder), max_length=96, dtype=matrix_type)
    return CompiledModel.open(folder).logits(np.array(TOKENS))


def edit(directory: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Changes the tensors of a checkpoint, in place."""
    from safetensors.numpy import load_file, save_file

    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def check(expected: Floats, actual: Floats) -> None:
    """Both are logits of all tokens, with the same bits."""
    assert expected.shape == actual.shape == (len(TOKENS), VOCABULARY)
    assert expected.dtype == actual.dtype == np.float32
    wrong = np.argwhere(expected.view(np.uint32) != actual.view(np.uint32))
    assert not len(wrong), f"{len(wrong)} logits differ, first at [token, column] {wrong[0]}"


def check_ordinary(logits: Floats) -> None:
    """They say something: finite, and different for different tokens and columns."""
    assert np.isfinite(logits).all()
    assert len(np.unique(logits)) > logits.size // 2
    assert 0.1 < logits.std() < 100


def check_config(tmp_path: Path, config: LlamaConfig | OPTConfig, dtype: str, matrix_type: str) -> None:
    checkpoint = write_checkpoint(config, tmp_path / "ckpt", dtype=dtype, seed=SEED)
    logits = ours(checkpoint, config, matrix_type)
    check_ordinary(logits)
    check(logits, of_package(tmp_path, matrix_type))


@pytest.mark.parametrize(
    ("name", "matrix_type"),
    chosen(
        [(name, matrix_type) for name in LLAMAS for matrix_type in TYPES],
        ("tied", "bf16"),
        ("biases-llama3", "bf16"),
        ("head-dim", "f16"),
        ("yarn-gelu-tanh", "f16"),
        ("yarn-gelu-tanh", "bf16"),
        ("quick-gelu", "f16"),
    ),
)
def test_llama(tmp_path: Path, name: str, matrix_type: str) -> None:
    """Llama: tied or not, grouped queries, biases, an explicit head size, rotary rules, other activations."""
    overrides, dtype = LLAMAS[name]
    check_config(tmp_path, llama_config(**overrides), dtype, matrix_type)


@pytest.mark.parametrize(
    ("name", "matrix_type"),
    chosen(
        [(name, matrix_type) for name in OPTS for matrix_type in TYPES],
        ("before", "f16"),
        ("after-projected", "bf16"),
        ("plain-gelu", "bf16"),
        ("untied-no-last-norm", "f16"),
    ),
)
def test_opt(tmp_path: Path, name: str, matrix_type: str) -> None:
    """OPT: norms before or after, projected embeddings, without biases and norm weights, untied."""
    overrides, dtype = OPTS[name]
    check_config(tmp_path, opt_config(**overrides), dtype, matrix_type)


def test_opt_without_prefix(tmp_path: Path) -> None:
    """A checkpoint whose names begin with `decoder` is the same model."""
    config = opt_config()
    checkpoint = write_checkpoint(config, tmp_path / "ckpt")
    before = ours(checkpoint, config, "f16")

    def strip(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    edit(checkpoint, strip)
    check(before, of_package(tmp_path, "f16"))


def test_subnormal_weights(tmp_path: Path) -> None:
    """f16 weights below 2^-14."""
    config = llama_config()
    checkpoint = write_checkpoint(config, tmp_path / "ckpt", dtype="float32")

    def shrink(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] *= np.float32(2.0**-14)

    edit(checkpoint, shrink)
    logits = ours(checkpoint, config, "f16")
    assert 0 < np.abs(logits).max() < 1e-3
    check(logits, of_package(tmp_path, "f16"))


@pytest.mark.parametrize("exponent", [100, -100])
def test_products_beyond_float32(tmp_path: Path, exponent: int) -> None:
    """bf16 products above and below float32 are fused with the sum, and a sum of negative zeros is +0.

    The layers do nothing and every row of the last norm is [-1, 1, 1, ...] * 2^exponent, so that the logits are known.
    """
    config = llama_config(hidden_size=128)
    checkpoint = write_checkpoint(config, tmp_path / "ckpt", dtype="float32")
    column = np.arange(VOCABULARY) % 48
    head = np.zeros((VOCABULARY, 128), np.float32)
    if exponent > 0:  # lane 0: -2^127, and then a product of 2^128 or more
        head[:, 0] = 2.0**27
        head[:, 64] = 2.0**28 * (1 + column / 128)
        expected = 2.0**128 * (1 + column / 128) - 2.0**127
    else:  # lane 0: 2^-149, and then half of that, a tie; in every third row each product is a negative zero
        head[:, 0] = -(2.0**-49)
        head[:, 64] = 2.0**-50
        head[::3] = -(2.0**-60)
        head[::3, 0] = 2.0**-60
        expected = np.where(np.arange(VOCABULARY) % 3 == 0, 0.0, 2.0**-148)

    def craft(tensors: dict[str, np.ndarray]) -> None:
        for name, tensor in tensors.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                tensor[:] = 0
        tensors["model.embed_tokens.weight"][:] = 1
        tensors["model.embed_tokens.weight"][:, 0] = -1
        tensors["model.norm.weight"][:] = 2.0**exponent
        tensors["lm_head.weight"] = head

    edit(checkpoint, craft)
    logits = ours(checkpoint, config, "bf16")
    check(np.tile(expected.astype(np.float32), (len(TOKENS), 1)), logits)
    check(logits, of_package(tmp_path, "bf16"))


def test_a_low_bit_counts(tmp_path: Path) -> None:
    """One flipped bit of one weight changes the logits: equality above is not for want of resolution."""
    config = llama_config()
    package = of_package(write_checkpoint(config, tmp_path / "ckpt").parent, "f16")
    for name in ("lm_head.weight", "model.layers.0.self_attn.k_proj.weight"):
        other = Path(shutil.copytree(tmp_path / "ckpt", tmp_path / name))

        def flip(tensors: dict[str, np.ndarray], name: str = name) -> None:
            tensors[name].view(np.uint16)[5, 0] ^= 1

        edit(other, flip)
        changed = ours(other, config, "f16") != package
        assert changed.any()
        if name == "lm_head.weight":
            assert np.flatnonzero(changed.any(axis=0)).tolist() == [5]


@pytest.mark.parametrize("head_dim", [12, 64, 128])
@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 500000.0}, LINEAR, LLAMA3])
def test_frequencies(head_dim: int, rope: dict[str, Any]) -> None:
    """The document's rules give the frequencies of transformers, but for torch's power: that is not quite exact."""
    config = llama_config(head_dim=head_dim, rope_parameters=rope)
    theirs = LlamaRotaryEmbedding(config).inv_freq.numpy()
    mine = frequencies(config.to_dict())
    assert mine.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=0)
