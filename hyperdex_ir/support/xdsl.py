"""Additions to xDSL, in one place: locations that survive rewriting, dominance, short errors, text."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from math import prod
from typing import TYPE_CHECKING, Any

from xdsl.context import Context
from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    FileLineColLoc,
    LocationAttr,
    ModuleOp,
    NameLoc,
    NoneAttr,
    StringAttr,
    UnknownLoc,
)
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.parser import AttrParser, Parser
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriterListener,
    PatternRewriteWalker,
    RewritePattern,
)
from xdsl.printer import Printer
from xdsl.utils.exceptions import DiagnosticException, ParseError, PassFailedException, VerifyException
from xdsl.utils.mlir_lexer import MLIRLexer

from hyperdex_ir.errors import HyperdexError, PassError
from hyperdex_ir.support.reading import MOST_DIMENSIONS

if TYPE_CHECKING:
    from xdsl.universe import Universe

#: The strings of xDSL 0.74's own pattern, which takes time exponential in the length of one that does not end.
MLIRLexer._unescaped_characters_regex = re.compile(r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"')
#: Depth of the regions, attributes and types of a text, and the operators of an affine expression: functions that work
#: on a module call themselves for each, and Python allows a thousand calls.
MAX_DEPTH = 64
#: Elements of the dense attributes of a text, where one written element may stand for all. Our own texts have none.
_MOST_ELEMENTS = 1 << 18
#: Characters that the aliases of a text stand for. Our own texts have none.
_MOST_ALIASED = 1 << 20
#: Bits of an integer type.
_MOST_BITS = 9999
_WIDE = re.compile(r"[su]?i[0-9]{5,}")
#: Tokens that matter for depth: strings, comments and arrows do not count, the next operand ends an expression.
_NESTING = re.compile(
    r'"(?:[^"\\\n\v\f]|\\.)*+"?|//[^\n]*+|->|[><=]=|[][{}()<>+*,%=-]|\b(?:floordiv|ceildiv|mod)\b|\b[0-9]\w{1000,}',
    re.ASCII,
)
_OPENING = "{[(<"
_OPENED_BY = dict(zip("}])>", _OPENING, strict=True))
_OPERATORS = frozenset(("+", "-", "*", "floordiv", "ceildiv", "mod"))
#: Longest line of an operation shown in an error.
_SHOWN_COLUMNS = 160


def make_context() -> Context:
    """A context with the dialects of xDSL and of this package, loaded when first met."""
    context = Context()
    for name, factory in installed_universe().all_dialects.items():
        context.register_dialect(name, factory)
    return context


def installed_universe() -> Universe:
    """The dialects and passes of xDSL, of this package and of other installed packages.

    Raises ValueError when two packages use one name.
    """
    return _universe(tuple(sys.path))


@functools.cache
def _universe(path: tuple[str, ...]) -> Universe:
    """The same for the packages on a path. Kept: each pass of a compile asks, and an answer reads all metadata."""
    from xdsl.universe import Universe

    return Universe.get_multiverse()


def parse_module(text: str, name: str = "<text>") -> ModuleOp:
    """The module of a text. Raises PassError, one line, when it does not parse."""
    check_text(text, name)
    try:
        with value_errors(name):
            return Parser(make_context(), text, name).parse_module()
    except ParseError as error:
        line, column = _line_column(text, error.span.start)
        raise PassError(f"{name}:{line}:{column}: {error.msg}") from None
    except VerifyException as error:  # of attributes, which are verified as they are read
        raise PassError(f"{name}: {' '.join(str(error).split())}") from None


@contextmanager
def value_errors(name: str) -> Iterator[None]:
    """Turns faults that xDSL's parser does not report itself, numbers beyond their type and depth, into PassError."""
    try:
        yield
    except (OverflowError, MemoryError):
        raise PassError(f"{name}: a number is outside its type") from None
    except ValueError as error:
        raise PassError(f"{name}: {_first_line(error)}") from None
    except RecursionError:
        raise PassError(f"{name}: nested too deeply") from None


