"""Pickles in torch's format: what does other than make tensors of the file's elements is refused before torch reads."""

from __future__ import annotations

import io
import pickletools
import random
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from pickle import dumps
from typing import Any

import pytest
import torch

from hyperdex_ir.checkpoint.torch_weights import _pickles, load_tensors
from hyperdex_ir.errors import CheckpointError

MANY = 100_000_000
ORDERED = b"ccollections\nOrderedDict\n)R"
OLD = pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])


# ---------------------------------------------------------------------------------------------------- writing pickles
def name(of: str) -> bytes:
    module, _, word = of.rpartition(".")
    return f"c{module}\n{word}\n".encode()


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(of: str, *arguments: bytes) -> bytes:
    return name(of) + tuple_of(*arguments) + b"R"


class Writer:
    """Pickles of one kind of file, whose storages have one more item in the old kind."""

    def __init__(self, old: bool):
        self.old = old

    def storage(self, count: int = 1, kind: str = "torch.ByteStorage", key: bytes = text("0")) -> bytes:
        items = (text("storage"), name(kind), key, text("cpu"), integer(count))
        return tuple_of(*items, *([b"N"] if self.old else [])) + b"Q"

    def tensor(
        self, sizes: bytes, strides: bytes, storage: bytes = b"", offset: int = 0, hooks: bytes = ORDERED
    ) -> bytes:
        held = storage or self.storage()
        return call("torch._utils._rebuild_tensor_v2", held, integer(offset), sizes, strides, b"\x89", hooks)

    def expanded(self, *sizes: int) -> bytes:
        """One byte that is shown many times."""
        return self.tensor(tuple_of(*map(integer, sizes)), tuple_of(*[integer(0)] * len(sizes)))

    def write(self, path: Path, value: bytes) -> None:
        """A file whose tensor `w` is the value."""
        pickle = b"\x80\x02}" + text("w") + value + b"s."
        if not self.old:
            with zipfile.ZipFile(path, "w") as archive:
                records = {"data.pkl": pickle, "byteorder": b"little", "version": b"3\n", "data/0": b"\0"}
                for record, content in records.items():
                    archive.writestr(f"archive/{record}", content)
            return
        parts = [dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(parts) + pickle + dumps(["0"], 2) + struct.pack("<Q", 1) + b"\0")


def refusal(path: Path) -> str:
    """The error of a file, which has one line, and for which there was no memory for much."""
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            load_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------------- memory
def _hex(of: Writer) -> bytes:
    value = call("_codecs.encode", text("a" * 64), text("ascii"))
    for _ in range(30):
        value = call("_codecs.encode", value, text("hex"))
    return value


def _double(value: bytes, times: int = 60) -> bytes:
    """A tuple of the same thing twice, of which each is that again."""
    return value + b"q\x00" + b"".join(b"h\x00\x86q\x00" for _ in range(times))


def _deep_key(of: Writer) -> bytes:
    return b"}" + _double(b"K\x01") + b"K\x02s"


def _dimensions(of: Writer) -> bytes:
    """A thousand tensors that each have the same ten thousand sizes."""
    sizes = tuple_of(b"K\x01" * 10_000) + b"q\x00"
    one = of.tensor(b"h\x00", b"h\x00", hooks=b"N")
    return b"](" + sizes + one * 200 + b"e"


def _states(of: Writer) -> bytes:
    entries = b"".join(text(f"a{number}") + b"N" for number in range(1000))
    return b"](}q\x00(" + entries + b"u" + (ORDERED + b"h\x00b") * 200 + b"e"


def _metadata(of: Writer) -> bytes:
    entries = b"".join(text(f"a{number}") + b"\x88" for number in range(100))
    metadata = b"}(" + entries + b"u"
    sizes = tuple_of(integer(1))
    return call("torch._utils._rebuild_tensor_v2", of.storage(), b"K\x00", sizes, sizes, b"\x89", ORDERED, metadata)


