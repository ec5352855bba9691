"""The phases of one compile that are done already, told by digests of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdsl.passes import ModulePass

from hyperdex_ir.backend.checkpoint import small_digests, weight_files_of
from hyperdex_ir.backend.dumps import Dump
from hyperdex_ir.backend.manifest import listed_counts
from hyperdex_ir.backend.options import CompileOptions
from hyperdex_ir.backend.sources import KnownSources
from hyperdex_ir.backend.staging import compile_folder
from hyperdex_ir.backend.state import State, digest, extension_digest
from hyperdex_ir.checkpoint.gguf import source_facts
from hyperdex_ir.errors import FileFormatError, HyperdexError
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import layout_to_json, load_json, read_layout, read_table
from hyperdex_ir.passes.pipeline import pipeline_spec
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.own_code import code_digest, versions
from hyperdex_ir.support.progress import log
from hyperdex_ir.support.reading import CONFIG, TABLE, read_bytes
from hyperdex_ir.targets import load_target

if TYPE_CHECKING:
    from hyperdex_ir.backend.tracing import Traced

CONVERT, TEXT = "2", "2-text"


@dataclass(eq=False)
class FinishedPhases:
    """The task of one compile, and the phases of it that are done.

    dump: to continue from. passes: the whole pipeline. state: of the folder, under its lock.
    """

    folder: ModelFolder
    options: CompileOptions
    dump: Dump | None
    passes: Sequence[ModulePass]
    summary: ModelSummary
    state: State
    sources: KnownSources = field(default_factory=KnownSources)

    def __post_init__(self) -> None:
        self.images, self.program = (f"{number}-{self.options.num_device}lpu" for number in (3, 4))
        self.phases = CONVERT, TEXT, self.images, self.program  # those that leave files, in order

    @cached_property
    def pipeline(self) -> str:
        """The whole pipeline, as text."""
        return pipeline_spec(self.passes)

    @property
    def current(self) -> ModelFolder:
        """The folder with the converted checkpoint that this compile uses: an earlier compile's, or its own."""
        root = self.state.staging if CONVERT in self.state.staged else self.folder.root
        return compile_folder(self.folder, self.folder.root, root / self.folder.ckpt.name)

    # ---------------------------------------------------------------------------------------------- what is done
    def is_done(self, phase: str) -> bool:
        """Test that the phase has finished with the inputs of this compile."""
        if self.options.asked.force or not self.state.is_done(phase, self._key(phase)):
            return False
        weights = weight_files_of(self.folder) if phase == CONVERT and not self.options.asked.fast_compile else []
        return not weights or self.sources.are_unchanged(self.state, phase, self.folder.source, weights)

    def are_all(self) -> bool:
        """Test that the model is compiled with these options, and that nothing more is asked for."""
        listed = self.options.num_device in listed_counts(self.folder.manifest) and not self.state.staged
        return listed and self.options.dump_ir is None and all(map(self.is_done, self.phases))

    def has_converted(self) -> bool:
        """Test that phase 2 is finished and that those of its files that phase 3 will need are still there."""
        return self.is_done(CONVERT) and (self.current.model_binary.is_file() or self.is_done(self.images))

    def discard_outdated(self) -> None:
        """Removes the staged files of an interrupted compile, unless this compile would write the same."""
        self.state.discard(lambda phase: phase not in self.phases or not self.is_done(phase))

    def finish(self, phase: str, inputs: dict[str, Any] | None, files: list[Path]) -> None:
        """Records that the phase has written these staged files."""
        self.state.stage(phase, inputs, files)
        is_asked = phase in (TEXT, self.program)
        content = self._key(phase) if is_asked else self._content_key(phase)
        self.state.finish(phase, self._key(phase), content)

    # ------------------------------------------------------------------------------------------------------ keys
    @cached_property
    def config_digest(self) -> str:
        """Digest of config.json."""
        return sha256(read_bytes(self.folder.source / "config.json", CONFIG)).hexdigest()

    def _key(self, phase: str) -> str:
        """Digest of the inputs of a phase, apart from the weights."""
        if phase == TEXT:
            return self._text_key()
        if self.dump is not None and phase == self.program:
            return digest({"request": self._request_key(phase), "module": digest(self.dump.text)})
        if self.dump is not None and not self.dump.is_lowered:
            return self._content_key(phase)
        return self._request_key(phase)

    def _text_key(self) -> str:
        """Digest of the small files of the checkpoint, as they are now."""
        return digest({"versions": versions(), "compiler": code_digest(), "files": small_digests(self.folder)})

    def _content_key(self, phase: str) -> str:
        """Digest of the inputs actually used, such as the layout: it is the same whichever pipeline led to them."""
        facts: dict[str, Any] = {"versions": versions(), "compiler": code_digest(), "config": self.config_digest}
        if phase == CONVERT:
            facts |= {"layout": layout_to_json(self.whole.layout), "max_length": self.whole.max_length}
            return digest({**facts, "matrix_type": self.whole.matrix_type})
        table = self._table_digest(phase)
        return digest({**facts, "table": table, "target": self.options.target, "num_device": self.options.num_device})

    def _request_key(self, phase: str) -> str:
        options = self.options
        request = {
            "versions": versions(),
            "compiler": code_digest(),
            "config": self.config_digest,
            "max_length": options.max_length or self._unchosen_length(),
            "matrix_type": options.matrix_type,
            "pipeline": self.pipeline,
            "extensions": extension_digest(self.passes),
        }
        if self.folder.gguf is not None:
            request["gguf"] = source_facts(self.folder.gguf)
        if phase == CONVERT:
            return digest(request)
        table = {"table": self._table_digest(phase)} if self.current.model_config.is_file() else {}
        return digest({**request, **table, "target": options.target, "num_device": options.num_device})

    def _unchosen_length(self) -> str:
        """The limit that decides a length that was not chosen: the model's own, or else the HBM of so many devices."""
        number = self.options.num_device
        memory = self.options.target if number == 1 else f"{self.options.target} x {number}"
        try:
            table = read_table(self.current.model_config)
            layout = read_layout(self.current.model_config)
            plan_memory(layout, load_target(self.options.target), table["max_length"])
        except HyperdexError:
            return memory
        return "limit" if table["max_length"] == self.summary.max_positions else memory

    def _table_digest(self, phase: str) -> str:
        """Digest of the phase's inputs in the table of the converted checkpoint. The program depends on no tensor.

        Empty when there is no table that can be read.
        """
        path = self.current.model_config
        try:
            if phase != self.program:
                return sha256(read_bytes(path, TABLE)).hexdigest()
            return digest({key: value for key, value in load_json(path).items() if key != "tensors"})
        except (FileNotFoundError, FileFormatError):
            return ""

    # --------------------------------------------------------------------------------------------------- tracing
    @cached_property
    def traced(self) -> Traced:
        """The model's IR, for the length of the converted checkpoint if that is used as it is."""
        from hyperdex_ir.backend.tracing import resume, trace

        if self.dump is not None and not self.dump.is_lowered:
            log(f"Continue from {self.dump.path}")
            return resume(self.folder, self.options, self.dump)
        known = read_table(self.current.model_config) if self.is_done(CONVERT) else None
        options = self.options if self.dump is None else replace(self.options, dump_ir=None)
        return trace(self.folder, self.summary, options, self.passes, known)

    @cached_property
    def whole(self) -> Traced:
        """The model as one device stores it, whatever the number of devices. Phase 2 writes this form."""
        return self.traced if self.options.num_device == 1 else self.traced.whole(self.options, self.passes)
