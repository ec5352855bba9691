"""config.json -> a graph of torch operators: built on the meta device, without weights, for any number of tokens."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.export import Dim, ExportedProgram
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel

from hyperdex_ir.errors import ConfigError, HyperdexError, UnsupportedModelError
from hyperdex_ir.frontend.derived import RotaryTable, rotary_modules
from hyperdex_ir.frontend.operators import ATTENTION_NAME, ROTARY_TABLE, attention_function

#: Tokens of the example input: any number that no model has as a size of its own serves.
_EXAMPLE_TOKENS = 7
#: The name of the model inside the wrapper: the first component of every path in the graph.
WRAPPED = "model_"


@dataclass(frozen=True)
class TracedModel:
    """A model as torch sees it. `rotary`: the tables by key; `model` holds no values, it is on the meta device."""

    program: ExportedProgram
    model: PreTrainedModel
    rotary: dict[str, RotaryTable]


class _LogitsOnly(torch.nn.Module):
    """(input_ids [1, T], position_ids [1, T]) -> logits [1, T, vocabulary]: no cache, nothing else returned."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.add_module(WRAPPED, model)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        model = self.get_submodule(WRAPPED)
        return model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Neither transformers nor torch writes to stderr; their settings are as before afterwards."""
    verbosity = transformers.logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity(logging.CRITICAL)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            transformers.logging.set_verbosity(verbosity)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _our_attention() -> Iterator[None]:
    """transformers knows our attention function, and makes no mask for it, inside this block only."""
    AttentionInterface.register(ATTENTION_NAME, attention_function)
    AttentionMaskInterface.register(ATTENTION_NAME, lambda *_, **__: None)
    try:
        yield
    finally:
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(ATTENTION_NAME, None)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def load_config(config_dir: Path) -> PreTrainedConfig:
    """transformers' own reading of config.json, its defaults filled in. Raises ConfigError when it refuses."""
    try:
        return transformers.AutoConfig.from_pretrained(str(config_dir), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever its validators raise
        raise ConfigError(f"{config_dir / 'config.json'}: transformers refuses it: {_first_line(error)}") from error


def build_model(config: PreTrainedConfig, architecture: str) -> PreTrainedModel:
    """The model on the meta device, in float32, ready for inference. Raises ConfigError when it cannot be built."""
    model_class = getattr(transformers, architecture)
    config._attn_implementation = ATTENTION_NAME
    try:
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=torch.float32)
    except Exception as error:
        raise ConfigError(f"config.json: transformers cannot build {architecture}: {_first_line(error)}") from error
    return model.eval()


def _patch_rotary(model: PreTrainedModel, max_length: int) -> dict[str, RotaryTable]:
    """Makes each rotary module one node of the graph; the instances are ours, so no one else sees it."""
    tables: dict[str, RotaryTable] = {}
    for path, module in rotary_modules(model):
        table = RotaryTable.of_module(path, module, max_length)
        tables[table.key] = table

        def forward(x: torch.Tensor, position_ids: torch.Tensor, table: RotaryTable = table) -> Any:
            return ROTARY_TABLE(position_ids, table.key, table.size)

        module.forward = forward
    return tables


def export_module(module: torch.nn.Module) -> ExportedProgram:
    """The graph of a module that takes input_ids and position_ids, both [1, T], for any T from 2 on."""
    ids = torch.zeros(1, _EXAMPLE_TOKENS, dtype=torch.long, device="meta")
    tokens = Dim("tokens", min=2)
    # Under no_grad, regions that switch gradients off are part of the graph and no higher-order operators.
    with torch.no_grad():
        return torch.export.export(module, (ids, ids.clone()), dynamic_shapes=({1: tokens}, {1: tokens}), strict=False)


def trace(config_dir: Path, architecture: str, max_length: int) -> TracedModel:
    """Builds and exports the model that config.json describes; reads nothing else.

    Raises ConfigError when transformers cannot build it, UnsupportedModelError when it cannot be exported.
    """
    with quiet_libraries(), _our_attention():
        model = build_model(load_config(config_dir), architecture)
        rotary = _patch_rotary(model, max_length)
        try:
            program = export_module(_LogitsOnly(model))
        except HyperdexError:
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"{architecture}: cannot be exported with any number of tokens: {_first_line(error)}"
            ) from error
    return TracedModel(program, model, rotary)
