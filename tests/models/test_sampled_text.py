"""Sampled text of compiled models: that of an implementation written from docs/arithmetic.md alone, on every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.models.second_sampling import Choice, chosen
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint

from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.sampling import Sampling
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow

PROMPT = list(b"Once upon a time, once upon")
NEW_TOKENS = 24
CHOICES = {
    "greedy-penalty": Choice(greedy=True, penalty=1.75),
    "plain": Choice(seed=1),
    "hot": Choice(seed=2, temperature=1.5),
    "top-k": Choice(seed=(1 << 64) - 1, top_k=5),
    "top-p": Choice(seed=1 << 40, top_p=0.7),
    "all": Choice(seed=5, temperature=0.8, top_k=20, top_p=0.9, penalty=1.3),
}


@pytest.fixture(scope="module", params=["llama", "opt"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(
        tiny_llama_config() if request.param == "llama" else tiny_opt_config(tie_word_embeddings=False), folder
    )
    AutoCompiler().compile(model_id=folder)
    return folder


def sampling(choice: Choice) -> Sampling:
    """The package's name for these settings."""
    return Sampling(not choice.greedy, choice.temperature, choice.top_k, choice.top_p, choice.penalty, choice.seed)


@pytest.mark.parametrize("engine", ["interpreter", "native"])
@pytest.mark.parametrize("name", CHOICES)
def test_text_is_that_of_the_document(compiled: Path, engine: str, name: str) -> None:
    """Every token follows from the logits of the text before it, which asking for them does not change."""
    model, choice = CompiledModel.open(compiled, engine=engine), CHOICES[name]
    tokens = model.generate(PROMPT, NEW_TOKENS, sampling=sampling(choice)).tokens
    text = [*PROMPT, *tokens]
    logits = model.logits(text)
    for p in range(len(PROMPT) - 1, len(text) - 1):
        assert text[p + 1] == chosen(logits[p], text[: p + 1], p, choice), f"position {p}"
    assert len(set(tokens)) > 3


def test_chunks_and_calls_before_do_not_count(compiled: Path) -> None:
    """The text depends on prompt, settings and seed: not on steps, nor on what the model generated before."""
    model = CompiledModel.open(compiled)
    settings = sampling(CHOICES["all"])
    first = model.generate(PROMPT, NEW_TOKENS, sampling=settings).tokens
    model.generate(PROMPT[::-1], 5, sampling=Sampling(True, repetition_penalty=3.0, seed=9))
    assert model.generate(PROMPT, NEW_TOKENS, sampling=settings).tokens == first
    greedy = model.generate(PROMPT, NEW_TOKENS).tokens
    assert greedy != first
    device = model.device
    device.set_sampling(settings.settings)
    for start in range(0, len(PROMPT), 3):
        device.forward(PROMPT[start : start + 3], start)
    assert device.next_token == first[0]
    with_half_of_it = model.generate([*PROMPT, *first[:7]], NEW_TOKENS - 7, sampling=settings)
    assert with_half_of_it.tokens == first[7:]


def test_seeds_differ_and_repeat(compiled: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(compiled)
    texts = [model.generate(PROMPT, max_new_tokens=8, do_sample=True, seed=seed).tolist() for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3]
    assert len({str(text) for text in texts}) == 3
    drawn = model.generate(PROMPT, max_new_tokens=8, do_sample=True).tolist()
    assert model.generate(PROMPT, max_new_tokens=8, do_sample=True, seed=model.last_seed).tolist() == drawn


def test_penalty_is_that_of_transformers(compiled: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM as TheirModel

    theirs = TheirModel.from_pretrained(compiled, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    options = {"max_new_tokens": 16, "do_sample": False, "repetition_penalty": 1.5}
    expected = theirs.generate(ids, **options)
    ours = AutoModelForCausalLM.from_pretrained(compiled).generate(ids, **options)
    assert torch.equal(ours, expected)
    assert not np.array_equal(ours, theirs.generate(ids, max_new_tokens=16, do_sample=False))
