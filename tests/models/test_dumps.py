"""The IR as files: every one parses and leads to the same binaries; levels, IR of compiled models, wrong requests."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from support import SOAK
from support.models.compiles import STATE
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from support.processes.interruptions import contents

from hyperdex_ir.backend import tracing
from hyperdex_ir.backend.dumps import read_dump
from hyperdex_ir.cli.main import main
from hyperdex_ir.dialects.lpu import LinearOp
from hyperdex_ir.errors import HyperdexError, OptionError, PassError
from hyperdex_ir.frontend import model as frontend_model
from hyperdex_ir.passes import lpu_fuse_norm
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_lines, pipeline_spec
from hyperdex_ir.support.xdsl import module_path, parse_module
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

CONFIGS = {"llama": (tiny_llama_config, "default"), "opt": (tiny_opt_config, "debug"), "o0": (tiny_llama_config, "o0")}


def hyperdex(capsys, monkeypatch, *arguments: str) -> str:
    """Runs a command that must succeed; returns what it prints."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["hyperdex", *arguments])
    with contextlib.suppress(SystemExit):
        main()
    captured = capsys.readouterr()
    assert "error[" not in captured.err, captured.err
    return captured.out


def compiled_files(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(root).items() if name != STATE}


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A compiled tiny Llama and the folder of its IR."""
    root = tmp_path_factory.mktemp("dumped")
    model = write_checkpoint(tiny_llama_config(), root / "model")
    AutoCompiler().compile(model, dump_ir=root / "ir")
    return model, root / "ir"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_dump_leads_to_the_same_binaries(
    name: str, tmp_path: Path, capsys, monkeypatch, forget_instructions
) -> None:
    """By the command that its header gives, in a folder that is compiled already, and once in a new one.

    Of a pass that `default` has, too, the dump of the Llama is continued; in a soak each of all three.
    """
    config, pipeline = CONFIGS[name]
    monkeypatch.chdir(tmp_path)
    original = write_checkpoint(config(), tmp_path / "original")
    shutil.copytree(original, "a model")
    AutoCompiler().compile("a model", pipeline=pipeline, max_length=32, dump_ir="the ir")
    expected = compiled_files(Path("a model"))
    files = sorted(Path("the ir").iterdir())
    names = ["import", *(one.name for one in parse_pipeline(pipeline))]
    assert [file.name for file in files] == [f"{number:02d}_{name}.mlir" for number, name in enumerate(names)]
    lowering = names.index("lower-lpu-to-isa")
    shared = {one.name for one in parse_pipeline("default")}
    for number, file in enumerate(files):
        parse_module(file.read_text())
        first, command = file.read_text().splitlines()[:2]
        assert first.startswith("// hyperdex-ir ")
        words = shlex.split(command.removeprefix("//"))
        assert words == ["hyperdex", "compile", "a model", "--max-length", "32", "--compile-from", str(file)]
        is_end = number in (0, lowering - 1, lowering, len(files) - 1)
        if not (is_end or SOAK or name == "llama" or names[number] not in shared):
            continue
        if is_end:
            shutil.rmtree("a model")
            shutil.copytree(original, "a model")
        forget_instructions()
        hyperdex(capsys, monkeypatch, *words[1:])
        assert compiled_files(Path("a model")) == expected, file.name


def test_continuing_does_only_what_it_must(dumped: tuple[Path, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    """A dump of a compiled model costs no trace, and a compile after it only the instructions."""
    model, ir = Path(shutil.copytree(dumped[0], tmp_path / "model")), dumped[1]
    AutoCompiler().compile(model)

    def refuse(*_, **__):
        raise AssertionError("traced")

    monkeypatch.setattr(frontend_model, "trace_model", refuse)
    monkeypatch.setattr(tracing, "trace_model", refuse)
    capsys.readouterr()
    for number in ("00", "11", "12"):
        AutoCompiler().compile(model, compile_from=next(ir.glob(f"{number}_*")))
        log = capsys.readouterr().err
        assert "Reuse the converted checkpoint" in log
        assert "Reuse the parameter images" in log
        assert "Continue from" in log


def test_what_is_changed_by_hand_counts(dumped: tuple[Path, Path], tmp_path: Path) -> None:
    """Fewer layers in the text: another layout, other images, another program."""
    model, ir = Path(shutil.copytree(dumped[0], tmp_path / "model")), dumped[1]
    before = AutoCompiler().compile(model)
    images = before.parameters[0].stat().st_size
    path = next(ir.glob("*_lpu-outline-layers*"))
    changed = tmp_path / "changed.mlir"
    changed.write_text(path.read_text().replace("lpu.repeat 2", "lpu.repeat 1"))
    assert changed.read_text() != path.read_text()
    after = AutoCompiler().compile(model, compile_from=changed)
    assert after.parameters[0].stat().st_size < images
    again = AutoCompiler().compile(model)
    assert again.parameters[0].stat().st_size == images


def test_the_rest_of_the_pipeline_may_be_another(
    dumped: tuple[Path, Path], tmp_path: Path, forget_instructions
) -> None:
    model = Path(shutil.copytree(dumped[0], tmp_path / "model"))
    rest = pipeline_spec(parse_pipeline("o0")[3:])
    expected = AutoCompiler().compile(model, pipeline="o0").instructions.read_bytes()
    AutoCompiler().compile(model)
    bare = tmp_path / "bare.mlir"
    lines = AutoCompiler().compile_to("import", model, pipeline="o0").splitlines()
    bare.write_text("\n".join(line for line in lines if not line.startswith("//")))
    with pytest.raises(OptionError, match="does not say which passes are left"):
        AutoCompiler().compile(model, compile_from=bare)
    forget_instructions()
    compiled = AutoCompiler().compile(model, compile_from=bare, pipeline=f"lpu-token-major,canonicalize,dce,{rest}")
    assert compiled.instructions.read_bytes() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 64}, "made for max_length 128, asked for is 64"),
        ({"type_device": "asic"}, "made for target u55c, asked for is asic"),
        ({"dtype": "bf16"}, "made for matrix_type f16, asked for is bf16"),
    ],
)
def test_a_dump_that_is_not_what_is_asked_for(options: dict, message: str, dumped: tuple[Path, Path]) -> None:
    with pytest.raises(OptionError, match=message):
        AutoCompiler().compile(dumped[0], compile_from=dumped[1] / "03_cse.mlir", **options)


def test_a_dump_that_is_not_there(dumped: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read this IR"):
        AutoCompiler().compile(dumped[0], compile_from=tmp_path / "none.mlir")
    (tmp_path / "bad.mlir").write_text("// passes run:\n// passes left:\n//   lower-lpu-to-isa\nnonsense")
    with pytest.raises(PassError, match=r"bad.mlir:4:9: Operation nonsense"):
        AutoCompiler().compile(dumped[0], compile_from=tmp_path / "bad.mlir")
    for value, message in (("300 : i8", "out of range for type i8"), ("1.0e300 : f32", "outside its type")):
        text = f'// passes run:\n// passes left:\n//   dce\n"test.op"() {{a = {value}}} : () -> ()\n'
        (tmp_path / "bad.mlir").write_text(text)
        with pytest.raises(PassError, match=message):
            read_dump(tmp_path / "bad.mlir", None).module()


# ---------------------------------------------------------------------------------------------------- --compile-to
@pytest.mark.parametrize("level", ["import", "lpu", "isa"])
def test_compile_to_a_level_and_on(
    level: str, dumped: tuple[Path, Path], tmp_path: Path, capsys, monkeypatch, forget_instructions
) -> None:
    model = Path(shutil.copytree(dumped[0], tmp_path / "model"))
    AutoCompiler().compile(model)
    expected = compiled_files(model)
    text = hyperdex(capsys, monkeypatch, "compile", str(model), "--compile-to", level)
    assert compiled_files(model) == expected
    assert ("isa.matmul" in text) == (level == "isa")
    file = tmp_path / "level.mlir"
    file.write_text(text)
    forget_instructions()
    AutoCompiler().compile(model, compile_from=file)
    assert compiled_files(model) == expected
    assert AutoCompiler().compile_to("isa", model, compile_from=file).split("builtin.module")[1] == (
        AutoCompiler().compile_to("isa", model).split("builtin.module")[1])  # fmt: skip


def test_compile_to_needs_a_config_only(dumped: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(dumped[0] / "config.json", tmp_path)
    assert "isa.matmul" in AutoCompiler().compile_to("isa", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(OptionError, match="--compile-to nowhere: no such level"):
        AutoCompiler().compile_to("nowhere", tmp_path)
    with pytest.raises(OptionError, match="lies behind --compile-to lpu"):
        AutoCompiler().compile_to("lpu", tmp_path, compile_from=next(dumped[1].glob("*_lower-lpu-to-isa*")))


def test_print_pipeline(dumped: tuple[Path, Path], capsys, monkeypatch) -> None:
    printed = hyperdex(capsys, monkeypatch, "compile", "nothing/here", "--pipeline", "debug", "--print-pipeline")
    assert printed == pipeline_lines(parse_pipeline("debug"))
    path = str(dumped[1] / "04_dce.mlir")
    printed = hyperdex(capsys, monkeypatch, "compile", "nothing/here", "--compile-from", path, "--print-pipeline")
    assert printed == pipeline_lines(parse_pipeline("default")[4:])


# ---------------------------------------------------------------------------------------------------- hyperdex ir
def test_ir_of_a_compiled_model_is_what_was_dumped(dumped: tuple[Path, Path], capsys, monkeypatch) -> None:
    model, ir = dumped
    for file in ir.iterdir():
        number = str(int(file.name[:2]))
        printed = hyperdex(capsys, monkeypatch, "ir", str(model), "--after", number, "--locations")
        assert file.read_text().endswith("\n" + printed), file.name


def test_ir_is_short_enough_to_read(dumped: tuple[Path, Path], capsys, monkeypatch) -> None:
    """One line an operation, without locations."""
    for after in ("import", "lpu-outline-layers", "isa-allocate-lmu"):
        text = hyperdex(capsys, monkeypatch, "ir", str(dumped[0]), "--after", after)
        assert "loc(" not in text
        lengths = [len(line) for line in text.splitlines()]
        assert sorted(lengths)[int(0.95 * len(lengths))] < 160, max(lengths)
        operations = sum(1 for _ in parse_module(text).walk())
        assert operations <= len(lengths) <= 1.2 * operations + 10


def test_ir_after_a_pass_and_of_a_function(dumped: tuple[Path, Path], tmp_path: Path, capsys, monkeypatch) -> None:
    shutil.copy(dumped[0] / "config.json", tmp_path)
    text = hyperdex(capsys, monkeypatch, "ir", str(tmp_path), "--after", "lpu-fuse-norm")
    assert "lpu.rms_norm" in text
    assert "lpu.rsqrt" not in text
    (name,) = {name for name in re.findall(r"func.func (@[\w.]+)", text) if name != "@main"}
    layer = hyperdex(capsys, monkeypatch, "ir", str(tmp_path), "--after", "dce", "--function", name)
    assert layer.startswith(f"func.func {name}(")
    assert "@main" not in layer
    plain = hyperdex(capsys, monkeypatch, "ir", str(tmp_path), "--pipeline", "o0", "--after", "lpu-outline-layers")
    assert "lpu.rsqrt" in plain
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--after", "nothing"], "HDX0302", "--after nothing: the pipeline has no such pass"),
        (["--after", "99"], "HDX0302", "--after 99"),
        (["--after", "9" * 5000], "HDX0302", "the pipeline has no such pass"),
        (["--after", "²"], "HDX0302", "--after ²: the pipeline has no such pass"),
        (["--function", "f"], "HDX0302", "--function f: the module has no such function"),
        (["--pipeline", "cse,dze"], "HDX0302", "line 1, column 5: no pass 'dze'"),
    ],
)
def test_wrong_requests(arguments: list[str], code: str, message: str, dumped, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hyperdex", "ir", str(dumped[0]), *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (1, "")
    assert captured.err.startswith(f"error[{code}]: ")
    assert message in captured.err.splitlines()[0]


# ---------------------------------------------------------------------------------------------------- failures
def test_a_pass_that_fails_in_a_compile(dumped: tuple[Path, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")

    def broken(self, ctx, op):
        next(o for o in op.walk() if isinstance(o, LinearOp) and "q_proj" in module_path(o)).operands = []

    monkeypatch.setattr(lpu_fuse_norm.LpuFuseNormPass, "apply", broken)
    with pytest.raises(HyperdexError) as error:
        AutoCompiler().compile(model)
    assert str(error.value).startswith("pass lpu-fuse-norm: ")
    assert re.search(r"from model.layers.[0*].self_attn.q_proj$", str(error.value))
    assert str(model / "repro") in error.value.hint
    repro = model / "repro"
    assert (repro / "command.txt").read_text().splitlines()[-1] == (
        "hyperdex-opt before.mlir --no-repro --own-passes --pipeline lpu-fuse-norm"
    )
    assert "torch" in json.loads((repro / "versions.json").read_text())
    assert "lpu.rsqrt" in (repro / "before.mlir").read_text()
    assert not (model / "inst").exists()
