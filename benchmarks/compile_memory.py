"""Times a compile of OPT-1.3B's shape beside copy-and-fsync of its checkpoint, and measures its peak memory.

    python benchmarks/compile_memory.py [--folder FOLDER] [--rounds N] [--max-ram SIZE]

Weights are random: 2.6 GB in four safetensors shards, made by `opt_checkpoint.py`. Each round copies the four files,
each synced, then compiles from the beginning in a process of its own; every other round does so the other way round.
Figures are medians over the rounds, the ratio is the median of those within a round. Last of all the compile is asked
for again, with nothing to do. With --json, prints one JSON object. Exits with 1 when a goal is missed.

Needs 8 GB of disk. `--folder` keeps the checkpoint for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from opt_checkpoint import write_checkpoint
from timed_compile import PHASES, timed_compile

MOST_TIMES, MOST_SECONDS = 5.0, 2.0
MAX_RAM = "1536MiB"
_BLOCK = 8 << 20


def _copy(model: Path, folder: Path) -> float:
    """Seconds to copy the weights in blocks and sync each file."""
    folder.mkdir(parents=True)
    start = time.perf_counter()
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb", buffering=0) as source, (folder / path.name).open("wb", buffering=0) as copy:
            while block := source.read(_BLOCK):
                copy.write(block)
            os.fsync(copy.fileno())
    return time.perf_counter() - start


def _fresh(path: Path) -> Path:
    """A path where nothing is, and nothing of what was there is still to be written back."""
    shutil.rmtree(path, ignore_errors=True)
    os.sync()
    return path


def measure(model: Path, scratch: Path, rounds: int, max_ram: str) -> dict[str, Any]:
    """Seconds, the ratio to a copy, and peak memory."""
    place, copies = scratch / "round", list[float]()
    compiles: list[dict[str, Any]] = []
    for number in range(rounds):
        steps = [
            lambda: copies.append(_copy(model, _fresh(place) / "copy")),
            lambda: compiles.append(timed_compile(model, _fresh(place) / "compiled", max_ram=max_ram)),
        ]
        for step in steps if (rounds - number) % 2 else reversed(steps):  # the last one is a compile
            step()
    again = timed_compile(model, place / "compiled", max_ram=max_ram)
    both = [one["seconds"]["2"] + one["seconds"]["3"] for one in compiles]
    return {
        "bytes": sum(path.stat().st_size for path in model.glob("*.safetensors")),
        "rounds": rounds,
        "copy": round(median(copies), 2),
        **{phase: round(median(one["seconds"][phase] for one in compiles), 2) for phase in PHASES.values()},
        "phases_2_and_3": round(median(both), 2),
        "times_copy": round(median(one / copy for one, copy in zip(both, copies, strict=True)), 2),
        "times_copy_by_round": [round(one / copy, 2) for one, copy in zip(both, copies, strict=True)],
        "peak_mib": -(-max(one["peak"] for one in compiles) // (1 << 20)),
        "max_ram": max_ram,
        "again": round(again["whole"], 2),
        "again_imports": [name for name in ("torch", "transformers") if name in again["modules"]],
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _screen(result: dict[str, Any]) -> list[str]:
    def met(holds: bool) -> str:
        return "met" if holds else "missed"

    imports = " and ".join(result["again_imports"]) or "neither torch nor transformers"
    return [
        f"OPT 1.3B, {result['bytes'] / 1e9:.2f} GB, {result['rounds']} rounds",
        f"copy and fsync, s                {result['copy']:8.2f}",
        f"phase 2, tracing included, s     {result['2']:8.2f}",
        f"phase 3, s                       {result['3']:8.2f}",
        f"phases 2 and 3, s                {result['phases_2_and_3']:8.2f}",
        f"  times copy and fsync           {result['times_copy']:8.2f}  <= {MOST_TIMES:g}   {met(_is_fast(result))}",
        f"    by round                     {'  '.join(f'{one:.2f}' for one in result['times_copy_by_round'])}",
        f"phase 4, s                       {result['4']:8.2f}",
        f"verification, s                  {result['verify']:8.2f}",
        f"peak memory, MiB                 {result['peak_mib']:8}  --max-ram {result['max_ram']} held",
        f"nothing to do, whole process, s  {result['again']:8.2f}  < {MOST_SECONDS:g}    {met(_is_short(result))}",
        f"  imports {imports}",
    ]


def _is_fast(result: dict[str, Any]) -> bool:
    return result["times_copy"] <= MOST_TIMES


def _is_short(result: dict[str, Any]) -> bool:
    return result["again"] < MOST_SECONDS and not result["again_imports"]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is to be kept")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--max-ram", default=MAX_RAM, help=f"default: {MAX_RAM}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder and arguments.folder.parent) as temporary:
        model = arguments.folder or Path(temporary) / "checkpoint"
        if not (model / "config.json").is_file():
            write_checkpoint(model)
        result = measure(model, Path(temporary), arguments.rounds, arguments.max_ram)
    print(json.dumps(result) if arguments.json else "\n".join(_screen(result)))
    return 0 if _is_fast(result) and _is_short(result) else 1


if __name__ == "__main__":
    sys.exit(main())
