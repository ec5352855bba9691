"""A compiled model that somebody has changed, hashes and all: one case of each; `test_hostile_files.py` draws many."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models.program_mutations import Code, edit_on_disk
from support.models.tiny import tiny_llama_config, write_checkpoint

from hyperdex_ir.backend.clean import clean_folder
from hyperdex_ir.backend.state import STATE_FILE, State
from hyperdex_ir.backend.status import status
from hyperdex_ir.checkpoint.gguf_header import architecture_of
from hyperdex_ir.cli.main import main
from hyperdex_ir.errors import CheckpointError, FileFormatError, MachineFault
from hyperdex_ir.isa.operands import LmuRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.isa.structure import fewest_executed
from hyperdex_ir.runtime.executors import EXECUTORS
from hyperdex_ir.runtime.inspect import inspect_model
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.locations import find_folder
from hyperdex_ir.tools import AutoCompiler

ORIGINS, MAP = "inst/inst_1lpu.json", "config/config_1lpu_hbm.json"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_checkpoint(tiny_llama_config(num_hidden_layers=1), tmp_path_factory.mktemp("compiled") / "model")
    AutoCompiler().compile(str(model), max_length=20)
    return model


@pytest.fixture
def model(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "model"))


def change(model: Path, name: str, edit: Callable[[Any], object]) -> None:
    """Edits a JSON file of the model; the manifest lists what comes of it."""
    path, manifest = model / name, model / "manifest.json"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    if path != manifest:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        change(model, "manifest.json", lambda m: m["devices"]["1"]["files"][name].update(sha256=sha256))


#: A file, what is done to it, and what opening the model says of that.
TABLES: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "chunk of text": (ORIGINS, lambda v: v.update(chunk="64"), "chunk is '64', expected a whole number in 1..256"),
    "huge chunk": (ORIGINS, lambda v: v.update(chunk=1 << 40), "chunk is 1099511627776, expected"),
    "more rows than tokens": (ORIGINS, lambda v: v.update(head_rows=257), "head_rows is 257, expected"),
    "another type": (ORIGINS, lambda v: v.update(matrix_type=None), "matrix_type is None, expected one of f16, bf16"),
    "no chunk": (ORIGINS, lambda v: v.pop("chunk"), "says nothing of chunk"),
    "an origin too few": (ORIGINS, lambda v: v["origins"].pop(), "origins of"),
    "an origin of numbers": (ORIGINS, lambda v: v["origins"][0].update(op=3), "op is 3, expected text"),
    "an address of text": (MAP, lambda v: v.update(tokens="0"), "tokens is '0', expected a whole number"),
    "channels": (MAP, lambda v: v["target"].update(channels=1 << 30), "target.channels is 1073741824, expected"),
    "an HBM that gives nothing": (MAP, lambda v: v["target"].update(hbm_bytes_per_second=1), "gives no byte a cycle"),
    "a number that is none": ("manifest.json", lambda v: v["devices"].update(x={"files": {}}), "'x' devices"),
    "options of text": ("manifest.json", lambda v: v["devices"]["1"].update(options="none"), "options is 'none'"),
    "a target in colour": ("manifest.json", lambda v: v["devices"]["1"].update(target="\x1b[31m"), "expected text"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_somebody_has_changed(case: str, model: Path) -> None:
    name, edit, message = TABLES[case]
    change(model, name, edit)
    for engine in EXECUTORS:
        with pytest.raises(FileFormatError) as caught:
            CompiledModel.open(model, engine=engine)
        assert message in str(caught.value)
        assert str(caught.value).startswith(str(model / name))


def test_a_manifest_of_sizes_that_are_none(model: Path) -> None:
    change(model, "manifest.json", lambda m: m["devices"]["1"]["files"][ORIGINS].update(bytes="many"))
    assert status(find_folder(model))["devices"]["1"]["bytes"] > 0
    with pytest.raises(SystemExit):
        main(["check", str(model)])


def test_a_program_that_does_not_end(model: Path) -> None:
    """Two thousand million trips: refused when it is opened, not after minutes."""

    def edit(code: Code, origins: object) -> None:
        last = next(index for index, item in enumerate(code) if item.name == "halt")
        code[last - 2] = Instruction("repeat", {"count": 1 << 31, "length": 1})
        code[last - 1] = Instruction("set", {"dst": 9, "value": 0})

    edit_on_disk(model, edit)
    for engine in EXECUTORS:
        with pytest.raises(FileFormatError, match=r"a step of 214748\d{4} instructions, the machine executes 20000000"):
            CompiledModel.open(model, engine=engine)


def test_fewest_executed() -> None:
    def op(name: str, **values: int) -> Instruction:
        return Instruction(name, values)

    program = [
        op("repeat", count=10, length=3), op("call", target=8), op("skip_unless", a=1, value=1, length=1), op("set"),
        op("repeat_rows", rows=1, length=1), op("set"), op("call", target=8), op("halt"), op("set"), op("ret"),
    ]  # fmt: skip
    assert fewest_executed(program) == 1 + 10 * (1 + 2 + 1) + 1 + 1 + 1 + 2 + 1


def test_what_the_machine_would_not_execute_is_not_estimated(model: Path) -> None:
    def edit(code: Code, origins: object) -> None:
        index, item = next((index, item) for index, item in enumerate(code) if item.name == "rms_norm")
        source: Any = item["a"]
        code[index] = Instruction(item.name, {**item.values, "a": type(source)((1 << 24) - 1, 64, 64, 1)})

    edit_on_disk(model, edit)
    with pytest.raises(FileFormatError, match=r"instruction \d+ \(rms_norm\): LMU words 16777215 to"):
        inspect_model(model)
    with pytest.raises(MachineFault, match=r"instruction \d+ \(rms_norm\) of .*: LMU words 16777215 to"):
        CompiledModel.open(model).forward([1], 0)


def test_logits_that_nothing_wrote(model: Path) -> None:
    def edit(code: Code, origins: object) -> None:
        for index, item in enumerate(code):
            if item.name == "store":
                code[index] = Instruction("load", {"dst": LmuRef(0), "src": item["dst"], "columns": 0})

    edit_on_disk(model, edit)
    with pytest.raises(MachineFault, match=r"what the program leaves: HBM bytes .* that nothing has written"):
        CompiledModel.open(model, engine="interpreter").forward([1], 0)


def test_an_image_that_becomes_shorter(model: Path) -> None:
    """Mapped memory behind a file's end: touching it would end the process."""
    opened = CompiledModel.open(model)
    opened.forward([1], 0)
    path = model / "param" / "param_1lpu_00_03.bin"
    size = path.stat().st_size
    os.truncate(path, 16)
    with pytest.raises(FileFormatError, match=rf"param_1lpu_00_03\.bin: 16 bytes, {size} when the model was opened"):
        opened.forward([1], 0)


