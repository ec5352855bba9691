"""Compiled models run, bit for bit, on a machine that was written from the documents alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.second_machine import SecondMachine, SecondRing
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from support.page_code import python_blocks, read_page, run_blocks

from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

files = run_blocks(python_blocks(read_page("files.md")))
ISA = read_page("isa.md")
TOKENS = [int(token) for token in np.random.default_rng(4).integers(0, 256, 75)]
#: Configuration, type of the checkpoint, devices. No size is a multiple of 64.
CASES: dict[str, tuple[Any, str, int]] = {
    "llama": (tiny_llama_config(hidden_size=152, attention_bias=True, mlp_bias=True), "float16", 1),
    "llama-bf16-ring": (tiny_llama_config(hidden_size=152), "bfloat16", 3),
    "opt": (tiny_opt_config(hidden_size=152, word_embed_proj_dim=152), "float16", 1),
}


@pytest.mark.parametrize("case", CASES)
def test_second_machine_gives_the_logits_and_the_text(case: str, tmp_path: Path) -> None:
    config_of_model, dtype, devices = CASES[case]
    folder = write_checkpoint(config_of_model, tmp_path, dtype)
    AutoCompiler().compile(str(folder), num_device=devices, max_length=90)
    config = json.loads((folder / "config" / f"config_{devices}lpu_hbm.json").read_text())
    limits = json.loads((folder / "inst" / f"inst_{devices}lpu.json").read_text())
    machines = [SecondMachine(folder, files, ISA, config, devices, device) for device in range(devices)]
    lpu = machines[0] if devices == 1 else SecondRing(machines)
    files.begin_text(lpu, config)
    step = min(limits["chunk"], limits["head_rows"])
    parts = [files.run_step(lpu, config, TOKENS[at : at + step], at, 0)[0] for at in range(0, len(TOKENS), step)]
    model = CompiledModel.open(folder, num_device=devices)
    assert np.concatenate(parts).tobytes() == model.logits(TOKENS).tobytes()
    tokens = files.generate(lpu, config, limits, TOKENS[:9], 4)
    assert tuple(tokens) == model.generate(TOKENS[:9], 4).tokens
