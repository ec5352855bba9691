"""What the fuzzer calls with bytes of its own: every reader of a file that needs no model around it, and the native
engine.

A target is made inside `atheris.instrument_imports`, so it imports what it tries when it is made. It gives what is
called, and contents to begin with. A HyperdexError is an answer; the runner takes any other exception for a bug.
"""

from __future__ import annotations

import json
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Check = Callable[[bytes], object]
Target = Callable[[], tuple[Check, list[bytes]]]

#: Short, because parsing takes a millisecond a line.
MODULES = (
    "isa.set dst=r9 value=-3",
    "%h = isa.buffer : !isa.lmu<tokens x 576 at 64>\nisa.load dst=%h src=hbm[64 + kv_base] columns=64",
    '%a = lpu.weight "a.weight" : tensor<3x5xf16>\n%b = lpu.tanh %a : tensor<3x5xf16>',
    '"a.b"() {x = dense<5> : tensor<2x3xi8>, y = [1 : i99, 0x7fc00000 : f32, @c::@d]} : () -> ()',
    "func.func @main(%a : tensor<?x5xf32>) -> tensor<?x5xf32> {\n  func.return %a : tensor<?x5xf32>\n}",
    "#a = [1 : i64]\n#b = [#a, #a]\n!t = tuple<i99, f32>\nbuiltin.module attributes {x = #b, y = !t} {}",
    'builtin.module attributes {x = dense<"0x05"> : tensor<262144xi8>, y = 5 : i9999} {} loc("a"("b"))',
)


def _in_a_file(read: Callable[[Path], object], suffix: str = "") -> Check:
    """The reader of a path, for bytes."""
    descriptor, name = tempfile.mkstemp(suffix=suffix, dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    path = Path(name)

    def check(data: bytes) -> None:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        read(path)

    return check


def instructions() -> tuple[Check, list[bytes]]:
    """Words of a program: what is accepted is encoded to the same bytes, and as text says the same."""
    from hyperdex_ir.isa.assembly import parse_program, print_program
    from hyperdex_ir.isa.codec import decode_program, encode_program
    from hyperdex_ir.isa.instructions import BY_OPCODE, WORD_BYTES

    def check(data: bytes) -> None:
        payload = data + bytes(-len(data) % WORD_BYTES)
        program = decode_program(payload)
        if encode_program(program.instructions) != payload:
            raise AssertionError("encoded otherwise")
        if encode_program(parse_program(print_program(program)).instructions) != payload:
            raise AssertionError("as text another program")

    halt = b"\x30" + bytes(WORD_BYTES - 1)
    return check, [halt, *(bytes([opcode]) + bytes(WORD_BYTES - 1) + halt for opcode in BY_OPCODE)]


def header() -> tuple[Check, list[bytes]]:
    """A file of ours with its header, of each kind."""
    from hyperdex_ir.support.files import FORMAT_VERSION, MAGIC, Kind, read_binary

    payload = bytes(64)
    heads = [struct.pack("<4sHHII", MAGIC, FORMAT_VERSION, kind, 1, zlib.crc32(payload)) for kind in Kind]
    return _in_a_file(lambda path: read_binary(path, Kind.INSTRUCTIONS)), [head + payload for head in heads]


def safetensors() -> tuple[Check, list[bytes]]:
    """A checkpoint's file; the tensors that it names are read."""
    from hyperdex_ir.checkpoint.files import read_header

    def read(path: Path) -> None:
        for tensor in read_header(path).values():
            tensor.read()

    table = {"a": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}
    table["b"] = {"dtype": "BOOL", "shape": [], "data_offsets": [8, 9]}
    text = json.dumps(table).encode()
    return _in_a_file(read, ".safetensors"), [struct.pack("<Q", len(text)) + text + bytes(9), bytes(8)]


def tables() -> tuple[Check, list[bytes]]:
    """The JSON files of a compiled model: each reader gets the same text."""
    from hyperdex_ir.errors import HyperdexError
    from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter
    from hyperdex_ir.memory.map import plan_memory
    from hyperdex_ir.memory.serialize import (
        FORMAT,
        layout_to_json,
        manifest_entries,
        map_to_json,
        read_layout,
        read_map,
    )
    from hyperdex_ir.targets import load_target

    def read(path: Path) -> None:
        for reader in (manifest_entries, read_map, read_layout):
            try:
                reader(path)
            except HyperdexError:
                continue

    main = FunctionLayout("main", (Parameter("a", "f16", (3, 5), ("a",)),), (KvCache(1, 2, 2),))
    layout = ModelLayout("f16", 3, main, (FunctionLayout("f", (), ()),), (0, 0))
    manifest = {"format": FORMAT, "files": {}, "devices": {"1": {"target": "u55c", "options": {}, "files": {}}}}
    values = (manifest, map_to_json(plan_memory(layout, load_target("u55c"), 9)))
    values += ({"format": FORMAT, "layout": layout_to_json(layout)},)
    return _in_a_file(read), [json.dumps(value, separators=(",", ":")).encode() for value in values]


def config() -> tuple[Check, list[bytes]]:
    """config.json."""
    from hyperdex_ir.frontend.config import check_config
    from hyperdex_ir.support.reading import read_config_json

    def read(path: Path) -> None:
        check_config(read_config_json(path), "config.json")

    llama: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_scaling": None}
    llama |= {"hidden_size": 64, "num_attention_heads": 4, "eos_token_id": [1, 2], "rms_norm_eps": 1e-5}
    opt: dict[str, Any] = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "activation_function": "relu"}
    return _in_a_file(read), [json.dumps(value).encode() for value in (llama, opt)]


