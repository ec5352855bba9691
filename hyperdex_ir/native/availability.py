"""Availability of the native executor on this computer."""

from __future__ import annotations

import os
import platform

from hyperdex_ir.native.features import available


def why_unavailable() -> str:
    """The reason why the executor cannot run on this computer, in one line; empty when it can."""
    try:
        import llvmlite.binding as llvm
    except Exception as error:  # not installed, a library that does not load, or a broken installation
        return f"llvmlite cannot be loaded ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    try:
        llvm.check_jit_execution()
    except OSError:
        return "this system does not let programs generate code"
    if os.name != "posix":
        return f"it needs a POSIX system, this is {platform.system()}"
    if not available():
        return f"there is no code for the processor {platform.machine() or 'of this computer'}"
    return ""
