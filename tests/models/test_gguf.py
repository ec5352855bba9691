"""GGUF files: what comes out, against transformers' own reading of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.models.gguf_models import MODELS, make_model, write_gguf
from support.models.resident import mapped_bytes, needs_proc
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from hyperdex_ir.backend.ram_ceiling import Ceiling
from hyperdex_ir.checkpoint import gguf as gguf_checkpoint
from hyperdex_ir.checkpoint.gguf import write_small_files, write_weights
from hyperdex_ir.checkpoint.gguf_header import ARCHITECTURES, architecture_of, check_architecture
from hyperdex_ir.errors import CheckpointError, ConfigError, MemoryCeilingError, UnsupportedModelError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.folder_access import NewFile
from hyperdex_ir.support.locations import GGUF_MARKER, find_folder
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(0).integers(0, 256, 20).tolist()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen2moe"])
def test_equals_transformers(tmp_path: Path, arch: str, kind: str) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, arch, gguf.GGMLQuantizationType[kind])
    folder = find_folder(path)
    assert folder.root == tmp_path / "tiny"
    if kind == "F32":
        AutoCompiler().compile(str(path), max_length=24)
    else:
        write_small_files(path, folder.ckpt)
        write_weights(path, folder.ckpt)
    config = AutoConfig.from_pretrained(folder.ckpt)
    theirs = AutoConfig.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ignored = {"architectures", "_name_or_path", "transformers_version"}
    assert {key: value for key, value in config.to_dict().items() if key not in ignored} == {
        key: value for key, value in theirs.to_dict().items() if key not in ignored
    }
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(theirs)
    expected = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
    ours = load_file(folder.ckpt / "model.safetensors")
    assert ours.keys() == expected.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.float(), expected[name].float()), name
    if kind != "F32":
        return
    tokenizer = AutoTokenizer.from_pretrained(folder.ckpt)
    assert tokenizer("Hi, there")["input_ids"] == list(b"Hi, there")
    model = make_model(arch)
    with torch.no_grad():
        exact = model(torch.tensor([TOKENS])).logits[0].numpy()
    logits = CompiledModel.open(folder.root).logits(TOKENS)
    assert np.abs(logits - exact).max() < 0.02 * exact.std()


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_the_model_of_every_architecture(tmp_path: Path, arch: str) -> None:
    """What transformers computes of the checkpoint is what the model computes that the file was made from."""
    path, folder = tmp_path / "tiny.gguf", tmp_path / "made"
    write_gguf(path, arch, gguf.GGMLQuantizationType.F32)
    assert architecture_of(path) == arch
    write_small_files(path, folder)
    write_weights(path, folder)
    assert read_config(folder).model_type == ARCHITECTURES[arch] == MODELS[arch][0]
    with torch.no_grad():
        model, made = make_model(arch), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        expected, found = (one(torch.tensor([TOKENS])).logits[0] for one in (model, made))
    assert (found - expected).abs().max() < 1e-5 * expected.std()
    stored = load_file(folder / "model.safetensors")
    left_out = {
        name for name, tensor in model.state_dict().items() if name not in stored and tensor.is_floating_point()
    }
    assert left_out == ({"lm_head.weight"} if model.config.tie_word_embeddings else set())


@pytest.mark.parametrize("value", ["abc", [1, 2], -1])
def test_a_window_that_is_no_number(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(writer: gguf.GGUFWriter, window: int) -> None:
        kind = {str: writer.add_string, list: writer.add_array, int: writer.add_int32}[type(value)]
        kind("phi3.attention.sliding_window", value)

    monkeypatch.setattr(gguf.GGUFWriter, "add_sliding_window", add)
    write_gguf(tmp_path / "tiny.gguf", "phi3", gguf.GGMLQuantizationType.F16)
    with pytest.raises(
        CheckpointError, match=r"tiny\.gguf: phi3\.attention\.sliding_window is .*, expected a positive"
    ):
        write_small_files(tmp_path / "tiny.gguf", tmp_path / "made")


def test_tensors_without_a_place(tmp_path: Path) -> None:
    extra = {"blk.0.attn_sinks": np.ones(6, np.float32)}
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16, extra)
    with pytest.raises(UnsupportedModelError, match=r"attn_sinks\.weight has no place in LlamaForCausalLM"):
        AutoCompiler().compile(str(tmp_path / "tiny.gguf"))


def test_a_directory_with_one_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
    files = AutoCompiler().compile(str(tmp_path), max_length=24)
    assert files.root == tmp_path
    before = CompiledModel.open(tmp_path).logits(TOKENS)
    first = (tmp_path / "ckpt/model.safetensors").stat().st_mtime_ns
    AutoCompiler().compile(str(tmp_path), max_length=24)
    assert (tmp_path / "ckpt/model.safetensors").stat().st_mtime_ns == first
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.Q4_0)
    AutoCompiler().compile(str(tmp_path), max_length=24)
    assert CompiledModel.open(tmp_path).logits(TOKENS).tobytes() != before.tobytes()
    (tmp_path / "other.gguf").touch()
    with pytest.raises(ConfigError, match=r"holds 2 GGUF files and no config.json: other.gguf, tiny.gguf"):
        find_folder(tmp_path)


def test_a_checkpoint_beside_the_file_is_left_alone(tmp_path: Path) -> None:
    """And what was made of the file is known again."""
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
    ckpt = tmp_path / "ckpt"
    ckpt.mkdir()
    own = {"config.json": b"{}", "model.safetensors": b"the only weights", "hyperdex_gguf.json": b'{"made": {}}'}
    for name, content in own.items():
        (ckpt / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ckpt: holds config\.json, model\.safetensors, which was not made from"):
        AutoCompiler().compile(str(tmp_path), max_length=24)
    assert {path.name: path.read_bytes() for path in ckpt.iterdir()} == own
    for name in own:
        (ckpt / name).unlink()
    write_small_files(tmp_path / "tiny.gguf", ckpt)
    write_weights(tmp_path / "tiny.gguf", ckpt)
    made = {path.name: path.read_bytes() for path in ckpt.iterdir()}
    assert set(gguf_checkpoint.made_files(ckpt, ckpt)) == made.keys()


@pytest.mark.parametrize("is_done", [True, False])
def test_a_making_that_was_killed_at_a_rename_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    """Each file is recorded before it has its name: what is there is known again, wherever the process ended."""
    path, ckpt = tmp_path / "tiny.gguf", tmp_path / "ckpt"
    write_gguf(path, "llama", gguf.GGMLQuantizationType.F16)
    rename, moments = NewFile.rename, count()

    def killed_at(moment: int) -> Callable[[NewFile], None]:
        calls = count()

        def renamed(file: NewFile) -> None:
            if (call := next(calls)) == moment and not is_done:
                raise KeyboardInterrupt
            rename(file)
            if call == moment:
                raise KeyboardInterrupt

        return renamed

    def make() -> dict[str, bytes]:
        write_small_files(path, ckpt)
        write_weights(path, ckpt)
        return {one.name: one.read_bytes() for one in ckpt.iterdir() if one.name != GGUF_MARKER}

    expected = make()
    for moment in moments:
        shutil.rmtree(ckpt)
        with monkeypatch.context() as patch:
            patch.setattr(NewFile, "rename", killed_at(moment))
            patch.setattr(NewFile, "discard", lambda file: None)
            try:
                make()
                break
            except KeyboardInterrupt:
                pass
        left = {one.name for one in ckpt.iterdir() if not one.name.endswith(".part")}
        assert left <= {*gguf_checkpoint.made_files(ckpt, ckpt), GGUF_MARKER}
        assert {name: content for name, content in make().items() if not name.endswith(".part")} == expected
    assert next(moments) > 12


@pytest.mark.parametrize("is_readable", [True, False])
@pytest.mark.parametrize("names", [["model.safetensors"], ["config.json"], ["config.json", "model.safetensors"]])
def test_a_forged_marker_has_no_file_removed(tmp_path: Path, names: list[str], is_readable: bool) -> None:
    """It says that the making of files began that the user has moved there."""
    path, ckpt = tmp_path / "tiny.gguf", tmp_path / "tiny/ckpt"
    write_gguf(path, "llama", gguf.GGMLQuantizationType.F16)
    if not is_readable:
        path.write_bytes(path.read_bytes()[:200])
    ckpt.mkdir(parents=True)
    (ckpt / GGUF_MARKER).write_text(json.dumps({"begun": ["config.json", "model.safetensors"], "made": {}}))
    for name in names:
        (ckpt / name).write_text("mine")
    before = {one.name: one.read_bytes() for one in ckpt.iterdir()}
    words = (
        f"holds {', '.join(names)}, which was not made from tiny.gguf" if is_readable else "not a readable GGUF file"
    )
    with pytest.raises(CheckpointError, match=re.escape(words)):
        AutoCompiler().compile(str(path), max_length=24)
    assert {one.name: one.read_bytes() for one in ckpt.iterdir()} == before


@pytest.mark.parametrize("what", ["header", "config", "tokenizer"])
def test_a_file_that_cannot_be_read_has_nothing_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path, ckpt = tmp_path / "tiny.gguf", tmp_path / "ckpt"
    write_gguf(path, "llama", gguf.GGMLQuantizationType.F16)
    write_small_files(path, ckpt)
    write_weights(path, ckpt)
    before = {one.name: one.read_bytes() for one in ckpt.iterdir()}
    os.utime(path, (1, 1))
    if what == "header":
        path.write_bytes(path.read_bytes()[:200])
    else:
        called = "config_from_gguf" if what == "config" else "copy_tokenizer"
        monkeypatch.setattr(f"hyperdex_ir.checkpoint.pretrained.{called}", lambda *_: 1 / 0)
    with pytest.raises((CheckpointError, UnsupportedModelError)):
        write_small_files(path, ckpt)
    assert {one.name: one.read_bytes() for one in ckpt.iterdir()} == before


def test_a_forged_marker_lends_no_name_to_a_config(tmp_path: Path) -> None:
    """A stranger's folder may say of which file it was made: size and time of a file are known before."""
    path, ckpt = tmp_path / "tiny.gguf", tmp_path / "ckpt"
    write_gguf(path, "llama", gguf.GGMLQuantizationType.F16)
    write_small_files(path, ckpt)
    write_small_files(path, ckpt)
    (ckpt / "config.json").rename(ckpt / "other")
    (ckpt / "config.json").write_text("{}")
    forged = json.loads((ckpt / GGUF_MARKER).read_text())
    for made in (forged["made"], {}, None):
        (ckpt / GGUF_MARKER).write_text(json.dumps(forged | {"made": made}))
        with pytest.raises(CheckpointError, match=r"holds config\.json.*, which was not made from tiny\.gguf"):
            write_small_files(path, ckpt)
    assert (ckpt / "config.json").read_text() == "{}"


