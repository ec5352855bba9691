"""Short convolutions, and the rows that they keep."""

from __future__ import annotations

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa import HbmRef, LmuUse
from hyperdex_ir.isa.instructions import KV_BASE
from hyperdex_ir.memory.map import StateMap
from hyperdex_ir.passes.lowering.function import FunctionLowering, lowers


@lowers(lpu.ShortConvOp)
def lower_short_conv(to: FunctionLowering, op: lpu.ShortConvOp) -> None:
    """One `short_conv`, then one `store_state` where it looks back."""
    slot = to.function_map.caches[op.slot.value.data]
    assert isinstance(slot, StateMap)
    base = HbmRef(to.shared.memory.kv_start + slot.offset) if to.is_main else HbmRef(slot.offset, KV_BASE)
    source, target = to.use(op.x), to.result(op.res, "tokens")
    common = {"history": op.history, "columns": target.columns, "rows": to.rows_register("tokens")}
    to.emit(
        "short_conv",
        dst=LmuUse(target.buffer, target.offset),
        src=source,
        state=base,
        taps=to.address(to.weight(op.taps, ("f32",))),
        bias=to.optional_address(op.bias),
        **common,
    )
    if op.history:
        to.emit("store_state", state=base, src=source, **common)
