"""Generation: the prompt in chunks, then token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from hyperdex_ir.errors import OptionError, PromptError
from hyperdex_ir.isa.settings import Settings
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.runtime.sampling import Sampling


class Device(Protocol):
    """A device that runs a program: token ids in, logits and the next token out."""

    @property
    def next_token(self) -> int: ...

    def set_sampling(self, settings: Settings) -> None:
        """Sets the choice of `next_token` from now on; a text begins."""
        ...

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class Limits:
    """Limits of a compiled program.

    chunk: most tokens in one step; head_rows: most rows of logits from one step; max_length: positions, prompt and
    response together; vocab_size: ids are below it. placeholders: names and ids of tokens that stand for no text.
    """

    chunk: int
    head_rows: int
    max_length: int
    vocab_size: int
    placeholders: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: ProgramFacts) -> Limits:
        """The limits in inst_{n}lpu.json, the facts of a program."""
        return cls(facts.chunk, facts.head_rows, facts.max_length, facts.vocab_size, facts.placeholders)


@dataclass(frozen=True)
class Generation:
    """The result of one call: the new tokens, the reason for their end, and the times."""

    tokens: tuple[int, ...]
    finish: Literal["eos", "max_new_tokens", "max_length"]
    prompt_tokens: int
    first_token_seconds: float  # from the call to the first new token
    decode_seconds: float  # from the first new token to the last
    seed: int | None = None  # gives the same tokens again; None when they were not drawn

    @property
    def tokens_per_second(self) -> float:
        """Rate of the tokens after the first; 0 when there is at most one."""
        return (len(self.tokens) - 1) / self.decode_seconds if len(self.tokens) > 1 and self.decode_seconds else 0.0


def check_prompt(ids: Sequence[int], limits: Limits, room: int) -> None:
    """Raises PromptError when the prompt is empty, holds an id of no text, or leaves less than `room` positions."""
    if not len(ids):
        raise PromptError("the prompt is empty: it has no tokens", "give at least one token")
    for token in ids:
        if not 0 <= token < limits.vocab_size:
            raise PromptError(f"token id {token} is outside the vocabulary of {limits.vocab_size}")
    for name, token in limits.placeholders.items():
        if token in ids:
            raise PromptError(
                f"token id {token} is the {name}: it stands for no text, and only the model's text part is compiled",
                "leave images, videos and sounds out of the prompt",
            )
    if len(ids) + room > limits.max_length:
        raise PromptError(
            f"the prompt has {len(ids)} tokens; the model was compiled for max_length {limits.max_length}"
            f"{', prompt and response together' if room else ''}",
            "shorten the prompt, or compile with a larger --max-length",
        )


def prefill(device: Device, ids: Sequence[int], chunk: int) -> None:
    """Runs the whole prompt from position 0, at most `chunk` tokens a step; the device then holds the next token."""
    for start in range(0, len(ids), chunk):
        device.forward(ids[start : start + chunk], start)


def all_logits(device: Device, ids: Sequence[int], limits: Limits) -> np.ndarray:
    """Logits of every position, float32 [tokens, vocab_size]. Raises PromptError as `check_prompt` does."""
    check_prompt(ids, limits, room=0)
    step = min(limits.chunk, limits.head_rows)
    starts = range(0, len(ids), step)
    return np.concatenate([device.forward(ids[start : start + step], start, 0) for start in starts])


def generate(
    device: Device,
    ids: Sequence[int],
    limits: Limits,
    max_new_tokens: int,
    eos_ids: Collection[int] = (),
    on_token: Callable[[int], None] | None = None,
    sampling: Sampling | None = None,
) -> Generation:
    """Generates token by token: at each position the one with the largest logit, or the one that `sampling` chooses.

    Stops after an id of `eos_ids` (which is part of the result), after `max_new_tokens`, or when prompt and response
    together fill the positions that the model was compiled for. Raises PromptError or OptionError before anything runs.
    """
    if max_new_tokens < 1:
        raise OptionError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    check_prompt(ids, limits, room=1)
    count = min(max_new_tokens, limits.max_length - len(ids))
    sampling = (sampling or Sampling()).seeded()
    start = time.perf_counter()
    first = last = start
    tokens: list[int] = []
    device.set_sampling(sampling.settings)
    try:
        for token in _tokens(device, ids, limits.chunk, count):
            last = time.perf_counter()
            first = first if tokens else last
            tokens.append(token)
            if on_token is not None:
                on_token(token)
            if token in eos_ids:
                break
    finally:
        device.set_sampling(Settings())
    finish = "eos" if tokens[-1] in eos_ids else "max_new_tokens" if count == max_new_tokens else "max_length"
    seed = sampling.seed if sampling.do_sample else None
    return Generation(tuple(tokens), finish, len(ids), first - start, last - first, seed)


def _tokens(device: Device, ids: Sequence[int], chunk: int, count: int) -> Iterator[int]:
    prefill(device, ids, chunk)
    yield device.next_token
    for position in range(len(ids), len(ids) + count - 1):
        device.forward([device.next_token], position)
        yield device.next_token
