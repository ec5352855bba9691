"""Tokenizers that a compile keeps, against transformers' of the same files: ids and texts."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import SOAK
from support.llama_cpp import needs_package, vocabularies
from support.texts import texts
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as BackendTokenizer
from transformers import AutoTokenizer

from hyperdex_ir.backend import text
from hyperdex_ir.backend.text import check_vocabulary, write_tokenizer
from hyperdex_ir.checkpoint.published_tokenizer import describe
from hyperdex_ir.errors import ConfigError
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.tokenizer_files import BUILT, BUILT_CONFIG

ROWS = 1 << 20
COUNT = 1000 if SOAK else 120
CORPUS = ["Hello world, don't stop 12345", "naïve café 日本語", "the quick brown fox \n\n jumps"] * 3
END = {"content": "<|end|>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
_MARK = {"__type": "AddedToken"}


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name.partition(".")[0]) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The conversion in this process, which has imported transformers already."""

    def convert(name: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
        place = tmp_path / "alone" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for one, content in contents.items():
            (place / one).write_bytes(content)
        return describe(AutoTokenizer.from_pretrained(place), place)

    monkeypatch.setattr(text, "_convert", convert)
    monkeypatch.setattr(text, "tokenizer_cache", lambda: None)


# ------------------------------------------------------------------------------------------- checkpoints
def byte_level(add_prefix_space: bool = False) -> BackendTokenizer:
    tokenizer = BackendTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=special)
    )
    return tokenizer


def metaspace() -> BackendTokenizer:
    """Pieces with a mark for blanks and a token for each byte, as SentencePiece's models are published."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = BackendTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=360, special_tokens=special))
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    return BackendTokenizer.from_str(json.dumps(saved))


def word_piece() -> BackendTokenizer:
    tokenizer = BackendTokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    return tokenizer


def checkpoint(folder: Path, model_type: str, backend: BackendTokenizer | None = None, **files: Any) -> ModelFolder:
    """A folder with config.json, the tokenizer, and further JSON files."""
    source = folder / "source"
    source.mkdir()
    if backend is not None:
        backend.save(str(source / "tokenizer.json"))
    for name, value in {"config": {"model_type": model_type}, **files}.items():
        (source / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return ModelFolder(folder / "out", source, None, made_by_tool=False)


def check(folder: ModelFolder, count: int = COUNT) -> Tokenizer:
    """Converts, and compares the kept tokenizer with transformers'."""
    folder.ckpt.mkdir(parents=True)
    written = write_tokenizer(folder, folder.ckpt, ROWS)
    assert folder.ckpt / BUILT_CONFIG in written
    theirs, ours = AutoTokenizer.from_pretrained(folder.source), Tokenizer.load(folder.source, folder.ckpt)
    special = list(theirs.get_added_vocab())
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.vocab_size == len(theirs)
    for name in theirs.special_tokens_map:
        assert ours.token_id(name) == getattr(theirs, f"{name}_id")
    for one in texts(count, special[:12]):
        ids = theirs(one)["input_ids"]
        assert ours.encode(one) == ids, one
        assert ours.decode(ids) == theirs.decode(ids), one
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True), one
        assert ours.encode(one, add_special_tokens=False) == theirs(one, add_special_tokens=False)["input_ids"], one
    return ours


