"""The five phases of a compile. A phase is skipped when its output is there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdsl.passes import ModulePass

from hyperdex_ir.backend.checkpoint import copy_small_files, read_summary, small_files, weight_files_of
from hyperdex_ir.backend.finished import CONVERT, TEXT, FinishedPhases
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.backend.length import note_length
from hyperdex_ir.backend.low_memory import kept_weights
from hyperdex_ir.backend.manifest import describe_files, unread_bytes, write_manifest
from hyperdex_ir.backend.options import CompileOptions, check_devices, check_dividing
from hyperdex_ir.backend.ram_ceiling import Ceiling
from hyperdex_ir.backend.sources import SourceWatch
from hyperdex_ir.backend.staging import compile_folder
from hyperdex_ir.backend.text import check_vocabulary, write_tokenizer
from hyperdex_ir.backend.written import STATE_FILE
from hyperdex_ir.checkpoint.files import check_weights
from hyperdex_ir.checkpoint.gguf_header import check_architecture
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.hub.download import fetch_config, fetch_model, file_names
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import read_layout, read_table
from hyperdex_ir.support.locations import SAFETENSORS, ModelFolder
from hyperdex_ir.support.progress import byte_progress, log, log_phase
from hyperdex_ir.targets import load_target

if TYPE_CHECKING:
    from hyperdex_ir.backend.instructions import Encoded


def check_model(folder: ModelFolder, options: CompileOptions, passes: Sequence[ModulePass]) -> ModelSummary:
    """Phase 0: checks config.json, which is fetched or made first where it is not there."""
    log_phase(0, "Check supported model", "In this phase, check if given model is supported by hyperdex-ir.")
    fetch_config(folder, options.hub)
    if folder.gguf is not None:
        from hyperdex_ir.checkpoint.gguf import write_small_files

        check_architecture(folder.gguf)
        log_phase(1, "Read the GGUF file", f"What is in {folder.gguf} becomes a checkpoint at {folder.ckpt}")
        write_small_files(folder.gguf, folder.ckpt, folder.root)
    summary = read_summary(folder.source)
    check_vocabulary(folder.hub_id or folder.source, file_names(folder))
    note_length(options.max_length, summary)
    check_devices(options.num_device, summary.heads)
    check_dividing(passes, options.num_device)
    return summary


@dataclass(frozen=True, eq=False)
class Phases:
    """Phases 1 to 4 and the manifest of one compile. done: the phases that need not run. memory: the ceiling."""

    done: FinishedPhases
    memory: Ceiling

    def download(self) -> None:
        """Phase 1. Raises CheckpointError when the weights were deleted and cannot be downloaded or made again."""
        folder, needed = self.done.folder, not self.done.has_converted()
        if needed:
            self._check_weights()
        if folder.gguf is not None:
            if needed:
                self._read_gguf(folder.gguf)
            return
        if folder.hub_id is None and needed:
            check_weights(folder.source)
        if folder.hub_id is None or not needed:
            log_phase(1, "Download model from HuggingFace Hub", f"The checkpoint is at {folder.source}")
            return
        log_phase(
            1,
            "Download model from HuggingFace Hub",
            f"In this phase, download the HuggingFace model and save it to (={folder.root}).",
            f"Download model at {folder.source}",
        )
        if self._were_weights_deleted():
            log("A compile with low_memory_usage=True has deleted the weights: they are downloaded again")
        fetch_model(folder, self.done.options.hub, self._needed_tensors())

    def _needed_tensors(self) -> Callable[[str], bool] | None:
        """Test for the tensors of a wrapper's text part; None for other models, which need all.

        Raises UnsupportedModelError before anything large is fetched when transformers knows no such wrapper.
        """
        done, folder = self.done, self.done.folder
        if not done.summary.wrapper:
            return None
        from hyperdex_ir.backend.show import likely_matrix_type
        from hyperdex_ir.frontend.model import trace_model

        matrix_type = done.options.matrix_type or likely_matrix_type(folder, done.summary)
        text = trace_model(folder.source, target=done.options.target, max_length=1, matrix_type=matrix_type)
        return text.names.is_needed

    def _check_weights(self) -> None:
        folder, options = self.done.folder, self.done.options
        downloadable = folder.hub_id is not None and not options.hub.local_files_only
        if downloadable or folder.gguf is not None or not self._were_weights_deleted():
            return
        raise CheckpointError(
            f"{folder.source}: a compile with low_memory_usage=True has deleted the weights; "
            f"what is asked for (num_device {options.num_device}) needs them",
            "put the weights there and compile again with low_memory_usage=False",
        )

    def _were_weights_deleted(self) -> bool:
        folder, converted = self.done.folder, self.done.state.phases.get(CONVERT)
        return converted is not None and folder.binary_name not in converted["files"] and not weight_files_of(folder)

    def _read_gguf(self, file: Path) -> None:
        from hyperdex_ir.checkpoint.gguf import write_weights

        folder = self.done.folder
        if not (folder.ckpt / SAFETENSORS).is_file():
            write_weights(file, folder.ckpt, folder.root, room=self.memory.check_room)

    def convert(self) -> None:
        """Phase 2."""
        done = self.done
        log_phase(
            2,
            "Convert the checkpoint format to hyperdex-ir style",
            "In this phase, convert the HuggingFace checkpoint into the hyperdex-ir format.",
            "The output creates both JSON and binary file.",
        )
        if done.has_converted():
            log("Reuse the converted checkpoint")
        else:
            self._convert_weights()
        self._convert_text()

    def _convert_weights(self) -> None:
        from hyperdex_ir.backend.convert import model_bytes, write_model

        done, folder = self.done, self.done.folder
        small_files(folder)  # raises before the work begins
        sources = SourceWatch(folder.source, weight_files_of(folder))
        plan_memory(done.traced.layout, load_target(done.options.target), done.traced.max_length)
        whole = done.whole
        blocks = whole.open_blocks(self.memory.block_bytes(whole.layout), sources.watch)
        staged = self._staged(done.state.staging / folder.ckpt.name)
        log("Convert the model to hyperdex-ir model format")
        facts = {"max_length": whole.max_length}
        with byte_progress("convert", model_bytes(whole.layout)) as advance:
            files = write_model(staged, whole.layout, blocks, facts, self.memory.watched(advance), log)
        done.finish(CONVERT, sources.describe(), files)
        log(f"Save the converted checkpoint at {folder.ckpt}")

    def _convert_text(self) -> None:
        """The part of phase 2 that concerns text: the checkpoint's small files, and the tokenizer made of them."""
        done, folder = self.done, self.done.folder
        if done.is_done(TEXT):
            return
        staged = self._staged(done.state.staging / folder.ckpt.name)
        files = copy_small_files(staged) if folder.source != folder.ckpt else []
        done.finish(TEXT, None, files + write_tokenizer(staged, staged.ckpt, done.summary.vocab))

    def map(self) -> None:
        """Phase 3."""
        done, number = self.done, self.done.options.num_device
        log_phase(
            3,
            "Generate Optimized Model Mapping",
            "In this phase, optimize model mapping for streamlined memory access and efficient model parallelism.",
            "The result of the optimization process is a binary file.",
        )
        if done.is_done(done.images):
            log("Reuse the parameter images")
            return
        layout = done.traced.layout if number > 1 else None
        staged = self._staged(done.current.ckpt)
        block_bytes = self.memory.block_bytes(read_layout(staged.model_config))
        log("Optimize the model parameter")
        with byte_progress("map", staged.model_binary.stat().st_size) as advance:
            watched = self.memory.watched(advance)
            files = write_images(staged, done.options.target, number, layout, watched, block_bytes)
        done.finish(done.images, None, files)
        log(f"Save the optimized data at {done.folder.root / 'param'}")

    def generate(self) -> None:
        """Phase 4."""
        done = self.done
        log_phase(
            4,
            "Generate Optimized Model Instruction",
            "In this phase, analyze the structure of the model to generate optimized instructions.",
            "Kernel fusion and layer outlining make the program short and its processing efficient.",
            "The result of the optimization is a binary file.",
        )
        if done.is_done(done.program) and done.options.dump_ir is None:
            log("Reuse the instructions")
            return
        from hyperdex_ir.backend.instructions import write_instructions

        staged = self._staged(done.current.ckpt)
        encoded = self._encoded(read_table(staged.model_config)["vocab_size"])
        self.memory.check()
        files = write_instructions(staged, encoded, done.options.num_device)
        done.finish(done.program, None, files)
        log(f"Save the optimized instruction at {done.folder.root / 'inst'}")

    def _encoded(self, vocab_size: int) -> Encoded:
        """The program of the trace, perhaps shared with another model, or of the dump to continue from."""
        done, options = self.done, self.done.options
        if done.dump is None or not done.dump.is_lowered:
            from hyperdex_ir.backend.shared_instructions import encode_shared

            return encode_shared(done.traced, vocab_size, options.num_device, anew=options.asked.force)
        from hyperdex_ir.backend.instructions import encode_module
        from hyperdex_ir.backend.tracing import resume_lowered

        log(f"Continue from {done.dump.path}")
        module = resume_lowered(done.current, options, done.dump)
        log("Optimize the model instruction")
        return encode_module(module, vocab_size)

    def write_manifest(self) -> None:
        """Reads back the written files and writes their manifest: from now on only renames are left."""
        done, folder, state = self.done, self.done.folder, self.done.state
        table, own = read_table(done.current.model_config), (done.images, done.program)
        doomed = done.options.asked.low_memory_usage and kept_weights(folder) is None
        log("Verify what was written")
        with byte_progress("verify", unread_bytes(state, done.phases)) as advance:
            watched = self.memory.watched(advance)
            shared = describe_files(state, [CONVERT, TEXT], watched, [folder.binary_name] if doomed else [])
            files = describe_files(state, own, watched)
        model = {"architecture": done.summary.architecture, "config_sha256": done.config_digest}
        number = done.options.num_device
        facts = {"num_device": number, "max_length": table["max_length"], "matrix_type": table["matrix_type"]}
        entry = {"target": done.options.target, "options": {**facts, "pipeline": done.pipeline}, "files": files}
        state.save_adopted(state.staging / STATE_FILE)
        head = {"model": model, "files": shared}
        write_manifest(state.staging / folder.manifest.name, folder, head, number, entry)

    def _staged(self, converted: Path) -> ModelFolder:
        """The folder to write to."""
        return compile_folder(self.done.folder, self.done.state.staging, converted)
