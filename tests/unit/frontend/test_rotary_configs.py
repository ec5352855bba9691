"""Broken rules of rotary frequencies are found in phase 0; those of released models pass."""

from __future__ import annotations

from typing import Any

import pytest

from hyperdex_ir.errors import ConfigError
from hyperdex_ir.frontend.config import check_config

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
PHI3: dict[str, Any] = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}
GEMMA3: dict[str, Any] = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
YARN: dict[str, Any] = {
    "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0,
    "attention_factor": None, "truncate": False, "original_max_position_embeddings": 4096,
}  # fmt: skip
LONGROPE: dict[str, Any] = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1, *[2.5] * 47]}


@pytest.mark.parametrize(
    "config",
    [
        LLAMA | {"rope_scaling": LLAMA3},
        LLAMA | {"rope_scaling": {"type": "linear", "factor": 2}},
        LLAMA | {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        LLAMA | {"rope_scaling": YARN},
        PHI3 | {"rope_scaling": LONGROPE},
        PHI3 | {"rope_scaling": LONGROPE, "num_attention_heads": 24, "partial_rotary_factor": 0.75},
        GEMMA3 | {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}},
    ],
)
def test_released_ones_pass(config: dict[str, Any]) -> None:
    check_config(config, "config.json")


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        ({"rope_type": "linear"}, "rope_parameters.factor is null, expected a positive number for linear"),
        ({"rope_type": "dynamic", "factor": True}, "factor is true, expected a positive number"),
        ({"rope_type": "yarn", "factor": "4"}, 'factor is "4", expected a positive number'),
        (LLAMA3 | {"low_freq_factor": 0}, "low_freq_factor is 0, expected a positive number for llama3"),
        (LLAMA3 | {"low_freq_factor": 4}, "high_freq_factor is 4.0, expected more than low_freq_factor 4"),
        (LLAMA3 | {"high_freq_factor": [4]}, "high_freq_factor is [4], expected a positive number for llama3"),
        (LLAMA3 | {"original_max_position_embeddings": 0}, "original_max_position_embeddings is 0, expected a pos"),
        (LLAMA3 | {"original_max_position_embeddings": 8192.5}, "is 8192.5, expected a positive whole number"),
        (YARN | {"beta_fast": [32]}, "beta_fast is [32], expected a positive number or null"),
        (YARN | {"attention_factor": -1.0}, "attention_factor is -1.0, expected a positive number or null"),
        (YARN | {"mscale": "a"}, 'mscale is "a", expected a positive number or null'),
        (YARN | {"truncate": "no"}, 'truncate is "no", expected true or false'),
        (YARN | {"original_max_position_embeddings": "16"}, 'original_max_position_embeddings is "16", expected'),
        (LONGROPE, "is [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1..., expected a list of 64 positive"),
        ({"rope_type": "longrope"}, "short_factor is null, expected a list of 64 positive numbers, one for each freq"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 64, "long_factor": "x"}, 'long_factor is "x", expected'),
        ({"rope_type": "longrope", "short_factor": [0.0] * 64}, "short_factor is [0.0, 0.0"),
        ({"rope_type": "default", "rope_theta": 10**400}, "rope_theta is 1000"),
    ],
)
def test_broken_rules(rope: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_config(LLAMA | {"rope_parameters": rope}, "config.json")
    assert words in str(raised.value)


def test_the_rule_of_one_kind_of_layer() -> None:
    config = GEMMA3 | {"rope_parameters": {"full_attention": {"rope_type": "linear"}}}
    with pytest.raises(ConfigError, match=r"rope_parameters\.full_attention\.factor is null"):
        check_config(config, "config.json")
