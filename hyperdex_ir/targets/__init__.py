"""Targets: the machines that programs are made for, each described by a TOML file in this folder."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hyperdex_ir.errors import OptionError

LANES = 64  # of a MAC tree: part of the arithmetic, not a choice of the target
BEAT_BYTES = 64  # what an HBM channel delivers at a time


@dataclass(frozen=True)
class Target:
    """A machine: HBM channels, MAC trees, sizes in bytes, rates in units a second."""

    name: str
    channels: int
    trees: int
    clock_hz: float
    hbm_bytes: int
    hbm_bytes_per_second: float
    lmu_bytes: int
    link_bytes_per_second: float
    link_latency_seconds: float

    @property
    def stripe_bytes(self) -> int:
        """One beat of every channel: also one tile, `trees` columns of 64 lanes of 2 bytes."""
        return self.channels * BEAT_BYTES

    @property
    def lmu_words(self) -> int:
        """LMU size in words of 32 bits."""
        return self.lmu_bytes // 4


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
    if target.channels * BEAT_BYTES != target.trees * LANES * 2:
        raise OptionError(f"target {name}: {target.channels} channels do not feed {target.trees} MAC trees")
    return target
