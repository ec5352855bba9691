"""Jinja in a sandbox, with transformers' additions for chat templates. Runs in the child process of confined.py."""

from __future__ import annotations

import base64
import json
import marshal
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from hyperdex_ir.errors import OptionError, PromptError

#: What a template has written so far, and the places of text that it marks.
_TRACE: ContextVar[tuple[list[str], list[tuple[int, int]]]] = ContextVar("trace")


class _GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}` marks training text; the text itself stays."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Macro) -> str:
        text, (blocks, spans) = caller(), _TRACE.get()
        start = sum(map(len, blocks))
        spans.append((start, start + len(text)))
        return text


class _Dictionary:
    """`dict` without the attributes of a class."""

    def __call__(self, *items: Any, **named: Any) -> dict[Any, Any]:
        return dict(*items, **named)

    def fromkeys(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments, **named)


class _PlainNamespace(Namespace):
    """A namespace without attributes of Python's own."""

    def __init__(*arguments: Any, **named: Any) -> None:
        own, *given = arguments  # the name `self` is free for the template
        attributes = dict(*given, **named)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(own, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}: names that begin with _ are not allowed")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _environment() -> Environment:
    # Not optimized: the work that a template does on constants belongs to its rendering.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = _Dictionary()
    environment.globals["namespace"] = _PlainNamespace
    return environment


def render(source: str, variables: str, asked: list[str]) -> dict[str, Any]:
    """The text that a template makes, and the places `[start, end]` of the text that it marks.

    variables: name -> value, packed by `ChatTemplate`. asked: names that the template must have a use for.

    Raises PromptError when it is no template, refuses, or fails, and OptionError for a name that it does not use.
    """
    try:
        environment = _environment()
        _check_used(environment, source, asked)
        template, values = environment.from_string(source), marshal.loads(base64.b64decode(variables))
        blocks: list[str] = []
        spans: list[tuple[int, int]] = []
        _TRACE.set((blocks, spans))
        blocks.extend(template.generate(values))
        text = "".join(blocks)
        text.encode()
        return {"text": text, "spans": spans}
    except TemplateSyntaxError as error:
        raise PromptError(f"the chat template's line {error.lineno}: {error.message}") from error
    except (MemoryError, OptionError):
        raise
    except Exception as error:  # a template is a program
        shown = str(error) or type(error).__name__
        raise PromptError(f"the chat template refuses this conversation: {shown}") from error


def _check_used(environment: Environment, source: str, asked: list[str]) -> None:
    """Raises OptionError for a variable that the template never reads: a misspelled argument, most likely."""
    if not asked:
        return
    used = meta.find_undeclared_variables(environment.parse(source))
    unknown = [name for name in asked if name not in used]
    if unknown:
        known = ", ".join(sorted(used)) or "none"
        raise OptionError(
            f"{', '.join(unknown)}: neither an argument of apply_chat_template nor a variable of the chat template",
            f"the template's variables: {known}",
        )
