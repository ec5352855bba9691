"""Imported modules that are kept: what takes them traces nothing, and has what a trace would have given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from transformers import GPT2Config

from hyperdex_ir.errors import OptionError
from hyperdex_ir.frontend import model
from hyperdex_ir.frontend.model import ImportedModel, trace_model
from hyperdex_ir.support.locations import module_cache
from hyperdex_ir.support.xdsl import print_module
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "dynamic": {"factor": 2.0},
    "longrope": {
        "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + i for i in range(8)],
        "original_max_position_embeddings": 64, "factor": 2.0,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))


def imported(folder: Path, length: int = 40, matrix_type: str = "f16", **choices: Any) -> ImportedModel:
    return trace_model(folder, target="u55c", max_length=length, matrix_type=matrix_type, **choices)


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("traced anew")


def facts(one: ImportedModel) -> Any:
    derived = {key: (value.dtype, value.shape, value.tobytes()) for key, value in one.derived.items()}
    names = {name: value for name, value in vars(one.names).items() if name != "transforms"}
    kept = {key: value for key, value in derived.items() if key in one.derived.parameters}
    return print_module(one.module, locations=True), kept, one.derived.choices(), one.sources, one.transposed, names


@pytest.mark.parametrize("rule", ROPES)
def test_another_length_has_what_a_trace_would_have_given(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_llama_config(rope_parameters={"rope_type": rule, "rope_theta": 1e4} | ROPES[rule])
    config.save_pretrained(tmp_path / "model")
    anew = model.trace_anew(tmp_path / "model", "LlamaForCausalLM", "f16")
    expected = [facts(anew.at(length, "u55c")) for length in (40, 100)]
    with monkeypatch.context() as patch:
        patch.setattr(model, "trace_anew", lambda *_: anew)
        assert facts(imported(tmp_path / "model")) == expected[0]
    monkeypatch.setattr(model, "trace_anew", refuse)
    assert [facts(imported(tmp_path / "model", length)) for length in (40, 100)] == expected
    assert f"tensor<{100}x2x16xf32>" in expected[1][0]


@pytest.mark.parametrize("outlined", [True, False])
@pytest.mark.parametrize("config", [tiny_opt_config(), GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64)])
def test_names_and_transposed_matrices(
    config: Any, outlined: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.architectures = config.architectures or ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path / "model")
    expected = facts(imported(tmp_path / "model", outlined=outlined))
    monkeypatch.setattr(model, "trace_anew", refuse)
    assert facts(imported(tmp_path / "model", outlined=outlined)) == expected
    with pytest.raises(OptionError, match=r"max_length 1000: the model has learned \d+ positions \(.*embed|wpe"):
        imported(tmp_path / "model", 1000, outlined=outlined)


def test_what_shapes_no_module_is_no_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(**fields: Any) -> Path:
        folder = tmp_path / "model"
        tiny_llama_config().save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text()) | fields
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    one = imported(write())
    traced: list[str] = []

    def trace_anew(*_: Any) -> ImportedModel:
        traced.append("")
        return one

    monkeypatch.setattr(model, "trace_anew", trace_anew)
    imported(write(_name_or_path="a fine-tune", transformers_version="5.0", torch_dtype="bfloat16", eos_token_id=7))
    assert not traced
    for count, fields in enumerate(({"hidden_act": "gelu"}, {"transformers_version": 5}, {"rms_norm_eps": 0.5}), 1):
        imported(write(**fields))
        assert len(traced) == count
    imported(write(), matrix_type="bf16")
    assert len(traced) == 4


def test_an_entry_that_is_not_whole_is_made_anew(tmp_path: Path) -> None:
    tiny_llama_config().save_pretrained(tmp_path / "model")
    expected = facts(imported(tmp_path / "model"))
    folder = module_cache()
    assert folder is not None
    (entry,) = folder.iterdir()
    content = entry.read_bytes()
    entry.write_bytes(content[:-100] + bytes(100))
    assert facts(imported(tmp_path / "model")) == expected
    assert entry.read_bytes() == content


def test_the_imported_module_stays_as_it_is(tmp_path: Path) -> None:
    tiny_llama_config().save_pretrained(tmp_path / "model")
    one = imported(tmp_path / "model")
    before = print_module(one.module)
    other = one.at(9, "asic")
    assert print_module(one.module) == before
    assert np.array_equal(one.derived["model.rotary_emb.table"][:9], other.derived["model.rotary_emb.table"])


def test_commands_on_a_compiled_model_import_neither_torch_nor_transformers(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    AutoCompiler().compile(str(checkpoint), max_length=40)
    code = "import sys\nfrom hyperdex_ir.cli.main import main\n"
    for command in ("ir {}", "ir {} --num-device 2 --after import", "plan {}"):
        arguments = [word.format(checkpoint) for word in command.split()]
        code += f"try:\n main({arguments!r})\nexcept SystemExit as end:\n assert not end.code\n"
        code += f"assert not {{'torch', 'transformers'}} & set(sys.modules), {command!r}\n"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
