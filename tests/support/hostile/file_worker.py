"""Tries spoiled files in a process of its own: a crash, a hang or too much memory ends it, not the tests.

A line of JSON on stdin is a case: {"surface", "edits", "forge", "threads"}; a line on stdout says what came of it:
{"outcome": "runs", "refused" or "bug", "text", "grown": bytes of memory}. Forged: hashes and CRCs are made to fit.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import json
import os
import resource
import struct
import sys
import traceback
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.checkpoint import checkpoint_blocks, matrix_type_for
from hyperdex_ir.backend.sources import is_unchanged
from hyperdex_ir.backend.state import STATE_FILE, State
from hyperdex_ir.checkpoint.files import Checkpoint, weight_files
from hyperdex_ir.checkpoint.gguf import open_gguf
from hyperdex_ir.cli.check import check
from hyperdex_ir.cli.inspect import inspect
from hyperdex_ir.cli.status import clean, status
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.frontend.config import ModelSummary, read_config
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.memory.serialize import read_layout
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.performance import estimate
from hyperdex_ir.runtime.executors import EXECUTORS
from hyperdex_ir.runtime.model import CompiledModel, read_eos_ids, read_generation_config
from hyperdex_ir.support.files import HEADER_BYTES
from hyperdex_ir.support.locations import MARKER, find_folder
from support.hostile.edits import edit_bytes, edit_json, edit_program

#: What a case may add to the memory that is in use, and to the addresses that are.
MOST_GROWTH = 256 << 20
MOST_ADDRESSES = 1 << 30
#: Instructions of a step; the model needs a tenth. The machine's own limit is for models of a hundred layers.
BUDGET = 4000
LMU_BYTES = 1 << 16
PROMPT = [3, 1, 4, 1, 5]


@dataclass(frozen=True)
class Surface:
    """A file and what reads it. kind: of the edits. check: raises HyperdexError, or returns."""

    path: str
    kind: str
    check: Callable[[Workshop], None]


class Workshop:
    """A folder with a compiled model and checkpoints in all formats; files are spoiled and put right again."""

    def __init__(self, root: Path):
        self.root = root
        self.model = root / "model"
        self.torch = root / "torch"
        self.summary: ModelSummary = read_config(self.model)
        self.imported: Any = None
        self.threads = 1
        self.pristine: dict[str, bytes] = {}

    @classmethod
    def build(cls, root: Path) -> Workshop:
        import torch
        from safetensors.torch import load_file

        from hyperdex_ir.frontend import trace_model
        from hyperdex_ir.tools import AutoCompiler
        from support.models.tiny import tiny_llama_config, write_checkpoint

        config = tiny_llama_config(num_hidden_layers=2, hidden_size=32, intermediate_size=40, head_dim=8)
        model = write_checkpoint(config, root / "model", max_shard_size="40KB")
        AutoCompiler().compile(str(model), max_length=20)
        single = write_checkpoint(config, root / "single")
        pickled = root / "torch"
        pickled.mkdir()
        torch.save(load_file(single / "model.safetensors"), pickled / "pytorch_model.bin")
        (root / "marker" / "ckpt").mkdir(parents=True)
        (root / "marker" / "ckpt" / MARKER).write_text(json.dumps({"hub_id": "a/b", "revision": None}))
        _write_gguf(root / "tiny.gguf")
        shop = cls(root)
        shop.imported = trace_model(model, target="u55c", max_length=20, matrix_type="f16")
        shop.shrink_lmu()
        return shop

    def shrink_lmu(self) -> None:
        """Instructions on the whole of a large one take long."""
        path = self.model / "config" / "config_1lpu_hbm.json"
        value = json.loads(path.read_text())
        value["target"]["lmu_bytes"] = LMU_BYTES
        self.write(path, json.dumps(value).encode(), forge=True)

    # ------------------------------------------------------------------------------------------------ spoiling
    def try_case(self, case: Mapping[str, Any]) -> dict[str, Any]:
        surface = SURFACES[case["surface"]]
        path, manifest = self.root / surface.path, self.model / "manifest.json"
        kept = [(one, one.read_bytes()) for one in dict.fromkeys((path, manifest))]
        self.threads = case["threads"]
        before = _start_of_peak()
        try:
            self.write(path, _spoiled(surface.kind, kept[0][1], case["edits"]), case["forge"])
            surface.check(self)
            found = {"outcome": "runs", "text": ""}
        except HyperdexError as error:
            text = str(error)
            found = {"outcome": "refused", "text": f"{error.code} {text}"}
            if "\n" in text or "internal error" in text or not text or len(text) > 4000 or "\x1b" in text:
                found["outcome"] = "bug"
        except BaseException:
            found = {"outcome": "bug", "text": traceback.format_exc()}
        finally:
            for one, data in kept:
                _put(one, data)
        grown = _peak() - before
        if grown > MOST_GROWTH and found["outcome"] != "bug":
            found = {"outcome": "bug", "text": f"{grown >> 20} MiB of memory: {found['text']}"}
        return found | {"grown": grown}

    def write(self, path: Path, data: bytes, forge: bool) -> None:
        """Writes a file of the model; forged, the manifest lists it as it is."""
        _put(path, data)
        if not forge or not path.is_relative_to(self.model) or path.name == "manifest.json":
            return
        manifest = self.model / "manifest.json"
        value, name = json.loads(manifest.read_text()), path.relative_to(self.model).as_posix()
        for files in (value["files"], value["devices"]["1"]["files"]):
            if name in files:
                files[name] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                if path.suffix == ".bin" and len(data) >= HEADER_BYTES:
                    files[name]["crc32"] = struct.unpack("<I", data[12:16])[0]
        _put(manifest, json.dumps(value).encode())

    # ------------------------------------------------------------------------------------------------ reading
    def run(self) -> None:
        """One step on each executor: what the interpreter does, the native one does with the same bits."""
        expected, found = (_attempt(lambda engine=engine: self._forward(engine)) for engine in reversed(EXECUTORS))
        if isinstance(expected, bytes) and found != expected:
            raise AssertionError(f"the interpreter gives {len(expected)} bytes, the native executor {found!r:.300}")
        for result in (expected, found):
            if isinstance(result, HyperdexError):
                raise result

    def _forward(self, engine: str) -> bytes:
        model = CompiledModel.open(self.model, engine=engine, threads=self.threads)
        try:
            return model.forward(PROMPT, 0).tobytes()
        finally:
            machine: Any = model.device
            if isinstance(machine.machine, NativeMachine):
                machine.machine.close()

    def says(self, command: Callable[..., None], *arguments: Any) -> None:
        """A command of the command line, without the parsing of its arguments; what it prints can be written."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            command(*arguments)
        out.getvalue().encode()

    def checked(self) -> None:
        """`hyperdex check`."""
        self.says(check, str(self.model))

    def all_of(self, *checks: Callable[[], object]) -> None:
        """All of these, whatever the others say; then the first refusal."""
        results = [_attempt(check) for check in checks]
        for result in results:
            if isinstance(result, HyperdexError):
                raise result

    def compiled(self) -> None:
        self.all_of(
            self.run,
            self.checked,
            lambda: self.says(inspect, str(self.model), 1),
            lambda: self.says(status, [str(self.model)]),
        )

    def program(self) -> None:
        self.all_of(self.run, lambda: self.says(inspect, str(self.model), 1))

    def image(self) -> None:
        self.all_of(self.run, self.checked)

    def layout(self) -> None:
        read_layout(self.model / "ckpt" / "hyperdex_config.json")

    def state(self) -> None:
        state = State.load(self.model)
        for phase, record in list(state.phases.items()):
            state.is_done(phase, str(record.get("key")))
            state.files(phase)
            is_unchanged(self.model, state.inputs(phase), weight_files(self.model))
        self.all_of(
            lambda: self.says(status, [str(self.model)]),
            lambda: self.says(clean, str(self.model), True, True),
        )

    def marker(self) -> None:
        self.all_of(lambda: find_folder(self.root / "marker"), lambda: self.says(status, [str(self.root / "marker")]))

    def small_files(self) -> None:
        folders = (self.model, self.model / "ckpt")
        self.all_of(lambda: read_eos_ids(*folders), lambda: read_generation_config(*folders))

    def config(self) -> None:
        self.all_of(lambda: read_config(self.model), self.small_files)

    def converted(self) -> None:
        """Phase 2 on a model that has been traced."""
        _read_all(Checkpoint(self.model), self.summary)
        blocks = checkpoint_blocks(self.imported, self.model)
        rules = self.imported.names
        for key in dict.fromkeys(map(rules.key, rules.shapes)):
            for _ in blocks(key):
                pass

    def pickled(self) -> None:
        _read_all(Checkpoint(self.torch), self.summary)

    def gguf(self) -> None:
        from gguf.quants import dequantize

        reader = open_gguf(self.root / "tiny.gguf")
        for field in reader.fields.values():
            field.contents()
        for tensor in reader.tensors:
            dequantize(tensor.data, tensor.tensor_type)


