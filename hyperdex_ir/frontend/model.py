"""From config.json to a verified `lpu` module of any length: traced once, and cached for equal models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr

from hyperdex_ir.checkpoint.dequantize import open_checkpoint
from hyperdex_ir.checkpoint.files import check_weights
from hyperdex_ir.checkpoint.tied import stored_apart
from hyperdex_ir.dialects.module_facts import PLACEHOLDERS
from hyperdex_ir.errors import CheckpointError, UnsupportedModelError, UnsupportedOpError
from hyperdex_ir.frontend.config import ModelSummary, read_config
from hyperdex_ir.frontend.imported import DerivedValues, ImportedModel, canonical_names, names_of
from hyperdex_ir.frontend.kept_modules import ModuleKeeper

if TYPE_CHECKING:
    from hyperdex_ir.frontend.trace import TracedModel


def trace_model(
    config_dir: Path,
    *,
    target: str,
    max_length: int,
    matrix_type: str,
    outlined: bool = True,
    anew: bool = False,
    untied: bool | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> ImportedModel:
    """Traces and imports the model that `config_dir/config.json` describes, unless an equal one is in the cache.

    target: name of the target description. max_length: positions of the compiled model. matrix_type: f16, bf16.
    outlined: equal layers become one function at once, which keeps compiling fast; otherwise everything is in `@main`.
    anew: trace even if the cache has the model. untied: True for a head of its own, though config.json ties it to the
    embedding; None: if the checkpoint in `config_dir` holds both, with different values. Other weights are not read.
    report: called with lines that say which of these is done.

    Raises ConfigError, UnsupportedModelError, UnsupportedOpError, OptionError.
    """
    summary = read_config(config_dir)
    if untied is None:
        untied = summary.tied and _is_untied(config_dir, summary, matrix_type, report)
    architecture = summary.architecture
    keeper = ModuleKeeper(config_dir, architecture, matrix_type, outlined, untied)
    imported = None if anew else keeper.read()
    report("Trace the model" if imported is None else "Reuse the trace of a model of the same architecture")
    if imported is None:
        imported = trace_anew(config_dir, architecture, matrix_type, outlined, untied)
        if summary.placeholders:
            tokens = {name: IntegerAttr(token, 64) for name, token in summary.placeholders.items()}
            imported.module.attributes[PLACEHOLDERS] = DictionaryAttr(tokens)
        keeper.write(imported)
    return imported.at(max_length, target)


def _is_untied(config_dir: Path, summary: ModelSummary, matrix_type: str, report: Callable[[str], None]) -> bool:
    """Test for weights that contradict the tie in config.json, which are then not tied: so does transformers."""
    try:
        check_weights(config_dir)
    except CheckpointError:  # no weights yet
        return False
    names = stored_apart(open_checkpoint(config_dir), (summary.token_embedding, summary.head), matrix_type)
    if names is not None:
        report(
            f"Not tied: config.json ties {' and '.join(names)}, which hold different values in the checkpoint; "
            "set tie_word_embeddings to false there"
        )
    return names is not None


def trace_anew(
    config_dir: Path, architecture: str, matrix_type: str, outlined: bool = True, untied: bool = False
) -> ImportedModel:
    """Traces and imports a model for one position, without a target. Raises as `trace_model`.

    Two of each kind of equal layers are traced. When these turn out not to be equal, or tracing fails, all layers are.
    """
    from hyperdex_ir.frontend.equal_layers import IrregularLayersError
    from hyperdex_ir.frontend.trace import trace

    if outlined:
        try:
            return _imported(
                trace(config_dir, architecture, once=True, untied=untied), architecture, matrix_type, outlined
            )
        except (IrregularLayersError, UnsupportedModelError, UnsupportedOpError):
            pass
    return _imported(trace(config_dir, architecture, untied=untied), architecture, matrix_type, outlined)


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
