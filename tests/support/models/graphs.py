"""Graphs of small torch modules."""

from __future__ import annotations

import numpy as np
from torch import nn

from hyperdex_ir.frontend.graph import Graph
from hyperdex_ir.frontend.trace import export_module


def graph_of(module: nn.Module, **buffers: np.ndarray) -> Graph:
    return Graph(export_module(module.to("meta").eval()), "", "Toy", {}, buffers)
