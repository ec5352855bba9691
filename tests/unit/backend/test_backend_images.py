"""Phases 2 and 3 on a hand-made layout: what is written, where, and that it appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.blocks import blocks_of

from hyperdex_ir.backend import payload
from hyperdex_ir.backend.convert import write_model
from hyperdex_ir.backend.image_writer import matrix_beats, vector_beats
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.checkpoint.values import convert, lost_to_underflow
from hyperdex_ir.errors import CheckpointError, FileFormatError, StorageError
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import dump_json, layout_from_json, layout_to_json, load_json, map_to_json, read_map
from hyperdex_ir.support.files import HEADER_BYTES, Kind, read_binary
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.targets import load_target
from hyperdex_ir.verify.model import _stored_at

MERGED = ("layers.*.up.weight", "layers.*.gate.weight")


def make_layout(matrix_type: str = "f16") -> ModelLayout:
    main = FunctionLayout(
        "main",
        (
            Parameter("embed.weight", matrix_type, (37, 70), ("embed.weight",)),
            Parameter("table", "f32", (8, 2, 4), ("table",)),
            Parameter("numbers", "i64", (3,), ("numbers",)),
            Parameter("layers.order", "i64", (4,), ("layers.order",), (0, 1, 1, 0)),
        ),
        (),
    )
    layer = FunctionLayout(
        "layer",
        (
            Parameter("layers.*.norm", "f32", (70,), ("layers.*.norm",)),
            Parameter("layers.*.constant0", "f32", (), ("layers.*.constant0",), (0.1, -0.0)),
            Parameter("+".join(MERGED), matrix_type, (40, 70), MERGED),
        ),
        (KvCache(2, 16, 16),),
    )
    return ModelLayout(matrix_type, 37, main, (layer,), (0, 0))


def make_tensors() -> dict[str, tuple[str, np.ndarray]]:
    random = np.random.default_rng(7)

    def values(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    tensors = {
        "embed.weight": ("f16", values(37, 70).astype(np.float16)),
        "table": ("f32", values(8, 2, 4)),
        "numbers": ("i64", np.array([1, -2, 3])),
    }
    for layer in range(2):
        tensors[f"layers.{layer}.norm"] = ("bf16", (values(70).view(np.uint32) >> 16).astype(np.uint16))
        tensors[f"layers.{layer}.up.weight"] = ("f32", values(24, 70))
        tensors[f"layers.{layer}.gate.weight"] = ("f16", values(16, 70).astype(np.float16))
    return tensors


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path, tmp_path, None, made_by_tool=False)


def write_all(folder: ModelFolder, target: str = "u55c", matrix_type: str = "f16", block_bytes: int = BLOCK_BYTES):
    tensors = make_tensors()
    facts = {"target": target, "max_length": 8}
    write_model(folder, make_layout(matrix_type), blocks_of(tensors), facts)
    write_images(folder, target, 1, block_bytes=block_bytes)
    return tensors


def expected_values(tensors, parameter: Parameter) -> np.ndarray:
    """The stored elements of a parameter, converted by other means than the package's."""
    import torch

    if parameter.values is not None:  # no tensor of a checkpoint
        kind = {"i64": torch.int64, "f32": torch.float32}[parameter.dtype]
        return torch.tensor(parameter.values, dtype=kind).view(torch.uint8).numpy()
    parts = []
    for key in parameter.keys:
        dtype, values = tensors[key]
        if dtype == "i64":
            parts.append(values.view(np.uint8).reshape(-1))
            continue
        raw = torch.from_numpy(values.copy())
        exact = raw.view(torch.bfloat16).float() if dtype == "bf16" else raw.float()
        wanted = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[parameter.dtype]
        parts.append(exact.to(wanted).view(torch.uint8).numpy().reshape(-1))
    return np.concatenate(parts)


