"""Runs a case on the interpreter and on the native executor, and says where they differ."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.interpreter.lmu import Lmu
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.program import Origin, Program
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.machine import NativeMachine
from support.programs.instruction_case import LMU_WORDS, VOCABULARY, Case

BUDGET = 500
_SPECIALS = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, -65520, 6e-8, 2.98e-8, 1e-45, -1e-45,
     1.17549435e-38, 3.4028235e38, -3.4028235e38, 3.3895314e38, 9.2e-41, 88.7, -104.0, 0.625],
    np.float32,
)  # fmt: skip


class WrittenLmu(Lmu):
    """An LMU all of whose words an earlier step has written."""

    def __init__(self, words: np.ndarray):
        super().__init__(words.size)
        self._words[:] = words
        self._written[:] = True

    def forget(self) -> None: ...

    @property
    def words(self) -> np.ndarray:
        return self._words


@dataclass(frozen=True)
class Outcome:
    """What one run left behind, as bits; a NaN is a NaN."""

    error: str | None
    flag: Any
    step: int | None
    registers: list[int | None]
    lmu: np.ndarray
    hbm: np.ndarray

    @property
    def is_untracked(self) -> bool:
        """Whether the run stopped at what nothing has written, which only the interpreter knows (docs/isa.md)."""
        return (self.error or "").endswith(("nothing wrote it", "nothing has written"))

    def differences(self, other: Outcome) -> str:
        """Empty when nothing differs. After a machine fault only its message counts."""
        if self.error or other.error:
            return "" if self.error == other.error else f"{self.error!r} and {other.error!r}"
        mine, its = (self.flag, self.step), (other.flag, other.step)
        found = [] if mine == its else [f"flag {mine} and {its}"]
        if self.registers != other.registers:
            found.append(f"registers {self.registers} and {other.registers}")
        for name in ("lmu", "hbm"):
            mine, its = getattr(self, name), getattr(other, name)
            places = np.flatnonzero(mine != its)
            if places.size:
                at = places[0]
                found.append(f"{name} {at} and {places.size - 1} more: {mine[at]:#x} and {its[at]:#x}")
        return "; ".join(found)


def values(rng: np.random.Generator, count: int, flavour: str) -> np.ndarray:
    """float32 [count]; see instruction_case.FLAVOURS."""
    plain = rng.standard_normal(count, np.float32)
    bits = np.frombuffer(rng.bytes(4 * count), np.uint32)
    match flavour:
        case "plain":
            return plain
        case "finite":
            any_bits = bits.view(np.float32)
            return np.where(np.isfinite(any_bits), any_bits, plain)
        case "mixed":
            return np.where(bits % 5 == 0, rng.choice(_SPECIALS, count), plain)
        case "bits":
            return bits.view(np.float32)
        case "halfway":  # of f16 and bf16, and one unit off
            shift = np.where(bits & 1, np.uint32(1 << 12), np.uint32(1 << 15))
            middle = (plain.view(np.uint32) & ~(2 * shift - 1)) + shift
            return (middle + (bits >> 1) % 3 - 1).astype(np.uint32).view(np.float32)
        case "ties":
            return np.round(2 * plain) / 2
        case "tiny":
            return plain * np.float32(2.0) ** -(bits % 160).astype(np.float32)
        case "huge":
            return plain * np.float32(2.0) ** (bits % 128).astype(np.float32)
    raise ValueError(flavour)


def matrices(rng: np.random.Generator, count: int, flavour: str) -> np.ndarray:
    """uint16 [count]: elements of either matrix type."""
    match flavour:
        case "plain" | "halfway":
            return rng.standard_normal(count, np.float32).astype(np.float16).view(np.uint16)
        case "tiny":
            return rng.integers(0, 0x500, count, np.uint16) | (rng.integers(0, 2, count, np.uint16) << 15)
        case "finite":
            return rng.integers(0, 0x7C00, count, np.uint16) | (rng.integers(0, 2, count, np.uint16) << 15)
        case _:
            return np.frombuffer(rng.bytes(2 * count), np.uint16).copy()


class Start:
    """The memory that a case starts from; each run gets a copy. It takes longer to make than most cases to run."""

    def __init__(self, case: Case):
        rng = np.random.default_rng(case.seed)
        with np.errstate(all="ignore"):
            self.lmu = values(rng, LMU_WORDS, case.lmu_flavour)
            self.hbm = matrices(rng, case.map.end // 2, case.hbm_flavour).view(np.uint8)
            half = case.map.parameter_end // 2  # half of the parameters are float32 numbers of the flavour
            self.hbm[:half].view(np.float32)[:] = values(rng, half // 4, case.hbm_flavour)
            settings = np.frombuffer(case.settings.pack(), np.uint8)
            seen = rng.integers(0, 2, 2 * VOCABULARY, np.uint8)
            self.hbm[case.map.sampling :][: settings.size + seen.size] = np.concatenate([settings, seen])
        self.tokens = [int(token) for token in rng.integers(0, VOCABULARY, case.tokens)]

    def memory(self, case: Case) -> Hbm:
        hbm = Hbm(case.map)
        hbm.bytes[:] = self.hbm
        hbm._written[:] = True
        return hbm


class LateLoop:
    """A link that leads back to the device; the first `waits` questions for a message are in vain."""

    def __init__(self, waits: int):
        self._messages: deque[Message] = deque()
        self._waits = waits

    def send(self, message: Message) -> None:
        self._messages.append(message)

    def receive(self) -> Message | None:
        if self._waits:
            self._waits -= 1
            return None
        return self._messages.popleft()


def place_of(case: Case) -> dict[str, Any]:
    """The device's number and link."""
    return {"device": case.device, "link": LateLoop(case.waits) if case.linked else None}


