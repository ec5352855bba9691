"""The tokenizer that transformers builds of a checkpoint's files, as text that the library of tokenizers reads.

Runs in the child process of confined.py, without torch: the files may be a stranger's. The result is compared with
transformers' own tokenizer on texts of every kind.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hyperdex_ir.errors import ConfigError
from hyperdex_ir.support.tokenizer_files import PLAIN, clean_blanks

#: Texts that tell tokenizers apart: blanks, cases, digits, scripts, planes, joined and bare marks, controls.
SAMPLES = (
    "", " ", "  ", "\n", "\r\n\t", "a", " a", "a ", "  Hello,  world!  ", "don't I'll THEY'VE x=1; y+=2",
    "12 345 6789 3.14 1e-5", "naïve café cafe\u0301 Ångström ﬁ ½ ²",
    "日本語のテキスト 中文 한국어 ไทย हिन्दी עברית العربية",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f600\U0001f9d1\U0001f3fd",
    "\u0000\u0007\u001b \u00a0\u2003\u200b\u202e\ufeff\ufffd\U0010fffd", "\U0001d54f\U0001d51e\U0001d7d9 \U00020000",
    "def f(x):\n    return x  # ok\n\n\n", "<a href='x'>&amp;</a> {{x}} [INST] ▁ ▁▁x Ġ Ċ <0x0A>", "a" * 40,
)  # fmt: skip
_LAST = 8
_THE_TEXT_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]
#: Packages that transformers would import and that a tokenizer does not need.
_HIDDEN = ("torch", "torchvision", "PIL", "scipy", "sklearn", "pandas", "librosa", "av", "cv2")


def convert(root: str, name: str) -> dict[str, Any]:
    """The tokenizer of the folder `name` in `root`, as `describe`.

    name: with a slash, the Hub's, by which transformers knows models with wrong settings. Raises ConfigError when
    transformers cannot make it.
    """
    os.chdir(root)
    return describe(_open(name), Path(name))


def describe(theirs: Any, folder: Path) -> dict[str, Any]:
    """A tokenizer of transformers as JSON values: `tokenizer`, its text; `settings`; `last`, the tokens of the highest
    ids, [id, text]. There is no text when the folder's tokenizer.json holds the same.

    Raises ConfigError when it is not made of the library's parts, or has abilities of its own.
    """
    backend = getattr(theirs, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigError(f"transformers reads it in Python only ({type(theirs).__name__}): it cannot be converted")
    text = _text_of(backend)
    ours = Tokenizer.from_str(text)
    ours.encode_special_tokens = theirs.split_special_tokens
    settings = {
        "special_tokens": theirs.special_tokens_map,
        "clean_up": _cleans_up(theirs),
        "split_special": bool(theirs.split_special_tokens),
        "model_max_length": theirs.model_max_length if theirs.model_max_length < 1 << 31 else None,
        "model_input_names": list(theirs.model_input_names),
    }
    _compare(theirs, ours, settings["clean_up"])
    plain = folder / PLAIN
    is_same = plain.is_file() and _parts(_text_of(Tokenizer.from_file(str(plain)))) == _parts(text)
    last = sorted(((number, token) for token, number in backend.get_vocab().items()), reverse=True)[:_LAST]
    return {"tokenizer": None if is_same else text, "settings": settings, "last": last}


def _open(name: str) -> Any:
    find_spec = importlib.util.find_spec

    def without_others(module: str, package: str | None = None) -> ModuleSpec | None:
        return None if module.partition(".")[0] in _HIDDEN else find_spec(module, package)

    importlib.util.find_spec = without_others
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"transformers cannot make it: {lines[0]}") from None


def _text_of(tokenizer: Tokenizer) -> str:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.to_str()


def _parts(text: str) -> dict[str, Any]:
    """The parts of a tokenizer, without a template that adds nothing: transformers puts one where there is none."""
    parts = json.loads(text)
    if (parts["post_processor"] or {}).get("single") == _THE_TEXT_ALONE:
        parts["post_processor"] = None
    return parts


def _cleans_up(theirs: Any) -> bool:
    """Test that decoding removes blanks before punctuation, which transformers does for a BPE only if it is forced."""
    is_bpe = type(theirs.backend_tokenizer.model).__name__ == "BPE"
    forced = theirs.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
    return bool(theirs.clean_up_tokenization_spaces) and (not is_bpe or bool(forced))


def _texts(theirs: Any) -> Iterator[str]:
    yield from SAMPLES
    for token in list(theirs.get_added_vocab())[:64]:
        yield from (token, f"a{token}b", f" {token}  {token} ")


def _compare(theirs: Any, ours: Tokenizer, clean_up: bool) -> None:
    """Raises ConfigError when the two differ in a text."""
    for text in _texts(theirs):
        for special in (True, False):
            ids = theirs(text, add_special_tokens=special)["input_ids"]
            if ids != ours.encode(text, add_special_tokens=special).ids:
                raise ConfigError(f"its copy differs from transformers' in the ids of {text!r}")
            found = ours.decode(ids, skip_special_tokens=not special)
            if theirs.decode(ids, skip_special_tokens=not special) != (clean_blanks(found) if clean_up else found):
                raise ConfigError(f"its copy differs from transformers' in the text of {ids}")
