"""Times phases 2 to 4 of a compile, and its peak memory over that of a process that has only imported the same modules.

    python benchmarks/compile.py [MODEL_DIRECTORY]

Without a directory: SmolLM2-135M-Instruct, written by the demo's code. Compiles into a temporary folder, from the
beginning, in a process of its own; with --json, prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Both children end with one line of JSON: the peak resident memory (VmHWM, kB) and what else they measured.
_COMMON = """
import json, sys, time
import torch, transformers
import hyperdex_ir.backend.compilation, hyperdex_ir.backend.convert, hyperdex_ir.backend.instructions
import hyperdex_ir.backend.tracing, hyperdex_ir.frontend.model, hyperdex_ir.tools
from hyperdex_ir.passes.pipeline import parse_pipeline
parse_pipeline("default")
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
_IMPORTS = (
    _COMMON
    + """
for name in json.loads(sys.stdin.read()):
    try:
        __import__(name)
    except ImportError:
        pass
print(json.dumps({"peak": peak()}))
"""
)
_COMPILE = (
    _COMMON
    + """
from hyperdex_ir.backend.compilation import Compilation
seconds = {}
def timed(name, phase):
    method = getattr(Compilation, name)
    def run(self):
        start = time.perf_counter()
        method(self)
        seconds[phase] = time.perf_counter() - start
    setattr(Compilation, name, run)
for name, phase in (("_convert", "2"), ("_map", "3"), ("_generate", "4"), ("_write_manifest", "verify")):
    timed(name, phase)
hyperdex_ir.tools.AutoCompiler().compile(sys.argv[1], output_dir=sys.argv[2])
print(json.dumps({"peak": peak(), "seconds": seconds, "modules": sorted(sys.modules)}))
"""
)


def _run(code: str, *arguments: str, text: str = "") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(model: Path, folder: Path) -> dict[str, Any]:
    """Seconds of each phase, and peak memory in MB: of the compile, of the imports alone, and the difference."""
    compiled = _run(_COMPILE, os.fspath(model), os.fspath(folder / "compiled"))
    imported = _run(_IMPORTS, text=json.dumps(compiled["modules"]))
    seconds = compiled["seconds"]
    return {
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "seconds_2_to_4": round(sum(seconds.values()), 2),
        "peak_mb": round(compiled["peak"] / 1024),
        "imports_mb": round(imported["peak"] / 1024),
        "above_imports_mb": round((compiled["peak"] - imported["peak"]) / 1024),
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
            from hyperdex_ir.demo_checkpoint import find_gguf, write_checkpoint

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
