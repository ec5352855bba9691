"""Equal layers are imported once: what that gives, that it means the same, and that it does not grow with depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SOAK
from support.models.tiny import VOCABULARY, tiny_llama_config, tiny_opt_config
from transformers import Gemma3TextConfig, GPT2Config, PreTrainedConfig, Qwen2Config
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.frontend.graph import Graph
from hyperdex_ir.frontend.imported import canonical_names
from hyperdex_ir.frontend.importer import import_graph
from hyperdex_ir.frontend.trace import WRAPPED, trace
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass, run_pipeline
from hyperdex_ir.support.xdsl import print_module

pytestmark = pytest.mark.slow

LENGTH = 32


def graph_of(config: PreTrainedConfig, directory: Path) -> Graph:
    config.save_pretrained(directory)
    (architecture,) = config.architectures or []
    traced = trace(directory, architecture)
    return Graph(traced.program, WRAPPED, architecture, canonical_names(traced.model), traced.buffers)


def imported(graph: Graph, outlined: bool = True) -> ModuleOp:
    return import_graph(graph, target="u55c", max_length=LENGTH, matrix_type="f16", outlined=outlined)


def shape_of_stack(module: ModuleOp) -> Any:
    """The calls in main: (count, [...]) for a repeat, a function's name for a layer."""

    def items(ops: Any) -> list[Any]:
        found: list[Any] = []
        for op in ops:
            if isinstance(op, lpu.RepeatOp):
                found.append((op.trip_count.value.data, items(op.body.block.ops)))
            elif isinstance(op, lpu.LayerOp):
                found.append(op.function)
        return found

    main = next(op for op in module.ops if isinstance(op, FuncOp) and op.sym_name.data == "main")
    return items(main.body.block.ops)


def windows(types: str) -> PreTrainedConfig:
    """A model whose layers are local (`l`, a window of 8 positions) or global (`g`), in that order."""
    kinds = {"l": "sliding_attention", "g": "full_attention"}
    return Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=len(types), num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=128, use_sliding_window=True,
        sliding_window=8, layer_types=[kinds[kind] for kind in types], architectures=["Qwen2ForCausalLM"],
    )  # fmt: skip


def random_parameter(key: str, module: ModuleOp) -> np.ndarray:
    """Values that depend on the resolved key alone."""
    parameter = next(p for p in collect_layout(module).parameters() if key in p.keys)
    values = np.random.default_rng(len(key) + sum(map(ord, key))).standard_normal(parameter.shape)
    return (0.2 * values).astype(np.float16 if parameter.is_matrix else np.float32)


@pytest.mark.parametrize("make", [tiny_llama_config, tiny_opt_config], ids=["llama", "opt"])
def test_one_of_many_equal_layers_is_imported_and_means_the_same(make: Any, tmp_path: Path) -> None:
    graph = graph_of(make(num_hidden_layers=3), tmp_path)
    once, flat = imported(graph), imported(graph, outlined=False)
    (stack,) = shape_of_stack(once)
    assert stack[0] == 3
    assert len(list(once.walk())) < len(list(flat.walk())) / 2
    assert [p.name for p in collect_layout(flat).parameters()] != []
    assert {p.name for p in collect_layout(once).parameters()} == {p.name for p in collect_layout(flat).parameters()}
    tokens = [5, 200, 31, 7, 7, 90, 12]
    logits = [
        LpuInterpreter(m, lambda key: random_parameter(key, flat), LENGTH).forward(tokens, 0, 0) for m in (once, flat)
    ]
    assert logits[0].tobytes() == logits[1].tobytes()


def test_sources_name_every_layer(tmp_path: Path) -> None:
    tiny_llama_config(num_hidden_layers=4).save_pretrained(tmp_path)
    facts: dict[str, Any] = {"target": "u55c", "max_length": LENGTH, "matrix_type": "f16"}
    once, flat = trace_model(tmp_path, **facts), trace_model(tmp_path, **facts, outlined=False)
    assert once.sources == flat.sources
    assert "model.layers.3.mlp.down_proj.weight" in once.sources


def gemma3(layers: int) -> PreTrainedConfig:
    """Gemma 3 as it is: every sixth layer is global, with rotary positions of its own."""
    return Gemma3TextConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=VOCABULARY, max_position_embeddings=128, sliding_window=8,
        final_logit_softcapping=30.0, architectures=["Gemma3ForCausalLM"],
    )  # fmt: skip


