"""Targets: the machines that programs are made for, each described by a TOML file, in this folder or of a user.

A target is referred to by a text: the name of one of the package, or the name and the numbers of a user's own, as
`spell_target` writes them. So everything made for a target (modules, dumps, manifest) describes it without the file.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from hyperdex_ir.errors import OptionError
from hyperdex_ir.support.locations import user_path
from hyperdex_ir.support.reading import TARGET, read_source

DEFAULT_TARGET = "u55c"
LANES = 64  # of a MAC tree: part of the arithmetic, not a choice of the target
BEAT_BYTES = 64  # bytes that an HBM channel delivers at a time
TREE_CHANNELS = 2  # channels that feed one MAC tree, and no other
STREAM_LANES = LANES // TREE_CHANNELS  # lanes of a tree that one of its channels feeds
TREE_BYTES = TREE_CHANNELS * BEAT_BYTES  # bytes of a stripe that one tree takes
#: Bytes that HBM addresses reach, and more than any other count.
MOST = 1 << 40
#: Words that LMU addresses reach.
MOST_LMU_WORDS = 1 << 24
_MOST_RATE = 1e18
_SUFFIX = ".toml"
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}", re.ASCII)
_SPELLED = re.compile(rf"(?P<name>{_NAME.pattern})(?P<numbers>{{.{{1,2000}}}})", re.ASCII)


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, whole ones unless `whole` is false."""

    low: float
    high: float = MOST
    whole: bool = True

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.whole and not isinstance(value, int)):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a {'whole ' * self.whole}number in {self.low}..{self.high}"


class _Rate(Range):
    """Numbers of seconds or per second, not so small that others overflow when divided by them."""

    def __init__(self) -> None:
        super().__init__(1 / _MOST_RATE, _MOST_RATE, whole=False)

    def __str__(self) -> str:
        return f"a number above 0, in {self.low:g}..{self.high:g}"


_Size = Annotated[int, Range(1)]
_Count = Annotated[int, Range(0)]
_Positive = Annotated[float, _Rate()]


@dataclass(frozen=True)
class Target:
    """A machine: HBM channels, MAC trees, sizes in bytes, rates in units a second.

    The fields after `link_latency_seconds` give the durations of instructions, see `performance/cost.py`.
    """

    name: str
    channels: Annotated[int, Range(1, 256)]  # the names of the images have two hexadecimal digits for it
    trees: _Size
    clock_hz: _Positive
    hbm_bytes: _Size
    hbm_bytes_per_second: _Positive
    lmu_bytes: Annotated[int, Range(4, 4 * MOST_LMU_WORDS)]
    link_bytes_per_second: _Positive
    link_latency_seconds: _Positive
    vector_lanes: _Size
    vector_latency_cycles: _Count
    tree_latency_cycles: _Count
    hbm_latency_seconds: _Positive
    partial_write_cycles: _Count
    prefetch_bytes: _Count

    @property
    def stripe_bytes(self) -> int:
        """Bytes of one beat of every channel, which the trees take in a cycle."""
        return self.channels * BEAT_BYTES

    @property
    def lmu_words(self) -> int:
        """LMU size in words of 32 bits."""
        return self.lmu_bytes // 4

    @property
    def hbm_bytes_per_cycle(self) -> int:
        """Bytes that the HBM delivers in a cycle: a beat of every channel, or less where the memory is slower."""
        return min(self.stripe_bytes, int(self.hbm_bytes_per_second / self.clock_hz))

    @property
    def hbm_latency_cycles(self) -> int:
        """Cycles from a request to its first beat."""
        return math.ceil(self.hbm_latency_seconds * self.clock_hz)

    @property
    def link_bytes_per_cycle(self) -> int:
        """Bytes that a link takes in a cycle in each direction."""
        return max(1, int(self.link_bytes_per_second / self.clock_hz))

    @property
    def link_latency_cycles(self) -> int:
        """Cycles from the end of a message at one device to its end at the next."""
        return math.ceil(self.link_latency_seconds * self.clock_hz)

    @property
    def prefetch_stripes(self) -> int:
        """Stripes of weights that can be there before they are needed."""
        return self.prefetch_bytes // self.stripe_bytes


_RANGES: dict[str, Range] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Target, include_extras=True).items() if name != "name"
}


