"""config.json -> a verified `lpu` module that means what transformers computes."""

from __future__ import annotations

import json
import logging
import warnings
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.models.evaluate import _apply, evaluate
from support.models.tiny import VOCABULARY, tiny_llama_config, tiny_opt_config, write_checkpoint
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
)
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.opt import modeling_opt
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, IntegerAttr, NameLoc, StringAttr
from xdsl.dialects.func import Func
from xdsl.parser import Parser

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import SourceTensor, resolve_sources
from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import ConfigError, HyperdexError, OptionError, UnsupportedModelError
from hyperdex_ir.frontend import ImportedModel, trace_model
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.family import ACTIVATIONS
from hyperdex_ir.frontend.operators import attention_function
from hyperdex_ir.frontend.trace import untraced
from hyperdex_ir.interpreter.lpu import LpuInterpreter

MAX_LENGTH = 96
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 24).tolist()

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
VARIANTS: dict[str, PreTrainedConfig] = {
    "llama": tiny_llama_config(),
    "llama-tied": tiny_llama_config(tie_word_embeddings=True, num_key_value_heads=1),
    "llama-biases": tiny_llama_config(attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "llama-head-size": tiny_llama_config(head_dim=32, rope_parameters=LLAMA3_ROPE),
    "llama-linear": tiny_llama_config(rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}),
    "opt": tiny_opt_config(),
    "opt-projected": tiny_opt_config(word_embed_proj_dim=32, do_layer_norm_before=False),
    "opt-plain": tiny_opt_config(enable_bias=False, layer_norm_elementwise_affine=False),
    "opt-untied": tiny_opt_config(tie_word_embeddings=False, _remove_final_layer_norm=True),
}


def trace_config(config: PreTrainedConfig, directory: Path, max_length: int = MAX_LENGTH) -> ImportedModel:
    """Traces from a directory that holds config.json and nothing else; all layers are in @main."""
    directory.mkdir(exist_ok=True)
    config.save_pretrained(directory)
    return trace_model(directory, target="u55c", max_length=max_length, matrix_type="f16", outlined=False)


def operations(imported: ImportedModel, kind: type) -> list[Any]:
    return [op for op in imported.module.walk() if isinstance(op, kind)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(VARIANTS))
def test_means_what_transformers_computes(name: str, tmp_path: Path) -> None:
    """In float64 on both sides, so that nothing but a wrong import can tell them apart."""
    write_checkpoint(VARIANTS[name], tmp_path)
    imported = trace_model(tmp_path, target="u55c", max_length=MAX_LENGTH, matrix_type="f16", outlined=False)
    checkpoint = Checkpoint(tmp_path)
    sources = resolve_sources(imported.names, checkpoint)
    assert set(imported.sources) <= set(sources)

    def parameter(key: str) -> np.ndarray:
        derived = imported.derived.get(key)
        return checkpoint.read(sources[key].checkpoint_keys[0]) if derived is None else derived

    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0].numpy()
    ours = evaluate(imported.module, parameter, TOKENS)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5)
    assert np.abs(theirs).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["llama-tied", "opt-projected"])
def test_the_machine_is_nearer_to_float32_than_torch(name: str, dtype: str, tmp_path: Path) -> None:
    write_checkpoint(VARIANTS[name], tmp_path, dtype)
    matrix_type = {"float16": "f16", "bfloat16": "bf16"}[dtype]
    imported = trace_model(tmp_path, target="u55c", max_length=MAX_LENGTH, matrix_type=matrix_type, outlined=False)
    checkpoint = Checkpoint(tmp_path)
    sources = resolve_sources(imported.names, checkpoint)

    def parameter(key: str) -> np.ndarray:
        if key in imported.derived:
            return imported.derived[key]
        name = sources[key].checkpoint_keys[0]
        values = checkpoint.read(name)
        if values.ndim == 2:
            return values
        wide = values.astype(np.uint32) << 16 if dtype == "bfloat16" else values.astype(np.float32)
        return wide.view(np.float32)

    ours = LpuInterpreter(imported.module, parameter, MAX_LENGTH).forward(TOKENS, 0, 0)
    logits = {}
    for kind in (torch.float32, getattr(torch, dtype)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=kind)
        with torch.no_grad():
            logits[kind] = model(torch.tensor([TOKENS])).logits[0].float().numpy()
    exact, half = logits.values()
    assert np.square(ours - exact).mean() ** 0.5 < 0.8 * np.square(half - exact).mean() ** 0.5


