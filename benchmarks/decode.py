"""Decode and prefill of this engine beside llama.cpp, transformers and the machine itself, from one run.

    python benchmarks/decode.py --llama-python PYTHON [--threads N] [--rounds 7] [--folder FOLDER] [--no-large] [--json]

SmolLM2-135M, and a 1.3B-parameter Llama with random weights, both in float16. Peers get the same prompts and the same
number of threads, and take the likeliest token. PYTHON is the interpreter of an environment with llama-cpp-python (or
$HYPERDEX_LLAMA_PYTHON); README.md says how to make one. Models are made in FOLDER and used again from there; without
one, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from decode_models import Model, cache_bytes, make_large, make_smollm2, prefill_operations, streamed_bytes
from decode_peers import BFLOAT16, ENGINE, FLOAT32, LLAMA, Run, Setup, quiet_run
from decode_start import start
from machine_speed import MachineSpeed, default_threads

PROMPT = (
    "Rome was founded, so its historians say, in the year 753 before the common era, on seven hills beside a river. "
    "For some centuries kings ruled it, then two consuls that the people chose anew each year, and at last emperors. "
    "Its roads, straight and paved, led from the northern sea to the desert, and along them went soldiers, merchants, "
    "letters, laws and a language that children still learn. "
)
PREFILL = 256
SMALL_PROMPT, SMALL_NEW = 32, 65
LARGE_PROMPT, LARGE_NEW = 32, 17
START_RUNS = 7
MB = 1e6


def _tokens(model: Model) -> list[int]:
    from hyperdex_ir.runtime.tokenizer import Tokenizer

    return Tokenizer.load(model.checkpoint).encode(PROMPT * 4)


def small(machine: MachineSpeed, setup: Setup, model: Model) -> Run:
    """Decode and prefill of SmolLM2."""
    text = _tokens(model)
    tasks = {
        "decode": {"command": "decode", "prompt": text[:SMALL_PROMPT], "count": SMALL_NEW},
        "prefill": {"command": "prefill", "prompt": text[:PREFILL]},
    }
    workers = setup.workers(model, PREFILL + SMALL_NEW, (ENGINE, LLAMA, FLOAT32, BFLOAT16))
    return quiet_run(machine, setup, workers, tasks)


def large(machine: MachineSpeed, setup: Setup, model: Model) -> Run:
    """Decode of the 1.3B model. float32 is left out: it would take 5 GB of memory, and another number of bytes."""
    prompt = [(7919 * position) % model.config["vocab_size"] for position in range(LARGE_PROMPT)]
    tasks = {"decode": {"command": "decode", "prompt": prompt, "count": LARGE_NEW}}
    return quiet_run(machine, setup, setup.workers(model, PREFILL, (ENGINE, LLAMA, BFLOAT16)), tasks)


def ceiling(run: Run, model: Model, *, folds: bool) -> float:
    """Tokens per second of a prefill if the machine did nothing but the sums, at its fastest: the multiply-adds, and,
    where `folds`, the additions that the lane order takes beyond them, each as fast as a multiply-add.
    """
    multiplies, additions = prefill_operations(model.config, PREFILL)
    return PREFILL * max(run.multiplies) / (multiplies + (additions if folds else 0))


def startup(model: Model, setup: Setup) -> dict[str, float]:
    """Median seconds from process start to the first text; resident MB of a run, and those beyond weights and cache."""
    options = ["--engine", setup.engine, "--threads", str(setup.threads)]
    place = os.fspath(model.checkpoint)
    _, resident = start(place, PROMPT * 4, SMALL_NEW, options)  # the first one fills caches: code, pages
    seconds = [start(place, "Rome was founded", 2, options)[0] for _ in range(START_RUNS)]
    weights = sum(path.stat().st_size for path in (model.checkpoint / "param").iterdir())
    cache = cache_bytes(model.config, len(_tokens(model)) + SMALL_NEW)
    return {
        "seconds": statistics.median(seconds),
        "resident_mb": resident / MB,
        "weights_mb": weights / MB,
        "beyond_mb": (resident - weights - cache) / MB,
    }


# ---------------------------------------------------------------------------------------------------- the table


def report(machine: MachineSpeed, runs: list[tuple[Model, Run]], starts: dict[str, float]) -> list[dict[str, Any]]:
    """The rows of the table: what, unit, a value for each peer, the goal and whether the engine meets it."""
    model, run = runs[0]
    rows = _decode_rows(model, run, None)
    rows.append(_goal("  times llama.cpp", run.ratio("decode", ENGINE, LLAMA), ">=", 1.2))
    for other, its in runs[1:]:
        rows += _decode_rows(other, its, 0.85)
    rows.append(_rates(f"{model.name}, prefill of {PREFILL}", run, "prefill"))
    rows.append(_goal("  times llama.cpp", run.ratio("prefill", ENGINE, LLAMA), ">=", 0.9))
    rows.append({"what": "  ceiling of the lane order, tokens/s", ENGINE: round(ceiling(run, model, folds=True))})
    rows.append({"what": "  ceiling without its folds, tokens/s", ENGINE: round(ceiling(run, model, folds=False))})
    rows.append(_goal("process start to first token, s", starts["seconds"], "<", 1.0))
    rows.append({"what": "resident memory, MB", ENGINE: round(starts["resident_mb"])})
    rows.append(_goal("  beyond weights and KV cache", starts["beyond_mb"], "<=", 200))
    return rows


def _rates(name: str, run: Run, task: str) -> dict[str, Any]:
    rates = {peer: run.median(task, peer) for peer in (ENGINE, LLAMA, FLOAT32, BFLOAT16)}
    return {"what": f"{name}, tokens/s"} | {peer: round(rate, 2) for peer, rate in rates.items() if rate is not None}


def _decode_rows(model: Model, run: Run, goal: float | None) -> list[dict[str, Any]]:
    """Rates, and the share of the read bandwidth that they are (the goal's) for peers whose matrices are of 16 bits."""
    share = streamed_bytes(model.config) / max(run.bandwidth)
    rates = {peer: run.median("decode", peer) for peer in (ENGINE, LLAMA, BFLOAT16)}
    shares = {peer: round(rate * share, 3) for peer, rate in rates.items() if rate is not None}
    row = {"what": "  share of the read bandwidth"} | shares
    return [
        _rates(f"{model.name}, decode", run, "decode"),
        row | (_met(shares[ENGINE], ">=", goal) if goal else {}),
        {
            "what": "  read bandwidth, GB/s",
            "machine": round(max(run.bandwidth) / 1e9, 1),
            "spread": round(run.spread, 3),
        },
    ]


def _goal(what: str, value: float | None, sign: str, bound: float) -> dict[str, Any]:
    if value is None:
        return {"what": what}
    return {"what": what, ENGINE: round(value, 3)} | _met(value, sign, bound)


def _met(value: float, sign: str, bound: float) -> dict[str, Any]:
    holds = {">=": value >= bound, "<=": value <= bound, "<": value < bound}[sign]
    return {"goal": f"{sign} {bound}", "met": holds}


def _print(rows: list[dict[str, Any]], machine: MachineSpeed, setup: Setup) -> None:
    columns = (ENGINE, LLAMA, FLOAT32, BFLOAT16, "machine")
    print(f"{setup.threads} threads, vectors of {machine.lanes}, medians of {setup.rounds} rounds")
    width = max(len(row["what"]) for row in rows)
    print(" " * width + "".join(f"{name:>11}" for name in columns) + "   goal")
    for row in rows:
        values = "".join(f"{row.get(name, ''):>11}" for name in columns)
        goal = f"   {row['goal']:8} {'met' if row['met'] else 'MISSED'}" if "goal" in row else ""
        print(f"{row['what']:{width}}{values}{goal}".rstrip())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    environment = os.environ.get("HYPERDEX_LLAMA_PYTHON")
    parser.add_argument("--llama-python", default=environment, help="interpreter that has llama_cpp; none: left out")
    parser.add_argument("--threads", type=int, default=default_threads(), help="threads (default: the cores)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements to take the median of (default: 7)")
    parser.add_argument("--folder", type=Path, help="where models are made and kept (default: a temporary folder)")
    parser.add_argument("--no-large", dest="large", action="store_false", help="leave the 1.3B model out")
    parser.add_argument("--engine", default="native", help="ours (default: native)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.llama_python is None:
        print("llama.cpp is left out: give --llama-python or HYPERDEX_LLAMA_PYTHON", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        _measure(arguments, arguments.folder or Path(temporary))


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    machine = MachineSpeed(arguments.threads)
    setup = Setup(arguments.threads, arguments.llama_python, arguments.engine, arguments.rounds)
    model = make_smollm2(folder, setup.llama_python)
    other = make_large(folder, setup.llama_python) if arguments.large else None
    runs = [(model, small(machine, setup, model))]
    if other is not None:
        runs.append((other, large(machine, setup, other)))
    rows = report(machine, runs, startup(model, setup))
    if arguments.json:
        details = {
            one.name: {
                "rates": run.rates,
                "bandwidth": run.bandwidth,
                "multiplies": run.multiplies,
                "tokens": run.tokens,
            }
            for one, run in runs
        }
        print(json.dumps({"threads": setup.threads, "rounds": setup.rounds, "rows": rows, "runs": details}))
    else:
        _print(rows, machine, setup)


if __name__ == "__main__":
    main()