SURFACES: dict[str, Surface] = {
    "program": Surface("model/inst/inst_1lpu.bin", "program", Workshop.program),
    "program header": Surface("model/inst/inst_1lpu.bin", "header", Workshop.compiled),
    "image header": Surface("model/param/param_1lpu_00_07.bin", "header", Workshop.image),
    "model header": Surface("model/ckpt/hyperdex_model.bin", "header", Workshop.checked),
    "memory map": Surface("model/config/config_1lpu_hbm.json", "json", Workshop.compiled),
    "origins": Surface("model/inst/inst_1lpu.json", "json", Workshop.compiled),
    "manifest": Surface("model/manifest.json", "json", Workshop.compiled),
    "layout": Surface("model/ckpt/hyperdex_config.json", "json", Workshop.layout),
    "state": Surface(f"model/{STATE_FILE}", "json", Workshop.state),
    "marker": Surface(f"marker/ckpt/{MARKER}", "json", Workshop.marker),
    "config": Surface("model/config.json", "json", Workshop.config),
    "generation config": Surface("model/generation_config.json", "json", Workshop.small_files),
    "index": Surface("model/model.safetensors.index.json", "json", Workshop.converted),
    "safetensors": Surface("model/model-00001-of-00002.safetensors", "safetensors", Workshop.converted),
    "torch": Surface("torch/pytorch_model.bin", "front", Workshop.pickled),
    "gguf": Surface("tiny.gguf", "front", Workshop.gguf),
}


