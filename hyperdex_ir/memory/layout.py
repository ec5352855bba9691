"""Layout of a model: the parameters and KV caches of its main function and of each distinct layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.formats import FORMATS


@dataclass(frozen=True)
class Shard:
    """The part of a tensor that each device holds: `size` rows (dim 0) or columns (dim 1).

    In a tensor with one matrix or vector for each expert, dim 0 is the expert, dim 1 the row of its matrix. Device d
    holds the rows or columns from starts[d] on, up to `extent`; the rest of its part is zeros.
    """

    dim: int
    size: int
    extent: int
    starts: tuple[int, ...]

    def held(self, device: int) -> range:
        """The rows or columns of the tensor that a device holds, at most `size`; the rest of its part is zeros."""
        return range(self.starts[device], max(self.starts[device], min(self.starts[device] + self.size, self.extent)))


@dataclass(frozen=True)
class Parameter:
    """A tensor in `param/`.

    name: unique; the key, or keys joined by `+`, with `*` for the layer number inside a layer function.
    dtype: one of FORMATS (a matrix [n, k], or one of each expert, [E, n, k], stored in tile order), `f32` or `i64`
    (stored row-major).
    keys: the tensors whose rows it holds one after another.
    values: its elements, row-major, if they come from the compiler and not from a checkpoint; otherwise None. A
    parameter of a layer function that comes from the compiler is one number; values has that of every layer of the
    model.
    shards: for each key, the part of its tensor that a device holds (a key may occur several times); shape is then that
    of one device. None when every device holds all. A sharded key's name ends in `@rows` or `@columns`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    values: tuple[float, ...] | None = None
    shards: tuple[Shard, ...] | None = None

    @property
    def is_matrix(self) -> bool:
        """Test for a matrix, which the MAC trees stream."""
        return self.dtype in FORMATS

    def of_layer(self, number: int | None) -> Parameter:
        """The parameter of one layer: `*` replaced by its number. None: a parameter of the main function, unchanged."""
        if number is None:
            return self
        text = str(number)
        keys = tuple(key.replace("*", text) for key in self.keys)
        values = None if self.values is None else (self.values[number],)
        return Parameter(self.name.replace("*", text), self.dtype, self.shape, keys, values, self.shards)


@dataclass(frozen=True)
class KvCache:
    """One slot of the KV cache: `heads` KV heads with keys of `key_size` and values of `value_size` elements."""

    heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True)
class ConvState:
    """The slot of a short convolution: the last `rows` rows of its input, f32, with `columns` columns each."""

    rows: int
    columns: int


#: The state that one operation keeps from step to step.
Slot = KvCache | ConvState


@dataclass(frozen=True)
class FunctionLayout:
    """Parameters of one function, in order of first use, and caches: the contents of its slots, by number."""

    name: str
    parameters: tuple[Parameter, ...]
    caches: tuple[Slot, ...]


@dataclass(frozen=True)
class ModelLayout:
    """Layout of a whole model. layers: for each layer, in running order, its index in `functions`."""

    matrix_type: str
    vocab_size: int
    main: FunctionLayout
    functions: tuple[FunctionLayout, ...]
    layers: tuple[int, ...]

    def instances(self) -> Iterator[tuple[int | None, FunctionLayout]]:
        """(None, main), then (number, function) for each layer in running order."""
        yield None, self.main
        for number, index in enumerate(self.layers):
            yield number, self.functions[index]

    def check_devices(self, devices: int) -> None:
        """Raises FileFormatError unless each shard has a start for each of `devices` devices."""
        parameters = [parameter for function in (self.main, *self.functions) for parameter in function.parameters]
        for name, shard in ((parameter.name, shard) for parameter in parameters for shard in parameter.shards or ()):
            if len(shard.starts) != devices:
                raise FileFormatError(
                    f"{name}: divided over {len(shard.starts)} devices, expected {devices}", COMPILE_AGAIN
                )

    def parameters(self) -> Iterator[Parameter]:
        """All parameters in storage order, with names and keys resolved to layers; each name is yielded once."""
        seen: set[str] = set()
        for number, function in self.instances():
            for parameter in function.parameters:
                resolved = parameter.of_layer(number)
                if resolved.name not in seen:
                    seen.add(resolved.name)
                    yield resolved
