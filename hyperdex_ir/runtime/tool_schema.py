"""JSON schemas of Python functions, from type hints and a docstring in Google's form, as transformers makes them.

A chat template shows the schemas of the tools that a model may call.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from hyperdex_ir.errors import OptionError

_SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_CONTAINERS = {list: "array", tuple: "array", dict: "object"}
#: Types of other packages, where these are loaded: module, class, type in the schema.
_MEDIA = (("PIL.Image", "Image", "image"), ("torch", "Tensor", "audio"))
_NO_DEFAULT = inspect.Parameter.empty

_DESCRIPTION = re.compile(r"^(.*?)[\n\s]*(Args:|Returns:|Raises:|\Z)", re.DOTALL)
_ARGUMENTS = re.compile(r"\n\s*Args:\n(.*?)[\n\s]*(Returns:|Raises:|\Z)", re.DOTALL)
_RETURNS = re.compile(r"\n\s*Returns:\n\s*(.*?)[\n\s]*(Raises:|\Z)", re.DOTALL)
#: One argument of that section: indentation, name, a type in parentheses, text up to the next name no deeper.
_ARGUMENT = re.compile(
    r"""
(?:^|\n)
([ \t]*)(\w+)(?:[ \t]*\([^()\n]*\))?:\s*
(.*?)\s*
(?=\n(?!\1[ \t])[ \t]*\w+(?:[ \t]*\([^()\n]*\))?:|\Z)
""",
    re.DOTALL | re.VERBOSE,
)
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def schema_of(tool: Any) -> dict[str, Any]:
    """The schema of a tool: the tool itself if it is a mapping, else that of the function.

    Raises OptionError when it is neither, or its docstring or a type hint gives no schema.
    """
    if isinstance(tool, Mapping):
        return dict(tool)
    if not inspect.isfunction(tool) and not inspect.ismethod(tool):
        raise OptionError(f"tools holds a {type(tool).__name__}", "give JSON schemas, or functions with a docstring")
    return _function_schema(tool)


def _function_schema(function: Callable[..., Any]) -> dict[str, Any]:
    name, doc = getattr(function, "__name__", "operation"), (inspect.getdoc(function) or "").strip()
    if not doc:
        _fail(name, "it has no docstring")
    description, documented, returned = _parse_docstring(doc)
    parameters = _parameters(name, function)
    answer = parameters["properties"].pop("return", None)
    for argument, schema in parameters["properties"].items():
        if argument not in documented:
            _fail(name, f"its docstring does not describe {argument}")
        _describe(name, schema, documented[argument])
    result = {"name": name, "description": description, "parameters": parameters}
    if answer is not None:
        result["return"] = answer if returned is None else {**answer, "description": returned}
    return {"type": "function", "function": result}


def _fail(name: str, reason: str) -> NoReturn:
    raise OptionError(f"tool {name}: {reason}", "write its JSON schema by hand and pass that")


def _parse_docstring(doc: str) -> tuple[str | None, dict[str, str], str | None]:
    """Description, text of each argument, text about the result."""
    description, arguments, returned = (pattern.search(doc) for pattern in (_DESCRIPTION, _ARGUMENTS, _RETURNS))
    documented: dict[str, str] = {}
    if arguments is not None:
        lines = "\n".join(line for line in arguments[1].split("\n") if line.strip())
        documented = {name: re.sub(r"\s*\n+\s*", " ", text.strip()) for _, name, text in _ARGUMENT.findall(lines)}
    return (
        None if description is None else description[1].strip(),
        documented,
        None if returned is None else returned[1].strip(),
    )


def _describe(name: str, schema: dict[str, Any], text: str) -> None:
    """Adds the text to a schema; `(choices: [...])` at its end are the values that are allowed."""
    choices = _CHOICES.search(text)
    if choices is not None:
        try:
            values = json.loads(choices[1])
        except ValueError:
            _fail(name, f"{choices[0]} is no list in JSON")
        schema["enum"] = [value.strip() if isinstance(value, str) else value for value in values]
        text = text[: choices.start()].strip()
    schema["description"] = text


def _parameters(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of all arguments, and under `return` that of the result when its hint has one."""
    try:
        hints, signature = get_type_hints(function), inspect.signature(function).parameters
    except Exception as error:  # a hint may name anything
        _fail(name, f"its type hints cannot be read: {error}")
    receiver = next((one for one in list(signature)[:1] if one in ("self", "cls")), None)
    if receiver is not None and signature[receiver].annotation is not _NO_DEFAULT:
        receiver = None
    own = {key: parameter for key, parameter in signature.items() if key != receiver}
    for key, parameter in own.items():
        if parameter.annotation is _NO_DEFAULT:
            _fail(name, f"{key} has no type hint")
    properties: dict[str, Any] = {}
    for key, hint in hints.items():
        if key == receiver:
            continue
        schema = _schema_of_hint(hint)
        if schema is None and key != "return":
            _fail(name, f"the type hint of {key}, {hint!r}, has no JSON schema")
        if schema is not None:
            properties[key] = schema
    result: dict[str, Any] = {"type": "object", "properties": properties}
    required = [key for key, parameter in own.items() if parameter.default is _NO_DEFAULT]
    return {**result, "required": required} if required else result


# ---------------------------------------------------------------------------------------------------- type hints
def _schema_of_hint(hint: Any) -> dict[str, Any] | None:
    """The schema of a type hint; None when it has none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _enumeration([member.value for member in hint])
    if origin is None:
        return _plain_type(hint)
    if origin is Union or origin is types.UnionType:
        return _union(arguments)
    if origin is Literal:
        return _enumeration(list(arguments))
    if origin is list:
        return _with("array", "items", list(arguments[:1]), single=True)
    if origin is tuple:
        allowed = len(arguments) != 1 and ... not in arguments
        return _with("array", "prefixItems", list(arguments)) if allowed else None
    if origin is dict:
        return _with("object", "additionalProperties", list(arguments[1:2]), single=True)
    return None


def _plain_type(hint: Any) -> dict[str, Any] | None:
    if hint is Any:
        return {}
    known = {**_SCALARS, **_CONTAINERS}
    for module, name, kind in _MEDIA:
        loaded = getattr(sys.modules.get(module), name, None)
        if loaded is not None and hint is loaded:
            return {"type": kind}
    kind = known.get(hint) if isinstance(hint, type) else None
    return None if kind is None else {"type": kind}


def _with(kind: str, key: str, hints: list[Any], single: bool = False) -> dict[str, Any] | None:
    """The schema of a container of these hints; None when one has none."""
    inner = [_schema_of_hint(hint) for hint in hints]
    if any(one is None for one in inner):
        return None
    if not inner:
        return {"type": kind}
    return {"type": kind, key: inner[0] if single else inner}


def _enumeration(values: list[Any]) -> dict[str, Any] | None:
    if not values or any(type(value) not in _SCALARS for value in values):
        return None
    kinds = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(hints: tuple[Any, ...]) -> dict[str, Any] | None:
    found = [_schema_of_hint(hint) for hint in hints if hint is not type(None)]
    inner = [one for one in found if one is not None]
    if len(inner) < len(found):
        return None
    if len(inner) == 1:
        result = inner[0]
    elif all(one.keys() == {"type"} and isinstance(one["type"], str) for one in inner):
        names = sorted({one["type"] for one in inner})
        result = {"type": names[0] if len(names) == 1 else names}
    else:
        result = {"anyOf": inner}
    return {**result, "nullable": True} if type(None) in hints else result
