"""SmolLM2-135M-Instruct with its real weights, against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import SOAK
from support.models.recorded import MACHINE, has_recorded_bytes
from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.backend.tracing import place_of_lowering
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import resolve_sources
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.isa.instructions import BY_NAME, Group
from hyperdex_ir.passes.pipeline import parse_pipeline, run_passes
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.xdsl import print_module

PROMPTS = (
    "What is the capital of France?",
    "Once upon a time",
    "def fibonacci(n):",
    "The three laws of motion are",
    "Explain photosynthesis to a child.",
    "1, 2, 3, 4,",
    "Dear Sir or Madam,",
    "Rome was founded",
    "List five fruits:",
    "The weather today is",
)[: None if SOAK else 3]
NEW_TOKENS = 48
GAP = 0.05  # between float32's two best logits, below which the argmax is not compared

pytestmark = pytest.mark.slow


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@pytest.mark.skipif(bool(MACHINE), reason=MACHINE)
def test_the_recorded_bytes(smollm2_dir: Path) -> None:
    assert has_recorded_bytes("smollm2", "default", smollm2_dir)


@pytest.fixture(scope="module")
def references(smollm2_dir: Path) -> list[tuple[list[int], int, np.ndarray, np.ndarray]]:
    """For each prompt: token ids (prompt and float32's continuation), prompt length, float32 and float16 logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ckpt = smollm2_dir / "ckpt"
    tokenizer = AutoTokenizer.from_pretrained(ckpt)
    single = AutoModelForCausalLM.from_pretrained(ckpt, dtype=torch.float32)
    half = AutoModelForCausalLM.from_pretrained(ckpt, dtype=torch.float16)
    results = []
    for prompt in PROMPTS:
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        length = chat["input_ids"].shape[1]
        ids = single.generate(**chat, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
        with torch.no_grad():
            logits = [model(ids).logits[0, length - 1 : -1].float().numpy() for model in (single, half)]
        results.append((ids[0].tolist(), length, *logits))
    return results


@pytest.fixture(scope="module")
def logits(smollm2_dir: Path, references) -> list[np.ndarray]:
    """Our logits at the same positions."""
    model = CompiledModel.open(smollm2_dir)
    return [model.forward(ids[:-1], 0, first_row=length - 1) for ids, length, _, _ in references]


def test_argmax_equals_float32(references, logits) -> None:
    compared = 0
    for (_, _, single, _), ours in zip(references, logits, strict=True):
        best = np.sort(single, axis=1)[:, -2:]
        clear = best[:, 1] - best[:, 0] >= GAP
        compared += int(clear.sum())
        assert (ours.argmax(axis=1) == single.argmax(axis=1))[clear].all()
    assert compared >= 40 * len(PROMPTS)


def test_error_is_below_float16s(references, logits) -> None:
    ours = rms(np.concatenate([o - single for (_, _, single, _), o in zip(references, logits, strict=True)]))
    half = rms(np.concatenate([h - single for _, _, single, h in references]))
    print(f"rms error: ours {ours:.6f}, transformers float16 {half:.6f}, ratio {ours / half:.3f}")
    assert ours <= 0.6 * half


# ------------------------------------------------------------------------------------------------- bits at every level

TOKENS = [int(token) for token in np.random.default_rng(7).integers(20, 49152, 70)]
LENGTH = 8192


@pytest.fixture(scope="module")
def stages(smollm2_short_dir: Path) -> tuple[dict[str, ModuleOp], Callable[[str], np.ndarray]]:
    """The module right after import, after all `lpu` passes, and as `isa`; and the parameters by key."""
    ckpt = smollm2_short_dir / "ckpt"
    imported = trace_model(ckpt, target="u55c", max_length=LENGTH, matrix_type="f16")
    checkpoint = Checkpoint(ckpt)
    sources = resolve_sources(imported.names, checkpoint)

    def parameters(key: str) -> np.ndarray:
        if key in imported.derived:
            return imported.derived[key]
        (name,) = sources[key].checkpoint_keys
        values = checkpoint.read(name)
        return values if values.ndim == 2 else values.astype(np.float32)

    passes = parse_pipeline("default")
    place = place_of_lowering(passes)
    modules = {"import": imported.module.clone()}
    run_passes(imported.module, passes[:place])
    modules["lpu"] = imported.module.clone()
    run_passes(imported.module, passes[place:])
    modules["isa"] = imported.module
    return modules, parameters


def test_the_same_bits_at_every_level(smollm2_short_dir: Path, stages) -> None:
    modules, parameters = stages
    tokens = TOKENS if SOAK else TOKENS[:9]
    model = CompiledModel.open(smollm2_short_dir, engine="interpreter")
    expected = model.logits(tokens).tobytes()
    assert CompiledModel.open(smollm2_short_dir, engine="native").logits(tokens).tobytes() == expected
    for level in ("import", "lpu"):
        interpreter = LpuInterpreter(modules[level], parameters, LENGTH)
        assert interpreter.forward(tokens, 0, 0).tobytes() == expected, level
    binary = model.device
    assert isinstance(binary, InterpreterDevice)
    program = to_program(modules["isa"])
    device = InterpreterDevice(program, binary.machine.hbm, binary.map, binary.chunk, binary.head_rows)
    assert device.forward(tokens, 0, 0).tobytes() == expected, "isa"


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_same_bits_for_every_prefill_chunk(smollm2_dir: Path, chunk: int) -> None:
    """Each step gives the logits of its last row, which must be the row of the step over the whole text."""
    model = CompiledModel.open(smollm2_dir)
    expected = model.logits(TOKENS)
    for start in range(0, len(TOKENS), chunk):
        part = TOKENS[start : start + chunk]
        last = model.forward(part, start)
        assert last.tobytes() == expected[start + len(part) - 1].tobytes(), f"position {start + len(part) - 1}"


def test_the_printed_ir_is_short_and_holds_no_weights(stages) -> None:
    modules, _ = stages
    for level in ("lpu", "isa"):
        text = print_module(modules[level])
        assert len(text.encode()) < 40_000
        assert max(map(len, text.splitlines())) <= 160
        assert "dense" not in text


def test_a_decoder_layer_is_at_most_14_instructions(stages) -> None:
    """MEM and COMP words on one device; the body of a loop over heads counts once."""
    modules, _ = stages
    program = to_program(modules["isa"])
    pairs = zip(program.instructions, program.origins, strict=True)
    layer = [
        (item.name, origin.module_path)
        for item, origin in pairs
        if origin.function == "model.layers" and BY_NAME[item.name].group in (Group.MEM, Group.COMP)
    ]
    assert len(layer) <= 14
    assert sum(name == "matmul" for name, _ in layer) == 4
