"""Equal layers of a model, found from its modules before tracing, so that only two layers of each kind are traced.

Layers are equal when their modules are equal, one by one: class, attributes, shapes of parameters and buffers. An
attribute that holds the layer's number is not compared, and raises an error when it is read while the model is traced.
A layer that is not traced must be called with the arguments of the first of its kind; it returns its input. The folding
then compares the graphs of the first and the last layer of each kind. A model that fails these checks is traced whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, NoReturn

import numpy as np
import torch
from torch.nn import Module, ModuleList

from hyperdex_ir.frontend.graph import shape_of_tensor
from hyperdex_ir.passes.outlining.match import LayerStack

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)
#: Attributes of a module that the comparison of attributes leaves out: other code compares their contents.
_CONTENTS = ("_parameters", "_buffers", "_modules")
_NUMBER = object()


class IrregularLayersError(Exception):
    """Layers that do not do what equal layers do."""


@dataclass(frozen=True)
class EqualLayers:
    """Kinds of equal layers of a model. kinds: for each layer, the number of the first layer equal to it."""

    path: str
    layers: ModuleList
    kinds: tuple[int, ...]
    numbers: frozenset[tuple[str, str]]

    @property
    def traced(self) -> set[int]:
        """Numbers of the first and the last layer of each kind."""
        last = {kind: number for number, kind in enumerate(self.kinds)}
        return {*last, *last.values()}

    def everywhere(self, keys: Iterable[str]) -> frozenset[str]:
        """The keys of parameters, completed by the corresponding keys of the layers that were not traced."""
        stack, found = LayerStack(self.path), set(keys)
        for key in keys:
            if (number := stack.number(key)) is not None:
                rest = key.removeprefix(f"{self.path}.{number}")
                found |= {f"{self.path}.{i}{rest}" for i, kind in enumerate(self.kinds) if kind == self.kinds[number]}
        return frozenset(found)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Context in which the model runs only the layers to be traced, each of them once."""
        calls: dict[int, _Call] = {}
        changed = [(module, name) for layer in self.layers for module, name in self._numbered(layer)]
        changed += [(layer, "forward") for layer in self.layers]
        before = [(module, name, vars(module).get(name)) for module, name in changed]
        for number, layer in enumerate(self.layers):
            for module, name in self._numbered(layer):
                vars(module)[name] = _Unread()
            is_traced = number in self.traced
            layer.forward = (
                _watched(layer.forward, number, calls) if is_traced else _left_out(self.kinds[number], calls)
            )
        try:
            yield
        finally:
            for module, name, value in before:
                vars(module).pop(name) if value is None else vars(module).update({name: value})

    def _numbered(self, layer: Module) -> list[tuple[Module, str]]:
        """The attributes of a layer that hold its number."""
        modules = dict(layer.named_modules())
        return [(modules[path], name) for path, name in sorted(self.numbers) if name in vars(modules.get(path, layer))]


def find_equal_layers(model: Module, buffers: Mapping[str, np.ndarray]) -> EqualLayers | None:
    """The equal layers of a model; None when it has no layers, or no two equal ones. buffers: values by name."""
    lists = [(path, one) for path, one in model.named_modules() if isinstance(one, ModuleList) and len(one) > 1]
    lists = [(path, one) for path, one in lists if not any(part.isdigit() for part in path.split("."))]
    if len(lists) != 1 or _shares_parameters(model, lists[0][0]):
        return None
    path, layers = lists[0]
    numbers = _find_numbers(layers)
    first: dict[object, int] = {}
    try:
        described = [_Description(f"{path}.{i}", layer, numbers, buffers).of() for i, layer in enumerate(layers)]
    except IrregularLayersError:
        return None
    kinds = tuple(first.setdefault(one, number) for number, one in enumerate(described))
    return EqualLayers(path, layers, kinds, numbers) if len(first) < len(layers) else None


def _shares_parameters(model: Module, path: str) -> bool:
    """Test for a parameter of a layer that the model has under another name, too."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return any(len(group) > 1 and any(name.startswith(f"{path}.") for name in group) for group in names.values())


def _find_numbers(layers: ModuleList) -> frozenset[tuple[str, str]]:
    """Attributes that hold the layer's number in every layer that has them, as (path in the layer, name)."""
    found: dict[tuple[str, str], list[bool]] = {}
    for number, layer in enumerate(layers):
        for path, module in layer.named_modules():
            for name, value in vars(module).items():
                is_number = type(value) is int and value == number
                found.setdefault((path, name), []).append(is_number)
    # In one layer alone, an attribute may have the layer's number by chance.
    return frozenset(place for place, held in found.items() if len(held) > 1 and all(held))