NEEDS = "which no checkpoint of tensors needs"
#: Pickles that take memory or time for nothing that is in the file, or make torch show a text without end.
CASES: dict[str, tuple[Any, str]] = {
    "a tensor of another type": (
        lambda of: call(
            "torch._utils._rebuild_device_tensor_from_cpu_tensor",
            *(of.expanded(MANY), name("torch.float64"), text("cpu"), b"\x89"),
        ),
        f"holds torch._utils._rebuild_device_tensor_from_cpu_tensor, {NEEDS}",
    ),
    "hex of hex": (_hex, f"holds _codecs.encode, {NEEDS}"),
    "a set of a tensor": (lambda of: call("builtins.set", of.expanded(MANY)), f"holds builtins.set, {NEEDS}"),
    "a size of a tensor": (lambda of: call("torch.Size", of.expanded(MANY)), f"holds torch.Size, {NEEDS}"),
    "a count of a tensor": (
        lambda of: call("collections.Counter", of.expanded(MANY)), f"holds collections.Counter, {NEEDS}",
    ),
    "a dict of a tensor": (
        lambda of: call("collections.OrderedDict", of.expanded(MANY, 2)),
        "calls collections.OrderedDict as no checkpoint of tensors does",
    ),
    "a dict that is new": (
        lambda of: name("collections.OrderedDict") + tuple_of(of.expanded(MANY, 2)) + b"\x81",
        "is not made of tensors only (NEWOBJ in a pickle)",
    ),
    "attributes of a tensor": (
        lambda of: ORDERED + of.expanded(MANY, 2) + b"b", "is not made of tensors only (a value gets a state",
    ),
    "a state of a tensor": (
        lambda of: of.expanded(1) + tuple_of(of.storage(), b"K\x00", integer(1 << 30) + b"\x85", b"K\x01\x85") + b"b",
        "is not made of tensors only (a value gets a state",
    ),
    "a storage that is called": (
        lambda of: call("torch.storage.UntypedStorage", integer(1 << 34)),
        "calls torch.storage.UntypedStorage as no checkpoint of tensors does",
    ),
    "a storage that is new": (
        lambda of: name("torch.storage.UntypedStorage") + tuple_of(integer(1 << 34)) + b"\x81",
        "is not made of tensors only (NEWOBJ in a pickle)",
    ),
    "a tensor behind its storage": (
        lambda of: of.tensor(tuple_of(integer(1 << 34)), b"K\x01\x85"),
        "a tensor of [17179869184] with strides [1] from element 0, of 1 in the file",
    ),
    "an offset behind the storage": (
        lambda of: of.tensor(b")", b")", offset=1 << 34),
        "a tensor of [] with strides [] from element 17179869184, of 1 in the file",
    ),
    "a long storage": (lambda of: of.tensor(b")", b")", of.storage(1 << 34)), "tensors of 17179869184 bytes, the file"),
    "a storage of two lengths": (
        lambda of: b"](" + of.tensor(b")", b")") + of.tensor(b"K\x02\x85", b"K\x01\x85", of.storage(2)) + b"e",
        "the storage 0 has 1 bytes and 2 bytes",
    ),
    "more numbers than a number": (
        lambda of: of.expanded(1 << 62, 1 << 62), "a tensor of [4611686018427387904, 4611686018427387904] with",
    ),
    "a negative size": (lambda of: of.expanded(-1), "calls torch._utils._rebuild_tensor_v2 as no checkpoint of"),
    "many dimensions": (_dimensions, "calls torch._utils._rebuild_tensor_v2 as no checkpoint of tensors does"),
    "many states": (_states, "is not made of tensors only (a value gets a state"),
    "much metadata": (_metadata, "calls torch._utils._rebuild_tensor_v2 as no checkpoint of tensors does"),
    "a key that has no end": (_deep_key, "(tuple) is the name of a tensor, expected text"),
    "the name of a storage that has no end": (
        lambda of: of.tensor(b")", b")", of.storage(key=_double(b"]"))), "(a storage is named in another way)",
    ),
    "a function that has no end": (
        lambda of: _double(b"]") + b")R", "calls something as no checkpoint of tensors does",
    ),
    "deep": (lambda of: b"(" * 1000, "pickles nested deeper than 64"),
    "empty sets": (lambda of: b"\x8f" * 1000, "is not made of tensors only (EMPTY_SET in a pickle)"),
}  # fmt: skip


@OLD
@pytest.mark.parametrize("case", CASES)
def test_a_pickle_takes_no_memory(case: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *arguments, **named: pytest.fail("torch reads it"))
    make, message = CASES[case]
    path = tmp_path / "pytorch_model.bin"
    Writer(old).write(path, make(Writer(old)))
    assert message in refusal(path)


@pytest.mark.parametrize(("place", "message"), [(0, "its two numbers"), (1, "its two numbers"), (4, "list of texts")])
def test_what_torch_would_show_of_an_old_file(
    place: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *arguments, **named: pytest.fail("torch reads it"))
    parts = [dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [])]
    parts[place] = b"\x80\x02](" + _double(b"]") + b"e."
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"".join(parts))
    assert message in refusal(path)


