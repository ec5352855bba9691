"""--max-ram: the memory of a compile stays under it, or the compile ends with one line; no weight is read twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.models.tiny import tiny_config, tiny_llama_config, write_checkpoint
from transformers import GPT2Config

from hyperdex_ir.backend import ram_ceiling as memory
from hyperdex_ir.backend.images import ModelReader
from hyperdex_ir.backend.ram_ceiling import MIB, Ceiling, largest_row, parse_size, peak_bytes
from hyperdex_ir.checkpoint import files as source
from hyperdex_ir.errors import MemoryCeilingError, OptionError
from hyperdex_ir.memory.layout import FunctionLayout, ModelLayout, Parameter
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

MAIN = """
import sys
from hyperdex_ir.cli.main import main
from hyperdex_ir.backend.ram_ceiling import peak_bytes
sys.argv[0] = "hyperdex"
try:
    main()
finally:
    print(peak_bytes())
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of 16 MB: more than one block."""
    config = tiny_llama_config(hidden_size=256, vocab_size=16000, num_hidden_layers=1)
    return write_checkpoint(config, tmp_path_factory.mktemp("memory") / "model")


def compile_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, "compile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.bin"))}


def test_a_ceiling_holds(checkpoint: Path, tmp_path: Path, forget_instructions: Callable[[], None]) -> None:
    free = AutoCompiler().compile(str(checkpoint), output_dir=tmp_path / "free")
    forget_instructions()
    done = compile_process(str(checkpoint), "--output-dir", os.fspath(tmp_path / "held"), "--max-ram", "500MiB")
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.splitlines()[-1])
    assert peak <= 500 * MIB
    assert f"[ INFO ] : Peak memory: {-(-peak // MIB)} MiB of 500 MiB allowed\n" in done.stderr
    assert contents(tmp_path / "held") == contents(free.root)


def test_a_ceiling_that_cannot_hold_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    done = compile_process(str(checkpoint), "--output-dir", os.fspath(tmp_path / "none"), "--max-ram", "256MiB")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[ INFO ] : ")]
    assert lines[0].startswith("error[HDX0303]: max_ram is 256 MiB, the compile needs ")
    assert not list((tmp_path / "none").rglob("*.*in")) + list((tmp_path / "none").rglob("*.json"))
    assert int(done.stdout.splitlines()[-1]) < 256 * MIB


def test_growth_ends_in_a_clear_error(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What grows while the compile works is found after a block, and nothing is left half-written."""
    read: list[int] = []

    def grown() -> int:
        return 4096 * MIB if read else 100 * MIB

    def rows(self, start, stop, original=source.TensorEntry.rows):
        read.append(stop)
        return original(self, start, stop)

    monkeypatch.setattr(memory, "resident_bytes", grown)
    monkeypatch.setattr(source.TensorEntry, "rows", rows)
    with pytest.raises(MemoryCeilingError, match="max_ram is 1,024 MiB, the compile needs 4,096 MiB"):
        AutoCompiler().compile(str(checkpoint), output_dir=tmp_path, max_ram="1GiB")
    assert len(read) == 1
    assert contents(tmp_path) == {}
    assert not list(tmp_path.rglob(".*.part"))


def weight_bytes(folder: Path) -> int:
    return sum(values.nbytes for values in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_each_phase_reads_a_weight_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Also where blocks are much smaller than the matrices, and where those are stored the other way round."""
    config = tiny_llama_config() if kind == "llama" else tiny_config(GPT2Config, n_embd=64, n_layer=2, n_head=4)
    model = write_checkpoint(config, tmp_path / "model")
    counts = {"checkpoint": 0, "converted": 0}

    def load(entry, first, count, original=source._load):
        counts["checkpoint"] += count * entry.numpy_dtype.itemsize
        return original(entry, first, count)

    def columns(self, start, stop, original=source.TensorEntry.columns):
        counts["checkpoint"] += self.shape[0] * (stop - start) * self.numpy_dtype.itemsize
        return original(self, start, stop)

    def read(self, size, original=ModelReader.read):
        counts["converted"] += size
        return original(self, size)

    monkeypatch.setattr(Ceiling, "block_bytes", lambda self, layout: 1000)
    monkeypatch.setattr(source, "_load", load)
    monkeypatch.setattr(source.TensorEntry, "columns", columns)
    monkeypatch.setattr(ModelReader, "read", read)
    compiled = AutoCompiler().compile(str(model), output_dir=tmp_path / "out")
    assert counts["checkpoint"] == weight_bytes(model)
    assert compiled.model is not None
    assert counts["converted"] == compiled.model.stat().st_size - 16
    monkeypatch.undo()
    whole = AutoCompiler().compile(str(model), output_dir=tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(whole.root)


# ------------------------------------------------------------------------------------------------------------ numbers
@pytest.mark.parametrize(
    ("text", "size"),
    [("1536MiB", 1536 * MIB), ("2 GiB", 2048 * MIB), ("1.5gib", 1536 * MIB), ("1048576", MIB), (12345, 12345),
     ("64KiB", 65536), ("7B", 7)],
)  # fmt: skip
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["", "4G", "2GB", "-1MiB", "0", "1e9", "MiB", "9" * 400, 0, -5, True, 1.5])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(OptionError, match="must be a size such as 1536MiB"):
        parse_size(value)


def layout_of(*shape: int) -> ModelLayout:
    return ModelLayout("f16", 1, FunctionLayout("main", (Parameter("w", "f16", shape, ("w",)),), ()), (), ())


def test_blocks_fit_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 400 * MIB)
    sizes = [Ceiling(limit * MIB).block_bytes(layout_of(100, 64)) for limit in (430, 456, 4096)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2] == Ceiling().block_bytes(layout_of(100, 64))
    with pytest.raises(MemoryCeilingError, match="the compile needs 425 MiB"):
        Ceiling(424 * MIB).block_bytes(layout_of(100, 64))


def test_a_row_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of experts, one's matrix is a row."""
    monkeypatch.setattr(memory, "resident_bytes", lambda: 400 * MIB)
    experts = layout_of(8, 4096, 4096)
    assert largest_row(experts) == 4 * prod((4096, 4096))
    with pytest.raises(MemoryCeilingError, match="8 copies of rows of 67,108,864 bytes"):
        Ceiling(900 * MIB).block_bytes(experts)
    assert Ceiling(1000 * MIB).block_bytes(experts)


def test_the_peak_is_the_systems() -> None:
    before = peak_bytes()
    held = np.ones(64 * MIB, np.uint8)
    assert peak_bytes() >= memory.resident_bytes() >= held.nbytes
    assert peak_bytes() >= before
