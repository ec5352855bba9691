"""Small programs and machines for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter
from hyperdex_ir.memory.map import MemoryMap, plan_memory
from hyperdex_ir.targets import load_target

VOCAB, WIDTH, LENGTH, HEADS, SIZE = 40, 70, 100, 2, 24
LMU_WORDS = 20_000


def layout(matrix_type: str = "f16") -> ModelLayout:
    """An embedding, a square matrix, a table of positions, a row of f32, and one KV slot."""
    parameters = (
        Parameter("embedding", matrix_type, (VOCAB, WIDTH), ("embedding",)),
        Parameter("matrix", matrix_type, (WIDTH, WIDTH), ("matrix",)),
        Parameter("table", "f32", (LENGTH, 8), ("table",)),
        Parameter("row", "f32", (WIDTH,), ("row",)),
        Parameter("numbers", "i64", (3,), ("numbers",), (2, 0, 1)),
    )
    main = FunctionLayout("main", parameters, (KvCache(HEADS, SIZE, SIZE),))
    return ModelLayout(matrix_type, VOCAB, main, (), ())


def memory_map(matrix_type: str = "f16") -> MemoryMap:
    return plan_memory(layout(matrix_type), load_target("u55c"), LENGTH)


def parameter(key: str) -> np.ndarray:
    """Values by key, the same each time."""
    shapes = {"embedding": (VOCAB, WIDTH), "matrix": (WIDTH, WIDTH), "table": (LENGTH, 8), "row": (WIDTH,)}
    rng = np.random.default_rng(len(key))
    dtype = np.float16 if key in ("embedding", "matrix") else np.float32
    return rng.standard_normal(shapes[key]).astype(dtype)


def op(name: str, **values: Any) -> Instruction:
    return Instruction(name, values)


def machine(*instructions: Instruction, chunk: int = 4, **options: Any) -> Machine:
    origins: Sequence[Origin] = options.pop("origins", ())
    hbm = Hbm.from_parameters(memory_map(), layout(), parameter)
    program = Program(tuple(instructions), tuple(origins))
    return Machine(program, hbm, chunk=chunk, lmu_words=LMU_WORDS, **options)


def embed(dst: int = 0, **changes: Any) -> Instruction:
    """The token embeddings of the rows in flight, WIDTH words a row."""
    values: dict[str, Any] = {
        "dst": LmuRef(dst, WIDTH), "table": HbmRef(memory_map().addresses["embedding"]), "index": "token",
        "ids": HbmRef(memory_map().tokens), "limit": VOCAB, "columns": WIDTH, "type": "f16", "rows": 1,
    }  # fmt: skip
    return op("embed", **{**values, **changes})


def attention(kind: str, **changes: Any) -> Instruction:
    """store_key, store_value, scores, softmax or values on the one KV slot: queries at 0, scores at 5000."""
    cache = memory_map().main.caches[0]
    key, value = (HbmRef(memory_map().kv_start + offset) for offset in (cache.key_offset, cache.value_offset))
    store = {"src": LmuRef(0, WIDTH), "heads": HEADS, "size": SIZE, "limit": LENGTH, "type": "f16", "rows": 1}
    weights = LmuRef(5000, LENGTH)
    table: dict[str, dict[str, Any]] = {
        "store_key": {**store, "cache": key, "pitch": cache.key_pitch},
        "store_value": {**store, "cache": value, "pitch": cache.value_pitch},
        "scores": {
            "dst": weights, "query": LmuRef(0, WIDTH), "cache": key, "size": SIZE, "scale": 0.25, "type": "f16",
            "rows": 1,
        },
        "softmax": {"dst": weights, "src": weights, "rows": 1},
        "values": {
            "dst": LmuRef(9000, SIZE), "src": weights, "cache": value, "size": SIZE, "limit": LENGTH, "type": "f16",
            "rows": 1,
        },
    }  # fmt: skip
    return op(kind, **{**table[kind], **changes})


def lmu(target: Machine, address: int, rows: int, columns: int) -> np.ndarray:
    """What a machine's LMU holds, all of it written."""
    return target.state.lmu.read(address, (rows, columns), (columns, 1)).copy()


def view(address: int, stride: int = WIDTH, group: int = 0) -> ViewRef:
    return ViewRef(address, stride, group)


def loop(body: Sequence[Instruction], count: int) -> list[Instruction]:
    return [op("repeat", count=count, length=len(body)), *body]
