"""Opening compiled models: what is read, what is refused, and that they run as transformers does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint

from hyperdex_ir.backend.state import STATE_FILE, State
from hyperdex_ir.errors import FileFormatError, NotCompiledError, OptionError, PromptError
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice
from hyperdex_ir.runtime.executors import EXECUTORS
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.stream import flat_ids
from hyperdex_ir.support.files import HEADER_BYTES, Kind, pack_header
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = list(b"Once upon a time there was a machine")


@pytest.fixture(scope="module", params=["llama", "opt"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(tiny_llama_config() if request.param == "llama" else tiny_opt_config(), folder)
    AutoCompiler().compile(model_id=folder)
    return folder


@pytest.fixture
def copy(compiled: Path, tmp_path: Path) -> Path:
    """A copy of a compiled model, to be damaged."""
    return shutil.copytree(compiled, tmp_path / "model")


@pytest.mark.slow
def test_generates_what_transformers_generates(compiled: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM as TheirModel

    theirs = TheirModel.from_pretrained(compiled, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    expected = theirs.generate(ids, max_new_tokens=20, do_sample=False)
    ours = AutoModelForCausalLM.from_pretrained(compiled)
    assert torch.equal(ours.generate(ids, max_new_tokens=20, do_sample=False), expected)
    logits = ours.logits(ids)
    assert logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(ids).logits[0], atol=0.02, rtol=0.01)


def test_chunks_and_single_tokens_give_the_same_bits(compiled: Path) -> None:
    model = CompiledModel.open(compiled)
    whole = model.logits(PROMPT)
    assert whole.shape == (len(PROMPT), model.vocab_size)
    for size in (1, 7):
        starts = range(0, len(PROMPT), size)
        parts = [model.forward(PROMPT[start : start + size], start, 0) for start in starts]
        assert np.array_equal(np.concatenate(parts).view(np.uint32), whole.view(np.uint32))
    last = model.forward(PROMPT, 0)
    assert np.array_equal(last.view(np.uint32), whole[-1:].view(np.uint32))
    assert model.device.next_token == whole[-1].argmax()


def test_a_second_generation_does_not_see_the_first(compiled: Path) -> None:
    model = CompiledModel.open(compiled)
    first = model.generate(PROMPT, 12)
    model.generate(list(b"something else, and much longer than the prompt before it"), 5)
    assert model.generate(PROMPT, 12).tokens == first.tokens


@pytest.mark.slow
@pytest.mark.parametrize("engine", EXECUTORS)
def test_threads_take_turns(compiled: Path, engine: str) -> None:
    model = CompiledModel.open(compiled, engine=engine)
    prompts = [PROMPT[:length] for length in (3, 20, 36, 9)]
    alone = [model.generate(prompt, 12).tokens for prompt in prompts]
    with ThreadPoolExecutor(4) as threads:
        assert [one.tokens for one in threads.map(lambda ids: model.generate(ids, 12), prompts)] == alone


def test_a_model_that_calls_itself(compiled: Path) -> None:
    model = CompiledModel.open(compiled)
    with pytest.raises(OptionError, match="it cannot be called by its own on_token"):
        model.generate(PROMPT, 4, on_token=lambda token: model.generate([token], 1))
    assert len(model.generate(PROMPT, 4).tokens) == 4


def test_fills_all_positions(compiled: Path) -> None:
    model = CompiledModel.open(compiled)
    result = model.generate(PROMPT * 3, 1000)
    assert len(PROMPT) * 3 + len(result.tokens) == model.max_length
    assert result.finish == "max_length"


@pytest.mark.slow
def test_runs_without_torch_transformers_or_weights(copy: Path, tmp_path: Path) -> None:
    """Both made unimportable; the checkpoint's weights and hyperdex_model.bin deleted."""
    expected = CompiledModel.open(copy).generate(PROMPT, 8).tokens
    deleted = [*copy.glob("**/*.safetensors"), *copy.glob("**/hyperdex_model.bin")]
    assert len(deleted) == 2
    for path in deleted:
        path.unlink()
    script = f"""
import sys
for name in ("torch", "transformers", "xdsl", "safetensors", "huggingface_hub"):
    sys.modules[name] = None
from hyperdex_ir.transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(copy)!r})
tokenizer = AutoTokenizer.from_pretrained({str(copy)!r})
ids = tokenizer({bytes(PROMPT).decode()!r}, return_tensors="np").input_ids
print(model.generate(ids, max_new_tokens=8).tolist())
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [[*PROMPT, *expected]]


def test_not_compiled(copy: Path) -> None:
    with pytest.raises(NotCompiledError, match="not compiled for 2 devices") as caught:
        CompiledModel.open(copy, num_device=2)
    assert caught.value.hint == f"hyperdex compile {copy} --num-device 2"
    (copy / "manifest.json").unlink()
    with pytest.raises(NotCompiledError, match="not compiled") as caught:
        CompiledModel.open(copy, name="my/model")
    assert caught.value.hint == "hyperdex compile my/model"


def test_unknown_executor(compiled: Path) -> None:
    with pytest.raises(OptionError, match="no executor 'steam'; there are native, interpreter"):
        CompiledModel.open(compiled, engine="steam")


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_impossible_threads(compiled: Path, threads: int) -> None:
    with pytest.raises(OptionError, match=f"{threads} threads; there can be 1 to 1024"):
        CompiledModel.open(compiled, threads=threads)


def test_executors_give_the_same_bits(compiled: Path) -> None:
    expected = CompiledModel.open(compiled, engine="interpreter").logits(PROMPT).tobytes()
    for threads in (1, 2, 3):
        model = CompiledModel.open(compiled, threads=threads)
        assert isinstance(model.device, MachineDevice)
        assert isinstance(model.device.machine, NativeMachine)
        assert model.logits(PROMPT).tobytes() == expected


def test_where_the_native_engine_cannot_run_the_interpreter_does(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = CompiledModel.open(compiled).logits(PROMPT).tobytes()
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    model = CompiledModel.open(compiled)
    assert isinstance(model.device, InterpreterDevice)
    line = capsys.readouterr().err
    assert line.startswith("hyperdex: the native executor cannot run here: llvmlite cannot be loaded (")
    assert line.endswith("; using the interpreter\n")
    assert line.count("\n") == 1
    assert model.logits(PROMPT).tobytes() == expected


@pytest.mark.parametrize("engine", EXECUTORS)
def test_positions_that_have_not_been_run(compiled: Path, engine: str) -> None:
    model = CompiledModel.open(compiled, engine=engine)
    for position in (1, 5):
        with pytest.raises(PromptError, match=f"tokens from position {position} on; only 0 positions before have been"):
            model.forward(PROMPT[:2], position)
    model.forward(PROMPT[:3], 0)
    model.forward(PROMPT[:2], 1)
    with pytest.raises(PromptError, match="tokens from position 4 on; only 3 positions before have been run"):
        model.forward(PROMPT[:2], 4)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_size(path: Path) -> None:
    """A file that is right in itself, of another model."""
    payload = path.read_bytes()[HEADER_BYTES:] + bytes(64)
    path.write_bytes(pack_header(Kind.PARAMETERS, len(payload), zlib.crc32(payload)) + payload)


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(
    "name",
    ["inst/inst_1lpu.bin", "inst/inst_1lpu.json", "config/config_1lpu_hbm.json", "param/param_1lpu_00_1f.bin"],
)
@pytest.mark.parametrize("engine", EXECUTORS)
def test_damaged_files_are_named(copy: Path, name: str, damage: Callable[[Path], None], engine: str) -> None:
    if (engine, name, damage) == ("native", "param/param_1lpu_00_1f.bin", flip):
        pytest.skip("the native executor maps the images, it does not read them")
    damage(copy / name)
    with pytest.raises(FileFormatError) as caught:
        CompiledModel.open(copy, engine=engine)
    assert str(copy / name) in str(caught.value)
    assert "compile" in caught.value.hint


def test_an_image_of_another_model(copy: Path) -> None:
    other_size(copy / "param" / "param_1lpu_00_03.bin")
    with pytest.raises(FileFormatError, match=r"param_1lpu_00_03\.bin: \d+ bytes, the memory map says \d+"):
        CompiledModel.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 7, "files": {}}'])
def test_damaged_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"manifest\.json"):
        CompiledModel.open(copy)


def test_tokenizer_of_the_folder(compiled: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(compiled)
    assert tokenizer.encode("né") == list("né".encode())
    assert tokenizer("ab")["attention_mask"] == [1, 1]
    assert tokenizer(["a", "bc"]).input_ids == [[97], [98, 99]]
    assert tokenizer.decode(np.array([[110, 195, 169]])) == "né"
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.batch_decode([[97], [98]]) == ["a", "b"]
    with pytest.raises(OptionError, match="tensors for 2 texts"):
        tokenizer(["a", "b"], return_tensors="np")


@pytest.mark.slow
def test_output_directory_runs_by_its_path(compiled: Path, tmp_path: Path) -> None:
    AutoCompiler().compile(model_id=compiled, output_dir=tmp_path / "out")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert ours.generate(PROMPT, max_new_tokens=4).shape == (1, len(PROMPT) + 4)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("a") == [97]


def test_what_is_no_token_ids() -> None:
    for value in ("text", None, 1.5, [["1"]]):
        with pytest.raises(OptionError, match="not token ids"):
            list(flat_ids(value))


def test_hostile_arguments(compiled: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(compiled), AutoTokenizer.from_pretrained(compiled)
    with pytest.raises(OptionError, match="sequences of several lengths"):
        model.generate([[1, 2], [3]], max_new_tokens=2)
    with pytest.raises(OptionError, match="'x': not token ids"):
        model.generate([[1]], max_new_tokens=2, eos_token_id="x")  # pyright: ignore[reportArgumentType]
    for ids in ([-1], [10**30]):
        with pytest.raises(OptionError, match=r"must be in 0\.\.4294967295"):
            tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{"])
def test_a_generation_config_that_is_no_json(copy: Path, text: str) -> None:
    (copy / "ckpt" / "generation_config.json").write_text(text)
    with pytest.raises(FileFormatError, match="not valid JSON"):
        AutoModelForCausalLM.from_pretrained(copy)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1, "phases": {"convert": 3, "map": {"key": ""}}}'])
def test_a_broken_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    assert State.load(tmp_path).phases == {}
