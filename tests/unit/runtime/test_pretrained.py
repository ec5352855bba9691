"""transformers reads checkpoints without running their code and without asking on standard input."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.models.gguf_models import write_gguf
from support.models.tiny import tiny_llama_config
from support.processes import forked
from transformers import modeling_utils
from transformers.integrations import hub_kernels

import hyperdex_ir
from hyperdex_ir.checkpoint.gguf import _one_line
from hyperdex_ir.checkpoint.pretrained import (
    config_from,
    config_from_gguf,
    config_of,
    copy_tokenizer,
    model_from,
    model_of,
    no_code_of_checkpoints,
)
from hyperdex_ir.errors import UnsupportedModelError

PACKAGE = Path(hyperdex_ir.__file__).parent
#: Methods of transformers that may import what a checkpoint names, and its classes that choose by a checkpoint.
LOADERS = {"from_pretrained", "from_config", "_from_config", "for_model", "save_pretrained", "from_dict", "pipeline"}
#: Where they are called. The class of `_from_config` is one of our table, and its configuration is read by the above.
ALLOWED = {
    ("checkpoint/pretrained.py", "for_model"),
    ("checkpoint/pretrained.py", "from_config"),
    ("checkpoint/pretrained.py", "from_pretrained"),
    ("checkpoint/pretrained.py", "save_pretrained"),
    ("checkpoint/published_tokenizer.py", "from_pretrained"),  # in the confined process, of copies, without code
    ("frontend/trace.py", "_from_config"),
}
OWN = {"auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "own.Own"), "model_type": "own"}
OWN_TOKENIZER = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}


def calls_in(path: Path) -> set[str]:
    """Names of `LOADERS` that a module calls."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    called = [
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "") for node in nodes
    ]
    return LOADERS & set(called)


@pytest.mark.slow
def test_one_module_calls_transformers_loaders() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in calls_in(path)
    }
    assert found == ALLOWED


def test_every_call_is_closed() -> None:
    tree = ast.parse((PACKAGE / "checkpoint/pretrained.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
            given = {ast.unparse(keyword.value) if keyword.arg is None else keyword.arg for keyword in node.keywords}
            assert given & {"_CLOSED", "trust_remote_code"} or node.func.attr in ("for_model", "save_pretrained")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with code of its own, which leaves a file. Standard input says yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 99))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w').close()\n")
    (tmp_path / "config.json").write_text(json.dumps(OWN))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(OWN_TOKENIZER))
    write_gguf(tmp_path / "m.gguf", "llama", gguf.GGMLQuantizationType.F32)
    return tmp_path


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: config_from(folder),
        lambda folder: config_of({"model_type": "llama", **OWN, "trust_remote_code": True}),
        lambda folder: model_from(folder, torch.float32),
        lambda folder: model_of(transformers.PreTrainedConfig(**OWN)),
    ],
    ids=["config", "values", "weights", "model"],
)
def test_code_of_a_checkpoint_is_not_run(folder: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(Exception, match=r"custom code|trust_remote_code|[Uu]nrecognized"):
        load(folder)
    assert not (folder / "owned").exists()
    assert sys.stdin.read() == "y\n" * 99, "nobody was asked"


@pytest.mark.parametrize("trusted", [True, None])
def test_also_not_when_transformers_is_told_to(folder: Path, trusted: bool | None) -> None:
    with pytest.raises(ValueError, match=r"custom code|never run"), no_code_of_checkpoints():
        transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=trusted)
    assert not (folder / "owned").exists()
    assert sys.stdin.read() == "y\n" * 99


