"""Tiny wrappers: models of images or sounds around a text model, with config.json as such models are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForMultimodalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from support.models.architectures import _randomize
from support.models.tiny import write_tokenizer

_TEXT = {
    "vocab_size": 256, "hidden_size": 72, "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 18, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip
_PLAIN = {key: value for key, value in _TEXT.items() if key != "head_dim"}
_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
_TOWER = _SMALL | {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
_BLOCKS = {"depth": 1, "hidden_size": 32, "out_hidden_size": 72, "intermediate_size": 48, "num_heads": 2}
_IMAGES = {"image_token_id": 250, "video_token_id": 251}
_QWEN = _IMAGES | {"vision_start_token_id": 252, "vision_end_token_id": 253}
_SECTIONS = {"mrope_section": [3, 3, 3]}
_SOUND = _SMALL | {
    "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "num_hidden_layers": 1,
}  # fmt: skip
_LATENT = _PLAIN | {
    "num_key_value_heads": 4, "model_type": "kimi_k2", "architectures": ["DeepseekV3ForCausalLM"],
    "moe_intermediate_size": 36, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2,
    "kv_lora_rank": 18, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 18,
    "first_k_dense_replace": 1,
}  # fmt: skip
_LAYERS = ["conv", "full_attention", "conv"]
_SLIDING = {"sliding_window": 7}


def _with_images(text: dict[str, Any], vision: dict[str, Any], **own: Any) -> dict[str, Any]:
    return {"text_config": text, "vision_config": vision, **own}


#: model_type -> the other values of config.json.
WRAPPERS: dict[str, dict[str, Any]] = {
    "gemma3": _with_images(
        _TEXT | _SLIDING | {"model_type": "gemma3_text"}, _TOWER | {"model_type": "siglip_vision_model"},
        image_token_index=250, boi_token_index=252, eoi_token_index=253, mm_tokens_per_image=4,
    ),
    "mistral3": _with_images(
        _TEXT | {"model_type": "mistral"}, _TOWER | {"model_type": "pixtral"}, image_token_index=250
    ),
    "llava": _with_images(
        _TEXT | {"model_type": "llama"}, _TOWER | {"model_type": "clip_vision_model"}, image_token_index=250
    ),
    "llava_next": _with_images(
        _TEXT | {"model_type": "mistral"}, _TOWER | {"model_type": "clip_vision_model"}, image_token_index=250
    ),
    "llava_onevision": _with_images(
        _PLAIN | {"model_type": "qwen2"}, _TOWER | {"model_type": "siglip_vision_model"}, image_token_index=250
    ),
    "internvl": _with_images(
        _PLAIN | {"model_type": "qwen2"},
        _TOWER | {"model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [14, 14]}, image_token_id=250,
    ),
    "smolvlm": _with_images(
        _TEXT | {"model_type": "llama"}, _TOWER | {"model_type": "smolvlm_vision"}, image_token_id=250
    ),
    "idefics3": _with_images(
        _TEXT | {"model_type": "llama"}, _TOWER | {"model_type": "idefics3_vision"}, image_token_id=250
    ),
    "qwen2_vl": _with_images(
        _PLAIN | {"model_type": "qwen2_vl_text", "rope_scaling": _SECTIONS | {"type": "mrope"}},
        {"depth": 1, "embed_dim": 32, "hidden_size": 72, "num_heads": 2, "model_type": "qwen2_vl"}, **_QWEN,
    ),
    "qwen2_5_vl": _with_images(
        _PLAIN | {"model_type": "qwen2_5_vl_text", "rope_scaling": _SECTIONS | {"rope_type": "default"}},
        _BLOCKS | {"fullatt_block_indexes": [0], "model_type": "qwen2_5_vl"}, **_QWEN,
    ),
    "qwen3_vl": _with_images(
        _TEXT | {"model_type": "qwen3_vl_text", "rope_scaling": _SECTIONS | {"rope_type": "default"}},
        _BLOCKS | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16, "model_type": "qwen3_vl"}, **_QWEN,
    ),
    "qwen3_vl_moe": _with_images(
        _TEXT | {
            "model_type": "qwen3_vl_moe_text", "rope_scaling": _SECTIONS | {"rope_type": "default"}, "num_experts": 4,
            "num_experts_per_tok": 2, "moe_intermediate_size": 36,
        },
        _BLOCKS | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16, "model_type": "qwen3_vl_moe"},
        **_QWEN,
    ),
    "glm4v": _with_images(
        _PLAIN | {
            "model_type": "glm4v_text", "hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2],
            },
        },
        _BLOCKS | {"out_hidden_size": 80, "model_type": "glm4v_vision"}, **_IMAGES,
    ),
    "glm_ocr": _with_images(
        _PLAIN | {
            "model_type": "glm_ocr_text",
            "rope_parameters": _SECTIONS | {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
        },
        _BLOCKS | {"model_type": "glm_ocr_vision"}, **_IMAGES,
    ),
    "aya_vision": _with_images(
        _PLAIN | _SLIDING | {"model_type": "cohere2"}, _TOWER | {"model_type": "siglip_vision_model"},
        image_token_index=250,
    ),
    "cohere2_vision": _with_images(
        _PLAIN | _SLIDING | {"model_type": "cohere2"}, _TOWER | {"model_type": "siglip_vision_model"},
        image_token_id=250,
    ),
    "lfm2_vl": _with_images(
        _PLAIN | {"model_type": "lfm2", "layer_types": _LAYERS, "block_multiple_of": 20},
        _TOWER | {"model_type": "siglip2_vision_model", "num_patches": 4}, image_token_id=250,
    ),
    "kimi_k25": _with_images(
        _LATENT,
        _SMALL | {
            "num_hidden_layers": 1, "pos_emb_height": 4, "pos_emb_width": 4, "model_type": "kimi_k25_vision",
        },
        **_IMAGES,
    ),
    "lighton_ocr": _with_images(
        _TEXT | {"model_type": "qwen3"}, _TOWER | {"model_type": "pixtral"}, image_token_id=250
    ),
    "exaone4_5": _with_images(
        _PLAIN | _SLIDING | {"model_type": "exaone4", "layer_types": ["sliding_attention", *["full_attention"] * 2]},
        _BLOCKS | {"num_key_value_heads": 2, "fullatt_block_indexes": [0]}, **_IMAGES,
    ),
    "voxtral": {"text_config": _TEXT | {"model_type": "llama"}, "audio_config": _SOUND, "audio_token_id": 250},
    "qwen2_audio": {"text_config": _PLAIN | {"model_type": "qwen2"}, "audio_config": _SOUND, "audio_token_index": 250},
    "granite_speech": {
        "text_config": _PLAIN | {"model_type": "granite"}, "audio_token_index": 250, "has_lora_adapter": False,
        "encoder_config": {
            "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "dim_head": 16, "input_dim": 16, "output_dim": 24,
        },
        "projector_config": _SMALL | {
            "model_type": "blip_2_qformer", "encoder_hidden_size": 32, "num_hidden_layers": 1,
        },
    },
}  # fmt: skip


def wrapper_values(model_type: str, **changes: Any) -> dict[str, Any]:
    """A whole config.json. changes: other top-level values."""
    architecture = dict(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)[model_type]
    return {"architectures": [architecture], "model_type": model_type, **WRAPPERS[model_type], **changes}


def write_config(values: dict[str, Any], folder: Path) -> Path:
    """Writes config.json alone; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def made_wrapper(folder: Path, seed: int = 0) -> PreTrainedModel:
    """The wrapper that a folder's config.json describes, in float32, with random weights."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForMultimodalLM.from_config(AutoConfig.from_pretrained(folder)).float()
    routed = any("expert" in name for name, _ in model.named_parameters())
    if not routed:  # with larger weights, another rounding would choose other experts
        _randomize(model, seed, 1.0)
    return model.eval()


def write_wrapper(values: dict[str, Any], folder: Path, seed: int = 0) -> Path:
    """Writes a checkpoint of float16 as transformers saves it, and a tokenizer; gives the folder."""
    write_config(values, folder)
    made_wrapper(folder, seed).half().save_pretrained(folder)
    write_tokenizer(folder)
    return write_config(values, folder)
