"""config.json -> a graph of torch operators: built on the meta device, without weights, for any number of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.export import Dim, ExportedProgram
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.moe import ExpertsInterface

from hyperdex_ir.checkpoint.pretrained import config_from, config_of, quiet_libraries
from hyperdex_ir.errors import ConfigError, HyperdexError, UnsupportedModelError
from hyperdex_ir.frontend.adapters import ADAPTERS, adapt
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.convolutions import fuse_short_convs
from hyperdex_ir.frontend.derived import Derived, RotaryTable, layer_kinds, rotary_modules
from hyperdex_ir.frontend.equal_layers import EqualLayers, find_equal_layers
from hyperdex_ir.frontend.experts import EXPERTS_NAME, experts_function, name_gates
from hyperdex_ir.frontend.functionalize import make_functional
from hyperdex_ir.frontend.fx_buffers import buffer_values
from hyperdex_ir.frontend.graph import is_mutation
from hyperdex_ir.frontend.group_routing import rewrite_group_routing
from hyperdex_ir.frontend.operators import ATTENTION_NAME, ROTARY_TABLE, attention_function, mask_function
from hyperdex_ir.frontend.positions import take_text_positions
from hyperdex_ir.frontend.renamed import RENAMED
from hyperdex_ir.frontend.text_part import is_wrapper, text_only, wrapper_class
from hyperdex_ir.support.reading import read_config_json

#: Positions of the rotary tables during tracing; the graph only holds their keys and sizes.
_PROBED_LENGTH = 4096
#: Tokens of the example input; any number will do that is not a size of a model.
_EXAMPLE_TOKENS = 7
#: The name of the model inside the wrapper: the first component of every path in the graph.
WRAPPED = "model_"


@dataclass(frozen=True)
class TracedModel:
    """A traced model, for any length. `model` is on the meta device and holds no values.

    derived: parameters that no checkpoint holds, by key; `at` makes them for a length. buffers: values of the other
    buffers that no checkpoint holds, by name. equal: the layers that stand for others in the graph; None when the graph
    has all layers.
    """

    program: ExportedProgram
    model: PreTrainedModel
    derived: dict[str, Derived]
    buffers: dict[str, np.ndarray]
    equal: EqualLayers | None = None


class _LogitsOnly(torch.nn.Module):
    """Wrapper (input_ids [1, T], position_ids [1, T]) -> logits [1, T, vocabulary]: no cache, no other results."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.add_module(WRAPPED, model)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        model: Any = self.get_submodule(WRAPPED)
        if not is_wrapper(model.config):
            return model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        # A wrapper looks for the places of images among the ids, but not among their embeddings.
        embeddings = model.get_input_embeddings()(input_ids)
        return model(inputs_embeds=embeddings, position_ids=position_ids, use_cache=False).logits


@contextmanager
def _our_functions() -> Iterator[None]:
    """Context in which transformers calls our attention and experts, and makes no masks."""
    ExpertsInterface.register(EXPERTS_NAME, experts_function)
    AttentionInterface.register(ATTENTION_NAME, attention_function)
    AttentionMaskInterface.register(ATTENTION_NAME, mask_function)
    try:
        yield
    finally:
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(ATTENTION_NAME, None)
        ExpertsInterface._global_mapping.pop(EXPERTS_NAME, None)


