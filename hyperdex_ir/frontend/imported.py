"""An imported model: a verified `lpu` module of any length, and the values and names that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, TensorType
from xdsl.ir import SSAValue
from xdsl.rewriter import Rewriter

from hyperdex_ir.checkpoint.names import NameRules, SourceTensor, name_rules
from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import OptionError
from hyperdex_ir.frontend.derived import Derived, RotaryTable
from hyperdex_ir.frontend.renamed import RENAMED
from hyperdex_ir.memory.collect import collect_layout, find_function
from hyperdex_ir.support.xdsl import module_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    checkpoint. find_names: makes `names`.
    """

    module: ModuleOp
    derived: DerivedValues
    transposed: frozenset[str]
    find_names: Callable[[], NameRules]

    @cached_property
    def sources(self) -> dict[str, SourceTensor]:
        """Every parameter that is not derived, in storage order, under the names that transformers saves."""
        layout = collect_layout(self.module)
        keys = ((key, p.shape) for p in layout.parameters() if p.values is None for key in p.keys)
        return {key: SourceTensor(key, shape, (key,)) for key, shape in keys if key not in self.derived}

    @property
    def matrix_type(self) -> str:
        """The type of matrices, as the module records it."""
        value = self.module.attributes["lpu.matrix_type"]
        assert isinstance(value, StringAttr)
        return value.data

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


def names_of(model: PreTrainedModel, architecture: str, transposed: frozenset[str]) -> NameRules:
    """The rules by which the parameters of a model are found under a checkpoint's names."""
    from hyperdex_ir.frontend.text_part import outside_text

    names = replace(name_rules(model, canonical_names(model), transposed), unused=outside_text(model))
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
