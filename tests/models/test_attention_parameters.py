"""Slopes and sinks of attention: the bits of docs/arithmetic.md, by each pass, executor, chunk and device count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support import chosen
from support.models.imported import MAX_LENGTH, TOKENS, Parameters, lpu_logits, random_parameters
from support.models.second_implementation import ROUND, Attention, Cache
from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import in_memory_links
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.native.operation import EXTRAS
from hyperdex_ir.passes.pipeline import parse_pipeline, run_pass
from hyperdex_ir.runtime.device import RingDevice
from hyperdex_ir.support.xdsl import parse_module, print_module
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

HEADS, KV_HEADS, SIZE, WIDTH, VOCABULARY, LAYERS = 6, 2, 23, 67, 256, 3
CHUNK = 8


@dataclass(frozen=True)
class Variant:
    """What a test model's attention has."""

    slopes: bool = False
    bf16_bias: bool = False
    sinks: bool = False
    window: int = 0
    cap: float = 0.0
    matrix_type: str = "f16"


VARIANTS = {
    "sinks": Variant(sinks=True),
    "sinks-window-cap-bf16": Variant(sinks=True, window=5, cap=1.5, matrix_type="bf16"),
    "slopes": Variant(slopes=True, matrix_type="bf16"),
    "slopes-sinks-window-cap": Variant(slopes=True, sinks=True, window=7, cap=2.0),
    "bf16-bias": Variant(slopes=True, bf16_bias=True),
    "bf16-bias-sinks": Variant(slopes=True, bf16_bias=True, sinks=True, matrix_type="bf16"),
}


def model(variant: Variant) -> ModuleOp:
    """Layers of attention alone: slopes are those of all layers, sinks each layer's own."""
    m, q, kv = variant.matrix_type, HEADS * SIZE, KV_HEADS * SIZE
    lines = [
        f'%e = lpu.weight "embed.weight" : tensor<{VOCABULARY}x{WIDTH}x{m}>',
        f"%h0 = lpu.embedding %e at %t : (tensor<{VOCABULARY}x{WIDTH}x{m}>, tensor<?xi64>) -> tensor<?x{WIDTH}xf32>",
        f'%slopes = lpu.weight "slopes" : tensor<{HEADS}xf32>',
    ]
    more = f" window {variant.window}" if variant.window else ""
    more += f" softcap {variant.cap}" if variant.cap else ""
    more += f" slopes %slopes : tensor<{HEADS}xf32>" if variant.slopes else ""
    more += " bf16_bias" if variant.bf16_bias else ""
    heads = f"tensor<?x{HEADS}x{SIZE}xf32>"
    kv_heads = f"tensor<?x{KV_HEADS}x{SIZE}xf32>"
    for n in range(LAYERS):
        place, x = f'loc("layers.{n}.attention")', f"tensor<?x{WIDTH}xf32>"
        for name, columns, shape in (("q", q, heads), ("k", kv, kv_heads), ("v", kv, kv_heads)):
            matrix, y = f"tensor<{columns}x{WIDTH}x{m}>", f"tensor<?x{columns}xf32>"
            lines += [
                f'%{name}w{n} = lpu.weight "layers.{n}.attention.{name}.weight" : {matrix} {place}',
                f"%{name}x{n} = lpu.linear %h{n} by %{name}w{n} : {x}, {matrix} -> {y} {place}",
                f"%{name}{n} = lpu.reshape %{name}x{n} : ({y}) -> {shape} {place}",
            ]
        sinks = f" sinks %s{n} : tensor<{HEADS}xf32>" if variant.sinks else ""
        matrix, y = f"tensor<{WIDTH}x{q}x{m}>", f"tensor<?x{q}xf32>"
        lines += [
            f'%s{n} = lpu.weight "layers.{n}.attention.sinks" : tensor<{HEADS}xf32> {place}',
            f"%a{n} = lpu.attention %q{n}, %k{n}, %v{n} slot {n} scale 2.5e-01{more}{sinks} : "
            f"({heads}, {kv_heads}, {kv_heads}) -> {heads} {place}",
            f"%r{n} = lpu.reshape %a{n} : ({heads}) -> {y} {place}",
            f'%ow{n} = lpu.weight "layers.{n}.attention.o.weight" : {matrix} {place}',
            f"%o{n} = lpu.linear %r{n} by %ow{n} : {y}, {matrix} -> {x} {place}",
            f"%h{n + 1} = lpu.add %h{n}, %o{n} : ({x}, {x}) -> {x} {place}",
        ]
    table = f"tensor<{VOCABULARY}x{WIDTH}x{m}>"
    lines += [
        f"%w = lpu.select_rows %h{LAYERS} : tensor<?x{WIDTH}xf32>",
        f"%l = lpu.linear %w by %e : tensor<?x{WIDTH}xf32>, {table} -> tensor<?x{VOCABULARY}xf32>",
        f"func.return %l : tensor<?x{VOCABULARY}xf32>",
    ]
    facts = f'lpu.matrix_type = "{m}", lpu.max_length = {MAX_LENGTH} : i64, lpu.target = "u55c"'
    main = f"func.func @main(%t: tensor<?xi64>, %p: tensor<?xi64>) -> tensor<?x{VOCABULARY}xf32>"
    return parse_module(f"builtin.module attributes {{{facts}}} {{ {main} {{\n" + "\n".join(lines) + "\n} }")


