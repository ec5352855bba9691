"""Chat templates against transformers: the same text, byte for byte, or an error of ours where it raises one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SOAK
from support.conversations import CONVERSATIONS
from support.llama_cpp import needs_package, templates
from tokenizers import Tokenizer as BackendTokenizer
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import get_json_schema

from hyperdex_ir.errors import HyperdexError, OptionError, PromptError
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.runtime.tool_schema import schema_of
from hyperdex_ir.transformers import LpuTokenizer

SPECIAL = {
    "bos_token": "<s>",
    "eos_token": {
        "__type": "AddedToken",
        "content": "</s>",
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
    },
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "sep_token": "<sep>",
    "image_token": "<image>",
}
MESSAGES = [{"role": "user", "content": "Hello"}]


def write(folder: Path, **config: Any) -> Path:
    """A checkpoint's tokenizer of single words, and a tokenizer_config.json."""
    backend = BackendTokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "Hello": 3}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<s>", "</s>", "<unk>"])
    backend.save(str(folder / "tokenizer.json"))
    written = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Pair:
    """Our tokenizer and transformers', of the same files."""

    ours: LpuTokenizer
    theirs: PreTrainedTokenizerFast

    def check(self, template: str | None, messages: Any, /, **arguments: Any) -> str | None:
        """Compares; returns the text, None where both refuse."""
        call = {"conversation": messages, "chat_template": template, "tokenize": False, **arguments}
        expected, found = result_of(self.theirs, call), result_of(self.ours, call)
        assert isinstance(found, Exception) == isinstance(expected, Exception), (found, expected)
        if isinstance(expected, Exception):
            assert isinstance(found, HyperdexError), found
            assert "\n" not in str(found)
            return None
        assert found == expected
        return expected


def result_of(tokenizer: Any, call: dict[str, Any]) -> Any:
    try:
        return tokenizer.apply_chat_template(**call)
    except Exception as error:
        return error


def open_ours(folder: Path) -> LpuTokenizer:
    return LpuTokenizer(Tokenizer.load(folder))


def pair_of(folder: Path) -> Pair:
    return Pair(open_ours(folder), PreTrainedTokenizerFast.from_pretrained(folder))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(write(tmp_path_factory.mktemp("tokenizer")))


# ------------------------------------------------------------------------------------------- published templates
@needs_package()
@pytest.mark.parametrize("name", templates())
def test_published_templates(pair: Pair, name: str) -> None:
    """All conversations in a soak, else three of them, others for each template."""
    first = sorted(templates()).index(name)
    chosen = range(len(CONVERSATIONS)) if SOAK else [(first + step) % len(CONVERSATIONS) for step in (0, 7, 13)]
    for number in chosen:
        messages, arguments = CONVERSATIONS[number]
        pair.check(templates()[name], messages, **arguments)


# ------------------------------------------------------------------------------------------- features of templates
EVERYTHING = """
{%- set ns = namespace(count=0, self='x') -%}
{{- bos_token }}{{ image_token }}{{ sep_token }}{{ undefined_thing }}
{%- if tools is none and documents is none %} none of both {% endif %}
{%- if tools %}{{ tools | tojson(indent=2) }}{{ tools | tojson(separators=(',', ':'), sort_keys=True) }}{% endif %}
{%- if documents is not none %}{% for d in documents %}[{{ d.title }}: {{ d['text'] | trim }}]{% endfor %}{% endif %}
{% for message in messages %}
    {%- set ns.count = ns.count + 1 %}
    {%- if loop.index > 5 %}{% break %}{% endif %}
    {%- if message.role == 'tool' %}{{ message.content }}{% continue %}{% endif %}
    <{{ message['role'] }}>{{ message.content if message.content is string else (message.content or []) | tojson }}
    {%- generation %}{% set inner = 1 %}{{ message.reasoning_content }}{{ message.thinking }}{% endgeneration %}
    {%- if message.tool_calls is defined %}{{ message.tool_calls }}{{ message.tool_calls | tojson }}{% endif %}
    {{ inner is defined }}{{ message.items() | list }}{{ dict(a=1, **{'b': 2}) }}{{ dict.fromkeys(['k'], 1) }}
{%- endfor %}{{ ns.count }}
{% if add_generation_prompt %}<assistant>{% endif %}
"""


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_everything_that_templates_see(pair: Pair, number: int) -> None:
    messages, arguments = CONVERSATIONS[number]
    assert pair.check(EVERYTHING, messages, **arguments)