def _spoiled(kind: str, data: bytes, edits: list[Any]) -> bytes:
    """The file's bytes after the edits; their first item says whether they are of the kind or of plain bytes."""
    form, *rest = edits
    if form == "bytes" or kind in ("header", "front"):
        reach = {"header": HEADER_BYTES, "front": 4096}.get(kind, len(data))
        return edit_bytes(data[:reach], rest) + data[reach:]
    if kind == "program":
        return _with_header(data, edit_program(data[HEADER_BYTES:], rest))
    if kind == "safetensors":
        (length,) = struct.unpack("<Q", data[:8])
        text = json.dumps(edit_json(json.loads(data[8 : 8 + length]), rest)).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(text)) + text + data[8 + length :]
    return json.dumps(edit_json(json.loads(data), rest)).encode("utf-8", "surrogatepass")


def _put(path: Path, data: bytes) -> None:
    """Writes over what is there: a file system may take milliseconds to begin a file anew."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def _with_header(data: bytes, payload: bytes) -> bytes:
    """A header that fits the payload: length and CRC."""
    return data[:8] + struct.pack("<II", len(payload) // 64, zlib.crc32(payload)) + payload


def _attempt(work: Callable[[], Any]) -> Any:
    """The result, or the HyperdexError that came in its place."""
    try:
        return work()
    except HyperdexError as error:
        return error


def _read_all(checkpoint: Checkpoint, summary: ModelSummary) -> None:
    matrix_type_for(checkpoint, summary)
    for name in checkpoint.tensors:
        checkpoint.read(name)


def _write_gguf(path: Path) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", np.ones((3, 32), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---------------------------------------------------------------------------------------------------- limits
def _status(field: str) -> int:
    """A number of /proc/self/status, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))


def _start_of_peak() -> int:
    """Forgets the peak of the memory in use; returns what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def main_loop(root: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    estimate.MOST_EXECUTED = 10 * BUDGET
    for machine in (Machine, NativeMachine):
        machine.__init__.__kwdefaults__["budget"] = BUDGET
    shop = Workshop.build(root)
    shop.run()
    limit = _status("VmSize") + MOST_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"ready": list(SURFACES)}), file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        faulthandler.dump_traceback_later(case.get("seconds", 60), exit=True)
        answer = shop.try_case(case)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main_loop(Path(sys.argv[1]))
