"""Pipelines as text: `pass, pass{option=value}, ...` with comments (`//`, `#`) and line breaks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException, PassFailedException, VerifyException

from hyperdex_ir.errors import OptionError
from hyperdex_ir.xdsl_support import check_module, make_context, pass_failed

_FOLDER = Path(__file__).parent / "pipelines"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SKIPPED = re.compile(r"(?:\s|//[^\n]*|#[^\n]*)+")
_OPTIONS = re.compile(r'\{(?:[^{}"]|"[^"]*")*\}')
_SPACES = re.compile(r'"[^"]*"|\s*=\s*|\s*,\s*|\s+')


def pipeline_names() -> tuple[str, ...]:
    """The pipelines that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.pipeline")))


def pipeline_text(text_or_name: str) -> str:
    """The text of a pipeline given by name, by path of a `.pipeline` file, or as text.

    Raises OptionError when a file cannot be read.
    """
    if text_or_name in pipeline_names():
        return (_FOLDER / f"{text_or_name}.pipeline").read_text(encoding="utf-8")
    if not text_or_name.endswith(".pipeline"):
        return text_or_name
    try:
        return Path(text_or_name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{text_or_name}: cannot read this pipeline: {error}", _known_names()) from None


def _known_names() -> str:
    return f"the package has {', '.join(pipeline_names())}"


# ---------------------------------------------------------------------------------------------------- reading
@dataclass(frozen=True)
class _Item:
    """A pass with its options, and where it stands."""

    name: str
    options: str
    position: int


def _fail(text: str, position: int, message: str, hint: str = "") -> OptionError:
    before = text[:position]
    line, column = before.count("\n") + 1, position - before.rfind("\n")
    shown = text.split("\n")[line - 1].strip()
    return OptionError(f"pipeline, line {line}, column {column}: {message} in `{shown}`", hint)


def _skip(text: str, position: int) -> int:
    found = _SKIPPED.match(text, position)
    return found.end() if found else position


def _squeeze(found: re.Match[str]) -> str:
    """xDSL reads options only without blanks around `=` and `,`."""
    text = found.group()
    return text if text.startswith('"') else text.strip() or " "


def _items(text: str) -> Iterator[_Item]:
    position = _skip(text, 0)
    while position < len(text):
        if (name := _NAME.match(text, position)) is None:
            raise _fail(text, position, "expected the name of a pass")
        start, position = position, _skip(text, name.end())
        options = ""
        if text.startswith("{", position):
            if (found := _OPTIONS.match(text, position)) is None:
                raise _fail(text, position, "expected a closing brace")
            options = "{" + _SPACES.sub(_squeeze, found.group()[1:-1]).strip() + "}"
            position = _skip(text, found.end())
        yield _Item(name.group(), options, start)
        if position == len(text):
            return
        if not text.startswith(",", position):
            raise _fail(text, position, "expected a comma")
        position = _skip(text, position + 1)


def parse_pipeline(text_or_name: str) -> list[ModulePass]:
    """The passes of a pipeline given by name, file or text, in order.

    Raises OptionError that names line and column when the text is wrong or a pass is not known.
    """
    text = pipeline_text(text_or_name)
    known = known_passes()
    return [_make_pass(text, item, known) for item in _items(text)]


def known_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """Every pass of xDSL, of this package and of installed plugins."""
    from xdsl.universe import Universe

    return Universe.get_multiverse().all_passes


def _make_pass(text: str, item: _Item, known: dict[str, Callable[[], type[ModulePass]]]) -> ModulePass:
    if item.name not in known:
        nearest = difflib.get_close_matches(item.name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"or name a pipeline: {_known_names()}"
        raise _fail(text, item.position, f"no pass {item.name!r}", hint)
    try:
        return PassPipeline.parse_spec(known, item.name + item.options).passes[0]
    except (ArgSpecParseError, ValueError) as error:  # the former is no Exception in xDSL
        raise _fail(text, item.position, f"{item.name}: {str(error).strip().splitlines()[0]}") from None


def pipeline_spec(passes: list[ModulePass]) -> str:
    """The canonical text of a pipeline, as xDSL reads it."""
    return ",".join(str(p) for p in passes)


# ---------------------------------------------------------------------------------------------------- running
def run_pass(module: ModuleOp, one: ModulePass) -> None:
    """Runs a pass, then checks the module.

    Raises PassError, one line with pass, operation and module path; LoweringError and CapacityError as they come.
    """
    try:
        one.apply(make_context(), module)
        check_module(module)
    except (VerifyException, PassFailedException, DiagnosticException) as error:
        raise pass_failed(one.name, error) from None


def run_pipeline(module: ModuleOp, text_or_name: str = "default") -> None:
    """Runs a pipeline given by name, file or text; the module is verified after each pass."""
    for one in parse_pipeline(text_or_name):
        run_pass(module, one)
