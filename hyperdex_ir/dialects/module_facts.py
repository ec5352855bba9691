"""The attributes of a module that say what it was made for, and what the pipeline has chosen for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr

from hyperdex_ir.dialects.lpu import grid_of
from hyperdex_ir.errors import HyperdexError, LoweringError

PLACEHOLDERS = "lpu.placeholders"
CHUNK, HEAD_ROWS, LMU_WORDS = "isa.chunk", "isa.head_rows", "isa.lmu_words"


def _unstated(attribute: str, kind: str) -> HyperdexError:
    return LoweringError(f"the module has no {kind} attribute {attribute}", "the frontend sets it; add it to the text")


@dataclass(frozen=True)
class ModuleFacts:
    """The facts of a module. Each is looked up when it is asked for; a missing one raises the error that `unstated`
    makes.

    unstated: makes the error of a missing attribute, by its name and its kind, `string` or `integer`.
    """

    module: ModuleOp
    unstated: Callable[[str, str], HyperdexError] = _unstated

    @property
    def num_device(self) -> int:
        """The number of devices that the module is for; 1 when it names no grid."""
        return grid_of(self.module)

    @property
    def target(self) -> str:
        """The target, as `load_target` takes it."""
        return self._text("lpu.target")

    @property
    def matrix_type(self) -> str:
        return self._text("lpu.matrix_type")

    @property
    def max_length(self) -> int:
        """The number of positions."""
        return self._number("lpu.max_length")

    @property
    def chunk(self) -> int:
        """The most tokens in flight."""
        return self._number(CHUNK)

    @property
    def head_rows(self) -> int:
        """The most wanted rows of logits."""
        return self._number(HEAD_ROWS)

    @property
    def lmu_words(self) -> int:
        """Words of the LMU that buffers take."""
        return self._number(LMU_WORDS)

    @property
    def placeholders(self) -> dict[str, int]:
        """The tokens that stand for images or sounds, by the keys that config.json has for them; often none."""
        found = self.module.attributes.get(PLACEHOLDERS)
        values = found.data.items() if isinstance(found, DictionaryAttr) else ()
        return {name: value.value.data for name, value in values if isinstance(value, IntegerAttr)}

    def rows(self, default: int) -> tuple[int, int]:
        """`chunk` and `head_rows`; `default` for one that is not chosen yet."""
        values = (self.module.attributes.get(name) for name in (CHUNK, HEAD_ROWS))
        chunk, head_rows = (value.value.data if isinstance(value, IntegerAttr) else default for value in values)
        return chunk, head_rows

    def _text(self, name: str) -> str:
        value = self.module.attributes.get(name)
        if not isinstance(value, StringAttr):
            raise self.unstated(name, "string")
        return value.data

    def _number(self, name: str) -> int:
        value = self.module.attributes.get(name)
        if not isinstance(value, IntegerAttr):
            raise self.unstated(name, "integer")
        return value.value.data
