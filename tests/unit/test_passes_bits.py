"""The same logits, bit for bit: right after import, after each pass, as instructions, for every chunk size."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_llama_config, tiny_opt_config
from transformers import PreTrainedConfig
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import WeightOp, shape_of
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.interpreter.device import InterpreterDevice
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.isa.instructions import BY_NAME, Group
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.passes.lmu_liveness import find_overlaps
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass, run_pipeline
from hyperdex_ir.targets import load_target
from hyperdex_ir.xdsl_support import parse_module, print_module

MAX_LENGTH = 40
TOKENS = [int(token) for token in np.random.default_rng(1).integers(0, 256, 19)]
Parameters = Callable[[str], np.ndarray]

LPU_PASSES = "lpu-token-major,canonicalize,cse,dce"

MODELS: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "llama": (tiny_llama_config, "f16"),
    "llama-tied-biased-bf16": (
        lambda: tiny_llama_config(
            tie_word_embeddings=True, attention_bias=True, mlp_bias=True, num_key_value_heads=4, num_hidden_layers=3
        ),
        "bf16",
    ),
    "llama-one-layer": (lambda: tiny_llama_config(num_hidden_layers=1, num_key_value_heads=1), "f16"),
    "opt": (tiny_opt_config, "f16"),
    "opt-projected-post-norm-bf16": (
        lambda: tiny_opt_config(word_embed_proj_dim=32, do_layer_norm_before=False),
        "bf16",
    ),
}


def _random_parameters(module: ModuleOp, derived: Parameters) -> Parameters:
    """Values that depend on the key alone, of variance about 1 through each matrix."""
    types = {key: op.res.type for op in module.walk() if isinstance(op, WeightOp) for key in op.key_names}
    values: dict[str, np.ndarray] = {}

    def make(key: str) -> np.ndarray:
        type_ = types[key]
        assert isinstance(type_, TensorType)
        normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape_of(type_), np.float32)
        kind = str(type_.element_type)
        if kind == "f32":
            return 1 + np.float32(0.1) * normal
        normal *= np.float32(1 if "embed" in key else shape_of(type_)[1] ** -0.5)
        return normal.astype(np.float16) if kind == "f16" else (normal.view(np.uint32) >> 16).astype(np.uint16)

    def get(key: str) -> np.ndarray:
        if key not in values:
            try:
                values[key] = derived(key)
            except KeyError:
                values[key] = make(key)
        return values[key]

    return get


def _import(config: PreTrainedConfig, matrix_type: str, directory: Path) -> tuple[ModuleOp, Parameters]:
    config.save_pretrained(directory)
    imported = trace_model(directory, target="u55c", max_length=MAX_LENGTH, matrix_type=matrix_type)
    return imported.module, _random_parameters(imported.module, imported.derived.__getitem__)


def _attribute(module: ModuleOp, name: str, default: int) -> int:
    attribute = module.attributes.get(name)
    return attribute.value.data if isinstance(attribute, IntegerAttr) else default


def _lpu_logits(module: ModuleOp, parameters: Parameters) -> bytes:
    return LpuInterpreter(module, parameters, MAX_LENGTH).forward(TOKENS, 0, 0).tobytes()


def _isa_logits(module: ModuleOp, lpu: ModuleOp, parameters: Parameters, step: int) -> bytes:
    """Logits of all rows when the host hands over `step` tokens at a time."""
    layout = collect_layout(lpu)
    memory = plan_memory(layout, load_target("u55c"), MAX_LENGTH)
    chunk, head_rows = _attribute(module, "isa.chunk", 32), _attribute(module, "isa.head_rows", 32)
    program = to_program(module, chunk=chunk, head_rows=head_rows)
    hbm = Hbm.from_parameters(memory, layout, parameters)
    device = InterpreterDevice(program, hbm, memory, chunk, head_rows)
    parts = [device.forward(TOKENS[i : i + step], i, 0) for i in range(0, len(TOKENS), step)]
    return np.concatenate(parts).tobytes()


@pytest.mark.parametrize("pipeline", ["default", "o0"])
@pytest.mark.parametrize("name", MODELS)
def test_every_pass_keeps_every_bit(name: str, pipeline: str, tmp_path: Path) -> None:
    make, matrix_type = MODELS[name]
    module, parameters = _import(make(), matrix_type, tmp_path)
    expected = _lpu_logits(module, parameters)
    assert np.isfinite(np.frombuffer(expected, np.float32)).all()
    lpu = module
    for one in parse_pipeline(pipeline):
        if one.name == "lower-lpu-to-isa":
            lpu = module.clone()
        run_pass(module, one)
        text = print_module(module, locations=True)
        assert print_module(parse_module(text), locations=True) == text, one.name
        if lpu is module:
            assert _lpu_logits(module, parameters) == expected, one.name
        else:
            assert _isa_logits(module, lpu, parameters, len(TOKENS)) == expected, one.name
    again = parse_module(print_module(module))
    for step in (1, 7):
        assert _isa_logits(again, lpu, parameters, step) == expected, f"{step} tokens at a time"
    assert find_overlaps(module, _attribute(module, "isa.chunk", 0), _attribute(module, "isa.head_rows", 0)) == []


def test_flat_models_run_too(tmp_path: Path) -> None:
    """Without outlining, everything is in main, its own KV cache included."""
    module, parameters = _import(tiny_llama_config(), "f16", tmp_path)
    expected = _lpu_logits(module, parameters)
    run_pipeline(module, f"{LPU_PASSES},lpu-fuse-norm,lpu-fuse-rotary,lpu-fuse-epilogue,lpu-hoist-select-rows")
    lpu = module.clone()
    run_pipeline(module, "lower-lpu-to-isa,isa-allocate-lmu")
    assert _isa_logits(module, lpu, parameters, 7) == expected


def test_outlining_needs_no_fusion_and_no_cse(tmp_path: Path) -> None:
    module, parameters = _import(tiny_llama_config(num_hidden_layers=3), "f16", tmp_path)
    expected = _lpu_logits(module, parameters)
    for passes in (f"{LPU_PASSES},lpu-outline-layers", "lpu-token-major,lpu-outline-layers"):
        one = module.clone()
        run_pipeline(one, passes)
        assert sum(op.name == "func.func" for op in one.walk()) == 2, passes
        assert _lpu_logits(one, parameters) == expected, passes


@pytest.mark.parametrize("make", [tiny_llama_config, tiny_opt_config], ids=["llama", "opt"])
def test_depth_changes_no_instruction_count(make: Callable[..., PreTrainedConfig], tmp_path: Path) -> None:
    counts = []
    for layers in (2, 30):
        module, _ = _import(make(num_hidden_layers=layers), "f16", tmp_path / str(layers))
        run_pipeline(module, "default")
        counts.append(len(to_program(module).instructions))
    assert counts[0] == counts[1]


def test_llama_layer_is_sixteen_instructions(tmp_path: Path) -> None:
    module, _ = _import(tiny_llama_config(), "f16", tmp_path)
    run_pipeline(module, "default")
    program = to_program(module)
    pairs = zip(program.instructions, program.origins, strict=True)
    layer = [(item.name, origin.module_path) for item, origin in pairs if origin.function == "model.layers"]
    work = [(name, path) for name, path in layer if BY_NAME[name].group in (Group.MEM, Group.COMP)]
    assert [name for name, _ in work] == [
        "rms_norm", "matmul", "matmul", "matmul", "rotary", "rotary", "store_key", "store_value", "scores", "softmax",
        "values", "matmul", "rms_norm", "matmul", "matmul", "matmul",
    ]  # fmt: skip
    assert [path for name, path in work if name == "matmul"] == [
        f"model.layers.*.{name}_proj"
        for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.up", "mlp.gate", "mlp.down")
    ]


def test_text_is_the_same_for_every_hash_seed(tmp_path: Path) -> None:
    module, _ = _import(tiny_llama_config(), "f16", tmp_path)
    tool = Path(sys.executable).with_name("hyperdex-opt")
    texts = [
        subprocess.run(
            [tool, "--pipeline", "default", "--print-debuginfo"],
            input=print_module(module, locations=True),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert "isa.lmu_words" in texts[0]
