"""Whole models on several devices as instructions: the logits of one device, bit for bit, any chunk size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import SOAK
from support.models.imported import MAX_LENGTH, TOKENS, Parameters, import_any
from support.models.tiny import tiny_config, tiny_llama_config, tiny_opt_config
from support.programs.lmu_owners import find_overlaps
from transformers import GlmConfig, GPTNeoXConfig, PreTrainedConfig, Qwen3Config
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import GridAttr
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.runtime.device import RingDevice
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

MODELS: dict[str, tuple[Callable[[], PreTrainedConfig], tuple[int, ...]]] = {
    "nothing-divides": (
        lambda: tiny_llama_config(hidden_size=72, num_attention_heads=9, num_key_value_heads=3, intermediate_size=100),
        (2, 4, 5, 7, 8) if SOAK else (2, 5, 8),
    ),
    "tied-biased": (lambda: tiny_llama_config(tie_word_embeddings=True, attention_bias=True, mlp_bias=True), (3,)),
    "one-kv-head": (lambda: tiny_llama_config(num_key_value_heads=1), (3, 4)),
    "opt": (tiny_opt_config, (2, 3) if SOAK else (3,)),
    "opt-projected-post-norm": (
        lambda: tiny_opt_config(word_embed_proj_dim=32, do_layer_norm_before=False),
        (3,),
    ),
    "one-matrix-for-query-key-value": (lambda: tiny_config(GPTNeoXConfig, num_attention_heads=8), (3,)),
    "norms-of-heads": (lambda: tiny_config(Qwen3Config, num_attention_heads=6), (3,)),
    "gate-and-up-in-one": (lambda: tiny_config(GlmConfig), (3,)),
}


def _logits(module: ModuleOp, parameters: Parameters, pipeline: str, devices: int, step: int) -> bytes:
    """Logits of all rows, lowered from a copy, when the host hands over `step` tokens at a time."""
    module = module.clone()
    module.attributes["lpu.grid"] = GridAttr(devices)
    layout = None
    for one in parse_pipeline(pipeline):
        layout = collect_layout(module) if one.name == "lower-lpu-to-isa" else layout
        run_pass(module, one)
    assert layout is not None
    chunk, head_rows = (_attribute(module, f"isa.{name}") for name in ("chunk", "head_rows"))
    assert find_overlaps(module, chunk, head_rows) == []
    memory = plan_memory(layout, load_target("u55c"), MAX_LENGTH)
    hbms = [Hbm.from_parameters(memory, layout, parameters, device) for device in range(devices)]
    device = RingDevice.interpreting(to_program(module), hbms, memory, chunk, head_rows)
    parts = [device.forward(TOKENS[i : i + step], i, 0) for i in range(0, len(TOKENS), step)]
    return np.concatenate(parts).tobytes()


def _attribute(module: ModuleOp, name: str) -> int:
    attribute = module.attributes[name]
    assert isinstance(attribute, IntegerAttr)
    return attribute.value.data


@pytest.mark.parametrize(("name", "devices"), [(name, n) for name, (_, counts) in MODELS.items() for n in counts])
def test_as_many_devices_give_the_bits_of_one(name: str, devices: int, tmp_path: Path) -> None:
    module, parameters = import_any(MODELS[name][0](), tmp_path)
    expected = LpuInterpreter(module, parameters, MAX_LENGTH).forward(TOKENS, 0, 0).tobytes()
    assert _logits(module, parameters, "default", devices, step=7) == expected
    assert _logits(module, parameters, "o0", devices, step=len(TOKENS)) == expected
