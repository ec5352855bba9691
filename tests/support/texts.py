"""Texts that tell tokenizers apart."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_BLANKS = ["", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "\x00", "\x85"]
_WORDS = [
    "Hello", "world", "don't", "THEY'VE", "x=1;", "3.14159", "1234567", "naïve", "cafe\u0301", "ﬁne", "Ⅻ", "ß", "İ",
    "日本語", "한국어", "ไทย", "हिन्दी", "עברית", "العربية", "👩‍👩‍👧", "🏳️‍🌈", "▁", "Ġ", "##x", "<0x0A>", "[UNK]", "\\n",
    "http://a.b/?c=d&e",
    "'s", "...", "!?", "—", "“q”", "a_b", "CamelCase", "€", "½", "x²",
]  # fmt: skip
#: First and last character of some blocks in several planes.
_BLOCKS = [(0x20, 0x7E), (0xA1, 0x17F), (0x300, 0x36F), (0x400, 0x4FF), (0x900, 0x97F), (0x2000, 0x206F),
           (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFF00, 0xFFFD),
           (0x10000, 0x1007F), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF), (0xF0000, 0xF00FF),
           (0x10FF00, 0x10FFFF)]  # fmt: skip


def texts(count: int, special: Sequence[str] = (), seed: int = 0) -> Iterator[str]:
    """Texts of characters of every plane, blanks, bytes at random, and each special token in every place."""
    chance = random.Random(seed)
    places = [
        form.replace("TOKEN", token) for token in special for form in ("TOKEN", "aTOKENb", " TOKEN ", "TOKENTOKEN")
    ]
    yield from places[:count]
    for _ in range(count - len(places)):
        yield "".join(_piece(chance, special) for _ in range(chance.randrange(1, 9)))


def _piece(chance: random.Random, special: Sequence[str]) -> str:
    kind = chance.randrange(6)
    if kind == 0:
        return chance.choice(_BLANKS) * chance.randrange(1, 4)
    if kind == 1:
        first, last = chance.choice(_BLOCKS)
        return "".join(chr(chance.randint(first, last)) for _ in range(chance.randrange(1, 6)))
    if kind == 2:
        return chance.randbytes(chance.randrange(1, 9)).decode("utf-8", "replace")
    if kind == 3 and special:
        return chance.choice(special)
    return chance.choice(_WORDS) + chance.choice(["", " ", " ", "  "])
