"""Where routed models choose among experts that score almost alike, and rounding decides: those are not compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from transformers import PreTrainedModel


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


def clear_positions(
    exact: list[tuple[Any, np.ndarray]], theirs: list[tuple[Any, np.ndarray]], count: int
) -> np.ndarray:
    """Which positions to compare: where in each layer the last choice leads by over 4 times the error of `theirs`."""
    clear = np.ones(count, bool)
    for (router, scores), (_, others) in zip(exact, theirs, strict=True):
        error = float(np.sqrt(np.mean(np.square(others - scores, dtype=np.float64))))
        clear &= _lead(router, scores) > 4 * error
    return clear


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