def test_the_tokenizer_is_not_written_behind_a_link(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "mine").write_text("mine")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "ckpt" / name).symlink_to(tmp_path / "mine")
    write_small_files(tmp_path / "tiny.gguf", tmp_path / "ckpt")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "ckpt/tokenizer.json").is_symlink()


def test_only_weights_that_were_made_are_deleted(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
    weights = tmp_path / "ckpt/model.safetensors"
    AutoCompiler().compile(str(tmp_path), max_length=24)
    weights.write_bytes(weights.read_bytes())  # another file of the same name, as the user puts it there
    weights.rename(tmp_path / "own")
    (tmp_path / "own").rename(weights)
    AutoCompiler().compile(str(tmp_path), max_length=24, low_memory_usage=True)
    assert weights.is_file()
    weights.unlink()
    AutoCompiler().compile(str(tmp_path), max_length=24, force=True)
    AutoCompiler().compile(str(tmp_path), max_length=24, low_memory_usage=True)
    assert not weights.exists()


@needs_proc
def test_a_file_takes_memory_for_some_tensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, inner = tmp_path / "tiny.gguf", 16384
    write_gguf(path, "llama", gguf.GGMLQuantizationType.F32, intermediate_size=inner)
    write_small_files(path, tmp_path)
    write_weights(path, tmp_path)
    before, grown, stored = mapped_bytes(), [], gguf_checkpoint._stored

    def watched(values: np.ndarray, kind: str) -> np.ndarray:
        grown.append(mapped_bytes() - before)
        return stored(values, kind)

    monkeypatch.setattr(gguf_checkpoint, "_stored", watched)
    write_weights(path, tmp_path)
    largest = inner * 96 * 4
    assert path.stat().st_size > 6 * largest
    assert len(grown) == 21
    assert max(grown) < 2 * largest


def test_memory_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", "llama", gguf.GGMLQuantizationType.Q8_0)
    write_small_files(tmp_path / "tiny.gguf", tmp_path)
    ceiling, asked = Ceiling(1 << 20), []
    write_weights(tmp_path / "tiny.gguf", tmp_path, room=lambda count, what: asked.append((count, what)))
    assert asked == [(3 * 259 * 96 * 4, "3 copies of lm_head.weight, [259, 96], in float32")]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MemoryCeilingError, match=r"max_ram is 1 MiB, .* \(3 copies of lm_head.weight, \[259, 96\]"):
        write_weights(tmp_path / "tiny.gguf", tmp_path, room=ceiling.check_room)
    assert not (tmp_path / "model.safetensors").exists()


