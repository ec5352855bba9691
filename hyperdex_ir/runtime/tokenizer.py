"""Tokenizer files of a checkpoint, read without transformers.

A compile lets transformers make the tokenizer, and keeps the result (`support/tokenizer_files.py`). Without a compile,
`tokenizer.json` is used as it is, or `vocab.json` and `merges.txt` as a byte-level BPE. The files may be a stranger's:
the library that uses them runs in a process of its own.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import COMPILE_AGAIN, ConfigError, OptionError, PromptError
from hyperdex_ir.runtime.chat import ChatTemplate, Rendered
from hyperdex_ir.runtime.chat_templates import choose_template, read_templates
from hyperdex_ir.support import reading
from hyperdex_ir.support.confined import Confined, Limits
from hyperdex_ir.support.tokenizer_files import BUILT, CONVERTED, PLAIN, made_of, read_built

#: The names of special tokens that all tokenizers may have, in the order of transformers.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: Files that each say that a folder has a tokenizer, and those that can be read without a conversion.
_VOCABULARIES = (PLAIN, "vocab.json", *CONVERTED)
_READABLE = (PLAIN, "vocab.json")
_WORKER = "hyperdex_ir.runtime.tokenizer_backend"
_LARGEST_ID = 2**32 - 1
#: A vocabulary of 262,144 tokens and 514,000 merges takes 0.4 GB and 1.5 s; a megabyte of text some 0.1 GB and 2 s.
_LOADING = Limits(seconds=20, memory=2 << 30, answer=1 << 20)
_WORKING_SECONDS, _SECONDS_A_MEGABYTE = 10, 10
_ANSWER = 32 << 20  # bytes, and some multiple of the request


class Tokenizer:
    """Text to token ids and back, and conversations to text.

    files: the files to use. Raises ConfigError when they make no tokenizer, or take more than 20 s or 2 GiB to read.
    """

    def __init__(self, files: _Files):
        self._files = files
        self.special_tokens = dict(files.special_tokens)
        self._name = str(files.place if files.place.is_file() else files.place / "vocab.json")
        flags = {name: files.config.get(name) is True for name in ("add_prefix_space", "add_bos_token")}
        settings = {"clean_up": files.clean_up, "split_special": files.split_special}
        file, special = str(files.place.absolute()), self.special_tokens
        work = {"work": f"{_WORKER}:load", "file": file, "special": special, "flags": flags, **settings}
        self._process = Confined(work, _LOADING, f"{self._name}: reading it")
        self._summary = self._process.start()

    @classmethod
    def load(cls, *folders: Path) -> Tokenizer:
        """The tokenizer in the first of `folders` that has one; the one that a compile has made of its files, if any of
        `folders` has that. Raises ConfigError when none has a tokenizer, or it is broken."""
        for folder in folders:
            if any((folder / name).is_file() for name in _VOCABULARIES):
                return cls(_find_files(folder, folders))
        places = ", ".join(str(folder) for folder in folders)
        raise ConfigError(f"no tokenizer.json in {places}", "add the checkpoint's tokenizer files")

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
        return self._encode(f"{_WORKER}:encode", text, add_special_tokens)

    def offsets(self, text: str, add_special_tokens: bool = True) -> list[tuple[int, int]]:
        """The place in a text, [start, end), of each token of `encode`. Raises as `encode`."""
        return [(start, end) for start, end in self._encode(f"{_WORKER}:offsets", text, add_special_tokens)]

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
        work = {"work": f"{_WORKER}:decode", "ids": numbers, "skip_special_tokens": skip_special_tokens}
        return self._ask(size, "decoding with it", **work)

    def _ask(self, size: int, what: str, **work: Any) -> Any:
        """The child's answer. size: bytes of the request."""
        seconds = _WORKING_SECONDS + _SECONDS_A_MEGABYTE * (size >> 20)
        limits = Limits(seconds, _LOADING.memory, _ANSWER + 16 * size)
        return self._process.ask(work, limits, f"{self._name}: {what}", ConfigError)

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The checkpoint's chat template, or several by name. Raises as `read_templates`."""
        return read_templates(self._files.folder, self._files.config, self._files.templates)

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


@dataclass(frozen=True)
class _Files:
    """The files of one tokenizer. folder: that of the checkpoint's. place: a tokenizer.json, or the folder of
    vocab.json. config: tokenizer_config.json. templates: chat templates that a compile has kept."""

    folder: Path
    place: Path
    config: Mapping[str, Any]
    special_tokens: Mapping[str, str]
    clean_up: bool = False
    split_special: bool = False
    templates: Any = None


def _find_files(folder: Path, folders: Sequence[Path]) -> _Files:
    """The files to use for the tokenizer in `folder`. Raises ConfigError when they cannot be read, or not without a
    compile."""
    for name in (*_READABLE, "merges.txt"):
        with suppress(FileNotFoundError):
            reading.check_small(folder / name, reading.TOKENIZER)
    config = _read_json(folder / "tokenizer_config.json")
    found = [(place, built) for place in folders if (built := read_built(place)) is not None]
    present = made_of(folder) if found else {}
    for place, built in found:
        if built["made_of"] == present:
            return _of_built(folder, place, config, built)
    if not any((folder / name).is_file() for name in _READABLE):
        names = ", ".join(name for name in _VOCABULARIES if (folder / name).is_file())
        raise ConfigError(f"{folder}: {names} must be converted, which a compile does", COMPILE_AGAIN)
    if found:
        print(
            f"hyperdex: {folder}: the tokenizer's files have changed since the compile; {COMPILE_AGAIN}",
            file=sys.stderr,
        )
    special = _special_tokens({**_read_json(folder / "special_tokens_map.json"), **config})
    return _Files(folder, folder / PLAIN if (folder / PLAIN).is_file() else folder, config, special)


def _of_built(folder: Path, place: Path, config: Mapping[str, Any], built: Mapping[str, Any]) -> _Files:
    file = (place if built["tokenizer"] == BUILT else folder) / built["tokenizer"]
    reading.check_small(file, reading.TOKENIZER)
    clean_up, split_special = (built.get(name) is True for name in ("clean_up", "split_special"))
    templates = built.get("chat_templates")
    return _Files(folder, file, config, built["special_tokens"], clean_up, split_special, templates)


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
