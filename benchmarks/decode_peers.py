"""Peers of decode.py: a process each, asked one after another, round after round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from decode_models import Model
from machine_speed import MachineSpeed

_WORKERS = Path(__file__).parent / "workers"
_PAUSE = 0.3  # seconds between measurements: threads of the last peer stop spinning
#: Bandwidth samples of a run that lie further apart say that the machine was busy with something else.
SPREAD = 0.15

ENGINE, LLAMA, FLOAT32, BFLOAT16 = "engine", "llama.cpp", "float32", "bfloat16"


class Worker:
    """A process that has loaded a model and answers requests; used as a context."""

    def __init__(self, name: str, command: Sequence[str]):
        self.name = name
        self._command = list(command)

    def __enter__(self) -> Worker:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()
        self._errors.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request, see workers/protocol.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            sys.exit(f"{self._errors.read()[-2000:]}\n{self.name} ended: {' '.join(self._command)}")
        return json.loads(line)


@dataclass(frozen=True)
class Setup:
    """What all runs share: threads, the interpreter that has llama_cpp (or none), our engine's name, rounds."""

    threads: int
    llama_python: str | None
    engine: str
    rounds: int

    def workers(self, model: Model, positions: int, names: Sequence[str]) -> list[Worker]:
        """The peers of these names, as far as they are there. positions: prompt and response."""
        threads, here = str(self.threads), sys.executable
        checkpoint = os.fspath(model.checkpoint)
        commands = {
            ENGINE: [here, _worker("engine"), checkpoint, threads, self.engine],
            FLOAT32: [here, _worker("torch_model"), checkpoint, threads, "float32"],
            BFLOAT16: [here, _worker("torch_model"), checkpoint, threads, "bfloat16"],
        }
        if self.llama_python and model.gguf:
            llama = [self.llama_python, _worker("llama"), "serve", os.fspath(model.gguf), threads, str(positions)]
            commands[LLAMA] = llama
        return [Worker(name, commands[name]) for name in names if name in commands]


def _worker(name: str) -> str:
    return os.fspath(_WORKERS / f"{name}.py")


@dataclass
class Run:
    """What one run over all peers gave: tokens per second by task, peer and round; the machine's speed by round."""

    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    tokens: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # what each peer answered
    bandwidth: list[float] = field(default_factory=list)  # bytes per second
    multiplies: list[float] = field(default_factory=list)  # fused multiply-adds per second

    @property
    def spread(self) -> float:
        """How far the bandwidth samples lie apart, as a share of the best."""
        return 1 - min(self.bandwidth) / max(self.bandwidth)

    def median(self, task: str, peer: str) -> float | None:
        """Tokens per second; None for a peer that did not take part."""
        rates = self.rates[task].get(peer)
        return statistics.median(rates) if rates else None

    def ratio(self, task: str, peer: str, other: str) -> float | None:
        """Median of the ratios of two peers' rates, round by round."""
        one, two = self.rates[task].get(peer), self.rates[task].get(other)
        if not one or not two:
            return None
        return statistics.median(a / b for a, b in zip(one, two, strict=True))


def measure(machine: MachineSpeed, setup: Setup, workers: Sequence[Worker], tasks: dict[str, dict[str, Any]]) -> Run:
    """One warm-up round and then `rounds`, each with every task of every peer; every other round backwards.

    tasks: by name, the request; the rate counts the tokens of the prompt, or the tokens after the first.
    """
    run = Run({task: {} for task in tasks}, {task: {} for task in tasks})
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        steps = [(task, request, worker) for task, request in tasks.items() for worker in workers]
        for number in range(setup.rounds + 1):
            if number:
                run.bandwidth.append(machine.bandwidth())
                run.multiplies.append(machine.multiplies())
            for task, request, worker in steps[:: 1 if number % 2 else -1]:
                time.sleep(_PAUSE)
                answer = worker.ask(**request)
                if number:
                    rate = _counted(request) / answer["seconds"]
                    run.rates[task].setdefault(worker.name, []).append(rate)
                run.tokens[task][worker.name] = answer["tokens"]
    return run


def _counted(request: dict[str, Any]) -> int:
    return len(request["prompt"]) if request["command"] == "prefill" else request["count"] - 1


def quiet_run(
    machine: MachineSpeed, setup: Setup, workers: Sequence[Worker], tasks: dict[str, dict[str, Any]], attempts: int = 3
) -> Run:
    """As `measure`, again while the bandwidth samples lie too far apart; ends the program when they always do."""
    for attempt in range(1, attempts + 1):
        run = measure(machine, setup, workers, tasks)
        if run.spread <= SPREAD:
            return run
        samples = ", ".join(f"{value / 1e9:.1f}" for value in run.bandwidth)
        print(f"run {attempt} not counted: read bandwidth of {samples} GB/s; the machine is busy", file=sys.stderr)
    sys.exit(f"no run of {attempts} had bandwidth samples within {SPREAD:.0%}: nothing to report")
