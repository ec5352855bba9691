"""Adapters for models whose attention does not use transformers' attention interface: one module for each model type.

`adapt(model, max_length)` of such a module makes the attention of that one instance call `hyperdex::attention`. It
returns the derived parameters that these calls name, by key. The classes are not patched.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from hyperdex_ir.errors import UnsupportedModelError
from hyperdex_ir.frontend.derived import Derived

#: model_type -> the module in this package that adapts it.
ADAPTERS: dict[str, str] = {
    "bloom": "bloom",
    "codegen": "interleaved",
    "falcon": "falcon",
    "gptj": "interleaved",
    "mpt": "mpt",
}


def modules_with(model: torch.nn.Module, *names: str) -> list[Any]:
    """Modules of a model that have all of these attributes, in order. The names of their classes do not matter.

    Raises UnsupportedModelError when there is none.
    """
    found = [module for module in model.modules() if all(hasattr(module, name) for name in names)]
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__}: transformers {transformers.__version__} has no module with {', '.join(names)}",
            "use a version of transformers that pyproject.toml allows",
        )
    return found


def set_forward(module: Any, forward: Callable[..., Any]) -> None:
    """Replaces the forward of this one module instance."""
    module.forward = forward


def adapt(model: PreTrainedModel) -> dict[str, Derived]:
    """Patches the parts of the model instance that cannot be traced; returns the derived parameters by key.

    The caller must own the instance.

    Raises UnsupportedModelError for a mechanism that the adapter does not know.
    """
    name = ADAPTERS.get(model.config.get_text_config(decoder=True).model_type)
    return {} if name is None else import_module(f"{__name__}.{name}").adapt(model)
