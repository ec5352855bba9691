"""Tiny models of the supported architectures: a new architecture is a new entry in DENSE or ROUTED."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from support.models.dense_cases import DENSE, SIZES, Case
from support.models.routed_cases import ROUTED
from support.models.tiny import write_tokenizer

#: Names of tests -> models.
CASES: dict[str, Case] = DENSE | ROUTED


def write_config(case: Case, directory: Path) -> Path:
    """Writes config.json alone; gives the directory."""
    with torch.device("meta"):
        model = _model(case)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    return directory


def _model(case: Case) -> PreTrainedModel:
    config = AutoConfig.for_model(case.model_type, **(SIZES | case.fields))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def write_case(case: Case, directory: Path, seed: int) -> Path:
    """Writes config.json, safetensors with random weights and a tokenizer; gives the directory."""
    model = _model(case)
    _randomize(model, seed, case.gain)
    model.to(getattr(torch, case.dtype)).save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def _randomize(model: PreTrainedModel, seed: int, gain: float) -> None:
    """Matrices that keep the variance, an embedding of variance 1, norms near 1, biases near 0; a head with a gain."""
    generator = torch.Generator().manual_seed(seed)
    head: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter is embedding.weight:
                parameter.copy_(values)
            elif parameter is head.weight:
                parameter.copy_(values * gain * parameter.shape[1] ** -0.5)
            elif parameter.dim() >= 2 and "norm" not in name and not name.endswith("bias"):
                parameter.copy_(values * _inputs(model, name, parameter) ** -0.5)
            else:
                parameter.copy_(0.1 * values + (1.0 if name.endswith("weight") else 0.0))
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))


def _inputs(model: PreTrainedModel, name: str, parameter: torch.Tensor) -> int:
    """How many numbers a row of a matrix is multiplied with."""
    experts: Any = model.get_submodule(name.rpartition(".")[0])
    return parameter.shape[1 if getattr(experts, "is_transposed", False) else -1]
