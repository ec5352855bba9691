"""Files in torch's own format: read without running code of them, or rewritten as safetensors."""

from __future__ import annotations

import ctypes
import json
import mmap
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.files import atomic_file, write_text

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


def safetensors_name(name: str) -> str:
    """`pytorch_model-00001-of-00002.bin` -> `model-00001-of-00002.safetensors`."""
    return name.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def load_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a torch file, by name; no code of it runs.

    Files of torch 1.6 and later are mapped; older ones are in memory as a whole. Raises CheckpointError when it holds
    other than tensors, or cannot be read.
    """
    import torch

    try:
        mapped = is_mapped(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_wanted(str(error))}", "only tensors are loaded, no code is run") from error
    except Exception as error:  # torch raises whatever its zip reader raises
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a torch file of tensors: {first_line}", "download it again") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: holds {type(tensors).__name__}, expected tensors by name")
    return tensors


def _wanted(message: str) -> str:
    """What a pickle wants to run, from what torch says about it."""
    found = re.search(r"(?:GLOBAL |class |function )([\w.]+)", message)
    return f"wants to run {found[1]}, which a checkpoint must not" if found else "is not made of tensors only"


def element_type(path: Path, name: str, tensor: Any) -> str:
    """The name that safetensors has for a tensor's type. Raises CheckpointError when it is no tensor of that kind."""
    import torch

    names = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
    names |= {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}
    names |= {torch.float8_e4m3fn: "F8_E4M3"}
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in names:
        raise CheckpointError(f"{path}: {name} is {getattr(tensor, 'dtype', type(tensor).__name__)}, no weight")
    return names[tensor.dtype]


def is_mapped(path: Path) -> bool:
    """Whether `load_tensors` maps a file, so that its tensors are no memory of the process before they are read."""
    return zipfile.is_zipfile(path)


def raw_bytes(tensor: Any) -> np.ndarray:
    """The elements of a tensor in order, as bytes."""
    import torch

    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def let_go(tensor: Any) -> None:
    """Gives back the memory of the pages that a tensor of a mapped file lies on; who reads it again has them again."""
    if not tensor.numel():
        return
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (tensor.data_ptr() + extent * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < stop:
        advise = ctypes.CDLL(None).madvise
        advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


def rewrite(path: Path, root: Path) -> Path:
    """Writes the tensors of a torch file to a safetensors file beside it, and returns that file's path.

    root: as of `files.atomic_file`. Tensors that share memory are written once a name. Raises CheckpointError as
    `load_tensors`.
    """
    tensors, mapped = load_tensors(path), is_mapped(path)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        dtype = element_type(path, name, tensor)
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    output = path.with_name(safetensors_name(path.name))
    with atomic_file(output, root) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(raw_bytes(tensor).data)
            if mapped:
                let_go(tensor)
    return output


def rewrite_index(path: Path, root: Path) -> Path:
    """Writes the index of the safetensors files that the torch files of an index become; returns its path.

    root: as of `files.atomic_file`.
    """
    weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    renamed = {name: safetensors_name(file) for name, file in weight_map.items()}
    output = path.with_name("model.safetensors.index.json")
    write_text(output, json.dumps({"metadata": {}, "weight_map": renamed}, indent=1) + "\n", root)
    return output
