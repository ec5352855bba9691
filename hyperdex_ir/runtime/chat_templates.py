"""The chat templates of a checkpoint: one, or several with names; chosen as transformers does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import OptionError, PromptError
from hyperdex_ir.support import reading
from hyperdex_ir.support.tokenizer_files import TEMPLATES, template_files

FILE = "chat_template.jinja"
_DEFAULT, _FOR_TOOLS = "default", "tool_use"


def read_templates(folder: Path, config: Mapping[str, Any], kept: Any = None) -> str | dict[str, str] | None:
    """The text of the only template, or of each by its name: in files of their own, else in tokenizer_config.json.

    config: its contents. kept: the templates of a folder that is not beside it.

    Raises PromptError for an entry of a wrong type, ConfigError for a file that cannot be read.
    """
    found: dict[str, str] = {}
    with suppress(FileNotFoundError):
        found[_DEFAULT] = reading.read_text(folder / FILE, reading.TEMPLATE)
    for path in template_files(folder):
        with suppress(FileNotFoundError):
            found[path.stem] = reading.read_text(path, reading.TEMPLATE)
    if kept is not None and not (folder / TEMPLATES).is_dir():
        found = {**(kept if isinstance(kept, dict) else {}), **found}
    if found:
        return found[_DEFAULT] if found.keys() == {_DEFAULT} else found
    return _of_config(config.get("chat_template"), folder / "tokenizer_config.json")


def _of_config(value: Any, path: Path) -> str | dict[str, str] | None:
    named = value
    if isinstance(value, list):
        named = {}
        for entry in value:
            if not isinstance(entry, dict) or not entry.keys() >= {"name", "template"}:
                raise PromptError(f"{path}: chat_template holds an entry without name or template")
            if not isinstance(entry["name"], str):
                raise PromptError(f"{path}: chat_template holds a name that is no text")
            named[entry["name"]] = entry["template"]
    for text in named.values() if isinstance(named, dict) else [named]:
        if text is not None and not isinstance(text, str):
            raise PromptError(f"{path}: chat_template is of type {type(text).__name__}, expected text")
    return None if named == {} else named


def choose_template(found: str | dict[str, str] | None, asked: str | None, has_tools: bool) -> str:
    """The template to render: `asked`, a template or the name of one; else that for tools if there is one, else the
    default. Raises PromptError when there is none, OptionError when `asked` is no text."""
    if asked is not None and not isinstance(asked, str):
        raise OptionError(f"chat_template is of type {type(asked).__name__}", "give a template, or the name of one")
    if isinstance(found, dict):
        return _choose_named(found, asked, has_tools)
    source = found if asked is None else asked
    if source is None:
        raise PromptError("the checkpoint has no chat template", "run without --chat")
    return source


def _choose_named(found: dict[str, str], asked: str | None, has_tools: bool) -> str:
    if asked is not None:
        return found.get(asked, asked)
    name = _FOR_TOOLS if has_tools and _FOR_TOOLS in found else _DEFAULT
    if name not in found:
        raise PromptError(
            f"the checkpoint has the chat templates {', '.join(sorted(found))}, and no {_DEFAULT}",
            "name one with chat_template=",
        )
    return found[name]