def gguf() -> tuple[Check, list[bytes]]:
    """The header of a GGUF file."""
    from hyperdex_ir.checkpoint.gguf_header import architecture_of

    name, key = struct.pack("<Q", 1) + b"n", b"general.architecture"
    field = struct.pack("<Q", len(key)) + key + struct.pack("<I", 8) + name
    field += name + struct.pack("<II", 9, 8) + struct.pack("<Q", 1) + name
    tensor = name + struct.pack("<IQIQ", 1, 2, 0, 0)
    return _in_a_file(architecture_of, ".gguf"), [b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + field + tensor]


def assembly() -> tuple[Check, list[bytes]]:
    """Text of a program."""
    from hyperdex_ir.isa.assembly import parse_program
    from hyperdex_ir.isa.instructions import SPECS

    names = "\n".join(spec.name for spec in SPECS).encode()
    return lambda data: parse_program(data.decode(errors="replace")), [b"halt\n", b"set dst=r9 value=-3\nhalt\n", names]


def ir() -> tuple[Check, list[bytes]]:
    """Text of a module: parsed, verified, printed."""
    from xdsl.utils.exceptions import VerifyException

    from hyperdex_ir.dialects import isa, lpu  # noqa: F401  a context imports them when it is too late
    from hyperdex_ir.support.xdsl import parse_module, print_module

    def check(data: bytes) -> None:
        module = parse_module(data.decode(errors="replace"))
        try:
            module.verify()
        except VerifyException:
            return
        print_module(module)

    return check, [text.encode() for text in MODULES]


def programs() -> tuple[Check, list[bytes]]:
    """Programs between guard pages on 1 to 3 threads, which the bytes choose: the interpreter's bits or its fault."""
    from support.programs.guard_pages import World
    from support.programs.random_programs import FromBytes, Rolled, make_program, start_world

    worlds = [World(start_world(Rolled(seed))) for seed in range(4)]

    def check(data: bytes) -> None:
        choose = FromBytes(data)
        world = choose.pick(worlds)
        make_program(choose, world.case, choose.integer(1, 24))
        program = world.program()
        expected, _ = world.interpreted(program)
        different = world.native(program, choose.integer(1, 3)).differences(expected)
        if different and not expected.is_untracked:
            raise AssertionError(different)

    check(b"")  # loads the machine code
    return check, [random.Random(seed).randbytes(1500) for seed in range(3)]


def pipeline() -> tuple[Check, list[bytes]]:
    """Text of a pipeline in a file: what is accepted names this package's passes, and reads back."""
    from hyperdex_ir.passes import get_all_passes
    from hyperdex_ir.passes.pipeline_text import parse_pipeline, pipeline_spec

    own = {*get_all_passes(), "canonicalize", "cse", "dce"}

    def check(data: bytes) -> None:
        passes = parse_pipeline(data.decode(errors="replace"))
        if not {one.name for one in passes} <= own:
            raise AssertionError(f"accepted {passes}")
        if parse_pipeline(pipeline_spec(passes)) != passes:
            raise AssertionError("reads back otherwise")

    texts = [
        "default",
        "cse, dce // end",
        "isa-schedule{report=true}",
        "lower-lpu-to-isa{gather-chunks=2}",
        'mlir-opt{executable="sh" arguments="-c","x"}',
    ]
    return check, [text.encode() for text in texts]


_ALL = (instructions, header, safetensors, tables, config, gguf, assembly, ir, pipeline, programs)
TARGETS: dict[str, Target] = {target.__name__: target for target in _ALL}
