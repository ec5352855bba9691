"""The arguments of `hyperdex-opt` that xdsl-opt does not have."""

from __future__ import annotations

from argparse import ArgumentParser

_FLAGS = {
    "--print-pipeline": "print the passes that would run, one a line, and exit",
    "--list-passes": "print a table of this package's passes and exit",
    "--print-ir-before-all": "print the IR before each pass",
    "--print-ir-after-all": "print the IR after each pass",
    "--print-ir-after-change": "print the IR after each pass that changed it",
    "--pass-statistics": "print operations before and after each pass, and the numbers that it reports",
    "--verify-each": "after each pass, also check that the IR's text reads back as the same module",
    "--own-passes": "take only passes that the text of a file may name: those of this package, canonicalize, cse, dce",
    "--no-repro": "write nothing when a pass fails",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments. IR and tables go to stderr, so that stdout holds the result only."""
    parser.add_argument(
        "--pipeline",
        metavar="NAME|FILE|TEXT",
        help="run a pipeline: the name of one of this package's, a file, or passes separated by commas",
    )
    for place in ("before", "after"):
        parser.add_argument(
            f"--print-ir-{place}",
            metavar="PASS",
            action="append",
            default=[],
            help=f"print the IR {place} this pass; may be given several times",
        )
    for flag, text in _FLAGS.items():
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("--print-ir-tree-dir", metavar="DIR", help="write the IR after each pass to a numbered file")
    parser.add_argument(
        "--repro", metavar="DIR", default="repro", help="where a failing pass leaves what reproduces it"
    )