def test_files_beside_a_gguf_file_are_not_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": null}')
    alone = tmp_path_factory.mktemp("alone")
    shutil.copy(folder / "m.gguf", alone)
    for place in (folder, alone):
        copy_tokenizer(place / "m.gguf", place / "out")
    names = sorted(path.name for path in (alone / "out").iterdir())
    assert names == ["tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (folder / "out" / name).read_bytes() == (alone / "out" / name).read_bytes()
    assert config_from_gguf(folder / "m.gguf").model_type == "llama"
    assert not (folder / "owned").exists()


# ---------------------------------------------------------------------------------------------------- weights
CHANGES = {
    "index fifo": "cannot be read: it is a FIFO|no such file",
    "index outside": "expected a safetensors file beside the index",
    "pickle": "pytorch_model.bin",
    "named fifo": "",
    "named pickle": "",
    "adapter": "",
    "shard": "",
    "other configuration": "",
    "other configuration outside": "",
}


def change_weights(folder: Path, kind: str) -> None:
    """Has a checkpoint name files to transformers that nobody has checked: FIFOs, pickles, files elsewhere."""
    config = json.loads((folder / "config.json").read_text())
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    (folder.parent / "outside").mkdir()
    match kind:
        case "index fifo" | "index outside":
            (folder.parent / "outside" / "secret.safetensors").write_bytes(single.read_bytes())
            file = "x.safetensors" if "fifo" in kind else "../outside/secret.safetensors"
            index.write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": file}}))
            single.unlink()
            os.mkfifo(folder / "x.safetensors")
        case "pickle":
            single.unlink()
            torch.save({"lm_head.weight": torch.float32}, folder / "pytorch_model.bin")
        case "named fifo":
            os.mkfifo(folder / "x.safetensors")
            config["transformers_weights"] = "x.safetensors"
        case "named pickle":
            os.mkfifo(folder / "adapter_model.bin")
            config["transformers_weights"] = "adapter_model.bin"
        case "adapter":
            os.mkfifo(folder / "adapter_config.json")
            (folder / "generation_config.json").unlink()
            os.mkfifo(folder / "generation_config.json")
        case "shard":
            os.mkfifo(folder / "shard-00000-model-00001-of-00001.safetensors")
            os.mkfifo(folder / ".metadata")
        case "other configuration" | "other configuration outside":
            at = folder if kind.endswith("configuration") else folder.parent / "outside"
            os.mkfifo(at / "config.4.0.0.json")
            config["configuration_files"] = [os.path.relpath(at / "config.4.0.0.json", folder)]
    (folder / "config.json").write_text(json.dumps(config))


LOAD = """
import json, sys, torch
from pathlib import Path
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.checkpoint.pretrained import model_from
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
for folder in sys.argv[1:]:
    opened.clear()
    try:
        said = sum(float(one.double().sum()) for one in model_from(Path(folder), torch.float32).parameters())
    except HyperdexError as error:
        said = str(error)
    strange = [path for path in opened if "secret" in path or "x.safetensors" in path or "adapter" in path]
    print("SAID " + json.dumps([said, strange]), flush=True)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float | str, list[str], float]]:
    """By kind: the sum of the weights or the error, the files that were opened, and the sum that was written."""
    model = transformers.AutoModelForCausalLM.from_config(tiny_llama_config(num_hidden_layers=1))
    folders = [tmp_path_factory.mktemp("changed") / "model" for _ in CHANGES]
    for folder, kind in zip(folders, CHANGES, strict=True):
        model.save_pretrained(folder)
        change_weights(folder, kind)
    result = forked.run(["-c", LOAD, *map(str, folders)])
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line[5:]) for line in result.stdout.splitlines() if line.startswith("SAID ")]
    total = sum(one.double().sum().item() for one in model.parameters())
    return {kind: (*line, total) for kind, line in zip(CHANGES, lines, strict=True)}


@pytest.mark.parametrize("kind", CHANGES)
def test_transformers_opens_only_weights_that_are_checked(
    kind: str, loaded: dict[str, tuple[float | str, list[str], float]]
) -> None:
    said, opened, expected = loaded[kind]
    assert opened == []
    if CHANGES[kind]:
        assert re.search(CHANGES[kind], str(said))
    else:
        assert said == pytest.approx(expected)


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files(safe: bool, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_config(tiny_llama_config(num_hidden_layers=2))
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    if not safe:
        write_in_torch_format(tmp_path)
    for name, value in model_from(tmp_path, torch.float32).state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def write_in_torch_format(folder: Path) -> None:
    """Writes the files of an index anew."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for path in sorted(folder.glob("*.safetensors")):
        torch.save(load_file(path), path.with_suffix(".bin"))
    index["weight_map"] = {name: Path(file).stem + ".bin" for name, file in index["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for path in folder.glob("*.safetensors*"):
        path.unlink()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("name", ["kernels-community/x", "flash_attention_2", "deepgemm"])
def test_no_kernel_is_fetched(key: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *arguments, **named: pytest.fail(name))
    monkeypatch.setattr(hub_kernels, "load_and_register_attn_kernel", lambda *arguments, **named: pytest.fail(name))
    config = transformers.MixtralConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=32, num_local_experts=2, architectures=["MixtralForCausalLM"],
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {key: name}))
    for model in (model_of(config_from(tmp_path)), model_from(tmp_path, torch.float32)):
        assert (model.config._attn_implementation, model.config._experts_implementation) == ("eager", "eager")


class PanicException(BaseException):
    """Of the name that the library's panics have."""


@pytest.mark.parametrize("error", [PanicException("index out of bounds\nnext"), ValueError("index out of bounds")])
def test_a_panic_is_one_line(error: BaseException) -> None:
    with pytest.raises(UnsupportedModelError, match=r"m\.gguf: transformers reads no tokenizer from it: .*bounds$"):  # noqa: SIM117
        with _one_line(Path("m.gguf"), "tokenizer"):
            raise error


@pytest.mark.slow
def test_a_gguf_file_with_code_beside_it(folder: Path) -> None:
    (folder / "config.json").unlink()
    result = forked.hyperdex("compile", str(folder / "m.gguf"), "--max-length", "8", input="y\n" * 99)
    assert not (folder / "owned").exists()
    assert result.returncode == 0, result.stderr