def test_values_of_every_type(pair: Pair) -> None:
    """Objects become text, as in transformers: a template must not reach their methods."""

    class Colour(StrEnum):
        RED = "red"

    @dataclass
    class Part:
        type: str
        text: str | None

    class Model:
        def model_dump(self) -> dict[str, Any]:
            return {"role": "user", "content": "dumped", "extra": None}

    values = [
        np.float32(1.5), np.int64(3), np.bool_(False), np.zeros(2), (1, "a"), {1: None, "b": (2,)}, {3, 4}, b"x",
        Colour.RED, Part("text", None), True, None, 1e300, float("inf"), -0.0, 10**40, object(),
    ]  # fmt: skip
    for value in values:
        shown = pair.check("{{ messages[0].content }}|{{ x }}", [{"role": "user", "content": [value]}], x=value)
        assert shown is not None
    assert pair.check("{{ messages }}", [Model(), {"role": "user", "content": [Part("text", None)], "name": None}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | tojson(separators=(',', ':')) }}",
        "{{ [1, {'a': none}] | tojson(ensure_ascii=True, indent='--') }}{{ '<é>' | tojson }}",
        "{% generation %}{% break %}{% endgeneration %}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ dict.__class__ }}{{ dict.mro }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception('no\nsuch thing') }}",
        "{{ messages[0].content.nothing }}{{ messages[7] }}",
        "{{ messages[0].nothing.nothing }}",
        "{% if %}",
        "{% include 'x' %}",
        "{{ messages.append(1) }}",
        "{{ strftime_now('%Y') }}",
        "",
    ],
)
def test_features_and_faults(pair: Pair, template: str) -> None:
    pair.check(template, MESSAGES)


@pytest.mark.parametrize("key", [True, "content", "reasoning_content", "thinking", "nothing"])
@pytest.mark.parametrize(
    "final",
    [
        {"content": "begins ", "thinking": "so "},
        {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}, {"type": "image"}]},
        {"content": [{"type": "image"}]},
        {"content": None, "reasoning_content": "since "},
    ],
)
def test_continued_messages(pair: Pair, final: dict[str, Any], key: Any) -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.thinking }}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.text | default('') | trim }}{% endfor %}{% endif %}</s>{% endfor %}"
    )
    messages = [*MESSAGES, {"role": "assistant", **final}]
    pair.check(template, messages, continue_final_message=key)
    pair.check("{{ messages[0].content }}", messages, continue_final_message=key)
    pair.check(template, messages, continue_final_message=key, add_generation_prompt=True)


LEAVES = st.sampled_from(
    ["\n", "  ", "text", "{{ m.content }}", "{{- m.role -}}", "{{ loop.index0 }}", "{{ eos_token }}",
     "{{ m | tojson }}", "{% set x = m.content %}", "{{ x }}", "{{ x | trim | upper }}", "{% set ns.a = loop.index %}",
     "{{ ns.a }}", "{% continue %}", "{% break %}", "{# note #}", "{{ m.tool_calls | tojson(indent=1) }}",
     "{{ m['x'].y }}",
     "{{ f('é') }}", "{{ m.content[:3] }}", "{{ m.items() | list }}", "{{ '%s' | format(m.role) }}", "{{ 'a' ~ m }}",
     "{{ m.content.split('e')[0] }}", "{{ tools | length }}", "{{ tools }}", "{% endif %}", "\r\n", "{{ x"]
)  # fmt: skip
AROUND = st.sampled_from(
    ["{%- if m.content is string -%}BODY{%- endif -%}", "{% if tools %}BODY{% else %}none{% endif %}",
     "{% if loop.first %}BODY\n    {% endif %}\n", "{% for p in m.content %}BODY{% endfor %}",
     "{% generation %}BODY{% endgeneration %}", "{% macro f(a) %}{{ a }}BODY{% endmacro %}",
     "{% set y %}BODY{% endset %}{{ y | length }}", "{% filter trim %}BODY{% endfilter %}",
     "{%+ if true +%}BODY{% endif %}"]
)  # fmt: skip
TEMPLATES = st.recursive(
    st.lists(LEAVES, max_size=4).map("".join),
    lambda inner: st.lists(st.builds(lambda around, body: around.replace("BODY", body), AROUND, inner), max_size=3).map(
        "".join
    ),
)