@pytest.mark.parametrize("name", ["../precious", "/etc/hostname", "a/../../precious", "", "x" * 300, "a\0b", "\ud800"])
def test_a_state_that_lists_files_of_others(name: str, model: Path) -> None:
    precious = model.parent / "precious"
    precious.write_text("mine")
    state = json.loads((model / STATE_FILE).read_text())
    phase = next(iter(state["phases"]))
    state["phases"][phase]["files"][name] = 4
    (model / STATE_FILE).write_text(json.dumps(state))
    assert phase not in State.load(model).phases
    clean_folder(find_folder(model), compiled=True, dry_run=False)
    assert precious.read_text() == "mine"


@pytest.mark.slow
def test_verify_says_what_is_wrong(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / MAP).write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(model), "--tokens", "1,2"])
    assert ended.value.code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error[")]
    assert len(errors) == 1
    assert "corrupted (its hash is not the manifest's)" in errors[0]


#: A header of no fields and no tensors, and what follows it.
GGUF: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot mmap an empty file"),
    "other": (b"GGML" + bytes(20), "magic b'GGML' and version 0"),
    "short": (b"GGUF\3\0\0\0", "header ends at byte 24, the file has 8"),
    "tensors": (b"GGUF\3\0\0\0" + b"\xff" * 7 + b"\0" + bytes(8), "name of tensor 0 ends at byte 32"),
    "name": (b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\xff" * 8, "ends at byte 18446744073709551647"),
    "no text": (b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\1" + bytes(7) + b"\xff", "field 0 is no text"),
    "type": (b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(15) + b"\x63\0\0\0", "field 0 is of type 99"),
    "array": (
        b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(15) + b"\x09\0\0\0\0\0\0\0" + b"\xff" * 5 + bytes(3),
        "field 0 is an array of 1099511627775 elements",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUF)
def test_gguf_headers(case: str, tmp_path: Path) -> None:
    content, message = GGUF[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        architecture_of(path)
    assert str(caught.value).startswith(f"{path}: not a readable GGUF file: ")
    assert message in str(caught.value)
