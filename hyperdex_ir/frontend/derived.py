"""Derived parameters, which are in no checkpoint: computed as transformers computes them, and stored like weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Positions computed at a time.
_BLOCK = 4096
#: Rules of transformers whose frequencies depend on the length of the text.
_RULES_OF_LENGTH = ("dynamic", "longrope")


@dataclass(frozen=True, eq=False)
class RotaryTable:
    """Cosine and sine of every position, [length, 2, size] of float32; row p is cos(p), then sin(p).

    frequency: [size / 2] of float32, the angle of a position. column: index of the frequency of each column, [size].
    scaling: multiplies the cosines and sines, in float32. rule: the name of the frequencies' rule. stretched: True when
    the frequencies differ from those of a short text. again: makes the table for another length, for rules that depend
    on the length.
    """

    key: str
    length: int
    size: int
    frequency: np.ndarray
    column: np.ndarray
    scaling: np.float32
    rule: str
    stretched: bool = False
    again: Callable[[int], RotaryTable] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.length, 2, self.size

    @classmethod
    def of_module(cls, path: str, module: torch.nn.Module, length: int, kind: str = "") -> RotaryTable:
        """Table that a rotary module of a model, on any device, computes for a forward of `length` tokens.

        path: of the module. kind: the kind of layers that the table is for, one of `layer_kinds`.
        Raises UnsupportedModelError, naming the module, unless it computes cos and sin of frequency times position.
        """
        import torch

        name = f"{path} ({type(module).__name__})"
        config = getattr(module, "config", None)
        if config is None:
            raise UnsupportedModelError(f"{name}: a rotary module without a configuration is not supported")
        # The forward at the last position makes rules that depend on the length choose their frequencies;
        # the fraction tells the columns' layout apart even when that position is 0.
        probed = torch.tensor([[length - 1, 0.5]])
        prefix = f"{kind}_" if kind else ""
        with torch.device("cpu"), torch.no_grad():
            real: Any = type(module)(config)
            short = getattr(real, f"{prefix}inv_freq").float().numpy().copy()
            cos, sin = real(torch.zeros(1), probed, *([kind] if kind else []))
        frequency = getattr(real, f"{prefix}inv_freq").float().numpy().copy()
        scaling = np.float32(getattr(real, f"{prefix}attention_scaling"))
        rule = str(real.rope_type[kind] if kind else getattr(real, "rope_type", "default"))
        key = f"{path}.{kind}.table" if kind else f"{path}.table"
        stretched = not np.array_equal(short, frequency)
        again = partial(cls.of_module, path, module, kind=kind) if rule in _RULES_OF_LENGTH or stretched else None
        waves = np.stack([cos[0].numpy(), sin[0].numpy()], axis=1)
        for column in _layouts(len(frequency)):
            table = cls(key, length, waves.shape[-1], frequency, column, scaling, rule, stretched, again)
            if len(column) == table.size and np.allclose(table._at(probed[0].numpy()), waves, rtol=1e-5, atol=1e-5):
                return table
        raise UnsupportedModelError(f"{name}: does not compute cosine and sine of frequency times position")

    def at(self, length: int) -> RotaryTable:
        """The table for another length."""
        if length == self.length:
            return self
        return replace(self, length=length) if self.again is None else self.again(length)

    def choice(self) -> str:
        """Description of the frequencies that the rule chose for this length; empty for a rule without a choice."""
        if self.rule not in _RULES_OF_LENGTH:
            return ""
        which = "a text beyond the original length" if self.stretched else "a text within the original length"
        return f"{self.key}: {self.rule} frequencies for {which}, because max_length is {self.length}"

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1: [stop - start, 2, size] of float32."""
        return self._at(np.arange(start, stop, dtype=np.float32))

    def values(self) -> np.ndarray:
        """The whole table, [length, 2, size] of float32."""
        table = np.empty(self.shape, np.float32)
        for start in range(0, self.length, _BLOCK):
            stop = min(start + _BLOCK, self.length)
            table[start:stop] = self.rows(start, stop)
        return table

    def _at(self, position: np.ndarray) -> np.ndarray:
        # The product is rounded to float32, as transformers does; cosine and sine are then rounded once.
        angle = (self.frequency[None, :] * position[:, None]).astype(np.float64)
        waves = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        return waves[:, :, self.column] * self.scaling


def _layouts(count: int) -> Iterator[np.ndarray]:
    """Possible orders of `count` frequencies in the columns: the list twice, each frequency twice in a row, or once."""
    one = np.arange(count)
    yield np.concatenate([one, one])
    yield np.repeat(one, 2)
    yield one


@dataclass(frozen=True, eq=False)
class HeadSlopes:
    """The slope of each query head's bias, [heads] of float32: see `lpu.attention`."""

    key: str
    slopes: np.ndarray

    def at(self, _: int) -> HeadSlopes:
        """The same slopes: they do not depend on the length."""
        return self

    def values(self) -> np.ndarray:
        return self.slopes


#: A parameter that no checkpoint holds; `values()` computes it on demand.
Derived = RotaryTable | HeadSlopes


def layer_kinds(path: str, module: torch.nn.Module) -> tuple[str, ...]:
    """Kinds of layers for which a rotary module has separate frequencies; one empty name if all layers share them.

    Raises UnsupportedModelError, naming the module, when its forward takes any other argument.
    """
    taken = list(inspect.signature(module.forward).parameters)
    if taken == ["x", "position_ids"]:
        return ("",)
    rules = getattr(module, "rope_type", None)
    if taken == ["x", "position_ids", "layer_type"] and isinstance(rules, dict):
        return tuple(rules)
    raise UnsupportedModelError(
        f"{path} ({type(module).__name__}): a rotary module that takes other than positions is not supported"
    )


def rotary_modules(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """The model's rotary modules and their paths, in order.

    A rotary module has neither parameters nor modules of its own, and its forward takes positions. `RotaryTable` checks
    the values that it returns.
    """
    for path, module in model.named_modules():
        plain = not any(module.children()) and not any(True for _ in module.parameters())
        if plain and "position_ids" in inspect.signature(module.forward).parameters:
            yield path, module
