"""Phase 1: from config.json to a verified `lpu` module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel
from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.checkpoint.names import NameRules, SourceTensor, name_rules
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.derived import Derived, RotaryTable
from hyperdex_ir.frontend.graph import Graph
from hyperdex_ir.frontend.importer import import_graph
from hyperdex_ir.frontend.renamed import RENAMED
from hyperdex_ir.frontend.trace import WRAPPED, trace
from hyperdex_ir.memory.collect import collect_layout


class DerivedValues(Mapping[str, np.ndarray]):
    """The parameters that no checkpoint holds: key -> float32 values, computed anew each time they are asked for."""

    def __init__(self, parameters: Mapping[str, Derived], buffers: Mapping[str, np.ndarray]):
        self.parameters = dict(parameters)
        self.buffers = dict(buffers)

    @property
    def tables(self) -> dict[str, RotaryTable]:
        """Those that have a row for each position."""
        return {key: one for key, one in self.parameters.items() if isinstance(one, RotaryTable)}

    def choices(self) -> list[str]:
        """What was chosen for the compiled length, a line each."""
        return [line for table in self.tables.values() if (line := table.choice())]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.parameters[key].values() if key in self.parameters else self.buffers[key]

    def __contains__(self, key: object) -> bool:
        """Without computing the values, as Mapping does."""
        return key in self.parameters or key in self.buffers

    def __iter__(self) -> Iterator[str]:
        return chain(self.parameters, self.buffers)

    def __len__(self) -> int:
        return len(self.parameters) + len(self.buffers)


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A model as the compiler takes it.

    module: the verified `lpu` module. derived: what no checkpoint holds, key -> float32 values, made when asked for.
    sources: every other key of the module, in storage order, under the names that transformers saves.
    names: what `resolve_sources` needs to find them in a checkpoint that may name them otherwise.
    """

    module: ModuleOp
    derived: DerivedValues
    sources: dict[str, SourceTensor]
    names: NameRules


def trace_model(
    config_dir: Path, *, target: str, max_length: int, matrix_type: str, outlined: bool = True
) -> ImportedModel:
    """Traces and imports the model that `config_dir/config.json` describes; reads no weights.

    target: name of the target description. max_length: positions that the compiled model holds. matrix_type: f16, bf16.
    outlined: equal layers become one function at once, which keeps compiling fast; else everything is in `@main`.
    Raises ConfigError, UnsupportedModelError, UnsupportedOpError, OptionError.
    """
    summary = read_config(config_dir)
    traced = trace(config_dir, summary.architecture, max_length)
    canonical = canonical_names(traced.model)
    graph = Graph(traced.program, WRAPPED, summary.architecture, canonical, traced.buffers)
    module = import_graph(graph, target=target, max_length=max_length, matrix_type=matrix_type, outlined=outlined)
    names = name_rules(traced.model, canonical, graph.transposed)
    if (renamed := RENAMED.get(summary.architecture)) is not None:
        names = replace(names, architecture=summary.architecture, transforms=renamed.transforms())
    derived = DerivedValues(traced.derived, traced.buffers)
    return ImportedModel(module, derived, _sources(module, derived), names)


def canonical_names(model: PreTrainedModel) -> dict[str, str]:
    """For each parameter that has several names, the one that stands for all: the embedding's, or the first."""
    embedding = model.get_input_embeddings()
    embeddings = {f"{path}.weight" for path, module in model.named_modules() if module is embedding}
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    names: dict[str, str] = {}
    for group in groups.values():
        first = min(group, key=lambda name: name not in embeddings)
        names.update(dict.fromkeys(group, first))
    return names


def _sources(module: ModuleOp, derived: DerivedValues) -> dict[str, SourceTensor]:
    """Every parameter of the module that is not derived, in storage order."""
    keys = ((key, p.shape) for p in collect_layout(module).parameters() if p.values is None for key in p.keys)
    return {key: SourceTensor(key, shape, (key,)) for key, shape in keys if key not in derived}
