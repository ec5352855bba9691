"""`hyperdex inspect`: numbers that add up, one screen, no weights and no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes import forked

from hyperdex_ir.errors import NotCompiledError
from hyperdex_ir.memory.serialize import read_map
from hyperdex_ir.performance.inspection import bar
from hyperdex_ir.runtime.inspect import inspect_model
from hyperdex_ir.tools import AutoCompiler

MAX_LENGTH, LAYERS = 300, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(tiny_llama_config(num_hidden_layers=LAYERS, max_position_embeddings=MAX_LENGTH), folder)
    AutoCompiler().compile(model_id=folder)
    for image in (folder / "param").iterdir():
        image.unlink()
    return folder


@pytest.fixture(scope="module")
def facts(model: Path) -> dict[str, Any]:
    return inspect_model(model)


def _inspect(model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.hyperdex("inspect", str(model), *arguments, env={**os.environ, "COLUMNS": "80"})


@pytest.mark.slow
def test_instructions_add_up(facts: dict[str, Any]) -> None:
    functions = facts["functions"]
    assert [(item["name"], item["runs"]) for item in functions] == [("main", 1), ("model.layers", LAYERS)]
    assert sum(item["instructions"] for item in functions) == facts["model"]["instructions"]
    for item in functions:
        assert sum(item["engines"].values()) == sum(item["groups"].values()) == item["instructions"]
    assert functions[1]["engines"]["SXE"] >= 6


def test_bytes_add_up(model: Path, facts: dict[str, Any]) -> None:
    memory, planned = facts["memory"], read_map(model / "config" / "config_1lpu_hbm.json")
    regions = memory["regions"]
    assert sum(regions.values()) == memory["used"] == planned.end
    assert regions["kv_cache"] == planned.main.cache_bytes + LAYERS * sum(
        part.cache_bytes for part in planned.functions.values()
    )
    parameters = sum(regions[name] for name in ("embedding", "matrix", "table", "vector"))
    assert parameters == planned.parameter_end
    assert min(regions.values()) > 0
    assert memory["per_channel"] == {name: size // 32 for name, size in regions.items()}


def test_the_lmu_is_used_as_far_as_it_is_allocated(facts: dict[str, Any]) -> None:
    lmu = facts["lmu"]
    assert 0 < lmu["peak"]["words"] <= lmu["allocated"] <= lmu["capacity"]
    assert lmu["peak"]["words"] > lmu["allocated"] / 2, "the rest is gaps between buffers"
    assert [len(part["used"]) for part in lmu["functions"]] == [item["instructions"] for item in facts["functions"]]
    assert max(max(part["used"]) for part in lmu["functions"]) == lmu["peak"]["words"]


def test_decode_slows_down_with_the_context(facts: dict[str, Any]) -> None:
    decode = facts["decode"]
    assert [row["context"] for row in decode] == [1, 128, MAX_LENGTH]
    cycles = [row["cycles"] for row in decode]
    assert cycles == sorted(cycles)
    for row in decode:
        assert row["tokens_per_second"] == pytest.approx(220e6 / row["cycles"], rel=1e-3)
        assert 0 < row["weight_share"] + row["kv_share"] <= row["busy"]["SMA"] <= 1


def test_one_screen(model: Path, facts: dict[str, Any]) -> None:
    result = _inspect(model)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert f"{facts['decode'][-1]['cycles']:,}" in result.stdout
    assert "model.layers" in result.stdout
    assert f"{facts['memory']['used']:,}" in result.stdout


def test_json(model: Path, facts: dict[str, Any]) -> None:
    result = _inspect(model, "--json", "--num_device", "1")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert {**found, "model": {**found["model"], "name": facts["model"]["name"]}} == facts


def test_needs_neither_torch_nor_weights(model: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom hyperdex_ir.runtime.inspect import inspect_model\n"
        f"inspect_model(Path({str(model)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'xdsl') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8")
    assert result.stdout.strip() == "[]"


def test_what_is_not_compiled(model: Path, tmp_path: Path) -> None:
    with pytest.raises(NotCompiledError, match="not compiled for 2 devices"):
        inspect_model(model, 2, "tiny")
    with pytest.raises(NotCompiledError, match="tiny: not compiled"):
        inspect_model(tmp_path, 1, "tiny")


def test_bars() -> None:
    assert bar([0, 1, 50, 100], 100) == " ▁▄█"
    assert bar([100, 0, 0, 0, 0, 50], 100, 3) == "█ ▄"
    assert len(bar([1] * 1000, 1)) == 48
