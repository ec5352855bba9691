"""Times the steps from config.json to instructions for a model of the shape of Llama 70B, by its number of layers.

    python benchmarks/scaling.py [LAYERS ...]

By default 8 and 80 layers; no weights are needed. Times are of the processor; bytes are those of the printed module
after the step. With --json, prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.frontend import graph, importer, model, trace
from hyperdex_ir.isa.codec import encode_program
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.support.xdsl import print_module

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}

#: Enough HBM for the whole model on one device: more than any target has.
HBM_BYTES = 1 << 38


class Steps:
    """Seconds of each step, and the bytes of the module behind it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def run(self, name: str, step: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = step()
        self.rows.append({"step": name, "seconds": time.process_time() - start})
        return result

    def size(self, module: ModuleOp) -> None:
        self.rows[-1] |= {"ops": sum(1 for _ in module.walk()), "bytes": len(print_module(module))}


def measure(layers: int) -> list[dict[str, Any]]:
    """Every step for one depth."""
    steps = Steps()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
        traced = steps.run("trace", lambda: trace.trace(directory, "LlamaForCausalLM"))
    names = model.canonical_names(traced.model)
    seen = steps.run(
        "graph", lambda: graph.Graph(traced.program, trace.WRAPPED, "LlamaForCausalLM", names, traced.buffers)
    )
    facts: dict[str, Any] = {"target": "u55c", "max_length": 4096, "matrix_type": "f16"}
    module = steps.run("import", lambda: importer.import_graph(seen, **facts))
    steps.size(module)
    for one in parse_pipeline("default"):
        steps.run(one.name, lambda one=one: run_pass(module, one))
        steps.size(module)
    steps.run("encode", lambda: encode_program(to_program(module).instructions))
    return steps.rows


def enlarge_hbm() -> None:
    """Lets the planner place the model on one device."""
    import dataclasses

    from hyperdex_ir.passes import lower_lpu_to_isa

    load = lower_lpu_to_isa.load_target
    lower_lpu_to_isa.load_target = lambda name: dataclasses.replace(load(name), hbm_bytes=HBM_BYTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", type=int, default=[8, 80], metavar="LAYERS")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    enlarge_hbm()
    measure(1)  # so that what is done once a process counts for no depth
    results = {layers: measure(layers) for layers in arguments.layers}
    if arguments.json:
        print(json.dumps(results))
        return
    for layers, rows in results.items():
        print(f"{layers} layers")
        for row in rows:
            size = f"{row['ops']:6} ops {row['bytes']:8} bytes" if "ops" in row else ""
            print(f"  {row['step']:26} {row['seconds']:8.3f} s {size}")
        passes = sum(row["seconds"] for row in rows if row["step"] not in ("trace", "graph", "import"))
        print(f"  {'all passes and encoding':26} {passes:8.3f} s")
        print(f"  {'all':26} {sum(row['seconds'] for row in rows):8.3f} s")


if __name__ == "__main__":
    main()
