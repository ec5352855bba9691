"""docs/tour.md and the README show what their commands print; the tour's functions are what the machine computes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tour
from support.page_code import python_blocks, read_page, run_blocks

from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.codec import decode_program
from hyperdex_ir.memory.serialize import read_map

pytestmark = pytest.mark.slow

PAGE = read_page("tour.md")
files = run_blocks(python_blocks(read_page("files.md")))
shown = run_blocks(python_blocks(PAGE)[1:])
TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, 272, 70)]


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, str]]:
    """The folder in which the commands of the pages have run, and the pages as they should be."""
    folder = tmp_path_factory.mktemp("tour")
    return folder, tour.build(folder)


@pytest.fixture(scope="module")
def tiny(toured: tuple[Path, dict[Path, str]]) -> Path:
    return toured[0] / "tiny"


def test_the_pages_show_what_their_commands_print(toured: tuple[Path, dict[Path, str]]) -> None:
    assert len(toured[1]) == 2
    for path, text in toured[1].items():
        assert path.read_text(encoding="utf-8") == text, "run: python tests/docs/tour.py --write"


def weight_of(tiny: Path) -> np.ndarray:
    """The matrix of layer 0's down_proj, f16, read by docs/files.md."""
    images = files.read_images(tiny, 1, 0, 32)
    config = json.loads((tiny / "config" / "config_1lpu_hbm.json").read_text())
    return files.read_matrix(images, config["addresses"]["model.layers.0.mlp.down_proj.weight"], 64, 96).view("f2")


def test_the_table_of_places_is_right(tiny: Path) -> None:
    rows = re.findall(
        r"^\| \[(\d+), (\d+)\] \| (\d+) \| (\d+) \| (\d+) \| tree (\d+), lane (\d+), cycle (\d+)", PAGE, re.M
    )
    assert len(rows) == 5
    config = json.loads((tiny / "config" / "config_1lpu_hbm.json").read_text())
    start = config["addresses"]["model.layers.0.mlp.down_proj.weight"]
    for cells in rows:
        row, column, address, channel, byte, tree, lane, cycle = map(int, cells)
        offset = files.element(row, column, 96, 16)
        assert address == start + offset
        assert (channel, byte - 16) == files.place(address, 32)
        assert (tree, lane, cycle) == (row % 16, column % 64, offset // 2048)


class Watcher:
    """The interpreter over the prompt in one step, which compares instructions of layer 0 with the page's functions."""

    def __init__(self, tiny: Path):
        memory_map = read_map(tiny / "config" / "config_1lpu_hbm.json")
        images = [tiny / "param" / f"param_1lpu_00_{channel:02x}.bin" for channel in range(32)]
        program = decode_program(files.read_binary(tiny / "inst" / "inst_1lpu.bin", files.PROGRAM))
        words = memory_map.target.lmu_words
        self.machine = Machine(program, Hbm.from_images(images, memory_map), chunk=128, lmu_words=words)
        self.machine.write_hbm(memory_map.sampling, np.frombuffer(files.GREEDY + bytes(272), np.int64))
        self.machine.on_instruction = self.see
        self.names = [instruction.name for instruction in program.instructions]
        origins = json.loads((tiny / "inst" / "inst_1lpu.json").read_text())["origins"]
        self.paths = [entry["path"] for entry in origins]
        self.weight = weight_of(tiny)
        self.seen: list[str] = []
        self.machine.run(TOKENS, 0, 0)

    def see(self, index: int, operands: Mapping[str, Any]) -> None:
        if self.machine.layer != 0:
            return
        if self.paths[index].endswith("down_proj"):
            self.check_down_proj(operands)
        if self.names[index] in ("scores", "values"):
            getattr(self, f"check_{self.names[index]}")(operands)

    def rows(self, reference: Any, columns: int) -> np.ndarray:
        return self.machine.state.read_rows(reference, len(TOKENS), columns)

    def seen_columns(self, reference: Any, row: int) -> np.ndarray:
        """The columns of a row of scores or weights that it sees."""
        start = reference.address + reference.stride * row
        return self.machine.state.lmu.read(start, (row + 1,), (1,))

    def cache(self, reference: Any, n: int, k: int) -> np.ndarray:
        """A matrix of the KV cache, f16, read by docs/files.md."""
        space = self.machine.hbm.bytes
        channels = space[: len(space) // 2048 * 2048].reshape(-1, 32, 64).transpose(1, 0, 2).reshape(32, -1)
        return files.read_matrix(channels, self.machine.state.address(reference), n, k).view("f2")

    def check_down_proj(self, v: Mapping[str, Any]) -> None:
        inputs, residuals, outputs = self.rows(v["src"], 96), self.rows(v["plus"], 64), self.rows(v["dst"], 64)
        for x, residual, output in zip(inputs, residuals, outputs, strict=True):
            assert shown.down_proj(self.weight, x, residual).tobytes() == output.tobytes()
        self.seen.append("down_proj")

    def check_scores(self, v: Mapping[str, Any]) -> None:
        keys, queries = self.cache(v["cache"], 128, 16), self.rows(v["query"], 16)
        for row, query in enumerate(queries):
            expected = shown.scores(keys[: row + 1], query, v["scale"])
            assert expected.tobytes() == self.seen_columns(v["dst"], row).tobytes()
        self.seen.append("scores")

    def check_values(self, v: Mapping[str, Any]) -> None:
        cache, outputs = self.cache(v["cache"], 16, 128), self.rows(v["dst"], 16)
        for row, output in enumerate(outputs):
            weights = self.seen_columns(v["src"], row)
            assert shown.values(cache[:, : row + 1], weights).tobytes() == output.tobytes()
        self.seen.append("values")


def test_the_functions_of_the_page_are_what_the_machine_computes(tiny: Path) -> None:
    assert Watcher(tiny).seen == [*["scores", "values"] * 4, "down_proj"]
