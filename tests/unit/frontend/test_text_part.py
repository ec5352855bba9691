"""The text part of a wrapper, as transformers builds it: its modules, its positions, its names in published files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.models.wrappers import made_wrapper, wrapper_values, write_config
from torch.fx import Graph
from transformers import AutoConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from hyperdex_ir.checkpoint.dequantize import open_checkpoint
from hyperdex_ir.checkpoint.names import resolve_sources
from hyperdex_ir.errors import CheckpointError, UnsupportedModelError
from hyperdex_ir.frontend.derived import RotaryTable
from hyperdex_ir.frontend.imported import names_of
from hyperdex_ir.frontend.operators import ROTARY_TABLE
from hyperdex_ir.frontend.positions import take_text_positions
from hyperdex_ir.frontend.text_part import outside_text, text_only
from hyperdex_ir.frontend.trace import untraced

#: Layouts of published files: the names in transformers' module tree -> those in the file.
_LLAVA_OLD = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""}
LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "llava-old": ("llava", _LLAVA_OLD),
    "llava-new": ("llava", {}),
    "gemma3-old": ("gemma3", _LLAVA_OLD),
    "gemma3-new": ("gemma3", {}),
    "qwen2.5-vl-old": ("qwen2_5_vl", {"model.language_model.": "model.", "model.visual.": "visual."}),
    "qwen2.5-vl-new": ("qwen2_5_vl", {}),
}


def _name(name: str, layout: dict[str, str]) -> str:
    for ours, theirs in layout.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


@pytest.mark.parametrize("case", LAYOUTS)
def test_tensors_of_published_layouts(case: str, tmp_path: Path) -> None:
    """Without any tensor of the images; the tied head is left out, too."""
    model_type, layout = LAYOUTS[case]
    write_config(wrapper_values(model_type), tmp_path)
    theirs = made_wrapper(tmp_path)
    outside, state = outside_text(theirs), theirs.state_dict()
    tied = {"lm_head.weight"} if theirs.config.tie_word_embeddings else set()
    kept = {name: tensor for name, tensor in state.items() if name not in outside | tied}
    save_file({_name(name, layout): tensor for name, tensor in kept.items()}, tmp_path / "model.safetensors")
    names = names_of(untraced(tmp_path, type(theirs).__name__), type(theirs).__name__, frozenset())
    sources = resolve_sources(names, open_checkpoint(tmp_path))
    assert {len(sources), len(kept)} == {len([name for name in state if name not in outside | tied])}
    for key, source in sources.items():
        assert source.tensor is not None
        np.testing.assert_array_equal(source.tensor.rows(0, source.shape[0]), state[key].numpy())
    assert all(names.is_needed(_name(name, layout)) for name in kept)
    assert not any(names.is_needed(_name(name, layout)) for name in sorted(outside))


def test_a_missing_tensor_of_the_text_is_an_error(tmp_path: Path) -> None:
    write_config(wrapper_values("llava"), tmp_path)
    state = made_wrapper(tmp_path).state_dict()
    del state["model.language_model.layers.1.mlp.up_proj.weight"]
    save_file({name: tensor for name, tensor in state.items() if "tower" not in name}, tmp_path / "model.safetensors")
    model = untraced(tmp_path, "LlavaForConditionalGeneration")
    names = names_of(model, "LlavaForConditionalGeneration", frozenset())
    with pytest.raises(CheckpointError, match=r"1 missing: model.language_model.layers.1.mlp.up_proj.weight"):
        resolve_sources(names, open_checkpoint(tmp_path))


def test_a_wrapper_is_whole_again(tmp_path: Path) -> None:
    write_config(wrapper_values("llava"), tmp_path)
    model = untraced(tmp_path, "LlavaForConditionalGeneration")
    before = list(model.state_dict())
    with text_only(model):
        assert {name.partition(".layers.")[0] for name in model.state_dict()} == {
            "model.language_model.embed_tokens.weight", "model.language_model", "model.language_model.norm.weight",
            "lm_head.weight",
        }  # fmt: skip
    assert list(model.state_dict()) == before


@pytest.mark.parametrize("architecture", ["LlavaModel", "Gemma3ForSequenceClassification"])
def test_another_head_of_a_wrapper(architecture: str, tmp_path: Path) -> None:
    write_config(wrapper_values("llava", architectures=[architecture]), tmp_path)
    with pytest.raises(UnsupportedModelError, match="LlavaForConditionalGeneration is wanted"):
        untraced(tmp_path, architecture)


def test_another_text_model_than_was_checked(tmp_path: Path) -> None:
    """Whatever config.json says, transformers has its own text model in this wrapper, or its default sizes."""
    values = wrapper_values("qwen2_5_vl")
    write_config(values | {"text_config": values["text_config"] | {"model_type": "llama"}}, tmp_path)
    with pytest.raises(UnsupportedModelError, match="transformers reads a text model qwen2_5_vl_text of 3 layers"):
        untraced(tmp_path, "Qwen2_5_VLForConditionalGeneration")
    write_config(_flat("gemma3"), tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"gemma3_text of 26 layers .*, not gemma3_text of 3 layers of 72"):
        untraced(tmp_path, "Gemma3ForConditionalGeneration")


def test_a_flat_file_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    write_config(_flat("qwen2_5_vl"), tmp_path)
    model: Any = untraced(tmp_path, "Qwen2_5_VLForConditionalGeneration")
    assert model.model.language_model.rotary_emb.mrope_section == [3, 3, 3]
    assert len(model.model.language_model.layers) == 3


def _flat(model_type: str) -> dict[str, Any]:
    """A config.json with the keys of the text model among the wrapper's own."""
    values = wrapper_values(model_type)
    return {**values.pop("text_config"), **values}


