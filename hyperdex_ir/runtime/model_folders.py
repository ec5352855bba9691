"""The folders that running a model reads, by the model's name."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hyperdex_ir.errors import ConfigError, NotCompiledError
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.support.locations import ModelFolder, find_folder, user_path


def compiled_folder(model: str | os.PathLike[str]) -> ModelFolder:
    """The folder of a model, by Hub id, directory, or the `output_dir` of a compile.

    Raises ModelNotFoundError or ConfigError when it names none.
    """
    path = user_path(model).absolute()
    if (path / "manifest.json").is_file():
        return ModelFolder(path, path / "ckpt", None, made_by_tool=False)
    return find_folder(model)


def checkpoint_folders(folder: ModelFolder) -> tuple[Path, ...]:
    """Folders that may hold tokenizer and configuration, the likeliest first."""
    return tuple(dict.fromkeys((folder.source, folder.ckpt, folder.root)))


def load_tokenizer(model: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a model. Raises NotCompiledError when nothing of the model is there yet."""
    folder = compiled_folder(model)
    try:
        return Tokenizer.load(*checkpoint_folders(folder))
    except ConfigError:
        if folder.manifest.is_file() or any(path.is_dir() for path in checkpoint_folders(folder)):
            raise
    raise NotCompiledError(f"{os.fspath(model)}: not compiled", f"hyperdex compile {shlex.quote(os.fspath(model))}")
