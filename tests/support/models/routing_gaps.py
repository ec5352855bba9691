"""Where routed models choose among experts that score almost alike, rounding decides: no such choice is compared.

A token whose expert rounding has chosen is another vector from that layer on, in the KV cache too: every later token
that attends to it is another as well. So a text can be compared up to the first such choice of any router, and is left
out from there, for both sides: whether one of them did choose differently does not matter. A few choices in a hundred
are of that kind, so that little of a random text would remain; `clear_text` draws its tokens again where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

_TOKENS = 256
_MOST_DRAWS = 100


@dataclass(frozen=True)
class Choice:
    """A choice of the k largest of some scores for each token, [tokens, scores]: experts, or groups of them."""

    k: int
    scores: np.ndarray


class _RecordedChoices(TorchDispatchMode):
    """Mode that keeps every choice that a model makes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: list[Choice] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.topk.default and (args[0].dim() == 2 or args[0].shape[0] == 1):
            scores = args[0].float().numpy()
            self.choices.append(Choice(args[1], scores.reshape(-1, scores.shape[-1])))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Reference:
    """Results of transformers for a text: logits [tokens, vocabulary], and the choices of its routers."""

    logits: np.ndarray
    choices: list[Choice]


def reference(model: PreTrainedModel, tokens: list[int]) -> Reference:
    """One forward step over the text."""
    with torch.no_grad(), _RecordedChoices() as recorded:
        return Reference(model(torch.tensor([tokens])).logits[0].float().numpy(), recorded.choices)


def clear_text(
    models: tuple[PreTrainedModel, PreTrainedModel], tokens: list[int], random: np.random.Generator
) -> tuple[list[int], tuple[Reference, Reference]]:
    """The text with tokens drawn again where a choice of theirs is not clear, and what both models compute of it."""
    tokens, (first, second) = list(tokens), models
    found = reference(first, tokens), reference(second, tokens)
    for _ in range(_MOST_DRAWS):
        compared = clear_positions(*found)
        if compared.all():
            break
        tokens[int(compared.argmin())] = int(random.integers(0, _TOKENS))
        found = reference(first, tokens), reference(second, tokens)
    return tokens, found


def clear_positions(exact: Reference, theirs: Reference) -> np.ndarray:
    """Which positions to compare: up to the first whose last choice, in any layer, leads by at most 4 times the error
    of the scores of `theirs`."""
    clear = np.ones(len(exact.logits), bool)
    for choice, other in zip(exact.choices, theirs.choices, strict=True):
        ranked = np.isfinite(choice.scores) & np.isfinite(other.scores)
        error = float(np.sqrt(np.mean(np.square((other.scores - choice.scores)[ranked], dtype=np.float64))))
        clear &= _lead(choice) > 4 * error
    return np.logical_and.accumulate(clear)


def _lead(choice: Choice) -> np.ndarray:
    """By how much each token's last choice is ahead of the best that is not chosen."""
    ranked = np.sort(choice.scores, axis=-1)
    if choice.k == ranked.shape[1]:
        return np.full(len(ranked), np.inf)
    return ranked[:, -choice.k] - ranked[:, -choice.k - 1]
