"""One compile of one model: the five phases in order, each left out when what it would write is there already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.backend.checkpoint import copy_small_files, weight_files_of
from hyperdex_ir.backend.dumps import read_dump
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.backend.lock import locked_folder
from hyperdex_ir.backend.manifest import listed_counts, withdraw, write_manifest
from hyperdex_ir.backend.options import CompileOptions, check_devices, check_dividing, default_pipeline, undivided
from hyperdex_ir.backend.state import (
    State,
    compiler_digest,
    digest,
    extension_digest,
    file_digest,
    input_digest,
    leftovers,
    versions,
)
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.frontend.config import ModelSummary, read_config
from hyperdex_ir.gguf_checkpoint import MARKER as GGUF_MARKER
from hyperdex_ir.hub import fetch_config, fetch_model
from hyperdex_ir.locations import ModelFolder
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import layout_to_json, load_json, read_layout
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_spec
from hyperdex_ir.progress import byte_progress, log, log_banner, log_phase
from hyperdex_ir.targets import load_target

if TYPE_CHECKING:
    from hyperdex_ir.backend.tracing import Traced

CONVERT = "2"
_SUBFOLDERS = ("ckpt", "param", "config", "inst")


@dataclass(frozen=True)
class CompiledFiles:
    """Where a compiled model lies.

    root: its folder. model: the converted checkpoint, None once it has been deleted. parameters: one image a channel,
    device after device.
    """

    root: Path
    model: Path | None
    model_config: Path
    parameters: tuple[Path, ...]
    memory_map: Path
    instructions: Path
    origins: Path
    manifest: Path
    max_length: int
    matrix_type: str


class Compilation:
    """The state of one compile; `run` does it."""

    def __init__(self, folder: ModelFolder, options: CompileOptions):
        self.folder = folder
        self.options = options
        self.dump = None if options.compile_from is None else read_dump(options.compile_from, options.pipeline)
        pipeline = options.pipeline or default_pipeline(options.num_device)
        self.passes = parse_pipeline(pipeline) if self.dump is None else self.dump.passes
        self.pipeline = pipeline_spec(self.passes)
        self.state = State(folder.root)
        self.images = f"3-{options.num_device}lpu"
        self.program = f"4-{options.num_device}lpu"

    def run(self) -> CompiledFiles:
        """Compiles. Raises HyperdexError subclasses; then nothing is half-written."""
        log_banner()
        with locked_folder(self.folder.root), _empty_folders_removed(self.folder):
            self.state = State.load(self.folder.root)
            self._check_model()
            if self._is_finished():
                log(f"Compiled already with these options: {self.folder.root}")
            else:
                self._compile()
            if self.options.low_memory_usage:
                self._delete_weights()
        log("Model compile Complete!")
        return self._result()

    def _compile(self) -> None:
        self._download(needed=not self._has_converted())
        for path in leftovers(self.folder.root):
            path.unlink(missing_ok=True)
        self._convert()
        self._map()
        self._generate()
        self._write_manifest()

    # ------------------------------------------------------------------------------------------------ phases
    def _check_model(self) -> None:
        log_phase(0, "Check supported model", "In this phase, check if given model is supported by hyperdex-ir.")
        fetch_config(self.folder, self.options.hub)
        if self.folder.gguf is not None:
            from hyperdex_ir.gguf_checkpoint import write_small_files

            write_small_files(self.folder.gguf, self.folder.ckpt)
        self.summary: ModelSummary = read_config(self.folder.source)
        check_devices(self.options.num_device, self.summary.heads)
        check_dividing(self.passes, self.options.num_device)

    def _download(self, needed: bool) -> None:
        folder = self.folder
        if folder.gguf is not None and needed:
            self._read_gguf(folder.gguf)
            return
        if folder.hub_id is None or not needed:
            log_phase(1, "Download model from HuggingFace Hub", f"The checkpoint is at {folder.source}")
            return
        log_phase(
            1,
            "Download model from HuggingFace Hub",
            f"In this phase, download the HuggingFace model and save it to (={folder.root}).",
            f"Download model at {folder.source}",
        )
        fetch_model(folder, self.options.hub)

    def _read_gguf(self, file: Path) -> None:
        from hyperdex_ir.gguf_checkpoint import WEIGHTS, write_weights

        log_phase(1, "Read the GGUF file", f"The tensors of {file} become safetensors at {self.folder.ckpt}")
        if not (self.folder.ckpt / WEIGHTS).is_file():
            write_weights(file, self.folder.ckpt)

    def _convert(self) -> None:
        log_phase(
            2,
            "Convert the checkpoint format to hyperdex-ir style",
            "In this phase, convert the HuggingFace checkpoint into the hyperdex-ir format.",
            "The output creates both JSON and binary file.",
        )
        if self._has_converted():
            log("Reuse the converted checkpoint")
            return
        from hyperdex_ir.backend.convert import model_bytes, write_model

        plan_memory(self._traced.layout, load_target(self.options.target), self._traced.max_length)
        whole = self._whole
        inputs = self._inputs()
        blocks = whole.open_blocks()
        self._begin(CONVERT)
        log("Convert the model to hyperdex-ir model format")
        facts = {"max_length": whole.max_length}
        with byte_progress("convert", model_bytes(whole.layout)) as advance:
            files = write_model(self.folder, whole.layout, blocks, facts, advance)
        files += copy_small_files(self.folder)
        self._finish(CONVERT, inputs, files)
        log(f"Save the converted checkpoint at {self.folder.ckpt}")

    def _map(self) -> None:
        log_phase(
            3,
            "Generate Optimized Model Mapping",
            "In this phase, optimize model mapping for streamlined memory access and efficient model parallelism.",
            "The result of the optimization process is a binary file.",
        )
        if self._is_done(self.images):
            log("Reuse the parameter images")
            return
        number = self.options.num_device
        layout = self._traced.layout if number > 1 else None
        self._begin(self.images)
        log("Optimize the model parameter")
        with byte_progress("map", self.folder.model_binary.stat().st_size) as advance:
            files = write_images(self.folder, self.options.target, number, layout, advance)
        self._remove_stale_images(files)
        self._finish(self.images, None, files)
        log(f"Save the optimized data at {self.folder.root / 'param'}")

    def _generate(self) -> None:
        log_phase(
            4,
            "Generate Optimized Model Instruction",
            "In this phase, analyze the structure of the model to generate optimized instructions.",
            "Kernel fusion and layer outlining make the program short and its processing efficient.",
            "The result of the optimization is a binary file.",
        )
        if self._is_done(self.program) and self.options.dump_ir is None:
            log("Reuse the instructions")
            return
        from hyperdex_ir.backend.instructions import write_instructions

        module = self._lowered()
        self._begin(self.program)
        log("Optimize the model instruction")
        vocab_size = load_json(self.folder.model_config)["vocab_size"]
        files = write_instructions(self.folder, module, vocab_size, self.options.num_device)
        self._finish(self.program, None, files)
        log(f"Save the optimized instruction at {self.folder.root / 'inst'}")

    def _write_manifest(self) -> None:
        number, table = self.options.num_device, load_json(self.folder.model_config)
        model = {"architecture": self.summary.architecture, "config_sha256": self._config_digest}
        facts = {
            "target": self.options.target,
            "options": {
                "num_device": number,
                "max_length": table["max_length"],
                "matrix_type": table["matrix_type"],
                "pipeline": self.pipeline,
            },
        }
        checkpoint = self.state.files(CONVERT)
        if self.options.low_memory_usage and self.folder.made_by_tool:
            checkpoint = [path for path in checkpoint if path != self.folder.model_binary]  # about to be deleted
        files = [path for phase in (self.images, self.program) for path in self.state.files(phase)]
        log("Verify what was written")
        with byte_progress("verify", sum(path.stat().st_size for path in [*checkpoint, *files])) as advance:
            write_manifest(self.folder.manifest, model, checkpoint, number, facts, files, advance)

    # ------------------------------------------------------------------------------------------- low memory
    def _delete_weights(self) -> None:
        if not self.folder.made_by_tool:
            log(f"Nothing is deleted in {self.folder.root}: the folder is not the compiler's own")
            return
        self.state.drop_file(CONVERT, self.folder.model_binary)
        for path in [*weight_files_of(self.folder), self.folder.model_binary]:
            path.unlink(missing_ok=True)
        log(f"Delete the original weights and the converted checkpoint in {self.folder.source}")

    def _remove_stale_images(self, files: list[Path]) -> None:
        """An earlier target may have had more channels."""
        pattern = f"param_{self.options.num_device}lpu_*.bin"
        for path in sorted((self.folder.root / "param").glob(pattern)):
            if path not in files:
                path.unlink()

    # --------------------------------------------------------------------------------------------- what is done
    @cached_property
    def _config_digest(self) -> str:
        return file_digest(self.folder.source / "config.json")

    def _key(self, phase: str) -> str:
        """What a phase's outputs depend on, apart from the weights."""
        if self.dump is not None and phase == self.program:
            return digest({"request": self._request_key(phase), "module": digest(self.dump.text)})
        if self.dump is not None and not self.dump.is_lowered:
            return self._content_key(phase)
        return self._request_key(phase)

    def _content_key(self, phase: str) -> str:
        """The same by what the request came to: the layout, whichever pipeline led to it."""
        facts: dict[str, Any] = {"versions": versions(), "compiler": compiler_digest(), "config": self._config_digest}
        if phase == CONVERT:
            traced = self._whole
            facts |= {"layout": layout_to_json(traced.layout), "max_length": traced.max_length}
            return digest({**facts, "matrix_type": traced.matrix_type})
        table = file_digest(self.folder.model_config) if self.folder.model_config.is_file() else ""
        return digest({**facts, "table": table, "target": self.options.target, "num_device": self.options.num_device})

    def _finish(self, phase: str, inputs: str | None, files: list[Path]) -> None:
        content = self._key(phase) if phase == self.program else self._content_key(phase)
        self.state.finish(phase, self._key(phase), content, inputs, files)

    def _request_key(self, phase: str) -> str:
        options = self.options
        request = {
            "versions": versions(),
            "compiler": compiler_digest(),
            "config": self._config_digest,
            "max_length": options.max_length or self._unchosen_length(),
            "matrix_type": options.matrix_type,
            "pipeline": self.pipeline,
            "extensions": extension_digest(self.passes),
        }
        if self.folder.gguf is not None:
            request["gguf"] = file_digest(self.folder.ckpt / GGUF_MARKER)
        if phase == CONVERT:
            return digest(request | {"pipeline": pipeline_spec(undivided(self.passes))})
        table = {"table": file_digest(self.folder.model_config)} if self.folder.model_config.is_file() else {}
        return digest({**request, **table, "target": options.target, "num_device": options.num_device})

    def _unchosen_length(self) -> str:
        """What decided a length that was not chosen: the model's own limit, or else the HBM of so many devices."""
        number = self.options.num_device
        memory = self.options.target if number == 1 else f"{self.options.target} x {number}"
        try:
            table = load_json(self.folder.model_config)
            layout = read_layout(self.folder.model_config)
            plan_memory(layout, load_target(self.options.target), table["max_length"])
        except (HyperdexError, KeyError):
            return memory
        return "limit" if table["max_length"] == self.summary.max_positions else memory

    def _inputs(self) -> str | None:
        """Sizes and times of the weight files; None when there are none."""
        weights = weight_files_of(self.folder)
        return input_digest(weights) if weights else None

    def _is_done(self, phase: str) -> bool:
        if self.options.force:
            return False
        inputs = self._inputs() if phase == CONVERT and not self.options.fast_compile else None
        return self.state.is_done(phase, self._key(phase), inputs)

    def _is_finished(self) -> bool:
        phases = (CONVERT, self.images, self.program)
        listed = self.options.num_device in listed_counts(self.folder.manifest)
        return listed and self.options.dump_ir is None and all(map(self._is_done, phases))

    def _has_converted(self) -> bool:
        """Whether phase 2 is finished and what it wrote, as far as phase 3 will need it, is still there."""
        return self._is_done(CONVERT) and (self.folder.model_binary.is_file() or self._is_done(self.images))

    def _begin(self, phase: str) -> None:
        withdraw(self.folder.manifest, self.options.num_device, checkpoint=phase == CONVERT)
        self.state.begin(phase)

    # ------------------------------------------------------------------------------------------------- tracing
    @cached_property
    def _traced(self) -> Traced:
        from hyperdex_ir.backend.tracing import resume, trace

        if self.dump is not None and not self.dump.is_lowered:
            log(f"Continue from {self.dump.path}")
            return resume(self.folder, self.options, self.dump)
        log("Trace the model")
        known = load_json(self.folder.model_config) if self._is_done(CONVERT) else None
        options = self.options if self.dump is None else replace(self.options, dump_ir=None)
        return trace(self.folder, self.summary, options, self.pipeline, known)

    @cached_property
    def _whole(self) -> Traced:
        """The model as one device stores it, whatever the number of devices: what phase 2 writes."""
        if self.options.num_device == 1:
            return self._traced
        from hyperdex_ir.backend.tracing import trace

        traced, options = self._traced, replace(self.options, num_device=1, dump_ir=None)
        known = {"max_length": traced.max_length, "matrix_type": traced.matrix_type}
        return trace(self.folder, self.summary, options, pipeline_spec(undivided(self.passes)), known)

    def _lowered(self) -> ModuleOp:
        """The module to encode: what the passes made of the trace, or of the dump to continue from."""
        if self.dump is None or not self.dump.is_lowered:
            return self._traced.lower()
        from hyperdex_ir.backend.tracing import resume_lowered

        log(f"Continue from {self.dump.path}")
        return resume_lowered(self.folder, self.options, self.dump)

    def _result(self) -> CompiledFiles:
        folder, number = self.folder, self.options.num_device
        table: dict[str, Any] = load_json(folder.model_config)
        channels = range(load_target(self.options.target).channels)
        return CompiledFiles(
            root=folder.root,
            model=folder.model_binary if folder.model_binary.is_file() else None,
            model_config=folder.model_config,
            parameters=tuple(
                folder.parameter_file(number, device, channel) for device in range(number) for channel in channels
            ),
            memory_map=folder.memory_map(number),
            instructions=folder.instructions(number),
            origins=folder.origins(number),
            manifest=folder.manifest,
            max_length=table["max_length"],
            matrix_type=table["matrix_type"],
        )


@contextlib.contextmanager
def _empty_folders_removed(folder: ModelFolder) -> Iterator[None]:
    """A compile that fails leaves no empty folders that were not there before."""
    new = [path for name in _SUBFOLDERS if not (path := folder.root / name).exists()]
    try:
        yield
    except (HyperdexError, OSError, KeyboardInterrupt):
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