def _first_line(error: Exception) -> str:
    """Type and first line of an error, with the next line when the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = lines[: 2 if lines and lines[0].endswith(":") else 1]
    return ": ".join([type(error).__name__, " ".join(shown)]) if shown else type(error).__name__


def load_config(config_dir: Path, architecture: str) -> PreTrainedConfig:
    """The config.json as transformers reads it, with its defaults. Raises ConfigError when it refuses.

    Raises UnsupportedModelError when it has another text model in a wrapper than the one that was checked.
    """
    config = _load_config(config_dir, architecture)
    checked, text = read_config(config_dir), config.get_text_config(decoder=True)
    if not checked.wrapper:
        return config
    found = type(text).model_type, text.num_hidden_layers, text.hidden_size, text.vocab_size
    expected = checked.model_type, checked.layers, checked.hidden, checked.vocab
    if found != expected or not is_wrapper(config):
        raise UnsupportedModelError(
            f"{config_dir / 'config.json'}: transformers reads a text model {_described(*found)} in {architecture}, "
            f"not {_described(*expected)}"
        )
    return config


def _described(model_type: str, layers: int, hidden: int, vocab: int) -> str:
    return f"{model_type} of {layers} layers of {hidden} columns and {vocab} tokens"


def _load_config(config_dir: Path, architecture: str) -> PreTrainedConfig:
    renamed = RENAMED.get(architecture)
    try:
        if renamed is not None:
            return config_of(renamed.config(read_config_json(config_dir / "config.json")))
        return config_from(config_dir)
    except Exception as error:  # the library does not catch the exceptions of its validators
        raise ConfigError(f"{config_dir / 'config.json'}: transformers refuses it: {_first_line(error)}") from error


def build_model(config: PreTrainedConfig, architecture: str) -> PreTrainedModel:
    """The model on the meta device, in float32, ready for inference. Raises ConfigError when it cannot be built."""
    text, model_class = config.get_text_config(decoder=True), _class(config, architecture)
    # Some classes do not use the attention interface, and accept their own implementations only.
    config._attn_implementation = "eager" if is_wrapper(config) or text.model_type in ADAPTERS else ATTENTION_NAME
    config._experts_implementation = EXPERTS_NAME
    text.output_router_logits = False
    try:
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=torch.float32)
    except Exception as error:
        raise ConfigError(f"config.json: transformers cannot build {architecture}: {_first_line(error)}") from error
    model.config._attn_implementation = ATTENTION_NAME
    # Some modules choose their own element type.
    model = model.eval().float()
    _make_numbers_float(model)
    return model


def _make_numbers_float(model: PreTrainedModel) -> None:
    """Converts the single numbers that no checkpoint holds: those that are whole in config.json are integers."""
    for module in model.modules():
        made = {name: module._buffers[name] for name in sorted(module._non_persistent_buffers_set)}
        module._buffers.update({name: one.float() for name, one in made.items() if one is not None and one.dim() == 0})


def _class(config: PreTrainedConfig, architecture: str) -> type[PreTrainedModel]:
    """The class of a model. Raises UnsupportedModelError for a wrapper with another head."""
    if not is_wrapper(config):
        renamed = RENAMED.get(architecture)
        return getattr(transformers, architecture if renamed is None else renamed.architecture)
    found, named = wrapper_class(config), getattr(transformers, architecture, None)
    if isinstance(named, type) and named is not found:
        raise UnsupportedModelError(
            f"config.json: architecture {architecture} is not the class that is compiled for model_type "
            f"{config.model_type}: {found.__name__} is wanted"
        )
    return found


def tables_of(model: PreTrainedModel, length: int) -> dict[str, RotaryTable]:
    """The tables of all rotary modules of an unpatched model, by key."""
    with text_only(model):
        tables = [table for path, module in rotary_modules(model) for table in _tables(path, module, length).values()]
    return {table.key: table for table in tables}


def _tables(path: str, module: torch.nn.Module, length: int) -> dict[str, RotaryTable]:
    """The tables of a rotary module, by kind of layer."""
    return {kind: RotaryTable.of_module(path, module, length, kind) for kind in layer_kinds(path, module)}


def _patch_rotary(model: PreTrainedModel) -> dict[str, RotaryTable]:
    """Makes each rotary module one node of the graph. Only instances that the caller owns are patched."""
    tables: dict[str, RotaryTable] = {}
    for path, module in rotary_modules(model):
        own = _tables(path, module, _PROBED_LENGTH)
        tables |= {table.key: table for table in own.values()}

        def forward(
            x: torch.Tensor, position_ids: torch.Tensor, layer_type: str = "", own: dict[str, RotaryTable] = own
        ) -> Any:
            table = own[layer_type]
            # A position of an image has a time, a height and a width; in a text these are the same.
            rows = position_ids if position_ids.dim() < 3 else position_ids[0]
            return ROTARY_TABLE(rows, table.key, table.size)

        module.forward = forward
    return tables


def export_module(module: torch.nn.Module) -> ExportedProgram:
    """The graph of a module that takes input_ids and position_ids, both [1, T], for any T from 2 on.

    In-place changes of intermediate values become operators that return a new value.
    """
    ids = torch.zeros(1, _EXAMPLE_TOKENS, dtype=torch.long, device="meta")
    tokens = Dim("tokens", min=2)
    # Under no_grad, regions that switch gradients off are inlined in the graph, not higher-order operators.
    with torch.no_grad():
        program = torch.export.export(
            module, (ids, ids.clone()), dynamic_shapes=({1: tokens}, {1: tokens}), strict=False
        )
        make_functional(program.graph)
        program.graph_module.recompile()
        return _functional(program) if any(map(is_mutation, program.graph.nodes)) else program


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The graph without in-place changes; unchanged when it changes a parameter or an input."""
    functional = program.run_decompositions({})
    signature = functional.graph_signature
    is_closed = not (signature.buffers_to_mutate or signature.user_inputs_to_mutate or signature.parameters_to_mutate)
    return functional if is_closed else program


def untraced(config_dir: Path, architecture: str, *, untied: bool = False) -> PreTrainedModel:
    """The model that config.json describes, on the meta device, unpatched. untied: as of `trace`. Raises as `trace`."""
    with quiet_libraries(), _our_functions():
        return build_model(_config(config_dir, architecture, untied), architecture)


def _config(config_dir: Path, architecture: str, untied: bool) -> PreTrainedConfig:
    config = load_config(config_dir, architecture)
    for one in (config, config.get_text_config(decoder=True)) if untied else ():
        one.tie_word_embeddings = False
    return config


def trace(config_dir: Path, architecture: str, *, once: bool = False, untied: bool = False) -> TracedModel:
    """Builds and exports the model that config.json describes; reads nothing else.

    once: trace only two layers of each kind; an UnsupportedModelError may mean that the others must be traced, too.
    untied: the head is a matrix of its own, though config.json ties it to the embedding.
    Raises ConfigError when transformers cannot build it, UnsupportedModelError when it cannot be exported.
    """
    with quiet_libraries(), _our_functions():
        model = build_model(_config(config_dir, architecture, untied), architecture)
        with text_only(model):
            traced = _trace_text(model, architecture, once)
    rewrite_group_routing(traced.program.graph)
    fuse_short_convs(traced.program.graph)
    take_text_positions(traced.program.graph)
    return traced


def _trace_text(model: PreTrainedModel, architecture: str, once: bool) -> TracedModel:
    buffers = buffer_values(model)
    try:
        name_gates(model)
        derived = adapt(model) | _patch_rotary(model)
        equal = find_equal_layers(model, buffers) if once else None
        with nullcontext() if equal is None else equal.once():
            program = export_module(_LogitsOnly(model))
    except HyperdexError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{architecture}: cannot be exported with any number of tokens: {_first_line(error)}"
        ) from error
    return TracedModel(program, model, derived, buffers, equal)
