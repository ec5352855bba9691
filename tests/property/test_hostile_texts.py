"""Tokenizers and chat templates of a stranger: one clear error or a result, in bounded time and memory.

A few of each kind; all of them in a soak.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from support.hostile.hostile_tokenizers import PROMPT, Surface, configs, generations, templates, tokenizer, tokenizers

from hyperdex_ir.errors import ConfigError, HyperdexError, PromptError
from hyperdex_ir.runtime import chat
from hyperdex_ir.runtime import tokenizer as tokenizer_module
from hyperdex_ir.runtime.model import read_eos_ids, read_generation_config
from hyperdex_ir.runtime.sampling import resolve_sampling
from hyperdex_ir.runtime.stream import TextStreamer
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.transformers import LpuModelForCausalLM

pytestmark = pytest.mark.slow

SOAK = os.environ.get("SOAK") == "1"
MESSAGES = [{"role": "user", "content": "hello"}]
SECONDS, MEMORY = 1, 512 << 20

#: What comes of some tokenizers: part of the error's line.
REFUSED = {
    "unknown token of WordLevel is missing": r"encoding with it fails: .*Missing \[UNK\]",
    "merge with a long prefix": "reading it fails: range end index",
    "merge with a prefix inside a character": "reading it ends its process",
    "characters map cut short": "reading it fails: Precompiled",
    "characters map larger than it is": "reading it ends its process",
    "characters map of odd size": "encoding with it fails: index out of bounds",
    "replaced again and again": "encoding with it (ends its process|takes more than)",
    "slower expression that splits": "encoding with it fails: .*retry-limit-in-match",
    "chunks of none": "encoding with it fails: chunk size",
    "template of many": "encoding with it (ends its process|takes more than)",
    "strip to the end": "decoding with it fails: index out of bounds",
    "decoded again and again": "decoding with it (ends its process|takes more than)",
    "deep": "not a tokenizer",
}
TEMPLATES = {
    "power": "takes more than 1 s",
    "long text": "takes more memory",
    "much output": "takes more memory|gives more than|takes more than 1 s",
    "loops": "takes more than 1 s",
    "self": "recursion",
    "division": "division or modulo by zero",
    "overflow": "out of range",
    "deep": "recursion|ends its process",
    "raises lines": "x",
    "a lone half": "surrogates not allowed",
    "globals": "unsafe",
    "import": "no loader",
    "no text": "not UTF-8",
    "large": "33554438 bytes, the most that is read is 1048576",
}


def chosen(surfaces: Iterator[Surface], names: object) -> list[Surface]:
    return [surface for surface in surfaces if SOAK or surface[0] in names]  # type: ignore[operator]


@pytest.fixture(autouse=True)
def less_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_LIMITS", replace(chat._LIMITS, seconds=SECONDS, memory=MEMORY // 2))
    monkeypatch.setattr(tokenizer_module, "_LOADING", replace(tokenizer_module._LOADING, memory=MEMORY))
    monkeypatch.setattr(tokenizer_module, "_WORKING_SECONDS", SECONDS)


def folder_with(folder: Path, name: str, data: bytes) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / name).write_bytes(data)
    return folder


def error_of(work: Callable[[], object]) -> str:
    """The line of the error that the work raises, "" when it raises none. Any other exception is a fault."""
    try:
        work()
    except HyperdexError as error:
        return str(error)
    return ""


def use(folder: Path) -> None:
    found = Tokenizer.load(folder)
    found.decode(found.encode(PROMPT))
    found.decode([0, 97, 1 << 31], skip_special_tokens=True)
    found.encode("")


@pytest.mark.parametrize(("name", "data"), chosen(tokenizers(), REFUSED), ids=lambda value: str(value)[:50])
def test_tokenizers(tmp_path: Path, name: str, data: bytes) -> None:
    folder = folder_with(tmp_path, "tokenizer.json", data)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    line = error_of(lambda: use(folder))
    assert name not in REFUSED or str(folder / "tokenizer.json") in line
    if name in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name]):
            use(folder)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(("name", "data"), chosen(templates(), TEMPLATES), ids=lambda value: str(value)[:50])
def test_templates(tmp_path: Path, name: str, data: bytes) -> None:
    found = Tokenizer.load(folder_with(tmp_path, "chat_template.jinja", data))
    assert found.encode("ab"), "without a chat, the template does not matter"
    line = error_of(lambda: found.render_chat(MESSAGES))
    if name in TEMPLATES:
        with pytest.raises((PromptError, ConfigError), match=TEMPLATES[name]):
            raise PromptError(line)
    assert found.encode("ab"), "the process is there again"


def test_configs(tmp_path: Path) -> None:
    surfaces = [surface for surface in configs() if SOAK or surface[0].startswith(("chat_template", "half"))]
    lines = {}
    for name, data in surfaces:
        folder = folder_with(tmp_path, "tokenizer_config.json", data)
        lines[name] = error_of(lambda: Tokenizer.load(folder).render_chat(MESSAGES))  # noqa: B023
    assert "chat_template is of type int, expected text" in lines["chat_template 1"]
    assert "an entry without name or template" in lines["chat_template [1]"]


def settings_of(folder: Path) -> None:
    """What a call takes from generation_config.json, without a model."""
    model = LpuModelForCausalLM.__new__(LpuModelForCausalLM)
    model.generation_config = read_generation_config(folder)
    sorted(read_eos_ids(folder))
    model._new_tokens(4, None, None)
    for do_sample in (None, False, True):
        sampling = resolve_sampling(model.generation_config, do_sample)
        _ = sampling.settings
        model._note_config(sampling)


def test_generation_configs(tmp_path: Path) -> None:
    lines = {}
    for name, data in generations():
        (tmp_path / "generation_config.json").write_bytes(data)
        lines[name] = error_of(lambda: settings_of(tmp_path))
    assert "eos_token_id is" in lines["eos_token_id '1'"]
    assert "eos_token_id is" in lines["eos_token_id [[1]]"]
    assert lines["eos_token_id -1"] == ""
    assert "max_length is 'a', expected a whole number" in lines["max_length 'a'"]
    assert "a number of 401 digits, at most 64 are read" in lines[f"temperature {10**400}"]
    assert "float32 cannot hold it" in lines[f"temperature {10**60}"]


def test_nothing_is_computed_when_a_tokenizer_is_opened(tmp_path: Path) -> None:
    config = json.dumps({"chat_template": "{{ 7 ** 30000000 }}{{ 'a' * 1000000000 }}"}).encode()
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    found = Tokenizer.load(folder_with(tmp_path, "tokenizer_config.json", config))
    assert found.encode("ab") == [ord("a"), ord("b")]
    del found
    used = time.process_time() - started + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert used < 2


def test_a_lost_process_is_started_again(tmp_path: Path) -> None:
    data = dict(tokenizers())["replaced again and again"]
    found = Tokenizer.load(folder_with(tmp_path, "tokenizer.json", data))
    for _ in range(2):
        with pytest.raises(ConfigError, match="encoding with it"):
            found.encode(PROMPT)
        assert found.encode("bc") == [ord("b"), ord("c")]


def test_an_answer_that_nobody_took_is_not_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hyperdex_ir.support import confined

    found = Tokenizer.load(folder_with(tmp_path, "x", b""))

    def interrupted(*arguments: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(confined, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            found.encode("ab")
    assert found.encode("c") == [ord("c")]


def test_a_fork_has_a_process_of_its_own(tmp_path: Path) -> None:
    found = Tokenizer.load(folder_with(tmp_path, "x", b""))
    child = os.fork()
    if not child:
        os._exit(0 if found.encode("ab") == [97, 98] and found.decode([99]) == "c" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found.encode("ab") == [97, 98]


def test_threads_share_a_process(tmp_path: Path) -> None:
    found = Tokenizer.load(folder_with(tmp_path, "x", b""))
    texts = [chr(97 + number % 26) * (1 + number % 7) for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda text: found.decode(found.encode(text)), texts))
    assert [text.replace(" ", "") for text in decoded] == texts


def test_objects_that_a_template_must_not_reach(tmp_path: Path) -> None:
    found = Tokenizer.load(folder_with(tmp_path, "chat_template.jinja", b"{{ messages }}{{ more }}"))
    messages = (MappingProxyType({"role": "user", "content": Path}),)
    expected = "[{'role': 'user', 'content': '<type>'}](1, None, '<object>')"
    assert found.render_chat(messages, more=(1, None, object())) == expected


def test_a_stream_ends_with_one_error(tmp_path: Path) -> None:
    data = dict(tokenizers())["strip to the end"]
    streamer = TextStreamer(Tokenizer.load(folder_with(tmp_path, "tokenizer.json", data)), output=io.StringIO())
    with pytest.raises(ConfigError, match="decoding with it fails"):
        streamer.put([97, 98])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_files_that_are_none_or_too_large(tmp_path: Path, name: str) -> None:
    path = folder_with(tmp_path, name, b"") / name
    with path.open("wb") as file:
        file.truncate(8 << 30)
    assert "the most that is read" in error_of(lambda: Tokenizer.load(tmp_path).render_chat(MESSAGES))
    path.unlink()
    os.mkfifo(path)
    assert error_of(lambda: Tokenizer.load(tmp_path).render_chat(MESSAGES))
    path.unlink()
    path.symlink_to("/dev/zero")
    assert error_of(lambda: Tokenizer.load(tmp_path).render_chat(MESSAGES))