def check_text(text: str, name: str) -> None:
    """Raises PassError when a text nests deeper than `MAX_DEPTH`, or has a number of too many digits.

    Does not check that the text is a module. xDSL finds depth by running out of Python's stack, in the parser or only
    later, in functions that work on the module.
    """
    depths, operators = dict.fromkeys(_OPENING, 0), 0
    for found in _NESTING.finditer(text):
        word = found.group()
        if word in _OPERATORS:
            operators += 1
        elif word in depths:
            depths[word] += 1
        elif word in _OPENED_BY:
            depths[_OPENED_BY[word]] = max(0, depths[_OPENED_BY[word]] - 1)
            continue
        elif word[0].isdigit():
            raise PassError(f"{name}: a number of {len(word)} digits {_place(text, found.start())}")
        else:
            operators = operators if len(word) > 1 else 0
            continue
        if max(sum(depths.values()), operators) > MAX_DEPTH:
            raise PassError(f"{name}: nested too deeply {_place(text, found.start())}, the most is {MAX_DEPTH}")


def _place(text: str, position: int) -> str:
    line, column = _line_column(text, position)
    return f"at line {line}, column {column}"


# ---------------------------------------------------------------------------------------------------- short texts
class _Aliases(dict[str, Attribute]):
    """The aliases of a text, and the sizes of the texts that they stand for: aliases of aliases double with each line.

    sizes: characters of a definition and of the aliases in it, and elements of its dense attributes. depths: brackets
    inside each other. used: the sizes of all uses so far; deepest: the depth of them. elements: of dense attributes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        self.depths: dict[str, int] = {}
        self.used = self.deepest = self.elements = 0

    def __getitem__(self, name: str) -> Attribute:
        self.used += self.sizes[name]
        self.deepest = max(self.deepest, self.depths[name])
        if self.used > _MOST_ALIASED:
            raise ValueError(f"its aliases stand for more than {_MOST_ALIASED} characters, up to the use of {name}")
        return super().__getitem__(name)

    def define(self, name: str, text: str, used: int) -> None:
        """Notes an alias. used: the sizes used and made in its definition."""
        self.sizes[name], self.depths[name] = len(text) + used, _depth(text) + self.deepest
        if self.depths[name] > MAX_DEPTH:
            raise ValueError(f"alias {name} is nested too deeply, the most is {MAX_DEPTH}")


def _depth(text: str) -> int:
    """The depth of the brackets of a text."""
    depth = deepest = 0
    for found in _NESTING.finditer(text):
        depth += (found.group() in _OPENING) - (found.group() in _OPENED_BY)
        deepest = max(deepest, depth)
    return deepest


def _bounded_parser(self: Parser, *arguments: Any, **named: Any) -> None:
    _NEW_PARSER(self, *arguments, **named)
    self.attribute_aliases = _Aliases()


def _bounded_alias(self: Parser) -> None:
    """xDSL's own function, bounded by the size that a text may stand for."""
    aliases, name, start = self.attribute_aliases, self._current_token.text, self.pos
    assert isinstance(aliases, _Aliases)
    before, aliases.deepest = aliases.used + aliases.elements, 0
    _ALIAS(self)
    text = self.lexer.input.content[start : self.pos]
    aliases.define(name, text, aliases.used + aliases.elements - before)


def _bounded_dense(self: AttrParser, type: Any) -> Any:
    """xDSL's own function; a type that is known before is counted as one that is read."""
    if type is not None:
        _count_elements(self, type)
    return _DENSE(self, type)


def _bounded_literal_type(self: AttrParser) -> Any:
    """xDSL's own function, bounded to a number of elements that there is memory for."""
    type_ = _LITERAL_TYPE(self)
    _count_elements(self, type_)
    return type_


def _count_elements(parser: AttrParser, type_: Any) -> None:
    aliases, count = parser.attribute_aliases, prod(type_.get_shape())
    if isinstance(aliases, _Aliases):
        aliases.elements += count
        count = aliases.elements
    if count > _MOST_ELEMENTS:
        raise _refusal(parser, f"dense attributes of {count} elements, the most of a text is {_MOST_ELEMENTS}")


def _refusal(parser: AttrParser, message: str) -> ValueError:
    """An error with its place, for `value_errors`: one line also where xDSL shows its own errors at length."""
    return ValueError(f"{message}, {_place(parser.lexer.input.content, parser.pos)}")


