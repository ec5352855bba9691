"""Sets of vector instructions that the native executor generates code for."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hyperdex_ir.errors import OptionError

#: Chooses a smaller set of vector instructions than the computer has: a key of FEATURES.
VARIABLE = "HYPERDEX_CPU"


@dataclass(frozen=True)
class Features:
    """A set of vector instructions.

    triple, cpu, attributes: LLVM's description; lanes: float32 numbers in a vector register; has_fma: fused
    multiply-add; has_half: conversions between f16 and f32; needs: features that the computer must have, by LLVM's
    names.
    """

    name: str
    triple: str
    cpu: str
    attributes: str
    lanes: int
    has_fma: bool
    has_half: bool
    needs: tuple[str, ...]

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith("x86_64")


_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq")

#: By name, the best first for each kind of processor.
FEATURES: Mapping[str, Features] = {
    item.name: item
    for item in (
        Features("avx512", _X86, "x86-64-v4", "", 16, has_fma=True, has_half=True, needs=_AVX512),
        Features("avx2", _X86, "x86-64-v3", "", 8, has_fma=True, has_half=True, needs=_AVX2),
        Features("sse2", _X86, "x86-64", "", 4, has_fma=False, has_half=False, needs=("sse2",)),
        Features("neon", _ARM, "generic", "+neon", 4, has_fma=True, has_half=True, needs=()),
    )
}
_MACHINES = {"x86_64": True, "amd64": True, "aarch64": False, "arm64": False}


def available() -> list[Features]:
    """Sets that this computer can run, the best first; empty on a processor that the executor has no code for."""
    import llvmlite.binding as llvm

    is_x86 = _MACHINES.get(platform.machine().lower())
    host, triple = llvm.get_host_cpu_features(), llvm.get_process_triple()
    return [
        replace(item, triple=triple)
        for item in FEATURES.values()
        if item.is_x86 == is_x86 and all(host.get(name, False) for name in item.needs)
    ]


def host_features() -> Features:
    """The best set that this computer can run, or the one that `HYPERDEX_CPU` names.

    Raises OptionError when the variable names no set, or one that this computer does not have.
    """
    found = {item.name: item for item in available()}
    if not found:
        raise OptionError(f"the native executor has no code for the processor {platform.machine()!r}")
    name = os.environ.get(VARIABLE) or next(iter(found))
    if name not in FEATURES:
        raise OptionError(f"{VARIABLE} is {name!r}; it can be {', '.join(FEATURES)}", f"unset {VARIABLE}")
    if name not in found:
        raise OptionError(f"{VARIABLE} is {name}, which this computer has not got", f"unset {VARIABLE}")
    return found[name]
