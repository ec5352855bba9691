"""Twenty conversations as people hold them: with tools, parts, nulls, reasoning, and text of every kind."""

from __future__ import annotations

from typing import Any

_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now. \"Quoted\", <b>bold</b> & 'single'.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Zürich, 東京, …"},
                "unit": {"type": "string", "enum": ["°C", "°F"]},
            },
            "required": ["city"],
        },
    },
}
_SUM = {
    "type": "function",
    "function": {"name": "add", "description": "a + b", "parameters": {"type": "object", "properties": {}}},
}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def _call(name: str, arguments: Any, number: int = 0) -> dict[str, Any]:
    return {
        "id": f"call{number:05d}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


_SYSTEM = {"role": "system", "content": "You are helpful.\nAnswer briefly."}
_CALLED = _assistant(None, tool_calls=[_call("get_weather", {"city": "Zürich", "unit": None})])
_ANSWER = {"role": "tool", "tool_call_id": "call00000", "name": "get_weather", "content": '{"t": 21.5}'}

#: Messages, and the other arguments of `apply_chat_template`.
CONVERSATIONS: tuple[tuple[list[dict[str, Any]], dict[str, Any]], ...] = (
    ([_user("Hello!")], {"add_generation_prompt": True}),
    ([_SYSTEM, _user("What is 12 + 345?")], {"add_generation_prompt": True}),
    ([_SYSTEM, _user("Hi"), _assistant("Hello."), _user("And now?")], {"add_generation_prompt": True}),
    ([_user("Käse, 日本, 👩‍👩‍👧, \u202e, \u00a0x, \ufeff"), _assistant(" naïve  \n\n")], {}),
    ([_user("{{ not }} {% a %} <|im_end|> </s> [INST]"), _assistant("&lt;b&gt; \"x\" 'y' \\n")], {}),
    ([_user([{"type": "text", "text": "Two "}, {"type": "text", "text": "parts"}])], {"add_generation_prompt": True}),
    ([_user([{"type": "image"}, {"type": "text", "text": "A picture"}]), _assistant("A cat")], {}),
    ([_user("Weather?")], {"tools": [_WEATHER], "add_generation_prompt": True}),
    ([_SYSTEM, _user("Weather?")], {"tools": [_WEATHER, _SUM], "add_generation_prompt": True}),
    ([_user("Weather?"), _CALLED, _ANSWER], {"tools": [_WEATHER], "add_generation_prompt": True}),
    ([_user("Weather?"), _CALLED, _ANSWER, _assistant("21.5 °C"), _user("Thanks")], {"tools": [_WEATHER]}),
    (
        [_user("Both"), _assistant("", tool_calls=[_call("add", {"a": 1, "b": [2, 3.5]}, 1), _call("add", "{}", 2)])],
        {"tools": [_SUM]},
    ),
    ([_user("Think"), _assistant("4", reasoning_content="2 + 2\nis 4")], {}),
    ([_user("Think"), _assistant("<think>\nso\n</think>\n\nyes"), _user("Again")], {"add_generation_prompt": True}),
    ([_user("Think"), _assistant("done", thinking="older name"), _user("x")], {"add_generation_prompt": True}),
    ([_user("Nulls"), _assistant(None), _user("?")], {"add_generation_prompt": True}),
    ([_user("Nulls"), _assistant("yes", tool_calls=None, name=None)], {"tools": None, "documents": None}),
    (
        [_user("Documents?")],
        {"documents": [{"title": "T", "text": "…"}, {"title": "U", "text": "x\ny"}], "add_generation_prompt": True},
    ),
    ([_user("  blanks  "), _assistant("\tends with blanks \n ")], {}),
    ([_user("Continue"), _assistant("It begins with ")], {"continue_final_message": True}),
)
