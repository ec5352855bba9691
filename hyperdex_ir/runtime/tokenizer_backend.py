"""Text to token ids and back, by the library, on one folder's files. Runs in the child process of confined.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from hyperdex_ir.errors import ConfigError


class Backend:
    """The tokenizer of a folder: its tokenizer.json, else vocab.json and merges.txt, a byte-level BPE.

    special: text of each special token, by name. flags: `add_prefix_space` and `add_bos_token`, for the second form.
    Raises ConfigError when the files make no tokenizer.
    """

    def __init__(self, folder: str, special: Mapping[str, str], flags: Mapping[str, bool]):
        path = Path(folder)
        if (path / "tokenizer.json").is_file():
            self._tokenizer = _read(path / "tokenizer.json")
        else:
            self._tokenizer = _byte_level_bpe(path, special, flags)
        self._special = dict(special)

    def summary(self) -> dict[str, Any]:
        """Number of tokens, added ones included, and the id of each special token that is one."""
        found = {name: self._tokenizer.token_to_id(text) for name, text in self._special.items()}
        return {"vocab_size": self._tokenizer.get_vocab_size(with_added_tokens=True), "ids": found}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def offsets(self, text: str, add_special_tokens: bool) -> list[tuple[int, int]]:
        """The place of each of these ids in the text."""
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).offsets

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        """Text of ids."""
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


def _read(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{path}: not a tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _byte_level_bpe(folder: Path, special: Mapping[str, str], flags: Mapping[str, bool]) -> Tokenizer:
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{folder}: vocab.json and merges.txt make no tokenizer: {error}") from None
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=flags["add_prefix_space"])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()])
    bos = special.get("bos_token")
    if flags["add_bos_token"] and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer
