"""Reference values: the results of transformers for each module of a model, in a given type. Imports torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from hyperdex_ir.checkpoint.pretrained import model_from, quiet_libraries
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.support.reading import check_checkpoint


@dataclass
class Reference:
    """Values by module path, float32 [tokens, columns], of the innermost modules.

    inputs: the first argument. outputs: the result; the parts of a tuple side by side.
    """

    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)


def run_reference(directory: Path, dtype: str, tokens: Sequence[int], count: int = 1) -> list[Reference]:
    """`count` forwards of transformers over all tokens, weights and arithmetic in `dtype`: f32, f16 or bf16.

    In all but the first, the embeddings are changed at random, with fixed seeds, by up to a rounding error. The error
    of a large value that depends on a few roundings may be small by chance in one forward, but not in several.
    Raises CheckpointError when transformers cannot load the checkpoint.
    """
    with quiet_libraries(), _no_progress_bars():
        model = _load(directory, dtype)
        references = [_forward(model, tokens, seed) for seed in range(count)]
    del model
    gc.collect()
    return references


def _load(directory: Path, dtype: str) -> Any:
    check_checkpoint(directory)
    try:
        model = model_from(directory, getattr(torch, ELEMENTS[dtype].torch))
    except CheckpointError:
        raise
    except Exception as error:  # the library does not catch the exceptions of its loaders
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{directory}: transformers cannot load it: {text}", "the original checkpoint must be there"
        ) from None
    return model.eval()


def _forward(model: Any, tokens: Sequence[int], seed: int) -> Reference:
    """One forward; seed 0 leaves the embeddings unchanged."""
    reference = Reference()
    hooks = _watch(model, reference, len(tokens))
    if seed:
        hooks.append(model.get_input_embeddings().register_forward_hook(_moved(seed)))
    try:
        with torch.no_grad():
            model(torch.tensor([list(tokens)]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return reference


def _moved(seed: int) -> Any:
    """Hook that changes each element by at most half a unit in the last place, and rounds."""
    generator = torch.Generator().manual_seed(seed)

    def move(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(output.shape, generator=generator) - 0.5
        return (output.float() * (1 + torch.finfo(output.dtype).eps * noise)).to(output.dtype)

    return move


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _watch(model: torch.nn.Module, reference: Reference, tokens: int) -> list[Any]:
    """Registers hooks that collect values, and returns them."""
    hooks: list[Any] = []
    for path, module in model.named_modules():
        if any(module.children()):
            continue

        def before(module: Any, args: Any, kwargs: Any, path: str = path) -> None:
            first = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(first, torch.Tensor) and _is_value(first, tokens):
                reference.inputs[path] = _rows(first, tokens)

        def after(module: Any, args: Any, output: Any, path: str = path) -> None:
            items = output if isinstance(output, tuple) else (output,)
            if items and all(_is_value(item, tokens) for item in items):
                reference.outputs[path] = np.concatenate([_rows(item, tokens) for item in items], axis=1)

        hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(module.register_forward_hook(after))
    return hooks


def _is_value(value: Any, tokens: int) -> bool:
    """Test for a floating-point tensor with one row for each token, alone or in a batch of one."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() < 2:
        return False
    return value.shape[0] == tokens or (value.shape[0] == 1 and value.shape[1] == tokens)


def _rows(value: torch.Tensor, tokens: int) -> np.ndarray:
    return value.detach().to(torch.float32).reshape(tokens, -1).numpy().copy()
