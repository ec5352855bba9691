"""Compiles for several numbers of devices, side by side: what each writes, what they share, and that the bits agree."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.models.compiles import STATE, compile_model, phases_done
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from support.processes.interruptions import contents

from hyperdex_ir.backend import phases
from hyperdex_ir.errors import FileFormatError, NotCompiledError, OptionError
from hyperdex_ir.memory.serialize import load_json, manifest_entries, read_layout, read_map
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_spec
from hyperdex_ir.performance.parameter_stats import divide_parameters
from hyperdex_ir.runtime.inspect import inspect_model
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.sampling import Sampling
from hyperdex_ir.targets import load_target
from hyperdex_ir.transformers import AutoModelForCausalLM
from hyperdex_ir.verify.against import compare_with_transformers

pytestmark = pytest.mark.slow

TOKENS = list(b"Once upon a time")
#: A pipeline that divides no model.
WHOLE = pipeline_spec([one for one in parse_pipeline("default") if one.name != "lpu-partition"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def of_count(files: dict[str, bytes], count: int) -> dict[str, bytes]:
    """The files that belong to a compile for so many devices."""
    return {name: content for name, content in files.items() if f"_{count}lpu" in name}


def test_counts_lie_side_by_side(model: Path, capsys):
    alone = compile_model(model)
    before = contents(model)
    capsys.readouterr()
    compiled = compile_model(model, num_device=3)
    assert phases_done(capsys) == ["3", "4"]
    after = contents(model)
    assert of_count(after, 1) == of_count(before, 1)
    assert after["ckpt/hyperdex_model.bin"] == before["ckpt/hyperdex_model.bin"]
    assert list(manifest_entries(alone.manifest)) == ["1", "3"]
    files = manifest_entries(compiled.manifest)["3"]["files"]
    assert set(files) == set(of_count(after, 3))
    assert [path.name for path in compiled.parameters][::32] == [f"param_3lpu_{d:02x}_00.bin" for d in range(3)]
    assert len({path.stat().st_size for path in compiled.parameters}) == 1
    for count in (1, 3):
        compile_model(model, num_device=count)
        assert phases_done(capsys) == []
        assert contents(model) == after


def test_the_order_of_compiles_does_not_matter(checkpoint: Path, tmp_path: Path, forget_instructions):
    found = []
    for name, counts in (("a", (2, 1)), ("b", (1, 2))):
        forget_instructions()
        folder = Path(shutil.copytree(checkpoint, tmp_path / name))
        for count in counts:
            compile_model(folder, num_device=count)
        found.append(contents(folder))
        assert found[-1].pop(STATE)
    assert found[0] == found[1]


def test_another_count_needs_no_weights(model: Path, capsys):
    compile_model(model)
    (model / "model.safetensors").unlink()
    capsys.readouterr()
    compile_model(model, num_device=2)
    assert phases_done(capsys) == ["3", "4"]
    assert AutoModelForCausalLM.from_pretrained(model, device_map={"lpu": 2}).logits([TOKENS]).shape[0] == len(TOKENS)


def test_a_compile_that_broke_off_leaves_the_other_count(model: Path, monkeypatch):
    compile_model(model)

    def refuse(*_, **__):
        raise FileFormatError("broken")

    monkeypatch.setattr(phases, "write_images", refuse)
    with pytest.raises(FileFormatError):
        compile_model(model, num_device=2)
    CompiledModel.open(model)
    with pytest.raises(NotCompiledError, match="not compiled for 2 devices"):
        CompiledModel.open(model, 2)


@pytest.mark.parametrize("count", [0, -1, 5, 100])
def test_counts_out_of_range_are_refused(model: Path, count: int):
    before = contents(model)
    words = f"num_device is {count}: must be from 1 to 4, the number of the model's query heads"
    with pytest.raises(OptionError, match=re.escape(words)):
        compile_model(model, num_device=count)
    assert contents(model) == before


def test_a_pipeline_that_does_not_divide_is_refused(model: Path):
    with pytest.raises(OptionError, match="the pipeline has no lpu-partition") as caught:
        compile_model(model, num_device=2, pipeline=WHOLE)
    assert caught.value.hint == "--pipeline default"


def test_a_dump_for_another_count_is_refused(model: Path, tmp_path: Path):
    compile_model(model, num_device=2, dump_ir=tmp_path / "ir")
    name = next(path for path in sorted((tmp_path / "ir").iterdir()) if "partition" in path.name)
    before = contents(model)
    compile_model(model, num_device=2, compile_from=name, force=True)
    after = contents(model)
    assert {name for name in before if before[name] != after[name]} <= {STATE}
    with pytest.raises(OptionError, match="made for num_device 2, asked for is 3"):
        compile_model(model, num_device=3, compile_from=name)


def test_devices_have_the_bits_of_one(tmp_path: Path):
    folder = write_checkpoint(tiny_opt_config(), tmp_path / "opt")
    compile_model(folder)
    alone = CompiledModel.open(folder, engine="interpreter")
    sampling = Sampling(True, top_k=40, repetition_penalty=1.2, seed=5)
    logits, tokens = alone.logits(TOKENS), alone.generate(TOKENS, 8, sampling=sampling).tokens
    for count, engine in ((2, "native"), (3, "interpreter"), (4, "native")):
        compile_model(folder, num_device=count)
        ring = CompiledModel.open(folder, count, engine)
        assert np.array_equal(ring.logits(TOKENS).view(np.uint32), logits.view(np.uint32))
        assert ring.generate(TOKENS, 8, sampling=sampling).tokens == tokens


def test_device_map_picks_the_count(model: Path):
    compile_model(model, num_device=2)
    found = AutoModelForCausalLM.from_pretrained(model, device_map={"lpu": 2})
    assert len(found.compiled.device.machine.machines) == 2
    with pytest.raises(NotCompiledError) as caught:
        AutoModelForCausalLM.from_pretrained(model, device_map={"lpu": 4})
    assert caught.value.hint == f"hyperdex compile {model} --num-device 4"
    for count in (0, -1, "2", True, 2.0):
        with pytest.raises(OptionError, match=f"num_device is {count!r}: must be a positive whole number"):
            AutoModelForCausalLM.from_pretrained(model, device_map={"lpu": count})


@pytest.mark.parametrize(("device", "channel"), [(0, 1), (1, 0)], ids=["of another channel", "of another device"])
def test_an_image_that_is_not_listed_is_refused(model: Path, device: int, channel: int):
    compiled = compile_model(model, num_device=2)
    first = compiled.parameters[0]
    other = model / "param" / f"param_2lpu_{device:02x}_{channel:02x}.bin"
    assert other.stat().st_size == first.stat().st_size
    shutil.copy(other, first)
    for engine in ("native", "interpreter"):
        with pytest.raises(FileFormatError, match=f"{first.name}: not the image that the manifest lists"):
            CompiledModel.open(model, 2, engine)


def test_values_of_modules_are_those_of_one_device(model: Path):
    compile_model(model, num_device=2)
    with pytest.raises(OptionError, match="num_device is 2: only a program for one device"):
        compare_with_transformers(str(model), TOKENS, 2)


@pytest.mark.parametrize("tied", [False, True])
def test_bytes_of_a_device(tmp_path: Path, tied: bool):
    """A device holds 1/n of the parameters, replication and padding; each term counted by itself."""
    sizes = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3}
    config = tiny_llama_config(**sizes, tie_word_embeddings=tied)
    folder = write_checkpoint(config, tmp_path / "model")
    compile_model(folder)
    stored = sum(
        int(np.prod(tensor["shape"])) * {"f16": 2, "f32": 4, "i64": 8}[tensor["dtype"]]
        for tensor in load_json(folder / "ckpt/hyperdex_config.json")["tensors"]
    )
    for count in (2, 4):
        compiled = compile_model(folder, num_device=count)
        facts = inspect_model(folder, count)["division"]
        layout = read_layout(compiled.memory_map)
        tables = sum(8 * p.shape[0] for p in layout.main.parameters if p.values is not None)
        assert facts["total"] == stored + tables
        assert facts["device"] == 32 * (compiled.parameters[0].stat().st_size - 16)
        assert count * facts["device"] == facts["total"] + facts["replication"] + facts["padding"]
        embedding = 272 * 96 * 2
        assert facts["twice"] == (embedding if tied else 0)
        heads = {2: [2, 2], 4: [1, 1, 1, 0]}[count]  # KV heads that are there, of blocks of 3 and of 2 query heads
        assert facts["shared"] == (sum(heads) - 3) * 16 * 96 * 2 * 2 * 2
    memory = read_map(compiled.memory_map)
    with pytest.raises(FileFormatError, match="the memory map says"):
        divide_parameters(layout, read_map(folder / "config/config_2lpu_hbm.json"), 4)
    assert memory.target == load_target("u55c")


def test_link_bytes_are_those_of_the_formula(model: Path):
    """docs/cost.md: 4 (n - 1) ceil(C / n) for each value that is gathered."""
    for count in (2, 3, 4):
        compile_model(model, num_device=count)
        heads = -(-4 // count) * 16
        hidden, gated, vocabulary = (-(-extent // count) for extent in (64, 96, 272))
        columns = hidden + 2 * (heads + hidden + gated + hidden) + vocabulary
        for row in inspect_model(model, count)["decode"]:
            assert row["link_bytes"] == 4 * (count - 1) * columns
            assert row["cycles_without_overlap"] >= row["cycles"]