def make_target(values: Mapping[str, Any], prefix: str = "") -> Target:
    """The target with these values by name, which may be anything. prefix: stands before the names in errors.

    Raises KeyError when one is missing, TypeError when it is of another kind, out of its range, or does not fit others.
    """
    name = values["name"]
    if not isinstance(name, str) or not name.isprintable():
        raise TypeError(f"{prefix}name is {name!r:.60}, expected text")
    for key, range_ in _RANGES.items():
        if values[key] not in range_:
            raise TypeError(f"{prefix}{key} is {values[key]!r:.60}, expected {range_}")
    target = Target(name, **{key: values[key] for key in _RANGES})
    if target.channels != target.trees * TREE_CHANNELS:
        raise TypeError(f"{target.channels} channels do not feed {target.trees} MAC trees")
    if target.hbm_bytes_per_cycle < 1:
        raise TypeError(f"an HBM of {target.hbm_bytes_per_second:g} bytes a second gives no byte a cycle")
    return target


def target_names() -> tuple[str, ...]:
    """All targets of the package, by name."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob(f"*{_SUFFIX}")))


@cache
def load_target(text: str) -> Target:
    """The target that a text of `spell_target` refers to. Raises OptionError when there is none."""
    if text in target_names():
        return _read(Path(__file__).parent / f"{text}{_SUFFIX}")
    spelled = _SPELLED.fullmatch(text)
    if spelled is None:
        raise OptionError(
            f"no target {text!r:.200}; there are {', '.join(target_names())}",
            f"choose one with --type-device, or name a file of your own, which ends in {_SUFFIX}",
        )
    name = spelled["name"]
    return _checked(f"target {name}", name, _parsed(f"target {name}", f"numbers = {spelled['numbers']}")["numbers"])


def spell_target(target: Target) -> str:
    """The text that refers to a target: the name of one of the package, else its name and all its numbers."""
    if target.name in target_names() and load_target(target.name) == target:
        return target.name
    numbers = ", ".join(f"{key} = {value!r}" for key, value in asdict(target).items() if key != "name")
    return f"{target.name}{{{numbers}}}"


def shown_target(text: str) -> str:
    """The name alone in a text that refers to a target."""
    return text.partition("{")[0]


def find_target(choice: str | os.PathLike[str]) -> str:
    """The text of the target that a person has chosen, by such a text or the path of a file.

    Raises OptionError when there is none, or the file is not as those of the package are.
    """
    text = os.fspath(choice)
    if not text.endswith(_SUFFIX):
        return spell_target(load_target(text))
    target = _read(user_path(text))
    spelled = spell_target(target)
    if spelled != target.name and target.name in target_names():
        raise OptionError(f"{text}: the package has another target {target.name}", "give the file another name")
    return spelled


def _read(path: Path) -> Target:
    """The target of a file, whose name is the file's: a table for each number, with `value` and perhaps `source`."""
    name = path.stem
    if not _NAME.fullmatch(name):
        raise OptionError(f"{path}: a target cannot have this name", "name the file with letters, digits, _, . and -")
    try:
        entries = _parsed(str(path), read_source(path, TARGET))
    except FileNotFoundError:
        raise OptionError(f"{path}: no such file", f"the targets of the package: {', '.join(target_names())}") from None
    for key, entry in entries.items():
        if not isinstance(entry, dict) or "value" not in entry or not {"value", "source"} >= entry.keys():
            raise OptionError(f"{path}: {key!r:.60} is no table of a value and its source", TARGET.hint)
    return _checked(str(path), name, {key: entry["value"] for key, entry in entries.items()})


def _parsed(where: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise OptionError(f"{where}: not valid TOML: {error}", TARGET.hint) from None
    except RecursionError:
        raise OptionError(f"{where}: not valid TOML: nested too deep", TARGET.hint) from None


def _checked(where: str, name: str, numbers: Any) -> Target:
    """The target of numbers by name, which may be anything."""
    try:
        if unknown := [key for key in numbers if key not in _RANGES]:
            raise OptionError(f"{where}: a target has no {unknown[0]!r:.60}", TARGET.hint)
        return make_target({**numbers, "name": name})
    except KeyError as error:
        raise OptionError(f"{where}: {error.args[0]} is missing", TARGET.hint) from None
    except TypeError as error:
        raise OptionError(f"{where}: {error}", TARGET.hint) from None
    except RecursionError:
        raise OptionError(f"{where}: nested too deep", TARGET.hint) from None
