"""Rotary tables: as transformers computes them for a forward of the compiled length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models.tiny import tiny_config, tiny_llama_config
from transformers import Gemma3TextConfig, PreTrainedConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hyperdex_ir.errors import UnsupportedModelError
from hyperdex_ir.frontend.derived import RotaryTable, layer_kinds

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_theta": 1e6},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 128},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64
    },
    "longrope": {
        "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + i for i in range(8)],
        "original_max_position_embeddings": 64, "factor": 2.0,
    },
}  # fmt: skip


def llama(rope_type: str) -> PreTrainedConfig:
    return tiny_llama_config(rope_parameters={"rope_type": rope_type, "rope_theta": 1e4} | ROPES[rope_type])


@pytest.mark.parametrize("length", [1, 50, 100, 200])
@pytest.mark.parametrize("rope_type", list(ROPES))
def test_tables_are_those_of_transformers(rope_type: str, length: int) -> None:
    config = llama(rope_type)
    table = RotaryTable.of_module("model.rotary_emb", LlamaRotaryEmbedding(config), length)
    assert (table.key, table.rule, table.shape) == ("model.rotary_emb.table", rope_type, (length, 2, 16))
    theirs = LlamaRotaryEmbedding(config)
    cos, sin = theirs(torch.zeros(1), torch.arange(length)[None])
    values = table.values()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, 0], cos[0].numpy(), rtol=0, atol=2e-7)
    np.testing.assert_allclose(values[:, 1], sin[0].numpy(), rtol=0, atol=2e-7)


def test_length_chooses_the_frequencies() -> None:
    tables = [RotaryTable.of_module("r", LlamaRotaryEmbedding(llama("longrope")), n) for n in (64, 65)]
    assert not np.array_equal(tables[0].frequency, tables[1].frequency)


def gemma3(full: str, sliding: str) -> PreTrainedConfig:
    """A model with rotary positions of two kinds; half of 16 elements a head each."""
    kinds = {"full_attention": full, "sliding_attention": sliding}
    rules = {kind: {"rope_type": rule, "rope_theta": 1e3} | ROPES[rule] for kind, rule in kinds.items()}
    return tiny_config(Gemma3TextConfig, layer_types=list(kinds), rope_parameters=rules, max_position_embeddings=64)


@pytest.mark.parametrize("length", [50, 100])
@pytest.mark.parametrize("rules", [("linear", "default"), ("longrope", "yarn"), ("default", "dynamic")])
def test_layers_of_each_kind_have_a_table(rules: tuple[str, str], length: int) -> None:
    config = gemma3(*rules)
    assert layer_kinds("r", Gemma3RotaryEmbedding(config)) == ("full_attention", "sliding_attention")
    for kind, rule in zip(("full_attention", "sliding_attention"), rules, strict=True):
        table = RotaryTable.of_module("model.rotary_emb", Gemma3RotaryEmbedding(config), length, kind)
        assert (table.key, table.rule) == (f"model.rotary_emb.{kind}.table", rule)
        cos, sin = Gemma3RotaryEmbedding(config)(torch.zeros(1), torch.arange(length)[None], kind)
        np.testing.assert_allclose(table.values()[:, 0], cos[0].numpy(), rtol=0, atol=2e-7)
        np.testing.assert_allclose(table.values()[:, 1], sin[0].numpy(), rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("rule", "length", "says"),
    [
        (
            "longrope",
            64,
            "within",
        ),
        (
            "longrope",
            65,
            "beyond",
        ),
        (
            "dynamic",
            128,
            "within",
        ),
        (
            "dynamic",
            129,
            "beyond",
        ),
        ("yarn", 1000, ""),
    ],
)
def test_says_which_frequencies_it_took(rule: str, length: int, says: str) -> None:
    text = f"r.table: {rule} frequencies for a text {says} the original length, because max_length is {length}"
    table = RotaryTable.of_module("r", LlamaRotaryEmbedding(llama(rule)), length)
    assert table.choice() == (text if says else "")


def test_angles_are_float32_products_and_waves_rounded_once() -> None:
    table = RotaryTable.of_module("r", LlamaRotaryEmbedding(llama("default")), 70_000)
    angle = np.float32(69_999) * table.frequency
    assert angle.dtype == np.float32
    expected = np.cos(angle.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(table.rows(69_999, 70_000)[0, 0], np.tile(expected, 2))


def test_scaling_is_a_float32_product() -> None:
    table = RotaryTable.of_module("r", LlamaRotaryEmbedding(llama("yarn")), 100)
    assert table.scaling != 1
    plain = np.cos((table.frequency * np.float32(9)).astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(table.rows(9, 10)[0, 0, :8], plain * table.scaling)


def test_rows_are_parts_of_the_whole() -> None:
    table = RotaryTable.of_module("r", LlamaRotaryEmbedding(llama("default")), 9_000)
    values = table.values()
    assert values.shape == (9_000, 2, 16)
    for start, stop in ((0, 1), (4_000, 5_000), (8_999, 9_000)):
        np.testing.assert_array_equal(table.rows(start, stop), values[start:stop])


def test_the_device_of_the_module_does_not_matter() -> None:
    with torch.device("meta"):
        module = LlamaRotaryEmbedding(llama("llama3"))
    assert RotaryTable.of_module("r", module, 10).values()[3].any()
    assert module.inv_freq.is_meta


class Interleaved(LlamaRotaryEmbedding):
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angle = (position_ids[..., None].float() * self.inv_freq).repeat_interleave(2, dim=-1)
        return angle.cos(), angle.sin()


class Once(LlamaRotaryEmbedding):
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angle = position_ids[..., None].float() * self.inv_freq
        return angle.cos(), angle.sin()


class Shifted(LlamaRotaryEmbedding):
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = super().forward(x, position_ids + 1)
        return cos, sin


class Several(LlamaRotaryEmbedding):
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str) -> tuple[torch.Tensor, ...]:
        return super().forward(x, position_ids)


@pytest.mark.parametrize(("kind", "column"), [(Interleaved, [0, 0, 1, 1]), (Once, [0, 1, 2, 3])])
@pytest.mark.parametrize("length", [1, 40])
def test_layout_is_probed(kind: type[LlamaRotaryEmbedding], column: list[int], length: int) -> None:
    table = RotaryTable.of_module("r", kind(llama("default")), length)
    assert table.column[:4].tolist() == column


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Shifted, "does not compute cosine and sine"), (Several, "takes other than positions")],
)
def test_other_rotary_modules_are_refused_by_name(kind: type[LlamaRotaryEmbedding], message: str) -> None:
    module = kind(llama("default"))
    with pytest.raises(UnsupportedModelError, match=rf"model.r \({kind.__name__}\): .*{message}"):
        [RotaryTable.of_module("model.r", module, 8, each) for each in layer_kinds("model.r", module)]