def test_llama_module(tmp_path: Path) -> None:
    imported = trace_config(tiny_llama_config(), tmp_path)
    assert imported.module.attributes == {
        "lpu.target": StringAttr("u55c"),
        "lpu.max_length": IntegerAttr(MAX_LENGTH, 64),
        "lpu.matrix_type": StringAttr("f16"),
    }
    text = str(imported.module)
    assert "func.func @main(%input_ids: tensor<?xi64>, %position_ids: tensor<?xi64>) -> tensor<?x272xf32>" in text
    assert [op.slot.value.data for op in operations(imported, lpu.AttentionOp)] == [0, 1]
    assert [op.scale.value.data for op in operations(imported, lpu.AttentionOp)] == [0.25, 0.25]
    assert len(operations(imported, lpu.LinearOp)) == 2 * 7 + 1
    assert len(operations(imported, lpu.RotaryTableOp)) == 1
    types = {op.key_names[0]: str(op.res.type) for op in operations(imported, lpu.WeightOp)}
    assert types["model.embed_tokens.weight"] == "tensor<272x64xf16>"
    assert types["model.layers.0.self_attn.k_proj.weight"] == "tensor<32x64xf16>"
    assert types["model.layers.0.input_layernorm.weight"] == "tensor<64xf32>"
    assert types["model.rotary_emb.table"] == "tensor<96x2x16xf32>"
    assert list(imported.derived) == ["model.rotary_emb.table"]
    assert set(imported.sources) == set(types) - {"model.rotary_emb.table"}
    key = "model.layers.1.mlp.down_proj.weight"
    assert imported.sources[key] == SourceTensor(key, (64, 96), (key,))


@pytest.mark.slow
def test_opt_module(tmp_path: Path) -> None:
    imported = trace_config(tiny_opt_config(word_embed_proj_dim=32), tmp_path)
    offsets = {op.table.owner.key_names[0]: op.offset.value.data for op in operations(imported, lpu.EmbeddingOp)}
    assert offsets == {"model.decoder.embed_tokens.weight": 0, "model.decoder.embed_positions.weight": 2}
    assert len(operations(imported, lpu.LayerNormOp)) == 2 * 2 + 1
    assert len(operations(imported, lpu.ReluOp)) == 2
    assert [op.scale.value.data for op in operations(imported, lpu.AttentionOp)] == [1.0, 1.0]
    keys = [op.key_names[0] for op in operations(imported, lpu.WeightOp)]
    assert "model.decoder.project_in.weight" in keys
    assert "lm_head.weight" not in keys  # tied: one key, the embedding's
    assert len(keys) == len(set(keys))
    assert dict(imported.derived) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_text_round_trips(name: str, tmp_path: Path) -> None:
    imported = trace_config(VARIANTS[name], tmp_path)
    context = Context()
    for dialect in (Builtin, Func, lpu.LPU):
        context.load_dialect(dialect)
    parsed = Parser(context, str(imported.module)).parse_module()
    parsed.verify()
    assert str(parsed) == str(imported.module)


def test_every_operation_names_its_module(tmp_path: Path) -> None:
    imported = trace_config(tiny_llama_config(), tmp_path)
    places = {}
    for op in imported.module.body.block.first_op.body.block.ops:  # type: ignore[union-attr]
        assert isinstance(op.location, NameLoc)
        places.setdefault(op.location.desc.data, set()).add(op.name)
    assert "lpu.linear" in places["model.layers.1.self_attn.q_proj"]
    assert "lpu.attention" in places["model.layers.0.self_attn"]
    assert "lpu.rsqrt" in places["model.norm"]
    assert "lpu.silu" in places["model.layers.0.mlp.act_fn"]
    assert places["lm_head"] == {"lpu.weight", "lpu.linear"}
    assert "lpu.select_rows" in places["LlamaForCausalLM"]


