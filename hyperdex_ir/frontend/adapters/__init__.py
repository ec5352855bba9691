"""Models whose attention does not go through transformers' attention interface: one module for each.

Its `adapt(model, max_length)` makes the attention of that one instance call `hyperdex::attention`, and gives the
derived parameters that these calls name, by key; classes stay as they are.
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
    """The modules of a model that have all of these attributes, in order; their classes may be called anything.

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
    """What calling this one module does from now on."""
    module.forward = forward


def adapt(model: PreTrainedModel) -> dict[str, Derived]:
    """Replaces what cannot be traced in a model that is ours alone; gives derived parameters, key -> parameter.

    Raises UnsupportedModelError for a mechanism that the adapter does not know.
    """
    name = ADAPTERS.get(model.config.model_type)
    return {} if name is None else import_module(f"{__name__}.{name}").adapt(model)
