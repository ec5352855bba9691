"""One declaration of an argument gives its option, its parameter, its check, and its place in a command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdex_ir.backend.arguments import (
    CompileArguments,
    Option,
    check_arguments,
    command_line,
    declared,
)
from hyperdex_ir.backend.options import make_options
from hyperdex_ir.cli.main import app
from hyperdex_ir.cli.options import ARGUMENTS, with_options
from hyperdex_ir.errors import OptionError
from hyperdex_ir.tools import AutoCompiler


@dataclass(frozen=True)
class Scratch:
    """The arguments of a compile that has others."""

    model_id: str = "a/model"
    depth: Annotated[int, Option("How deep.", same=True, low=1, high=9)] = 2
    _: KW_ONLY
    be_quick: Annotated[bool, Option("Quickly.", brief="Q.", same=True)] = False
    names: Annotated[Sequence[str], Option("Names.", flag="name", metavar="NAME", same=True)] = ()
    folder: Annotated[str | Path | None, Option("Where.", is_path=True)] = None


@cache
def command_of(arguments: type) -> tuple[Any, dict[str, Any]]:
    """A command that takes declared arguments, and what it was given last."""
    names, found = declared(arguments), dict[str, Any]()

    @with_options(list(names), names, brief=True)
    def take(model: str, **values: Any) -> None:
        found.update(values, model_id=model)

    command = typer.Typer()
    command.command()(take)
    return typer.main.get_command(command), found


def parsed(arguments: type, words: Sequence[str]) -> dict[str, Any]:
    """The values that the options of a command line give."""
    command, found = command_of(arguments)
    command.main(list(words), standalone_mode=False)
    return dict(found)


def test_a_declaration_is_all_that_an_option_needs(capsys: pytest.CaptureFixture[str]) -> None:
    scratch = Scratch("m", 3, be_quick=True, names=["a", "b"], folder=Path("x"))
    command = command_line(scratch)
    assert command == ["hyperdex", "compile", "m", "--depth", "3", "--be-quick", "--name", "a", "--name", "b"]
    assert parsed(Scratch, command[2:]) == {"depth": 3, "be_quick": True, "names": ("a", "b"), "folder": None} | {
        "model_id": "m"
    }
    assert parsed(Scratch, ["m", "--be_quick", "--folder", "x"])["folder"] == Path("x")
    assert command_line(Scratch()) == ["hyperdex", "compile", "a/model"]
    with pytest.raises(SystemExit):
        command_of(Scratch)[0].main(["--help"])
    shown = capsys.readouterr().out
    assert re.search(r"--be-quick,--be_quick .*Q\.", shown)
    assert re.search(r"--name +NAME +Names\.", shown)


def test_python_and_the_command_line_take_the_same() -> None:
    parameters = inspect.signature(AutoCompiler.compile).parameters
    assert list(parameters) == ["self", *(field.name for field in fields(CompileArguments) if field.name != "_")]
    assert list(parameters)[2:] == list(ARGUMENTS)
    assert list(inspect.signature(AutoCompiler.compile_to).parameters) == ["self", "level", *list(parameters)[1:]]
    compile_command = typer.main.get_command(app).commands["compile"]  # pyright: ignore[reportAttributeAccessIssue]
    options = {option.name: option for option in compile_command.params}
    for name, one in ARGUMENTS.items():
        assert tuple(options[name].opts) == one.flags
        assert (options[name].default or one.default) == one.default == parameters[name].default
    assert options.keys() - ARGUMENTS.keys() == {"model_id", "compile_to", "print_pipeline"}


words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12)
arguments_asked = st.builds(
    CompileArguments,
    words.filter(lambda word: not word.startswith("-")),
    st.integers(1, 64),
    st.integers(1, 1 << 20),
    type_device=st.sampled_from(["u55c", "asic"]) | words,
    dtype=st.sampled_from(["auto", "f16", "bf16"]),
    output_dir=st.none() | words,
    revision=st.none() | words,
    local_files_only=st.booleans(),
    allow_passes=st.lists(words, max_size=3).map(tuple),
    force=st.booleans(),
    max_ram=st.none() | st.integers(0, 1 << 40),
)


@settings(deadline=None)
@given(arguments_asked)
def test_a_command_asks_for_the_same(arguments: CompileArguments) -> None:
    values = parsed(CompileArguments, command_line(arguments)[2:])
    asked = CompileArguments(**values)
    assert command_line(asked) == command_line(arguments)
    left_out = {name: getattr(asked, name) for name, one in ARGUMENTS.items() if not one.option.same}
    assert replace(arguments, **left_out) == asked
    check_arguments(asked)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_device": True}, "num_device is True: must be a whole number"),
        ({"num_device": "2"}, "num_device is '2': must be a whole number"),
        ({"max_length": 0}, "max_length is 0: must be a positive whole number"),
        ({"max_length": 2.0}, "max_length is 2.0: must be a positive whole number"),
        ({"max_length": 1 << 31}, "max_length is 2147483648: must be at most 2147483647"),
        ({"force": "no"}, "force is 'no': must be True or False"),
        ({"revision": 7}, "revision is 7: must be text"),
        ({"type_device": ["u55c"]}, "type_device is ['u55c']: must be text"),
        ({"dtype": "f8"}, "no dtype 'f8'; there are auto, f16"),
        ({"allow_passes": "a-pass"}, "allow_passes is 'a-pass': must be a list of names"),
        ({"max_ram": 1.5}, "max_ram is 1.5: must be text"),
        ({"token": "x" * 1000 + "\n", "output_dir": b"x"}, "output_dir is b'x': must be text"),
    ],
)
def test_a_value_that_is_none_of_its_kind(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make_options(CompileArguments(**given))
    assert str(caught.value).startswith(message)


def test_an_argument_that_nobody_declared() -> None:
    for call in (AutoCompiler().compile, AutoCompiler().plan):
        with pytest.raises(
            TypeError, match=rf"^AutoCompiler\.{call.__name__}\(\) got an unexpected keyword argument 'nope'$"
        ):
            call("a/model", nope=1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"^AutoCompiler\.compile_to\(\) missing a required argument: 'level'$"):
        AutoCompiler().compile_to()  # pyright: ignore[reportCallIssue]