def _header(path: Path, arch: str) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_architectures_are_decided_without_torch_and_transformers(tmp_path: Path) -> None:
    names = ("rwkv6", "gpt-oss", "mamba", "command-r", "gemma", "qwen3next")
    files = [str(_header(tmp_path / f"{name}.gguf", name)) for name in (*names, "llama")]
    script = """
import sys
from pathlib import Path
from hyperdex_ir.errors import UnsupportedModelError
from hyperdex_ir.checkpoint.gguf_header import check_architecture
for path in sys.argv[1:]:
    try:
        check_architecture(Path(path))
    except UnsupportedModelError as error:
        print(error)
print([name for name in ("torch", "transformers", "gguf", "numpy") if name in sys.modules])
"""
    command = [sys.executable, "-c", script, *files]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.partition("architecture ")[2] for line in lines[:-1]] == [
        "'rwkv6' of a GGUF file: transformers reads no such file",
        "'gpt-oss' of a GGUF file: transformers does not find its experts in such a file",
        "'mamba' of a GGUF file: it is no attention model",
        "'command-r' of a GGUF file: transformers reads no such file",
        "'gemma' of a GGUF file: transformers reads no such file; near: gemma3",
        "'qwen3next' of a GGUF file: transformers reads no such file; near: qwen3",
    ]
    assert lines[-1] == "[]"


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="rwkv6"):
        AutoCompiler().compile(str(_header(tmp_path / "other.gguf", "rwkv6")))
    assert not (tmp_path / "other").exists()