@pytest.mark.slow
def test_activations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them in one model, a layer each: it takes longer to trace a model than a layer."""
    names = [name for name in ACTIVATIONS if name not in ("prelu", "xielu")]
    order = cycle(names)

    class NextActivation:
        def __getitem__(self, _: str) -> torch.nn.Module:
            return ACT2FN[next(order)]

    monkeypatch.setattr(modeling_opt, "ACT2FN", NextActivation())
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))  # no module of such a model is kept elsewhere
    imported = trace_config(tiny_opt_config(num_hidden_layers=len(names)), tmp_path)
    x = np.linspace(-4, 4, 33)
    for number, name in enumerate(names):
        theirs = ACT2FN[name](torch.tensor(x)).numpy()
        np.testing.assert_allclose(_activation_of(imported, number, x), theirs, atol=1e-6, err_msg=name)


def test_every_activation_may_be_asked_for(tmp_path: Path) -> None:
    for name in ACTIVATIONS:
        tiny_opt_config(activation_function=name).save_pretrained(tmp_path)
        assert read_config(tmp_path).architecture == "OPTForCausalLM"


def _activation_of(imported: ImportedModel, number: int, x: np.ndarray) -> np.ndarray:
    """The function between the last two matrices of a layer, applied to numbers."""
    first, second = operations(imported, lpu.LinearOp)[6 * number + 4 : 6 * number + 6]
    values = {first.res: x}
    op = first.next_op
    while op is not second:
        if not isinstance(op, lpu.WeightOp):
            results = _apply(op, [values[operand] for operand in op.operands], lambda _: x, 1)
            values.update(zip(op.results, results, strict=True))
        op = op.next_op
    return values[second.x]


def test_the_built_in_class_takes_the_place_of_code(tmp_path: Path) -> None:
    """By model_type alone, with an auto_map as released Phi-4-mini has it."""
    config = Phi3Config(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["auto_map"] = {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        "AutoTokenizer": "Xenova/gpt-4o",
    }
    (tmp_path / "config.json").write_text(json.dumps(values | {"architectures": None}))
    for module in ("configuration_phi3", "modeling_phi3"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('code of a checkpoint has run')\n")
    model = untraced(tmp_path, read_config(tmp_path).architecture)
    assert type(model) is Phi3ForCausalLM


def test_same_text_twice(tmp_path: Path) -> None:
    first = str(trace_config(tiny_opt_config(), tmp_path / "a").module)
    assert str(trace_config(tiny_opt_config(), tmp_path / "b").module) == first


@pytest.mark.slow
def test_leaves_nothing_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))  # no module is kept there
    attention, masks = dict(AttentionInterface._global_mapping), dict(AttentionMaskInterface._global_mapping)
    forward, verbosity = LlamaRotaryEmbedding.forward, transformers.logging.get_verbosity()
    filters, level, gradients = list(warnings.filters), logging.getLogger("torch").level, torch.is_grad_enabled()
    trace_config(tiny_llama_config(), tmp_path)
    with pytest.raises(HyperdexError):
        trace_config(tiny_opt_config(), tmp_path, max_length=10_000)
    assert dict(AttentionInterface._global_mapping) == attention
    assert dict(AttentionMaskInterface._global_mapping) == masks
    assert LlamaRotaryEmbedding.forward is forward
    assert transformers.logging.get_verbosity() == verbosity
    assert list(warnings.filters) == filters
    assert (logging.getLogger("torch").level, torch.is_grad_enabled()) == (level, gradients)
    assert capfd.readouterr() == ("", "")


def test_more_positions_than_were_learned(tmp_path: Path) -> None:
    trace_config(tiny_opt_config(), tmp_path, max_length=128)
    with pytest.raises(OptionError, match="max_length 129: the model has learned 128 positions"):
        trace_config(tiny_opt_config(), tmp_path, max_length=129)


def test_more_positions_than_were_trained_rotate_on(tmp_path: Path) -> None:
    imported = trace_config(tiny_llama_config(), tmp_path, max_length=500)
    assert imported.derived["model.rotary_emb.table"].shape == (500, 2, 16)


@pytest.mark.slow
def test_unknown_matrix_type(tmp_path: Path) -> None:
    tiny_opt_config().save_pretrained(tmp_path)
    with pytest.raises(OptionError, match="must be one of f16, bf16"):
        trace_model(tmp_path, target="u55c", max_length=8, matrix_type="f32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initializer_range": "much"}, "transformers refuses it"),
        ({"pad_token_id": 5000}, "transformers cannot build LlamaForCausalLM"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "factor"),
    ],
)
def test_what_transformers_refuses(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny_llama_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError) as caught:
        trace_model(tmp_path, target="u55c", max_length=8, matrix_type="f16")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attention_mask": torch.zeros(1)}, "with a mask of the model's own"),
        ({"is_causal": False}, "that is not causal"),
        ({"relative": torch.zeros(4), "head_mask": 1, "position_ids": 0}, "with head_mask, relative is not supported"),
    ],
)
def test_attention_that_the_machine_has_not(given: dict[str, Any], message: str) -> None:
    x = torch.zeros(1, 2, 3, 4, device="meta")
    with pytest.raises(UnsupportedModelError, match=f"Identity: attention {message}"):
        attention_function(torch.nn.Identity(), x, x, x, **({"attention_mask": None} | given))
