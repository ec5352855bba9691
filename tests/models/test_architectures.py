"""Every supported architecture: nearer to float32 than transformers in the matrix type, and the same bits every way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from support import SOAK, chosen
from support.models.architectures import CASES, write_case, write_config
from support.models.mechanisms import mechanisms
from support.models.recorded import MACHINE, POSITIONS, has_recorded_bytes
from support.models.routing_gaps import Reference, clear_positions, clear_text
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hyperdex_ir.frontend.families import FAMILIES
from hyperdex_ir.frontend.renamed import RENAMED
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

SEEDS = range(5) if SOAK else range(1)
CHUNKS = (1, 7, 32)
#: Cases that stand for all where a model runs in other ways: together they have every kind of operation.
FEW = (
    "afmoe", "apertus", "cohere-norms", "cwm", "deepseek_v3", "deepseek_v3-plain", "diffllama", "falcon-new",
    "falcon-slopes", "gemma2", "gemma3-softcap", "gpt2-scales", "gpt_oss", "gptj", "granite", "helium",
    "hyperclovax-plain", "laguna", "lfm2", "lfm2-biases", "llama", "modernbert-decoder", "nanochat", "nemotron", "olmo",
    "opt", "opt-xielu", "phi-norms", "qwen2-windows", "qwen2_moe-windows", "stablelm-norms-parallel",
)  # fmt: skip

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Compiled:
    """A compiled model in its folder, the tokens of the test and its logits of them by the native executor; what
    transformers computes of them in float32 and in the model's type."""

    folder: Path
    name: str
    seed: int
    tokens: list[int]
    model: CompiledModel
    logits: np.ndarray
    references: tuple[Reference, Reference]


def _of(names: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrization of the fixture `compiled`."""
    models = [pytest.param((name, seed), id=f"{name}-{seed}") for name in names for seed in SEEDS]
    return pytest.mark.parametrize("compiled", models, indirect=True, scope="module")


#: The first case of each model type, and the few.
_TYPES = {case.model_type: name for name, case in reversed(CASES.items())}
_EACH = [name for name in CASES if name in FEW or name in _TYPES.values()]
of_each, of_few = _of(chosen(CASES, *_EACH)), _of(chosen(CASES, *FEW))


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    name, seed = request.param
    folder = write_case(CASES[name], tmp_path_factory.mktemp(name), seed)
    random = np.random.default_rng(seed)
    models = _theirs(folder, "float32"), _theirs(folder, CASES[name].dtype)
    tokens, references = clear_text(models, random.integers(0, 256, POSITIONS).tolist(), random)
    AutoCompiler().compile(str(folder), max_length=POSITIONS)
    model = CompiledModel.open(folder, engine="native")
    return Compiled(folder, name, seed, tokens, model, model.logits(tokens), references)


def _theirs(folder: Path, dtype: str) -> PreTrainedModel:
    # The default for experts takes sizes that are multiples of 16 bytes only. That for attention, sdpa, has no cap of
    # scores: 5.19 takes it for Gemma 2 all the same and leaves the cap out, 5.24 does not.
    capped = getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None) is not None
    attention = {"attn_implementation": "eager"} if capped else {}
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), experts_implementation="eager", **attention
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@of_each
def test_nearer_to_float32_than_transformers(compiled: Compiled) -> None:
    """Of a routed model, the text up to where rounding may choose an expert: see routing_gaps.py."""
    assert compiled.references[0].logits.std() >= 1
    compared = clear_positions(*compiled.references)
    assert compared.mean() >= 0.5
    exact, theirs, logits = (
        values[compared] for values in (*(found.logits for found in compiled.references), compiled.logits)
    )
    ours, error = _rms(logits - exact), _rms(theirs - exact)
    best = np.sort(exact, axis=1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > 4 * error
    print(
        f"std {exact.std():.2f}, rms error {error:.5f}, ratio {ours / error:.2f}, "
        f"compared {clear.mean():.0%} of {len(exact)}"
    )
    assert ours <= 0.9 * error
    assert clear.mean() >= 0.6
    assert (logits.argmax(axis=1) == exact.argmax(axis=1))[clear].all()


@of_each
@pytest.mark.skipif(bool(MACHINE), reason=MACHINE)
def test_the_recorded_bytes(compiled: Compiled) -> None:
    assert compiled.seed or has_recorded_bytes(compiled.name, "default", compiled.folder)


@of_few
def test_the_same_bits_without_optimizations(compiled: Compiled, tmp_path: Path) -> None:
    AutoCompiler().compile(str(compiled.folder), max_length=POSITIONS, pipeline="o0", output_dir=str(tmp_path))
    assert CompiledModel.open(tmp_path).logits(compiled.tokens).tobytes() == compiled.logits.tobytes()
    assert compiled.seed or has_recorded_bytes(compiled.name, "o0", tmp_path)


@of_few
def test_the_same_bits_on_two_devices(compiled: Compiled) -> None:
    """In the same folder: the images are made of the converted checkpoint that is there."""
    AutoCompiler().compile(str(compiled.folder), num_device=2, max_length=POSITIONS)
    model = CompiledModel.open(compiled.folder, num_device=2)
    assert model.logits(compiled.tokens).tobytes() == compiled.logits.tobytes()
    assert compiled.seed or has_recorded_bytes(compiled.name, "two", compiled.folder)


@of_few
def test_the_same_bits_by_the_interpreter(compiled: Compiled) -> None:
    model = CompiledModel.open(compiled.folder, engine="interpreter")
    assert model.logits(compiled.tokens).tobytes() == compiled.logits.tobytes()


@of_few
def test_the_same_bits_for_every_prefill_chunk(compiled: Compiled) -> None:
    """Each step gives the logits of its last row, which are those of the step over the whole text."""
    for chunk in CHUNKS:
        for start in range(0, POSITIONS, chunk):
            part = compiled.tokens[start : start + chunk]
            last = start + len(part) - 1
            assert compiled.model.forward(part, start).tobytes() == compiled.logits[last].tobytes(), (chunk, last)


def test_every_architecture_is_here() -> None:
    # The others are in test_renamed.py and test_wrappers.py.
    known = {family.model_type for name, family in FAMILIES.items() if name not in RENAMED and not family.wrapped}
    assert {case.model_type for case in CASES.values()} == known


@pytest.mark.skipif(not SOAK, reason="for a soak: SOAK=1")
def test_the_few_have_every_kind_of_operation(tmp_path: Path) -> None:
    kinds = {name: mechanisms(write_config(case, tmp_path / name)) for name, case in CASES.items()}
    found = frozenset().union(*(kinds[name] for name in FEW))
    assert {name: sorted(missing) for name, own in kinds.items() if (missing := own - found)} == {}