def _field(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def _file(*fields: bytes, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(fields)) + b"".join(fields)


NAME = _field(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")
HUGE = struct.pack("<Q", 1 << 62)


@pytest.mark.parametrize(
    "fields",
    [
        (_field(b"a", 4, bytes(4)), NAME),
        (_field(b"a", 12, bytes(8)), _field(b"b", 8, struct.pack("<Q", 2) + b"hi"), NAME),
        (_field(b"a", 9, struct.pack("<IQ", 6, 3) + bytes(12)), NAME),
        (_field(b"a", 9, struct.pack("<IQQ", 8, 1, 2) + b"hi"), NAME),
    ],
)
def test_the_architecture_is_found_behind_other_fields(tmp_path: Path, fields: tuple[bytes, ...]) -> None:
    (tmp_path / "a.gguf").write_bytes(_file(*fields))
    assert architecture_of(tmp_path / "a.gguf") == "llama"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_file(NAME, version=1), "version 1, expected b'GGUF' and 2 or 3"),
        (_file(), "the GGUF file has no field general.architecture"),
        (_file(_field(b"general.architecture", 4, bytes(4))), "the GGUF file has no field general.architecture"),
        (_file(NAME[:-1]), "field 0 ends at byte"),
        (_file(_field(b"a", 9, struct.pack("<I", 9) + HUGE)), "an array of 4611686018427387904 elements"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"broken\.gguf: .*{words}"):
        check_architecture(tmp_path / "broken.gguf")
