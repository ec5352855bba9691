"""A small model as a module for n devices, written by hand: attention, a gated matrix, the head."""

from __future__ import annotations

from functools import cache

import numpy as np

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import Segment, ShardingAttr, block_segment
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import in_memory_links
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.runtime.device import RingDevice
from hyperdex_ir.support.xdsl import parse_module
from hyperdex_ir.targets import load_target

WIDTH, INNER, VOCAB, HEADS, KV_HEADS, SIZE, LENGTH, LAYERS = 70, 150, 45, 6, 2, 24, 40, 3
PIPELINE = "lower-lpu-to-isa, isa-schedule, isa-allocate-lmu"

_SHAPES = {
    "embed": (VOCAB, WIDTH),
    "q": (HEADS * SIZE, WIDTH),
    "k": (KV_HEADS * SIZE, WIDTH),
    "v": (KV_HEADS * SIZE, WIDTH),
    "o": (WIDTH, HEADS * SIZE),
    "gate": (INNER, WIDTH),
    "up": (INNER, WIDTH),
    "down": (WIDTH, INNER),
    "head": (VOCAB, WIDTH),
}


def parameter(key: str) -> np.ndarray:
    """Values by key, the same each time; keys that end in `bias` have one number a row."""
    name = key.split(".")[-1]
    rng = np.random.default_rng([ord(character) for character in key])
    if name.endswith("bias"):
        return rng.standard_normal(_SHAPES[name.removesuffix("_bias")][0]).astype(np.float32)
    return (rng.standard_normal(_SHAPES[name]) * 0.1).astype(np.float16)


def _segment(name: str, devices: int) -> Segment:
    if name in ("q", "k", "v"):
        query, kv = head_segments(devices)
        return (query if name == "q" else kv).scaled(SIZE)
    return block_segment(_SHAPES[name][0], devices)