# ---------------------------------------------------------------------------------------------------- modules
class _Description:
    """Description of a layer that can be compared: equal layers have equal descriptions."""

    def __init__(
        self, path: str, layer: Module, numbers: frozenset[tuple[str, str]], buffers: Mapping[str, np.ndarray]
    ):
        self.path = path
        self.modules = {module: name for name, module in layer.named_modules()}
        self.numbers = numbers
        self.buffers = buffers

    def of(self) -> object:
        """The description. Raises IrregularLayersError for values that cannot be compared."""
        return tuple((name, self._module(name, module)) for module, name in self.modules.items())

    def _module(self, path: str, module: Module) -> object:
        attributes = [
            (name, _NUMBER if (path, name) in self.numbers else self._value(value))
            for name, value in sorted(vars(module).items())
            if name not in _CONTENTS
        ]
        parameters = [(name, _tensor(value)) for name, value in module._parameters.items()]
        buffers = [(name, _tensor(value), self._content(path, name)) for name, value in module._buffers.items()]
        return type(module), tuple(attributes), tuple(parameters), tuple(buffers)

    def _content(self, path: str, name: str) -> bytes | None:
        value = self.buffers.get(".".join(part for part in (self.path, path, name) if part))
        return None if value is None else value.tobytes()

    def _value(self, value: object) -> object:
        """Description of an attribute's value; an object of an unknown type is equal only to itself."""
        if isinstance(value, _PLAIN):
            return type(value), value
        if isinstance(value, Module) and value in self.modules:
            return "module", self.modules[value]
        if isinstance(value, tuple | list):
            return type(value), tuple(map(self._value, value))
        if isinstance(value, set | frozenset):
            return type(value), tuple(sorted(map(str, value)))
        if isinstance(value, dict):
            return type(value), tuple((key, self._value(item)) for key, item in value.items())
        if isinstance(value, partial):
            return "partial", tuple(map(self._value, (value.func, value.args, value.keywords)))
        return self._function(value) if isinstance(value, FunctionType) else ("object", id(value))

    def _function(self, function: FunctionType) -> object:
        cells = (cell.cell_contents for cell in function.__closure__ or ())
        kept = (function.__defaults__, function.__kwdefaults__, *cells)
        return function.__code__, tuple(map(self._value, kept))


def _tensor(tensor: torch.Tensor | None) -> object:
    return None if tensor is None else (tuple(tensor.shape), tensor.dtype, type(tensor))


# ---------------------------------------------------------------------------------------------------- calls
def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise IrregularLayersError("a layer looks at its number")


#: Stand-in for a layer's number, which may be handed on but not read; torch looks at the class of every attribute.
_KEPT = ("__new__", "__init__", "__init_subclass__", "__subclasshook__", "__getattribute__", "__class__", "__doc__")
_Unread = type("_Unread", (), {name: _refuse for name in (*dir(int), "__iter__", "__getitem__") if name not in _KEPT})


@dataclass(frozen=True)
class _Call:
    """A call of a layer: its arguments and its result."""

    arguments: tuple[object, ...]
    result: object


def _flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, ...]:
    """All arguments in one flat tuple, keywords with their names. Raises IrregularLayersError for other types."""
    found: list[object] = []
    for name, value in [*enumerate(args), *kwargs.items()]:
        parts = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, (*_PLAIN, torch.Tensor)) for part in parts):
            raise IrregularLayersError(f"a layer takes a {type(value).__name__}")
        found += [(name, len(parts)), *parts]
    return tuple(found)


def _watched(forward: Callable[..., Any], number: int, calls: dict[int, _Call]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = _flat(args, kwargs)
        if number in calls:
            raise IrregularLayersError("a layer is called twice")
        result = forward(*args, **kwargs)
        calls[number] = _Call(arguments, result)
        return result

    return call


def _left_out(kind: int, calls: dict[int, _Call]) -> Callable[..., Any]:
    """Forward of a layer that is not traced: it returns the one argument in which its call differs from the first's."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if kind not in calls:
            raise IrregularLayersError("a layer is called before the first of its kind")
        known, arguments = calls[kind].arguments, _flat(args, kwargs)
        if len(arguments) != len(known):
            raise IrregularLayersError("equal layers are called with other arguments")
        others = [(own, one) for own, one in zip(arguments, known, strict=True) if not _is_same(own, one)]
        if len(others) != 1 or not _is_alike(*others[0]):
            raise IrregularLayersError("equal layers are called with other arguments")
        return _like(calls[kind].result, others[0][0])

    return call


def _is_same(value: object, other: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value is other
    return type(value) is type(other) and value == other


def _is_alike(value: object, other: object) -> bool:
    """Test for two tensors of the same shape and type."""
    if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return value.dtype == other.dtype and shape_of_tensor(value) == shape_of_tensor(other) is not None


def _like(result: object, value: object) -> object:
    """The result with the value in place of its one tensor."""
    parts = result if isinstance(result, tuple) else (result,)
    if not _is_alike(parts[0], value) or any(part is not None for part in parts[1:]):
        raise IrregularLayersError("a layer gives other than it takes")
    return (value, *parts[1:]) if isinstance(result, tuple) else value