@OLD
def test_the_writer_writes_what_is_read(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    Writer(old).write(path, Writer(old).tensor(b"K\x01\x85", b"K\x01\x85"))
    (found,) = load_tensors(path).values()
    assert found.tolist() == [0]


# ---------------------------------------------------------------------------------------------------- what is read
def _normalized() -> dict[str, torch.Tensor]:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()


TENSORS: dict[str, Any] = {
    "a state of modules": _normalized,
    "parameters": lambda: torch.nn.Linear(3, 4).state_dict(keep_vars=True),
    "in order": lambda: OrderedDict(a=torch.ones(3), b=torch.zeros(2)),
    "none": dict,
    "an empty one": lambda: {"a": torch.ones(0, 4), "b": torch.ones(3)[:0]},
    "a number": lambda: {"a": torch.tensor(5.0), "b": torch.ones(3)[2]},
    "parts": lambda: (lambda one: {"a": one, "b": one[2:], "c": one.T, "d": one[:, 1]})(torch.rand(4, 4)),
    "two types of one storage": lambda: (lambda one: {"a": one, "b": one[:2].view(torch.uint32)})(
        torch.arange(4).to(torch.uint16)
    ),
}
NUMBERS = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]
#: Tensors that torch itself does not read from a file of the old kind.
NEW = {"uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "two types of one storage"}
NUMBERS += ["uint64", "bool", "complex64", "float8_e4m3fn", "float8_e5m2"]
TENSORS |= {one: lambda one=one: {"a": torch.ones(2, 3).to(getattr(torch, one))} for one in NUMBERS}


READ = [(case, old) for case in TENSORS for old in (False, True) if not old or case not in NEW]


@pytest.mark.parametrize(("case", "old"), READ)
def test_files_of_tensors_are_read(case: str, old: bool, tmp_path: Path) -> None:
    path, expected = tmp_path / "pytorch_model.bin", TENSORS[case]()
    torch.save(expected, path, _use_new_zipfile_serialization=not old)
    found = load_tensors(path)
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
        assert found[key].contiguous().view(-1).tolist() == tensor.contiguous().view(-1).tolist()


# ---------------------------------------------------------------------------------------------------- edits
def operations(pickle: bytes) -> list[bytes]:
    """A pickle's operations with their arguments."""
    places = [at for _, _, at in pickletools.genops(pickle)] + [len(pickle)]
    return [pickle[start:stop] for start, stop in pairwise(places)]


def edited(pickle: bytes, chance: random.Random) -> bytes:
    """A pickle with some operations left out, put elsewhere, twice there, or replaced."""
    found = operations(pickle)
    others = [name(one) for one in ("torch.Size", "builtins.set", "torch.storage.UntypedStorage", "torch.float64")]
    others += [b"(", b"t", b")", b"R", b"\x81", b"b", b"Q", b"}", b"]", b"s", b"u", b"e", b"\x86", integer(1 << 33)]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(1, len(found))
        put = [[], [chance.choice(found)], [chance.choice(others)], [found[at], chance.choice(others)], [found[at]] * 2]
        found[at : at + 1] = chance.choice(put)
    return b"".join(found)


@OLD
def test_edited_operations_are_read_or_refused(old: bool, tmp_path: Path) -> None:
    one = torch.arange(12.0).reshape(3, 4)
    value = OrderedDict(a=one, b=torch.nn.Parameter(one[1:]), c=one.to(torch.bfloat16 if old else torch.float8_e4m3fn))
    path = tmp_path / "pytorch_model.bin"
    torch.save(value, path, _use_new_zipfile_serialization=not old)
    content, whole = path.read_bytes(), _pickles(path, not old)
    if old:
        source = io.BytesIO(whole)
        for _ in range(3):
            list(pickletools.genops(source))
        start = source.tell()
        list(pickletools.genops(source))
        whole = whole[start : source.tell()]
    chance, read = random.Random(5), 0
    for _ in range(300):
        pickle = edited(whole, chance)
        if old:
            path.write_bytes(content.replace(whole, pickle))
        else:
            with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(path, "w") as target:
                for record in archive.namelist():
                    target.writestr(record, pickle if record.endswith("data.pkl") else archive.read(record))
        try:
            tensors, refused = load_tensors(path), ""
        except CheckpointError as error:
            tensors, refused = {}, str(error)
        read += not refused
        assert "\n" not in refused
        assert sum(one.untyped_storage().nbytes() for one in tensors.values()) < 3 * len(content)
    assert read > 5
