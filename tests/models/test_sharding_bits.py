"""Sharding over devices: the same logits, bit for bit, for every number of devices, before and after every pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support import SOAK, chosen
from support.models.imported import Parameters, import_any, import_model, lpu_logits
from support.models.tiny import tiny_config, tiny_llama_config, tiny_opt_config
from transformers import GlmConfig, GPTBigCodeConfig, GPTNeoXConfig, PreTrainedConfig, Qwen3Config
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from hyperdex_ir.dialects import lpu
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.support.xdsl import parse_module, print_module

pytestmark = pytest.mark.slow

#: Of SmolLM2: 9 query heads on 3 KV heads.
NINE_HEADS = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8}


def _multi_query_fused() -> PreTrainedConfig:
    return GPTBigCodeConfig(
        n_embd=64, n_layer=2, n_head=8, n_positions=128, n_inner=96, vocab_size=272, bos_token_id=1, eos_token_id=1,
        architectures=["GPTBigCodeForCausalLM"],
    )  # fmt: skip


#: Counts of devices: more than KV heads, as many as heads, and such as divide nothing. (One changes nothing: below.)
COUNTS = (3, 8)
#: More of them where heads and KV heads are shared out in every way.
ALL_COUNTS = range(1, 9) if SOAK else (2, 3, 5, 8)
HEADS = ("llama-9-heads-3-kv-heads", "multi-query")


#: What makes the configuration, and whether it is a supported architecture.
MODELS: dict[str, tuple[Callable[[], PreTrainedConfig], bool]] = {
    "llama-9-heads-3-kv-heads": (lambda: tiny_llama_config(**NINE_HEADS, tie_word_embeddings=True), True),
    "multi-query": (lambda: tiny_llama_config(num_attention_heads=8, num_key_value_heads=1, head_dim=8), True),
    "opt": (lambda: tiny_opt_config(num_attention_heads=8), True),
    "opt-projected-post-norm": (lambda: tiny_opt_config(word_embed_proj_dim=32, do_layer_norm_before=False), True),
    "query-key-value-fused-by-head": (lambda: tiny_config(GPTNeoXConfig, num_attention_heads=8), False),
    "query-key-value-fused-multi-query": (_multi_query_fused, False),
    "norms-of-heads": (lambda: tiny_config(Qwen3Config, num_attention_heads=6), False),
    "gate-and-up-in-one": (lambda: tiny_config(GlmConfig), False),
}


def _imported(name: str, directory: Path) -> tuple[ModuleOp, Parameters]:
    make, is_supported = MODELS[name]
    return import_model(make(), "f16", directory) if is_supported else import_any(make(), directory)


def _of_lpu(pipeline: str) -> list[ModulePass]:
    """The passes of a pipeline that come before the instructions."""
    passes = parse_pipeline(pipeline)
    return passes[: next(i for i, one in enumerate(passes) if one.name == "lower-lpu-to-isa")]


def _on(module: ModuleOp, devices: int) -> ModuleOp:
    again = module.clone()
    again.attributes[lpu.GRID] = lpu.GridAttr(devices)
    return again


def _counts(name: str, pipeline: str) -> Sequence[int]:
    is_full = SOAK or name in HEADS
    if pipeline == "o0":
        return (2, 3) if is_full else (3,)
    return ALL_COUNTS if is_full else COUNTS


@pytest.mark.parametrize(
    ("name", "pipeline"),
    chosen(
        [(name, pipeline) for name in MODELS for pipeline in ("default", "o0")],
        *[(name, "default") for name in MODELS],
        ("opt-projected-post-norm", "o0"),
        ("query-key-value-fused-by-head", "o0"),
    ),
)
def test_every_count_and_every_pass_keep_every_bit(name: str, pipeline: str, tmp_path: Path) -> None:
    module, parameters = _imported(name, tmp_path)
    expected = lpu_logits(module, parameters)
    passes = _of_lpu(pipeline)
    first = next(i for i, one in enumerate(passes) if one.name == "lpu-propagate-sharding")
    for one in passes[:first]:
        run_pass(module, one)
    for devices in _counts(name, pipeline):
        local, before = _on(module, devices), ""
        for one in passes[first:]:
            run_pass(local, one)
            if devices != 3 and one is not passes[-1] and one.name != "lpu-partition" and not SOAK:
                continue  # only the numbers in it are others
            text = print_module(local, locations=True)
            if text == before and not SOAK:
                continue
            before = text
            if devices == 3 or SOAK:
                assert print_module(parse_module(text), locations=True) == text, one.name
            assert lpu_logits(local, parameters) == expected, f"{devices} devices, {one.name}"


@pytest.mark.parametrize("name", MODELS)
def test_every_matrix_is_sharded(name: str, tmp_path: Path) -> None:
    """No device holds a whole matrix, but keys and values of a single KV head, nor all of the vocabulary."""
    module, _ = _imported(name, tmp_path)
    local = _on(module, 4)
    for one in _of_lpu("default"):
        run_pass(local, one)
    weights = [op for op in local.walk() if isinstance(op, lpu.WeightOp)]
    matrices = [op for op in weights if lpu.is_matrix_element(lpu.element_of(op.res))]
    assert matrices
    assert all(op.shards is not None for op in matrices)
    counts = Counter(op.name for function in local.ops for op in function.walk())
    gathers = {"opt-projected-post-norm": 8, "query-key-value-fused-by-head": 5}
    assert counts["lpu.all_gather"] == gathers.get(name, 6)  # embedding, 4 a layer, logits


def test_one_device_changes_nothing(tmp_path: Path) -> None:
    module, _ = import_model(tiny_llama_config(), "f16", tmp_path)
    for one in _of_lpu("default"):
        before = print_module(module, locations=True)
        run_pass(module, one)
        if one.name in ("lpu-propagate-sharding", "lpu-partition"):
            assert print_module(module, locations=True) == before


@pytest.mark.parametrize("outlined", [True, False])
def test_layers_stay_alike(outlined: bool, tmp_path: Path) -> None:
    """One function of all layers, whether the module comes flat or not."""
    module, parameters = import_model(tiny_llama_config(num_hidden_layers=3), "f16", tmp_path, outlined=outlined)
    expected = lpu_logits(module, parameters)
    local = _on(module, 3)
    for one in _of_lpu("default"):
        run_pass(local, one)
    assert [op.sym_name.data for op in local.ops if isinstance(op, FuncOp)] == ["main", "model.layers"]
    assert lpu_logits(local, parameters) == expected
