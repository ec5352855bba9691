"""Models of images or sounds around a text model: their text part computes what the whole computes of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import SOAK
from support.models.wrappers import WRAPPERS, wrapper_values, write_wrapper
from transformers import AutoModelForMultimodalLM

from hyperdex_ir.errors import PromptError
from hyperdex_ir.frontend.families import FAMILIES
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.verify.against import compare_with_transformers

POSITIONS = 40
TOKENS = np.random.default_rng(3).integers(3, 250, POSITIONS).tolist()

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model_type", list(WRAPPERS) if SOAK else ["qwen2_5_vl"])
def test_the_text_part_is_nearer_to_float32_than_transformers(model_type: str, tmp_path: Path) -> None:
    """Logits of the whole model, of its text alone; its sections of positions are those of time, height and width."""
    folder = write_wrapper(wrapper_values(model_type), tmp_path / "model")
    AutoCompiler().compile(str(folder), max_length=POSITIONS)
    model = CompiledModel.open(folder)
    ours = model.logits(TOKENS)
    exact, theirs = (_by_transformers(folder, dtype) for dtype in (torch.float32, torch.float16))
    assert _rms(ours - exact) <= 0.9 * _rms(theirs - exact)
    with pytest.raises(PromptError, match=r"token id 250 is the \w+_token_(id|index): it stands for no text"):
        model.generate([3, 250], 1)
    comparisons = compare_with_transformers(str(folder), TOKENS[:9])
    assert comparisons.first_off is None
    assert len(comparisons.values) > 10


def test_every_text_model_of_a_wrapper_is_here() -> None:
    known = {family.model_type for family in FAMILIES.values() if family.wrapped}
    assert known <= {values["text_config"]["model_type"] for values in WRAPPERS.values()}


def _by_transformers(folder: Path, dtype: torch.dtype) -> np.ndarray:
    # The default for experts takes sizes that are multiples of 16 bytes only.
    model = AutoModelForMultimodalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([TOKENS])).logits[0].float().numpy()


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
