"""Pipelines as text: `pass, pass{option=value option=1,2}, ...` with comments (`//`, `#`) and line breaks anywhere.

xDSL reads the same text only without blanks, breaks and comments, so this file has a reader. xDSL does not escape
quotes in the strings that it writes, so such a string ends early when it is read; so pipelines are written here, too
(`pass_text`).

`parse_pipeline` takes text of any origin, such as a manifest or the header of a dump. As some passes of xDSL start
programs and open files, it accepts few of them. `typed_pipeline` takes text from the person at the keyboard, or from a
caller in Python: it accepts any pass, and a file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.passes import ModulePass, get_pass_option_infos
from xdsl.utils.arg_spec import ArgSpec, ParameterType

from hyperdex_ir.errors import ExtensionError, OptionError
from hyperdex_ir.passes import get_all_passes
from hyperdex_ir.support.extensions import PASSES, find_extensions
from hyperdex_ir.support.reading import PIPELINE, read_source

_FOLDER = Path(__file__).parent / "pipelines"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SKIPPED = re.compile(r"(?:\s|//[^\n]*|#[^\n]*)+")
_STRING = re.compile(r'"((?:\\.|[^"\\\n])*)"')
_ESCAPE = re.compile(r"\\(?:u\{((?:10|[0-9a-f])?[0-9a-f]{1,4})\}|(.))")
_WORD = re.compile(r'[^\s{},="\[\]]+')
_MLIR = re.compile(r"\[([^\]]*)\]")
_SHOWN_COLUMNS = 160  # columns shown before a fault, and behind it
#: The passes of xDSL that untrusted text may name: they rewrite the module and do nothing else.
_REWRITES = ("canonicalize", "cse", "dce")
_PATTERNS = "lpu-apply-patterns"
#: Most passes of untrusted text; the longest pipeline of the package has 30.
_MOST_PASSES = 500
_PASS_HINT = "docs/passes.md says what an entry point of hyperdex_ir.passes names"

Known = dict[str, Callable[[], type[ModulePass]]]


def pipeline_names() -> tuple[str, ...]:
    """The pipelines that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.pipeline")))


@dataclass(frozen=True)
class PipelineText:
    """The text of a pipeline, and its name in errors."""

    text: str
    name: str = "pipeline"

    def error(self, position: int, message: str, hint: str = "") -> OptionError:
        """An error at a place of the text; its note shows the line with a caret."""
        before = self.text[:position]
        line, column = before.count("\n") + 1, position - before.rfind("\n")
        first = max(0, column - _SHOWN_COLUMNS)
        shown = self.text.split("\n")[line - 1].replace("\t", " ")[first : first + 2 * _SHOWN_COLUMNS]
        error = OptionError(f"{self.name}, line {line}, column {column}: {message}", hint)
        error.add_note(f"  {shown}\n  {' ' * (column - 1 - first)}^")
        return error


def _named_text(text_or_name: str) -> PipelineText | None:
    """The text of a pipeline of the package; None when it has none of that name."""
    if text_or_name not in pipeline_names():
        return None
    return PipelineText((_FOLDER / f"{text_or_name}.pipeline").read_text(encoding="utf-8"), text_or_name)


def _typed_text(text_or_name: str) -> PipelineText:
    """A pipeline given by name, by path of a file, or as text. Raises OptionError when a file cannot be read."""
    if (named := _named_text(text_or_name)) is not None:
        return named
    if not text_or_name.endswith(".pipeline") and not os.path.isfile(text_or_name):
        return PipelineText(text_or_name)
    try:
        return PipelineText(read_source(Path(text_or_name), PIPELINE), text_or_name)
    except FileNotFoundError:
        raise OptionError(f"{text_or_name}: cannot read this pipeline: no such file", _known_names()) from None


def _known_names() -> str:
    return f"the package has {', '.join(pipeline_names())}"