def test_kinds_of_layers_with_rotary_tables_of_their_own(tmp_path: Path) -> None:
    """14 layers of Gemma 3: two functions, all norms fused with their 1 + weight, the softcap in the head."""
    instructions = []
    for layers, periods in ((26, 4), (14, 2)) if SOAK else ((14, 2),):
        module = imported(graph_of(gemma3(layers), tmp_path / str(layers)))
        local, other = "model.layers.kind0", "model.layers.kind1"
        assert shape_of_stack(module) == [(periods, [(5, [local]), other]), (2, [local])]
        assert [op.sym_name.data for op in module.ops if isinstance(op, FuncOp)] == ["main", local, other]
        steps = parse_pipeline("default")
        for step in steps[: [step.name for step in steps].index("lower-lpu-to-isa")]:
            run_pass(module, step)
        norms = [op for op in module.walk() if isinstance(op, lpu.RmsNormOp)]
        assert len(norms) == 1 + 2 * 6
        assert all(norm.unit_offset is not None for norm in norms)
        linears = [op for op in module.walk() if isinstance(op, lpu.LinearOp)]
        assert len(linears) == 1 + 2 * 4
        assert sum(linear.gated is not None for linear in linears) == 2
        assert not [op for op in module.walk() if isinstance(op, lpu.MeanOp | lpu.TanhOp | lpu.MulOp | lpu.DivOp)]
        assert [linear.softcap.value.data for linear in linears if linear.softcap is not None] == [30.0]
        (embedding,) = [op for op in module.walk() if isinstance(op, lpu.EmbeddingOp)]
        assert embedding.scale is not None
        assert embedding.scale.value.data == 8.0
        run_pass(module, steps[[step.name for step in steps].index("lower-lpu-to-isa")])
        instructions.append(len(to_program(module).instructions))
    assert len(set(instructions)) == 1


def test_periods_are_nested_repeats(tmp_path: Path) -> None:
    """Layers of which every third is global, and one more."""
    counts = []
    local, other = "model.layers.kind0", "model.layers.kind1"
    for periods in (4, 6) if SOAK else (2, 3):
        module = imported(graph_of(windows(periods * "llg" + "l"), tmp_path / str(periods)))
        assert shape_of_stack(module) == [(periods, [(2, [local]), other]), local]
        run_pipeline(module, "default")
        counts.append(len(to_program(module).instructions))
    assert counts[0] == counts[1]


def test_an_irregular_order_is_a_table(tmp_path: Path) -> None:
    counts = []
    for types in ("lggglgl", "lggglglllggllglg" if SOAK else "lggglglll"):
        module = imported(graph_of(windows(types), tmp_path / types))
        (layers,) = [op for op in module.walk() if isinstance(op, lpu.LayersOp)]
        assert layers.numbers == tuple("lg".index(kind) for kind in types)
        assert layers.functions == ("model.layers.kind0", "model.layers.kind1")
        run_pipeline(module, "default")
        instructions = to_program(module).instructions
        assert [item.name for item in instructions].count("lookup") == 1
        assert [item.name for item in instructions].count("skip_unless") == 2
        counts.append(len(instructions))
    assert counts[0] == counts[1]


def test_nothing_grows_with_depth(tmp_path: Path) -> None:
    """Operations before each pass, bytes of IR after it, and instructions, of 8 layers and of many more."""
    sizes = []
    for layers in (8, 80 if SOAK else 20):
        directory = tmp_path / str(layers)
        tiny_llama_config(num_hidden_layers=layers).save_pretrained(directory)
        module = trace_model(directory, target="u55c", max_length=LENGTH, matrix_type="f16").module
        one: list[int] = [len(print_module(module))]
        for step in parse_pipeline("default"):
            run_pass(module, step)
            one += [len(list(module.walk())), len(print_module(module))]
        sizes.append([*one, len(to_program(module).instructions)])
    assert all(many <= 1.01 * few for few, many in zip(*sizes, strict=True))
    assert max(sizes[1]) < 60_000


def test_scales_of_attention_that_depend_on_the_layer_are_constants(tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=97, n_embd=24, n_layer=4, n_head=2, n_positions=32, scale_attn_by_inverse_layer_idx=True,
        bos_token_id=1, eos_token_id=2, architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    module = imported(graph_of(config, tmp_path))
    assert len([op for op in module.ops if isinstance(op, FuncOp)]) == 2
    (scales,) = [op for op in module.walk() if isinstance(op, lpu.LayerConstantOp)]
    (attention,) = [op for op in module.walk() if isinstance(op, lpu.AttentionOp)]
    assert np.allclose(scales.layer_values.get_values(), [1, 1 / 2, 1 / 3, 1 / 4])
    assert attention.scale.value.data == pytest.approx(12**-0.5)