@pytest.mark.parametrize(("source", "matrix_type"), [("f32", "f16"), ("f64", "bf16"), ("bf16", "f16"), ("f16", "bf16")])
def test_values_lost_to_underflow_are_counted(source: str, matrix_type: str) -> None:
    kind, wanted = ELEMENTS[source], ELEMENTS[matrix_type]
    exponents = np.arange(-160, 8, dtype=np.float64)
    exact = np.concatenate([np.ldexp(1.5, exponents.astype(int)), [0.0, -0.0], -np.ldexp(1.0, exponents.astype(int))])
    values = exact if source == "f64" else kind.round(exact.astype(np.float32)).view(kind.dtype)
    result = convert(values, source, matrix_type, "x")
    before, after = kind.load(values).astype(np.float64), wanted.load(result.view(wanted.stored)).astype(np.float64)
    assert lost_to_underflow(values, source, result, matrix_type) == ((before != 0) & (after == 0)).sum()


@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
def test_model_binary_holds_every_parameter_at_its_offset(folder: ModelFolder, matrix_type: str):
    tensors = write_all(folder, matrix_type=matrix_type)
    data = read_binary(folder.model_binary, Kind.MODEL)
    table = load_json(folder.model_config)
    layout = make_layout(matrix_type)
    assert layout_from_json(table["layout"]) == layout
    assert [entry["name"] for entry in table["tensors"]] == [p.name for p in layout.parameters()]
    for entry, parameter in zip(table["tensors"], layout.parameters(), strict=True):
        expected = expected_values(tensors, parameter).tobytes()
        assert entry["offset"] % 64 == 0
        assert data[entry["offset"] : entry["offset"] + len(expected)] == expected
        assert entry["sha256"] == hashlib.sha256(expected).hexdigest()
        assert tuple(entry["keys"]) == parameter.keys


@pytest.mark.parametrize("target_name", ["u55c", "asic"])
@pytest.mark.parametrize("block_bytes", [4096, 1 << 20])
def test_images_hold_every_element_where_the_map_says(folder: ModelFolder, target_name, block_bytes):
    tensors = write_all(folder, target_name, block_bytes=block_bytes)
    target = load_target(target_name)
    memory = np.frombuffer(
        b"".join(
            channel
            for beat in zip(*(_beats(folder.parameter_file(1, 0, c)) for c in range(target.channels)), strict=True)
            for channel in beat
        ),
        np.uint8,
    )
    layout = make_layout()
    memory_map = plan_memory(layout, target, 8)
    assert read_map(folder.memory_map(1)) == memory_map
    assert len(memory) == memory_map.parameter_end
    for parameter in layout.parameters():
        address = memory_map.addresses[parameter.name]
        expected = expected_values(tensors, parameter)
        if not parameter.is_matrix:
            assert memory[address : address + len(expected)].tobytes() == expected.tobytes()
            continue
        matrix = expected.view(np.uint16).reshape(parameter.shape)
        row, column = np.indices(parameter.shape)
        steps = -(-parameter.shape[1] // 64)
        trees = target.trees
        element = ((row // trees * steps + column // 64) * trees + row % trees) * 64 + column % 64
        assert np.array_equal(memory[address:].view(np.uint16)[element], matrix)


def _beats(path: Path) -> list[bytes]:
    data = read_binary(path, Kind.PARAMETERS)
    return [data[i : i + 64] for i in range(0, len(data), 64)]


def test_padding_is_zero():
    target = load_target("u55c")
    ones = np.full((17, 65), 0xFFFF, np.uint16)
    assert np.count_nonzero(matrix_beats(ones, target)) == ones.size
    assert np.count_nonzero(vector_beats(np.full(2049, 1, np.uint8), target)) == 2049
    assert vector_beats(np.full(2049, 1, np.uint8), target).shape == (32, 128)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path):
    contents = []
    for name in ("a", "b"):
        root = tmp_path / name
        write_all(ModelFolder(root, root, None, made_by_tool=False))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        contents.append([(str(path.relative_to(root)), path.read_bytes()) for path in files])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 32 + 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (70000.0, "the value 70000 at [11, 3] is outside the range of f16"),
        (np.nan, "the value at [11, 3] is nan"),
        (-np.inf, "the value at [11, 3] is -inf"),
    ],
)
def test_a_value_that_f16_cannot_hold_is_named(folder: ModelFolder, value: float, words: str):
    tensors = make_tensors()
    tensors["layers.1.up.weight"][1][11, 3] = value
    with pytest.raises(CheckpointError) as caught:
        write_model(folder, make_layout(), blocks_of(tensors), {})
    assert str(caught.value) == f"layers.1.up.weight: {words}"
    assert list(folder.ckpt.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "value"), [("f16", np.float16(np.inf)), ("f32", np.float32(3.4e38)), ("bf16", np.uint16(0x7F80))]
)
def test_infinities_of_every_type_are_found(folder: ModelFolder, source: str, value):
    tensors = make_tensors()
    dtype = {"f16": np.float16, "f32": np.float32, "bf16": np.uint16}[source]
    weight = np.zeros((16, 70), dtype)
    weight[2, 1] = value
    tensors["layers.0.gate.weight"] = (source, weight)
    with pytest.raises(CheckpointError, match=r"layers\.0\.gate\.weight: .* \[2, 1\]"):
        write_model(folder, make_layout("bf16"), blocks_of(tensors), {})


