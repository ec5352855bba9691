"""`hyperdex plan` foretells what a compile then writes, without weights and without writing anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint

from hyperdex_ir.cli.main import main
from hyperdex_ir.runtime.inspect import inspect_model
from hyperdex_ir.support.files import HEADER_BYTES
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("plan") / "model")


@pytest.mark.parametrize("count", [1, 2])
def test_the_plan_is_what_the_compile_makes(checkpoint: Path, tmp_path: Path, count: int) -> None:
    planned = AutoCompiler().plan(str(checkpoint), num_device=count, max_length=77)
    compiled = AutoCompiler().compile(str(checkpoint), num_device=count, max_length=77, output_dir=tmp_path)
    found = inspect_model(tmp_path, count, str(checkpoint))
    assert {key: planned[key] for key in found} == found
    images = [path.stat().st_size - HEADER_BYTES for path in compiled.parameters]
    assert planned["host"]["image_bytes"] == sum(images)
    assert planned["device"]["parameter_bytes_of_a_channel"] == images[0]
    assert planned["host"]["checkpoint_bytes"] == (checkpoint / "model.safetensors").stat().st_size
    assert compiled.model is not None
    written = compiled.model.stat().st_size
    assert planned["host"]["converted_bytes"] <= written <= 1.1 * planned["host"]["converted_bytes"] + 4096


def test_nothing_is_written(checkpoint: Path) -> None:
    before = sorted(checkpoint.rglob("*"))
    AutoCompiler().plan(str(checkpoint))
    assert sorted(checkpoint.rglob("*")) == before


def write_config(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 2,
        "num_attention_heads": 64, "intermediate_size": 28672, "vocab_size": 32000, "max_position_embeddings": 256,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


def test_a_config_alone_will_do(tmp_path: Path) -> None:
    facts = AutoCompiler().plan(str(write_config(tmp_path / "model")))
    assert facts["device"]["fits"]
    assert facts["device"]["longest_context"] == 256
    kv_elements = 2 * 2 * 64 * 128  # keys and values of two layers
    assert facts["device"]["kv_bytes_of_a_token"] == 2 * kv_elements
    assert facts["host"]["checkpoint_bytes"] == 0


def test_what_does_not_fit_has_sizes_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_config(tmp_path / "model", num_hidden_layers=12)
    facts = AutoCompiler().plan(str(folder))
    assert not facts["device"]["fits"]
    assert facts["device"]["longest_context"] == 0
    assert facts["device"]["needed_bytes"] > facts["device"]["hbm_bytes"] > 0
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(folder)])
    assert ended.value.code == 0
    assert "together, with input and output (does not fit)" in capsys.readouterr().out


def test_a_length_that_was_not_chosen_is_what_fits(tmp_path: Path) -> None:
    """A quarter of a million positions of 64 kB each are more than what is left of the 16 GiB of u55c."""
    folder = write_config(tmp_path / "model", max_position_embeddings=1 << 18)
    facts = AutoCompiler().plan(str(folder))
    assert facts["device"]["fits"]
    assert facts["model"]["max_length"] == facts["device"]["longest_context"] < 1 << 18
    more = AutoCompiler().plan(str(folder), max_length=facts["device"]["longest_context"] + 1)
    assert not more["device"]["fits"]


def test_an_unsupported_model_has_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_config(tmp_path / "model", architectures=["T5ForConditionalGeneration"], model_type="t5")
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(folder), "--json"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["supported"] is False
    assert "T5ForConditionalGeneration" in facts["reason"]
    assert printed.err.startswith("error[HDX0103]: ")
