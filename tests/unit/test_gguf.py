"""GGUF files: what comes out, against transformers' own reading of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from safetensors.torch import load_file
from tiny import _byte_alphabet
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from hyperdex_ir.errors import CheckpointError, ConfigError, UnsupportedModelError
from hyperdex_ir.locations import find_folder
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

SIZES: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 259, "max_position_embeddings": 32, "head_dim": 16,
    "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 0,
}  # fmt: skip
#: The sizes of experts are the default ones: transformers reads no others from such a file.
ROUTED = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 1408}
#: Architecture of the file -> model type, and what differs from SIZES.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2moe": ("qwen2_moe", ROUTED | {"shared_expert_intermediate_size": 5632}),
}
TOKENS = np.random.default_rng(0).integers(0, 256, 20).tolist()


def make_model(arch: str) -> PreTrainedModel:
    model_type, fields = MODELS[arch]
    config = AutoConfig.for_model(model_type, **(SIZES | fields))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    return model


def write_gguf(path: Path, arch: str, kind: gguf.GGMLQuantizationType) -> None:
    """Writes a model with random weights as llama.cpp's converter does; norms and biases in float32."""
    model = make_model(arch)
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(config.vocab_size)
    if arch == "qwen2moe":
        writer.add_expert_count(3)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(1408)
        writer.add_expert_shared_feed_forward_length(5632)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*_byte_alphabet(), "<s>", "</s>", "ab"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), 2)
    for name, tensor in tensors_of(model, arch):
        stem, dot, suffix = name.rpartition(".")
        given = names.get_name(stem if suffix in ("weight", "bias") else name)
        assert given is not None, name
        values = tensor.numpy()
        own = kind if values.ndim > 1 and "ffn_gate_inp" not in given else gguf.GGMLQuantizationType.F32
        data = quantize(values, own)
        writer.add_tensor(f"{given}.{suffix if dot else 'weight'}", data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors_of(model: PreTrainedModel, arch: str) -> list[tuple[str, torch.Tensor]]:
    """The tensors as the converter writes them: rotary pairs of Llama side by side, gate and up of experts apart."""
    found = []
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if arch == "llama" and (".q_proj" in name or ".k_proj" in name):
            heads = 6 if ".q_proj" in name else 2
            tensor = tensor.reshape(heads, 2, 8, -1).swapaxes(1, 2).reshape(tensor.shape)
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, 1)
            stem = name.removesuffix("gate_up_proj")
            found += [(f"{stem}gate_proj.weight", gate), (f"{stem}up_proj.weight", up)]
            continue
        if name.endswith("experts.down_proj"):
            name += ".weight"
        found.append((name, tensor.squeeze(0) if "shared_expert_gate" in name else tensor))
    return found


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("arch", list(MODELS))
def test_equals_transformers(tmp_path: Path, arch: str, kind: str) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, arch, gguf.GGMLQuantizationType[kind])
    AutoCompiler().compile(str(path), max_length=24)
    folder = find_folder(path)
    assert folder.root == tmp_path / "tiny"
    config = AutoConfig.from_pretrained(folder.ckpt)
    theirs = AutoConfig.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ignored = {"architectures", "_name_or_path", "transformers_version"}
    assert {key: value for key, value in config.to_dict().items() if key not in ignored} == {
        key: value for key, value in theirs.to_dict().items() if key not in ignored
    }
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(theirs)
    expected = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
    ours = load_file(folder.ckpt / "model.safetensors")
    assert ours.keys() == expected.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.float(), expected[name].float()), name
    if kind != "F32":
        return
    tokenizer = AutoTokenizer.from_pretrained(folder.ckpt)
    assert tokenizer("Hi, there")["input_ids"] == list(b"Hi, there")
    model = make_model(arch)
    with torch.no_grad():
        exact = model(torch.tensor([TOKENS])).logits[0].numpy()
    logits = CompiledModel.open(folder.root).logits(TOKENS)
    assert np.abs(logits - exact).max() < 0.02 * exact.std()


def test_a_directory_with_one_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
    files = AutoCompiler().compile(str(tmp_path), max_length=24)
    assert files.root == tmp_path
    before = CompiledModel.open(tmp_path).logits(TOKENS)
    first = (tmp_path / "ckpt/model.safetensors").stat().st_mtime_ns
    AutoCompiler().compile(str(tmp_path), max_length=24)
    assert (tmp_path / "ckpt/model.safetensors").stat().st_mtime_ns == first
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.Q4_0)
    AutoCompiler().compile(str(tmp_path), max_length=24)
    assert CompiledModel.open(tmp_path).logits(TOKENS).tobytes() != before.tobytes()
    (tmp_path / "other.gguf").touch()
    with pytest.raises(ConfigError, match=r"holds 2 GGUF files and no config.json: other.gguf, tiny.gguf"):
        find_folder(tmp_path)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises((CheckpointError, UnsupportedModelError), match=r"broken\.gguf: "):
        AutoCompiler().compile(str(tmp_path / "broken.gguf"))
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "rwkv6")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match="rwkv6"):
        AutoCompiler().compile(str(tmp_path / "other.gguf"))
