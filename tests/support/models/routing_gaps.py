"""Where routed models choose among experts that score almost alike, rounding decides: no such choice is compared.

A token whose expert rounding has chosen is another vector from that layer on, in the KV cache too: every later token
that attends to it is another as well. So a text can be compared up to the first such choice of any router, and is left
out from there, for both sides: whether one of them did choose differently does not matter. A few choices in a hundred
are of that kind, so that little of a random text would remain; `clear_text` draws its tokens again where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

_TOKENS = 256
_MOST_DRAWS = 100


@contextmanager
def recorded_scores(model: PreTrainedModel) -> Iterator[list[tuple[Any, np.ndarray]]]:
    """The routers that run inside the block, and the scores [tokens, experts] that they rank, in order."""
    records: list[tuple[Any, np.ndarray]] = []

    def record(router: Any, _: Any, outputs: Any) -> None:
        scores = outputs[0].float()
        if hasattr(router, "e_score_correction_bias"):
            scores = scores.sigmoid() + router.e_score_correction_bias.float()
        records.append((router, scores.numpy()))

    routers = [module for module in model.modules() if type(module).__name__.lower().endswith("topkrouter")]
    handles = [module.register_forward_hook(record) for module in routers]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Reference:
    """What transformers computes of a text: logits [tokens, vocabulary], and the scores of its routers."""

    logits: np.ndarray
    scores: list[tuple[Any, np.ndarray]]


def reference(model: PreTrainedModel, tokens: list[int]) -> Reference:
    """One forward step over the text."""
    with torch.no_grad(), recorded_scores(model) as scores:
        return Reference(model(torch.tensor([tokens])).logits[0].float().numpy(), scores)


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
    for (router, scores), (_, others) in zip(exact.scores, theirs.scores, strict=True):
        error = float(np.sqrt(np.mean(np.square(others - scores, dtype=np.float64))))
        clear &= _lead(router, scores) > 4 * error
    return np.logical_and.accumulate(clear)


def _lead(router: Any, scores: np.ndarray) -> np.ndarray:
    """By how much each token's last choice is ahead of the best that is not chosen, and its last group likewise."""
    groups, chosen = getattr(router, "num_group", 1), getattr(router, "topk_group", 1)
    if groups == chosen:
        return _gap(scores, router.top_k)
    grouped = scores.reshape(len(scores), groups, -1)
    totals = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
    allowed = totals >= np.sort(totals, axis=-1)[:, -chosen, None]
    ranked = np.where(allowed[..., None], grouped, -np.inf).reshape(scores.shape)
    return np.minimum(_gap(ranked, router.top_k), _gap(totals, chosen))


def _gap(scores: np.ndarray, k: int) -> np.ndarray:
    ranked = np.sort(scores, axis=-1)
    return ranked[:, -k] - ranked[:, -k - 1] if k < scores.shape[1] else np.full(len(scores), np.inf)
