"""A conversion reads each byte of the original weights once, and by what it read they are known again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.architectures import CASES, write_case
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from support.processes.interruptions import contents

from hyperdex_ir.backend.ram_ceiling import Ceiling
from hyperdex_ir.backend.sources import is_unchanged
from hyperdex_ir.backend.state import STATE_FILE, State
from hyperdex_ir.checkpoint.files import TensorEntry, read_header
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow
WEIGHTS = "model.safetensors"
UNUSED = "model.layers.0.self_attn.rotary_emb.inv_freq"
Places = dict[str, list[tuple[int, int]]]


@contextlib.contextmanager
def places_read() -> Iterator[Places]:
    """Which bytes of tensors are read, by the name of the safetensors file: where each reading starts and stops."""
    places: Places = {}
    plain_fromfile, plain_preadv = np.fromfile, os.preadv

    def fromfile(file: Any, dtype: Any, count: int, offset: int) -> np.ndarray:
        values = plain_fromfile(file, dtype, count, offset=offset)
        name = Path(os.readlink(f"/proc/self/fd/{file.fileno()}")).name
        places.setdefault(name, []).append((offset, offset + values.nbytes))
        return values

    def preadv(descriptor: int, buffers: Any, offset: int) -> int:
        count = plain_preadv(descriptor, buffers, offset)
        places.setdefault(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, []).append((offset, offset + count))
        return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "fromfile", fromfile)
        patch.setattr(os, "preadv", preadv)
        yield places


def without_gaps(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same as few ranges. Fails when a byte is in two."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(place for place in places if place[0] < place[1]):
        assert not joined or start >= joined[-1][1], f"bytes {start} to {joined[-1][1]} are read twice"
        joined[-1:] = [(joined[-1][0], stop)] if joined and joined[-1][1] == start else [*joined[-1:], (start, stop)]
    return joined


def tensor_bytes(path: Path) -> list[tuple[int, int]]:
    entries = read_header(path).values()
    return [(min(entry.start for entry in entries), path.stat().st_size)]


def compile_model(model: Path, **options: Any) -> None:
    AutoCompiler().compile(str(model), **options)


def phases_done(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Which of the phases wrote something, by the log lines since the last call."""
    log = capsys.readouterr().err
    words = {"2": "the converted checkpoint at", "3": "the optimized data at", "4": "the optimized instruction at"}
    return [number for number, text in words.items() if f"Save {text}" in log]


def _llama(folder: Path) -> None:
    write_checkpoint(tiny_llama_config(), folder)


def _sharded_llama(folder: Path) -> None:
    write_checkpoint(tiny_llama_config(), folder, "bfloat16", max_shard_size="60KB")


def _tied_stored_twice(folder: Path) -> None:
    write_checkpoint(tiny_opt_config(), folder)
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()
    save_file(tensors, folder / WEIGHTS)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled Llama with a tensor that is not used."""
    model = tmp_path_factory.mktemp("sources") / "model"
    _llama(model)
    save_file(load_file(model / WEIGHTS) | {UNUSED: torch.arange(1.0, 9.0)}, model / WEIGHTS)
    compile_model(model)
    return model


@pytest.fixture
def model(compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy, which has been looked at: its inodes are known."""
    copy = Path(shutil.copytree(compiled, tmp_path / "model"))
    compile_model(copy)
    capsys.readouterr()
    return copy


@pytest.mark.parametrize(
    ("write", "block_bytes"),
    [(_sharded_llama, 1 << 20), (_sharded_llama, 1000), (_tied_stored_twice, 1000), ("gpt2", 1000), ("phi3", 3000)],
)
def test_a_first_compile_reads_each_byte_once(
    write: Any, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ceiling, "block_bytes", lambda *_: block_bytes)
    model = tmp_path / "model"
    if isinstance(write, str):
        write_case(CASES[write], model, 0)
    else:
        write(model)
    with places_read() as places:
        compile_model(model)
    if write is _tied_stored_twice:  # both are compared before the trace
        compared, places[WEIGHTS] = places[WEIGHTS][:2], places[WEIGHTS][2:]
        assert [stop - start for start, stop in compared] == [tiny_opt_config().vocab_size * 64 * 2] * 2
    files = sorted(model.glob("*.safetensors"))
    assert {name: without_gaps(ranges) for name, ranges in places.items()} == {
        path.name: tensor_bytes(path) for path in files
    }
    for path in files:
        os.utime(path, (1, 1))
    known = State.load(model).inputs("2")
    with places_read() as places:
        assert is_unchanged(files[0].parent, known, files)
    assert {name: without_gaps(ranges) for name, ranges in places.items()} == {
        path.name: tensor_bytes(path) for path in files
    }


