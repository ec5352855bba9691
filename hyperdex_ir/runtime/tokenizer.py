"""Tokenizer files of a checkpoint, read without transformers.

`tokenizer.json` is used as it is. Checkpoints from before it (OPT, GPT-2) have `vocab.json` and `merges.txt`, which
together are a byte-level BPE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as BackendTokenizer

from hyperdex_ir import reading
from hyperdex_ir.errors import ConfigError, OptionError, PromptError
from hyperdex_ir.runtime.chat import ChatTemplate

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """Text to token ids and back, and conversations to text.

    special_tokens: text of each of `SPECIAL_TOKENS` that the checkpoint names.
    """

    def __init__(self, backend: BackendTokenizer, special_tokens: Mapping[str, str], chat_source: str | None = None):
        self._backend = backend
        self.special_tokens = dict(special_tokens)
        self._template = ChatTemplate(chat_source) if chat_source else None

    @classmethod
    def load(cls, *folders: Path) -> Tokenizer:
        """The tokenizer in the first of `folders` that has one. Raises ConfigError when none does, or it is broken."""
        for folder in folders:
            if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
                return cls._load(folder)
        places = ", ".join(str(folder) for folder in folders)
        raise ConfigError(f"no tokenizer.json in {places}", "add the checkpoint's tokenizer files")

    @classmethod
    def _load(cls, folder: Path) -> Tokenizer:
        config = _read_json(folder / "tokenizer_config.json")
        special = _special_tokens({**_read_json(folder / "special_tokens_map.json"), **config})
        if (folder / "tokenizer.json").is_file():
            backend = _read_backend(folder / "tokenizer.json")
        else:
            backend = _byte_level_bpe(folder, config, special)
        return cls(backend, special, _chat_source(folder, config))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def token_id(self, name: str) -> int | None:
        """Id of one of `SPECIAL_TOKENS`, or None when the checkpoint names none."""
        text = self.special_tokens.get(name)
        return None if text is None else self._backend.token_to_id(text)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. Raises PromptError when it has no UTF-8 form: bytes that the system could not read."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(f"the prompt is not Unicode text (character {error.start})", "give UTF-8 text") from None
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD. Raises OptionError for a number that is no id."""
        try:
            return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        except OverflowError:
            raise OptionError(f"token ids from {min(ids)} to {max(ids)}: must be in 0..{2**32 - 1}") from None

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False, **variables: Any
    ) -> str:
        """Prompt text for a conversation. Raises PromptError when the checkpoint has no chat template."""
        if self._template is None:
            raise PromptError("the checkpoint has no chat template", "run without --chat")
        return self._template.render(messages, add_generation_prompt, **{**self.special_tokens, **variables})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return reading.read_object(path, reading.TOKENIZER_CONFIG)
    except FileNotFoundError:
        return {}


def _read_backend(path: Path) -> BackendTokenizer:
    data = reading.read_bytes(path, reading.TOKENIZER)
    try:
        backend = BackendTokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{path}: not a tokenizer: {error}") from None
    backend.no_padding()
    backend.no_truncation()
    return backend


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Text of each special token: a string, or an object with `content`."""
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKENS:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _byte_level_bpe(folder: Path, config: Mapping[str, Any], special: Mapping[str, str]) -> BackendTokenizer:
    for name in ("vocab.json", "merges.txt"):
        reading.check_small(folder / name, reading.TOKENIZER)
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{folder}: vocab.json and merges.txt make no tokenizer: {error}") from None
    backend = BackendTokenizer(model)
    prefix_space = bool(config.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()])
    bos = special.get("bos_token")
    if config.get("add_bos_token", False) and bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return backend


def _chat_source(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template's text: its own file, or the entry of tokenizer_config.json; of several, the one named `default`."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return reading.read_text(path, reading.TEMPLATE)
    value = config.get("chat_template")
    if not isinstance(value, list):
        return value
    named = {entry["name"]: entry["template"] for entry in value}
    return named.get("default")
