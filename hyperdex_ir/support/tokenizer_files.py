"""The files of a tokenizer: those of the checkpoint, and those in which a compile keeps the tokenizer made of them.

    hyperdex_tokenizer_config.json  {"format", "made_of", "tokenizer", "special_tokens", "clean_up", "split_special",
                                     "model_max_length", "model_input_names", "chat_templates"}
    hyperdex_tokenizer.json         the tokenizer, only where the checkpoint's tokenizer.json does not hold the same

`made_of` identifies the checkpoint's files, so that files which were edited since are noticed.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.support import reading
from hyperdex_ir.support.reading import TOKENIZER_FILES

BUILT, BUILT_CONFIG = "hyperdex_tokenizer.json", "hyperdex_tokenizer_config.json"
FORMAT = 1
CONFIG = "tokenizer_config.json"
TEMPLATES = "additional_chat_templates"
#: Checkpoints with several templates have two or three.
_MOST_TEMPLATES = 64
#: The file that needs no conversion.
PLAIN = "tokenizer.json"
#: Files that each are a whole vocabulary, and that only a conversion can read: name -> Python packages that it needs.
CONVERTED = {
    **dict.fromkeys(
        ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"), ("sentencepiece", "google.protobuf")
    ),
    "tiktoken.model": ("tiktoken",),
    "tekken.json": ("mistral_common",),
}

#: Blanks that are removed where settings ask for it, in this order.
_BLANKS = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def made_of(folder: Path) -> dict[str, str]:
    """A digest of each tokenizer file in a folder, by name. Chat templates in the settings do not count.

    Raises ConfigError for a file that cannot be read, and for settings that are no JSON object.
    """
    found: dict[str, str] = {}
    for name, kind in TOKENIZER_FILES.items():
        with suppress(FileNotFoundError):
            digest = reading.sha256_of(folder / name, kind)
            found[name] = _settings_digest(folder) if name == CONFIG else digest
    return found


def _settings_digest(folder: Path) -> str:
    return hashlib.sha256(json.dumps(read_settings(folder), sort_keys=True).encode()).hexdigest()


def template_files(folder: Path) -> list[Path]:
    """The chat templates of a checkpoint that lie in a folder of their own, each in a file that has its name."""
    return sorted((folder / TEMPLATES).glob("*.jinja"))[:_MOST_TEMPLATES]


def read_settings(folder: Path) -> dict[str, Any]:
    """The contents of tokenizer_config.json but for chat templates, {} when there is none. Raises as `made_of`."""
    try:
        values = reading.read_object(folder / CONFIG, TOKENIZER_FILES[CONFIG])
    except FileNotFoundError:
        return {}
    return {name: value for name, value in values.items() if name != "chat_template"}


def read_built(folder: Path) -> dict[str, Any] | None:
    """The contents of hyperdex_tokenizer_config.json; None when there is none that can be used."""
    try:
        value = reading.read_object(folder / BUILT_CONFIG, reading.TABLE)
    except (FileNotFoundError, FileFormatError):
        return None
    special = value.get("special_tokens")
    fits = value.get("format") == FORMAT and value.get("tokenizer") in (BUILT, PLAIN)
    is_whole = isinstance(special, dict) and all(isinstance(text, str) for text in special.values())
    return value if fits and is_whole and isinstance(value.get("made_of"), dict) else None


def clean_blanks(text: str) -> str:
    """The text without blanks before punctuation, as transformers writes it."""
    for blank, mark in _BLANKS:
        text = text.replace(blank, mark)
    return text
