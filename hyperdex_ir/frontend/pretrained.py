"""Calls into transformers that read a checkpoint: from its folder alone, running none of its code, asking nobody.

All of them are here. The files may be a stranger's: transformers imports Python modules that they name once it is told
to trust them, by an argument or by an answer on standard input.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, dynamic_module_utils

_CLOSED: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_LOCK = threading.RLock()


@contextmanager
def no_code_of_checkpoints() -> Iterator[None]:
    """No module of a checkpoint is imported inside this block, whatever it was asked for, and standard input is empty.

    Both hold for the process: one thread at a time.
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


def config_from(folder: Path, gguf: str | None = None) -> PreTrainedConfig:
    """The configuration in config.json, or in the GGUF file of that name. Raises whatever transformers does."""
    with no_code_of_checkpoints():
        return transformers.AutoConfig.from_pretrained(str(folder), **_gguf(gguf), **_CLOSED)


def config_of(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration that the contents of a config.json make. Raises whatever transformers does."""
    with no_code_of_checkpoints():
        return transformers.AutoConfig.for_model(**values)


def copy_tokenizer(folder: Path, gguf: str, target: Path) -> None:
    """Writes the tokenizer in a folder's GGUF file into `target`. Raises whatever transformers does."""
    with no_code_of_checkpoints():
        transformers.AutoTokenizer.from_pretrained(str(folder), **_gguf(gguf), **_CLOSED).save_pretrained(target)


def model_from(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model in a folder, with its weights in `dtype`. Raises whatever transformers does."""
    with no_code_of_checkpoints():
        return transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, attn_implementation="eager", **_CLOSED
        )


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    """The causal language model of a configuration, on the meta device. Raises whatever transformers does."""
    with no_code_of_checkpoints(), torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _gguf(name: str | None) -> dict[str, str]:
    return {} if name is None else {"gguf_file": name}
