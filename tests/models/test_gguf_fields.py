"""GGUF files whose fields have values of other types, twice, or not at all: a compile, or one error line."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import gguf
import pytest
from gguf import GGUFValueType as Type
from support import SOAK
from support.models.gguf_models import write_gguf

from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

#: Of the files; a soak tries those of several families.
ARCHITECTURES = ("llama", "gemma3", "lfm2", "phi3", "qwen3moe") if SOAK else ("llama",)
_DATA_ALIGNMENT = 32


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _array(kind: Type, count: int, values: bytes) -> bytes:
    return struct.pack("<IIQ", Type.ARRAY, kind, count) + values


#: Type and value of a field, as the file has them.
VALUES: dict[str, bytes] = {
    "bool": struct.pack("<I?", Type.BOOL, True),
    "0": struct.pack("<IB", Type.UINT8, 0),
    "-1": struct.pack("<Ii", Type.INT32, -1),
    "largest u32": struct.pack("<II", Type.UINT32, 2**32 - 1),
    "largest u64": struct.pack("<IQ", Type.UINT64, 2**64 - 1),
    "least i64": struct.pack("<Iq", Type.INT64, -(2**63)),
    "NaN": struct.pack("<If", Type.FLOAT32, float("nan")),
    "infinity": struct.pack("<Id", Type.FLOAT64, float("inf")),
    "fraction": struct.pack("<If", Type.FLOAT32, 1.5),
    "text": struct.pack("<I", Type.STRING) + _text(b"x"),
    "empty text": struct.pack("<I", Type.STRING) + _text(b""),
    "long text": struct.pack("<I", Type.STRING) + _text(b"y" * 300_000),
    "not UTF-8": struct.pack("<I", Type.STRING) + _text(b"\xff\xfe"),
    "control characters": struct.pack("<I", Type.STRING) + _text(b"a\x1b[2J\nerror: b"),
    "empty array": _array(Type.UINT32, 0, b""),
    "u32 array": _array(Type.UINT32, 2, struct.pack("<II", 7, 0)),
    "i32 array": _array(Type.INT32, 2, struct.pack("<ii", -5, 7)),
    "f32 array": _array(Type.FLOAT32, 2, struct.pack("<ff", float("nan"), 1e30)),
    "bool array": _array(Type.BOOL, 2, b"\1\0"),
    "text array": _array(Type.STRING, 2, _text(b"a") + _text(b"b")),
    "array of arrays": _array(Type.ARRAY, 1, struct.pack("<IQI", Type.UINT32, 1, 7)),
    "array of surrogates": _array(Type.STRING, 1, _text("\ud800".encode("utf-8", "surrogatepass"))),
}
CHANGES = (*VALUES, "absent", "twice")


class Parts:
    """A GGUF file in parts, found by the format's own library. fields: name -> key and value, as bytes."""

    def __init__(self, path: Path):
        data, reader = path.read_bytes(), gguf.GGUFReader(path)
        spans = {
            name: (field.offset, field.offset + sum(part.nbytes for part in field.parts))
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        self.fields = {name: data[start:end] for name, (start, end) in spans.items()}
        last = reader.tensors[-1].field
        infos = last.offset + sum(part.nbytes for part in last.parts)
        self._tensors = data[max(end for _, end in spans.values()) : infos]
        self._head, self._data = data[:16], data[reader.data_offset :]

    def changed(self, name: str, change: str) -> bytes:
        """The file with another value of a field: one of CHANGES."""
        fields = dict(self.fields)
        key = struct.pack("<Q", len(name)) + name.encode()
        if change in VALUES:
            fields[name] = key + VALUES[change]
        elif change == "absent":
            del fields[name]
        again = [self.fields[name]] if change == "twice" else []
        entries = [*fields.values(), *again]
        head = self._head + struct.pack("<Q", len(entries)) + b"".join(entries) + self._tensors
        return head + bytes(-len(head) % _DATA_ALIGNMENT) + self._data


def _refusal(path: Path, output: Path) -> str:
    """The error line of a compile; empty when it succeeds."""
    try:
        AutoCompiler().compile(str(path), output_dir=str(output), max_length=8)
    except HyperdexError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_field_with_another_value(architecture: str, tmp_path: Path) -> None:
    good, path = tmp_path / "good.gguf", tmp_path / "m" / "m.gguf"
    write_gguf(good, architecture, gguf.GGMLQuantizationType.F32)
    parts = Parts(good)
    assert parts.changed("general.architecture", "twice") != good.read_bytes()
    refusals: dict[str, str] = {}
    for number, name in enumerate(parts.fields):
        for change in CHANGES if SOAK else CHANGES[number % 10 :: 10]:
            shutil.rmtree(path.parent, ignore_errors=True)
            path.parent.mkdir()
            path.write_bytes(parts.changed(name, change))
            refusals[f"{name}: {change}"] = _refusal(path, path.parent / "out")
    assert all(line.isprintable() and len(line) < 8000 for line in refusals.values()), refusals
    assert 0 < list(refusals.values()).count("") < len(refusals) / 2
