"""The text part of a wrapper, a model of images or sounds around a text model: what text alone goes through.

A wrapper is told by its configuration, which holds that of its text model. Its parts are found by transformers' own
methods: the decoder, the embedding of tokens and the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING

from hyperdex_ir.errors import UnsupportedModelError


def is_wrapper(config: PreTrainedConfig) -> bool:
    """Test for the configuration of a wrapper."""
    return config.get_text_config(decoder=True) is not config


def wrapper_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a wrapper, by transformers' table. Raises UnsupportedModelError when that has none."""
    found: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    if found is None:
        raise UnsupportedModelError(
            f"config.json: model_type {config.model_type}: transformers has no class of it that generates text"
        )
    return found[0] if isinstance(found, tuple) else found


def outside_text(model: PreTrainedModel) -> frozenset[str]:
    """Names in the state dict of the parameters that text does not go through; none unless it is a wrapper."""
    if not is_wrapper(model.config):
        return frozenset()
    text = _text_modules(model)
    inside = tuple(f"{path}." for path, module in model.named_modules() if any(module is one for one in text))
    return frozenset(name for name in model.state_dict() if not name.startswith(inside))


@contextmanager
def text_only(model: PreTrainedModel) -> Iterator[None]:
    """Context in which a wrapper has only the modules of its text part, and another model all of its modules."""
    others = list(_others(model, _text_modules(model))) if is_wrapper(model.config) else []
    for parent, name, _ in others:
        parent._modules[name] = _Absent()
    try:
        yield
    finally:
        for parent, name, module in others:
            parent._modules[name] = module


class _Absent(Module):
    """Stand-in for a module that text does not go through: a forward may look at its device and type."""

    device, dtype = torch.device("meta"), torch.float32


def _text_modules(model: PreTrainedModel) -> list[Module]:
    """The modules of the text part. Raises UnsupportedModelError when there is no decoder or no head."""
    found = [model.get_decoder(), model.get_output_embeddings(), model.get_input_embeddings()]
    if any(one is None or one is model for one in found):
        raise UnsupportedModelError(f"{type(model).__name__}: its text part has no decoder or no head of its own")
    return found


def _others(parent: Module, kept: list[Module]) -> Iterator[tuple[Module, str, Module]]:
    """The topmost modules that hold nothing of `kept` and are not in it: parent, name, module."""
    for name, module in parent.named_children():
        if any(module is one for one in kept):
            continue
        inside = list(module.modules())
        if any(one is other for one in kept for other in inside):
            yield from _others(module, kept)
        else:
            yield parent, name, module
