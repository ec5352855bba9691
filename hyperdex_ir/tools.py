"""The compiler: a Hugging Face causal language model in, parameter images and programs for the LPU out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hyperdex_ir.backend.options import make_options
from hyperdex_ir.hub import HubOptions
from hyperdex_ir.locations import find_folder

if TYPE_CHECKING:
    from hyperdex_ir.backend.compilation import CompiledFiles


class AutoCompiler:
    """Compiles models by Hub id or directory."""

    def compile(
        self,
        model_id: str | os.PathLike[str] = "facebook/opt-1.3b",
        num_device: int = 1,
        max_length: int = 1,
        low_memory_usage: bool = False,
        token: str | None = None,
        *,
        type_device: str = "u55c",
        dtype: str = "auto",
        fast_compile: bool = False,
        pipeline: str | None = None,
        dump_ir: str | Path | None = None,
        output_dir: str | Path | None = None,
        max_ram: str | int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        force: bool = False,
    ) -> CompiledFiles:
        """Compiles a model into its folder (see `hyperdex_ir.locations`); phases that are finished are not done again.

        model_id: a Hub id, a directory with a checkpoint, or an absolute path to install to that ends in the Hub id.
        num_device: number of LPUs. max_length: positions, prompt and response together; 1 means not chosen: the
        model's own limit, or the most that fits the target. low_memory_usage: delete the original weights and the
        converted checkpoint at the end, in a folder that the compiler made. token, revision, local_files_only: for
        the Hub. type_device: target. dtype: `auto` (the checkpoint's), `f16` or `bf16`. fast_compile: what is finished
        is not compared with the checkpoint's files again. pipeline: name, file or text of the passes. dump_ir: a folder
        for the IR as numbered text files. output_dir: the folder to write to. force: do everything anew.

        Returns the paths of what was written. Raises HyperdexError subclasses; then nothing is half-written.
        """
        options = make_options(
            num_device=num_device,
            max_length=max_length,
            dtype=dtype,
            type_device=type_device,
            max_ram=max_ram,
            pipeline=pipeline,
            dump_ir=dump_ir,
            low_memory_usage=low_memory_usage,
            fast_compile=fast_compile,
            force=force,
            hub=HubOptions(token, revision, local_files_only),
        )
        folder = find_folder(model_id, output_dir)
        from hyperdex_ir.backend.compilation import Compilation

        return Compilation(folder, options).run()
