"""Texts beyond the window and the original rotary length, up to exactly max_length, and what is said beyond that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.models.architectures import CASES, write_case
from transformers import AutoModelForCausalLM

from hyperdex_ir.errors import PromptError
from hyperdex_ir.runtime.executors import EXECUTORS
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

LENGTH = 43
#: Windows of 7 in two layers of three; frequencies for more than the 24, or 17, positions that the model was made for.
NAMES = ("gemma3", "phi3-long", "llama-dynamic")
#: What the compiler says of frequencies that depend on the length.
SAID = {"phi3-long": "longrope frequencies for a text beyond", "llama-dynamic": "dynamic frequencies for a text beyond"}


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(CASES[request.param], tmp_path_factory.mktemp(request.param), 0)


@pytest.fixture(scope="module")
def text(folder: Path) -> list[int]:
    """A prompt of 9 tokens, and what the native executor makes of it until no position is left."""
    AutoCompiler().compile(str(folder), max_length=LENGTH)
    prompt = np.random.default_rng(1).integers(0, 256, 9).tolist()
    result = CompiledModel.open(folder, engine="native").generate(prompt, 1000)
    assert result.finish == "max_length"
    return [*prompt, *result.tokens]


@pytest.mark.parametrize("engine", EXECUTORS)
def test_all_positions_and_no_more(folder: Path, text: list[int], engine: str) -> None:
    assert len(text) == LENGTH
    model = CompiledModel.open(folder, engine=engine)
    assert list(model.generate(text[:9], 1000).tokens) == text[9:]
    logits = model.logits(text)
    assert logits[8:-1].argmax(axis=1).tolist() == text[9:]
    assert model.forward(text[-1:], LENGTH - 1).tobytes() == logits[-1].tobytes()
    message = f"1 tokens from position {LENGTH} on; the compiled model holds {LENGTH} positions"
    with pytest.raises(PromptError, match=message):
        model.forward([1], LENGTH)
    with pytest.raises(PromptError, match=f"the prompt has {LENGTH + 1} tokens; .* for max_length {LENGTH}"):
        model.logits([*text, 1])
    with pytest.raises(PromptError, match=f"the prompt has {LENGTH} tokens; .* prompt and response together"):
        model.generate(text, 1)


def test_as_transformers_to_the_last_position(folder: Path, text: list[int]) -> None:
    """In float32, over the whole text at once: then its frequencies are those for max_length too."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        exact = model(torch.tensor([text])).logits[0].numpy()
    error = np.abs(CompiledModel.open(folder).logits(text) - exact).max(axis=1)
    assert (error < 0.05 * exact.std()).all()


def test_says_which_frequencies_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in SAID.items():
        AutoCompiler().compile(str(write_case(CASES[name], tmp_path / name, 0)), max_length=LENGTH)
        lines = [line for line in capsys.readouterr().err.splitlines() if said in line]
        assert len(lines) == 1
        assert lines[0].endswith(f"the original length, because max_length is {LENGTH}")
