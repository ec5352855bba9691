"""Tokenizer files of a checkpoint, read without transformers.

`tokenizer.json` is used as it is. Checkpoints from before it (OPT, GPT-2) have `vocab.json` and `merges.txt`, which
together are a byte-level BPE. The files may be a stranger's: the library that uses them runs in a process of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import ConfigError, OptionError, PromptError
from hyperdex_ir.runtime.chat import ChatTemplate, Rendered
from hyperdex_ir.runtime.chat_templates import choose_template, read_templates
from hyperdex_ir.runtime.confined import Confined, Limits
from hyperdex_ir.support import reading

#: The names of special tokens that all tokenizers may have, in the order of transformers.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt")
_LARGEST_ID = 2**32 - 1
#: A vocabulary of 262,144 tokens and 514,000 merges takes 0.4 GB and 1.5 s; a megabyte of text some 0.1 GB and 2 s.
_LOADING = Limits(seconds=20, memory=2 << 30, answer=1 << 20)
_WORKING_SECONDS, _SECONDS_A_MEGABYTE = 10, 10
_ANSWER = 32 << 20  # bytes, and some multiple of the request


class Tokenizer:
    """Text to token ids and back, and conversations to text.

    folder: the folder of the files. special_tokens: text of each of `SPECIAL_TOKENS` that the checkpoint names. config:
    the contents of tokenizer_config.json. Raises ConfigError when the files make no tokenizer, or take more than 20 s
    or 2 GiB to read.
    """

    def __init__(self, folder: Path, special_tokens: Mapping[str, str], config: Mapping[str, Any]):
        self._folder = folder
        self._config = config
        self.special_tokens = dict(special_tokens)
        self._name = str(folder / next(name for name in _VOCABULARIES if (folder / name).is_file()))
        flags = {name: config.get(name) is True for name in ("add_prefix_space", "add_bos_token")}
        work = {"work": "load", "folder": str(folder.absolute()), "special": self.special_tokens, "flags": flags}
        self._process = Confined(work, _LOADING, f"{self._name}: reading it")
        self._summary = self._process.start()

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
        for name in _VOCABULARIES:
            with suppress(FileNotFoundError):
                reading.check_small(folder / name, reading.TOKENIZER)
        config = _read_json(folder / "tokenizer_config.json")
        special = _special_tokens({**_read_json(folder / "special_tokens_map.json"), **config})
        return cls(folder, special, config)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._summary["vocab_size"]

    def token_id(self, name: str) -> int | None:
        """Id of one of `SPECIAL_TOKENS`, or None when the checkpoint names none."""
        return self._summary["ids"].get(name)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. Raises PromptError when it has no UTF-8 form: bytes that the system could not read;
        ConfigError when the tokenizer fails on it, or takes more than 10 s, and 10 s for each megabyte, or 2 GiB."""
        return self._encode("encode", text, add_special_tokens)

    def offsets(self, text: str, add_special_tokens: bool = True) -> list[tuple[int, int]]:
        """The place in a text, [start, end), of each token of `encode`. Raises as `encode`."""
        return [(start, end) for start, end in self._encode("offsets", text, add_special_tokens)]

    def _encode(self, work: str, text: str, add_special_tokens: bool) -> Any:
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise PromptError(f"the prompt is not Unicode text (character {error.start})", "give UTF-8 text") from None
        return self._ask(size, "encoding with it", work=work, text=text, add_special_tokens=add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD.

        Raises OptionError for a number that is no id, ConfigError as `encode` does.
        """
        numbers = [operator.index(number) for number in ids]
        if numbers and not 0 <= min(numbers) <= max(numbers) <= _LARGEST_ID:
            raise OptionError(f"token ids from {min(numbers)} to {max(numbers)}: must be in 0..{_LARGEST_ID}")
        size = 8 * len(numbers)
        return self._ask(size, "decoding with it", work="decode", ids=numbers, skip_special_tokens=skip_special_tokens)

    def _ask(self, size: int, what: str, **work: Any) -> Any:
        """The child's answer. size: bytes of the request."""
        seconds = _WORKING_SECONDS + _SECONDS_A_MEGABYTE * (size >> 20)
        limits = Limits(seconds, _LOADING.memory, _ANSWER + 16 * size)
        return self._process.ask(work, limits, f"{self._name}: {what}", ConfigError)

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The checkpoint's chat template, or several by name. Raises as `read_templates`."""
        return read_templates(self._folder, self._config)

    def render_chat(self, messages: Any, add_generation_prompt: bool = False, **options: Any) -> str:
        """Prompt text for a conversation: as `rendered_chat`."""
        return self.rendered_chat(messages, add_generation_prompt, **options).text

    def rendered_chat(
        self,
        messages: Any,
        add_generation_prompt: bool = False,
        *,
        chat_template: str | None = None,
        tools: Iterable[Any] | None = None,
        documents: Iterable[Any] | None = None,
        continue_final_message: bool | str = False,
        **variables: Any,
    ) -> Rendered:
        """A conversation by the checkpoint's template or by `chat_template`, a template or the name of one.

        Raises PromptError when the checkpoint has no chat template, or a broken one, and as `ChatTemplate.render`.
        """
        found = self.chat_template if chat_template is None else self._named_templates()
        template = ChatTemplate(choose_template(found, chat_template, tools is not None), self._process)
        return template.render(
            messages,
            add_generation_prompt,
            tools=tools,
            documents=documents,
            continue_final_message=continue_final_message,
            special_tokens=self.special_tokens,
            variables=variables,
        )

    def _named_templates(self) -> str | dict[str, str] | None:
        """As `chat_template`, None where it is broken: another one is to be rendered."""
        try:
            return self.chat_template
        except (ConfigError, PromptError):
            return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return reading.read_object(path, reading.TOKENIZER_CONFIG)
    except FileNotFoundError:
        return {}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Text of each special token that has a name: the entries `..._token`, and those of `extra_special_tokens`."""
    extra = config.get("extra_special_tokens")
    named = {**config, **(extra if isinstance(extra, dict) else {})}
    others = (name for name in named if name.endswith("_token") or (isinstance(extra, dict) and name in extra))
    found = {name: _text_of(named.get(name)) for name in dict.fromkeys((*SPECIAL_TOKENS, *others))}
    return {name: text for name, text in found.items() if text is not None}


def _text_of(value: Any) -> str | None:
    """The text of a token: a string, or an object with `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and _is_text(text) else None


def _is_text(text: str) -> bool:
    """Test for a text with a UTF-8 form: JSON can hold half a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
