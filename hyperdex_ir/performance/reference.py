"""The table of costs in `docs/cost.md`, from the instruction table: `python -m hyperdex_ir.performance.reference`."""

from __future__ import annotations

from hyperdex_ir.isa import cost_rules as rules
from hyperdex_ir.isa.instructions import SPECS
from hyperdex_ir.isa.shapes import Columns

_TREE = "`tree_latency_cycles` after the last tile; with an epilogue `vector_latency_cycles` more"
_POSTED = "the latency of HBM; reads of HBM wait for the end of the store, nothing else does"


def cost_table() -> str:
    """Markdown table: cycles in which an instruction keeps its engine busy, and the time from then to its result."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for spec in SPECS:
        names.setdefault((spec.engine.value, *_describe(spec.cost)), []).append(f"`{spec.name}`")
    rows = [
        "| instruction | engine | cycles that it is busy | until the result is there |",
        "| --- | --- | --- | --- |",
    ]
    rows += [f"| {', '.join(some)} | {' | '.join(texts)} |" for texts, some in names.items()]
    return "\n".join(rows) + "\n"


def _describe(rule: rules.CostRule) -> tuple[str, str]:
    """The two texts for a rule; `performance/cost.py` computes the same."""
    match rule:
        case rules.Weights():
            groups = f"groups of `trees` of `{rule.n}` columns, of twice as many where it is {rule.gated}"
            return f"{groups} x steps of 64 of `{rule.k}` x rows, at least the stream", _TREE
        case rules.Cache(transposed=False):
            return f"groups of `trees` of the positions seen x steps of 64 of `{rule.size}` x rows", _TREE
        case rules.Cache():
            return f"groups of `trees` of `{rule.size}` columns x steps of 64 of the positions seen x rows", _TREE
        case rules.Vector():
            return _vector(rule), "`vector_latency_cycles` for each sweep"
        case rules.Rows(tiled=True):
            return f"steps of 64 of `{rule.columns}` x rows, each row in one pair of channels", _requests(rule.index)
        case rules.Rows():
            rows = "" if rule.one_row else f" x rows, at most `{rule.most_rows}`" if rule.most_rows else " x rows"
            return f"stripes of 4 * `{rule.columns}` bytes{rows}", _requests(rule.index)
        case rules.Stored(transposed=False):
            return f"beats of `{rule.size}` elements x `{rule.heads}` x rows", _POSTED
        case rules.Stored():
            beats = f"`{rule.heads}` * `{rule.size}` beats for each 32 rows"
            return f"{beats}; `partial_write_cycles` for each beat that is not full", _POSTED
        case rules.Link(sends=True):
            return f"4 * `{rule.columns}` bytes x rows / what the link sends a cycle", "`link_latency_seconds`"
        case rules.Link():
            return "none: it is over when its message is there", ""
        case rules.Control(reads_hbm=reads_hbm):
            return "one" + (" and the latency of HBM" if reads_hbm else ""), ""
    raise NotImplementedError(type(rule).__name__)


def _vector(rule: rules.Vector) -> str:
    sweeps = " + ".join(str(item) if isinstance(item, int) else f"`{item}`" for item in rule.sweeps)
    sweeps += f" and, of several `{rule.choice}`, one" if rule.choice else ""
    rows = "" if rule.last_row else " x rows"
    elements = f"`{rule.elements}`" if isinstance(rule.elements, Columns) else str(rule.elements)
    return f"{elements} / `vector_lanes`{rows} x sweeps: {sweeps}"


def _requests(index: str | None) -> str:
    return "the latency of HBM" + (f", twice where `{index}` is `token`" if index else "")


def main() -> None:
    """Prints the table."""
    print(cost_table(), end="")


if __name__ == "__main__":
    main()
