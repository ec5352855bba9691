"""Targets: the machines that programs are made for, each described by a TOML file in this folder."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hyperdex_ir.errors import OptionError

LANES = 64  # of a MAC tree: part of the arithmetic, not a choice of the target
BEAT_BYTES = 64  # what an HBM channel delivers at a time
TREE_CHANNELS = 2  # that feed a MAC tree, and no other
STREAM_LANES = LANES // TREE_CHANNELS  # of a step, that come from one of them
TREE_BYTES = TREE_CHANNELS * BEAT_BYTES  # of a stripe, that one tree takes


@dataclass(frozen=True)
class Target:
    """A machine: HBM channels, MAC trees, sizes in bytes, rates in units a second.

    What follows `link_latency_seconds` says how long instructions take, see `performance/cost.py`.
    """

    name: str
    channels: int
    trees: int
    clock_hz: float
    hbm_bytes: int
    hbm_bytes_per_second: float
    lmu_bytes: int
    link_bytes_per_second: float
    link_latency_seconds: float
    vector_lanes: int
    vector_latency_cycles: int
    tree_latency_cycles: int
    hbm_latency_seconds: float
    partial_write_cycles: int
    prefetch_bytes: int

    @property
    def stripe_bytes(self) -> int:
        """One beat of every channel: what the trees take in a cycle."""
        return self.channels * BEAT_BYTES

    @property
    def lmu_words(self) -> int:
        """LMU size in words of 32 bits."""
        return self.lmu_bytes // 4

    @property
    def hbm_bytes_per_cycle(self) -> int:
        """What the HBM delivers a cycle: a beat of every channel, or less where the memory is slower."""
        return min(self.stripe_bytes, int(self.hbm_bytes_per_second / self.clock_hz))

    @property
    def hbm_latency_cycles(self) -> int:
        """Cycles from a request to its first beat."""
        return math.ceil(self.hbm_latency_seconds * self.clock_hz)

    @property
    def link_bytes_per_cycle(self) -> int:
        """What a link takes a cycle in each direction."""
        return max(1, int(self.link_bytes_per_second / self.clock_hz))

    @property
    def link_latency_cycles(self) -> int:
        """Cycles from the end of a message at one device to its end at the next."""
        return math.ceil(self.link_latency_seconds * self.clock_hz)

    @property
    def prefetch_stripes(self) -> int:
        """Stripes of weights that can be there before they are needed."""
        return self.prefetch_bytes // self.stripe_bytes


def target_names() -> tuple[str, ...]:
    """All targets, by name."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.toml")))


@cache
def load_target(name: str) -> Target:
    """The target of that name. Raises OptionError when there is none."""
    if name not in target_names():
        raise OptionError(f"no target {name!r}; there are {', '.join(target_names())}", "choose one with --type-device")
    table = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text())
    target = Target(name, **{key: entry["value"] for key, entry in table.items()})
    if target.channels != target.trees * TREE_CHANNELS:
        raise OptionError(f"target {name}: {target.channels} channels do not feed {target.trees} MAC trees")
    return target