# ---------------------------------------------------------------------------------------------------- reading
@dataclass
class _Item:
    """A pass with its options, and the position of each."""

    name: str
    position: int
    options: dict[str, tuple[ParameterType, ...]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def spec(self, without: str = "") -> ArgSpec:
        """The specification from which xDSL makes a pass."""
        return ArgSpec(self.name, {key: values for key, values in self.options.items() if key != without})


@dataclass
class _Reader:
    source: PipelineText
    position: int = 0
    _last: int = 0

    def items(self) -> Iterator[_Item]:
        self._skip()
        while not self._at_end():
            item = _Item(self._take(_NAME, "expected the name of a pass"), self._last)
            self._skip()
            if self._accept("{"):
                self._read_options(item, self._last)
            elif item.name == "mlir-opt" and (found := _MLIR.match(self._text, self.position)):
                self._read_mlir(item, found)
            yield item
            if self._at_end():
                return
            if not self._accept(","):
                raise self._error("expected a comma")

    @property
    def _text(self) -> str:
        return self.source.text

    def _at_end(self) -> bool:
        return self.position == len(self._text)

    def _error(self, message: str, position: int | None = None) -> OptionError:
        return self.source.error(self.position if position is None else position, message)

    def _skip(self) -> None:
        found = _SKIPPED.match(self._text, self.position)
        self.position = found.end() if found else self.position

    def _accept(self, character: str) -> bool:
        """Skips a character and any space behind it, if the character is next; `_last` is its place."""
        if not self._text.startswith(character, self.position):
            return False
        self._last = self.position
        self.position += 1
        self._skip()
        return True

    def _take(self, pattern: re.Pattern[str], expected: str) -> str:
        found = pattern.match(self._text, self.position)
        if found is None:
            raise self._error(expected)
        self._last, self.position = self.position, found.end()
        return found.group()

    def _read_options(self, item: _Item, brace: int) -> None:
        while not self._accept("}"):
            if self._at_end():
                raise self._error("expected a closing brace", brace)
            name = self._take(_NAME, "expected the name of an option").replace("-", "_")
            item.places[name] = self._last
            self._skip()
            item.options[name] = tuple(self._values()) if self._accept("=") else ()
            self._accept(",")
        self._skip()

    def _values(self) -> Iterator[ParameterType]:
        yield self._value()
        while self._another_value():
            self._accept(",")
            yield self._value()

    def _another_value(self) -> bool:
        """Test that a comma and a value follow, not a comma and the next option or the end."""
        place = self.position
        follows = self._accept(",") and not self._text.startswith("}", self.position)
        if follows and (word := _NAME.match(self._text, self.position)):
            self.position = word.end()
            self._skip()
            follows = not self._text.startswith("=", self.position)
        self.position = place
        return follows

    def _value(self) -> ParameterType:
        if found := _STRING.match(self._text, self.position):
            self.position = found.end()
            value: ParameterType = _ESCAPE.sub(lambda one: chr(int(one[1], 16)) if one[1] else one[2], found[1])
        else:
            value = _literal(self._take(_WORD, "expected a value"))
        self._skip()
        return value

    def _read_mlir(self, item: _Item, found: re.Match[str]) -> None:
        """xDSL's own form for a pipeline that mlir-opt is to run."""
        arguments = ("--mlir-print-op-generic", "--allow-unregistered-dialect", "-p", f"builtin.module({found[1]})")
        item.options["arguments"], item.places["arguments"] = arguments, self.position
        self.position = found.end()
        self._skip()


def _literal(word: str) -> ParameterType:
    if word in ("true", "false"):
        return word == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


# ---------------------------------------------------------------------------------------------------- meaning
def parse_pipeline(text_or_name: str, name: str = "pipeline", allowed: Collection[str] = ()) -> list[ModulePass]:
    """The passes, in order, of a pipeline given by name, or as text that may come from an untrusted file.

    Known are the passes of this package and those of xDSL that only rewrite the module. name: the origin of the text,
    for errors. allowed: passes and fusion patterns of installed packages that the user has named on the command line.
    Raises OptionError that names line and column when the text is wrong or a pass is not known; its note shows them.
    """
    source = _named_text(text_or_name) or PipelineText(text_or_name, name)
    every = known_passes()
    extensions = find_extensions(PASSES)
    names = {*_names_of_files(), *(one for one in allowed if one in extensions)}
    known = {one: load for one, load in every.items() if one in names}
    passes = list[ModulePass]()
    for item in _Reader(source).items():
        if item.name in every and item.name not in known:
            hint = f"--allow-pass {item.name}" if item.name in extensions else "type the passes after --pipeline"
            raise source.error(item.position, f"a file may not name the pass {item.name}", hint)
        passes.append(_make_pass(source, item, known))
        _check_patterns(source, item, passes[-1], allowed)
        if len(passes) > _MOST_PASSES:
            raise source.error(item.position, f"more than {_MOST_PASSES} passes", "type the passes after --pipeline")
    return passes


def _names_of_files() -> set[str]:
    """The passes that any file may name."""
    return {*get_all_passes(), *_REWRITES}


def is_of_files(one: ModulePass) -> bool:
    """Test that any file may name this pass with these options: no code of an installed package is run."""
    return one.name in _names_of_files() and one.name != _PATTERNS


def _check_patterns(source: PipelineText, item: _Item, one: ModulePass, allowed: Collection[str]) -> None:
    """Fusion patterns are code of installed packages too."""
    if one.name != _PATTERNS:
        return
    for name in item.options["names"]:
        if name not in allowed:
            message = f"a file may not name the fusion pattern {name}"
            raise source.error(item.places["names"], message, f"--allow-pass {name}")


def typed_pipeline(text_or_name: str) -> list[ModulePass]:
    """The passes, in order, of a pipeline that the user gives by name, by path of a file or as text. Any pass of xDSL
    is known, so the text must never come from a file of a model.

    Raises OptionError that names line and column when the text is wrong or a pass is not known; its note shows them.
    """
    source, known = _typed_text(text_or_name), known_passes()
    return [_make_pass(source, item, known) for item in _Reader(source).items()]


def known_passes() -> Known:
    """Every pass of xDSL, of this package and of installed packages. Raises OptionError when two have one name."""
    from hyperdex_ir.support.xdsl import installed_universe

    try:
        return installed_universe().all_passes
    except ValueError as error:
        raise OptionError(f"the installed packages do not go together: {error}", "uninstall one of them") from None


def _make_pass(source: PipelineText, item: _Item, known: Known) -> ModulePass:
    if item.name not in known:
        raise source.error(item.position, f"no pass {item.name!r}", _nearest(source, item.name, known))
    made = known[item.name]()
    if not isinstance(made, type) or not issubclass(made, ModulePass):
        raise ExtensionError(f"{item.name}: its entry point names no subclass of ModulePass", _PASS_HINT)
    unknown = [name for name in item.options if name not in {option.name for option in get_pass_option_infos(made)}]
    if unknown:
        message = f"{item.name} has no option {unknown[0].replace('_', '-')!r}"
        raise source.error(item.places[unknown[0]], message, _options(made))
    try:
        return made.from_spec(item.spec())
    except ValueError as error:
        position = next((item.places[name] for name in item.options if _is_wrong(made, item, name)), item.position)
        message = str(error).splitlines()[0].removeprefix(f"{item.name} ")
        raise source.error(position, f"{item.name}: {message}", _options(made)) from None


def _is_wrong(made: type[ModulePass], item: _Item, name: str) -> bool:
    """Test that the value of this option is the one that the pass does not take."""
    try:
        made.from_spec(item.spec(without=name))
    except ValueError as error:
        return f'requires argument "{name}"' in str(error)
    return True


def _nearest(source: PipelineText, name: str, known: Known) -> str:
    names = [*known, *(pipeline_names() if source.text.strip() == name else ())]
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"or name a pipeline: {_known_names()}"


def _options(made: type[ModulePass]) -> str:
    shown = [f"{name}: {type_}" + (f" = {default}" if default else "") for name, type_, default in pass_options(made)]
    return f"options of {made.name} are {', '.join(shown)}" if shown else f"{made.name} has no options"


def pass_options(made: type[ModulePass]) -> list[tuple[str, str, str | None]]:
    """The options of a pass as they are written: name, type, default."""
    return [
        (info.name.replace("_", "-"), info.expected_type.strip("'"), info.default_value)
        for info in get_pass_option_infos(made)
    ]


# ---------------------------------------------------------------------------------------------------- writing
def pass_text(one: ModulePass) -> str:
    """The canonical text of a pass with its options, which reads back as the same pass."""
    spec = one.spec()
    options = " ".join(f"{name}={_values_text(values)}" if values else name for name, values in spec.parameters.items())
    return f"{spec.name}{{{options}}}" if options else spec.name


def _values_text(values: Sequence[ParameterType]) -> str:
    return ",".join(_quoted(value) if isinstance(value, str) else str(value).lower() for value in values)


def _quoted(value: str) -> str:
    """A text on one line: characters that do not print, such as line breaks, by their numbers."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    shown = (escapes.get(one, one) if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in value)
    return f'"{"".join(shown)}"'


def pipeline_spec(passes: Sequence[ModulePass]) -> str:
    """The canonical text of a pipeline, on one line."""
    return ",".join(map(pass_text, passes))


def pipeline_lines(passes: Sequence[ModulePass]) -> str:
    """The text of a pipeline with one pass a line, which reads back."""
    return ",\n".join(map(pass_text, passes)) + "\n" * bool(passes)