def _bounded_number_type(self: AttrParser) -> Any:
    """xDSL's own function, bounded to a width that there is memory for: values up to 2 to its power are made."""
    name = self._current_token.text
    if _WIDE.fullmatch(name):
        raise _refusal(self, f"integer type of {name.lstrip('sui')[:20]} bits, the most is {_MOST_BITS}")
    return _NUMBER_TYPE(self)


def _bounded_dimensions(self: AttrParser) -> list[int]:
    """xDSL's own function for a tensor or memref, bounded: to multiply all takes the square of their number."""
    return _check_dimensions(self, _DIMENSIONS(self))


def _bounded_vector(self: AttrParser) -> Any:
    """The same for a vector, which xDSL reads in another place."""
    type_ = _VECTOR(self)
    _check_dimensions(self, list(type_.get_shape()))
    return type_


def _check_dimensions(parser: AttrParser, dims: list[int]) -> list[int]:
    if len(dims) > MOST_DIMENSIONS:
        parser.raise_error(f"a shape of {len(dims)} dimensions, the most is {MOST_DIMENSIONS}")
    return dims


_NEW_PARSER, _ALIAS = Parser.__init__, Parser._parse_alias_def
_DENSE, _LITERAL_TYPE = AttrParser.parse_dense_int_or_fp_elements_attr, AttrParser._parse_dense_literal_type
_NUMBER_TYPE = AttrParser._parse_optional_integer_or_float_type
Parser.__init__, Parser._parse_alias_def = _bounded_parser, _bounded_alias
AttrParser.parse_dense_int_or_fp_elements_attr = _bounded_dense
AttrParser._parse_dense_literal_type = _bounded_literal_type
AttrParser._parse_optional_integer_or_float_type = _bounded_number_type
_DIMENSIONS, _VECTOR = AttrParser.parse_dimension_list, AttrParser._parse_vector_attrs
AttrParser.parse_dimension_list = _bounded_dimensions
AttrParser._parse_vector_attrs = _bounded_vector


def _line_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")


class _LocationPrinter(Printer):
    """Prints the locations of operations that have one; xDSL prints `loc(unknown)` too."""

    def print_op(self, op: Operation) -> None:
        super().print_op(op)
        if not isinstance(op.location, UnknownLoc):
            self.print_string(" ")
            self.print_attribute(op.location)


def print_module(module: Operation, *, locations: bool = False, generic: bool = False) -> str:
    """The text of a module or function, with module paths as locations when asked for; generic: xDSL's generic form."""
    stream = StringIO()
    printer = _LocationPrinter if locations else Printer
    printer(stream, print_generic_format=generic).print_op(module)
    head, newline, rest = stream.getvalue().partition("\n")
    if isinstance(module, ModuleOp) and not generic and len(head) > _SHOWN_COLUMNS:
        head = _one_attribute_a_line(module)
    return head + newline + rest + "\n"


def _one_attribute_a_line(module: ModuleOp) -> str:
    """The first lines of a module whose attributes do not fit one."""
    printed = []
    for name, value in module.attributes.items():
        stream = StringIO()
        Printer(stream).print_attr_dict({name: value})
        printed.append(stream.getvalue()[1:-1])  # without its braces
    return "builtin.module attributes {\n  " + ",\n  ".join(printed) + "\n} {"


def module_path(op: Operation) -> str:
    """The module path that the operation came from, or an empty string."""
    match op.location:
        case NameLoc() as location:
            return location.desc.data
        case FileLineColLoc() as location:
            return f"{location.filename.data}:{location.line.data}"
    return ""


def path_location(path: str) -> LocationAttr:
    """The location for a module path."""
    return NameLoc(StringAttr(path), NoneAttr()) if path else UNKNOWN_LOC


# ---------------------------------------------------------------------------------------------------- rewriting
def _keep_location(op: Operation, new_results: Sequence[SSAValue | None]) -> None:
    """Keeps the location of a replaced operation, which xDSL drops."""
    for result in new_results:
        if isinstance(result, OpResult) and isinstance(result.op.location, UnknownLoc):
            result.op.location = op.location


def apply_patterns(module: ModuleOp, *patterns: RewritePattern) -> bool:
    """Applies the patterns until none fits; returns whether one did. Dead operations are removed on the way.

    New operations take the location of the one they replace.
    """
    return PatternRewriteWalker(
        GreedyRewritePatternApplier(list(patterns)),
        listener=PatternRewriterListener(operation_replacement_handler=[_keep_location]),
    ).rewrite_module(module)