def program_of(case: Case) -> Program:
    code = case.program
    return Program(code, tuple(Origin("main", f"model.{index}", item.name) for index, item in enumerate(code)))


def interpreted(case: Case, start: Start | None = None) -> Outcome:
    """The case on the interpreter."""
    start = start or Start(case)
    hbm = start.memory(case)
    machine = Machine(program_of(case), hbm, chunk=case.chunk, lmu_words=LMU_WORDS, budget=BUDGET, **place_of(case))
    lmu = machine.state.lmu = WrittenLmu(start.lmu)
    error = run_case(machine, case, start)
    return Outcome(
        error,
        machine.fault,
        step_of(machine),
        list(machine.registers),
        float_bits(lmu.words),
        run_time_bits(hbm.bytes[case.map.parameter_end :], case),
    )


def native(case: Case, threads: int, features: Features | None = None, start: Start | None = None) -> Outcome:
    """The case on the native executor."""
    start = start or Start(case)
    hbm = start.memory(case)
    machine = NativeMachine(
        program_of(case), hbm, chunk=case.chunk, lmu_words=LMU_WORDS, budget=BUDGET, threads=threads, features=features,
        **place_of(case),
    )  # fmt: skip
    try:
        machine.write_lmu(0, start.lmu)
        error = run_case(machine, case, start)
        lmu = machine.lmu(0, 1, LMU_WORDS)[0]
        return Outcome(
            error,
            machine.fault,
            step_of(machine),
            machine.registers,
            float_bits(lmu),
            run_time_bits(hbm.bytes[case.map.parameter_end :], case),
        )
    finally:
        machine.close()


def step_of(machine: Machine | NativeMachine) -> int | None:
    """Instructions before the one that raised the flag."""
    return None if machine.fault is None else machine.fault.step


def run_case(machine: Machine | NativeMachine, case: Case, start: Start) -> str | None:
    """One step. What is forbidden, with the instructions executed; None when nothing is."""
    try:
        machine.start(start.tokens, case.position, case.tokens - 1)
        while machine.resume() == "receive":
            pass
    except MachineFault as fault:
        return f"{machine.executed}: {fault}"
    return None


def float_bits(x: np.ndarray) -> np.ndarray:
    """The bits of float32, every NaN alike."""
    bits = x.view(np.uint32).copy()
    bits[np.isnan(x)] = 0x7FC00000
    return bits


def run_time_bits(area: np.ndarray, case: Case) -> np.ndarray:
    """The run-time area, from bytes, 16 bits at a time: up to the tokens elements of the matrix type, then float32;
    every NaN alike.
    """
    start = case.map.parameter_end
    bits = area.view(np.uint16).copy()
    cache = bits[: (case.map.tokens - start) // 2]
    cache[(cache & 0x7FFF) > (0x7C00 if case.matrix_type == "f16" else 0x7F80)] = 0x7FFF
    logits = bits[(case.map.logits - start) // 2 :]
    logits[:] = float_bits(logits.view(np.float32)).view(np.uint16)
    return bits