@settings(max_examples=2000 if SOAK else 60, deadline=None)
@given(TEMPLATES, st.integers(0, len(CONVERSATIONS) - 2))
def test_generated_templates(pair: Pair, body: str, number: int) -> None:
    messages, arguments = CONVERSATIONS[number]
    pair.check("{% set ns = namespace(a=0) %}{% for m in messages %}" + body + "{% endfor %}", messages, **arguments)


# ------------------------------------------------------------------------------------------- arguments
def test_batches_and_masks(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }} {% generation %}{{ m.content }}{% endgeneration %} {% endfor %}"
    both = pair_of(write(tmp_path, chat_template=template))
    batch = [MESSAGES, [*MESSAGES, {"role": "assistant", "content": "Hello Hello </s>"}]]
    assert both.check(None, batch) is not None
    for conversation in (batch, batch[1]):
        call = {"conversation": conversation, "return_assistant_tokens_mask": True}
        expected, found = both.theirs.apply_chat_template(**call), both.ours.apply_chat_template(**call)
        assert found["input_ids"] == expected["input_ids"]
        assert found["assistant_masks"] == expected["assistant_masks"]
    arrays = both.ours.apply_chat_template(batch[1], return_assistant_tokens_mask=True, return_tensors="np")
    assert arrays["assistant_masks"].shape == arrays["input_ids"].shape
    assert both.ours.apply_chat_template(batch, return_dict=False) == both.theirs.apply_chat_template(
        batch, return_dict=False
    )


def test_named_templates(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}]
    both = pair_of(write(tmp_path, chat_template=named))
    assert both.check(None, MESSAGES) == "plain"
    assert both.check(None, MESSAGES, tools=[]) == "0 tools"
    assert both.check("tool_use", MESSAGES, tools=[{"a": 1}]) == "1 tools"
    assert both.check("rag {{ messages[0].role }}", MESSAGES) == "rag user"
    assert both.ours.chat_template == both.theirs.chat_template
    folder = tmp_path / "additional_chat_templates"
    folder.mkdir()
    (folder / "rag.jinja").write_text("from a file\r\n{{ bos_token }}", newline="")
    files = pair_of(tmp_path)
    assert files.check(None, MESSAGES) is None, "the files replace the entry, and none is the default"
    assert files.check("rag", MESSAGES) == "from a file\n<s>"
    (tmp_path / "chat_template.jinja").write_text("the default")
    assert pair_of(tmp_path).check(None, MESSAGES) == "the default"


def test_a_broken_template_stops_only_itself(tmp_path: Path) -> None:
    folder = write(tmp_path, chat_template=[{"name": "default"}])
    ours = open_ours(folder)
    assert ours.encode("Hello") == [3]
    assert ours.apply_chat_template(MESSAGES, chat_template="{{ bos_token }}", tokenize=False) == "<s>"
    with pytest.raises(PromptError, match="an entry without name or template"):
        ours.apply_chat_template(MESSAGES)


@pytest.mark.parametrize(
    ("messages", "arguments", "line"),
    [
        ([], {}, "has no messages"),
        ("Hello", {}, "a list of messages, not str"),
        ({"role": "user"}, {}, "a list of messages, not dict"),
        (["Hello"], {}, "message 0 is of type str"),
        ([*MESSAGES, {"content": "x"}], {}, "message 1 has no role"),
        ([*MESSAGES, {"role": "user"}], {}, "message 1 has a role, but no content"),
        (MESSAGES, {"add_generation_promt": True}, "add_generation_promt: neither an argument"),
        (MESSAGES, {"tools": "x"}, "tools is of type str, expected a list"),
        (MESSAGES, {"tools": [1]}, "tools holds a int"),
        (MESSAGES, {"documents": ["x"]}, "documents holds something else than objects"),
        (MESSAGES, {"chat_template": 1}, "chat_template is of type int"),
        (MESSAGES, {"continue_final_message": True, "add_generation_prompt": True}, "exclude each other"),
        (MESSAGES, {"return_assistant_tokens_mask": True, "tokenize": False}, "needs return_dict and tokenize"),
        (MESSAGES, {"sanitize_control_tokens": True}, "is not there yet"),
    ],
)
def test_wrong_arguments(tmp_path: Path, messages: Any, arguments: dict[str, Any], line: str) -> None:
    ours = open_ours(write(tmp_path, chat_template="{{ messages }}{{ enable_thinking }}"))
    with pytest.raises(OptionError, match=line):
        ours.apply_chat_template(messages, **arguments)


