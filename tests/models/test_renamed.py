"""EXAONE 3.x: the weights of a Llama under EXAONE's names compute what that Llama computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.models.architectures import write_case
from support.models.dense_cases import LLAMA3, Case
from transformers import AutoModelForCausalLM

from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

POSITIONS = 40
TOKENS = np.random.default_rng(3).integers(0, 256, POSITIONS).tolist()
#: Names of Llama's parameters -> those of the released EXAONE 3 checkpoints.
NAMES = {
    "model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "model.layers": "transformer.h",
    "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2", "self_attn.o_proj": "attn.attention.out_proj",
    "self_attn": "attn.attention", "gate_proj": "c_fc_0", "up_proj": "c_fc_1", "down_proj": "c_proj",
}  # fmt: skip

pytestmark = pytest.mark.slow


def _exaone_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _write_exaone(llama: Path, folder: Path) -> None:
    """The same model as EXAONE's own code saves it, with that code beside it, which must not run."""
    folder.mkdir()
    config = json.loads((llama / "config.json").read_text())
    scaling = {key: value for key, value in config["rope_parameters"].items() if key != "rope_theta"}
    exaone = {
        "architectures": ["ExaoneForCausalLM"], "model_type": "exaone", "activation_function": "silu",
        "auto_map": {
            "AutoConfig": "configuration_exaone.ExaoneConfig",
            "AutoModelForCausalLM": "modeling_exaone.ExaoneForCausalLM",
        },
        "attention_dropout": 0.0, "embed_dropout": 0.0, "initializer_range": 0.02, "bos_token_id": 1,
        "eos_token_id": config["eos_token_id"], "pad_token_id": 0, "head_dim": config["head_dim"],
        "hidden_size": config["hidden_size"], "intermediate_size": config["intermediate_size"],
        "layer_norm_epsilon": config["rms_norm_eps"], "max_position_embeddings": config["max_position_embeddings"],
        "num_attention_heads": config["num_attention_heads"], "num_key_value_heads": config["num_key_value_heads"],
        "num_layers": config["num_hidden_layers"], "rope_scaling": scaling,
        "rope_theta": config["rope_parameters"]["rope_theta"], "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.43.1", "use_cache": True,
        "vocab_size": config["vocab_size"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(exaone))
    for module in ("configuration_exaone", "modeling_exaone"):
        (folder / f"{module}.py").write_text("raise SystemExit('code of a checkpoint has run')\n")
    tensors = load_file(llama / "model.safetensors")
    save_file({_exaone_name(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    for path in llama.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())


def test_exaone_3_computes_what_llama_computes(tmp_path: Path, forget_instructions: Callable[[], None]) -> None:
    llama = write_case(Case("llama", {"rope_parameters": LLAMA3}), tmp_path / "llama", 0)
    _write_exaone(llama, tmp_path / "exaone")
    logits: list[np.ndarray] = []
    for folder in (llama, tmp_path / "exaone"):
        forget_instructions()
        AutoCompiler().compile(str(folder), max_length=POSITIONS)
        logits.append(CompiledModel.open(folder).logits(TOKENS))
    assert logits[0].tobytes() == logits[1].tobytes()
    exact, theirs = (_by_transformers(llama, dtype) for dtype in (torch.float32, torch.float16))
    assert _rms(logits[1] - exact) <= 0.9 * _rms(theirs - exact)


def _by_transformers(folder: Path, dtype: torch.dtype) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].float().numpy()


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
