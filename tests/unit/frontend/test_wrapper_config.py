"""config.json of models of images or sounds around a text model: read without torch or transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperdex_ir.checkpoint.quantization_check import quantization_of
from hyperdex_ir.errors import ConfigError, HyperdexError, PromptError, UnsupportedModelError
from hyperdex_ir.frontend.config import check_config
from hyperdex_ir.frontend.wrapper import text_values
from hyperdex_ir.runtime.generate import Limits, check_prompt
from hyperdex_ir.runtime.model import read_eos_ids
from hyperdex_ir.support.files import write_text

GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "image_token_index": 262144,
    "boi_token_index": 255999, "eoi_token_index": 256000, "eos_token_id": [1, 106], "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
}  # fmt: skip
#: As Qwen2.5-VL-3B-Instruct was published: without text_config.
FLAT: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "eos_token_id": 151645,
    "vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654,
    "image_token_id": 151655, "video_token_id": 151656, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 11008, "max_position_embeddings": 128000, "max_window_layers": 70,
    "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "use_sliding_window": False, "vision_config": {"depth": 32, "hidden_act": "silu", "hidden_size": 1280},
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 151936,
}  # fmt: skip
KIMI: dict[str, Any] = {
    "architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25", "auto_map": {"AutoConfig": "x.Y"},
    "media_placeholder_token_id": 163605, "vision_config": {},
    "text_config": {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "auto_map": {"AutoModel": ""}},
}  # fmt: skip


def changed(config: dict[str, Any], **text: Any) -> dict[str, Any]:
    return config | {"text_config": config["text_config"] | text}


def test_the_sizes_are_those_of_the_text_model() -> None:
    summary = check_config(GEMMA3, "config.json")
    assert (summary.architecture, summary.model_type) == ("Gemma3ForConditionalGeneration", "gemma3_text")
    assert (summary.layers, summary.hidden, summary.vocab, summary.wrapper) == (34, 2560, 262208, True)
    assert summary.eos_ids == (1, 106)
    assert summary.placeholders == {"image_token_index": 262144}
    assert text_values(GEMMA3)["torch_dtype"] == "bfloat16"


def test_a_file_without_text_config() -> None:
    summary = check_config(FLAT, "config.json")
    assert (summary.model_type, summary.layers, summary.kv_heads, summary.tied) == ("qwen2_5_vl_text", 36, 2, True)
    assert summary.placeholders == {
        "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656,
    }  # fmt: skip
    inner = {key: FLAT[key] for key in FLAT if not key.startswith(("vision_", "image_", "video_", "architectures"))}
    nested = {key: FLAT[key] for key in FLAT if key not in inner} | {"model_type": "qwen2_5_vl"}
    assert check_config(nested | {"text_config": inner | {"model_type": "qwen2_5_vl_text"}}, "config.json") == summary
    assert check_config(nested | {"text_config": {**inner, "model_type": None}}, "c").model_type == "qwen2_5_vl_text"


def test_a_text_model_known_by_its_class() -> None:
    summary = check_config(KIMI, "config.json")
    assert (summary.model_type, summary.layers) == ("deepseek_v3", 61)
    assert summary.placeholders == {"media_placeholder_token_id": 163605}
    assert summary.notes == (
        "config.json: auto_map is ignored: its text model is built in, and the code of a checkpoint is never run",
    )


def test_no_class_is_that_of_the_model_type() -> None:
    config = {key: value for key, value in GEMMA3.items() if key != "architectures"}
    assert check_config(config, "config.json").architecture == "gemma3"


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            changed(GEMMA3, model_type="gemma3n_text"),
            UnsupportedModelError,
            "Gemma3ForConditionalGeneration is a model around a text model of model_type gemma3n_text, which is not",
        ),
        (changed(GEMMA3, model_type=["x"]), UnsupportedModelError, "of model_type"),
        (changed(GEMMA3, hidden_size=-1), ConfigError, "text_config: hidden_size is -1"),
        (changed(GEMMA3, quantization_config={"quant_method": "gptq"}), UnsupportedModelError, "text_config: quantiza"),
        (GEMMA3 | {"quantization_config": {"quant_method": "gptq"}}, UnsupportedModelError, "quantized by gptq"),
        (changed(GEMMA3, attn_implementation="o/n"), UnsupportedModelError, "code from the Hub is never run"),
        (GEMMA3 | {"vision_config": {"attn_implementation": "o/n"}}, UnsupportedModelError, "code from the Hub"),
        (GEMMA3 | {"text_config": "gemma"}, ConfigError, "text_config is of type str, expected an object"),
        (GEMMA3 | {"vision_config": {"depth": 10**6}}, ConfigError, "vision_config.depth is 1000000, expected at most"),
        (GEMMA3 | {"a": {"b": {"num_layers": [9, 5000]}}}, ConfigError, "a.b.num_layers is 5000, expected at most"),
        (GEMMA3 | {"vision_config": {"hidden_size": 2**40}}, ConfigError, "vision_config.hidden_size is 109951162777"),
        (GEMMA3 | {"vision_config": {"indexes": [1] * 5000}}, ConfigError, "vision_config.indexes is 5000, expected"),
        (FLAT | {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24]}}, ConfigError, "3 whole numbers, 64 tog"),
        (FLAT | {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 25]}}, ConfigError, "3 whole numbers"),
        (FLAT | {"rope_scaling": {"type": "mrope", "mrope_section": "16"}}, ConfigError, "3 whole numbers, 64"),
        (
            {"architectures": ["Qwen2_5_VLTextModel"], "model_type": "qwen2_5_vl_text"},
            UnsupportedModelError,
            "the text model of a model of images, without the head",
        ),
        ({"architectures": [], "model_type": "qwen2_5_vl_text"}, UnsupportedModelError, "qwen2_5_vl_text is"),
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_scaling": {"type": "mrope"}},
         UnsupportedModelError, "rope_type mrope is not supported"),
    ],
)  # fmt: skip
def test_refusals(config: dict[str, Any], error: type[HyperdexError], message: str) -> None:
    with pytest.raises(error) as caught:
        check_config(config, "dir/config.json")
    assert str(caught.value).startswith("dir/config.json: ")
    assert message in str(caught.value)


def test_quantized_weights_are_those_of_the_outer_object_first() -> None:
    assert quantization_of(changed(GEMMA3, quantization_config={"a": 1})) == {"a": 1}
    assert quantization_of(changed(GEMMA3, quantization_config={"a": 1}) | {"quantization_config": {"b": 2}}) == {
        "b": 2
    }
    assert quantization_of(GEMMA3) is None


def test_the_end_of_a_text_is_that_of_the_text_model(tmp_path: Path) -> None:
    write_text(tmp_path / "config.json", '{"text_config": {"eos_token_id": 7}}', tmp_path)
    assert read_eos_ids(tmp_path) == (7,)
    write_text(tmp_path / "config.json", '{"eos_token_id": [8, 9], "text_config": {"eos_token_id": 7}}', tmp_path)
    assert read_eos_ids(tmp_path) == (8, 9)


def test_places_of_images_in_a_prompt() -> None:
    limits = Limits(chunk=4, head_rows=2, max_length=16, vocab_size=300, placeholders={"image_token_id": 250})
    check_prompt([1, 2, 249, 251], limits, room=1)
    with pytest.raises(PromptError, match="token id 250 is the image_token_id: it stands for no text, and only"):
        check_prompt([1, 250], limits, room=1)