@pytest.mark.parametrize("place", [(0, 0), (299, 599), (218, 271), (218, 272)])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_one_infinity_in_a_large_block_is_found(dtype: str, place: tuple[int, int]):
    bits = np.ones((300, 600), np.uint16)
    bits[place] = {"f16": 0xFC00, "bf16": 0xFF80}[dtype]
    values = bits.view(np.float16) if dtype == "f16" else bits
    with pytest.raises(CheckpointError, match=rf"^a: the value at \[{place[0] + 7}, {place[1]}\] is -inf$"):
        convert(values, dtype, dtype, "a", 7)


def test_a_full_disk_leaves_nothing(folder: ModelFolder, monkeypatch):
    write_all(folder)
    before = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
    written = 0

    def refuse(self, offset, data, original=payload.PlacedWriter.write):
        nonlocal written
        original(self, offset, data)
        written += 1
        if written == 150:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(payload.PlacedWriter, "write", refuse)
    with pytest.raises(StorageError, match="no space left on the device"):
        write_images(folder, "u55c", 1)
    assert {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()} == before


def test_the_number_of_values_lost_is_reported_once(folder: ModelFolder):
    tensors, lines = make_tensors(), []
    for layer, count in ((0, 2), (1, 1030)):
        tensors[f"layers.{layer}.up.weight"][1].reshape(-1)[:count] = 2.0**-26
    write_model(folder, make_layout(), blocks_of(tensors), {"target": "u55c", "max_length": 8}, report=lines.append)
    assert lines == ["1,032 values are too small for f16 and became 0, the most in layers.1.up.weight: 1,030"]


def test_a_damaged_model_binary_gives_no_images(folder: ModelFolder):
    write_model(folder, make_layout(), blocks_of(make_tensors()), {"target": "u55c", "max_length": 8})
    data = bytearray(folder.model_binary.read_bytes())
    data[HEADER_BYTES + 1000] ^= 1
    folder.model_binary.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"hyperdex_model\.bin: corrupted"):
        write_images(folder, "u55c", 1)
    assert list((folder.root / "param").iterdir()) == []
    folder.model_binary.write_bytes(data[:-64])
    with pytest.raises(FileFormatError, match="bytes of payload, the header says"):
        write_images(folder, "u55c", 1)
    folder.model_binary.unlink()
    with pytest.raises(FileFormatError, match="no such file"):
        write_images(folder, "u55c", 1)


