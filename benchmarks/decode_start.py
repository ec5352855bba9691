"""How long the command line takes from process start to the first text of an answer, and the memory that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

#: The command line, and then its peak resident memory (VmHWM, kB) as the last line of standard error.
_COMMAND = """
import sys
from hyperdex_ir.cli.main import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


def start(model: str, prompt: str, new_tokens: int, options: Sequence[str]) -> tuple[float, int]:
    """Runs `hyperdex run` once: seconds to the first byte on standard output, and its peak resident bytes."""
    command = [sys.executable, "-c", _COMMAND, "run", model, "--prompt", prompt]
    command += ["--max-new-tokens", str(new_tokens), *options]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        seconds = time.perf_counter() - started
        _, errors = process.communicate()
    if process.returncode:
        sys.exit(errors.decode())
    return seconds, 1024 * int(errors.split()[-1])
