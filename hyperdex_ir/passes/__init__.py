"""The passes, by name. A pass is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from xdsl.passes import ModulePass

_CLASSES = {
    "lpu-token-major": "LpuTokenMajorPass",
    "lpu-fuse-norm": "LpuFuseNormPass",
    "lpu-fuse-rotary": "LpuFuseRotaryPass",
    "lpu-propagate-sharding": "LpuPropagateShardingPass",
    "lpu-partition": "LpuPartitionPass",
    "lpu-fuse-parallel-linear": "LpuFuseParallelLinearPass",
    "lpu-fuse-epilogue": "LpuFuseEpiloguePass",
    "lpu-hoist-select-rows": "LpuHoistSelectRowsPass",
    "lpu-apply-patterns": "LpuApplyPatternsPass",
    "lpu-outline-layers": "LpuOutlineLayersPass",
    "lower-lpu-to-isa": "LowerLpuToIsaPass",
    "isa-schedule": "IsaSchedulePass",
    "isa-allocate-lmu": "IsaAllocateLmuPass",
}


def _factory(name: str) -> Callable[[], type[ModulePass]]:
    def load() -> type[ModulePass]:
        module = import_module(f"hyperdex_ir.passes.{name.replace('-', '_')}")
        return getattr(module, _CLASSES[name])

    return load


def get_all_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """Every pass of this package, by name, each as a function that imports and gives its class."""
    return {name: _factory(name) for name in _CLASSES}
