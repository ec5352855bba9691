"""`lpu-apply-patterns`: fusion patterns of installed packages, by name.

A pattern is a subclass of xDSL's RewritePattern that takes no arguments; a package names it in its entry points, group
`hyperdex_ir.fusion_patterns`. The patterns that a pipeline names are applied together until none fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import RewritePattern

from hyperdex_ir.errors import ExtensionError
from hyperdex_ir.support.extensions import FUSION_PATTERNS, find_extensions
from hyperdex_ir.support.xdsl import apply_patterns


def _checked(name: str, pattern: Any) -> type[RewritePattern]:
    if not isinstance(pattern, type) or not issubclass(pattern, RewritePattern):
        raise ExtensionError(f"fusion pattern {name}: not a subclass of RewritePattern")
    if getattr(pattern, "exactness", "exact") != "exact":
        raise ExtensionError(f"fusion pattern {name} is not exact", "make it a pass that declares `rounding`")
    return pattern


@dataclass(frozen=True)
class LpuApplyPatternsPass(ModulePass):
    """Applies fusion patterns of installed packages, those that `names` lists; all must be exact."""

    name = "lpu-apply-patterns"
    exactness: ClassVar[str] = "exact"

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ValueError, as xDSL does for options, when no package has a pattern of that name."""
        known = list(find_extensions(FUSION_PATTERNS))
        for name in self.names:
            if name not in known:
                raise ValueError(f"no fusion pattern {name!r}, installed packages have {', '.join(known) or 'none'}")

    def pattern_classes(self) -> list[type[RewritePattern]]:
        """The patterns in the order of their names. Raises ExtensionError."""
        known = find_extensions(FUSION_PATTERNS)
        return [_checked(name, known[name]()) for name in self.names]

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, *(pattern() for pattern in self.pattern_classes()))
