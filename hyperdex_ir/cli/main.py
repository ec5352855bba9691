"""The `hyperdex` command. Results on stdout, everything else on stderr; errors are one line and a hint."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from hyperdex_ir import __version__
from hyperdex_ir.cli.check import check
from hyperdex_ir.cli.compile import compile_model
from hyperdex_ir.cli.demo import demo
from hyperdex_ir.cli.diff import diff
from hyperdex_ir.cli.explain import explain
from hyperdex_ir.cli.generate import run
from hyperdex_ir.cli.inspect import inspect
from hyperdex_ir.cli.ir import print_ir
from hyperdex_ir.cli.output import Command, print_error
from hyperdex_ir.cli.plan import plan
from hyperdex_ir.cli.process import hide_token, interrupted
from hyperdex_ir.cli.status import clean, status
from hyperdex_ir.cli.verify import verify
from hyperdex_ir.errors import HyperdexError, PassError, StorageError, redact
from hyperdex_ir.hub.access import check_endpoint

_REPORT = "this is a bug in hyperdex-ir; HYPERDEX_TRACEBACK=1 shows where, for a report"

_NESTED = "simplify the pipeline or module that was given; of a compiled model, compile it again"


class _Group(TyperGroup):
    """Commands that Ctrl+C ends with one line; typer would say nothing."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)
        except KeyboardInterrupt:
            raise SystemExit(interrupted("hyperdex")) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(interrupted("hyperdex")) from None


app = typer.Typer(
    name="hyperdex",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hyperdex-ir {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compiles Hugging Face causal language models for the LPU, and runs them bit-exactly."""
    check_endpoint()


app.command("compile", cls=Command)(compile_model)
app.command(cls=Command)(run)
app.command(cls=Command)(demo)
app.command("ir", cls=Command)(print_ir)
app.command(cls=Command)(inspect)
app.command(cls=Command)(verify)
app.command(cls=Command)(diff)
app.command(cls=Command)(plan)
app.command(cls=Command)(explain)
app.command(cls=Command)(status)
app.command(cls=Command)(clean)
app.command(cls=Command)(check)


@app.command(cls=Command)
def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the supported models."""
    from hyperdex_ir.cli.models import print_models

    print_models(as_json)


@app.command("dis", cls=Command)
def disassemble_file(
    file: Annotated[Path, typer.Argument(help="inst/inst_{n}lpu.bin of a compiled model, or `-`.")],
) -> None:
    """Disassemble a program to stdout."""
    from hyperdex_ir.cli.assembly import disassemble

    disassemble(file, sys.stdout)


@app.command("as", cls=Command)
def assemble_file(
    file: Annotated[Path, typer.Argument(help="Assembly text, as `hyperdex dis` prints it, or `-`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The program to write, or `-`.")],
) -> None:
    """Assemble text to a program."""
    from hyperdex_ir.cli.assembly import assemble

    assemble(file, output)


def _fail(code: str, message: str, hint: str, notes: Sequence[str] = ()) -> NoReturn:
    print_error(code, message, hint, notes)
    raise SystemExit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line, by default sys.argv. Exit codes: 0; 1 for an error, 2 for wrong usage, 130 for Ctrl+C."""
    try:
        app(arguments)
    except HyperdexError as error:
        _fail(error.code, str(error), error.hint, error.notes)
    except KeyboardInterrupt:
        raise SystemExit(interrupted("hyperdex")) from None
    except OSError as error:
        _fail(StorageError.code, ": ".join(str(part) for part in (error.filename, error.strerror or error) if part), "")
    except RecursionError:
        _fail(PassError.code, "something in a file is nested too deeply", _NESTED)
    except Exception as error:
        if os.environ.get("HYPERDEX_TRACEBACK"):
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
            raise SystemExit(1) from None
        what = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        _fail(HyperdexError.code, f"internal error: {what}", _REPORT)


if __name__ == "__main__":
    hide_token()
    main()