#: What is done to the table of the converted checkpoint, and what phase 3 says.
TABLES = {
    "no tensors": (lambda t: t.pop("tensors"), "lacks 'tensors'"),
    "a tensor too few": (lambda t: t["tensors"].pop(), "tensors, the layout has"),
    "no offset": (lambda t: t["tensors"][0].pop("offset"), "lacks 'offset'"),
    "an offset of text": (lambda t: t["tensors"][0].update(offset="0"), "offset is '0', expected a whole number"),
    "an offset before the start": (lambda t: t["tensors"][0].update(offset=-5), "offset is -5, expected a whole"),
    "a number for keys": (lambda t: t["tensors"][0].update(keys=5), "keys is 5, expected a list"),
    "lists for keys": (lambda t: t["tensors"][0].update(keys=[[1]]), r"keys is \[1\], expected text"),
    "an offset behind the end": (lambda t: t["tensors"][0].update(offset=1 << 39), "no tensor at 549755813888"),
    "a giant tensor": (lambda t: t["tensors"][0].update(shape=[1 << 39, 2]), r"\[549755813888, 2\], the layout has"),
    "no length": (lambda t: t.update(max_length=0), "max_length is 0, expected a whole number"),
    "a giant layout": (
        lambda t: t["layout"]["main"]["parameters"][0].update(shape=[1 << 39, 2]),
        "the layout has",
    ),
}


def spoil_table(folder: ModelFolder, edit: Callable[[dict[str, Any]], object]) -> None:
    write_model(folder, make_layout(), blocks_of(make_tensors()), {"target": "u55c", "max_length": 8})
    table = json.loads(folder.model_config.read_text())
    edit(table)
    folder.model_config.write_text(json.dumps(table))


@pytest.mark.parametrize("case", TABLES)
def test_a_spoiled_table_gives_no_images(case: str, folder: ModelFolder):
    edit, message = TABLES[case]
    spoil_table(folder, edit)
    with pytest.raises(FileFormatError, match=message):
        write_images(folder, "u55c", 1)
    assert not list((folder.root / "param").glob("*"))


@pytest.mark.parametrize("case", [case for case in TABLES if case not in ("no length", "an offset behind the end")])
def test_verify_takes_no_parameters_by_a_spoiled_table(case: str, folder: ModelFolder):
    """What may be asked of the table alone; its length is not of the parameters."""
    edit, message = TABLES[case]
    spoil_table(folder, edit)
    with pytest.raises(FileFormatError, match=message):
        _stored_at(folder, {})


def test_verify_reads_nothing_behind_the_end(folder: ModelFolder):
    spoil_table(folder, TABLES["an offset behind the end"][0])
    key = json.loads(folder.model_config.read_text())["tensors"][0]["keys"][0]
    with pytest.raises(FileFormatError, match=f"ends before {key}, 12 bytes at {HEADER_BYTES + (1 << 39)}"):
        _stored_at(folder, {key: ("f32", (3,))})(key)


def test_json_forms_round_trip():
    layout = make_layout()
    assert layout_from_json(json.loads(dump_json(layout_to_json(layout)))) == layout
    memory_map = plan_memory(layout, load_target("asic"), 8)
    text = dump_json(map_to_json(memory_map))
    assert json.loads(text)["target"]["name"] == "asic"
    assert zlib.crc32(text.encode()) == zlib.crc32(
        dump_json(map_to_json(plan_memory(layout, load_target("asic"), 8))).encode()
    )


def test_a_file_that_is_no_map_is_one_error(tmp_path: Path):
    path = tmp_path / "config_1lpu_hbm.json"
    deep, long = "[" * 100_000, "1" * 5000
    for text, words in (
        ("{", "not valid JSON"),
        (deep, "not valid JSON"),
        (long, "not valid JSON"),
        ("[]", "format None"),
        ('{"format": 2}', "not a memory map"),
    ):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=words):
            read_map(path)
    with pytest.raises(FileFormatError, match="no such file"):
        read_map(tmp_path / "none.json")