def replace_with(rewriter: PatternRewriter, op: Operation, new: Operation, origin: Operation) -> None:
    """Replaces `op` by `new`, which gets the location of `origin` and the name of `op`."""
    new.location = origin.location
    new.results[0].name_hint = op.results[0].name_hint
    rewriter.replace(op, new)


# ---------------------------------------------------------------------------------------------------- checking
def check_module(module: ModuleOp) -> None:
    """Verifies every operation, and that values are defined before they are used.

    Raises VerifyException with a short text: the fault, the operation with its two neighbours, its module path.
    """
    for op in module.walk():
        try:
            op.verify(verify_nested_ops=False)
        except VerifyException as error:
            raise VerifyException(f"{_first_line(error)}\n{show_operation(op)}") from None
    for region in module.regions:
        _check_dominance(region, set())


def _first_line(error: Exception) -> str:
    """The fault in an error's text: its first line; if xDSL gives only the place on that, the second line too."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _check_dominance(region: Region, visible: set[SSAValue]) -> None:
    """Checks definition before use. Our regions have one block each; several blocks are only checked one by one."""
    for block in region.blocks:
        known = visible | set(block.args)
        for op in block.ops:
            _check_operands(op, known)
            for inner in op.regions:
                _check_dominance(inner, known)
            known.update(op.results)


def _check_operands(op: Operation, known: set[SSAValue]) -> None:
    for number, operand in enumerate(op.operands):
        if operand in known or _from_other_block(op, operand):
            continue
        raise VerifyException(f"{op.name}: operand {number} is used before it is defined\n{show_operation(op)}")


def _from_other_block(op: Operation, operand: SSAValue) -> bool:
    """Test for a value from another block of the same region, where control flow decides the order."""
    owner = operand.owner
    block = owner if isinstance(owner, Block) else owner.parent
    return (
        block is not None
        and block is not op.parent
        and block.parent is not None
        and op.parent is not None
        and block.parent is op.parent.parent
    )


def show_operation(op: Operation) -> str:
    """The operation, marked, between its two neighbours, and its module path: never the module around it."""
    neighbours = [(" ", op.prev_op), (">", op), (" ", op.next_op)]
    lines = [f"{mark} {_one_line(o)}" for mark, o in neighbours if o is not None]
    path = module_path(op)
    return "\n".join([*lines, f"  from {path}"] if path else lines)


def _one_line(op: Operation) -> str:
    stream = StringIO()
    try:
        Printer(stream).print_op(op)
    except Exception:  # an operation that does not verify may not print: its name has to do
        return op.name
    text = stream.getvalue().split("\n")[0]
    return text if len(text) <= _SHOWN_COLUMNS else text[: _SHOWN_COLUMNS - 3] + "..."


def pass_failed(name: str, error: Exception) -> HyperdexError:
    """One line for a failure in a pass, with the operation and its neighbours as a note.

    Errors that name their cause already are given back as they are.
    """
    if isinstance(error, HyperdexError):
        return error
    said = isinstance(error, VerifyException | PassFailedException | DiagnosticException)
    lines = str(error).strip().split("\n")
    excerpt = "\n".join(lines[1:]) if len(lines) > 1 and "> " in str(error) else ""
    if not excerpt and (op := operation_at(error)) is not None:
        excerpt = show_operation(op)
    shown = [line.strip() for line in excerpt.split("\n")]
    marked = next((f"in `{line[2:]}`" for line in shown if line.startswith("> ")), "")
    path = next((line for line in shown if line.startswith("from ")), "")
    what = lines[0] if said else f"{type(error).__name__}: {lines[0]}"
    failure = PassError(", ".join(part for part in (f"pass {name}: {what}", marked, path) if part))
    if excerpt:
        failure.add_note(excerpt)
    return failure


def operation_at(error: BaseException) -> Operation | None:
    """The operation that a function worked on when an exception was raised: that of the innermost with one."""
    frames: list[dict[str, object]] = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_locals)
        traceback = traceback.tb_next
    for names in reversed(frames):
        for value in names.values():
            if isinstance(value, Operation) and not isinstance(value, ModuleOp) and value.parent is not None:
                return value
    return None
