"""Kinds of operations in the modules of a model, so that a few models can stand for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType
from xdsl.ir import Attribute, Operation

from hyperdex_ir.backend.tracing import module_for, place_of_lowering
from hyperdex_ir.dialects.lpu_ops.choices import ChoiceAttr
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass

LENGTH = 32


def mechanisms(config_dir: Path) -> frozenset[tuple[str, ...]]:
    """The kinds of operations of the model that config.json describes: as imported, and after the passes of `default`
    for one and for two devices."""
    imported = trace_model(config_dir, target="u55c", max_length=LENGTH, matrix_type="f16")
    found = set(_kinds(imported.module))
    passes = parse_pipeline("default")
    for devices in (1, 2):
        module = module_for(imported, devices)
        for one in passes[: place_of_lowering(passes)]:
            run_pass(module, one)
        found.update(_kinds(module))
    return frozenset(found)


def _kinds(module: ModuleOp) -> Iterator[tuple[str, ...]]:
    return map(_kind, (op for op in module.walk() if op.name.startswith("lpu.")))


def _kind(op: Operation) -> tuple[str, ...]:
    """Its name, its properties, the ranks and element types of its operands."""
    properties = [f"{key}={_value(value)}" for key, value in sorted(op.properties.items())]
    return (op.name, *properties, *[_rank(operand.type) for operand in op.operands])


def _value(attribute: Attribute) -> str:
    """Names that are chosen; of numbers, zero, one or others; of what else there is, nothing."""
    if isinstance(attribute, ChoiceAttr):
        return attribute.data
    return str(min(attribute.value.data, 2)) if isinstance(attribute, IntegerAttr) else ""


def _rank(of: Attribute) -> str:
    return f"{of.get_num_dims()}{of.element_type}" if isinstance(of, TensorType) else str(of)
