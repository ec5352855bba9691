"""hyperdex-opt: what it adds to xdsl-opt."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT
from support.processes import forked

import hyperdex_ir
from hyperdex_ir.cli.opt import main
from hyperdex_ir.errors import PassError
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_lines, pipeline_spec
from hyperdex_ir.passes.reference import pass_table
from hyperdex_ir.support.xdsl import parse_module, print_module

TEXT = """
func.func @f(%x: tensor<1x?x8xf32>) -> tensor<1x?x8xf32> {
  %a = lpu.neg %x : tensor<1x?x8xf32> loc("model.a")
  %b = lpu.neg %x : tensor<1x?x8xf32> loc("model.b")
  %c = lpu.add %a, %b : (tensor<1x?x8xf32>, tensor<1x?x8xf32>) -> tensor<1x?x8xf32> loc("model.c")
  func.return %c : tensor<1x?x8xf32>
}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.mlir").write_text(TEXT)
    return "model.mlir"


def headers(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("// ")]


def tool(name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return forked.run([str(Path(sys.executable).with_name(name)), *arguments], input=text)


# ---------------------------------------------------------------------------------------------------- output
def test_a_file_can_be_input_and_output(module: str) -> None:
    main([module, "-o", module, "-p", "cse"])
    assert Path(module).read_text() == print_module(parse_module(Path(module).read_text()))
    assert Path(module).read_text().count("lpu.neg") == 1


@pytest.mark.parametrize("arguments", [["-p", "nothing"], ["-p", "lower-lpu-to-isa", "--no-repro"]])
def test_an_error_leaves_the_output_as_it_was(arguments: list[str], module: str, capsys) -> None:
    output = Path("out.mlir")
    output.write_text("what was there")
    with pytest.raises(SystemExit):
        main([module, "-o", str(output), *arguments])
    assert output.read_text() == "what was there"
    assert sorted(path.name for path in Path().iterdir()) == ["model.mlir", "out.mlir"]


def test_one_wrong_module_of_several_leaves_no_output(module: str, capsys) -> None:
    Path(module).write_text(TEXT + "// -----\n" + TEXT.replace("%a, %b", "%a, %z"))
    with pytest.raises(SystemExit):
        main([module, "--split-input-file", "-o", "out.mlir"])
    assert not Path("out.mlir").exists()


def test_standard_output_by_name(module: str, capsys) -> None:
    main([module])
    expected = capsys.readouterr().out
    assert tool("hyperdex-opt", str(Path(module).absolute()), "-o", "-").stdout == expected
    assert tool("hyperdex-opt", str(Path(module).absolute()), "-o", "/dev/stdout").stdout == expected


def test_a_byte_order_mark_is_skipped(module: str, capsys) -> None:
    main([module])
    expected = capsys.readouterr().out
    Path(module).write_text("\ufeff" + TEXT, encoding="utf-8")
    main([module])
    assert capsys.readouterr().out == expected


def test_the_head_of_a_module_is_that_of_hyperdex_ir(module: str, capsys) -> None:
    """A long head has a line for each attribute."""
    facts = f'lpu.target = "u55c", lpu.max_length = 64 : i64, lpu.note = "{100 * chr(120)}"'
    Path(module).write_text(f"builtin.module attributes {{{facts}}} {{\n{TEXT}\n}}")
    main([module])
    printed = capsys.readouterr().out
    assert printed == print_module(parse_module(printed))
    assert printed.startswith("builtin.module attributes {\n  lpu.target")


# ---------------------------------------------------------------------------------------------------- looking inside
def test_ir_before_and_after_named_passes(module: str, capsys) -> None:
    passes = "lpu-token-major,cse,dce"
    main([module, "-p", passes, "--print-ir-before=cse", "--print-ir-after=cse", "--print-ir-after", "dce"])
    captured = capsys.readouterr()
    assert captured.out.startswith("builtin.module {")
    assert headers(captured.err) == [
        "// IR before cse, pipeline so far: lpu-token-major",
        "// IR after cse, pipeline so far: lpu-token-major,cse",
        "// IR after dce, pipeline so far: lpu-token-major,cse,dce",
    ]
    assert captured.err.count("lpu.neg") == 2 + 1 + 1
    assert "loc(" not in captured.err


def test_ir_before_and_after_all(module: str, capsys) -> None:
    main([module, "-p", "cse,dce", "--print-ir-before-all", "--print-ir-after-all", "--print-debuginfo"])
    error = capsys.readouterr().err
    assert [line.split(",")[0] for line in headers(error)] == [
        "// IR before cse", "// IR after cse", "// IR before dce", "// IR after dce"]  # fmt: skip
    assert 'loc("model.c")' in error


def test_ir_after_change_only(module: str, capsys) -> None:
    main([module, "-p", "dce,cse,cse,lpu-token-major", "--print-ir-after-change"])
    assert [line.split(",")[0] for line in headers(capsys.readouterr().err)] == [
        "// IR after cse", "// IR after lpu-token-major"]  # fmt: skip


def test_ir_tree_goes_on_as_it_says(module: str, tmp_path: Path, capsys) -> None:
    main([module, "-p", "lpu-token-major,cse,dce", "--print-ir-tree-dir", "tree"])
    expected = capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "tree").iterdir())
    assert files == ["00_input.mlir", "01_lpu-token-major.mlir", "02_cse.mlir", "03_dce.mlir"]
    for name in files[:-1]:
        so_far, command = (tmp_path / "tree" / name).read_text().splitlines()[:2]
        assert so_far.startswith("// pipeline so far:")
        words = command.removeprefix("// continue with: ").split()
        assert words[:2] == ["hyperdex-opt", f"tree/{name}"]
        main(words[1:])
        assert capsys.readouterr().out == expected


def test_statistics_and_times(module: str, capsys) -> None:
    main([module, "-p", "cse,dce", "--pass-statistics", "--time-passes"])
    captured = capsys.readouterr()
    assert [line.split() for line in captured.err.splitlines()] == [
        ["pass", "ops", "before", "ops", "after", "reported"],
        ["cse", "6", "5"],
        ["dce", "5", "5"],
    ]
    assert captured.out.splitlines()[0].startswith("Pass cse took 0.")


def test_statistics_show_what_a_pass_reports(capsys) -> None:
    example = ROOT / "tests" / "filecheck" / "passes" / "isa-allocate-lmu.mlir"
    main([str(example), "-p", "isa-allocate-lmu", "--pass-statistics", "--split-input-file"])
    assert "isa.chunk = " in capsys.readouterr().err


def test_verify_each_reads_the_text_back(module: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    main([module, "-p", "lpu-token-major,cse", "--verify-each"])
    from hyperdex_ir.passes import observers

    other = observers.parse_module(TEXT)
    monkeypatch.setattr(observers, "parse_module", lambda *_: other)
    with pytest.raises(SystemExit):
        main([module, "-p", "lpu-token-major", "--verify-each"])
    assert "the custom text of the module reads back as another module" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- pipelines
@pytest.mark.parametrize("name", ["default", "o0", "debug"])
def test_print_pipeline_reads_back(name: str, capsys) -> None:
    main(["--pipeline", name, "--print-pipeline"])
    printed = capsys.readouterr().out
    assert printed == pipeline_lines(parse_pipeline(name))
    assert pipeline_spec(parse_pipeline(printed)) == pipeline_spec(parse_pipeline(name))


@pytest.mark.parametrize("option", ["-p", "--pipeline"])
def test_wrong_pipeline_is_one_error_with_a_caret(option: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([option, "cse, // first\n  lpu-fuse-nrm"])
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: pipeline, line 2, column 3: no pass 'lpu-fuse-nrm' [HDX0302]",
        "    lpu-fuse-nrm",
        "    ^",
        "hint: did you mean lpu-fuse-norm?",
    ]


def test_list_passes_is_the_table_of_the_documentation(capsys) -> None:
    main(["--list-passes"])
    table = capsys.readouterr().out
    assert table == pass_table()
    assert table in (ROOT / "docs" / "passes.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- the tool itself
def test_version_names_the_tool() -> None:
    result = tool("hyperdex-opt", "--version")
    assert result.stdout.startswith(f"hyperdex-opt {hyperdex_ir.__version__} (xdsl 0.")


@pytest.mark.slow
def test_version_takes_no_longer_than_half_more_than_xdsl_opts() -> None:
    """Started anew. The first pair that is near enough decides: what else the machine does makes both slower."""

    def seconds(name: str) -> float:
        started = time.perf_counter()
        command = [Path(sys.executable).with_name(name), "--version"]
        subprocess.run(command, capture_output=True, check=True)
        return time.perf_counter() - started

    assert any(seconds("hyperdex-opt") / seconds("xdsl-opt") < 1.5 for _ in range(9))


@pytest.mark.slow
def test_every_option_of_xdsl_opt_is_there() -> None:
    def options(name: str) -> list[str]:
        words = tool(name, "--help").stdout.replace("[", " ").replace("]", " ").replace(",", " ").split()
        return [word for word in words if word.startswith("--")]

    ours, theirs = options("hyperdex-opt"), options("xdsl-opt")
    assert theirs
    assert [option for option in theirs if option not in ours] == []


def test_plain_xdsl_opt_runs_our_dialects_and_passes() -> None:
    result = tool("xdsl-opt", "-p", "lpu-token-major,cse,canonicalize", text=TEXT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("lpu.neg") == 1
    assert "tensor<?x8xf32>" in result.stdout


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1.0e300 : f32", "a number is outside its type"),
        ("dense<1.0e300> : tensor<2xf32>", "a number is outside its type"),
        ("array<f32: 1.0e300>", "a number is outside its type"),
        ("[" * 5000 + "]" * 5000, "nested too deeply at line 1, column 81, the most is 64"),
        *(
            (text, f"integer type of {width} bits, the most is 9999, at line 1, column {column}")
            for text, width, column in (
                ("5 : i8000000000", 8000000000, 22),
                ("dense<5> : tensor<1xi10000>", 10000, 38),
                ("vector<2xui20000>", 20000, 27),
            )
        ),
        ("dense<0> : tensor<16777216xi64>", "dense attributes of 16777216 elements, the most of a text is 262144"),
        (
            ", ".join(f'dense<"0x{one:016x}"> : tensor<16384xi64>' for one in range(17)).join("[]"),
            "dense attributes of 278528 elements, the most of a text is 262144",
        ),
    ],
)
@pytest.mark.parametrize("options", [[], ["--parsing-diagnostics", "--verify-diagnostics"]])
def test_values_that_no_type_holds(value: str, message: str, options: list[str], tmp_path: Path, capsys) -> None:
    path = tmp_path / "model.mlir"
    path.write_text(f'"test.op"() {{a = {value}}} : () -> ()\n')
    with pytest.raises(SystemExit, match="1"):
        main([str(path), *options])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        rf"error: {re.escape(f'{path}: {message}')}(, at line 1, column \d+)? \[HDX0401\]\n", captured.err
    )


