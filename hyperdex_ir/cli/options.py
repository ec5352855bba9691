"""The options that follow from the declared arguments of a compile (`backend/arguments.py`)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Annotated, Any

import typer

from hyperdex_ir.backend.arguments import CompileArguments, Declared, declared

ARGUMENTS = declared(CompileArguments)


def typer_option(one: Declared, *, brief: bool = False) -> Any:
    """The option as typer has it. brief: with the help of `plan`."""
    text = (brief and one.option.brief) or one.option.help
    return typer.Option(*one.flags, metavar=one.option.metavar, help=text)


#: `--allow-pass` of the other commands that take the pipeline of a file.
AllowPass = Annotated[list[str] | None, typer_option(ARGUMENTS["allow_passes"])]


def with_options(
    names: Sequence[str], arguments: dict[str, Declared] = ARGUMENTS, *, brief: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command declared arguments, those of `CompileArguments` by default, in place of its `**values`.

    names: all options in order, the command's own among them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        found = inspect.signature(command, eval_str=True).parameters
        own = {name: one.replace(kind=Parameter.KEYWORD_ONLY) for name, one in found.items() if name != "values"}
        options = [own.pop(name) if name in own else _parameter(arguments[name], brief) for name in names]

        def run(**given: Any) -> None:
            lists = {name: tuple(given[name] or ()) for name in given if name in arguments and arguments[name].is_list}
            command(**given | lists)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own.values(), *options])  # pyright: ignore[reportFunctionMemberAccess]
        return run

    return decorate


def _parameter(one: Declared, brief: bool) -> Parameter:
    kind: Any = list[str] if one.is_list else one.typed
    default = None if one.is_list else one.default
    hint = Annotated[kind | None if default is None else kind, typer_option(one, brief=brief)]
    return Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def given_token(value: str | None) -> str | None:
    """The token that `--token` stands for. Raises OptionError when `-` brings none."""
    if value != "-":
        return value
    from hyperdex_ir.errors import OptionError
    from hyperdex_ir.hub.access import prompt_token, usable_token

    token = prompt_token() if sys.stdin.isatty() else usable_token(sys.stdin.readline())
    if token is None:
        raise OptionError("--token -: no token was entered", "type it on the terminal, or pipe it in")
    return token