def parameters_of(module: ModuleOp) -> Parameters:
    """Sinks on both sides of the scores, slopes as ALiBi has them."""
    values = {"slopes": (2.0 ** -np.arange(0.5, HEADS)).astype(np.float32)}
    for n in range(LAYERS):
        sinks = np.random.default_rng(n).standard_normal(HEADS) * 3
        values[f"layers.{n}.attention.sinks"] = sinks.astype(np.float32)
    return random_parameters(module, values.__getitem__)


# ---------------------------------------------------------------------------------------------------- one attention


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_has_the_bits_of_the_document(name: str) -> None:
    """Against the second implementation, with windows, softcaps and texts longer than a step of 64."""
    variant, count, m = VARIANTS[name], 70, VARIANTS[name].matrix_type
    module = parse_module(_alone(variant))
    rng = np.random.default_rng(5)
    sizes = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
    tables = {key: rng.standard_normal((VOCABULARY, heads * SIZE)).astype(np.float32) for key, heads in sizes.items()}
    rows = {"slopes": rng.random(HEADS).astype(np.float32), "sinks": rng.standard_normal(HEADS).astype(np.float32)}
    tokens = rng.integers(0, VOCABULARY, count).tolist()
    interpreter = LpuInterpreter(module, (tables | rows).__getitem__, 100)
    got = np.concatenate([interpreter.forward(tokens[i : i + 9], i, 0) for i in range(0, count, 9)])
    more = Attention(
        variant.window,
        np.float32(variant.cap) if variant.cap else None,
        rows["slopes"] if variant.slopes else None,
        variant.bf16_bias,
        rows["sinks"] if variant.sinks else None,
    )
    cache = Cache([], [])
    for token, row in zip(tokens, got, strict=True):
        query, key, value = (tables[name][token].reshape(-1, SIZE) for name in sizes)
        cache.keys.append(ROUND[m](key))
        cache.values.append(ROUND[m](value))
        assert row.tobytes() == cache.attend(query, np.float32(0.3), ROUND[m], more).tobytes()


def _alone(variant: Variant) -> str:
    """Attention of three tables' rows."""
    text = []
    for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        table, row = f"tensor<{VOCABULARY}x{heads * SIZE}xf32>", f"tensor<?x{heads * SIZE}xf32>"
        text += [
            f'%{name}t = lpu.weight "{name}" : {table}',
            f"%{name}r = lpu.embedding %{name}t at %t : ({table}, tensor<?xi64>) -> {row}",
            f"%{name} = lpu.reshape %{name}r : ({row}) -> tensor<?x{heads}x{SIZE}xf32>",
        ]
    more = f" window {variant.window}" if variant.window else ""
    more += f" softcap {variant.cap}" if variant.cap else ""
    for name, given in (("slopes", variant.slopes), ("sinks", variant.sinks)):
        text += [f'%{name} = lpu.weight "{name}" : tensor<{HEADS}xf32>'] if given else []
        more += f" {name} %{name} : tensor<{HEADS}xf32>" if given else ""
        more += " bf16_bias" if given and name == "slopes" and variant.bf16_bias else ""
    kv, q, out = f"tensor<?x{KV_HEADS}x{SIZE}xf32>", f"tensor<?x{HEADS}x{SIZE}xf32>", f"tensor<?x{HEADS * SIZE}xf32>"
    text += [
        f"%a = lpu.attention %q, %k, %v slot 0 scale 3.0e-01{more} : ({q}, {kv}, {kv}) -> {q}",
        f"%r = lpu.reshape %a : ({q}) -> {out}",
        f"%w = lpu.select_rows %r : {out}",
        f"func.return %w : {out}",
    ]
    main = f"func.func @main(%t: tensor<?xi64>, %p: tensor<?xi64>) -> {out}"
    facts = f'lpu.matrix_type = "{variant.matrix_type}"'
    return f"builtin.module attributes {{{facts}}} {{ {main} {{\n" + "\n".join(text) + "\n} }"


