"""One compile of one model: the five phases in order. A phase is skipped when its output is there already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdex_ir.backend.checkpoint import copy_small_files, small_files, weight_files_of
from hyperdex_ir.backend.dumps import read_chosen_dump
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.backend.links import check_links
from hyperdex_ir.backend.lock import locked_folder
from hyperdex_ir.backend.manifest import describe_files, listed_counts, unread_bytes, write_manifest
from hyperdex_ir.backend.options import CompileOptions, check_devices, check_dividing, chosen_passes
from hyperdex_ir.backend.ram_ceiling import Ceiling
from hyperdex_ir.backend.sources import KnownSources, SourceWatch
from hyperdex_ir.backend.staging import compile_folder, remove_empty_folders, settle
from hyperdex_ir.backend.state import State, digest, extension_digest
from hyperdex_ir.backend.written import STATE_FILE, unfinished_files
from hyperdex_ir.checkpoint.gguf import is_made, source_facts
from hyperdex_ir.checkpoint.gguf_header import check_architecture
from hyperdex_ir.errors import CheckpointError, FileFormatError, HyperdexError
from hyperdex_ir.frontend.config import ModelSummary, read_config
from hyperdex_ir.hub.download import fetch_config, fetch_model, is_fetched
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import layout_to_json, load_json, read_layout, read_table
from hyperdex_ir.passes.pipeline import pipeline_spec
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import SAFETENSORS, ModelFolder
from hyperdex_ir.support.own_code import code_digest, versions
from hyperdex_ir.support.progress import byte_progress, log, log_banner, log_phase
from hyperdex_ir.support.reading import CONFIG, TABLE, read_bytes
from hyperdex_ir.targets import load_target

if TYPE_CHECKING:
    from hyperdex_ir.backend.instructions import Encoded
    from hyperdex_ir.backend.tracing import Traced

CONVERT = "2"


@dataclass(frozen=True)
class CompiledFiles:
    """The paths of a compiled model.

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
    """The state of one compile; `run` performs it."""

    def __init__(self, folder: ModelFolder, options: CompileOptions):
        self.folder = folder
        self.options = options
        self.dump = read_chosen_dump(options)
        self.passes = chosen_passes(options.pipeline) if self.dump is None else self.dump.passes
        self.pipeline = pipeline_spec(self.passes)
        self.state = State(folder.root)
        self.sources = KnownSources()
        self.memory = Ceiling(options.max_ram)
        self.images = f"3-{options.num_device}lpu"
        self.program = f"4-{options.num_device}lpu"

    def run(self) -> CompiledFiles:
        """Compiles. Raises HyperdexError subclasses; an earlier compiled model is unchanged then."""
        log_banner()
        with locked_folder(self.folder.root), _empty_folders_removed(self.folder):
            check_links(self.folder)
            self.state = settle(self.folder)
            self._check_model()
            if self._is_finished():
                log(f"Compiled already with these options: {self.folder.root}")
            else:
                self._compile()
            if self.options.asked.low_memory_usage:
                self._delete_weights()
        log(self.memory.report())
        log("Model compile Complete!")
        return self._result()

    def _compile(self) -> None:
        self.memory.check_base()
        self._download(needed=not self._has_converted())
        for name in unfinished_files(self.state.tree):
            self.state.tree.remove(name)
        self._discard_outdated()
        self._convert()
        self._map()
        self._generate()
        self._write_manifest()
        self.state = settle(self.folder)

    def _discard_outdated(self) -> None:
        """Removes the staged files of an interrupted compile, unless this compile would write the same."""
        self.state.discard(lambda phase: phase not in self._phases or not self._is_done(phase))

    # ------------------------------------------------------------------------------------------------ phases
    def _check_model(self) -> None:
        log_phase(0, "Check supported model", "In this phase, check if given model is supported by hyperdex-ir.")
        fetch_config(self.folder, self.options.hub)
        if self.folder.gguf is not None:
            check_architecture(self.folder.gguf)
            self._read_gguf_config(self.folder.gguf)
        self.summary: ModelSummary = read_config(self.folder.source)
        check_devices(self.options.num_device, self.summary.heads)
        check_dividing(self.passes, self.options.num_device)

    def _download(self, needed: bool) -> None:
        folder = self.folder
        if needed:
            self._check_weights()
        if folder.gguf is not None:
            if needed:
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
        if self._were_weights_deleted():
            log("A compile with low_memory_usage=True has deleted the weights: they are downloaded again")
        fetch_model(folder, self.options.hub)

    def _check_weights(self) -> None:
        """Raises CheckpointError when the weights were deleted and cannot be downloaded or made again."""
        downloadable = self.folder.hub_id is not None and not self.options.hub.local_files_only
        if downloadable or self.folder.gguf is not None or not self._were_weights_deleted():
            return
        raise CheckpointError(
            f"{self.folder.source}: a compile with low_memory_usage=True has deleted the weights; "
            f"what is asked for (num_device {self.options.num_device}) needs them",
            "put the weights there and compile again with low_memory_usage=False",
        )

    def _were_weights_deleted(self) -> bool:
        converted = self.state.phases.get(CONVERT)
        return (
            converted is not None and self._binary_name not in converted["files"] and not weight_files_of(self.folder)
        )

    def _read_gguf_config(self, file: Path) -> None:
        from hyperdex_ir.checkpoint.gguf import write_small_files

        log_phase(1, "Read the GGUF file", f"What is in {file} becomes a checkpoint at {self.folder.ckpt}")
        write_small_files(file, self.folder.ckpt, self.folder.root)

    def _read_gguf(self, file: Path) -> None:
        from hyperdex_ir.checkpoint.gguf import write_weights

        if not (self.folder.ckpt / SAFETENSORS).is_file():
            write_weights(file, self.folder.ckpt, self.folder.root, room=self.memory.check_room)

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

        small_files(self.folder)  # raises before the work begins
        sources = SourceWatch(weight_files_of(self.folder))
        plan_memory(self._traced.layout, load_target(self.options.target), self._traced.max_length)
        whole = self._whole
        blocks = whole.open_blocks(self.memory.block_bytes(whole.layout), sources.watch)
        staged = self._staged(self.state.staging / self.folder.ckpt.name)
        log("Convert the model to hyperdex-ir model format")
        facts = {"max_length": whole.max_length}
        with byte_progress("convert", model_bytes(whole.layout)) as advance:
            files = write_model(staged, whole.layout, blocks, facts, self.memory.watched(advance))
        if self.folder.source != self.folder.ckpt:
            files += copy_small_files(staged)
        self._finish(CONVERT, sources.describe(), files)
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
        staged = self._staged(self._current.ckpt)
        block_bytes = self.memory.block_bytes(read_layout(staged.model_config))
        log("Optimize the model parameter")
        with byte_progress("map", staged.model_binary.stat().st_size) as advance:
            watched = self.memory.watched(advance)
            files = write_images(staged, self.options.target, number, layout, watched, block_bytes)
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

        staged = self._staged(self._current.ckpt)
        encoded = self._encoded(read_table(staged.model_config)["vocab_size"])
        self.memory.check()
        files = write_instructions(staged, encoded, self.options.num_device)
        self._finish(self.program, None, files)
        log(f"Save the optimized instruction at {self.folder.root / 'inst'}")

    def _write_manifest(self) -> None:
        """Reads back the written files and writes their manifest: from now on only renames are left."""
        table, own = read_table(self._current.model_config), (self.images, self.program)
        doomed = self.options.asked.low_memory_usage and self._kept_weights() is None
        log("Verify what was written")
        with byte_progress("verify", unread_bytes(self.state, self._phases)) as advance:
            watched = self.memory.watched(advance)
            shared = describe_files(self.state, [CONVERT], watched, [self._binary_name] if doomed else [])
            files = describe_files(self.state, own, watched)
        model = {"architecture": self.summary.architecture, "config_sha256": self._config_digest}
        entry = {
            "target": self.options.target,
            "options": {
                "num_device": self.options.num_device,
                "max_length": table["max_length"],
                "matrix_type": table["matrix_type"],
                "pipeline": self.pipeline,
            },
            "files": files,
        }
        staging = self.state.staging
        self.state.save_adopted(staging / STATE_FILE)
        head = {"model": model, "files": shared}
        write_manifest(staging / self.folder.manifest.name, self.folder, head, self.options.num_device, entry)

    # ------------------------------------------------------------------------------------------- low memory
    def _delete_weights(self) -> None:
        if kept := self._kept_weights():
            log(f"Nothing is deleted in {self.folder.root}: {kept}")
            return
        self.state.drop_file(CONVERT, self._binary_name)
        beside = FolderTree(self.folder.source.parent)
        for path in weight_files_of(self.folder):
            if self._is_own(path.name):
                beside.remove(beside.name_of(path))
            else:
                log(f"{path}: not deleted: it is no longer the file that was downloaded or made")
        self.state.tree.remove(self._binary_name)
        log(f"Delete the original weights and the converted checkpoint in {self.folder.source}")

    def _kept_weights(self) -> str | None:
        """The reason not to delete the original weights; None when the tool has downloaded or made all of them.

        Call this anew before each use: the user may put other weights there while a compile works.
        """
        if not self.folder.made_by_tool:
            return "the folder is not the compiler's own"
        others = [path.name for path in weight_files_of(self.folder) if not self._is_own(path.name)]
        return f"nothing says that this tool has downloaded or made {', '.join(others)}" if others else None

    def _is_own(self, name: str) -> bool:
        return (is_fetched if self.folder.gguf is None else is_made)(self.folder, name)

    # ------------------------------------------------------------------------------------------ finished phases
    @cached_property
    def _config_digest(self) -> str:
        return sha256(read_bytes(self.folder.source / "config.json", CONFIG)).hexdigest()

    def _key(self, phase: str) -> str:
        """Digest of the inputs of a phase, apart from the weights."""
        if self.dump is not None and phase == self.program:
            return digest({"request": self._request_key(phase), "module": digest(self.dump.text)})
        if self.dump is not None and not self.dump.is_lowered:
            return self._content_key(phase)
        return self._request_key(phase)

    def _content_key(self, phase: str) -> str:
        """Digest of the inputs actually used, such as the layout: it is the same whichever pipeline led to them."""
        facts: dict[str, Any] = {"versions": versions(), "compiler": code_digest(), "config": self._config_digest}
        if phase == CONVERT:
            traced = self._whole
            facts |= {"layout": layout_to_json(traced.layout), "max_length": traced.max_length}
            return digest({**facts, "matrix_type": traced.matrix_type})
        table = self._table_digest(phase)
        return digest({**facts, "table": table, "target": self.options.target, "num_device": self.options.num_device})

    def _finish(self, phase: str, inputs: dict[str, Any] | None, files: list[Path]) -> None:
        self.state.stage(phase, inputs, files)
        content = self._key(phase) if phase == self.program else self._content_key(phase)
        self.state.finish(phase, self._key(phase), content)

    def _request_key(self, phase: str) -> str:
        options = self.options
        request = {
            "versions": versions(),
            "compiler": code_digest(),
            "config": self._config_digest,
            "max_length": options.max_length or self._unchosen_length(),
            "matrix_type": options.matrix_type,
            "pipeline": self.pipeline,
            "extensions": extension_digest(self.passes),
        }
        if self.folder.gguf is not None:
            request["gguf"] = source_facts(self.folder.gguf)
        if phase == CONVERT:
            return digest(request)
        table = {"table": self._table_digest(phase)} if self._current.model_config.is_file() else {}
        return digest({**request, **table, "target": options.target, "num_device": options.num_device})

    def _unchosen_length(self) -> str:
        """The limit that decides a length that was not chosen: the model's own, or else the HBM of so many devices."""
        number = self.options.num_device
        memory = self.options.target if number == 1 else f"{self.options.target} x {number}"
        try:
            table = read_table(self._current.model_config)
            layout = read_layout(self._current.model_config)
            plan_memory(layout, load_target(self.options.target), table["max_length"])
        except HyperdexError:
            return memory
        return "limit" if table["max_length"] == self.summary.max_positions else memory

    def _table_digest(self, phase: str) -> str:
        """Digest of the phase's inputs in the table of the converted checkpoint. The program depends on no tensor.

        Empty when there is no table that can be read.
        """
        path = self._current.model_config
        try:
            if phase != self.program:
                return sha256(read_bytes(path, TABLE)).hexdigest()
            return digest({key: value for key, value in load_json(path).items() if key != "tensors"})
        except (FileNotFoundError, FileFormatError):
            return ""

    def _is_done(self, phase: str) -> bool:
        if self.options.asked.force or not self.state.is_done(phase, self._key(phase)):
            return False
        weights = weight_files_of(self.folder) if phase == CONVERT and not self.options.asked.fast_compile else []
        return not weights or self.sources.are_unchanged(self.state, phase, weights)

    def _is_finished(self) -> bool:
        listed = self.options.num_device in listed_counts(self.folder.manifest) and not self.state.staged
        return listed and self.options.dump_ir is None and all(map(self._is_done, self._phases))

    def _has_converted(self) -> bool:
        """Test that phase 2 is finished and that those of its files that phase 3 will need are still there."""
        return self._is_done(CONVERT) and (self._current.model_binary.is_file() or self._is_done(self.images))

    # -------------------------------------------------------------------------------------------------- places
    @property
    def _phases(self) -> tuple[str, str, str]:
        return CONVERT, self.images, self.program

    @property
    def _binary_name(self) -> str:
        return self.folder.model_binary.relative_to(self.folder.root).as_posix()

    @property
    def _current(self) -> ModelFolder:
        """The folder with the converted checkpoint that this compile uses: an earlier compile's, or its own."""
        root = self.state.staging if CONVERT in self.state.staged else self.folder.root
        return compile_folder(self.folder, self.folder.root, root / self.folder.ckpt.name)

    def _staged(self, converted: Path) -> ModelFolder:
        """The folder to write to."""
        return compile_folder(self.folder, self.state.staging, converted)

    # ------------------------------------------------------------------------------------------------- tracing
    @cached_property
    def _traced(self) -> Traced:
        from hyperdex_ir.backend.tracing import resume, trace

        if self.dump is not None and not self.dump.is_lowered:
            log(f"Continue from {self.dump.path}")
            return resume(self.folder, self.options, self.dump)
        log("Trace the model")
        known = read_table(self._current.model_config) if self._is_done(CONVERT) else None
        options = self.options if self.dump is None else replace(self.options, dump_ir=None)
        traced = trace(self.folder, self.summary, options, self.passes, known)
        if traced.imported is not None and traced.imported.kept:
            log("Reuse the trace of a model of the same architecture")
        return traced

    @cached_property
    def _whole(self) -> Traced:
        """The model as one device stores it, whatever the number of devices. Phase 2 writes this form."""
        if self.options.num_device == 1:
            return self._traced
        return self._traced.whole(self.options, self.passes)

    def _encoded(self, vocab_size: int) -> Encoded:
        """The program of the trace, perhaps shared with another model, or of the dump to continue from."""
        if self.dump is None or not self.dump.is_lowered:
            from hyperdex_ir.backend.shared_instructions import encode_shared

            return encode_shared(self._traced, vocab_size, self.options.num_device, anew=self.options.asked.force)
        from hyperdex_ir.backend.instructions import encode_module
        from hyperdex_ir.backend.tracing import resume_lowered

        log(f"Continue from {self.dump.path}")
        module = resume_lowered(self._current, self.options, self.dump)
        log("Optimize the model instruction")
        return encode_module(module, vocab_size)

    def _result(self) -> CompiledFiles:
        folder, number = self.folder, self.options.num_device
        table = read_table(folder.model_config)
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
    """Removes empty folders after a failed compile, `ckpt/` only if it was not there before."""
    new = not folder.ckpt.exists()
    try:
        yield
    except (HyperdexError, OSError, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            tree = FolderTree(folder.root)
            remove_empty_folders(tree)
            if new:
                tree.remove_if_empty(folder.ckpt.name)
        raise
