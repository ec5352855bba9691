"""Coverage-guided fuzzing of one reader: `python tests/fuzz/fuzz.py TARGET [libFuzzer options]`, see `make fuzz`.

Needs the extra `fuzz` (docs/decisions/0015). A bug, a call of more than 10 seconds or 256 MiB more of memory ends it
with an exit code that is not 0 and leaves the bytes in a file.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).parents[1]))
from fuzz_targets import TARGETS

MOST_SECONDS = 10
MOST_GROWTH_MIB = 256


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["hyperdex_ir", "xdsl.parser", "xdsl.utils"]):
        check, seeds = TARGETS[name]()
        from hyperdex_ir.errors import HyperdexError

    def one_input(data: bytes) -> None:
        try:
            check(data)
        except HyperdexError as error:
            if "\n" in str(error) or not str(error).isprintable():
                raise AssertionError(f"not one line: {error!r}") from error

    corpus = Path(tempfile.mkdtemp(prefix=f"hyperdex-fuzz-{name}-"))
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) + MOST_GROWTH_MIB
    limits = [f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={memory}", f"-malloc_limit_mb={MOST_GROWTH_MIB}"]
    atheris.Setup([sys.argv[0], *limits, "-max_len=4096", *options, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