@pytest.mark.parametrize("made", [Qwen2VLRotaryEmbedding, Qwen3VLTextRotaryEmbedding])
def test_sections_of_equal_positions_are_plain_frequencies(made: Callable[[Any], Any], tmp_path: Path) -> None:
    """Bit for bit, against transformers' plain module and against its module of sections at three equal positions."""
    kind = "qwen3_vl" if made is Qwen3VLTextRotaryEmbedding else "qwen2_vl"
    config = AutoConfig.from_pretrained(write_config(wrapper_values(kind), tmp_path)).text_config
    module, plain = made(config), Qwen3RotaryEmbedding(config)
    positions = torch.arange(64)[None]
    x = torch.zeros(1)
    for one, same, other in zip(
        module(x, positions.expand(3, 1, 64)), module(x, positions), plain(x, positions), strict=True
    ):
        assert torch.equal(one, other)
        assert torch.equal(same, other)
    tables = [RotaryTable.of_module("rotary", each, 64).values().tobytes() for each in (module, plain)]
    assert tables[0] == tables[1]


def _graph(rows: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Graph, torch.fx.Node]:
    """The graph of a table of some rows, and its input."""

    class Module(torch.nn.Module):
        def forward(self, positions: torch.Tensor) -> torch.Tensor:
            return ROTARY_TABLE(rows(positions), "table", 8)[0]

    program = torch.export.export(Module(), (torch.zeros(1, 7, dtype=torch.long),), strict=False)
    (source,) = program.graph.find_nodes(op="placeholder")
    return program.graph, source


def test_rows_of_repeated_positions_are_the_positions() -> None:
    graph, source = _graph(lambda one: one[None].expand(4, 1, -1)[1:][0])
    take_text_positions(graph)
    (table,) = graph.find_nodes(op="call_function", target=ROTARY_TABLE)
    assert table.args[0] is source


@pytest.mark.parametrize("rows", [lambda one: one[None].expand(3, 1, -1)[0] + 1, lambda one: one[:, :3]])
def test_other_positions_stay(rows: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph, source = _graph(rows)
    take_text_positions(graph)
    (table,) = graph.find_nodes(op="call_function", target=ROTARY_TABLE)
    assert table.args[0] is not source
