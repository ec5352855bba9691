"""Phase 3 for several devices, on a hand-made layout: every part where the map says, each byte read once."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from support.models.blocks import blocks_of

from hyperdex_ir.backend import image_writer as assemble
from hyperdex_ir.backend import images
from hyperdex_ir.backend.convert import write_model
from hyperdex_ir.backend.crc import combine_crc
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.errors import FileFormatError, StorageError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter, Shard
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import layout_from_json, load_json, read_map
from hyperdex_ir.support.files import Kind, read_binary
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.targets import load_target

DEVICES = 4
COLUMNS = 70
#: Rows of each tensor of a layer; q, k and v are one tensor of the source, gate and up are another.
ROWS = {"q": 90, "k": 30, "v": 30, "gate": 50, "up": 50, "fused": 120}


def block(dim: int, extent: int) -> Shard:
    size = -(-extent // DEVICES)
    return Shard(dim, size, extent, tuple(min(d * size, extent) for d in range(DEVICES)))


def key(name: str) -> str:
    return f"layers.*.{name}"


def sharded(dtype: str, names: tuple[str, ...], shards: tuple[Shard, ...]) -> Parameter:
    shape = (sum(shard.size for shard in shards),) + ((COLUMNS,) if dtype != "f32" else ())
    keys = tuple(key(name) for name in names)
    return Parameter("+".join(f"{one}@rows" for one in keys), dtype, shape, keys, shards=shards)


def whole_layout() -> ModelLayout:
    """What one device stores, which the converted checkpoint is made of."""

    def merged(*names: str) -> Parameter:
        keys = tuple(key(name) for name in names)
        return Parameter("+".join(keys), "f16", (sum(ROWS[name] for name in names), COLUMNS), keys)

    main = FunctionLayout(
        "main",
        (
            Parameter("embed", "f16", (37, COLUMNS), ("embed",)),
            Parameter("table", "f32", (6, 2, 4), ("table",)),
            Parameter("positions", "f32", (9, COLUMNS), ("positions",)),
        ),
        (),
    )
    layer = FunctionLayout(
        "layer",
        (
            Parameter(key("norm"), "f32", (COLUMNS,), (key("norm"),)),
            Parameter(key("bias"), "f32", (90,), (key("bias"),)),
            merged("q", "k", "v"),
            merged("gate", "up"),
            merged("fused"),
            Parameter(key("constant0"), "f32", (), (key("constant0"),), (0.5, -1.5)),
        ),
        (KvCache(3, 16, 16),),
    )
    return ModelLayout("f16", 37, main, (layer,), (0, 0))


def divided_layout() -> ModelLayout:
    """What each of four devices stores: blocks, overlapping KV heads, a tied table, one key in several places."""
    heads = Shard(0, 30, 90, (0, 30, 60, 90))
    kv = Shard(0, 20, 30, (0, 10, 20, 30))
    fused = (Shard(0, 20, 60, (0, 20, 40, 60)), Shard(0, 8, 90, (60, 68, 76, 84)), Shard(0, 8, 120, (90, 98, 106, 114)))
    main = FunctionLayout(
        "main",
        (
            Parameter("embed@columns", "f16", (37, 18), ("embed",), shards=(block(1, COLUMNS),)),
            Parameter("table", "f32", (6, 2, 4), ("table",)),
            Parameter("positions@columns", "f32", (9, 18), ("positions",), shards=(block(1, COLUMNS),)),
            Parameter("embed@rows", "f16", (10, COLUMNS), ("embed",), shards=(block(0, 37),)),
            Parameter("kv_heads", "i64", (8,), ("kv_heads",), (0, 0, 1, 0, 1, 1, 0, 0)),
        ),
        (),
    )
    layer = FunctionLayout(
        "layer",
        (
            Parameter(key("norm"), "f32", (COLUMNS,), (key("norm"),)),
            sharded("f32", ("bias",), (block(0, 90),)),
            sharded("f16", ("v", "q", "k"), (kv, heads, kv)),
            Parameter("+".join((key("gate"), key("up"))), "f16", (100, COLUMNS), (key("gate"), key("up"))),
            sharded("f16", ("fused", "fused", "fused"), fused),
            Parameter(key("constant0"), "f32", (), (key("constant0"),), (0.5, -1.5)),
        ),
        (KvCache(2, 16, 16),),
    )
    return ModelLayout("f16", 37, main, (layer,), (0, 0))


def make_tensors() -> dict[str, tuple[str, np.ndarray]]:
    random = np.random.default_rng(3)

    def values(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    tensors = {
        "embed": ("f16", values(37, COLUMNS).astype(np.float16)),
        "table": ("f32", values(6, 2, 4)),
        "positions": ("f32", values(9, COLUMNS)),
    }
    for layer in range(2):
        tensors[f"layers.{layer}.norm"] = ("f32", values(COLUMNS))
        tensors[f"layers.{layer}.bias"] = ("f32", values(90))
        for name, rows in ROWS.items():
            tensors[f"layers.{layer}.{name}"] = ("f16", values(rows, COLUMNS).astype(np.float16))
    return tensors


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    folder = ModelFolder(tmp_path, tmp_path, None, made_by_tool=False)
    write_model(folder, whole_layout(), blocks_of(make_tensors()), {"max_length": 8})
    return folder


@pytest.mark.parametrize("target_name", ["u55c", "asic"])
@pytest.mark.parametrize("block_bytes", [500, 4096, 1 << 20])
def test_every_device_has_its_parts(folder: ModelFolder, target_name: str, block_bytes: int, monkeypatch):
    monkeypatch.setattr(assemble, "BLOCK_BYTES", block_bytes)
    layout, target, tensors = divided_layout(), load_target(target_name), make_tensors()
    files = write_images(folder, target_name, DEVICES, layout, block_bytes=block_bytes)
    assert len(files) == DEVICES * target.channels + 1
    assert len({path.stat().st_size for path in files[:-1]}) == 1
    memory_map = plan_memory(layout, target, 8)
    assert read_map(folder.memory_map(DEVICES)) == memory_map
    assert layout_from_json(load_json(folder.memory_map(DEVICES))["layout"]) == layout
    for device in range(DEVICES):
        paths = [folder.parameter_file(DEVICES, device, channel) for channel in range(target.channels)]
        found = Hbm.from_images(paths, memory_map)  # which checks the combined CRCs
        expected = Hbm.from_parameters(memory_map, layout, lambda name: tensors[name][1], device)
        assert np.array_equal(found.bytes, expected.bytes)


def test_the_source_is_read_once(folder: ModelFolder, monkeypatch):
    read = []

    def count(self, size, original=images.ModelReader.read):
        read.append(size)
        return original(self, size)

    opened = []

    def open_counted(path, *arguments, original=images.open_regular, **keywords):
        opened.append(path)
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(images.ModelReader, "read", count)
    monkeypatch.setattr(images, "open_regular", open_counted)
    write_images(folder, "u55c", DEVICES, divided_layout())
    assert opened.count(folder.model_binary) == 1
    assert sum(read) == len(read_binary(folder.model_binary, Kind.MODEL))


def test_one_count_does_not_touch_the_files_of_another(folder: ModelFolder):
    before = {path: path.read_bytes() for path in write_images(folder, "u55c", 1)}
    write_images(folder, "u55c", DEVICES, divided_layout())
    assert {path: path.read_bytes() for path in before} == before


def test_a_layout_of_another_model_is_refused(folder: ModelFolder):
    layout = divided_layout()
    extra = Parameter("more", "f16", (16, COLUMNS), ("more",))
    other = FunctionLayout("main", (*layout.main.parameters, extra), ())
    with pytest.raises(FileFormatError, match="more: not all of it is in the converted checkpoint"):
        write_images(folder, "u55c", DEVICES, ModelLayout("f16", 37, other, layout.functions, layout.layers))
    assert not list((folder.root / "param").iterdir())


def test_too_many_files_at_once_are_one_error(folder: ModelFolder, monkeypatch):
    monkeypatch.setattr(images.resource, "getrlimit", lambda _: (64, 100))
    with pytest.raises(StorageError, match="192 files are to be open at once, the system allows 100"):
        write_images(folder, "u55c", DEVICES, divided_layout())


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100_003])
def test_crc_of_two_parts(size: int):
    first, second = os.urandom(1000), os.urandom(size)
    assert combine_crc(zlib.crc32(first), zlib.crc32(second), size) == zlib.crc32(first + second)