def test_the_hash_of_what_is_used_is_kept(model: Path) -> None:
    kept = json.loads((model / STATE_FILE).read_text())["phases"]["2"]["inputs"]
    entries = read_header(model / WEIGHTS)
    assert kept[WEIGHTS]["tensors"].keys() == entries.keys() - {UNUSED}
    assert kept[WEIGHTS]["bytes"] == (model / WEIGHTS).stat().st_size


def _touch(path: Path) -> None:
    os.utime(path, (1, 1))


def _write_over(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def _replace(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".copy"))
    os.replace(path.with_suffix(".copy"), path)


@pytest.mark.parametrize("change", [_touch, _write_over, _replace])
def test_what_was_touched_is_read_once_and_reused(
    change: Callable[[Path], None], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    change(model / WEIGHTS)
    entries = read_header(model / WEIGHTS)
    used = [(entry.start, entry.stop) for name, entry in entries.items() if name != UNUSED]
    for expected in ({WEIGHTS: without_gaps(used)}, {}):
        with places_read() as places:
            compile_model(model)
        assert {name: without_gaps(ranges) for name, ranges in places.items()} == expected
    assert phases_done(capsys) == []
    assert contents(model) == before


@pytest.mark.parametrize(("name", "expected"), [("lm_head.weight", ["2", "3"]), (UNUSED, [])])
def test_one_bit_of_a_tensor(name: str, expected: list[str], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((model / WEIGHTS).read_bytes())
    data[read_header(model / WEIGHTS)[name].stop - 2] ^= 1
    (model / WEIGHTS).write_bytes(data)
    compile_model(model, fast_compile=True)
    assert phases_done(capsys) == []
    compile_model(model)
    assert phases_done(capsys) == expected
    after = contents(model)
    compile_model(model, force=True)
    assert contents(model) == after


def test_another_list_of_tensors(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same length, with the same values: which tensor is whose is looked up again."""
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data.replace(b"layers.0.self_attn.rotary_emb", b"layers.1.self_attn.rotary_emb"))
    compile_model(model)
    assert phases_done(capsys) == ["2"]


def test_a_file_that_breaks_is_told_by_the_conversion(model: Path) -> None:
    before = contents(model)
    data = bytearray((model / WEIGHTS).read_bytes())
    data[9] ^= 255
    (model / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="header is not valid JSON"):
        compile_model(model)
    del before[WEIGHTS]
    assert {name: content for name, content in contents(model).items() if name != WEIGHTS} == before


def _while_converting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Has `act` called once, when half of the tensors have been read."""
    plain, names = TensorEntry.rows, set()

    def rows(self: TensorEntry, start: int, stop: int) -> np.ndarray:
        if len(names) == 10 and self.name not in names:
            act()
        names.add(self.name)
        return plain(self, start, stop)

    monkeypatch.setattr(TensorEntry, "rows", rows)


def test_a_file_replaced_while_it_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    _llama(model)
    write_checkpoint(tiny_llama_config(), other, seed=1)
    with monkeypatch.context() as patch:
        _while_converting(patch, lambda: shutil.copyfile(other / WEIGHTS, model / WEIGHTS))
        with pytest.raises(CheckpointError, match=r"model\.safetensors: changed while it was converted"):
            compile_model(model)
    assert not (model / STATE_FILE).exists()
    compile_model(model)
    compile_model(other)
    assert contents(model) == contents(other)


def test_a_file_touched_while_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    _llama(model)
    with monkeypatch.context() as patch:
        _while_converting(patch, lambda: _touch(model / WEIGHTS))
        compile_model(model)
    assert phases_done(capsys) == ["2", "3", "4"]
    with places_read() as places:
        compile_model(model)
    assert places == {}
    assert phases_done(capsys) == []


def test_torch_files_are_known_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    write_case(CASES["gpt2"], model, 0)
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    path = model / "pytorch_model.bin"
    torch.save(tensors, path)
    compile_model(model)
    capsys.readouterr()
    _touch(path)
    compile_model(model)
    assert phases_done(capsys) == []
    name = next(name for name in tensors if name.endswith("c_fc.weight"))
    tensors[name][-1, -1] += 1
    torch.save(tensors, path)
    compile_model(model)
    assert phases_done(capsys) == ["2", "3"]


_GOOD = {"order": "rows", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "forged",
    [
        None,
        [],
        {},
        {WEIGHTS: None},
        {WEIGHTS: {}, "../other/model.safetensors": {}},
        {"/etc/passwd": {}},
        {WEIGHTS: {"tensors": []}},
        {WEIGHTS: {"tensors": {"lm_head.weight": 1}}},
        {WEIGHTS: {"tensors": {"lm_head.weight": {"order": "rows"}}}},
        {WEIGHTS: {"tensors": {"lm_head.weight": {"order": [], "sha256": {}}}}},
        {WEIGHTS: {"tensors": {"lm_head.weight": {"order": "", "sha256": 0}}}},
        {WEIGHTS: {"tensors": {"model.norm.weight": {"order": "columns", "sha256": ""}}}},
        {WEIGHTS: {"tensors": {"none": _GOOD}}},
        {WEIGHTS: {"header": [[]], "tensors": {"lm_head.weight": _GOOD}}},
    ],
    ids=str,
)
def test_a_record_that_nobody_wrote(forged: Any, model: Path) -> None:
    """Nothing but the weights is looked at, and nothing is taken for them."""
    path = model / WEIGHTS
    kept = State.load(model).inputs("2")[WEIGHTS]
    places = [{}]
    if isinstance(forged, dict) and isinstance(forged.get(WEIGHTS), dict):
        places.append({"bytes": kept["bytes"], "header": kept["header"]})
    for place in places:
        record = forged if not place else {**forged, WEIGHTS: {**place, **forged[WEIGHTS]}}
        assert not is_unchanged(path.parent, record, [path])


def test_edited_small_files_are_taken_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tokenizer, template and settings of generation are sources, too; the weights are not converted for them."""
    from hyperdex_ir.runtime.tokenizer import Tokenizer

    model, out = tmp_path / "model", tmp_path / "out"
    write_checkpoint(tiny_llama_config(), model, seed=0)
    compile_model(model, output_dir=str(out))
    kept = (out / "ckpt/hyperdex_model.bin").stat()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    edited = settings | {"chat_template": "{{ eos_token }}", "eos_token": "<new>"}
    (model / "tokenizer_config.json").write_text(json.dumps(edited))
    (model / "generation_config.json").write_text('{"eos_token_id": 7}')
    capsys.readouterr()
    compile_model(model, output_dir=str(out))
    assert "Compiled already" not in capsys.readouterr().err
    assert (out / "ckpt/generation_config.json").read_text() == '{"eos_token_id": 7}'
    tokenizer = Tokenizer.load(out / "ckpt")
    assert tokenizer.render_chat([{"role": "user", "content": "x"}]) == "<new>"
    assert tokenizer.decode(tokenizer.encode("a<new>")[-1:]) == "<new>"
    assert (out / "ckpt/hyperdex_model.bin").stat() == kept
    compile_model(model, output_dir=str(out))
    assert "Compiled already" in capsys.readouterr().err
    (model / "chat_template.jinja").write_text("{% broken")
    compile_model(model, output_dir=str(out))
    (model / "chat_template.jinja").unlink()
    compile_model(model, output_dir=str(out))
    assert not (out / "ckpt/chat_template.jinja").exists()
