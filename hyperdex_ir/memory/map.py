"""Memory map: the addresses of everything in HBM.

A device has one linear byte address space, striped over its channels in beats of 64 bytes: the byte at address `a` is
in channel `(a / 64) mod channels`, at `(a / (64 * channels)) * 64 + a mod 64` of it. A stripe is one beat of every
channel. Everything starts on a stripe.

*Tile order*, for a matrix [n, k] on a target with t MAC trees: k is padded with zeros to steps of 64 lanes, n to groups
of t columns; element (row, column) is element
`((row / t * steps + column / 64) * t + row mod t) * 64 + column mod 64`, so that the t trees take one stripe of
2-byte elements in one cycle, and each tree reads its own pair of channels. The matrices [E, n, k] of E experts lie one
after another.

Order: the main function's parameters, then one block for each layer in running order, with equal offsets in
all blocks of a function; then the slots, those of KV caches with keys before values, head after head; then the area
through which host and device exchange data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from hyperdex_ir.errors import CapacityError
from hyperdex_ir.isa.formats import ELEMENTS, FORMATS
from hyperdex_ir.isa.settings import SETTINGS_BYTES
from hyperdex_ir.memory.layout import ConvState, FunctionLayout, KvCache, ModelLayout, Parameter
from hyperdex_ir.targets import Target

#: Greatest number of tokens in flight in one step.
MAX_CHUNK = 256


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def matrix_bytes(rows: int, columns: int, dtype: str, target: Target) -> int:
    """Size in bytes of a matrix in tile order, padding included. dtype: one of FORMATS."""
    return ceil_div(rows, target.trees) * FORMATS[dtype].stripes(columns) * target.stripe_bytes


def parameter_bytes(parameter: Parameter, target: Target) -> int:
    """Size in bytes of a parameter in HBM, in whole stripes."""
    if parameter.is_matrix:
        *experts, rows, columns = parameter.shape
        return prod(experts) * matrix_bytes(rows, columns, parameter.dtype, target)
    size = ELEMENTS[parameter.dtype].bytes_of(prod(parameter.shape))
    return ceil_div(size, target.stripe_bytes) * target.stripe_bytes


@dataclass(frozen=True)
class CacheMap:
    """A KV slot: byte offsets of its keys and values from the KV base, and the distance from head to head."""

    key_offset: int
    key_pitch: int
    value_offset: int
    value_pitch: int


@dataclass(frozen=True)
class StateMap:
    """The slot of a short convolution: byte offset from the KV base, and bytes, in whole stripes.

    The row of position p is stored as row `p mod rows`, f32, without gaps.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class FunctionMap:
    """Part of the map for one function. Offsets are absolute for main, relative to the layer's base for others."""

    parameters: Mapping[str, int]
    parameter_bytes: int
    caches: tuple[CacheMap | StateMap, ...]
    cache_bytes: int


@dataclass(frozen=True)
class MemoryMap:
    """Memory map of one device's HBM. Addresses and sizes are in bytes."""

    target: Target
    max_length: int
    vocab_size: int
    main: FunctionMap
    functions: Mapping[str, FunctionMap]
    addresses: Mapping[str, int]  # of every parameter, by its resolved name
    layer_start: int  # the first layer's block
    parameter_end: int  # end of the parameters, which param/ holds
    kv_start: int  # main's own slots, if any, followed by the first layer's
    kv_layer_start: int  # the first layer's slots
    tokens: int  # token ids of the step, i64
    sampling: int  # the settings that `sample` reads: isa/settings.py
    logits: int  # f32, one row of vocab_size for each logit row
    end: int

    @property
    def has_states(self) -> bool:
        """Test for slots whose state depends on the step before, not on positions alone."""
        functions = (self.main, *self.functions.values())
        return any(isinstance(cache, StateMap) for function in functions for cache in function.caches)


