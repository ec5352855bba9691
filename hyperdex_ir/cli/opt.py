"""`hyperdex-opt`: xdsl-opt with this package's dialects, passes and pipelines, and a view into a running pipeline."""

from __future__ import annotations

import argparse
import os
import sys
from codecs import BOM_UTF8
from io import BytesIO, StringIO
from pathlib import Path
from typing import IO, ClassVar

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException, ParseError
from xdsl.xdsl_opt_main import xDSLOptMain

from hyperdex_ir import __version__
from hyperdex_ir.cli.opt_arguments import add_arguments
from hyperdex_ir.cli.process import interrupted
from hyperdex_ir.errors import HyperdexError, OptionError, StorageError, printable
from hyperdex_ir.passes.pipeline import Observer, parse_pipeline, pipeline_lines, run_passes, typed_pipeline
from hyperdex_ir.support.files import write_given
from hyperdex_ir.support.reading import DUMP
from hyperdex_ir.support.xdsl import check_module, check_text, print_module, value_errors


class _Output(StringIO):
    """The text that goes to a file once everything has succeeded. xdsl-opt closes it, also after errors."""

    text = ""

    def close(self) -> None:
        self.text = self.getvalue()
        super().close()


class HyperdexOptMain(xDSLOptMain):
    """xdsl-opt, whose modules are also checked for use before definition, and whose errors stay short."""

    version_format: ClassVar[str] = f"hyperdex-opt {__version__} (xdsl {{xdsl_version}})"
    passes: tuple[ModulePass, ...] = ()

    def __init__(self, args: list[str] | None = None):
        self._output = _Output()
        super().__init__(args=args)

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        super().register_all_arguments(arg_parser)
        add_arguments(arg_parser)

    def setup_pipeline(self) -> None:
        """Reads `-p` and `--pipeline`; both take the same text."""
        texts = [text for text in (self.args.passes, self.args.pipeline) if text]
        read = parse_pipeline if self.args.own_passes else typed_pipeline
        self.passes = tuple(one for text in texts for one in read(text))
        self.pipeline = PassPipeline(self.passes)
        names = [one.name for one in self.passes]
        for name in (*self.args.print_ir_before, *self.args.print_ir_after):
            if name not in names:
                raise OptionError(f"print-ir: no pass {name!r} runs", f"these run: {', '.join(names) or 'none'}")

    def prepare_output(self) -> IO[str]:
        if self.args.output_file is not None:
            return self._output
        if sys.stdout is None:
            raise StorageError("standard output is closed", "name a file with -o")
        return sys.stdout

    def get_input_stream(self) -> tuple[IO[bytes], str]:
        """The input as in xdsl-opt, read only up to the size of the largest module. The user may name a pipe too."""
        file, extension = super().get_input_stream()
        text = file.read(DUMP.limit + 1)
        if len(text) > DUMP.limit:
            raise OptionError(f"{self.args.input_file or '<stdin>'}: the most that is read is {DUMP.limit} bytes")
        return BytesIO(text), extension

    def parse_chunk(self, chunk: IO[bytes], file_extension: str, start_offset: int = 0) -> ModuleOp | None:
        name = self.args.input_file or "<stdin>"
        with value_errors(name):
            text = chunk.read().removeprefix(BOM_UTF8)
            check_text(text.decode(errors="replace"), name)
            return super().parse_chunk(BytesIO(text), file_extension, start_offset)

    def run(self) -> None:
        if self.args.print_pipeline:
            print(pipeline_lines(self.passes), end="")
        elif self.args.list_passes:
            from hyperdex_ir.passes.reference import pass_table

            print(pass_table(), end="")
        else:
            super().run()
            if self.args.output_file is not None:  # which may be the input
                write_given(Path(self.args.output_file), self._output.text.encode())

    def apply_passes(self, prog: ModuleOp) -> None:
        arguments = self.args
        try:
            if not arguments.disable_verify:
                from hyperdex_ir.dialects.grid import check_grid

                check_module(prog)
                check_grid(prog)
            run_passes(
                prog,
                self.passes,
                observers=self._observers(),
                repro=None if arguments.no_repro or arguments.verify_diagnostics else Path(arguments.repro),
                context=self.ctx,
                check=not arguments.disable_verify or arguments.verify_each,
            )
        except HyperdexError as error:
            if not arguments.verify_diagnostics:
                raise
            raise DiagnosticException(f"error: {error}") from None

    def output_resulting_program(self, prog: ModuleOp) -> str:
        """As xdsl-opt prints it; a long head in several lines, as the other commands do."""
        given = self.args
        is_plain = not (given.print_op_generic or given.print_no_properties or given.print_debuginfo)
        return print_module(prog) if is_plain and given.target == "mlir" else super().output_resulting_program(prog)

    def _observers(self) -> list[Observer]:
        from hyperdex_ir.passes.observers import IrTree, PrintBetween, PrintIr, RoundTrip, Statistics, Times

        given = self.args
        printer = PrintIr(
            sys.stderr,
            before_names=given.print_ir_before,
            after_names=given.print_ir_after,
            before_all=given.print_ir_before_all,
            after_all=given.print_ir_after_all,
            after_change=given.print_ir_after_change,
            locations=given.print_debuginfo,
        )
        chosen: list[tuple[object, Observer]] = [
            (given.time_passes, Times(sys.stdout)),
            (given.print_between_passes, PrintBetween(sys.stdout)),
            (given.verify_each, RoundTrip()),
            (True, printer),
            (given.print_ir_tree_dir, IrTree(Path(given.print_ir_tree_dir or "."))),
            (given.pass_statistics, Statistics(sys.stderr)),
        ]
        return [observer for wanted, observer in chosen if wanted]


def main(arguments: list[str] | None = None) -> None:
    """Runs the tool; errors are printed without a traceback, and the exit code is 1."""
    try:
        HyperdexOptMain(args=arguments).run()
    except HyperdexError as error:
        hint = [f"hint: {error.hint}"] if error.hint else []
        _exit("\n".join([f"error: {error} [{error.code}]", *error.notes, *hint]))
    except (DiagnosticException, ParseError, ArgSpecParseError, ValueError, OSError) as error:
        _exit(f"error: {str(error).strip()}")
    except RecursionError:
        _exit("error: the module is nested too deeply\nhint: move its inner regions into functions")
    except KeyboardInterrupt:
        sys.exit(interrupted("hyperdex-opt"))
    except Exception as error:
        if os.environ.get("HYPERDEX_TRACEBACK"):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        _exit(f"error: internal error: {what}\nhint: HYPERDEX_TRACEBACK=1 shows where")


def _exit(message: str) -> None:
    print("\n".join(map(printable, message.splitlines())), file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
