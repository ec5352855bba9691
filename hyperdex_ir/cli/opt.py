"""`hyperdex-opt`: xdsl-opt with this package's dialects, passes and pipelines."""

from __future__ import annotations

import argparse
import sys

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException, ParseError, VerifyException
from xdsl.xdsl_opt_main import xDSLOptMain

from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.xdsl_support import check_module, pass_failed


class HyperdexOptMain(xDSLOptMain):
    """xdsl-opt, whose modules are also checked for use before definition, and whose errors stay short."""

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        super().register_all_arguments(arg_parser)
        arg_parser.add_argument(
            "--pipeline",
            metavar="NAME|FILE|TEXT",
            help="run a pipeline: the name of one of this package's, a .pipeline file, or passes separated by commas",
        )

    def setup_pipeline(self) -> None:
        super().setup_pipeline()
        passes, callback = self.pipeline.passes, self.pipeline.callback
        if self.args.pipeline is not None:
            from hyperdex_ir.passes.pipeline import parse_pipeline

            passes = (*passes, *parse_pipeline(self.args.pipeline))

        def check(previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
            if not self.args.disable_verify:
                _check(previous, module)
            if callback is not None:
                callback(previous, module, following)

        self.pipeline = PassPipeline(passes, check)

    def apply_passes(self, prog: ModuleOp) -> None:
        try:
            super().apply_passes(prog)
        except HyperdexError as error:
            if not self.args.verify_diagnostics:
                raise
            raise DiagnosticException(f"error: {error}") from None


def _check(previous: ModulePass | None, module: ModuleOp) -> None:
    try:
        check_module(module)
    except VerifyException as error:
        if previous is None:
            raise
        raise pass_failed(previous.name, error) from None


def main(arguments: list[str] | None = None) -> None:
    """Runs the tool; errors are printed without a traceback, and the exit code is 1."""
    try:
        HyperdexOptMain(args=arguments).run()
    except HyperdexError as error:
        _exit(f"error: {error} [{error.code}]" + (f"\nhint: {error.hint}" if error.hint else ""))
    except (DiagnosticException, ParseError, ArgSpecParseError, ValueError, OSError) as error:
        _exit(f"error: {str(error).strip()}")


def _exit(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
