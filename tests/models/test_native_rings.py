"""Whole models on rings of native machines: the logits of the interpreter's one device, bit for bit."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support import SOAK
from support.models.imported import MAX_LENGTH, TOKENS, Parameters, import_any
from support.models.tiny import tiny_config, tiny_llama_config, tiny_opt_config
from transformers import GlmConfig, GPTNeoXConfig, Qwen3Config
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import GridAttr
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import in_memory_links
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import MemoryMap, plan_memory
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice, RingDevice
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

MODELS = {
    "nothing-divides": (
        lambda: tiny_llama_config(hidden_size=72, num_attention_heads=9, num_key_value_heads=3, intermediate_size=100),
        range(2, 9) if SOAK else (3, 8),
    ),
    "tied-biased": (lambda: tiny_llama_config(tie_word_embeddings=True, attention_bias=True, mlp_bias=True), (3,)),
    "one-kv-head": (lambda: tiny_llama_config(num_key_value_heads=1), (3, 4) if SOAK else (4,)),
    "opt": (tiny_opt_config, (2, 3) if SOAK else (2,)),
    "one-matrix-for-query-key-value": (lambda: tiny_config(GPTNeoXConfig), (3,)),
    "norms-of-heads": (lambda: tiny_config(Qwen3Config), (3,)),
    "gate-and-up-in-one": (lambda: tiny_config(GlmConfig), (3,)),
}


@dataclass(frozen=True)
class Lowered:
    """A model's program for several devices, and the memory of each."""

    program: Program
    memory: MemoryMap
    hbms: list[Hbm]
    chunk: int
    head_rows: int

    @property
    def alone(self) -> InterpreterDevice:
        (hbm,) = self.hbms
        return InterpreterDevice(self.program, hbm, self.memory, self.chunk, self.head_rows)

    def ring(self, threads: int) -> RingDevice:
        links = in_memory_links(len(self.hbms))
        words = self.memory.target.lmu_words
        machines = [
            NativeMachine(
                self.program, hbm, chunk=self.chunk, lmu_words=words, threads=threads, device=device, link=link
            )
            for device, (hbm, link) in enumerate(zip(self.hbms, links, strict=True))
        ]
        return RingDevice(machines, links, self.memory, self.chunk, self.head_rows)


@cache
def imported(name: str) -> tuple[ModuleOp, Parameters]:
    with tempfile.TemporaryDirectory() as folder:
        return import_any(MODELS[name][0](), Path(folder))


@cache
def logits_of_one(name: str) -> bytes:
    return logits(lower(name, 1, "default").alone, len(TOKENS))


def lower(name: str, devices: int, pipeline: str) -> Lowered:
    source, parameters = imported(name)
    module = source.clone()
    module.attributes["lpu.grid"] = GridAttr(devices)
    layout = None
    for one in parse_pipeline(pipeline):
        layout = collect_layout(module) if one.name == "lower-lpu-to-isa" else layout
        run_pass(module, one)
    assert layout is not None
    memory = plan_memory(layout, load_target("u55c"), MAX_LENGTH)
    hbms = [Hbm.from_parameters(memory, layout, parameters, device) for device in range(devices)]
    chunk, head_rows = (_attribute(module, f"isa.{key}") for key in ("chunk", "head_rows"))
    return Lowered(to_program(module), memory, hbms, chunk, head_rows)


def _attribute(module: ModuleOp, name: str) -> int:
    attribute = module.attributes[name]
    assert isinstance(attribute, IntegerAttr)
    return attribute.value.data


def logits(device: MachineDevice, step: int) -> bytes:
    """Of all rows, `step` tokens at a time."""
    parts = [device.forward(TOKENS[i : i + step], i, 0) for i in range(0, len(TOKENS), step)]
    return np.concatenate(parts).tobytes()


@pytest.mark.parametrize(("name", "devices"), [(name, n) for name, (_, counts) in MODELS.items() for n in counts])
def test_as_many_devices_give_the_bits_of_one(name: str, devices: int) -> None:
    expected = logits_of_one(name)
    sharded = lower(name, devices, "default")
    assert logits(sharded.ring(threads=1), 7) == expected
    assert logits(sharded.ring(threads=2), 1) == expected
    assert logits(lower(name, devices, "o0").ring(threads=2), len(TOKENS)) == expected
