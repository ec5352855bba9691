"""Checkpoints in torch's own format, rewritten as safetensors: for models on the Hub that have nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.files import atomic_file, write_text

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


def safetensors_name(name: str) -> str:
    """`pytorch_model-00001-of-00002.bin` -> `model-00001-of-00002.safetensors`."""
    return name.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def rewrite(path: Path) -> Path:
    """Writes the tensors of a torch file to a safetensors file beside it, and returns that file's path.

    The file is mapped and only tensors are unpickled, so no code of the checkpoint runs. Tensors that share memory are
    written once a name. Raises CheckpointError when torch cannot read the file.
    """
    import torch

    try:
        tensors: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its unpickler and its zip reader raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a torch file of tensors: {first_line}", "download it again") from error
    names = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
    names |= {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in names:
            raise CheckpointError(f"{path}: {name} is {getattr(tensor, 'dtype', type(tensor).__name__)}, no weight")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    output = path.with_name(safetensors_name(path.name))
    with atomic_file(output) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return output


def rewrite_index(path: Path) -> Path:
    """Writes the index of the safetensors files that the torch files of an index become; returns its path."""
    weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    renamed = {name: safetensors_name(file) for name, file in weight_map.items()}
    output = path.with_name("model.safetensors.index.json")
    write_text(output, json.dumps({"metadata": {}, "weight_map": renamed}, indent=1) + "\n")
    return output
