"""The same logits, bit for bit: right after import, after each pass, as instructions, for every chunk size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from support import SOAK, chosen
from support.models.imported import (
    MAX_LENGTH,
    TOKENS,
    Parameters,
    import_any,
    import_model,
    lpu_logits,
    random_parameters,
)
from support.models.tiny import tiny_config, tiny_llama_config, tiny_opt_config
from support.programs.lmu_owners import find_overlaps
from transformers import (
    CohereConfig,
    GlmConfig,
    GPTNeoXConfig,
    GraniteConfig,
    NemotronConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen3Config,
)
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.rewriter import InsertPoint, Rewriter

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import AddOp, AttentionOp, ConstantOp, MulOp
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.isa.instructions import BY_NAME, Group
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass, run_pipeline
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.support.xdsl import parse_module, print_module
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

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


#: Architectures for their mechanisms, imported flat: their checkpoints need not be supported for that.
#: Of each: what makes its configuration, and the MEM and COMP instructions of a layer.
MECHANISMS: dict[str, tuple[Callable[[], PreTrainedConfig], int]] = {
    "norms-of-heads": (lambda: tiny_config(Qwen3Config, num_attention_heads=6), 15),
    "layer-norm-spelled-out-interleaved-rotary-parallel-mlp": (lambda: tiny_config(CohereConfig), 12),
    "partial-interleaved-rotary-gate-and-up-in-one": (lambda: tiny_config(GlmConfig), 13),
    "unit-offset-partial-rotary": (lambda: tiny_config(NemotronConfig), 14),
    "scales-of-embedding-residuals-and-logits": (
        lambda: tiny_config(GraniteConfig, embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0),
        13,
    ),
    "parallel-biased-gelu": (lambda: tiny_config(PhiConfig), 13),
    "one-matrix-for-query-key-value": (lambda: tiny_config(GPTNeoXConfig, num_attention_heads=8), 15),
}


# What no configuration of these models gives: layers of several kinds, made from the flat module.
def _windows(order: Sequence[int]) -> Callable[[ModuleOp], None]:
    """Layers of kind 1 see 5 positions, those of kind 0 all."""

    def edit(module: ModuleOp) -> None:
        layers = [op for op in module.walk() if isinstance(op, AttentionOp)]
        for op, kind in zip(layers, order, strict=True):
            if kind:
                op.window = IntegerAttr(5, 64)

    return edit


def _constants(module: ModuleOp) -> None:
    """Each layer changes the values that it attends to by two numbers of its own, and by one that all have."""
    for number, op in enumerate([op for op in module.walk() if isinstance(op, AttentionOp)]):
        for kind, factor in ((MulOp, 0.5 + 0.1 * number), (MulOp, 1.25), (AddOp, -0.0 if number == 1 else 0.0)):
            constant = ConstantOp(factor)
            changed = kind(op.value, constant.res)
            constant.location = changed.location = op.location
            Rewriter.insert_op([constant, changed], InsertPoint.before(op))
            op.operands[2] = changed.res


IRREGULAR = (0, 1, 1, 0, 1, 0, 0) if SOAK else (0, 1, 1, 0, 1)

#: Number of layers, a change to their flat module, and a text that the outlined one then holds once.
EDITS: dict[str, tuple[int, Callable[[ModuleOp], None], str]] = {
    "a-period": (7, _windows([1, 1, 0, 1, 1, 0, 1]), "lpu.layer @model.layers.kind1"),
    "an-irregular-order": (len(IRREGULAR), _windows(IRREGULAR), f'lpu.layers "model.layers.order" {list(IRREGULAR)}'),
    "constants-of-layers": (3, _constants, '"model.layers.*.self_attn.constant0" [0.5, 0.6, 0.7]'),
}


_PERIOD = ("a-period", "o0")


def _attribute(module: ModuleOp, name: str, default: int) -> int:
    attribute = module.attributes.get(name)
    return attribute.value.data if isinstance(attribute, IntegerAttr) else default


def _isa_logits(module: ModuleOp, lpu: ModuleOp, parameters: Parameters, steps: Sequence[int]) -> bytes:
    """Logits of all rows when the host hands over so many tokens at a time."""
    layout = collect_layout(lpu)
    memory = plan_memory(layout, load_target("u55c"), MAX_LENGTH)
    chunk, head_rows = _attribute(module, "isa.chunk", 32), _attribute(module, "isa.head_rows", 32)
    program = to_program(module, chunk=chunk, head_rows=head_rows)
    hbm = Hbm.from_parameters(memory, layout, parameters)
    device = InterpreterDevice(program, hbm, memory, chunk, head_rows)
    assert sum(steps) == len(TOKENS)
    ends = list(accumulate(steps))
    parts = [device.forward(TOKENS[end - step : end], end - step, 0) for step, end in zip(steps, ends, strict=True)]
    return np.concatenate(parts).tobytes()


@pytest.mark.parametrize(
    ("name", "pipeline"),
    chosen(
        [(name, pipeline) for name in MODELS for pipeline in ("default", "o0")],
        *[(name, "default") for name in MODELS],
        ("llama-tied-biased-bf16", "o0"),
        ("opt-projected-post-norm-bf16", "o0"),
    ),
)
def test_every_pass_keeps_every_bit(name: str, pipeline: str, tmp_path: Path) -> None:
    make, matrix_type = MODELS[name]
    module, parameters = import_model(make(), matrix_type, tmp_path)
    _check_every_pass(module, parameters, pipeline)


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_keeps_every_bit_and_is_fused(name: str, tmp_path: Path) -> None:
    make, count = MECHANISMS[name]
    module, parameters = import_any(make(), tmp_path)
    _check_every_pass(module, parameters, "default")
    assert len(_layer_work(module)) == count


#: The flat module of `o0` has no repeats before it is outlined: its period is in a soak alone.
_ORDERS = [(name, pipeline) for name in EDITS for pipeline in ("default", "o0") if SOAK or (name, pipeline) != _PERIOD]


@pytest.mark.parametrize(("name", "pipeline"), _ORDERS)
def test_every_order_of_layers_keeps_every_bit(name: str, pipeline: str, tmp_path: Path) -> None:
    layers, edit, written = EDITS[name]
    module, parameters = import_model(tiny_llama_config(num_hidden_layers=layers), "f16", tmp_path, outlined=False)
    edit(module)
    outlined = module.clone()
    run_pipeline(outlined, "lpu-outline-layers")
    assert print_module(outlined).count(written) == 1
    assert lpu_logits(outlined, parameters) == lpu_logits(module, parameters)
    _check_every_pass(outlined if pipeline == "default" else module, parameters, pipeline)


#: Norms with 1 + weight and a LayerNorm with a bias, spelled out; scaled embedding, gate without activation, softcap.
SPELLED_OUT = """
builtin.module attributes {lpu.target = "u55c", lpu.max_length = 40 : i64, lpu.matrix_type = "f16"} {
  func.func @main(%ids: tensor<?xi64>, %positions: tensor<?xi64>) -> tensor<?x256xf32> {
    %one = lpu.constant 1.0 : tensor<f32>
    %eight = lpu.constant 8.0 : tensor<f32>
    %cap = lpu.constant 3.0 : tensor<f32>
    %epsilon = lpu.constant 1.0e-05 : tensor<f32>
    %table = lpu.weight "embed" : tensor<256x64xf16>
    %row = lpu.embedding %table at %ids : (tensor<256x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
    %x = lpu.mul %row, %eight : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
    %square = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
    %mean = lpu.mean %square : (tensor<?x64xf32>) -> tensor<?x1xf32>
    %sum = lpu.add %mean, %epsilon : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
    %factor = lpu.rsqrt %sum : tensor<?x1xf32>
    %normed = lpu.mul %x, %factor : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
    %w = lpu.weight "norm.weight" : tensor<64xf32>
    %offset = lpu.add %one, %w : (tensor<f32>, tensor<64xf32>) -> tensor<64xf32>
    %rms = lpu.mul %normed, %offset : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
    %g = lpu.weight "gate.weight" : tensor<72x64xf16>
    %gb = lpu.weight "gate.bias" : tensor<72xf32>
    %u = lpu.weight "up.weight" : tensor<72x64xf16>
    %ub = lpu.weight "up.bias" : tensor<72xf32>
    %gate = lpu.linear %rms by %g bias %gb : tensor<72xf32> : tensor<?x64xf32>, tensor<72x64xf16> -> tensor<?x72xf32>
    %up = lpu.linear %rms by %u bias %ub : tensor<72xf32> : tensor<?x64xf32>, tensor<72x64xf16> -> tensor<?x72xf32>
    %y = lpu.mul %gate, %up : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    %middle = lpu.mean %y : (tensor<?x72xf32>) -> tensor<?x1xf32>
    %c = lpu.sub %y, %middle : (tensor<?x72xf32>, tensor<?x1xf32>) -> tensor<?x72xf32>
    %cc = lpu.mul %c, %c : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    %variance = lpu.mean %cc : (tensor<?x72xf32>) -> tensor<?x1xf32>
    %v = lpu.add %epsilon, %variance : (tensor<f32>, tensor<?x1xf32>) -> tensor<?x1xf32>
    %r = lpu.rsqrt %v : tensor<?x1xf32>
    %n = lpu.mul %r, %c : (tensor<?x1xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    %lw = lpu.weight "layer_norm.weight" : tensor<72xf32>
    %lb = lpu.weight "layer_norm.bias" : tensor<72xf32>
    %nw = lpu.mul %lw, %n : (tensor<72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    %layer = lpu.add %nw, %lb : (tensor<?x72xf32>, tensor<72xf32>) -> tensor<?x72xf32>
    %h = lpu.weight "head.weight" : tensor<256x72xf16>
    %logits = lpu.linear %layer by %h : tensor<?x72xf32>, tensor<256x72xf16> -> tensor<?x256xf32>
    %d = lpu.div %logits, %cap : (tensor<?x256xf32>, tensor<f32>) -> tensor<?x256xf32>
    %t = lpu.tanh %d : tensor<?x256xf32>
    %capped = lpu.mul %t, %cap : (tensor<?x256xf32>, tensor<f32>) -> tensor<?x256xf32>
    %wanted = lpu.select_rows %capped : tensor<?x256xf32>
    func.return %wanted : tensor<?x256xf32>
  }
}
"""


@pytest.mark.parametrize("pipeline", ["default", "o0", "debug"])
def test_what_is_spelled_out_keeps_every_bit(pipeline: str) -> None:
    module = parse_module(SPELLED_OUT)
    _check_every_pass(module, random_parameters(module, {}.__getitem__), pipeline)
    if pipeline == "default":
        names = [item.name for item in to_program(module).instructions if BY_NAME[item.name].group is not Group.CTRL]
        assert names == ["embed", "select_rows", "rms_norm", "matmul", "layer_norm", "matmul", "store", "sample"]


#: Tokens that the host hands over at a time: several, one by one, the rest.
STEPS = [7, 1, 1, 8, 2]
#: Passes after which `o0` is looked at: each that it has is one of `default`, but these leave what it alone leaves.
_LAST = ("lpu-outline-layers", "lower-lpu-to-isa", "isa-allocate-lmu")


def _check_every_pass(module: ModuleOp, parameters: Parameters, pipeline: str) -> None:
    expected = lpu_logits(module, parameters)
    assert np.isfinite(np.frombuffer(expected, np.float32)).all()
    lpu, before = module, ""
    for one in parse_pipeline(pipeline):
        if one.name == "lower-lpu-to-isa":
            lpu = module.clone()
        run_pass(module, one)
        if pipeline == "o0" and one.name not in _LAST and not SOAK:
            continue
        text = print_module(module, locations=True)
        if text == before and not SOAK:
            continue
        before = text
        assert print_module(parse_module(text), locations=True) == text, one.name
        if lpu is module:
            assert lpu_logits(module, parameters) == expected, one.name
        else:
            assert _isa_logits(module, lpu, parameters, [len(TOKENS)]) == expected, one.name
    again = parse_module(print_module(module))
    for steps in ([1] * len(TOKENS), STEPS) if SOAK else (STEPS,):
        assert _isa_logits(again, lpu, parameters, steps) == expected, f"{steps} tokens at a time"
    assert find_overlaps(module, _attribute(module, "isa.chunk", 0), _attribute(module, "isa.head_rows", 0)) == []


def test_flat_models_run_too(tmp_path: Path) -> None:
    """Without outlining, everything is in main, its own KV cache included."""
    module, parameters = import_model(tiny_llama_config(), "f16", tmp_path, outlined=False)
    expected = lpu_logits(module, parameters)
    fusion = "lpu-fuse-norm,lpu-fuse-rotary,lpu-fuse-parallel-linear,lpu-fuse-epilogue"
    run_pipeline(module, f"{LPU_PASSES},{fusion},lpu-hoist-select-rows")
    lpu = module.clone()
    run_pipeline(module, "lower-lpu-to-isa,isa-allocate-lmu")
    assert _isa_logits(module, lpu, parameters, STEPS) == expected


def test_outlining_needs_no_fusion_and_no_cse(tmp_path: Path) -> None:
    module, parameters = import_model(tiny_llama_config(num_hidden_layers=3), "f16", tmp_path, outlined=False)
    expected = lpu_logits(module, parameters)
    for passes in (f"{LPU_PASSES},lpu-outline-layers", "lpu-token-major,lpu-outline-layers"):
        one = module.clone()
        run_pipeline(one, passes)
        assert sum(op.name == "func.func" for op in one.walk()) == 2, passes
        assert lpu_logits(one, parameters) == expected, passes


def test_depth_changes_no_instruction_count(tmp_path: Path) -> None:
    """Of OPT; `test_nothing_grows_with_depth` has Llama."""
    counts = []
    for layers in (2, 30 if SOAK else 5):
        module, _ = import_model(tiny_opt_config(num_hidden_layers=layers), "f16", tmp_path / str(layers))
        run_pipeline(module, "default")
        counts.append(len(to_program(module).instructions))
    assert counts[0] == counts[1]


def _layer_work(module: ModuleOp) -> list[tuple[str, str]]:
    """(instruction, module path) of the MEM and COMP instructions of the only layer function of an `isa` module."""
    program = to_program(module)
    pairs = zip(program.instructions, program.origins, strict=True)
    return [
        (item.name, origin.module_path)
        for item, origin in pairs
        if origin.function.endswith("layers") and BY_NAME[item.name].group in (Group.MEM, Group.COMP)
    ]


def test_llama_layer_is_thirteen_instructions(tmp_path: Path) -> None:
    module, _ = import_model(tiny_llama_config(), "f16", tmp_path)
    run_pipeline(module, "default")
    work = _layer_work(module)
    assert sorted(name for name, _ in work) == sorted([
        "rms_norm", "matmul", "rotary", "rotary", "store_key", "store_value", "scores", "softmax", "values", "matmul",
        "rms_norm", "matmul", "matmul",
    ])  # fmt: skip
    assert [path for name, path in work if name == "matmul"] == [
        f"model.layers.*.{name}" for name in ("self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj")
    ]


def test_without_fusion_the_projections_stay_apart(tmp_path: Path) -> None:
    module, _ = import_model(tiny_llama_config(), "f16", tmp_path)
    run_pipeline(module, "o0")
    assert sorted(path for name, path in _layer_work(module) if name == "matmul") == [
        f"model.layers.*.{name}_proj"
        for name in ("mlp.down", "mlp.gate", "mlp.up", "self_attn.k", "self_attn.o", "self_attn.q", "self_attn.v")
    ]


def test_text_is_the_same_for_every_hash_seed(tmp_path: Path) -> None:
    module, _ = import_model(tiny_llama_config(), "f16", tmp_path)
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
