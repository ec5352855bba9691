"""From config.json to a verified `lpu` module of any length: traced once, and cached for equal models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, TensorType
from xdsl.ir import SSAValue
from xdsl.rewriter import Rewriter

from hyperdex_ir.checkpoint.names import NameRules, SourceTensor, name_rules
from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import OptionError, UnsupportedModelError, UnsupportedOpError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.derived import Derived, RotaryTable
from hyperdex_ir.frontend.renamed import RENAMED
from hyperdex_ir.memory.collect import collect_layout, find_function
from hyperdex_ir.support.xdsl import module_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hyperdex_ir.frontend.trace import TracedModel


class DerivedValues(Mapping[str, np.ndarray]):
    """The parameters that no checkpoint holds: key -> float32 values, computed anew at each access."""

    def __init__(self, parameters: Mapping[str, Derived], buffers: Mapping[str, np.ndarray]):
        self.parameters = dict(parameters)
        self.buffers = dict(buffers)

    @property
    def tables(self) -> dict[str, RotaryTable]:
        """The tables that have a row for each position."""
        return {key: one for key, one in self.parameters.items() if isinstance(one, RotaryTable)}

    def at(self, length: int) -> DerivedValues:
        """The same parameters for `length` positions."""
        return DerivedValues({key: one.at(length) for key, one in self.parameters.items()}, self.buffers)

    def choices(self) -> list[str]:
        """Choices of frequencies for the compiled length, one line for each table that has a choice."""
        return [line for table in self.tables.values() if (line := table.choice())]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.parameters[key].values() if key in self.parameters else self.buffers[key]

    def __contains__(self, key: object) -> bool:
        """Membership test that does not compute the values, as Mapping's own would."""
        return key in self.parameters or key in self.buffers

    def __iter__(self) -> Iterator[str]:
        return chain(self.parameters, self.buffers)

    def __len__(self) -> int:
        return len(self.parameters) + len(self.buffers)


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """An imported model, the input of the compiler.

    module: the verified `lpu` module, which is not changed: passes work on a clone. derived: the parameters that no
    checkpoint holds, key -> float32 values, computed on demand. transposed: keys of matrices that are transposed in the
    checkpoint. find_names: makes `names`. kept: True when the model was read from the cache, not traced.
    """

    module: ModuleOp
    derived: DerivedValues
    transposed: frozenset[str]
    find_names: Callable[[], NameRules]
    kept: bool = False

    @cached_property
    def sources(self) -> dict[str, SourceTensor]:
        """Every parameter that is not derived, in storage order, under the names that transformers saves."""
        layout = collect_layout(self.module)
        keys = ((key, p.shape) for p in layout.parameters() if p.values is None for key in p.keys)
        return {key: SourceTensor(key, shape, (key,)) for key, shape in keys if key not in self.derived}

    @cached_property
    def names(self) -> NameRules:
        """Rules by which `resolve_sources` finds the sources in a checkpoint that may use other names."""
        return self.find_names()

    def at(self, max_length: int, target: str) -> ImportedModel:
        """The same model for `max_length` positions and this target; nothing is traced.

        Raises OptionError for more positions than the model has learned.
        """
        derived = self.derived.at(max_length)
        module = self.module.clone()
        _check_positions(module, max_length)
        module.attributes |= {"lpu.target": StringAttr(target), "lpu.max_length": IntegerAttr(max_length, 64)}
        for op in module.walk():
            if isinstance(op, lpu.WeightOp) and (table := derived.tables.get(op.key_names[0])) is not None:
                Rewriter.replace_value_with_new_type(op.res, TensorType(lpu.element_of(op.res), table.shape))
        return replace(self, module=module, derived=derived)


def _check_positions(module: ModuleOp, max_length: int) -> None:
    """Raises OptionError unless every table of learned positions has a row for each position."""
    main = find_function(module, "main")
    positions = main.body.block.args[1]
    for op in main.walk():
        if not isinstance(op, lpu.EmbeddingOp) or _origin(op.index) is not positions:
            continue
        learned = lpu.shape_of(op.table)[0] - op.offset.value.data
        if max_length > learned:
            raise OptionError(
                f"max_length {max_length}: the model has learned {learned} positions ({module_path(op)})",
                f"choose a max_length of at most {learned}",
            )


def _origin(value: SSAValue) -> SSAValue:
    while isinstance(value.owner, lpu.ReshapeOp):
        value = value.owner.x
    return value


def trace_model(
    config_dir: Path, *, target: str, max_length: int, matrix_type: str, outlined: bool = True, anew: bool = False
) -> ImportedModel:
    """Traces and imports the model that `config_dir/config.json` describes, unless an equal one is in the cache.

    target: name of the target description. max_length: positions of the compiled model. matrix_type: f16, bf16.
    outlined: equal layers become one function at once, which keeps compiling fast; otherwise everything is in `@main`.
    anew: trace even if the cache has the model. No weights are read.

    Raises ConfigError, UnsupportedModelError, UnsupportedOpError, OptionError.
    """
    from hyperdex_ir.frontend.kept_modules import ModuleKeeper

    architecture = read_config(config_dir).architecture
    keeper = ModuleKeeper(config_dir, architecture, matrix_type, outlined)
    imported = None if anew else keeper.read()
    if imported is None:
        imported = trace_anew(config_dir, architecture, matrix_type, outlined)
        keeper.write(imported)
    return imported.at(max_length, target)


def trace_anew(config_dir: Path, architecture: str, matrix_type: str, outlined: bool = True) -> ImportedModel:
    """Traces and imports a model for one position, without a target. Raises as `trace_model`.

    Two of each kind of equal layers are traced. When these turn out not to be equal, or tracing fails, all layers are.
    """
    from hyperdex_ir.frontend.equal_layers import IrregularLayersError
    from hyperdex_ir.frontend.trace import trace

    if outlined:
        try:
            return _imported(trace(config_dir, architecture, once=True), architecture, matrix_type, outlined)
        except (IrregularLayersError, UnsupportedModelError, UnsupportedOpError):
            pass
    return _imported(trace(config_dir, architecture), architecture, matrix_type, outlined)


def _imported(traced: TracedModel, architecture: str, matrix_type: str, outlined: bool) -> ImportedModel:
    from hyperdex_ir.frontend.graph import Graph
    from hyperdex_ir.frontend.importer import import_graph
    from hyperdex_ir.frontend.trace import WRAPPED

    graph = Graph(traced.program, WRAPPED, architecture, canonical_names(traced.model), traced.buffers)
    equal = traced.equal
    kinds = None if equal is None else equal.kinds
    module = import_graph(graph, target="", max_length=1, matrix_type=matrix_type, outlined=outlined, kinds=kinds)
    transposed = graph.transposed if equal is None else equal.everywhere(graph.transposed)
    find_names = partial(names_of, traced.model, architecture, transposed)
    return ImportedModel(module, DerivedValues(traced.derived, traced.buffers), transposed, find_names)


def names_of(model: PreTrainedModel, architecture: str, transposed: frozenset[str]) -> NameRules:
    """The rules by which the parameters of a model are found under a checkpoint's names."""
    names = name_rules(model, canonical_names(model), transposed)
    renamed = RENAMED.get(architecture)
    return names if renamed is None else replace(names, architecture=architecture, transforms=renamed.transforms())


def canonical_names(model: PreTrainedModel) -> dict[str, str]:
    """Names of parameters with several names -> the one that stands for all: the embedding's, or the first."""
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