def test_variables_that_a_template_reads(pair: Pair) -> None:
    template = (
        "{% macro m() %}{{ enable_thinking }}{% endmacro %}{{ m() }}{% if other is defined %}{{ other }}{% endif %}"
    )
    assert pair.check(template, MESSAGES, enable_thinking=False, other=(1,)) == "False(1,)"
    assert pair.check("{{ bos_token }}{{ eos_token }}", MESSAGES, bos_token="<mine>") == "<mine></s>"


def test_a_conversation_that_holds_itself(pair: Pair) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(OptionError, match="nested too deep, or holds itself"):
        pair.ours.apply_chat_template([{"role": "user", "content": endless}], chat_template="x")


def test_special_tokens_by_name(tmp_path: Path) -> None:
    """Tokens with names of the model's own, and an object with names."""
    template = "{{ bos_token }}{{ eos_token }}{{ image_token }}{{ boi_token }}{{ mask_token }}"
    for extra in ({"boi_token": "<boi>"}, ["<a>", "<b>"]):
        both = pair_of(write(tmp_path, extra_special_tokens=extra))
        assert both.check(template, MESSAGES)
        assert Tokenizer.load(tmp_path).special_tokens == both.theirs.special_tokens_map


# ------------------------------------------------------------------------------------------- tools as functions
def plain_tool(city: str, days: int = 3, *, exact: bool = False) -> list[dict[str, float]]:
    """Weather in a city.

    Several lines
    of it.

    Args:
        city (str): The city,
            on two lines
        days: How many days (choices: [1, 3, 7])
        exact: Exactly?

    Returns:
        Temperatures
    """
    return []


def hinted_tool(
    a: list[int] | None, b: Literal["x", 1, None], c: dict[str, list[str]], d: tuple[int, str], e: Any, f: int | str,
    g: list[int] | dict[str, int], h: dict, i: list, j: tuple, k: float = 1.0,
) -> None:  # fmt: skip
    """Hints.

    Args:
        a: a
        b: b
        c: c
        d: d
        e: e
        f: f
        g: g
        h: h
        i: i
        j: j
        k: k
    """


class Shade(Enum):
    """Values that a tool may take."""

    DARK = "dark"
    LIGHT = 2


class Holder:
    """An object whose method is a tool."""

    def method(self, shade: Shade) -> object:
        """A method.

        Args:
            shade: One of them
        """
        return shade


def no_docstring(x: int) -> int:
    return x


def no_hint(x) -> int:  # type: ignore[no-untyped-def]
    """No hint.

    Args:
        x: x
    """
    return x


def not_described(x: int, y: int) -> int:
    """Not described.

    Args:
        x: x
    """
    return x + y


def own_class(x: Holder, y: tuple[int], z: tuple[int, ...]) -> None:
    """Hints that have no schema.

    Args:
        x: x
        y: y
        z: z
    """


@pytest.mark.parametrize("tool", [plain_tool, hinted_tool, Holder().method, Holder.method])
def test_schemas_of_functions(tool: Callable[..., Any], pair: Pair) -> None:
    assert json.dumps(schema_of(tool)) == json.dumps(get_json_schema(tool))
    assert pair.check("{{ tools | tojson }}", MESSAGES, tools=[tool])


@pytest.mark.parametrize("tool", [no_docstring, no_hint, not_described, own_class])
def test_functions_without_a_schema(tool: Callable[..., Any], pair: Pair) -> None:
    with pytest.raises(OptionError, match=f"tool {tool.__name__}: "):
        schema_of(tool)
    assert pair.check("{{ tools | tojson }}", MESSAGES, tools=[tool]) is None
