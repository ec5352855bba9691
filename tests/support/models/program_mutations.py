"""Ten ways to break a compiled Llama: edits of its instructions, and the module that each spoils first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperdex_ir.isa.codec import decode_program, encode_program
from hyperdex_ir.isa.operands import LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.support.files import Kind, read_binary, write_binary
from hyperdex_ir.support.locations import find_folder

Code = list[Instruction]
Edit = Callable[[Code, Sequence[Origin]], None]


def places(code: Code, origins: Sequence[Origin], name: str, path: str) -> list[int]:
    """The instructions of that name whose module path ends so."""
    found = [i for i, item in enumerate(code) if item.name == name and origins[i].module_path.endswith(path)]
    assert found, f"no {name} of {path}"
    return found


def change(code: Code, index: int, **values: Any) -> None:
    item = code[index]
    code[index] = Instruction(item.name, {**item.values, **values})


def setting(name: str, path: str, **values: Any) -> Edit:
    def edit(code: Code, origins: Sequence[Origin]) -> None:
        change(code, places(code, origins, name, path)[0], **values)

    return edit


def swap_cos_and_sin(code: Code, origins: Sequence[Origin]) -> None:
    index = places(code, origins, "rotary", "self_attn")[0]
    change(code, index, cos=code[index]["sin"], sin=code[index]["cos"])


def shift_values(code: Code, origins: Sequence[Origin]) -> None:
    """The slice of the merged projections that is stored as values begins one column late."""
    index = places(code, origins, "store_value", "self_attn")[0]
    source = code[index]["src"]
    assert isinstance(source, LmuRef)
    change(code, index, src=replace(source, address=source.address + 1))


def add_another_residual(code: Code, origins: Sequence[Origin]) -> None:
    """The residual behind the MLP is what the MLP was given, normalised."""
    norm = code[places(code, origins, "rms_norm", "post_attention_layernorm")[0]]["dst"]
    assert isinstance(norm, ViewRef)
    index = places(code, origins, "matmul", "mlp.down_proj")[0]
    change(code, index, plus=LmuRef(norm.address, norm.stride))


def share_kv_cache(code: Code, origins: Sequence[Origin]) -> None:
    """All layers have the first layer's cache: its base, register 6, is not advanced."""
    (index,) = (i for i, item in enumerate(code) if item.name == "add" and item["dst"] == item["a"] == 6)
    change(code, index, value=0)


def stay_at_the_first_kv_head(code: Code, origins: Sequence[Origin]) -> None:
    cache: Any = code[places(code, origins, "scores", "self_attn")[0]]["cache"]
    index = [i for i, item in enumerate(code) if item.name == "add" and item["dst"] == cache.register][-1]
    change(code, index, value=0)


def drop_gate_activation(code: Code, origins: Sequence[Origin]) -> None:
    (index,) = (i for i, item in enumerate(code) if item.name == "matmul" and item["activation"] == "silu")
    change(code, index, activation="none")


#: The edit, and what the path of the first module that is off must match.
MUTATIONS: dict[str, tuple[Edit, str]] = {
    "swapped operand": (swap_cos_and_sin, r"model\.layers\.0\.self_attn"),
    "dropped scale": (setting("scores", "self_attn", scale=1.0), r"model\.layers\.0\.self_attn"),
    "off-by-one slice": (shift_values, r"model\.layers\.0\.self_attn"),
    "wrong epsilon": (
        setting("rms_norm", "post_attention_layernorm", epsilon=0.1),
        r"model\.layers\.0\.post_attention_layernorm",
    ),
    "wrong residual": (add_another_residual, r"model\.layers\.0\.mlp\.down_proj"),
    "missing bias": (setting("matmul", "self_attn.o_proj", bias=None), r"model\.layers\.0\.self_attn\.o_proj"),
    "wrong half of rotary": (setting("rotary", "self_attn", style="interleaved"), r"model\.layers\.0\.self_attn"),
    "wrong KV slot": (share_kv_cache, r"model\.layers\.0\.self_attn"),
    "wrong KV head": (stay_at_the_first_kv_head, r"model\.layers\.0\.self_attn"),
    "dropped gate activation": (drop_gate_activation, r"model\.layers\.0\.mlp(\..*)?"),
}


def edited_device(device: InterpreterDevice, edit: Edit) -> InterpreterDevice:
    """The device with its program edited, encoded and decoded again."""
    program = device.machine.program
    code = list(program.instructions)
    edit(code, program.origins)
    again = decode_program(encode_program(code)).instructions
    new = Program(again, program.origins)
    return InterpreterDevice(new, device.machine.hbm, device.map, device.chunk, device.head_rows)


def edit_on_disk(model: Path, edit: Edit) -> None:
    """Edits a compiled model's program in place, header and manifest included."""
    folder = find_folder(model)
    path, manifest = folder.instructions(1), json.loads(folder.manifest.read_text(encoding="utf-8"))
    code = list(decode_program(read_binary(path, Kind.INSTRUCTIONS)).instructions)
    table = json.loads(folder.origins(1).read_text(encoding="utf-8"))["origins"]
    edit(code, [Origin(entry["function"], entry["path"], entry["op"]) for entry in table])
    write_binary(path, Kind.INSTRUCTIONS, encode_program(code))
    entry = manifest["devices"]["1"]["files"][path.relative_to(folder.root).as_posix()]
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    folder.manifest.write_text(json.dumps(manifest), encoding="utf-8")
