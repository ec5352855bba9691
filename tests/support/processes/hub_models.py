"""A model of a Hub of tests, and how it is fetched."""

from __future__ import annotations

import json
from pathlib import Path

from hyperdex_ir.hub.download import HubOptions, fetch_config, fetch_model
from hyperdex_ir.support.locations import MARKER, find_folder

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FILES = {
    "config.json": b'{"architectures": ["OPTForCausalLM"]}',
    "tokenizer.json": b"{}",
    "generation_config.json": b"{}",
    "README.md": b"not needed",
    "pytorch_model.bin": b"not needed either",
    "onnx/model.onnx": b"nor this",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[1]}}
    ).encode(),
    SHARDS[0]: b"first shard",
    SHARDS[1]: b"second shard",
}
NEEDED = {name: body for name, body in FILES.items() if name.endswith((".json", ".safetensors"))}


def fetch(model_id: str | Path = "owner/model", revision: str | None = None, **options: bool) -> Path:
    """Both fetches; the folder of the files."""
    asked = HubOptions(None, revision, **options)
    fetch_config(find_folder(model_id), asked)
    fetch_model(find_folder(model_id), asked)
    return find_folder(model_id).source


def contents(ckpt: Path) -> dict[str, bytes]:
    """Everything in the folder but the marker, hidden files too."""
    return {path.name: path.read_bytes() for path in sorted(ckpt.iterdir()) if path.name != MARKER}
