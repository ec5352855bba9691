"""Meanings of the error codes, from errors.toml: the one text behind `hyperdex explain` and docs/errors.md."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from hyperdex_ir.errors import HyperdexError, OptionError

_FILE = "errors.toml"


@dataclass(frozen=True)
class Explanation:
    """One code: its meaning, its causes, a line as it is printed, the remedy."""

    code: str
    title: str
    cause: str
    example: str
    remedy: str

    def lines(self) -> list[str]:
        """The text for a terminal."""
        return [
            f"{self.code}: {self.title}",
            "",
            self.cause,
            "",
            f"    {self.example}",
            "",
            f"What to do: {self.remedy}",
        ]

    def markdown(self) -> str:
        """A section of docs/errors.md."""
        return f"## {self.code}\n\n**{self.title}**\n\n{self.cause}\n\n```text\n{self.example}\n```\n\n{self.remedy}\n"


def error_classes(base: type[HyperdexError] = HyperdexError) -> Iterator[type[HyperdexError]]:
    """The class of every code, the base first."""
    yield base
    for derived in base.__subclasses__():
        yield from error_classes(derived)


def explanations() -> dict[str, Explanation]:
    """Code -> explanation, in the order of the codes."""
    titles = {one.code: " ".join((one.__doc__ or "").split("\n\n")[0].split()) for one in error_classes()}
    titles[HyperdexError.code] = "An internal error."
    texts = tomllib.loads((resources.files("hyperdex_ir.errors") / _FILE).read_text(encoding="utf-8"))
    return {
        code: Explanation(code, titles[code], text["cause"].strip(), text["example"], text["remedy"].strip())
        for code, text in texts.items()
    }


def explain(code: str) -> Explanation:
    """The explanation of one code, written HDX0102, hdx0102 or 102. Raises OptionError for a code that is none."""
    found = explanations()
    digits = code.upper().removeprefix("HDX")
    wanted = f"HDX{digits:0>4}"
    if wanted not in found:
        raise OptionError(f"{code}: no such error code", f"codes are {', '.join(found)}")
    return found[wanted]
