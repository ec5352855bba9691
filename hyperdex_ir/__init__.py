"""hyperdex-ir: the open compiler SDK for the LPU."""

__version__ = "0.1.0"