def head_segments(devices: int) -> tuple[Segment, Segment]:
    """Which query heads and which KV heads each device has."""
    query = block_segment(HEADS, devices)
    kv: list[range] = []
    for start in query.starts:
        used = [head * KV_HEADS // HEADS for head in range(start, min(start + query.size, HEADS))]
        kv.append(range(used[0], used[-1] + 1) if used else range(KV_HEADS, KV_HEADS))
    return query, Segment(max(map(len, kv)), KV_HEADS, tuple(one.start for one in kv))


def _table(devices: int) -> list[int]:
    query, kv = head_segments(devices)
    return [
        head * KV_HEADS // HEADS - kv_start if head < HEADS else 0
        for start, kv_start in zip(query.starts, kv.starts, strict=True)
        for head in range(start, start + query.size)
    ]


class _Text:
    """Builds the text of a module for n devices."""

    def __init__(self, devices: int):
        self.devices = devices
        self.lines: list[str] = []

    def local(self, name: str) -> int:
        return _segment(name, self.devices).size if self.devices > 1 else _SHAPES[name][0]

    def weight(self, *names: str, prefix: str = "", bias: bool = False) -> tuple[str, int]:
        """A weight of several matrices, one behind the other; gives its value and its rows."""
        rows = sum(map(self.local, names))
        columns = "" if bias else f"x{_SHAPES[names[0]][1]}"
        keys = ", ".join(f'"{prefix}{name}{"_bias" if bias else ""}"' for name in names)
        value = f"%w{len(self.lines)}"
        shards = [ShardingAttr(0, [_segment(name, self.devices)]) for name in names]
        text = f" shards [{', '.join(map(str, shards))}]" if self.devices > 1 else ""
        self.lines.append(f"{value} = lpu.weight {keys}{text} : tensor<{rows}{columns}x{'f32' if bias else 'f16'}>")
        return value, rows

    def gather(self, value: str, columns: int, whole: int) -> str:
        if self.devices == 1:
            return value
        self.lines.append(
            f"{value}.all = lpu.all_gather {value} over {self.devices} : (tensor<?x{columns}xf32>)"
            f" -> tensor<?x{whole}xf32>"
        )
        return f"{value}.all"

    def select(self, value: str, columns: int) -> str:
        if self.devices == 1:
            return value
        self.lines.append(
            f"{value}.own = lpu.select_columns {value} : (tensor<?x{WIDTH}xf32>) -> tensor<?x{columns}xf32>"
        )
        return f"{value}.own"


def _layer(devices: int) -> str:
    text = _Text(devices)
    local = text.local
    prefix = "layers.*."
    queries, keys = local("q"), local("k")
    query_heads, kv_heads = queries // SIZE, keys // SIZE
    weight, rows = text.weight("v", "k", "q", prefix=prefix)
    matrix = f"tensor<{rows}x{WIDTH}xf16>"
    text.lines.append(f"%qkv = lpu.linear %h by {weight} : tensor<?x{WIDTH}xf32>, {matrix} -> tensor<?x{rows}xf32>")
    for name, start, heads in (("v", 0, kv_heads), ("k", keys, kv_heads), ("q", 2 * keys, query_heads)):
        size = heads * SIZE
        text.lines += [
            f"%{name} = lpu.slice %qkv dim 1 from {start} to {start + size} : (tensor<?x{rows}xf32>)"
            f" -> tensor<?x{size}xf32>",
            f"%{name}h = lpu.reshape %{name} : (tensor<?x{size}xf32>) -> tensor<?x{heads}x{SIZE}xf32>",
        ]
    table = f' kv_heads "kv_heads" {_table(devices)}' if devices > 1 else ""
    q, kv = f"tensor<?x{query_heads}x{SIZE}xf32>", f"tensor<?x{kv_heads}x{SIZE}xf32>"
    text.lines += [
        f"%a = lpu.attention %qh, %kh, %vh slot 0 scale 2.000000e-01{table} : ({q}, {kv}, {kv}) -> {q}",
        f"%o = lpu.reshape %a : ({q}) -> tensor<?x{queries}xf32>",
    ]
    attended = text.gather("%o", queries, HEADS * SIZE)
    weight, rows = text.weight("o", prefix=prefix)
    plus = text.select("%h", rows)
    text.lines.append(
        f"%r = lpu.linear {attended} by {weight} plus {plus} : tensor<?x{HEADS * SIZE}xf32>,"
        f" tensor<{rows}x{HEADS * SIZE}xf16> -> tensor<?x{rows}xf32>"
    )
    residual = text.gather("%r", rows, WIDTH)
    weight, doubled = text.weight("gate", "up", prefix=prefix)
    bias, _ = text.weight("gate", "up", prefix=prefix, bias=True)
    inner = doubled // 2
    text.lines.append(
        f"%g = lpu.linear {residual} by {weight} gated bias {bias} : tensor<{doubled}xf32> then silu :"
        f" tensor<?x{WIDTH}xf32>, tensor<{doubled}x{WIDTH}xf16> -> tensor<?x{inner}xf32>"
    )
    gated = text.gather("%g", inner, INNER)
    weight, rows = text.weight("down", prefix=prefix)
    plus = text.select(residual, rows)
    text.lines.append(
        f"%y = lpu.linear {gated} by {weight} plus {plus} : tensor<?x{INNER}xf32>,"
        f" tensor<{rows}x{INNER}xf16> -> tensor<?x{rows}xf32>"
    )
    text.lines.append(f"func.return {text.gather('%y', rows, WIDTH)} : tensor<?x{WIDTH}xf32>")
    body = "\n    ".join(text.lines)
    return f"  func.func @layer(%h: tensor<?x{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32> {{\n    {body}\n  }}"


def module_text(devices: int) -> str:
    """The whole module. With one device nothing in it is sharded."""
    text = _Text(devices)
    table = f"tensor<{VOCAB}x{WIDTH}xf16>"
    text.lines += [
        f'%table = lpu.weight "embed" : {table}',
        f"%h = lpu.embedding %table at %t : ({table}, tensor<?xi64>) -> tensor<?x{WIDTH}xf32>",
        f"%z = lpu.repeat {LAYERS} (%c = %h : tensor<?x{WIDTH}xf32>) {{",
        f"  %d = lpu.layer @layer(%c) : (tensor<?x{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32>",
        f"  lpu.yield %d : tensor<?x{WIDTH}xf32>",
        "}",
        f"%s = lpu.select_rows %z : tensor<?x{WIDTH}xf32>",
    ]
    weight, rows = text.weight("head")
    text.lines.append(
        f"%l = lpu.linear %s by {weight} : tensor<?x{WIDTH}xf32>, tensor<{rows}x{WIDTH}xf16> -> tensor<?x{rows}xf32>"
    )
    text.lines.append(f"func.return {text.gather('%l', rows, VOCAB)} : tensor<?x{VOCAB}xf32>")
    body = "\n    ".join(text.lines)
    grid = f", lpu.grid = #lpu.grid<{devices}>" if devices > 1 else ""
    facts = f'lpu.matrix_type = "f16", lpu.max_length = {LENGTH} : i64, lpu.target = "u55c"{grid}'
    main = f"  func.func @main(%t: tensor<?xi64>, %p: tensor<?xi64>) -> tensor<?x{VOCAB}xf32> {{\n    {body}\n  }}"
    return f"builtin.module attributes {{{facts}}} {{\n{main}\n{_layer(devices)}\n}}"


@cache
def _lowered(devices: int, pipeline: str) -> tuple[ModelLayout, Program]:
    """The layout of the module, and its program; made once for all tests."""
    module = parse_module(module_text(devices))
    layout = collect_layout(module)
    for one in parse_pipeline(pipeline):
        run_pass(module, one)
    return layout, to_program(module)


def ring_device(devices: int, pipeline: str = PIPELINE, chunk: int = 8, native: bool = False) -> RingDevice:
    """The module lowered, on `devices` devices in this process, of the interpreter or of the native executor."""
    layout, program = _lowered(devices, pipeline)
    memory = plan_memory(layout, load_target("u55c"), LENGTH)
    hbms = [Hbm.from_parameters(memory, layout, parameter, device) for device in range(devices)]
    if not native:
        return RingDevice.interpreting(program, hbms, memory, chunk, 1)
    links = in_memory_links(devices)
    machines = [
        NativeMachine(program, hbm, chunk=chunk, lmu_words=memory.target.lmu_words, threads=1, device=device, link=link)
        for device, (hbm, link) in enumerate(zip(hbms, links, strict=True))
    ]
    return RingDevice(machines, links, memory, chunk, 1)