def _map_function(function: FunctionLayout, dtype: str, length: int, target: Target) -> FunctionMap:
    """Map of one function. dtype: element type of KV caches."""
    parameters: dict[str, int] = {}
    offset = kv_offset = 0
    for parameter in function.parameters:
        parameters[parameter.name] = offset
        offset += parameter_bytes(parameter, target)
    caches: list[CacheMap | StateMap] = []
    for cache in function.caches:
        if isinstance(cache, ConvState):
            caches.append(state := _map_state(cache, kv_offset, target))
            kv_offset += state.size
            continue
        caches.append(slot := _map_cache(cache, kv_offset, dtype, length, target))
        kv_offset = slot.value_offset + cache.heads * slot.value_pitch
    return FunctionMap(parameters, offset, tuple(caches), kv_offset)


def _map_cache(cache: KvCache, offset: int, dtype: str, length: int, target: Target) -> CacheMap:
    key_pitch = matrix_bytes(length, cache.key_size, dtype, target)
    value_pitch = matrix_bytes(cache.value_size, length, dtype, target)
    return CacheMap(offset, key_pitch, offset + cache.heads * key_pitch, value_pitch)


def _map_state(state: ConvState, offset: int, target: Target) -> StateMap:
    return StateMap(offset, ceil_div(4 * state.rows * state.columns, target.stripe_bytes) * target.stripe_bytes)


def plan_memory(layout: ModelLayout, target: Target, max_length: int) -> MemoryMap:
    """Places everything for `max_length` positions on one device. Pure: equal arguments, equal map.

    Raises CapacityError, with the numbers, when the model does not fit the target's HBM.
    """
    main = _map_function(layout.main, layout.matrix_type, max_length, target)
    functions = {f.name: _map_function(f, layout.matrix_type, max_length, target) for f in layout.functions}
    layers = [functions[layout.functions[index].name] for index in layout.layers]
    address = main.parameter_bytes + sum(layer.parameter_bytes for layer in layers)
    kv_bytes = main.cache_bytes + sum(layer.cache_bytes for layer in layers)
    tokens = address + kv_bytes
    sampling, logits, end = io_places(tokens, layout.vocab_size, target)
    _check_capacity(target, address, kv_bytes, end, max_length)
    return MemoryMap(
        target=target,
        max_length=max_length,
        vocab_size=layout.vocab_size,
        main=main,
        functions=functions,
        addresses=_addresses(layout, main, functions),
        layer_start=main.parameter_bytes,
        parameter_end=address,
        kv_start=address,
        kv_layer_start=address + main.cache_bytes,
        tokens=tokens,
        sampling=sampling,
        logits=logits,
        end=end,
    )


def _addresses(layout: ModelLayout, main: FunctionMap, functions: Mapping[str, FunctionMap]) -> dict[str, int]:
    """The address of every parameter, by its resolved name."""
    addresses = dict(main.parameters)
    address = main.parameter_bytes
    for number, index in enumerate(layout.layers):
        function = layout.functions[index]
        part = functions[function.name]
        for parameter in function.parameters:
            addresses[parameter.of_layer(number).name] = address + part.parameters[parameter.name]
        address += part.parameter_bytes
    return addresses


def io_places(tokens: int, vocab_size: int, target: Target) -> tuple[int, int, int]:
    """Addresses of the sampling settings, the logits and the end of the map, for tokens at byte `tokens`."""
    stripe = target.stripe_bytes
    sampling = tokens + ceil_div(8 * MAX_CHUNK, stripe) * stripe
    logits = sampling + ceil_div(SETTINGS_BYTES + vocab_size, stripe) * stripe
    return sampling, logits, logits + ceil_div(4 * MAX_CHUNK * vocab_size, stripe) * stripe


def _check_capacity(target: Target, parameters: int, kv_bytes: int, end: int, max_length: int) -> None:
    if end <= target.hbm_bytes:
        return
    raise CapacityError(
        f"{target.name} has {target.hbm_bytes:,} bytes of HBM; the model needs {end:,}: {parameters:,} of parameters,"
        f" {kv_bytes:,} of KV cache for {max_length} positions, {end - parameters - kv_bytes:,} for input and output",
        "choose a smaller --max-length" if end - kv_bytes < target.hbm_bytes else "the parameters alone do not fit",
    )
