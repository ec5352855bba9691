"""The layer of the stack to which an operation belongs, found from its module path."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Block, Operation

from hyperdex_ir.dialects import lpu
from hyperdex_ir.support.xdsl import module_path


@dataclass(frozen=True)
class LayerStack:
    """The module list that holds the layers: `model.layers` for the path `model.layers.3.self_attn.q_proj`."""

    prefix: str

    def number(self, path: str) -> int | None:
        """The layer's number, or None when the path is not in the stack."""
        if not path.startswith(self.prefix + "."):
            return None
        component = path[len(self.prefix) + 1 :].split(".", 1)[0]
        return int(component) if component.isascii() and component.isdigit() else None

    def number_of(self, op: Operation) -> int | None:
        """The number of the layer that the operation came from."""
        return self.number(module_path(op))

    def generic(self, path: str, number: int) -> str:
        """The path, or key, with `*` for the number of this layer; those of other layers stay."""
        if self.number(path) != number:
            return path
        head = f"{self.prefix}.{number}"
        return f"{self.prefix}.*{path[len(head) :]}"


def find_stack(block: Block) -> LayerStack | None:
    """The stack that the first operation with a state is in; None when it is in none."""
    for op in block.ops:
        if isinstance(op, lpu.StatefulOp):
            return stack_of(module_path(op))
    return None


def stack_of(path: str) -> LayerStack | None:
    """The stack that a module is in: the first module list of its path; None when it is in none."""
    components = path.split(".")
    for place, component in enumerate(components):
        if component.isascii() and component.isdigit() and place > 0:
            return LayerStack(".".join(components[:place]))
    return None
