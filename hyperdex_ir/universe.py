"""The xDSL plugin: `xdsl-opt` finds our dialects and passes through it."""

from xdsl.ir import Dialect
from xdsl.universe import Universe

from hyperdex_ir.passes import get_all_passes


def get_lpu() -> Dialect:
    from hyperdex_ir.dialects.lpu import LPU

    return LPU


def get_isa() -> Dialect:
    from hyperdex_ir.dialects.isa import ISA

    return ISA


UNIVERSE = Universe(all_dialects={"lpu": get_lpu, "isa": get_isa}, all_passes=get_all_passes())
