"""Weights of strangers: what a torch or GGUF file says of itself takes no more memory than the file has bytes."""

from __future__ import annotations

import io
import pickletools
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from pickle import dumps
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.gguf import open_gguf
from hyperdex_ir.checkpoint.gguf_header import architecture_of
from hyperdex_ir.checkpoint.gguf_reader import thrifty_transformers
from hyperdex_ir.checkpoint.torch_weights import _OLD_PICKLES, _pickles, load_tensors
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.support.reading import WEIGHTS_PICKLE, FileKind

SQUARE = torch.ones(4, 4)


# ---------------------------------------------------------------------------------------------------- torch
def _quantized() -> torch.Tensor:
    return torch._empty_affine_quantized([4], scale=0.5, zero_point=0, dtype=torch.qint8)


VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "stride 0": (
        lambda: torch.ones(1).expand(1 << 14, 1 << 13),
        "has 134217728 elements, [16384, 8192] with strides [0, 0], of 1 in the file",
    ),
    "rows that overlap": (
        lambda: torch.ones(9).as_strided((8, 8), (0, 1)),
        "has 64 elements, [8, 8] with strides [0, 1], of 9 in the file",
    ),
    "conjugated": (lambda: torch.ones(3, dtype=torch.complex64).conj(), "is a tensor that is to be negated or conjuga"),
    "many dimensions": (lambda: torch.ones([1] * 9), "has 9 dimensions, the most is 8"),
    "a list": (lambda: [SQUARE], "is list, no weight"),
    "tensors by name": (lambda: {"b": SQUARE}, "is dict, no weight"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", VALUES)
def test_values_that_are_no_dense_tensors(case: str, legacy: bool, tmp_path: Path) -> None:
    value, message = VALUES[case]
    path = tmp_path / "pytorch_model.bin"
    torch.save({"good": SQUARE, "bad": value()}, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 5000
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{path}: bad {message}")
    assert "\n" not in str(caught.value)


KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: SQUARE.to_sparse(), "torch._utils._rebuild_sparse_tensor"),
    "compressed rows": (lambda: SQUARE.to_sparse_csr(), "torch._utils._rebuild_sparse_tensor"),
    "meta": (lambda: torch.ones(1 << 14, 1 << 14, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
    "quantized": (_quantized, "torch._utils._rebuild_qtensor"),
    "a set": (lambda: {3}, "__builtin__.set"),
    "bytes": (lambda: b"abc", "_codecs.encode"),
    "a shape": (lambda: SQUARE.shape, "torch.Size"),
    "a device": (lambda: SQUARE.device, "torch.device"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", KINDS)
def test_what_no_checkpoint_of_tensors_needs(
    case: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, name = KINDS[case]
    path = tmp_path / "pytorch_model.bin"
    torch.save({"good": SQUARE, "bad": value()}, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(torch, "load", lambda *arguments, **named: pytest.fail("torch reads it"))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    assert str(caught.value) == f"{path}: holds {name}, which no checkpoint of tensors needs"


@pytest.mark.parametrize("name", [3, "a\ud800", None, ("a",)])
def test_names_that_are_no_text(name: Any, tmp_path: Path) -> None:
    torch.save({name: SQUARE}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is the name of a tensor, expected text"):
        Checkpoint(tmp_path)


def test_tied_tensors_and_parts_are_read(tmp_path: Path) -> None:
    values = torch.arange(100.0).reshape(10, 10)
    parts = {"all": values, "tied": values, "part": values[2:4, 3:5], "none": values[:0], "turned": values.T}
    parts |= {"own": torch.nn.Parameter(values[5:].clone())}
    torch.save(parts, tmp_path / "pytorch_model.bin")
    checkpoint = Checkpoint(tmp_path)
    for name, tensor in parts.items():
        np.testing.assert_array_equal(checkpoint.read(name), tensor.detach().numpy())


def test_a_thousand_names_for_one_tensor(tmp_path: Path) -> None:
    values = torch.ones(1 << 16)
    torch.save({str(number): values for number in range(1000)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"tensors of 262144000 bytes, the file has \d{6}$"):
        Checkpoint(tmp_path)


def _zipped(pickle: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in (("data.pkl", pickle), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


GIB = _number(1 << 30)
DICT = b"\x80\x02}X\x01\x00\x00\x00a"
#: Pickles of what torch calls harmless: a size is in the file, no element is.
PICKLES = {
    "bytearray": (
        DICT + b"cbuiltins\nbytearray\n(" + GIB + b"tRs.",
        "holds builtins.bytearray, which no checkpoint of tensors needs",
    ),
    "old bytearray": (DICT + b"c__builtin__\nbytearray\n(" + GIB + b"tRs.", "holds __builtin__.bytearray, which no"),
    "FloatTensor": (DICT + b"ctorch\nFloatTensor\n(" + GIB + b"tRs.", "holds torch.FloatTensor, which no checkpoint"),
    "TypedStorage": (
        DICT + b"ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\nTypedStorage\n(" + GIB + b"tRK\x00" + GIB
        + b"\x85K\x01\x85\x89NtRs.", "holds torch.storage.TypedStorage, which no checkpoint of tensors needs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_sizes_without_elements(case: str, tmp_path: Path) -> None:
    pickle, message = PICKLES[case]
    (tmp_path / "pytorch_model.bin").write_bytes(_zipped(pickle))
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(tmp_path)


def _old_file(place: int, pickle: bytes) -> bytes:
    """A file of torch before 1.6 without tensors, with another pickle in one place of five."""
    parts = [b"", b"", b"", b"}", b"]"]
    for number, value in enumerate((0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})):
        parts[number] = pickletools.optimize(dumps(value, 2))[2:-1]
    parts[place] = pickle
    return b"".join(b"\x80\x02" + part + b"." for part in parts)


def test_an_old_file_without_tensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(_old_file(4, b"]"))
    assert load_tensors(path) == {}


@pytest.mark.parametrize("place", range(5))
def test_a_bytearray_in_each_pickle_of_an_old_file(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *arguments, **named: pytest.fail("torch reads it"))
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(_old_file(place, b"cbuiltins\nbytearray\nJ\x00\x00\x00\x60\x85R"))
    with pytest.raises(CheckpointError, match=r"holds builtins\.bytearray, which no checkpoint of"):
        load_tensors(path)


@pytest.mark.parametrize("old", [False, True])
def test_pickles_of_too_many_objects(old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperdex_ir.checkpoint.torch_weights.WEIGHTS_PICKLE", FileKind(1 << 16, CheckpointError))
    path = tmp_path / "pytorch_model.bin"
    for count, wrong in ((4000, ""), (4096, "pickles of more than 4096 operations"), (1 << 17, "the most that is rea")):
        path.write_bytes(_old_file(3, b"}" * count) if old else _zipped(b"\x80\x02" + b"}" * count + b"."))
        with pytest.raises(CheckpointError, match=wrong) if wrong else nullcontext():
            load_tensors(path)


def test_pickles_of_an_old_file_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperdex_ir.checkpoint.torch_weights.WEIGHTS_PICKLE", FileKind(1 << 16, CheckpointError))
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(_old_file(3, b"X" + struct.pack("<I", 1 << 17) + bytes(1 << 17)))
    with pytest.raises(CheckpointError, match="pickles of more than 65536 bytes, which is the most that is read"):
        load_tensors(path)


@pytest.mark.slow
def test_ten_thousand_tensors_are_far_from_the_most(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    values = torch.zeros(10_000)
    for old in (False, True):
        torch.save(
            dict(zip(map(str, range(10_000)), values, strict=True)), path, _use_new_zipfile_serialization=not old
        )
        assert len(load_tensors(path)) == 10_000
    file = io.BytesIO(_pickles(path, False))
    operations = sum(1 for _ in range(_OLD_PICKLES) for _ in pickletools.genops(file))
    assert 100_000 < operations < WEIGHTS_PICKLE.most_values // 8


def test_a_zip_archive_that_only_torch_takes_for_one(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"PK\x03\x04\n." + _old_file(3, b"}"))
    with pytest.raises(CheckpointError, match="begins as a zip archive, but has no end of one"):
        load_tensors(path)


def test_archives_that_unpack_to_much_more(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(_zipped(DICT + b"0" * (4 << 20), zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match=r"archive/data\.pkl is compressed"):
        Checkpoint(tmp_path)
    content = _zipped(DICT)
    at = content.index(b"PK\x01\x02") + 20  # the sizes in the directory
    path.write_bytes(content[:at] + struct.pack("<II", *[WEIGHTS_PICKLE.limit + 1] * 2) + content[at + 8 :])
    with pytest.raises(CheckpointError, match=r"the most that is read is 67108864|not a torch file"):
        Checkpoint(tmp_path)


# ---------------------------------------------------------------------------------------------------- GGUF
def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _array(kind: int, count: int, content: bytes) -> bytes:
    return struct.pack("<IIQ", 9, kind, count) + content


def _header(*values: bytes, tensors: int = 0) -> bytes:
    fields = [_text(b"general.architecture") + struct.pack("<I", 8) + _text(b"llama")]
    fields += [_text(b"x%d" % number) + value for number, value in enumerate(values)]
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(fields)) + b"".join(fields)


HEADERS = {
    "bytes": (_header(*[_array(0, 1 << 18, bytes(1 << 18))] * 2), "arrays have 524288 elements, too many for a header"),
    "many": (
        _header(*[_array(6, 1 << 20, bytes(4 << 20))] * 3),
        "array of 1048576 elements, all arrays may have 20971",
    ),
    "arrays of arrays": (_header(_array(9, 9, bytes(12 * 9))), "an array of the type 9, expected numbers or texts"),
    "a long text": (_header(struct.pack("<I", 8) + _text(bytes(2 << 20))), "a text of 2097152 bytes, the longest"),
    "a long token": (_header(_array(8, 1, _text(bytes(5000)))), "a text of 5000 bytes, the longest that is read"),
    "fields": (_header(*[struct.pack("<IB", 0, 0)] * 5000), "5001 fields, at most 4096 are read"),
    "tensors": (_header(tensors=1 << 18) + bytes(24 << 18), "262144 tensors, at most 131072 are read"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_gguf_headers_with_too_much(case: str, tmp_path: Path) -> None:
    content, message = HEADERS[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        architecture_of(path)


@pytest.mark.slow
def test_a_gguf_header_takes_memory_for_what_it_holds(tmp_path: Path) -> None:
    """A vocabulary of 100,000: gguf's own reader takes 700 bytes an element."""
    tokens, count = b"".join(_text(b"%d" % number) for number in range(100_000)), 100_000
    path = tmp_path / "model.gguf"
    path.write_bytes(
        _header(_array(8, count, tokens), _array(6, count, bytes(4 * count)), _array(5, count, bytes(4 * count)))
    )
    tracemalloc.start()
    reader = open_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 4 * count  # four parts for the three of each: a text has its length
    assert reader.fields["x0"].contents(-1) == "99999"


def test_tensors_that_share_the_bytes_of_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tensors = b"".join(_text(b"t%d" % number) + struct.pack("<IQIQ", 1, 512, 0, 0) for number in range(9))
    content = _header(tensors=9) + tensors
    path.write_bytes(content + bytes(-len(content) % 32) + bytes(2048))
    with pytest.raises(CheckpointError, match=r"tensors of 18432 bytes, the file has \d{4}$"):
        open_gguf(path)


def test_the_reader_gives_what_that_of_gguf_gives(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("texts", ["x", "yy", "é", ""])
    for number, values in enumerate(([1, -2, 3], [1.5, 2.5], [True, False], [-(1 << 20)])):
        writer.add_array(f"array.{number}", values)
    writer.add_bool("flag", True)
    writer.add_string("text", "hi")
    writer.add_float64("double", 1.25)
    writer.add_uint64("long", 1 << 60)
    writer.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    own, theirs = open_gguf(path), gguf.GGUFReader(path)
    assert list(own.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        found = own.fields[name]
        assert (found.contents(), found.types, found.data) == (field.contents(), field.types, field.data), name
        assert [(part.dtype, part.tolist()) for part in found.parts] == [(p.dtype, p.tolist()) for p in field.parts]
    np.testing.assert_array_equal(own.tensors[0].data, theirs.tensors[0].data)


def test_transformers_takes_the_reader_only_while_it_is_told_to() -> None:
    before = gguf.GGUFReader
    with thrifty_transformers():
        assert gguf.GGUFReader is not before
    assert gguf.GGUFReader is before
