"""Generation and transformers' names, on a device that counts: the token after t is t + 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperdex_ir.errors import HyperdexError, NotCompiledError, OptionError, PromptError
from hyperdex_ir.isa.settings import GREEDY, SAMPLE, Settings
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.runtime.generate import Limits, all_logits, generate
from hyperdex_ir.runtime.model import CompiledModel, read_eos_ids
from hyperdex_ir.runtime.sampling import Sampling
from hyperdex_ir.transformers import AutoModelForCausalLM, AutoTokenizer, LpuModelForCausalLM

VOCABULARY = 50


class CountingDevice:
    """Wants t + 1 after t; keeps a record of its steps."""

    def __init__(self) -> None:
        self.passes: list[tuple[list[int], int, int | None]] = []
        self.settings: list[Settings] = []
        self.next_token = -1

    def set_sampling(self, settings: Settings) -> None:
        self.settings.append(settings)

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        self.passes.append((list(tokens), position, first_row))
        rows = tokens[-1:] if first_row is None else tokens[first_row:]
        logits = np.zeros((len(rows), VOCABULARY), np.float32)
        logits[np.arange(len(rows)), (np.asarray(rows) + 1) % VOCABULARY] = 1
        self.next_token = int(logits[-1].argmax())
        return logits


@pytest.fixture
def device() -> CountingDevice:
    return CountingDevice()


LIMITS = Limits(chunk=4, head_rows=2, max_length=16, vocab_size=VOCABULARY)


def test_prompt_goes_in_chunks_then_token_by_token(device: CountingDevice) -> None:
    seen: list[int] = []
    result = generate(device, [1, 2, 3, 4, 5, 6], LIMITS, 3, on_token=seen.append)
    assert device.passes == [([1, 2, 3, 4], 0, None), ([5, 6], 4, None), ([7], 6, None), ([8], 7, None)]
    assert result.tokens == (7, 8, 9) == tuple(seen)
    assert (result.finish, result.prompt_tokens) == ("max_new_tokens", 6)
    assert result.first_token_seconds > 0
    assert result.tokens_per_second > 0


def test_stops_at_end_of_text(device: CountingDevice) -> None:
    result = generate(device, [5], LIMITS, 9, eos_ids=(8, 7))
    assert result.tokens == (6, 7)
    assert result.finish == "eos"


def test_stops_when_the_positions_are_full(device: CountingDevice) -> None:
    result = generate(device, list(range(13)), LIMITS, 9)
    assert result.tokens == (13, 14, 15)
    assert result.finish == "max_length"
    assert generate(device, [1], LIMITS, 1).tokens_per_second == 0


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        ([], 1, "the prompt is empty"),
        (list(range(16)), 1, "the prompt has 16 tokens; the model was compiled for max_length 16"),
        ([1, VOCABULARY], 1, "token id 50 is outside the vocabulary of 50"),
        ([-1], 1, "token id -1 is outside"),
        ([1], 0, "max_new_tokens is 0"),
    ],
)
def test_refuses_before_anything_runs(device: CountingDevice, ids: list[int], count: int, message: str) -> None:
    with pytest.raises(HyperdexError, match=message):
        generate(device, ids, LIMITS, count)
    assert not device.passes


def test_all_logits_in_chunks_of_head_rows(device: CountingDevice) -> None:
    logits = all_logits(device, [3, 4, 5], LIMITS)
    assert device.passes == [([3, 4], 0, 0), ([5], 2, 0)]
    assert logits.shape == (3, VOCABULARY)
    assert logits.argmax(axis=1).tolist() == [4, 5, 6]
    assert len(all_logits(device, list(range(16)), LIMITS)) == 16
    with pytest.raises(PromptError, match="17 tokens; the model was compiled for max_length 16"):
        all_logits(device, list(range(17)), LIMITS)


def model_of(device: CountingDevice, config: dict[str, Any] | None = None, **limits: int) -> LpuModelForCausalLM:
    values = {"chunk": 4, "head_rows": 4, "max_length": 64, "vocab_size": VOCABULARY} | limits
    compiled = CompiledModel(device, ProgramFacts(lmu_words=0, matrix_type="f16", target="u55c", **values))
    return LpuModelForCausalLM(compiled, config or {}, (40,))


def test_shapes_and_types_follow_the_input(device: CountingDevice) -> None:
    import torch

    model = model_of(device)
    from_list = model.generate([1, 2], max_new_tokens=3)
    assert isinstance(from_list, np.ndarray)
    assert from_list.dtype == np.int64
    assert from_list.tolist() == [[1, 2, 3, 4, 5]]
    assert model.generate(np.array([[1, 2]]), max_new_tokens=1).tolist() == [[1, 2, 3]]
    from_torch = model.generate(torch.tensor([[1, 2]]), max_new_tokens=3)
    assert isinstance(from_torch, torch.Tensor)
    assert from_torch.dtype == torch.int64
    assert from_torch.tolist() == from_list.tolist()
    assert model.logits([1, 2]).shape == (2, VOCABULARY)
    assert isinstance(model.logits(torch.tensor([[1]])), torch.Tensor)


def test_lengths_as_in_transformers(device: CountingDevice) -> None:
    def new(config: dict[str, Any], **arguments: Any) -> int:
        return model_of(device, config).generate([1, 2], **arguments).shape[1] - 2

    assert new({}) == 20
    assert new({"max_length": 10}) == 8
    assert new({"max_length": 10, "max_new_tokens": 3}) == 3
    assert new({"max_length": 10}, max_length=5) == 3
    assert new({"max_new_tokens": 3}, max_length=9) == 7
    assert new({"max_length": 10}, max_new_tokens=4, max_length=9) == 4
    assert new({}, max_new_tokens=38) == 38
    assert new({}, max_new_tokens=60) == 38, "40 ends the text"
    assert new({}, max_new_tokens=60, eos_token_id=[7, 5]) == 3
    with pytest.raises(PromptError, match="2 tokens, max_length is 2"):
        new({}, max_length=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0; it must be a number above 0"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5; it must be from 0 to 1"),
        ({"do_sample": True, "top_k": -1}, "top_k is -1; it must be a whole number, 0 or more"),
        ({"do_sample": True, "seed": 1 << 64}, "seed is 18446744073709551616; it must be"),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0; it must be a number above 0"),
        ({"repetition_penalty": 1e-50}, "repetition_penalty is 1e-50; float32 cannot hold it"),
        ({"input_ids": [[1], [2]]}, "2 sequences: one at a time"),
        ({"input_ids": [0.5]}, "give integers"),
        ({"attention_mask": [[0, 1]]}, "padding is not supported"),
    ],
)
def test_bad_arguments_are_refused(device: CountingDevice, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model_of(device).generate(**({"input_ids": [1, 2]} | arguments))
    assert not device.passes


def test_the_file_says_how_unless_the_call_does(device: CountingDevice, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"do_sample": True, "temperature": 0.5, "top_p": 0.75, "repetition_penalty": 1.25}
    model = model_of(device, config)
    model.generate([1], max_new_tokens=1, seed=7)
    assert device.settings == [Settings(SAMPLE, 50, 7, 0.5, 0.75, 1.25), Settings()]
    model.generate([1], max_new_tokens=1, seed=7, top_k=0, top_p=1.0, temperature=2.0, repetition_penalty=1.0)
    assert device.settings[2] == Settings(SAMPLE, 0, 7, 2.0, 1.0, 1.0)
    assert model.last_seed == 7
    assert capsys.readouterr().err == ""
    model.generate([1], max_new_tokens=1, do_sample=False, temperature=0.5)
    assert device.settings[4] == Settings(GREEDY, repetition_penalty=1.25)
    assert model.last_seed is None
    assert capsys.readouterr().err == "hyperdex: temperature without sampling: no effect\n"


def test_what_the_file_asks_for_and_is_not_there(device: CountingDevice, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of(device, {"no_repeat_ngram_size": 3, "min_p": 0.1, "typical_p": 1.0, "num_beams": None})
    model.generate([1], max_new_tokens=1)
    assert "sets no_repeat_ngram_size; not there yet, generating without\n" in capsys.readouterr().err
    model.generate([1], max_new_tokens=1, do_sample=True)
    assert "sets no_repeat_ngram_size, min_p; not there yet" in capsys.readouterr().err


def test_seeds_are_drawn_and_told(device: CountingDevice) -> None:
    import torch

    drawn = [generate(device, [1], LIMITS, 1, sampling=Sampling(do_sample=True)).seed for _ in range(4)]
    assert len(set(drawn)) == 4
    assert [settings.seed for settings in device.settings[::2]] == drawn
    assert generate(device, [1], LIMITS, 1, sampling=Sampling(do_sample=True, seed=0)).seed == 0
    assert generate(device, [1], LIMITS, 1).seed is None
    model = model_of(device)
    seeds = []
    for _ in range(2):
        torch.manual_seed(3)
        model.generate([1], max_new_tokens=1, do_sample=True)
        seeds.append(model.last_seed)
    assert seeds[0] == seeds[1] is not None


def test_settings_end_with_the_call(device: CountingDevice) -> None:
    def stop(token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(device, [1], LIMITS, 1, on_token=stop, sampling=Sampling(repetition_penalty=2.0))
    assert device.settings == [Settings(repetition_penalty=2.0), Settings()]


def test_streamers_of_transformers_work(device: CountingDevice, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import TextStreamer as TheirStreamer

    from hyperdex_ir.transformers import TextStreamer

    class Letters:
        def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
            return "".join(chr(96 + token) for token in ids)

    for streamer in (TextStreamer, TheirStreamer):
        model_of(device).generate([1, 2], max_new_tokens=3, streamer=streamer(Letters(), skip_prompt=True))
        assert capsys.readouterr().out == "cde\n"
        model_of(device).generate([1, 2], max_new_tokens=3, streamer=streamer(Letters()))
        assert capsys.readouterr().out == "abcde\n"


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ({"lpu": 1, "gpu": 1}, "hybrid execution on LPU and GPU is not there yet"),
        ({"gpu": "1"}, "hybrid execution on LPU and GPU is not there yet"),
        ("auto", "device_map 'auto' is not understood"),
        ({"cpu": 1}, "is not understood"),
    ],
)
def test_device_maps(device_map: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AutoModelForCausalLM.from_pretrained("some/model", device_map=device_map)


def test_not_compiled_names_the_command() -> None:
    with pytest.raises(NotCompiledError, match="some/model: not compiled") as caught:
        AutoModelForCausalLM.from_pretrained("some/model", device_map={"lpu": 1, "gpu": 0})
    assert caught.value.hint == "hyperdex compile some/model"
    with pytest.raises(NotCompiledError) as caught:
        AutoModelForCausalLM.from_pretrained("some/model", device_map={"lpu": 2})
    assert caught.value.hint == "hyperdex compile some/model --num-device 2"
    with pytest.raises(NotCompiledError, match="some/model: not compiled"):
        AutoTokenizer.from_pretrained("some/model")


def test_eos_ids(tmp_path: Path) -> None:
    assert read_eos_ids(tmp_path) == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 2}')
    assert read_eos_ids(tmp_path / "nowhere", tmp_path) == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert read_eos_ids(tmp_path) == (2, 7)
