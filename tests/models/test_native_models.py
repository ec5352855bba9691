"""Whole models on the native executor: the interpreter's bits, however the work is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import SOAK, chosen
from support.models.tiny import VOCABULARY, tiny_llama_config, tiny_opt_config, write_checkpoint

from hyperdex_ir.native.features import VARIABLE, available, host_features
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.runtime.device import MachineDevice
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.sampling import Sampling
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

POSITIONS = 320
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 300).tolist()
MODELS = {
    "llama": (tiny_llama_config(max_position_embeddings=POSITIONS), "bfloat16"),
    "opt": (tiny_opt_config(max_position_embeddings=POSITIONS, ffn_dim=152), "float16"),
}
CHUNKS = range(1, 257) if SOAK else (1, 2, 63, 100, 255, 256)
SETTINGS = {
    "greedy": Sampling(),
    "sampled": Sampling(do_sample=True, temperature=1.3, top_k=40, top_p=0.9, repetition_penalty=1.2, seed=1),
    "all": Sampling(do_sample=True, seed=2**64 - 1),
}
NEW_TOKENS = 200


@pytest.fixture(scope="module", params=sorted(MODELS))
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, dtype = MODELS[request.param]
    folder = write_checkpoint(config, tmp_path_factory.mktemp(request.param), dtype)
    AutoCompiler().compile(str(folder))
    return folder


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> np.ndarray:
    """The interpreter's logits at every position."""
    return CompiledModel.open(model_dir, engine="interpreter").logits(TOKENS)


def open_native(model_dir: Path, threads: int | None = None) -> CompiledModel:
    model = CompiledModel.open(model_dir, engine="native", threads=threads)
    assert isinstance(model.device, MachineDevice)
    assert isinstance(model.device.machine, NativeMachine)
    return model


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_logits(model_dir: Path, expected: np.ndarray, threads: int) -> None:
    assert open_native(model_dir, threads).logits(TOKENS).tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_prefill_chunks(model_dir: Path, expected: np.ndarray, threads: int) -> None:
    """Each step gives the logits of its last row, which are those of the step over the whole text."""
    model = open_native(model_dir, threads)
    for chunk in CHUNKS:
        for start in range(0, len(TOKENS), chunk):
            part = TOKENS[start : start + chunk]
            last = start + len(part) - 1
            assert model.forward(part, start).tobytes() == expected[last].tobytes(), f"chunks of {chunk}, row {last}"


@pytest.mark.parametrize("settings", chosen(SETTINGS, "greedy", "sampled"))
def test_generated_tokens(model_dir: Path, settings: str) -> None:
    prompt = TOKENS[:20]
    models = open_native(model_dir), CompiledModel.open(model_dir, engine="interpreter")
    native, reference = (model.generate(prompt, NEW_TOKENS, sampling=SETTINGS[settings]) for model in models)
    assert len(native.tokens) == NEW_TOKENS
    assert native.tokens == reference.tokens


_LOGITS = """
import sys
from hyperdex_ir.runtime.model import CompiledModel
sys.stdout.buffer.write(CompiledModel.open(sys.argv[1], engine="native", threads=2).logits(eval(sys.argv[2])).tobytes())
"""


@pytest.mark.parametrize("name", [item.name for item in available()])
def test_logits_with_fewer_vector_instructions(model_dir: Path, expected: np.ndarray, name: str) -> None:
    """Each set of features that this computer has, in a process of its own."""
    if name == host_features().name:
        pytest.skip("the tests above have used it")
    command = [sys.executable, "-c", _LOGITS, str(model_dir), str(TOKENS)]
    done = subprocess.run(command, env={**os.environ, VARIABLE: name}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.tobytes()
