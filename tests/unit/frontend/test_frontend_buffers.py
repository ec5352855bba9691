"""Buffers that are in no checkpoint: each has a value, made as transformers makes it, or the model is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.models.architectures import CASES
from support.models.dense_cases import SIZES
from support.models.tiny import tiny_config
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, GemmaConfig, PreTrainedConfig, PreTrainedModel

from hyperdex_ir.frontend.derived import layer_kinds, rotary_modules
from hyperdex_ir.frontend.fx_buffers import buffer_values


def on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize("name", list(CASES))
def test_every_buffer_is_in_the_checkpoint_or_derived(name: str) -> None:
    """But for masks, which are of booleans; of rotary modules the tables are derived."""
    model = on_meta(AutoConfig.for_model(CASES[name].model_type, **(SIZES | CASES[name].fields)))
    rotary = dict(rotary_modules(model))
    assert all(layer_kinds(path, module) for path, module in rotary.items())
    known = {*model.state_dict(), *buffer_values(model)}
    others = [key for key, buffer in model.named_buffers() if key not in known and buffer.dtype is not torch.bool]
    assert [key for key in others if key.rpartition(".")[0] not in rotary] == []


@pytest.mark.parametrize("config", [GemmaConfig, Gemma2Config])
def test_the_scale_of_an_embedding_is_that_of_float32(config: type[PreTrainedConfig]) -> None:
    """Not that of bfloat16: 46.25 for the square root of 2120."""
    model = on_meta(tiny_config(config, hidden_size=2120, num_attention_heads=8))
    (value,) = buffer_values(model).values()
    assert (value.dtype, value.shape) == (np.dtype(np.float32), ())
    assert float(value) == np.float32(math.sqrt(2120)) != 46.25


class Buffers(PreTrainedModel):
    """A model of buffers, some of which it makes anew."""

    config_class = PreTrainedConfig

    def __init__(self, config: Any = None):
        super().__init__(config or PreTrainedConfig())
        self.part = nn.Module()
        self.part.register_buffer("slopes", torch.ones(3, 2), persistent=False)
        self.part.register_buffer("lost", torch.ones(3), persistent=False)
        self.part.register_buffer("saved", torch.ones(3))
        self.part.register_buffer("mask", torch.ones(3, dtype=torch.bool), persistent=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "slopes"):
            torch.nn.init.constant_(module.slopes, 0.3)


def test_what_the_model_does_not_make_has_no_value() -> None:
    with torch.device("meta"):
        model = Buffers()
    (item,) = buffer_values(model).items()
    assert item[0] == "part.slopes"
    np.testing.assert_array_equal(item[1], np.full((3, 2), 0.3, np.float32))
    assert all(buffer.is_meta for buffer in model.buffers())
