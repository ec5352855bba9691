"""GGUF files, rewritten as Hugging Face checkpoints by transformers' own tables; one tensor in memory at a time.

Quantized tensors become float32 numbers; F16 and BF16 tensors keep their type. transformers' tensor processors undo
llama.cpp's renaming of tensors and its changes to them (rotary pairs side by side, norms plus one). Values that
transformers leaves out of the configuration are added: see also gguf_rotary.py.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.checkpoint.gguf_header import architecture_of
from hyperdex_ir.checkpoint.gguf_rotary import FACTORS, complete_rotary, positive_number
from hyperdex_ir.errors import CheckpointError, StorageError, UnsupportedModelError
from hyperdex_ir.isa.formats import FORMATS, PUBLISHED
from hyperdex_ir.support import reading
from hyperdex_ir.support.files import atomic_file, write_text
from hyperdex_ir.support.folder_access import FolderTree, place_of
from hyperdex_ir.support.locations import GGUF_MARKER, SAFETENSORS, SMALL_FILES, ModelFolder
from hyperdex_ir.support.own_code import code_digest

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_SMALL_FILES = ("config.json", "generation_config.json")
#: Copies of a float32 tensor that are in memory at once: dequantized, rearranged, stored.
_COPIES = 3
_KEPT = tuple(kind.published for kind in FORMATS.values())


def open_gguf(path: Path) -> GGUFReader:
    """The file's reader, which maps the file. Raises CheckpointError when the file cannot be read."""
    from hyperdex_ir.checkpoint.gguf_reader import ThriftyReader

    architecture_of(path)
    try:
        reader = ThriftyReader(path)
        held, size = sum(int(tensor.n_bytes) for tensor in reader.tensors), path.stat().st_size
        if held > size:
            raise ValueError(f"tensors of {held} bytes, the file has {size}")
        return reader
    except (ValueError, OSError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable GGUF file: {error}") from error


def value_of(reader: GGUFReader, key: str) -> Any:
    """A field's value. Raises CheckpointError when the file does not have it."""
    if key not in reader.fields:
        raise CheckpointError(f"the GGUF file has no field {key}")
    return reader.fields[key].contents()


# ------------------------------------------------------------------------------------------------------- a checkpoint
def source_facts(path: Path) -> dict[str, Any]:
    """Identity of a GGUF file, and of the code that converts it."""
    found = path.stat()
    return {"file": path.name, "size": found.st_size, "time": found.st_mtime_ns, "code": code_digest()}


def write_small_files(path: Path, folder: Path, root: Path | None = None) -> None:
    """Writes config.json, the generation config and the tokenizer into `folder`, unless they were made from this file.

    root: as of `files.atomic_file`; None: the folder itself. Files made from another GGUF file are removed.
    Raises UnsupportedModelError when transformers cannot make a configuration or tokenizer from the file,
    CheckpointError when the file is broken, or the folder holds a checkpoint that was not made here.
    """
    root, marker = root or folder, _read_marker(folder, root or folder)
    facts, tree = source_facts(path), FolderTree(root)
    if facts.items() <= marker.items() and all(_is_recorded(marker, folder / name, tree) for name in _SMALL_FILES):
        return
    _made_before(path, folder, root)  # fails before any work is done
    reader = open_gguf(path)
    reading.check_checkpoint(path.parent)
    config = _read_config(path, reader)
    ids = {key: getattr(config, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation = {key: value for key, value in ids.items() if value is not None}
    written = _tokenizer_files(path) if "tokenizer.ggml.tokens" in reader.fields else {}
    written["generation_config.json"] = (json.dumps(generation, indent=2) + "\n").encode()
    written["config.json"] = config.to_json_string(use_diff=True).encode()
    for name in _made_before(path, folder, root):
        tree.remove(tree.name_of(folder / name))
    _write_marker(folder, root, {"made": {}})
    for name, content in written.items():
        with atomic_file(folder / name, root, _recorder(folder / name, root)) as file:
            file.write(content)
    _write_marker(folder, root, _read_marker(folder, root) | facts)


def _made_before(path: Path, folder: Path, root: Path) -> list[str]:
    """The files in the folder that were made here, from this GGUF file or another.

    Raises CheckpointError for a checkpoint that was not made here.
    """
    marker, tree = _read_marker(folder, root), FolderTree(root)
    found = [name for name in (*SMALL_FILES, SAFETENSORS) if tree.info(tree.name_of(folder / name)) is not None]
    made = [name for name in found if _is_recorded(marker, folder / name, tree)]
    others = [name for name in (*_SMALL_FILES, SAFETENSORS) if name in found and name not in made]
    if not others:
        return made
    raise CheckpointError(
        f"{folder}: holds {', '.join(others)}, which was not made from {path.name} by this tool",
        "move it away, or name another folder with --output-dir",
    )


# --------------------------------------------------------------------------------------------------------- the marker
def _read_marker(folder: Path, root: Path) -> dict[str, Any]:
    """The marker: the source file, and the size, time and inode of each file made from it. Empty when there is none."""
    tree = FolderTree(root)
    try:
        with tree.open_file(tree.name_of(folder / GGUF_MARKER)) as file:
            value = reading.parse_json(file.read(reading.MARKER.limit).decode(), reading.MARKER)
    except (OSError, StorageError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_marker(folder: Path, root: Path, marker: dict[str, Any]) -> None:
    write_text(folder / GGUF_MARKER, json.dumps(marker) + "\n", root)


def _recorder(path: Path, root: Path) -> Callable[[os.stat_result], None]:
    """Callback for `atomic_file` that records a file in the marker, by size, time and inode, before it has its name.

    So a file that exists is always recorded, even if the process is killed at any point. A stranger who prepares a
    folder can write a marker too, but does not know the inodes that its files will have.
    """

    def record(found: os.stat_result) -> None:
        marker = _read_marker(path.parent, root)
        _write_marker(path.parent, root, {**marker, "made": {**_made(marker), path.name: place_of(found)}})

    return record


def _made(marker: dict[str, Any]) -> dict[str, Any]:
    made = marker.get("made")
    return made if isinstance(made, dict) else {}


def _is_recorded(marker: dict[str, Any], path: Path, tree: FolderTree) -> bool:
    found, entry = tree.info(tree.name_of(path)), _made(marker).get(path.name)
    return found is not None and entry == place_of(found)


def made_files(folder: Path, root: Path) -> dict[str, dict[str, Any]]:
    """The files that were made in a folder: name -> size, time and inode. The marker is one of them.

    Empty when there is no readable marker. root: as of `write_small_files`.
    """
    marker, tree = _read_marker(folder, root), FolderTree(root)
    found = tree.info(tree.name_of(folder / GGUF_MARKER))
    if not marker or found is None:
        return {}
    made = {name: entry for name, entry in _made(marker).items() if isinstance(entry, dict)}
    return made | {GGUF_MARKER: place_of(found)}


def is_made(folder: ModelFolder, name: str) -> bool:
    """Test, by size, time and inode, for a file of the checkpoint that was made from a GGUF file here."""
    return _is_recorded(_read_marker(folder.source, folder.root), folder.source / name, FolderTree(folder.root))


def _read_config(path: Path, reader: GGUFReader) -> Any:
    """transformers' configuration, with the values that it leaves out. Phase 0 has accepted the architecture."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from hyperdex_ir.checkpoint.pretrained import config_from_gguf

    with _one_line(path, "config"):
        config: Any = config_from_gguf(path)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
    name = value_of(reader, "general.architecture")
    # transformers reads the window of some architectures only, and uses its default for the others.
    window = f"{name}.attention.sliding_window"
    try:
        if hasattr(config, "sliding_window") and window in reader.fields:
            size = value_of(reader, window)
            config.sliding_window = None if size == 0 else int(positive_number(window, size))
        complete_rotary(config, reader, name)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{path}: {error}", error.hint) from error
    with _one_line(path, "config"):
        config.validate_rope()
    return config


def _tokenizer_files(path: Path) -> dict[str, bytes]:
    """The tokenizer files that transformers makes.

    transformers follows links. So it writes into a temporary folder, from which the files are read.
    """
    from hyperdex_ir.checkpoint.pretrained import copy_tokenizer

    with TemporaryDirectory(prefix="hyperdex-gguf-") as place:
        with _one_line(path, "tokenizer"):
            copy_tokenizer(path, Path(place))
        return {one.name: one.read_bytes() for one in sorted(Path(place).iterdir())}


@contextmanager
def _one_line(path: Path, what: str) -> Iterator[None]:
    """Context that reports any failure of transformers in one line, and hides its output.

    transformers lets any exception of its readers through, and warns about things that are intended here. A panic of
    its tokenizer library is not an Exception.
    """
    from hyperdex_ir.checkpoint.gguf_reader import thrifty_transformers
    from hyperdex_ir.checkpoint.pretrained import quiet_libraries

    try:
        with quiet_libraries(), thrifty_transformers():
            yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedModelError(f"{path}: transformers reads no {what} from it: {first_line}") from error


def write_weights(
    path: Path,
    folder: Path,
    root: Path | None = None,
    dtype: str | None = None,
    room: Callable[[int, str], None] = lambda count, what: None,
) -> None:
    """Writes the tensors of a GGUF file as safetensors into `folder`, where its config.json is.

    root: as of `write_small_files`. dtype: `F16` rounds all tensors to that type. room: called before
    anything is written, with the bytes of memory that are needed and their purpose. Raises CheckpointError for a tensor
    that does not fit the model, UnsupportedModelError for one that the model does not have.
    """
    reader = open_gguf(path)
    names = _Names(path, reader, folder)
    entries = [(name, *names.described(name, dtype)) for name in sorted(names.tensors)]
    if not entries:
        raise CheckpointError(f"{path}: has no tensors", "download the file again")
    name, _, shape = max(entries, key=lambda entry: prod(entry[2]))
    room(_COPIES * 4 * prod(shape), f"{_COPIES} copies of {name}, {list(shape)}, in float32")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, kind, shape in entries:
        end = offset + PUBLISHED[kind].bytes_of(prod(shape))
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    is_kept = bool(_read_marker(folder, root or folder))
    recorder = _recorder(folder / SAFETENSORS, root or folder) if is_kept else None
    with atomic_file(folder / SAFETENSORS, root or folder, recorder) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, kind, _ in entries:
            file.write(_stored(names.values(name), kind).data)
            _let_go(reader)


def _let_go(reader: GGUFReader) -> None:
    """Drops the mapped pages that have been read; a later read faults them in."""
    mapping = reader.data.base
    if isinstance(mapping, mmap.mmap):
        mapping.madvise(mmap.MADV_DONTNEED)


def _stored(values: np.ndarray, kind: str) -> np.ndarray:
    return np.ascontiguousarray(PUBLISHED[kind].round(values))


@contextmanager
def _one_name_map() -> Iterator[None]:
    """Caches gguf's table of names: transformers asks for it at every module of a model, and gguf builds it anew."""
    import gguf

    make = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = cache(make)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = make


class _Names:
    """The tensors of a GGUF file under transformers' names. tensors: name -> the GGUF tensors that it is made of."""

    def __init__(self, path: Path, reader: GGUFReader, folder: Path):
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        from hyperdex_ir.checkpoint.pretrained import config_from, model_of

        self.path = path
        with _one_line(path, "tensors"):
            config = config_from(folder)
            model = model_of(config)
            kind = TENSOR_PROCESSORS.get(value_of(reader, "general.architecture"), TensorProcessor)
            self.processor = kind(config=config.to_dict())
            with _one_name_map():
                self.names: dict[str, str] = get_gguf_hf_weights_map(model, self.processor)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        self.tensors: dict[str, list[ReaderTensor]] = {}
        for tensor in reader.tensors:
            if tensor.name in FACTORS:  # the configuration has them
                continue
            name = self.names.get(tensor.name, self.names.get(tensor.name.removesuffix(".weight")))
            if name is None:
                raise UnsupportedModelError(
                    f"{path}: {tensor.name} has no place in {type(model).__name__}", "use the original checkpoint"
                )
            self.tensors.setdefault(name, []).append(tensor)

    def described(self, name: str, dtype: str | None) -> tuple[str, tuple[int, ...]]:
        """(type, shape) of a tensor as it is written. Raises CheckpointError when its size does not fit the model."""
        parts, shape = self.tensors[name], self.shapes[name]
        held = sum(int(part.n_elements) for part in parts)
        if held != prod(shape):
            raise CheckpointError(f"{self.path}: {parts[0].name} has {held} numbers, {name} of the model {list(shape)}")
        kinds = {part.tensor_type.name for part in parts}
        kept = len(kinds) == 1 and next(iter(kinds)) in _KEPT
        return dtype or (kinds.pop() if kept else "F32"), shape

    def values(self, name: str) -> np.ndarray:
        """A tensor in transformers' order of rows, float32."""
        from gguf.quants import dequantize

        parsed: dict[str, Any] = {"tensors": {}}
        for part in self.tensors[name]:
            weights = dequantize(part.data, part.tensor_type)
            result = self.processor.process(
                weights=weights, name=part.name, tensor_key_mapping=self.names, parsed_parameters=parsed
            )
            if result.name is not None:
                parsed["tensors"][name] = result.weights
        values = np.asarray(parsed["tensors"][name], np.float32)
        if values.shape != self.shapes[name]:
            raise CheckpointError(f"{self.path}: {name} is {list(values.shape)}, expected {list(self.shapes[name])}")
        return values