# ---------------------------------------------------------------------------------------------------- whole models


def ring(module: ModuleOp, local: ModuleOp, parameters: Parameters, devices: int, native: bool) -> RingDevice:
    """The lowered module on devices of either engine. local: what it was lowered from."""
    layout = collect_layout(local)
    memory = plan_memory(layout, load_target("u55c"), MAX_LENGTH)
    program = to_program(module, chunk=CHUNK, head_rows=CHUNK)
    hbms = [Hbm.from_parameters(memory, layout, parameters, device) for device in range(devices)]
    if not native:
        return RingDevice.interpreting(program, hbms, memory, CHUNK, CHUNK)
    links = in_memory_links(devices)
    machines = [
        NativeMachine(program, hbm, chunk=CHUNK, lmu_words=memory.target.lmu_words, threads=2, device=device, link=link)
        for device, (hbm, link) in enumerate(zip(hbms, links, strict=True))
    ]
    for machine in machines:
        assert (machine._plan[:, 0] == EXTRAS["head_loop"].number).any()
    return RingDevice(machines, links, memory, CHUNK, CHUNK)


#: Of `o0`, the variant with everything and that of rounded biases.
_PIPELINES = chosen(
    [(name, pipeline) for name in VARIANTS for pipeline in ("default", "o0")],
    *[(name, "default") for name in VARIANTS],
    ("slopes-sinks-window-cap", "o0"),
    ("bf16-bias-sinks", "o0"),
)


@pytest.mark.parametrize(("name", "pipeline"), _PIPELINES)
def test_every_pass_engine_chunk_and_count_keeps_every_bit(name: str, pipeline: str) -> None:
    source = model(VARIANTS[name])
    parameters = parameters_of(source)
    expected = lpu_logits(source, parameters)
    for devices in (1, 4) if pipeline == "default" else (2,):  # of 4 devices, the last has no head but padding
        module = source.clone()
        module.attributes[lpu.GRID] = lpu.GridAttr(devices)
        local, before = module, ""
        for one in parse_pipeline(pipeline):
            if one.name == "lower-lpu-to-isa":
                local = module.clone()
            run_pass(module, one)
            text = print_module(module, locations=True)
            if text == before:  # this pass has changed nothing
                continue
            before = text
            assert print_module(parse_module(text), locations=True) == text, one.name
            if local is module:
                assert lpu_logits(module, parameters) == expected, one.name
        for native, step in ((False, CHUNK), (True, CHUNK), (True, 1), (True, 3)):
            device = ring(module, local, parameters, devices, native)
            parts = [device.forward(TOKENS[i : i + step], i, 0) for i in range(0, len(TOKENS), step)]
            assert np.concatenate(parts).tobytes() == expected, (devices, native, step)


def test_layers_with_sinks_are_one_function() -> None:
    module = model(VARIANTS["slopes-sinks-window-cap"])
    for one in parse_pipeline("default"):
        run_pass(module, one)
    text = print_module(module)
    assert text.count("isa.scores") == text.count("isa.softmax") == 1
    assert "slope=hbm[r29]" in text
    assert "sink=hbm[r30]" in text


def test_sinks_and_slopes_matter() -> None:
    logits = [lpu_logits(module := model(v), parameters_of(module)) for v in (Variant(), *VARIANTS.values())]
    assert len(set(logits)) == len(logits)
