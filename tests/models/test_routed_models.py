"""Whole models with routed experts: the same logits at every level, for any chunk, executor and number of devices."""

from __future__ import annotations

from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support import SOAK, chosen
from support.models import routed_modules
from support.models.blocks import blocks_of
from support.models.imported import Parameters, random_parameters
from support.models.routed_modules import KINDS, LAYERS, LENGTH, RANKS, VOCAB, routed_model
from support.programs.lmu_owners import find_overlaps
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

from hyperdex_ir.backend.convert import write_model
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import GridAttr
from hyperdex_ir.errors import NumericError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import in_memory_links
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.memory.map import MemoryMap, plan_memory
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass, run_pipeline
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice, RingDevice
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.xdsl import parse_module, print_module
from hyperdex_ir.targets import load_target
from hyperdex_ir.verify.model import Model
from hyperdex_ir.verify.passes import Verifier
from hyperdex_ir.verify.values import Value, first_difference, plan_runs, trace_lpu, trace_program

pytestmark = pytest.mark.slow

TOKENS = [int(token) for token in np.random.default_rng(2).integers(0, VOCAB, 13)]


class Compiled:
    """A model lowered for some devices; its logits at every level on the way are those of the module given."""

    def __init__(self, module: ModuleOp, parameters: Parameters, pipeline: str, devices: int = 1):
        self.module, self.devices = module.clone(), devices
        self.parameters = parameters
        self.expected = lpu_logits(module, parameters)
        self.module.attributes["lpu.grid"] = GridAttr(devices)
        before = ""
        for one in parse_pipeline(pipeline):
            if one.name == "lower-lpu-to-isa":
                self.layout: ModelLayout = collect_layout(self.module)
                assert lpu_logits(self.module, parameters) == self.expected
            run_pass(self.module, one)
            text = print_module(self.module, locations=True)
            if text != before:
                assert print_module(parse_module(text), locations=True) == text, one.name
            before = text
        self.memory: MemoryMap = plan_memory(self.layout, load_target("u55c"), LENGTH)
        self.program: Program = to_program(self.module)
        self.chunk, self.head_rows, self.words = map(self._attribute, ("chunk", "head_rows", "lmu_words"))
        assert find_overlaps(self.module, self.chunk, self.head_rows) == []

    def _attribute(self, name: str) -> int:
        attribute = self.module.attributes[f"isa.{name}"]
        assert isinstance(attribute, IntegerAttr)
        return attribute.value.data

    def logits(self, threads: int | None, step: int) -> bytes:
        """Of all rows, `step` tokens at a time. threads: of the native executor; None: the interpreter."""
        links = in_memory_links(self.devices)
        machines = []
        for number, link in enumerate(links):
            hbm = Hbm.from_parameters(self.memory, self.layout, self.parameters, number)
            options = {"chunk": self.chunk, "lmu_words": self.words, "device": number, "link": link}
            machines.append(
                Machine(self.program, hbm, **options)
                if threads is None
                else NativeMachine(self.program, hbm, threads=threads, **options)
            )
        if self.devices > 1:
            device = RingDevice(machines, links, self.memory, self.chunk, self.head_rows)
        else:
            device = MachineDevice(machines[0], self.memory, self.chunk, self.head_rows)
        parts = [device.forward(TOKENS[i : i + step], i, 0) for i in range(0, len(TOKENS), step)]
        return np.concatenate(parts).tobytes()


def lpu_logits(module: ModuleOp, parameters: Parameters) -> bytes:
    return LpuInterpreter(module, parameters, LENGTH).forward(TOKENS, 0, 0).tobytes()


def model(kind: str, matrix: str = "f16") -> tuple[ModuleOp, Parameters]:
    module = routed_model(kind, matrix)
    return module, random_parameters(module, {}.__getitem__)


@cache
def compiled_model(kind: str, matrix: str = "f16", pipeline: str = "default", devices: int = 1) -> Compiled:
    """Compiled once for all tests: none changes it."""
    return Compiled(*model(kind, matrix), pipeline, devices)


_LOWERED = [("bf16", "o0", 1), ("f16", "default", 1), ("bf16", "default", 2), ("f16", "default", 3)]


@pytest.mark.parametrize(
    ("kind", "matrix", "pipeline", "devices"),
    chosen(
        [(kind, *lowered) for kind in KINDS for lowered in _LOWERED],
        *[(kind, "bf16", "default", 2) for kind in KINDS],
        ("softmax-of-all", "f16", "default", 1),
        ("softmax-of-chosen", "f16", "default", 3),
        ("groups", "bf16", "o0", 1),
    ),
)
def test_every_level_executor_and_chunk_gives_the_same_bits(kind: str, matrix: str, pipeline: str, devices: int):
    compiled = compiled_model(kind, matrix, pipeline, devices)
    assert np.isfinite(np.frombuffer(compiled.expected, np.float32)).all()
    for threads, step in ((None, 5), (1, len(TOKENS)), (2, 5), (2, 1)):
        assert compiled.logits(threads, step) == compiled.expected, (threads, step)


