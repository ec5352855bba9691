"""Chat templates: programs in Jinja that come with a checkpoint, rendered in a process of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hyperdex_ir.errors import OptionError, PromptError
from hyperdex_ir.runtime.confined import Confined, Limits
from hyperdex_ir.support import reading

_LIMITS = Limits(seconds=5, memory=512 << 20, answer=32 << 20, grown=True)
_WHAT = "the chat template"


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
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False, **variables: Any
    ) -> str:
        """The prompt text for a conversation of messages with `role` and `content`.

        Messages and variables are what JSON can hold. Raises OptionError when they are not; PromptError when the
        template is not valid, refuses the conversation, fails, or takes more than 5 s, 512 MiB, or 32 MiB of text as
        JSON.
        """
        given = {**variables, "messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            plain = json.loads(json.dumps(given, default=_plain))
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(f"the conversation is not what JSON can hold: {error}") from None
        return self._process.ask(
            {"work": "render", "source": self._source, "variables": plain}, _LIMITS, _WHAT, PromptError
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"there is a {type(value).__name__}")
