"""Errors that a user can meet: each has a code, one line with the fault, its place and numbers, and a hint."""

from __future__ import annotations

import re
from typing import ClassVar

_LONGEST_WORD = 400  # characters of a word in an error: longer than a path, shorter than a spoiled file's words
_LONGEST_LINE = 1 << 14  # of an error or a log line, in characters
_ENDS = " \t\n'\"<>"  # some of the characters that end an address
_WORD = re.compile(r"[^\s'\"<>]+")

#: Hints of errors in files: in those that the compiler wrote, and in downloaded ones.
COMPILE_AGAIN, DOWNLOAD_AGAIN = "compile the model again", "download the file again"


class HyperdexError(Exception):
    """Base of all errors of this package that a user can meet.

    `str(error)` is one line. `hint` is the remedy, in one line, or is empty. Notes, as `add_note` leaves
    them, are excerpts of several lines: a text with a caret, an operation with its neighbours.
    """

    code: ClassVar[str] = "HDX0001"

    def __init__(self, message: str, hint: str = ""):
        super().__init__(_one_line(message))
        self.hint = _one_line(hint)

    @property
    def notes(self) -> list[str]:
        """The lines of all notes."""
        return [printable(line) for note in getattr(self, "__notes__", []) for line in note.splitlines()]


def redact(text: str) -> str:
    """The text with addresses as they may be shown: without user, password and the contents of a query."""
    return _WORD.sub(_redact_word, text) if "://" in text else text


def _redact_word(found: re.Match[str]) -> str:
    """The word redacted. Each stage reads the word once, however many addresses it looks like."""
    start, mark, address = found[0].partition("://")
    if not mark:
        return start
    _, user, host = address.rpartition("@")
    place, query, _ = host.partition("?")
    return f"{start}{mark}{'***@' if user else ''}{place}{'?***' if query else ''}"


def _bounded(text: str) -> str:
    """The text, cut short where it is too long for a line. An address that the cut is in is left out whole."""
    if len(text) <= _LONGEST_LINE:
        return text
    text = text[:_LONGEST_LINE]
    last = max(map(text.rfind, _ENDS)) + 1
    start, mark, _ = text[last:].partition("://")
    return f"{text[:last]}{start}{mark and '://***'}..."


def _one_line(text: str) -> str:
    """The text on one printable line, with words of bounded length: errors quote files."""
    text = redact(_bounded(text))  # before a word is cut short behind a password
    shown = " ".join(word if len(word) <= _LONGEST_WORD else f"{word[:_LONGEST_WORD]}..." for word in text.split())
    return printable(shown)


def printable(text: str) -> str:
    """A bounded line as it may be shown: redacted, with control and unprintable characters as Python writes them."""
    text = redact(_bounded(text))
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ModelNotFoundError(HyperdexError):
    """No such directory, and not a Hub id."""

    code = "HDX0101"


class ConfigError(HyperdexError):
    """config.json is missing, broken, or holds values that make no model."""

    code = "HDX0102"


class UnsupportedModelError(HyperdexError):
    """The architecture, or a mechanism of it, is not supported."""

    code = "HDX0103"


class UnsupportedOpError(HyperdexError):
    """The traced model holds operations that the importer does not know."""

    code = "HDX0104"


class DownloadError(HyperdexError):
    """A file could not be fetched from the Hub."""

    code = "HDX0105"


class AccessError(DownloadError):
    """The Hub does not give access to the model."""

    code = "HDX0106"


class CheckpointError(HyperdexError):
    """The weights are missing, mis-shaped, too many, truncated, or outside the matrix type's range."""

    code = "HDX0201"


class CapacityError(HyperdexError):
    """Something does not fit the target: HBM, LMU, or an instruction field."""

    code = "HDX0301"


class OptionError(HyperdexError):
    """An argument has a value that cannot be used."""

    code = "HDX0302"


class MemoryCeilingError(HyperdexError):
    """The compile needs more memory than max_ram allows."""

    code = "HDX0303"


class PassError(HyperdexError):
    """A pass failed, or left a module that does not verify."""

    code = "HDX0401"


class LoweringError(HyperdexError):
    """The module holds something that the machine cannot do."""

    code = "HDX0402"


class AssemblyError(HyperdexError):
    """Assembly text that does not parse, or an operand out of its range."""

    code = "HDX0403"


class ExtensionError(HyperdexError):
    """An entry point of an installed package cannot be used."""

    code = "HDX0404"


class FileFormatError(HyperdexError):
    """A binary file is truncated, corrupted, of another version, or not ours."""

    code = "HDX0501"


class NotCompiledError(HyperdexError):
    """The model has not been compiled (for this number of devices)."""

    code = "HDX0502"


class StorageError(HyperdexError):
    """The file system refused: disk full, no permission."""

    code = "HDX0503"


class MachineFault(HyperdexError):
    """An instruction did what the machine forbids: an access out of bounds, an uninitialised read."""

    code = "HDX0601"


class NumericError(HyperdexError):
    """A NaN or an infinity was made on the device."""

    code = "HDX0602"


class PromptError(HyperdexError):
    """The prompt is empty, or longer than the compiled model holds."""

    code = "HDX0603"


class DeadlineError(HyperdexError):
    """A step took longer than it was allowed to."""

    code = "HDX0604"


class PeerError(HyperdexError):
    """Another process of a distributed run is lost, does not answer, has failed, or runs something else."""

    code = "HDX0605"
