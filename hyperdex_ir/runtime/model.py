"""A compiled model, opened from `config/`, `inst/` and `param/` alone: no checkpoint, no torch, no transformers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hyperdex_ir.errors import FileFormatError, OptionError
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.runtime.executors import DEFAULT_EXECUTOR, Executor, open_device
from hyperdex_ir.runtime.generate import Device, Generation, Limits, all_logits, generate
from hyperdex_ir.runtime.launch import PEER_SECONDS, current_launch, digest
from hyperdex_ir.runtime.program import check_images, read_program
from hyperdex_ir.runtime.sampling import Sampling, draw_seed
from hyperdex_ir.support import reading
from hyperdex_ir.support.locations import ModelFolder


class CompiledModel:
    """A model ready to run. It holds one conversation state: the KV cache of the tokens that it ran last.

    Threads that call it take turns. Raises OptionError when `on_token` calls the model that calls it.
    """

    def __init__(self, device: Device, facts: ProgramFacts):
        self.device = device
        self.limits = Limits.of(facts)
        self.matrix_type = facts.matrix_type
        self.target = facts.target
        self._turn = threading.Lock()
        self._running: int | None = None  # the thread whose turn it is

    @classmethod
    def open(
        cls,
        model_dir: Path | str,
        num_device: int | None = None,
        engine: str = DEFAULT_EXECUTOR,
        *,
        threads: int | None = None,
        name: str | None = None,
        peer_timeout: float = PEER_SECONDS,
    ) -> CompiledModel:
        """Opens the compiled model in `model_dir`. name: the model's name in errors.

        num_device: number of devices that the model is divided over, 1 when not given; all run in this process. In a
        process of a distributed run, as torchrun starts it, this process is one of as many devices as there are
        processes; another that gives no sign of life for `peer_timeout` seconds is lost.
        engine: `native`, or `interpreter`, the reference: the same bits. threads: number of threads of the native
        executor, by default all cores that the process may use, in a distributed run its share of them.
        Raises NotCompiledError when the model is not compiled for `num_device`, OptionError when that is no positive
        whole number, FileFormatError when a file is missing, truncated, corrupted or does not belong to the others,
        PeerError when the processes do not run the same.
        """
        chosen = Executor(engine, threads)
        folder = ModelFolder(Path(model_dir), Path(model_dir), None, made_by_tool=False)
        shown, launch = name or os.fspath(folder.root), current_launch()
        if launch is not None:
            from hyperdex_ir.runtime.distributed import open_distributed

            device, facts = open_distributed(folder, num_device, shown, launch, peer_timeout, chosen)
            return cls(device, facts)
        count = 1 if num_device is None else num_device
        program, memory_map, facts = read_program(folder, count, shown)
        images = [check_images(folder, count, number, memory_map) for number in range(count)]
        return cls(open_device(chosen, program, images, memory_map, facts), facts)

    @property
    def max_length(self) -> int:
        """Positions that the KV cache and tables hold, prompt and response together."""
        return self.limits.max_length

    @property
    def vocab_size(self) -> int:
        return self.limits.vocab_size

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        """Runs at most `chunk` tokens, one step, at absolute positions from `position` on.

        Returns float32 [wanted rows, vocab_size]: from `first_row` on; None: the last row only.
        """
        with self._alone():
            return self.device.forward(tokens, position, first_row)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits at every position of a text, float32 [tokens, vocab_size].

        Raises PromptError when it is empty or longer than the model was compiled for.
        """
        with self._alone():
            self._agree({"prompt": list(ids)})
            return all_logits(self.device, ids, self.limits)

    def generate(
        self,
        ids: Sequence[int],
        max_new_tokens: int,
        eos_ids: Collection[int] = (),
        on_token: Callable[[int], None] | None = None,
        sampling: Sampling | None = None,
        draw: Callable[[], int] = draw_seed,
    ) -> Generation:
        """Generation, greedy without `sampling`; `on_token` is called with each new token as it comes.

        draw: makes the seed when sampling needs one and has none; of several processes, that of the first counts.
        See `runtime.generate.generate`.
        """
        sampling = sampling or Sampling()
        request = {"prompt": list(ids), "number of new tokens": max_new_tokens, "end tokens": sorted(eos_ids)}
        unseeded = replace(sampling, seed=None).settings.pack().hex()
        seed = sampling.seed if sampling.do_sample else None
        with self._alone():
            self._agree(request | {"set of sampling settings": unseeded, "seed": seed})
            sampling = sampling.seeded(lambda: self._first(draw()))
            return generate(self.device, ids, self.limits, max_new_tokens, eos_ids, on_token, sampling)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._running == threading.get_ident():
            raise OptionError("the model is generating: it cannot be called by its own on_token", "open it once more")
        with self._turn:
            self._running = threading.get_ident()
            try:
                yield
            finally:
                self._running = None

    def _agree(self, request: dict[str, Any]) -> None:
        """Raises PeerError when another process of a distributed run was asked for something else."""
        if isinstance(self.device, SharedDevice):
            self.device.agree({name: digest(value) for name, value in request.items()})

    def _first(self, value: int) -> int:
        """The value of the first process of a distributed run, all of which call this."""
        return self.device.first(value) if isinstance(self.device, SharedDevice) else value


@runtime_checkable
class SharedDevice(Protocol):
    """A device of a distributed run: all processes call it alike."""

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raises PeerError when another process was given something else: name -> value."""
        ...

    def first(self, value: int) -> int:
        """The value of the process of rank 0."""
        ...


def read_eos_ids(*folders: Path) -> tuple[int, ...]:
    """End-of-text ids: generation_config.json's, else config.json's, of the first of `folders` that names any.

    Raises FileFormatError for values that are no whole numbers.
    """
    for folder in folders:
        for name in ("generation_config.json", "config.json"):
            values = read_json_object(folder / name)
            text = values.get("text_config")  # of a model around a text model
            value = values.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
            if value is None:
                continue
            ids = value if isinstance(value, list) else [value]
            if not all(isinstance(number, int) and not isinstance(number, bool) for number in ids):
                raise FileFormatError(
                    f"{folder / name}: eos_token_id is {value!r}, expected a whole number or a list of them"
                )
            return tuple(ids)
    return ()


def read_generation_config(*folders: Path) -> dict[str, Any]:
    """generation_config.json of the first of `folders` that says anything in one, else {}."""
    configs = (read_json_object(folder / "generation_config.json") for folder in folders)
    return next(filter(None, configs), {})


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object of the checkpoint, empty when there is no such file. Raises FileFormatError when it is broken."""
    try:
        return reading.read_object(path, reading.GENERATION_CONFIG)
    except FileNotFoundError:
        return {}
