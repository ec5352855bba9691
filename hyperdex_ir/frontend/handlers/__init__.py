"""Handlers that import the torch operators, by topic."""

from hyperdex_ir.frontend.handlers import activations, elementwise, model, routing, shapes
from hyperdex_ir.frontend.handlers.registry import HANDLERS, Handler

__all__ = ["HANDLERS", "Handler", "activations", "elementwise", "model", "routing", "shapes"]
