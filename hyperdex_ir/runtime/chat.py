"""Chat templates: programs in Jinja that come with a checkpoint, rendered in a process of their own."""

from __future__ import annotations

import base64
import marshal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperdex_ir.errors import OptionError, PromptError
from hyperdex_ir.runtime.chat_values import REASONING, plain, plain_messages
from hyperdex_ir.runtime.tool_schema import schema_of
from hyperdex_ir.support import reading
from hyperdex_ir.support.confined import Confined, Limits

_LIMITS = Limits(seconds=5, memory=512 << 20, answer=32 << 20, grown=True)
_WHAT = "the chat template"
_WORK = "hyperdex_ir.runtime.chat_environment:render"
#: Stands at the end of a message that is to be continued. The blank shows whether the template keeps blanks.
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


@dataclass(frozen=True)
class Rendered:
    """The prompt text of a conversation. spans: places in it, [start, end), that the template marks as an answer."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


class ChatTemplate:
    """A chat template. process: the process that renders it, by default one of its own. Raises PromptError when the
    text is too long."""

    def __init__(self, source: str, process: Confined | None = None):
        size = len(source.encode("utf-8", "surrogatepass"))
        if size > reading.TEMPLATE.limit:
            raise PromptError(f"{_WHAT} has {size} bytes, the most that is read is {reading.TEMPLATE.limit}")
        self._source = source
        self._process = process or Confined()

    def render(
        self,
        messages: Any,
        add_generation_prompt: bool = False,
        *,
        tools: Iterable[Any] | None = None,
        documents: Iterable[Any] | None = None,
        continue_final_message: bool | str = False,
        special_tokens: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """The prompt text for a conversation of messages with `role` and `content`, as transformers makes it.

        continue_final_message: leaves the last message open, after its `content` or the key that is given. The template
        sees `special_tokens` by their names, and `variables`, which it must use.

        Raises OptionError for messages, tools or documents of a wrong form, and for variables that the template does
        not use; PromptError when the template is not valid, refuses the conversation, fails, or takes more than 5 s,
        512 MiB, or 32 MiB of text as JSON.
        """
        if continue_final_message and add_generation_prompt:
            raise OptionError("continue_final_message and add_generation_prompt exclude each other", "give one of them")
        chat, final = plain_messages(messages), None
        if continue_final_message:
            key = continue_final_message if isinstance(continue_final_message, str) else "content"
            final = self._open_end(chat[-1], key)
        values = {
            **plain(special_tokens or {}),
            **plain(variables or {}),
            "messages": chat,
            "tools": None if tools is None else plain([schema_of(tool) for tool in _each("tools", tools)]),
            "documents": None if documents is None else _documents(documents),
            "add_generation_prompt": plain(add_generation_prompt),
        }
        rendered = self._render(values, sorted(variables or ()))
        return rendered if final is None else Rendered(_cut_open(rendered.text, final))

    def _render(self, values: dict[str, Any], asked: Sequence[str]) -> Rendered:
        # JSON would turn tuples into lists and numbers that are keys into text.
        try:
            packed = base64.b64encode(marshal.dumps(values)).decode()
        except ValueError:
            raise OptionError("the conversation is nested too deep") from None
        work = {"work": _WORK, "source": self._source, "variables": packed, "asked": asked}
        answer = self._process.ask(work, _LIMITS, _WHAT, PromptError)
        return Rendered(answer["text"], tuple((start, end) for start, end in answer["spans"]))

    def _open_end(self, message: dict[Any, Any], key: str) -> str:
        """Marks the end of the message to continue; returns its text. Raises OptionError when it has none."""
        text = message.get(key)
        if text is None:
            raise OptionError(f"continue_final_message: the last message has no {key}", f"give it a {key}")
        keys = [key] if key not in REASONING else [name for name in REASONING if message.get(name) == text]
        if not any(name in self._source for name in keys):
            raise OptionError(f"continue_final_message: the chat template does not use {key}", "continue another key")
        holders: list[tuple[Any, str]] = [(message, name) for name in keys]
        if isinstance(text, list | tuple):
            parts = [part for part in text if isinstance(part, dict) and "text" in part]
            holders = [(part, "text") for part in parts[-1:]]
            text = parts[-1]["text"] if parts else None
        if not isinstance(text, str):
            raise OptionError(f"continue_final_message: {key} of the last message holds no text", "give it some")
        for holder, name in holders:
            holder[name] = text + _TAG
        return text


def _cut_open(text: str, final: str) -> str:
    """The text up to the end of the last message, which is `final`. Raises PromptError when it is not in the text."""
    tag = _TAG.strip()
    if final.strip() not in text or tag not in text:
        raise PromptError(f"{_WHAT} leaves out the end of the last message: it cannot be continued")
    end = text.rindex(tag)
    return text[:end] if text[end : end + len(_TAG)] == _TAG else text[:end].rstrip()


def _documents(documents: Iterable[Any]) -> Any:
    if not all(isinstance(document, dict) for document in _each("documents", documents)):
        raise OptionError("documents holds something else than objects", 'give [{"title": ..., "text": ...}]')
    return plain(documents)


def _each(name: str, values: Any) -> Iterable[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise OptionError(f"{name} is of type {type(values).__name__}, expected a list")
    return values
