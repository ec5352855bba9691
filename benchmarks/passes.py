"""Prints operations, bytes of printed IR and milliseconds by pass.

    python benchmarks/passes.py [MODEL_DIRECTORY | CONFIG_JSON] [--pipeline default] [--runs 5] [--flat] [--json]

Without a model: the shape of SmolLM2-135M, from its configuration alone. No weights are read. Times are medians of
several runs, each on a fresh copy of the module; they hold the pass and the checks after it. With --flat, the layers
are traced one by one instead of being made one function on import.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hyperdex_ir.frontend import trace_model
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.support.xdsl import print_module

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}


def measure(config: Path, pipeline: str, runs: int, *, target: str, max_length: int, outlined: bool) -> dict[str, Any]:
    """Seconds of the import, then operations, bytes and median milliseconds of what came in and after each pass."""
    started = time.perf_counter()
    imported = trace_model(config, target=target, max_length=max_length, matrix_type="f16", outlined=outlined)
    import_seconds = time.perf_counter() - started
    passes = parse_pipeline(pipeline)
    times: list[list[float]] = [[] for _ in passes]
    rows = [_row("(import)", imported.module)]
    for run in range(runs):
        module = imported.module.clone()
        for number, one in enumerate(passes):
            started = time.perf_counter()
            run_pass(module, one)
            times[number].append(time.perf_counter() - started)
            if run == 0:
                rows.append(_row(one.name, module))
    for row, seconds in zip(rows[1:], times, strict=True):
        row["milliseconds"] = round(1000 * statistics.median(seconds), 2)
    return {"import_seconds": round(import_seconds, 2), "runs": runs, "passes": rows}


def _row(name: str, module: Any) -> dict[str, Any]:
    return {"pass": name, "ops": sum(1 for _ in module.walk()), "bytes": len(print_module(module).encode())}


def _print(result: dict[str, Any]) -> None:
    rows = result["passes"]
    width = max(len(row["pass"]) for row in rows)
    print(f"{'pass':{width}}  {'ops':>7}  {'bytes':>9}  {'ms':>9}")
    for row in rows:
        milliseconds = f"{row['milliseconds']:9.2f}" if "milliseconds" in row else " " * 9
        print(f"{row['pass']:{width}}  {row['ops']:7,}  {row['bytes']:9,}  {milliseconds}")
    total = sum(row.get("milliseconds", 0) for row in rows)
    print(f"{'together':{width}}  {'':7}  {'':9}  {total:9.2f}")
    print(f"tracing and import: {result['import_seconds']:.2f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="directory of a checkpoint, or a config.json")
    parser.add_argument("--pipeline", default="default", help="name, file or text (default: default)")
    parser.add_argument("--runs", type=int, default=5, help="runs to take the median of")
    parser.add_argument("--type-device", default="u55c", help="target")
    parser.add_argument("--max-length", type=int, default=2048, help="positions")
    parser.add_argument("--flat", action="store_true", help="import every layer by itself")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.model is None:
            (folder / "config.json").write_text(json.dumps(SMOLLM2), encoding="utf-8")
        elif arguments.model.is_dir():
            folder = arguments.model
        else:
            shutil.copy(arguments.model, folder / "config.json")
        result = measure(
            folder,
            arguments.pipeline,
            max(1, arguments.runs),
            target=arguments.type_device,
            max_length=arguments.max_length,
            outlined=not arguments.flat,
        )
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)


if __name__ == "__main__":
    main()
