"""Import of Hugging Face checkpoints as `lpu` modules. Only tracing imports torch and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperdex_ir.frontend.model import ImportedModel, trace_model

__all__ = ["ImportedModel", "trace_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hyperdex_ir.frontend import model

    return getattr(model, name)
