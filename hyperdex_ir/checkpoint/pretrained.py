"""All calls into transformers that read a checkpoint: from its folder only, without its code, without prompts.

The files may come from a stranger. transformers imports Python modules that they name once it is told to trust them, by
an argument or by an answer on standard input.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, dynamic_module_utils

from hyperdex_ir.checkpoint.dequantize import is_left_over
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import key_mapping
from hyperdex_ir.checkpoint.quantization_check import QUANTIZATION, quantization_of
from hyperdex_ir.checkpoint.torch_weights import SINGLE as TORCH_FILE
from hyperdex_ir.support.locations import SAFETENSORS, SAFETENSORS_INDEX
from hyperdex_ir.support.reading import TORCH_INDEX, read_config_json

_CLOSED: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
#: Key of a list of file names in config.json: transformers reads one of these files instead of config.json.
_OTHER_CONFIGS = "configuration_files"
_LOCK = threading.RLock()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Context in which neither transformers nor torch writes to stderr; it restores their settings at the end."""
    verbosity = transformers.logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity(logging.CRITICAL)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            transformers.logging.set_verbosity(verbosity)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def no_code_of_checkpoints() -> Iterator[None]:
    """Context in which no module of a checkpoint is imported, whatever the arguments say, and standard input is empty.

    Both apply to the whole process, so only one thread may use it at a time.
    """
    with _LOCK:
        stdin, imports = sys.stdin, dynamic_module_utils.get_class_in_module
        sys.stdin, dynamic_module_utils.get_class_in_module = io.StringIO(), _refuse
        try:
            yield
        finally:
            sys.stdin, dynamic_module_utils.get_class_in_module = stdin, imports


def _refuse(class_name: str, *arguments: Any, **named: Any) -> NoReturn:
    raise ValueError(f"code of a checkpoint is never run, also not {class_name}")


@contextmanager
def _alone(path: Path) -> Iterator[str]:
    """A folder with only a link to the file: transformers would read other files of a GGUF file's folder, too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, path.name).symlink_to(path.absolute())
        yield folder


@contextmanager
def _weights_alone(folder: Path) -> Iterator[str]:
    """A folder with links to the weight files of a checkpoint, after checking them, and an index made here.

    In the checkpoint's folder transformers would open adapters, parts of distributed checkpoints, and the files that an
    index names. Raises as `Checkpoint`.
    """
    files = Checkpoint(folder).files
    paths = sorted(set(files.values()))
    single, index = (SAFETENSORS, SAFETENSORS_INDEX) if paths[0].suffix == ".safetensors" else (TORCH_FILE, TORCH_INDEX)
    names = {path: f"{number:05d}-{single}" for number, path in enumerate(paths)} if paths[1:] else {paths[0]: single}
    with tempfile.TemporaryDirectory() as place:
        Path(place, "generation_config.json").write_text("{}")  # transformers requires one
        for path, name in names.items():
            Path(place, name).symlink_to(path.absolute())
        if paths[1:]:
            placed = {tensor: names[path] for tensor, path in files.items()}
            Path(place, index).write_text(json.dumps({"metadata": {}, "weight_map": placed}))
        yield place


@contextmanager
def _config_alone(folder: Path) -> Iterator[str]:
    """Folder from which config.json is read: the folder itself, unless transformers would read another file instead."""
    path = folder / "config.json"
    values = read_config_json(path) if path.exists() else {}
    if _OTHER_CONFIGS not in values:
        yield str(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        del values[_OTHER_CONFIGS]
        Path(place, path.name).write_text(json.dumps(values))
        yield place


def config_from(folder: Path) -> PreTrainedConfig:
    """The configuration in a folder's config.json. Raises any exception of transformers, or ConfigError."""
    with no_code_of_checkpoints(), _config_alone(folder) as place:
        return transformers.AutoConfig.from_pretrained(place, **_CLOSED)


def config_from_gguf(path: Path) -> PreTrainedConfig:
    """The configuration in a GGUF file. Raises any exception of transformers."""
    with no_code_of_checkpoints(), _alone(path) as folder:
        return transformers.AutoConfig.from_pretrained(folder, gguf_file=path.name, **_CLOSED)


def config_of(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration with the contents of a config.json. Raises any exception of transformers."""
    with no_code_of_checkpoints():
        return transformers.AutoConfig.for_model(**values)


def copy_tokenizer(path: Path, target: Path) -> None:
    """Writes the tokenizer in a GGUF file into the folder `target`. Raises any exception of transformers."""
    with no_code_of_checkpoints(), _alone(path) as folder:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=path.name, **_CLOSED)
        # It is an argument of this call, not of the tokenizer, but would be written with it.
        tokenizer.init_kwargs["local_files_only"] = False
        tokenizer.save_pretrained(target)


def _plain(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration, restricted to transformers' own functions and to the known weight files.

    For some names in a configuration, transformers would fetch and run code, or open other files.
    """
    config._attn_implementation = config._experts_implementation = "eager"
    for one in (config, config.get_text_config()):
        if getattr(one, "transformers_weights", None) is not None:
            one.transformers_weights = None
    return config


def model_from(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The language model in a folder, with its weights in `dtype`; of a model around a text model, the whole.

    Raises any exception of transformers, and CheckpointError for a weight file that `Checkpoint` rejects.
    """
    with no_code_of_checkpoints():
        config = _plain(config_from(folder))
        text = config.get_text_config(decoder=True)
        if quantization_of(config.to_dict()) is not None and is_left_over(folder):
            for one in (config, text):
                vars(one).pop(QUANTIZATION, None)
        names = key_mapping(model_of(config), Checkpoint(folder))
        with _weights_alone(folder) as place:
            return _loader(config).from_pretrained(
                place, config=config, dtype=dtype, key_mapping=names or None, **_CLOSED
            )


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a configuration, on the meta device. Raises any exception of transformers."""
    with no_code_of_checkpoints(), torch.device("meta"):
        return _loader(config).from_config(_plain(config), trust_remote_code=False)


def _loader(config: PreTrainedConfig) -> Any:
    """The class that makes a causal language model, or the whole model around one."""
    is_text = config.get_text_config(decoder=True) is config
    return transformers.AutoModelForCausalLM if is_text else transformers.AutoModelForMultimodalLM
