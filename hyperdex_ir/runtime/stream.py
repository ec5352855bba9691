"""Token ids to text while they arrive."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TextIO

from hyperdex_ir.errors import OptionError

_REPLACEMENT = "\ufffd"
#: The most bytes of a character in UTF-8.
_LONGEST = 4


class Decoder(Protocol):
    """A decoder of ids to text: our tokenizers, and transformers' own."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = ...) -> str: ...


class Detokenizer:
    """Incremental decoding: the pieces joined are the text of all ids, and no piece ends inside a UTF-8 character.

    Bytes that form no character are held back for the length of one at most.
    """

    def __init__(self, tokenizer: Decoder, skip_special_tokens: bool = False):
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._context = 0  # ids before it are done with
        self._read = 0  # ids before it have been returned as text

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip)

    def push(self, token: int) -> str:
        """Takes one id; returns the text that is complete now, often one token's, sometimes none."""
        self._ids.append(token)
        return self._take(final=False)

    def finish(self) -> str:
        """Returns the text that is held back, an unfinished character as U+FFFD, and starts anew."""
        text = self._take(final=True)
        self._ids, self._context, self._read = [], 0, 0
        return text

    def _take(self, final: bool) -> str:
        known = self._text(self._ids[self._context : self._read])
        text = self._text(self._ids[self._context :])
        if text.endswith(_REPLACEMENT) and not final:
            return self._take_certain(known, text)
        if len(text) <= len(known):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _take_certain(self, known: str, text: str) -> str:
        """The part of a text that no further byte can change; the end may be the beginning of a character."""
        if len(self._ids) - self._read < _LONGEST:
            return ""
        for middle in range(len(self._ids) - 1, len(self._ids) - _LONGEST, -1):
            before, after = self._text(self._ids[self._context : middle]), self._text(self._ids[middle:])
            # Otherwise the two parts share a character.
            if after and before + after == text:
                self._context, self._read = self._read, middle
                return before[len(known) :]
        return ""


class TextStreamer:
    """Writes the text of a generation to `output` (standard output by default) while its tokens arrive.

    The interface is transformers': `put` takes the prompt's ids first, then new ids; `end` closes.
    skip_prompt: does not write the prompt. decode_kwargs: `skip_special_tokens`.
    """

    def __init__(
        self, tokenizer: Decoder, skip_prompt: bool = False, *, output: TextIO | None = None, **decode_kwargs: Any
    ):
        skip_special_tokens = bool(decode_kwargs.pop("skip_special_tokens", False))
        if decode_kwargs:
            raise TypeError(f"TextStreamer has no argument {next(iter(decode_kwargs))!r}")
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens)
        self._skip_prompt = skip_prompt
        self._in_prompt = True
        self._output = output

    def put(self, value: Any) -> None:
        """Takes ids: a number, a list, an array or a tensor, of shape [], [n] or [1, n]."""
        first, self._in_prompt = self._in_prompt, False
        if first and self._skip_prompt:
            return
        for token in flat_ids(value):
            self.on_finalized_text(self._detokenizer.push(token))

    def end(self) -> None:
        """Writes the text that is held back, and a line end."""
        self._in_prompt = True
        self.on_finalized_text(self._detokenizer.finish(), stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called with each complete piece of text; override it to send the text elsewhere."""
        output = self._output or sys.stdout
        output.write(text + ("\n" if stream_end else ""))
        output.flush()


def flat_ids(value: Any) -> Iterable[int]:
    """The ids in a number, list, array or tensor, flattened. Raises OptionError for anything else."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, int):
        yield listed
        return
    if not isinstance(listed, Iterable) or isinstance(listed, (str, bytes)):
        raise OptionError(f"{listed!r}: not token ids", "give whole numbers")
    for item in listed:
        yield from flat_ids(item)
