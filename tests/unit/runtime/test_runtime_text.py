"""Tokenizer files, chat templates and streaming, against transformers and against plain decoding."""

from __future__ import annotations

import io
import json
import os
import random
import signal
from pathlib import Path

import pytest
from support.models.tiny import write_tokenizer
from tokenizers import Tokenizer as BackendTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from hyperdex_ir.errors import ConfigError, PromptError
from hyperdex_ir.runtime.chat import ChatTemplate
from hyperdex_ir.runtime.stream import Detokenizer, TextStreamer
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.support.confined import Confined

TEXTS = [
    "Hello, world!",
    " leading  and   inner spaces\n\n\ttabs",
    "naïve café, 日本語, 👩‍👩‍👧 12345",
    "",
    "don't I'll x=1;",
]
MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def backend() -> BackendTokenizer:
    """A byte-level BPE with a few merges, trained on the texts above."""
    tokenizer = BackendTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer(backend: BackendTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    backend.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def test_tokenizer_json(backend: BackendTokenizer, tmp_path: Path) -> None:
    backend.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {"eos_token": {"content": "</s>"}, "chat_template": "{{ eos_token }}"})
    tokenizer = Tokenizer.load(tmp_path / "nowhere", tmp_path)
    for text in TEXTS:
        assert tokenizer.encode(text) == backend.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_id("eos_token") == 1
    assert tokenizer.token_id("bos_token") is None
    assert tokenizer.render_chat(MESSAGES) == "</s>"
    assert tokenizer.decode([1, *tokenizer.encode("a"), 1], skip_special_tokens=True) == "a"


def test_vocabulary_and_merges_equal_transformers(backend: BackendTokenizer, tmp_path: Path) -> None:
    """OPT's older files: byte-level BPE with </s> before each text."""
    from transformers import AutoTokenizer

    backend.model.save(str(tmp_path))
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    write(tmp_path, "special_tokens_map.json", special)
    write(tmp_path, "tokenizer_config.json", {"add_bos_token": True, "tokenizer_class": "GPT2Tokenizer", **special})
    write(tmp_path, "config.json", {"model_type": "opt"})
    ours = Tokenizer.load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]
        assert ours.encode(text)[0] == 1
        assert ours.decode(ours.encode(text), skip_special_tokens=True) == text


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer_config.json", "[1]", "holds a list, expected an object"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", "[" * 100_000, "not valid JSON"),
    ],
)
def test_broken_files(backend: BackendTokenizer, tmp_path: Path, name: str, text: str, message: str) -> None:
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        Tokenizer.load(tmp_path)


def test_chat_template_file_wins(backend: BackendTokenizer, tmp_path: Path) -> None:
    backend.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {"chat_template": "entry"})
    assert Tokenizer.load(tmp_path).render_chat(MESSAGES) == "entry"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert Tokenizer.load(tmp_path).render_chat(MESSAGES) == "file"


def test_no_chat_template(backend: BackendTokenizer, tmp_path: Path) -> None:
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(PromptError, match="no chat template"):
        Tokenizer.load(tmp_path).render_chat(MESSAGES)


def test_template_errors() -> None:
    with pytest.raises(PromptError, match="line 1"):
        ChatTemplate("{% if %}").render(MESSAGES)
    with pytest.raises(PromptError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render(MESSAGES)
    with pytest.raises(PromptError, match="refuses"):
        ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}").render(MESSAGES)


def pieces_of(tokenizer: Tokenizer, ids: list[int], skip: bool = False) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip)
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


def test_detokenizer_never_splits_a_character(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        pieces = pieces_of(tokenizer, tokenizer.encode(text))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("data", "lag"),
    [
        (b"\x80" * 9, 4),
        (b"\xf0" * 9 + "\U0001f600".encode() + b"a", 4),
        (b"\xe2\x82" * 5 + "\u20ac".encode(), 4),
        (b"\xff\xc3\xc3\xc3\xa9\x80\x80\xf0\x9f\x98\x80", 4),
        ("\U0001f600\ufffd".encode() * 3, 4),
        (b"\xf0\x9f\x98", 4),
    ],
)
def test_bytes_that_form_no_character(tmp_path: Path, data: bytes, lag: int) -> None:
    """They are written when as many have come as a character has; a character after them is whole."""
    write_tokenizer(tmp_path)
    bytewise = Tokenizer.load(tmp_path)
    detokenizer, written, since = Detokenizer(bytewise), "", 0
    for byte in data:
        piece = detokenizer.push(byte)
        written, since = written + piece, 0 if piece else since + 1
        assert since < lag
    assert written + detokenizer.finish() == bytewise.decode(list(data)) == data.decode("utf-8", "replace")


@pytest.mark.slow
def test_detokenizer_joins_to_plain_decoding(tokenizer: Tokenizer) -> None:
    """Random ids, invalid UTF-8 among them."""
    random_ids = random.Random(7)
    for _ in range(200):
        ids = [random_ids.randrange(tokenizer.vocab_size) for _ in range(random_ids.randrange(1, 40))]
        for skip in (False, True):
            assert "".join(pieces_of(tokenizer, ids, skip)) == tokenizer.decode(ids, skip)


def test_streamer_writes_new_text_only(tokenizer: Tokenizer) -> None:
    output = io.StringIO()
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, output=output)
    streamer.put([tokenizer.encode("prompt")])
    for token in [*tokenizer.encode("né 日"), 1]:
        streamer.put(token)
    streamer.end()
    assert output.getvalue() == "né 日\n"
    with pytest.raises(TypeError, match="no argument 'clean'"):
        TextStreamer(tokenizer, clean=True)


@pytest.mark.slow
def test_a_fork_while_another_thread_waits_for_an_answer() -> None:
    """The thread is not in the new process, where nobody would release the lock."""
    confined = Confined()
    with confined._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # ends it when it hangs
            try:
                confined.start()
            except BaseException:
                os._exit(1)
            confined._end()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
