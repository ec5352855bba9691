"""Times phases 2 to 4 of a compile, and its peak memory over that of a process that has only imported the same modules.

    python benchmarks/compile.py [MODEL_DIRECTORY]

Without a directory: SmolLM2-135M-Instruct, written by the demo's code. Compiles into a temporary folder, from the
beginning, in a process of its own; with --json, prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from timed_compile import run_python, timed_compile

_BEFORE = """
import torch, transformers
import hyperdex_ir.backend.compilation, hyperdex_ir.backend.convert, hyperdex_ir.backend.instructions
import hyperdex_ir.backend.tracing, hyperdex_ir.frontend.model, hyperdex_ir.tools
from hyperdex_ir.passes.pipeline import parse_pipeline
parse_pipeline("default")
"""
_IMPORTS = (
    _BEFORE
    + """
import json, sys
from hyperdex_ir.backend.ram_ceiling import peak_bytes
for name in json.loads(sys.stdin.read()):
    try:
        __import__(name)
    except ImportError:
        pass
print(json.dumps({"peak": peak_bytes()}))
"""
)
_MB = 1 << 20


def measure(model: Path, folder: Path) -> dict[str, Any]:
    """Seconds of each phase, and peak memory in MB: of the compile, of the imports alone, and the difference."""
    compiled = timed_compile(model, folder / "compiled", before=_BEFORE)
    imported = run_python(_IMPORTS, text=json.dumps(compiled["modules"]))
    seconds = compiled["seconds"]
    return {
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "seconds_2_to_4": round(sum(seconds.values()), 2),
        "peak_mb": round(compiled["peak"] / _MB),
        "imports_mb": round(imported["peak"] / _MB),
        "above_imports_mb": round((compiled["peak"] - imported["peak"]) / _MB),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="directory of a Hugging Face checkpoint")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = arguments.model
        if model is None:
            from hyperdex_ir.cli.demo_checkpoint import find_gguf, write_checkpoint

            model = folder / "checkpoint"
            write_checkpoint(find_gguf(), model)
        result = measure(model, folder)
    if arguments.json:
        print(json.dumps(result))
        return
    names = {"2": "phase 2, tracing included", "3": "phase 3", "4": "phase 4", "verify": "verification and manifest"}
    for phase, value in result["seconds"].items():
        print(f"{names[phase]:28} {value:8.2f} s")
    print(f"{'together':28} {result['seconds_2_to_4']:8.2f} s")
    print(f"{'peak memory':28} {result['peak_mb']:8} MB")
    print(f"{'of that, imports alone':28} {result['imports_mb']:8} MB")
    print(f"{'above imports':28} {result['above_imports_mb']:8} MB")


if __name__ == "__main__":
    main()