DOUBLED = {"#": "#a{} = [#a{}, #a{}]\n", "!": "!a{} = tuple<!a{}, !a{}>\n", "loc": "#a{} = loc(fused[#a{}, #a{}])\n"}
FIRST = {"#": "[1 : i64]", "!": "i64", "loc": 'loc("a")'}


@pytest.mark.parametrize("kind", DOUBLED)
@pytest.mark.parametrize("read", ["tool", "module"])
def test_aliases_of_aliases(kind: str, read: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line doubles what the text stands for."""
    path = tmp_path / "model.mlir"
    lines = "".join(DOUBLED[kind].format(one + 1, one, one) for one in range(40))
    path.write_text(f"{kind[0].replace('l', '#')}a0 = {FIRST[kind]}\n{lines}builtin.module {{}}\n")
    if read == "tool":
        with pytest.raises(SystemExit, match="1"):
            main([str(path), "--own-passes"])
        error = capsys.readouterr().err
    else:
        with pytest.raises(PassError) as raised:
            parse_module(path.read_text(), str(path))
        error = f"error: {raised.value} [HDX0401]\n"
    assert re.fullmatch(
        rf"error: {re.escape(str(path))}: its aliases stand for more than 1048576 characters, up to the use of [#!]a\d+"
        r" \[HDX0401\]\n",
        error,
    )


def test_aliases_that_are_used_often() -> None:
    """A long one, and one that stands for many elements."""
    for value, uses in (("[" + "1, " * 999 + "1]", 400), ("dense<5> : tensor<4096xi64>", 300)):
        text = f"#a = {value}\nbuiltin.module attributes {{{', '.join(f'x{one} = #a' for one in range(uses))}}} {{}}"
        with pytest.raises(PassError, match="its aliases stand for more than 1048576 characters"):
            parse_module(text)
        parse_module(text.replace(", x99 =", "} {} // "))


def test_aliases_inside_each_other() -> None:
    lines = "".join(f"#a{one + 1} = [#a{one}]\n" for one in range(64))
    with pytest.raises(PassError, match="alias #a64 is nested too deeply, the most is 64"):
        parse_module(f"#a0 = [1]\n{lines}builtin.module {{}}")


def test_aliases_that_a_person_writes() -> None:
    text = "#a = [1 : i64]\n#b = {x = #a, y = #a}\n!t = i9999\nbuiltin.module attributes {b = #b, t = !t} {}"
    assert print_module(parse_module(text)).startswith(
        "builtin.module attributes {b = {x = [1], y = [1]}, t = i9999} {".replace("[1]", "[1 : i64]")
    )


def test_a_string_without_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lexer does not try all ways to divide it, which are 2 to the power of its length."""
    path = tmp_path / "model.mlir"
    path.write_text(f'"test.op"() {{a = "{"a" * 5000}\n')
    with pytest.raises(SystemExit, match="1"):
        main([str(path)])
    assert "before closing string literal" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--print-ir-before", "--print-ir-after"])
def test_printing_around_a_pass_that_does_not_run(option: str, module: str, capsys) -> None:
    with pytest.raises(SystemExit, match="1"):
        main([module, "-p", "cse,dce", f"{option}=cs"])
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()) == (
        "",
        ["error: print-ir: no pass 'cs' runs [HDX0302]", "hint: these run: cse, dce"],
    )


def test_closed_standard_output(module: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match="1"):
        main([module])
    assert capsys.readouterr().err.startswith("error: standard output is closed [HDX0503]\n")


def test_an_unexpected_exception_is_one_line(module: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fail(self: object) -> None:
        raise AssertionError("of\nxDSL")

    monkeypatch.setattr("hyperdex_ir.cli.opt.HyperdexOptMain.run", fail)
    with pytest.raises(SystemExit, match="1"):
        main([module])
    assert capsys.readouterr().err.startswith("error: internal error: AssertionError: of xDSL\nhint: ")
