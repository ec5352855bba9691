"""The first layers of SmolLM2, with real weights, under other architectures that compute the same function: they give
the same tokens.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import SOAK
from support.models.rewritten import REWRITERS, rewrite

from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

#: Without SOAK the two that differ most from a Llama.
NAMES = tuple(REWRITERS) if SOAK else ("phi3", "mixtral")
NEW_TOKENS = 32 if SOAK else 12
PROMPTS = ("The capital of France is", "Once upon a time", "def fibonacci(n):")[: 3 if SOAK else 1]
LENGTH = 128


def texts(folder: Path, ckpt: Path) -> list[tuple[int, ...]]:
    """The tokens that follow each prompt."""
    model, tokenizer = CompiledModel.open(folder), Tokenizer.load(ckpt)
    return [model.generate(tokenizer.encode(prompt), NEW_TOKENS).tokens for prompt in PROMPTS]


@pytest.fixture(scope="module")
def expected(smollm2_short_dir: Path) -> list[tuple[int, ...]]:
    return texts(smollm2_short_dir, smollm2_short_dir / "ckpt")


@pytest.mark.parametrize("name", NAMES)
def test_gives_smollm2s_tokens(
    name: str, smollm2_short_dir: Path, expected: list[tuple[int, ...]], tmp_path: Path
) -> None:
    folder = rewrite(smollm2_short_dir / "ckpt", tmp_path / name, name)
    AutoCompiler().compile(str(folder), max_length=LENGTH)
    assert texts(folder, folder) == expected
    assert all(len(tokens) == NEW_TOKENS for tokens in expected)
