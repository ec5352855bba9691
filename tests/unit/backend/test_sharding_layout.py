"""What each device holds: KV heads, shards of parameters, their place in the layout and the memory map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.models.imported import MAX_LENGTH, import_model
from support.models.tiny import tiny_llama_config
from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.memory.collect import collect_layout, find_function
from hyperdex_ir.memory.layout import ModelLayout, Parameter, Shard
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import layout_from_json, layout_to_json
from hyperdex_ir.memory.shards import local_part, local_rows
from hyperdex_ir.passes.pipeline import parse_pipeline, run_passes
from hyperdex_ir.passes.sharding_rules import kv_head_table, kv_sharding
from hyperdex_ir.support.xdsl import parse_module
from hyperdex_ir.targets import load_target


def _attention(heads: int, groups: int) -> lpu.AttentionOp:
    text = f"""func.func @f(%q: tensor<?x{heads}x8xf32>, %k: tensor<?x{groups}x8xf32>) {{
      %o = lpu.attention %q, %k, %k slot 0 scale 1.000000e+00
        : (tensor<?x{heads}x8xf32>, tensor<?x{groups}x8xf32>, tensor<?x{groups}x8xf32>) -> tensor<?x{heads}x8xf32>
      func.return }}"""
    (op,) = (op for op in find_function(parse_module(text), "f").walk() if isinstance(op, lpu.AttentionOp))
    return op


@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (8, 8), (8, 2), (12, 4), (6, 1), (14, 2), (40, 8)])
def test_each_device_holds_the_kv_heads_that_its_query_heads_need(heads: int, groups: int) -> None:
    op = _attention(heads, groups)
    for devices in range(1, heads + 3):
        block = lpu.block_segment(heads, devices)
        (kv,) = kv_sharding(op, devices).segments
        table = kv_head_table(op, kv.starts, kv.size)
        assert block.size * devices >= heads
        for device in range(devices):
            held = Shard(1, kv.size, groups, kv.starts).held(device)
            for number, head in enumerate(range(device * block.size, min((device + 1) * block.size, heads))):
                place = number * kv.size // block.size if table is None else table[device * block.size + number]
                assert held[place] == head * groups // heads, (devices, device, head)
        assert kv.size <= -(-block.size * groups // heads) + 1
        assert table is None or len(table) == devices * block.size


def test_a_rule_that_all_devices_share_needs_no_table() -> None:
    for heads, groups, devices in ((9, 3, 3), (8, 8, 4), (8, 2, 2), (6, 1, 4)):
        op = _attention(heads, groups)
        (kv,) = kv_sharding(op, devices).segments
        assert kv_head_table(op, kv.starts, kv.size) is None


def test_local_parts() -> None:
    tensor = np.arange(1, 22, dtype=np.float32).reshape(7, 3)
    rows = Shard(0, 3, 7, (0, 3, 6))
    assert [local_part(tensor, rows, device).tolist() for device in range(3)] == [
        tensor[:3].tolist(),
        tensor[3:6].tolist(),
        [[19, 20, 21], [0, 0, 0], [0, 0, 0]],
    ]
    assert local_part(tensor, Shard(0, 2, 4, (0, 4)), 1).tolist() == [[0] * 3] * 2  # rows from 4 on are another's
    assert local_part(tensor, Shard(1, 2, 3, (0, 2)), 1)[:2].tolist() == [[3, 0], [6, 0]]
    assert np.shares_memory(local_part(tensor, rows, 1), tensor)
    parameter = Parameter("a@rows+a@rows", "f32", (5, 3), ("a", "a"), shards=(rows, Shard(0, 2, 4, (0, 2, 4))))
    assert local_rows(parameter, {"a": tensor}.__getitem__, 1).tolist() == [
        *tensor[3:6].tolist(),
        *tensor[2:4].tolist(),
    ]


# ----------------------------------------------------------------------------------------------------- of a model
def _partitioned(devices: int, directory: Path) -> ModuleOp:
    config = tiny_llama_config(
        hidden_size=72, num_attention_heads=9, num_key_value_heads=3, head_dim=8, tie_word_embeddings=True
    )
    module, _ = import_model(config, "f16", directory)
    module.attributes[lpu.GRID] = lpu.GridAttr(devices)
    passes = parse_pipeline("default")
    run_passes(module, passes[: next(i for i, one in enumerate(passes) if one.name == "lower-lpu-to-isa")])
    return module


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ModelLayout]:
    """By number of devices."""
    return {n: collect_layout(_partitioned(n, tmp_path_factory.mktemp("layout"))) for n in (1, 2, 4)}


@pytest.mark.slow
def test_the_layout_of_a_device(layouts: dict[int, ModelLayout]) -> None:
    main = {parameter.name: parameter for parameter in layouts[2].main.parameters}
    assert main["model.embed_tokens.weight@columns"].shards == (Shard(1, 36, 72, (0, 36)),)
    assert main["model.embed_tokens.weight@columns"].shape == (272, 36)
    assert main["model.embed_tokens.weight@rows"].shards == (Shard(0, 136, 272, (0, 136)),)
    assert main["model.norm.weight"].shards is None
    table = main["kv_heads.9.3"]
    assert (table.dtype, table.shape, table.values) == ("i64", (10,), (0, 0, 0, 1, 1, 0, 1, 1, 1, 0))
    (layer,) = layouts[2].functions
    assert [(cache.heads, cache.key_size) for cache in layer.caches] == [(2, 8)]
    attention = next(parameter for parameter in layer.parameters if "v_proj" in parameter.name)
    assert attention.name == "+".join(f"model.layers.*.self_attn.{x}_proj.weight@rows" for x in "vkq")
    assert attention.shape == (16 + 16 + 40, 72)
    assert attention.of_layer(1).shards == attention.shards


def test_json(layouts: dict[int, ModelLayout]) -> None:
    for layout in layouts.values():
        assert layout_from_json(json.loads(json.dumps(layout_to_json(layout)))) == layout
    assert '"shards"' not in json.dumps(layout_to_json(layouts[1]))
    assert '"shards"' in json.dumps(layout_to_json(layouts[2]))


def test_more_devices_need_less_memory_each(layouts: dict[int, ModelLayout]) -> None:
    target = load_target("u55c")
    ends = [plan_memory(layouts[n], target, MAX_LENGTH).parameter_end for n in (1, 2, 4)]
    assert ends == sorted(ends, reverse=True)


def test_every_device_has_its_part_in_hbm(layouts: dict[int, ModelLayout]) -> None:
    layout = layouts[4]
    memory = plan_memory(layout, load_target("u55c"), MAX_LENGTH)
    tensors = {"model.embed_tokens.weight": np.arange(272 * 72).reshape(272, 72).astype(np.float16)}
    kept = [p for p in layout.main.parameters if p.keys[0] in tensors]
    small = ModelLayout("f16", 272, type(layout.main)("main", tuple(kept), ()), (), ())
    for device in range(4):
        hbm = Hbm.from_parameters(memory, small, tensors.__getitem__, device)
        for parameter in kept:
            rows, columns = parameter.shape
            tiles = hbm.tiles(memory.addresses[parameter.name], rows, columns)
            held = tiles.transpose(0, 2, 1, 3).reshape(tiles.shape[0] * tiles.shape[2], -1)[:rows, :columns]
            expected = local_rows(parameter, tensors.__getitem__, device)
            assert held.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_one_name_for_two_forms() -> None:
    text = """builtin.module attributes {lpu.matrix_type = "f16"} {
      func.func @main(%x: tensor<?x4xf32>) -> tensor<?x2xf32> {
        %a = lpu.weight "a" shards [#lpu.sharding<0, 2 of 4 at [0, 2]>] : tensor<2x4xf16>
        %b = lpu.weight "a" shards [#lpu.sharding<0, 2 of 4 at [0, 1]>] : tensor<2x4xf16>
        %y = lpu.linear %x by %a : tensor<?x4xf32>, tensor<2x4xf16> -> tensor<?x2xf32>
        %z = lpu.linear %x by %b plus %y : tensor<?x4xf32>, tensor<2x4xf16> -> tensor<?x2xf32>
        func.return %z : tensor<?x2xf32> } }"""
    with pytest.raises(LoweringError, match="a@rows: used in two forms"):
        collect_layout(parse_module(text))
