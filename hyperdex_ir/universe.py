"""The xDSL plugin: `xdsl-opt` finds our dialects and passes through it, and those of packages that extend ours."""

from xdsl.ir import Dialect
from xdsl.universe import Universe

from hyperdex_ir.passes import get_all_passes
from hyperdex_ir.support.extensions import DIALECTS, PASSES, find_extensions


def get_lpu() -> Dialect:
    from hyperdex_ir.dialects.lpu import LPU

    return LPU


def get_isa() -> Dialect:
    from hyperdex_ir.dialects.isa import ISA

    return ISA


_DIALECTS = {"lpu": get_lpu, "isa": get_isa}
_PASSES = get_all_passes()

UNIVERSE = Universe(
    all_dialects={**_DIALECTS, **find_extensions(DIALECTS, tuple(_DIALECTS))},
    all_passes={**_PASSES, **find_extensions(PASSES, tuple(_PASSES))},
)
