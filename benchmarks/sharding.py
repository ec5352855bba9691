"""Estimates cycles a token of a model of the shape of Llama 7B on 1, 2, 4 and 8 devices, from its config.json alone.

    python benchmarks/sharding.py [--context POSITIONS] [--tokens TOKENS] [--devices N ...] [--target NAME ...] [--json]

No weights are needed. Without overlap, all waits from the start of a message to its end at the next device, and the
program is the one that makes each value in one chunk. The tables of docs/cost.md are what this prints.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import GridAttr
from hyperdex_ir.frontend.model import trace_anew
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.performance.estimate import Estimate, estimate
from hyperdex_ir.targets import load_target

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}

#: What a doubling of devices is published to gain.
PUBLISHED = 1.75


class Model:
    """The model as traced, to be compiled for any number of devices."""

    def __init__(self, context: int):
        self.context = context
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "config.json").write_text(json.dumps(CONFIG))
            self._imported = trace_anew(Path(name), "LlamaForCausalLM", "f16")

    def compile(self, target: str, devices: int, chunks: int | None = None) -> ModuleOp:
        """The module with instructions; chunks: of what goes around the ring."""
        module = self._imported.at(self.context, target).module
        if devices > 1:
            module.attributes["lpu.grid"] = GridAttr(devices)
        for one in parse_pipeline("default"):
            if chunks is not None and one.name == "lower-lpu-to-isa":
                (one,) = parse_pipeline(f"lower-lpu-to-isa{{gather-chunks={chunks}}}")
            run_pass(module, one)
        return module


def measure(compiled: Model, target: str, devices: int, tokens: int) -> dict[str, Any]:
    """Cycles of a pass over the last `tokens` positions, with and without overlap."""
    machine = load_target(target)

    def run(chunks: int | None, overlap: bool) -> Estimate:
        program = to_program(compiled.compile(target, devices, chunks))
        start = compiled.context - tokens
        return estimate(program, machine, tokens=tokens, position=start, overlap=overlap)

    with_overlap = run(None, True)
    without = run(1, False) if devices > 1 else with_overlap
    return {
        "target": target,
        "devices": devices,
        "cycles": with_overlap.cycles,
        "cycles_without_overlap": without.cycles,
        "tokens_per_second": tokens * machine.clock_hz / with_overlap.cycles,
        "bytes_sent": with_overlap.link_bytes,
    }


def rows_of(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table, a row a result."""
    rows: list[list[str]] = []
    first = previous = results[0]
    for result in results:
        doubled = result["devices"] == 2 * previous["devices"]
        rows.append(
            [
                str(result["devices"]),
                f"{result['cycles']:,}",
                f"{result['cycles_without_overlap']:,}",
                f"{result['tokens_per_second']:,.1f}",
                f"{result['bytes_sent']:,}",
                f"{first['cycles'] / result['cycles']:.2f}",
                f"{previous['cycles'] / result['cycles']:.2f}" if doubled else "",
                f"{previous['cycles_without_overlap'] / result['cycles_without_overlap']:.2f}" if doubled else "",
            ]
        )
        previous = result
    return rows


HEAD = ["devices", "cycles", "without overlap", "tokens/s", "bytes sent", "speedup", "a doubling", "without overlap"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=2048, help="positions, those of the step's token included")
    parser.add_argument("--tokens", type=int, default=1, help="tokens in flight; more than 1 is a part of a prompt")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--target", nargs="+", default=["asic", "u55c"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    compiled = Model(arguments.context)
    tables = {
        name: [measure(compiled, name, count, arguments.tokens) for count in arguments.devices]
        for name in arguments.target
    }
    if arguments.json:
        print(json.dumps(tables))
        return
    for name, results in tables.items():
        print(f"{name}, context {arguments.context}, {arguments.tokens} in flight; published: {PUBLISHED} a doubling\n")
        for row in [HEAD, ["---"] * len(HEAD), *rows_of(results)]:
            print(f"| {' | '.join(row)} |")
        print()


if __name__ == "__main__":
    main()
