"""What imports each torch operator, by topic."""

from hyperdex_ir.frontend.handlers import elementwise, model, shapes
from hyperdex_ir.frontend.handlers.registry import HANDLERS, Handler

__all__ = ["HANDLERS", "Handler", "elementwise", "model", "shapes"]
