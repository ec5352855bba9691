"""The compiler: a Hugging Face causal language model in, parameter images and programs for the LPU out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdex_ir.backend.options import CompileOptions, command_line, make_options
from hyperdex_ir.hub.download import HubOptions
from hyperdex_ir.support.locations import ModelFolder, find_folder

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
        compile_from: str | Path | None = None,
        allow_passes: Sequence[str] = (),
    ) -> CompiledFiles:
        """Compiles a model into its folder (see `hyperdex_ir.support.locations`); finished phases are not done again.

        model_id: a Hub id, a directory with a checkpoint, or an absolute path to install to that ends in the Hub id.
        num_device: number of LPUs. max_length: positions, prompt and response together; 1 means not chosen: the
        model's own limit, or the most that fits the target. low_memory_usage: delete the original weights and the
        converted checkpoint at the end, in a folder that the compiler made. token, revision, local_files_only: for
        the Hub. type_device: target. dtype: `auto` (the checkpoint's), `f16` or `bf16`. fast_compile: what is finished
        is not compared with the checkpoint's files again. pipeline: name, file or text of the passes. dump_ir: a folder
        for the IR as numbered text files. output_dir: the folder to write to. max_ram: what the
        process may have resident at most, bytes or a text such as `1536MiB`. force: do everything anew.
        compile_from: a file that dump_ir wrote, to go on from; pipeline is then what is left of the passes.
        allow_passes: passes and fusion patterns of installed packages that this file may name.

        Returns the paths of what was written. Raises HyperdexError subclasses; then nothing is half-written.
        """
        folder, options = _request(
            model_id,
            num_device=num_device,
            max_length=max_length,
            low_memory_usage=low_memory_usage,
            token=token,
            type_device=type_device,
            dtype=dtype,
            fast_compile=fast_compile,
            pipeline=pipeline,
            dump_ir=dump_ir,
            output_dir=output_dir,
            max_ram=max_ram,
            revision=revision,
            local_files_only=local_files_only,
            force=force,
            compile_from=compile_from,
            allow_passes=allow_passes,
        )
        from hyperdex_ir.backend.compilation import Compilation

        return Compilation(folder, options).run()

    def compile_to(self, level: str, model_id: str | os.PathLike[str] = "facebook/opt-1.3b", **options: Any) -> str:
        """The IR at a level: `import`, `lpu` (before lowering) or `isa`, as text that `compile_from` goes on from.

        options: those of `compile`. Reads no weights and writes nothing but what dump_ir asks for. Raises as `compile`.
        """
        from hyperdex_ir.backend.show import compile_to

        return compile_to(*_request(model_id, **options), level)

    def plan(self, model_id: str | os.PathLike[str] = "facebook/opt-1.3b", **options: Any) -> dict[str, Any]:
        """What a model needs on the device and on the host, as `hyperdex plan --json` prints it.

        options: those of `compile`. Reads config.json and the headers of the weights; writes nothing. Raises as
        `compile`.
        """
        from hyperdex_ir.backend.plan import plan_model

        return plan_model(os.fspath(model_id), *_request(model_id, **options))


def _request(
    model_id: str | os.PathLike[str],
    *,
    num_device: int = 1,
    max_length: int = 1,
    token: str | None = None,
    type_device: str = "u55c",
    dtype: str = "auto",
    output_dir: str | Path | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    max_ram: str | int | None = None,
    pipeline: str | None = None,
    allow_passes: Sequence[str] = (),
    **rest: Any,
) -> tuple[ModelFolder, CompileOptions]:
    """Where a model lies, and the options that the arguments of `AutoCompiler.compile` stand for."""
    asked = {"num_device": num_device, "max_length": max_length, "type_device": type_device, "dtype": dtype}
    command = command_line(
        os.fspath(model_id),
        output_dir=output_dir,
        revision=revision,
        local_files_only=local_files_only,
        allow_passes=allow_passes,
        **asked,
    )
    hub = HubOptions(token, revision, local_files_only, refresh=bool(rest.get("force")))
    rest |= {"pipeline": pipeline, "allow_passes": allow_passes}
    options = make_options(**asked, hub=hub, max_ram=max_ram, command=command, **rest)
    return find_folder(model_id, output_dir), options
