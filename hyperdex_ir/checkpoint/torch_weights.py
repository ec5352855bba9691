"""Files in torch's own format: read without running code of them, or rewritten as safetensors."""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.checkpoint.torch_pickles import DryRun
from hyperdex_ir.errors import DOWNLOAD_AGAIN, CheckpointError
from hyperdex_ir.isa.formats import PUBLISHED
from hyperdex_ir.support.files import atomic_file, write_text
from hyperdex_ir.support.locations import SAFETENSORS_INDEX
from hyperdex_ir.support.reading import (
    MOST_DIMENSIONS,
    SINGLE_TORCH_FILE,
    WEIGHTS_INDEX,
    WEIGHTS_PICKLE,
    check_no_pointer,
    check_regular,
    open_regular,
    read_object,
)

SINGLE = SINGLE_TORCH_FILE
#: A file of torch before 1.6 has a magic number, a version, the machine, the tensors, and the names of their storages.
_OLD_PICKLES = 5
#: Signature by which torch recognises a zip archive, from which it reads other pickles.
_ZIP = b"PK\x03\x04"
#: Tensors that share elements may have together at most this multiple of the file's bytes; tied weights have twice.
_MOST_SHARING = 4


def safetensors_name(name: str) -> str:
    """Name of the rewritten file: `pytorch_model-00001-of-00002.bin` -> `model-00001-of-00002.safetensors`."""
    return name.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def load_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a torch file, by name; no code of it runs.

    Files of torch 1.6 and later are mapped; older ones are in memory as a whole. Raises CheckpointError when the file
    cannot be read, or holds anything but dense tensors whose elements are all in the file.
    """
    import torch

    check_regular(path, CheckpointError, DOWNLOAD_AGAIN)
    check_no_pointer(path, CheckpointError)
    try:
        mapped = is_mapped(path)
        if mapped:
            _check_records(path)
        _check_pickles(path, mapped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except Exception as error:  # torch does not catch the exceptions of its zip reader
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a torch file of tensors: {first_line}", DOWNLOAD_AGAIN) from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: holds {type(tensors).__name__}, expected tensors by name")
    for name, tensor in tensors.items():
        if wrong := _what_is_wrong(name, tensor):
            raise CheckpointError(f"{path}: {name} {wrong}", "convert the checkpoint to safetensors")
    _check_sizes(path, tensors)
    return tensors


def _check_records(path: Path) -> None:
    """Raises CheckpointError when the file is compressed, or its records other than tensors are too large.

    torch maps tensors as they lie in the file, compressed or not, and reads all other records.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{path}: {record.filename} is compressed", "save it again with torch.save")
    reader = torch._C.PyTorchFileReader(str(path))
    for name in reader.get_all_records():
        if not name.startswith("data/") and (size := reader.get_record_size(name)) > WEIGHTS_PICKLE.limit:
            raise CheckpointError(f"{path}: {name} has {size} bytes, the most that is read is {WEIGHTS_PICKLE.limit}")


def _check_pickles(path: Path, mapped: bool) -> None:
    """Raises CheckpointError when pickles do anything but make tensors from the file's data, or are too long."""
    data, most = _pickles(path, mapped), WEIGHTS_PICKLE.most_values
    source, whole = io.BytesIO(data), len(data) <= WEIGHTS_PICKLE.limit
    run = DryRun(path, not mapped, most)
    try:
        for _ in range(1 if mapped else _OLD_PICKLES):
            # torch reports the fault of a file that ends too early.
            if not whole or source.tell() < len(data):
                run.run(source)
    except ValueError as error:
        if whole:
            raise
        raise CheckpointError(
            f"{path}: pickles of more than {WEIGHTS_PICKLE.limit} bytes, which is the most that is read"
        ) from error


def _pickles(path: Path, mapped: bool) -> bytes:
    """The pickle of a mapped file; for other files, the bytes that their pickles must lie in, and one more byte."""
    import torch

    if mapped:
        return torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    with open_regular(path, CheckpointError, DOWNLOAD_AGAIN) as file:
        data = file.read(min(path.stat().st_size, WEIGHTS_PICKLE.limit) + 1)
    if data.startswith(_ZIP):
        raise CheckpointError(f"{path}: begins as a zip archive, but has no end of one", DOWNLOAD_AGAIN)
    return data


def _what_is_wrong(name: Any, tensor: Any) -> str:
    """Reason why a value of the file is not a dense tensor in memory with all its elements; empty when it is one."""
    import torch

    if not isinstance(name, str) or not _is_text(name):
        return "is the name of a tensor, expected text"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"is {type(tensor).__name__}, no weight"
    if tensor.device.type != "cpu":
        return f"is a tensor of the device {tensor.device.type}, whose elements are not in the file"
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
        return f"is a tensor of another kind ({kind.removeprefix('torch.')}), expected a dense one"
    if tensor.dim() > MOST_DIMENSIONS:
        return f"has {tensor.dim()} dimensions, the most is {MOST_DIMENSIONS}"
    if tensor.is_neg() or tensor.is_conj():
        return "is a tensor that is to be negated or conjugated"
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > stored:
        shape, strides = list(tensor.shape), list(tensor.stride())
        return f"has {tensor.numel()} elements, {shape} with strides {strides}, of {stored} in the file"
    return ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_sizes(path: Path, tensors: dict[str, Any]) -> None:
    """Raises CheckpointError when the storages have more bytes than the file, or the tensors several times as many."""
    size = path.stat().st_size
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    dense = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if sum(storages.values()) > size or dense > _MOST_SHARING * size:
        held = max(sum(storages.values()), dense)
        raise CheckpointError(f"{path}: tensors of {held} bytes, the file has {size}", DOWNLOAD_AGAIN)


def element_type(path: Path, name: str, tensor: Any) -> str:
    """The safetensors name of a tensor's type. Raises CheckpointError for a type that weights cannot have."""
    import torch

    names = {getattr(torch, kind.torch): kind.published for kind in PUBLISHED.values()}
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in names:
        raise CheckpointError(f"{path}: {name} is {getattr(tensor, 'dtype', type(tensor).__name__)}, no weight")
    return names[tensor.dtype]


def is_mapped(path: Path) -> bool:
    """Test for a file that `load_tensors` maps; its tensors take no memory of the process until they are read."""
    return zipfile.is_zipfile(path)


def raw_bytes(tensor: Any) -> np.ndarray:
    """The elements of a tensor in order, as bytes."""
    import torch

    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def let_go(tensor: Any) -> None:
    """Drops the mapped pages of a tensor (MADV_DONTNEED); a later read faults them in."""
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

    root: as of `files.atomic_file`. Tensors that share memory are written once for each name. Raises CheckpointError as
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
    weight_map = read_object(path, WEIGHTS_INDEX)["weight_map"]
    renamed = {name: safetensors_name(file) for name, file in weight_map.items()}
    output = path.with_name(SAFETENSORS_INDEX)
    write_text(output, json.dumps({"metadata": {}, "weight_map": renamed}, indent=1) + "\n", root)
    return output
