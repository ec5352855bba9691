"""Jinja in a sandbox, with transformers' additions for chat templates. Runs in the child process of confined.py."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hyperdex_ir.errors import PromptError


class _GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}` marks training text; the text itself stays."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


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
    return environment


def render(source: str, variables: dict[str, Any]) -> str:
    """The text that a template makes. Raises PromptError when it is no template, refuses, or fails."""
    try:
        text = _environment().from_string(source).render(variables)
        text.encode()
        return text
    except TemplateSyntaxError as error:
        raise PromptError(f"the chat template's line {error.lineno}: {error.message}") from error
    except MemoryError:
        raise
    except Exception as error:  # a template is a program
        shown = str(error) or type(error).__name__
        raise PromptError(f"the chat template refuses this conversation: {shown}") from error