def test_neither_experts_nor_ranks_nor_layers_make_instructions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(routed_modules, "EXPERTS", 15)
    module = routed_model("groups", layers=5, ranks=5)
    run_pipeline(module, "default")
    assert len(to_program(module).instructions) == len(compiled_model("groups").program.instructions)


def test_a_token_streams_the_experts_that_it_chose_and_no_others():
    compiled = compiled_model("softmax-of-all")
    run = estimate(compiled.program, load_target("u55c"))
    executed = dict.fromkeys(("fetch", "repeat_rows", "top_k"), 0)
    for item, count in zip(compiled.program.instructions, run.executed, strict=True):
        if item.name in executed:
            executed[item.name] += count
    assert executed == {"fetch": 2 * RANKS * LAYERS, "repeat_rows": 2 * LAYERS, "top_k": LAYERS}
    assert run.weight_stripes * load_target("u55c").stripe_bytes < compiled.memory.parameter_end * 2 / 3


def _spoiled(parameters: Parameters) -> Parameters:
    """The router of layer 1 has weights that are infinite, and so its scores are NaN."""

    def get(key: str) -> np.ndarray:
        values = parameters(key)
        return np.full_like(values, np.inf) if key == "model.layers.1.router.weight" else values

    return get


@pytest.mark.parametrize("threads", [None, 2])
def test_a_router_without_numbers_raises_the_flag_and_nothing_else(threads: int | None):
    compiled = copy(compiled_model("softmax-of-chosen"))
    compiled.parameters = _spoiled(compiled.parameters)
    with pytest.raises(NumericError, match=r"layer 1, .*\(matmul\)"):
        compiled.logits(threads, len(TOKENS))


@pytest.mark.parametrize("devices", [1, 3])
def test_images_hold_what_the_map_says(devices: int, tmp_path: Path):
    _, parameters = model("softmax-of-chosen")
    whole = compiled_model("softmax-of-chosen").layout
    folder = ModelFolder(tmp_path, tmp_path, None, made_by_tool=False)
    tensors = {
        key: (parameter.dtype, np.asarray(parameters(key)))
        for parameter in whole.parameters()
        if parameter.values is None
        for key in parameter.keys
    }
    write_model(folder, whole, blocks_of(tensors, rows=2), {"max_length": LENGTH})
    compiled = compiled_model("softmax-of-chosen", devices=devices)
    write_images(folder, "u55c", devices, compiled.layout if devices > 1 else None)
    for device in range(devices):
        paths = [folder.parameter_file(devices, device, channel) for channel in range(32)]
        found = Hbm.from_images(paths, compiled.memory)
        expected = Hbm.from_parameters(compiled.memory, compiled.layout, parameters, device)
        assert np.array_equal(found.bytes, expected.bytes)


#: `Compiled` compares the bits of all kinds at both levels; this is about the Verifier and what it traces.
VERIFIED = [(kind, devices) for kind in KINDS for devices in (1, 2)] if SOAK else [(KINDS[0], 1), (KINDS[2], 2)]


@pytest.mark.parametrize(("kind", "devices"), VERIFIED)
def test_verify_finds_every_pass_exact(kind: str, devices: int, tmp_path: Path):
    module, parameters = model(kind)
    module.attributes["lpu.grid"] = GridAttr(devices)
    folder = ModelFolder(tmp_path, tmp_path, None, made_by_tool=False)
    opened = Model(
        "routed", folder, module, parameters, LENGTH, parse_pipeline("default"), compiled=False, num_device=devices
    )
    results = Verifier(opened, TOKENS[:5]).each_pass(opened.passes)
    assert all(result.equal and result.passed and not result.error for result in results)


def test_verify_names_the_experts_that_a_pass_breaks(tmp_path: Path):
    module, parameters = model("softmax-of-all")
    compiled = compiled_model("softmax-of-all")
    runs = plan_runs(TOKENS[:5])
    reference = trace_lpu(module, parameters, LENGTH, runs)

    def values(program: Program) -> list[Value]:
        hbm = Hbm.from_parameters(compiled.memory, compiled.layout, parameters)
        device = InterpreterDevice(program, hbm, compiled.memory, compiled.chunk, compiled.head_rows)
        return trace_program(device, runs)

    assert first_difference(values(compiled.program), reference) is None
    index = next(i for i, item in enumerate(compiled.program.instructions) if item.name == "fetch")
    items = list(compiled.program.instructions)
    items[index] = Instruction("set", {"dst": items[index]["dst"], "value": 0})  # always the first expert
    broken = first_difference(values(Program(tuple(items), compiled.program.origins)), reference)
    assert broken is not None
    assert (broken.operation, broken.path) == ("isa.matmul", "model.layers.0.mlp")
