"""docs/files.md is complete and right: its own code reads compiled models and drives the interpreter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.models.architectures import CASES, write_case
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.page_code import python_blocks, read_page, run_blocks

from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.assembly import parse_program, print_instruction
from hyperdex_ir.isa.codec import decode, decode_program, encode_program, operand_places
from hyperdex_ir.memory.program_facts import ProgramFacts, facts_to_json
from hyperdex_ir.memory.serialize import read_map
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.files import Kind, write_binary
from hyperdex_ir.tools import AutoCompiler

PAGE = read_page("files.md")
page = run_blocks(python_blocks(PAGE))
TOKENS = [int(token) for token in np.random.default_rng(2).integers(0, 256, 75)]
MAX_LENGTH = 90
TYPES = {"f16": "<u2", "bf16": "<u2", "f32": "<f4", "i64": "<i8"}


def section(heading: str) -> str:
    """The page from a heading on, up to the next of the same level."""
    level = heading.split()[0]
    return re.split(rf"^{level} ", PAGE.split(f"\n{heading}\n")[1], flags=re.MULTILINE)[0]


def rows(heading: str) -> list[list[str]]:
    """Cells of the rows of a section's tables, heads left out."""
    lines = re.findall(r"^\|(.*)\|$", section(heading), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-"} and row[0] not in ("key", "bits", "byte", "what", "state")]


def text_blocks(heading: str) -> list[str]:
    return re.findall(r"^```text\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose sizes are no multiples of a tile, for one device and for two."""
    config = tiny_llama_config(hidden_size=152, num_hidden_layers=3)
    folder = write_checkpoint(config, tmp_path_factory.mktemp("llama"))
    for devices in (1, 2):
        AutoCompiler().compile(str(folder), num_device=devices, max_length=MAX_LENGTH)
    return folder


@pytest.fixture(scope="module")
def lfm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with slots of short convolutions."""
    folder = write_case(CASES["lfm2"], tmp_path_factory.mktemp("lfm2"), 0)
    AutoCompiler().compile(str(folder), max_length=MAX_LENGTH)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def memory_map(folder: Path, devices: int) -> dict[str, Any]:
    return read_json(folder / "config" / f"config_{devices}lpu_hbm.json")


def layout_of(folder: Path, devices: int) -> dict[str, Any]:
    place = folder / "ckpt" / "hyperdex_config.json" if devices == 1 else None
    return (read_json(place) if place else memory_map(folder, devices))["layout"]


def stored(layout: dict[str, Any]) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Number of the layer and parameter, in the order of the address space."""
    yield from ((None, parameter) for parameter in layout["main"]["parameters"])
    for number, function in enumerate(layout["layers"]):
        yield from ((number, parameter) for parameter in layout["functions"][function]["parameters"])


# ------------------------------------------------------------------------------------------------ binary files


def test_the_file_shown_is_that_of_one_halt(tmp_path: Path) -> None:
    shown = "".join(line.split("     ")[0] for line in text_blocks("## Binary files")[0].splitlines())
    payload = encode_program(parse_program("main:\n    halt\n").instructions)
    write_binary(tmp_path / "halt.bin", Kind.INSTRUCTIONS, payload)
    assert bytes.fromhex(shown) == (tmp_path / "halt.bin").read_bytes()


@pytest.mark.slow
def test_every_binary_file_has_the_header(llama: Path) -> None:
    kinds = {"inst": page.PROGRAM, "param": page.IMAGE, "ckpt": page.CHECKPOINT}
    paths = sorted(llama.rglob("*.bin"))
    assert len(paths) == 2 + 3 * 32 + 1
    for path in paths:
        page.read_binary(path, kinds[path.parent.name])
    fields = {row[0]: row for row in rows("## Binary files")}
    assert [(byte, fields[byte][1]) for byte in fields] == [("0", "4"), ("4", "2"), ("6", "2"), ("8", "4"), ("12", "4")]


def test_the_word_shown_is_the_instruction_shown() -> None:
    word = bytes.fromhex(text_blocks("### One word, field by field")[0])
    (text,) = re.findall(r"^```asm\n(.*)\n```", section("### One word, field by field"), re.MULTILINE)
    instruction = decode(word)
    assert print_instruction(instruction) == text
    fields: list[tuple[int, int, str]] = []
    for place, name, value, *_ in rows("### One word, field by field"):
        high, low = (int(place.split(":")[0]), int(place.split(":")[-1]))
        assert page.bits(word, high, low) == int(value, 0), name
        fields.append((high, low, name.strip("`")))
    assert [low for _, low, _ in fields] == [0, *(high + 1 for high, _, _ in fields[:-1])]
    assert fields[-1][0] == 511
    expected = [
        (place.high, place.low, place.field.name)
        for operand in operand_places(instruction.spec)
        for place in ([operand.present] if operand.present else []) + list(operand.fields)
    ]
    assert fields[1:-1] == expected


def test_instructions_lie_where_the_page_says(llama: Path) -> None:
    data = (llama / "inst" / "inst_1lpu.bin").read_bytes()
    program = decode_program(data[16:])
    origins = read_json(llama / "inst" / "inst_1lpu.json")["origins"]
    assert [entry["index"] for entry in origins] == list(range(len(program.instructions)))
    for number, instruction in enumerate(program.instructions):
        word = data[16 + 64 * number : 16 + 64 * number + 64]
        assert page.bits(word, 7, 0) == instruction.spec.opcode


# ------------------------------------------------------------------------------------------------ parameters


def test_the_example_of_the_formulas() -> None:
    lines = text_blocks("### From an element of a matrix to an HBM address")[1].splitlines()
    shown = {line.split("=")[0].strip(): int(line.split("=")[-1]) for line in lines}
    offset = page.element(21, 70, 96, 16)
    channel, in_image = page.place(0x22000 + offset, 32)
    assert shown == {
        "steps": 2,
        "tile": offset // 2048,
        "element": offset // 2,
        "offset in the matrix": offset,
        "address": 0x22000 + offset,
        "channel": channel,
        "offset in the image": in_image,
        "byte of the file": in_image + 16,
    }
    assert channel == 2 * (21 % 16) + 70 % 64 // 32


def converted(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the converted checkpoint, matrices by their bits."""
    payload = page.read_binary(folder / "ckpt" / "hyperdex_model.bin", page.CHECKPOINT)
    tensors = {}
    for entry in read_json(folder / "ckpt" / "hyperdex_config.json")["tensors"]:
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(payload, TYPES[entry["dtype"]], count, entry["offset"])
        tensors[entry["name"]] = values.reshape(entry["shape"])
    return tensors


def held(parameter: dict[str, Any], tensors: dict[str, np.ndarray], device: int, layer: int | None) -> np.ndarray:
    """Part of a parameter that a device holds, cut from whole tensors."""
    parts = []
    for number, key in enumerate(parameter["keys"]):
        tensor = tensors[key.replace("*", str(layer))]
        if shards := parameter.get("shards"):
            shard = shards[number]
            start = shard["starts"][device]
            stop = min(start + shard["size"], shard["extent"])
            tensor = tensor.take(range(start, stop), axis=shard["dim"])
            padding = [(0, 0)] * tensor.ndim
            padding[shard["dim"]] = (0, shard["size"] - (stop - start))
            tensor = np.pad(tensor, padding)
        parts.append(tensor)
    return np.concatenate(parts)


def checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the original checkpoint, f16: matrices by their bits, everything else widened to f32."""
    tensors = load_file(folder / "model.safetensors")
    return {name: value.view("<u2") if value.ndim == 2 else value.astype("<f4") for name, value in tensors.items()}


@pytest.mark.parametrize(("devices", "device"), [(1, 0), (2, 0), (2, 1)])
def test_images_hold_the_checkpoint_and_zeros(llama: Path, devices: int, device: int) -> None:
    config, layout = memory_map(llama, devices), layout_of(llama, devices)
    images = page.read_images(llama, devices, device, config["target"]["channels"])
    space, trees = page.parameters(images), config["target"]["trees"]
    assert images.shape == (2 * trees, config["parameter_end"] // (2 * trees))
    originals = checkpoint(llama)
    table = "model.rotary_emb.table"
    tensors = originals | {table: converted(llama)[table]}
    rest, compared, address = space.copy(), set(), 0
    for layer, parameter in stored(layout):
        name = parameter["name"].replace("*", str(layer))
        assert config["addresses"][name] == address, name
        expected = held(parameter, tensors, device, layer)
        assert list(expected.shape) == parameter["shape"]
        if parameter["dtype"] == "f16":
            n, k = parameter["shape"]
            found = page.read_matrix(images, address, n, k)
            offsets = address + page.element(np.arange(n)[:, None], np.arange(k)[None, :], k, trees)
            rest[offsets] = rest[offsets + 1] = 0
        else:
            found = page.read_array(images, address, parameter["shape"], TYPES[parameter["dtype"]])
            rest[address : address + found.nbytes] = 0
        assert found.tobytes() == np.ascontiguousarray(expected).tobytes(), name
        compared |= {key.replace("*", str(layer)) for key in parameter["keys"]}
        address += page.parameter_bytes(parameter["dtype"], parameter["shape"], trees)
    assert compared == originals.keys() | {table}
    assert address == config["parameter_end"]
    assert not rest.any()


def test_the_converted_checkpoint_is_as_the_page_says(llama: Path) -> None:
    found, originals = converted(llama), checkpoint(llama)
    for layer, parameter in stored(layout_of(llama, 1)):
        if parameter["keys"] != ["model.rotary_emb.table"]:
            name = parameter["name"].replace("*", str(layer))
            assert found[name].tobytes() == held(parameter, originals, 0, layer).tobytes()


# ------------------------------------------------------------------------------------------------ memory map


@pytest.mark.parametrize("devices", [1, 2])
def test_the_map_follows_from_the_layout(llama: Path, devices: int) -> None:
    check_map(memory_map(llama, devices), layout_of(llama, devices))


@pytest.mark.slow
def test_the_map_of_a_model_with_convolutions(lfm2: Path) -> None:
    check_map(memory_map(lfm2, 1), layout_of(lfm2, 1))


def check_map(config: dict[str, Any], layout: dict[str, Any]) -> None:
    """Computes every place of a memory map anew, by the page's text and functions."""
    trees, length, vocabulary = config["target"]["trees"], config["max_length"], config["vocab_size"]
    assert config["target"]["channels"] == 2 * trees
    layers = [layout["functions"][number] for number in layout["layers"]]
    parts = {"main": config["main"], **config["functions"]}
    for function in (layout["main"], *layout["functions"]):
        part = parts[function["name"]]
        sizes = [page.parameter_bytes(one["dtype"], one["shape"], trees) for one in function["parameters"]]
        names = [one["name"] for one in function["parameters"]]
        assert part["parameters"] == {name: sum(sizes[:number]) for number, name in enumerate(names)}
        assert part["parameter_bytes"] == sum(sizes)
        slots = [page.slot_bytes(slot, length, trees) for slot in function["caches"]]
        assert part["cache_bytes"] == sum(slots)
        for number, (slot, place) in enumerate(zip(function["caches"], part["caches"], strict=True)):
            assert place == slot_place(slot, sum(slots[:number]), length, trees)
    expected = {"layer_start": config["main"]["parameter_bytes"]}
    expected["parameter_end"] = sum(parts[one["name"]]["parameter_bytes"] for one in (layout["main"], *layers))
    expected["kv_start"] = expected["parameter_end"]
    expected["kv_layer_start"] = expected["kv_start"] + config["main"]["cache_bytes"]
    expected["tokens"] = expected["kv_layer_start"] + sum(parts[one["name"]]["cache_bytes"] for one in layers)
    expected["sampling"] = expected["tokens"] + page.stripes(8 * 256, trees)
    expected["logits"] = expected["sampling"] + page.stripes(64 + vocabulary, trees)
    expected["end"] = expected["logits"] + page.stripes(4 * 256 * vocabulary, trees)
    assert {key: config[key] for key in expected} == expected


def slot_place(slot: dict[str, Any], start: int, length: int, trees: int) -> dict[str, int]:
    if "rows" in slot:
        return {"offset": start, "size": page.slot_bytes(slot, length, trees)}
    key_pitch = page.matrix_bytes(length, slot["key_size"], trees)
    value_pitch = page.matrix_bytes(slot["value_size"], length, trees)
    value = start + slot["heads"] * key_pitch
    return {"key_offset": start, "key_pitch": key_pitch, "value_offset": value, "value_pitch": value_pitch}


# ------------------------------------------------------------------------------------------------ JSON keys

KINDS = {"integer": int, "number": (int, float), "text": str, "object": dict}


def is_of_kind(value: object, kind: str) -> bool:
    if kind.startswith("list"):
        return isinstance(value, list) or (kind.endswith("null") and value is None)
    return isinstance(value, KINDS[kind]) and not isinstance(value, bool)


def parts_of(key: str) -> tuple[str, ...]:
    """`a.{b}[].c` as its parts."""
    return tuple(key.replace("[]", ".[]").split("."))


def leaves(
    value: Any, path: tuple[str, ...], known: dict[tuple[str, ...], str]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The listed key and value of each part of a JSON value that the page lists; fails for what it does not list."""
    if path in known:
        yield path, value
        return
    inside = value.items() if isinstance(value, dict) else (("[]", one) for one in value or ())
    assert isinstance(value, dict | list | None), f"{path}: not on the page"
    for name, one in inside:
        following = {key[len(path)] for key in known if key[: len(path)] == path and len(key) > len(path)}
        wild = next((part for part in sorted(following) if part.startswith("{")), name)
        yield from leaves(one, (*path, name if name in following else wild), known)


_OF_A_WRAPPER = ProgramFacts(4, 4, 64, 8, "f16", "u55c", 300, {"image_token_id": 250})


def test_the_keys_of_json_files_are_those_of_the_page(llama: Path, lfm2: Path) -> None:
    files = {
        "## `config/config_{n}lpu_hbm.json`: the memory map": "config/config_?lpu_hbm.json",
        "## `inst/inst_{n}lpu.json`: limits and origins": "inst/inst_?lpu.json",
        "## `manifest.json`": "manifest.json",
        "## The converted checkpoint": "ckpt/hyperdex_config.json",
    }
    tables: dict[str, dict[tuple[str, ...], str]] = {}
    seen: dict[str, set[tuple[str, ...]]] = {}
    for heading, pattern in files.items():
        tables[heading] = {parts_of(row[0].rstrip(" *").strip("`")): row[1] for row in rows(heading)}
        paths = [path for folder in (llama, lfm2) for path in sorted(folder.glob(pattern))]
        assert paths
        seen[heading] = {key for path in paths for key in check_keys(read_json(path), tables[heading], path.name)}
    (layouts,) = [heading for heading in files if "converted" in heading]
    divided = {"layout": layout_of(llama, 2)}
    seen[layouts] |= check_keys(divided, tables[layouts], "layout of two devices")
    (limits,) = [heading for heading in files if "limits" in heading]
    seen[limits] |= check_keys(facts_to_json(_OF_A_WRAPPER, []), tables[limits], "limits of a model of images")
    for heading, known in tables.items():
        assert seen[heading] == known.keys(), heading


def check_keys(value: dict[str, Any], known: dict[tuple[str, ...], str], name: str) -> set[tuple[str, ...]]:
    """The keys of a file, each listed and of the kind listed."""
    seen = set()
    for key, leaf in leaves(value, (), known):
        assert is_of_kind(leaf, known[key]), f"{name}: {key} is {leaf!r}"
        seen.add(key)
    return seen


# ------------------------------------------------------------------------------------------------ the host


class Lpu:
    """The device that the page's host talks to: the interpreter, with an HBM that the page's reader has filled."""

    def __init__(self, folder: Path):
        config, limits = memory_map(folder, 1), read_json(folder / "inst" / "inst_1lpu.json")
        self._map = read_map(folder / "config" / "config_1lpu_hbm.json")
        hbm = Hbm(self._map)
        images = page.read_images(folder, 1, 0, config["target"]["channels"])
        hbm.bytes[: config["parameter_end"]] = page.parameters(images)
        program = decode_program(page.read_binary(folder / "inst" / "inst_1lpu.bin", page.PROGRAM))
        words = config["target"]["lmu_bytes"] // 4
        self._machine = Machine(program, hbm, chunk=limits["chunk"], lmu_words=words)
        self.registers: dict[int, int] = {}
        self.steps = 0

    @property
    def flag(self) -> bool:
        return self._machine.fault is not None

    @flag.setter
    def flag(self, value: bool) -> None:
        assert not value
        self._machine.clear()

    def write(self, address: int, data: bytes) -> None:
        self._machine.write_hbm(address, np.frombuffer(data, np.int64))

    def read(self, address: int, size: int) -> bytes:
        return self._machine.read_hbm(address, (size // 4,), np.float32).tobytes()

    def run(self) -> None:
        """A step. What the machine's own host writes before one is what the page's host has written."""
        hbm, count = self._machine.hbm.bytes, self.registers[1]
        tokens = hbm[self._map.tokens : self._map.tokens + 8 * count].view("<i8").tolist()
        written = hbm.copy()
        self._machine.start(tokens, self.registers[2], self.registers[3])
        found = {number: value for number, value in enumerate(self._machine.registers) if value is not None}
        assert found == self.registers | {0: 0}
        assert np.array_equal(hbm, written)
        assert self._machine.resume() == "halt"
        self.registers = {7: self._machine.registers[7] or 0}
        self.steps += 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama", "lfm2"])
def test_the_host_of_the_page_gets_the_logits_and_the_text(model: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(model)
    config, limits = memory_map(folder, 1), read_json(folder / "inst" / "inst_1lpu.json")
    compiled, lpu = CompiledModel.open(folder, engine="interpreter"), Lpu(folder)
    page.begin_text(lpu, config)
    step = min(limits["chunk"], limits["head_rows"])
    parts = [page.run_step(lpu, config, TOKENS[at : at + step], at, 0)[0] for at in range(0, len(TOKENS), step)]
    assert np.concatenate(parts).tobytes() == compiled.logits(TOKENS).tobytes()
    tokens = page.generate(lpu, config, limits, TOKENS, 5)
    assert tuple(tokens) == compiled.generate(TOKENS, 5).tokens
    assert lpu.steps == 2 * -(-len(TOKENS) // step) + 4


def test_programs_print_and_assemble_as_the_page_says(llama: Path) -> None:
    (shown,) = re.findall(r"^```asm\n(.*?)^```", section("## The text form"), re.MULTILINE | re.DOTALL)
    assert [one.name for one in parse_program(shown).instructions][-2:] == ["rms_norm", "ret"]
    assert len(parse_program("a: b.c$:  ; two labels\n halt ; the end\n").instructions) == 1
