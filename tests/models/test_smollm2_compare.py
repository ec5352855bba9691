"""`hyperdex verify` and `hyperdex diff` on SmolLM2-135M-Instruct with its real weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import SOAK
from support.models.program_mutations import MUTATIONS, edited_device
from test_smollm2 import PROMPTS

from hyperdex_ir.passes.pipeline import parse_pipeline
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.verify.against import FORWARDS, Comparisons, compare_program, compare_with_transformers
from hyperdex_ir.verify.model import open_model
from hyperdex_ir.verify.passes import Verifier, random_tokens
from hyperdex_ir.verify.reference import run_reference

pytestmark = pytest.mark.slow
soak = pytest.mark.skipif(not SOAK, reason="soak only")
#: What SmolLM2 has not.
NO_BIASES = "missing bias"


def chat_ids(folder: Path, prompt: str) -> list[int]:
    tokenizer = Tokenizer.load(folder / "ckpt")
    text = tokenizer.render_chat([{"role": "user", "content": prompt}], add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def test_every_pass_is_exact(smollm2_short_dir: Path) -> None:
    model = open_model(str(smollm2_short_dir))
    results = Verifier(model, random_tokens(model, 16 if SOAK else 4, 0)).each_pass(parse_pipeline("default"))
    names = [one.name for one in parse_pipeline("default")]
    assert [result.name for result in results] == [*names, "compiled program"]
    assert all(result.equal and not result.error for result in results)


def test_o0_is_exact(smollm2_short_dir: Path) -> None:
    model = open_model(str(smollm2_short_dir))
    results = Verifier(model, random_tokens(model, 3, 1)).whole(parse_pipeline("o0"))
    assert [result.name for result in results] == ["pipeline", "compiled program"]
    assert all(result.equal and not result.error for result in results)


@pytest.mark.parametrize("prompt", PROMPTS if SOAK else PROMPTS[:1])
def test_nothing_is_off(smollm2_dir: Path, prompt: str) -> None:
    found = compare_with_transformers(str(smollm2_dir), chat_ids(smollm2_dir, prompt))
    assert found.first_off is None
    assert len(found.values) == 275


@soak
def test_a_wrong_instruction_is_found(smollm2_dir: Path) -> None:
    ids = chat_ids(smollm2_dir, PROMPTS[0])
    device = CompiledModel.open(smollm2_dir, engine="interpreter").device
    assert isinstance(device, InterpreterDevice)
    (exact,) = run_reference(smollm2_dir / "ckpt", "f32", ids)
    rounded = run_reference(smollm2_dir / "ckpt", "f16", ids, FORWARDS)
    for name in [name for name in MUTATIONS if name != NO_BIASES]:
        edit, path = MUTATIONS[name]
        first = Comparisons(compare_program(edited_device(device, edit), ids, exact, rounded), "f16").first_off
        assert first is not None, name
        assert re.fullmatch(path, first.path), name
