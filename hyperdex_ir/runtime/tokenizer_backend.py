"""Text to token ids and back, by the library, on one folder's files. Runs in the child process of confined.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from hyperdex_ir.errors import ConfigError
from hyperdex_ir.support.tokenizer_files import clean_blanks


@dataclass
class _Opened:
    """The tokenizer of this process. clean_up: remove blanks before punctuation from decoded text."""

    tokenizer: Tokenizer
    clean_up: bool


_opened: list[_Opened] = []


def load(
    file: str, special: dict[str, str], flags: dict[str, bool], clean_up: bool, split_special: bool
) -> dict[str, Any]:
    """Opens a tokenizer; its number of tokens, added ones included, and the id of each special token that is one.

    file: a tokenizer.json, or the folder of vocab.json and merges.txt, a byte-level BPE. special: text of each special
    token, by name. flags: `add_prefix_space` and `add_bos_token`, for the second form. split_special: read special
    tokens in a text as other text.

    Raises ConfigError when the files make no tokenizer.
    """
    path = Path(file)
    tokenizer = _byte_level_bpe(path, special, flags) if path.is_dir() else _read(path)
    tokenizer.encode_special_tokens = split_special
    _opened[:] = [_Opened(tokenizer, clean_up)]
    found = {name: tokenizer.token_to_id(text) for name, text in special.items()}
    return {"vocab_size": tokenizer.get_vocab_size(with_added_tokens=True), "ids": found}


def encode(text: str, add_special_tokens: bool) -> list[int]:
    """Ids of a text."""
    return _opened[0].tokenizer.encode(text, add_special_tokens=add_special_tokens).ids


def offsets(text: str, add_special_tokens: bool) -> list[tuple[int, int]]:
    """The place of each of these ids in the text."""
    return _opened[0].tokenizer.encode(text, add_special_tokens=add_special_tokens).offsets


def decode(ids: list[int], skip_special_tokens: bool) -> str:
    """Text of ids."""
    text = _opened[0].tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
    return clean_blanks(text) if _opened[0].clean_up else text


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