FAST = "PreTrainedTokenizerFast"
SPECIAL = {"bos_token": "<s>", "eos_token": "<|end|>", "unk_token": "<unk>"}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("model_type", "backend", "files"),
    [
        ("llama", byte_level, {}),
        ("llama", byte_level, {"tokenizer_config": {"tokenizer_class": FAST, **SPECIAL}}),
        ("llama", byte_level, {"tokenizer_config": {"tokenizer_class": FAST, "eos_token": {**_MARK, **END}}}),
        (
            "llama",
            byte_level,
            {"tokenizer_config": {"tokenizer_class": FAST, "added_tokens_decoder": {"330": END | {"special": True}}}},
        ),
        (
            "gpt2",
            byte_level,
            {
                "tokenizer_config": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
                "added_tokens": {"<plain>": 320, "<|end|>": 321},
                "special_tokens_map": {"eos_token": END, "additional_special_tokens": ["<more>"]},
            },
        ),
        (
            "qwen2",
            byte_level,
            {"tokenizer_config": {"tokenizer_class": "Qwen2Tokenizer", "extra_special_tokens": {"box_token": "<box>"}}},
        ),
        ("gpt_neox", byte_level, {"tokenizer_config": {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True}}),
        ("llama", metaspace, {"tokenizer_config": {"tokenizer_class": "LlamaTokenizer", "legacy": False}}),
        ("gemma2", metaspace, {"tokenizer_config": {"tokenizer_class": "GemmaTokenizer"}}),
        ("mistral", metaspace, {"tokenizer_config": {"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": True}}),
        ("llama", byte_level, {"tokenizer_config": {"tokenizer_class": FAST, "split_special_tokens": True}}),
        (
            "gpt2",
            word_piece,
            {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "clean_up_tokenization_spaces": True}},
        ),
    ],
)
def test_published_files(tmp_path: Path, model_type: str, backend: Any, files: dict[str, Any]) -> None:
    check(checkpoint(tmp_path, model_type, backend(), **files))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("gpt2", {}),
        ("gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "bos_token": "<s>"}),
        ("opt", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>"}),
        ("qwen2", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "</s>"}),
        ("codegen", {"tokenizer_class": "CodeGenTokenizer"}),
    ],
)
def test_vocabulary_and_merges(tmp_path: Path, model_type: str, config: dict[str, Any]) -> None:
    folder = checkpoint(tmp_path, model_type, None, tokenizer_config=config)
    byte_level().model.save(str(folder.source))
    check(folder)


@pytest.mark.usefixtures("in_process")
def test_the_same_tokenizer_is_not_written_again(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_special_tokens([AddedToken("<s>", special=True)])
    folder = checkpoint(tmp_path, "llama", backend, tokenizer_config={"tokenizer_class": FAST, "bos_token": "<s>"})
    check(folder, 20)
    assert not (folder.ckpt / BUILT).exists()


@pytest.mark.usefixtures("in_process")
def test_truncation_and_templates_of_the_file(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ours = check(checkpoint(tmp_path, "llama", backend, tokenizer_config={"tokenizer_class": FAST}))
    assert len(ours.encode("a b c d e f g h")) > 9


def test_the_child_gives_the_same(tmp_path: Path) -> None:
    """The whole way: transformers in a process of its own, the result kept for other models."""
    config = {"tokenizer_class": FAST, **SPECIAL, "chat_template": "{{ bos_token }}"}
    folder = checkpoint(tmp_path, "llama", byte_level(), tokenizer_config=config)
    ours = check(folder, 20)
    assert ours.render_chat([{"role": "user", "content": "x"}]) == "<s>"
    (again := folder.root / "again").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_convert", None)
        assert {path.name for path in write_tokenizer(folder, again, ROWS)} == {
            path.name for path in folder.ckpt.iterdir()
        }


# ------------------------------------------------------------------------------------------- edited and broken files
@pytest.mark.usefixtures("in_process")
def test_edited_files_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint(tmp_path, "llama", byte_level(), tokenizer_config={"tokenizer_class": FAST, **SPECIAL})
    check(folder, 20)
    capsys.readouterr()
    edited = {"tokenizer_class": FAST, **SPECIAL, "chat_template": "edited"}
    (folder.source / "tokenizer_config.json").write_text(json.dumps(edited))
    assert Tokenizer.load(folder.source, folder.ckpt).render_chat([{"role": "user", "content": "x"}]) == "edited"
    assert capsys.readouterr().err == "", "a template is no part of the tokenizer"
    (folder.source / "added_tokens.json").write_text('{"<new>": 999}')
    Tokenizer.load(folder.source, folder.ckpt)
    assert "the tokenizer's files have changed since the compile" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("tokenizer.json", "{}", "transformers cannot make it"),
        ("tokenizer_config.json", "[1]", "holds a list, expected an object"),
    ],
)
def test_broken_files_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, line: str
) -> None:
    folder = checkpoint(tmp_path, "llama", byte_level())
    (folder.source / name).write_text(content)

    def fails(*arguments: object) -> dict[str, Any]:
        raise ConfigError("transformers cannot make it: x")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_convert", fails)
        assert write_tokenizer(folder, tmp_path, ROWS) == []
    found = capsys.readouterr()
    assert line in found.out + found.err


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    assert write_tokenizer(checkpoint(tmp_path, "llama"), tmp_path, ROWS) == []


@pytest.mark.usefixtures("in_process")
def test_more_tokens_than_the_embedding_has_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"tokenizer_class": FAST, "extra_special_tokens": ["<a>", "<b>"]}
    folder = checkpoint(tmp_path, "llama", byte_level(), tokenizer_config=config)
    folder.ckpt.mkdir(parents=True)
    write_tokenizer(folder, folder.ckpt, size := byte_level().get_vocab_size())
    line = f"2 ids beyond the {size} rows of the embedding, which no prompt may hold: {size} '<a>', {size + 1} '<b>'"
    assert line in capsys.readouterr().err
    write_tokenizer(folder, folder.ckpt, size + 2)
    assert "beyond" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- other vocabularies
@pytest.mark.usefixtures("in_process")
@needs("sentencepiece", "google")
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("config", [{"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, {}])
def test_sentencepiece(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    import sentencepiece

    folder = checkpoint(tmp_path, "llama", tokenizer_config=config)
    sentencepiece.SentencePieceTrainer.train(  # type: ignore[attr-defined]
        sentence_iterator=iter(CORPUS), model_prefix=str(folder.source / "tokenizer"), vocab_size=310, model_type=kind,
        byte_fallback=True, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder.source / "tokenizer.vocab").unlink()
    check(folder)


@pytest.mark.usefixtures("in_process")
@needs("tiktoken")
def test_tiktoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    added = {"270": END | {"special": True}}
    config = {"tokenizer_class": FAST, "added_tokens_decoder": added}
    folder = checkpoint(tmp_path, "llama", tokenizer_config=config)
    pieces = [bytes([byte]) for byte in range(256)] + [b"He", b"ll", b"Hell", b"lo", b"Hello", b" w", b"or", b" wor"]
    lines = (f"{base64.b64encode(piece).decode()} {rank}" for rank, piece in enumerate(pieces))
    (folder.source / "tiktoken.model").write_text("\n".join(lines))
    check(folder)


@pytest.mark.usefixtures("in_process")
@needs_package()
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in vocabularies() if SOAK or "llama-spm" in name])
def test_vocabularies_of_gguf_files(tmp_path: Path, name: str) -> None:
    """One of them, all in a soak."""
    from hyperdex_ir.checkpoint.pretrained import copy_tokenizer

    (tmp_path / name).write_bytes(vocabularies()[name])
    folder = checkpoint(tmp_path, "llama")
    try:
        copy_tokenizer(tmp_path / name, folder.source)
    except Exception as error:  # transformers raises ValueError and subclasses of several libraries
        if not any(words in str(error) for words in ("is not supported yet", "Validation error for field")):
            raise
        pytest.skip(f"transformers does not read it: {error}")
    check(folder)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["tokenizer.model"], "its only tokenizer is tokenizer.model, which is read with sentencepiece and protobuf"),
        (["tiktoken.model"], "its only tokenizer is tiktoken.model, which is read with tiktoken"),
        (["tekken.json", "vocab.json"], "its only tokenizer is tekken.json, which is read with mistral-common"),
    ],
)
def test_packages_that_are_missing(names: list[str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_is_installed", lambda package: False)
    with pytest.raises(ConfigError, match=line) as caught:
        check_vocabulary("org/model", [*names, "config.json"])
    assert caught.value.hint.startswith("pip install ")
    check_vocabulary("org/model", [*names, "tokenizer.json"])
    check_vocabulary("org/model", [*names, "vocab.json", "merges.txt"])
    check_vocabulary("org/model", ["config.json"])
