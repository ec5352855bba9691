"""Pipelines as text, errors of passes, and the parts of passes that can be tried alone."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs.lmu_owners import find_overlaps
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region
from xdsl.rewriter import Rewriter
from xdsl.transforms.apply_pdl import ApplyPDLPass
from xdsl.transforms.mlir_opt import MLIROptPass

from hyperdex_ir.dialects.isa import OPS, BufferOp, LmuType, LmuUse, ViewUse
from hyperdex_ir.dialects.lpu import ConstantOp
from hyperdex_ir.errors import OptionError, PassError
from hyperdex_ir.passes import get_all_passes
from hyperdex_ir.passes.isa_allocate_lmu import choose, place
from hyperdex_ir.passes.lmu_liveness import find_frames
from hyperdex_ir.passes.lowering.views import View, contiguous_strides, elementwise_blocks, merge_dims
from hyperdex_ir.passes.lpu_token_major import canonical_shape
from hyperdex_ir.passes.outlining.order import compress, instructions, is_shorter_as_table
from hyperdex_ir.passes.pipeline import (
    parse_pipeline,
    pipeline_lines,
    pipeline_names,
    pipeline_spec,
    run_pipeline,
    typed_pipeline,
)
from hyperdex_ir.support.xdsl import check_module, module_path, parse_module, print_module
from hyperdex_ir.targets import load_target


# ---------------------------------------------------------------------------------------------------- pipelines
def test_packaged_pipelines_parse() -> None:
    assert pipeline_names() == ("debug", "default", "o0")
    names = [one.name for one in parse_pipeline("default")]
    assert names == [
        "lpu-token-major", "canonicalize", "cse", "dce", "lpu-fuse-norm", "lpu-fuse-rotary", "lpu-propagate-sharding",
        "lpu-partition", "lpu-fuse-parallel-linear", "lpu-fuse-epilogue", "lpu-hoist-select-rows", "lpu-outline-layers",
        "dce", "lower-lpu-to-isa", "isa-schedule", "isa-allocate-lmu",
    ]  # fmt: skip
    assert not any("fuse" in one.name for one in parse_pipeline("o0"))


def test_debug_is_default_without_reordering() -> None:
    left_out = ("canonicalize", "cse", "dce", "isa-schedule")
    names = {name: [one.name for one in parse_pipeline(name)] for name in ("default", "debug")}
    assert "isa-schedule" not in names["debug"]
    kept = {pipeline: [name for name in names[pipeline] if name not in left_out] for pipeline in names}
    assert kept["debug"] == kept["default"]


@pytest.mark.parametrize("pipeline", pipeline_names())
def test_every_pipeline_divides_a_model(pipeline: str) -> None:
    names = [one.name for one in parse_pipeline(pipeline)]
    assert names[names.index("lpu-propagate-sharding") + 1] == "lpu-partition"


def test_every_pass_says_whether_it_is_exact() -> None:
    for name, factory in get_all_passes().items():
        assert factory().name == name
        assert getattr(factory(), "exactness", None) == "exact"


def test_comments_breaks_and_options() -> None:
    text = '\n// first\ncse , # second, third\n canonicalize,\n\tapply-pdl { pdl-file=\n"a // b" } , dce // end'
    passes = typed_pipeline(text)
    assert [one.name for one in passes] == ["cse", "canonicalize", "apply-pdl", "dce"]
    assert passes[2].pdl_file == "a // b"  # pyright: ignore[reportAttributeAccessIssue]
    assert [one.name for one in typed_pipeline(pipeline_spec(passes))] == [one.name for one in passes]
    assert typed_pipeline(" // nothing\n") == []
    assert [one.name for one in typed_pipeline("cse,")] == ["cse"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cse,\n  lpu-fuse-nrm", "line 2, column 3: no pass 'lpu-fuse-nrm'"),
        ("cse dce", "line 1, column 5: expected a comma"),
        ("cse, , dce", "line 1, column 6: expected the name of a pass"),
        ("cse{a=1", "line 1, column 4: expected a closing brace"),
        ("cse{nothing=1}", "line 1, column 5: cse has no option 'nothing'"),
        ("cse, // {\n apply-pdl{ pdl-file=1 }", "line 2, column 13: apply-pdl: Incompatible types: given (1,)"),
        ("cse{a = }", "line 1, column 9: expected a value"),
        ("cse{=1}", "line 1, column 5: expected the name of an option"),
        ("cse,\n\n;", "line 3, column 1: expected the name of a pass"),
        ("missing/file.pipeline", "cannot read this pipeline"),
    ],
)
def test_wrong_text_names_the_column(text: str, message: str) -> None:
    with pytest.raises(OptionError) as error:
        typed_pipeline(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nearest_pass_is_the_hint() -> None:
    with pytest.raises(OptionError) as error:
        typed_pipeline("lpu-fuse-nrm")
    assert error.value.hint == "did you mean lpu-fuse-norm?"


@pytest.mark.parametrize(
    ("text", "excerpt", "hint"),
    [
        ("dce,\n  cse{\n    nothing=1}", ["      nothing=1}", "      ^"], "cse has no options"),
        ("defualt", ["  defualt", "  ^"], "did you mean default?"),
        ("apply-pdl{file=a}", ["  apply-pdl{file=a}", "            ^"], "options of apply-pdl are pdl-file: str|None"),
    ],
)
def test_error_shows_the_line_with_a_caret(text: str, excerpt: list[str], hint: str) -> None:
    with pytest.raises(OptionError) as error:
        typed_pipeline(text)
    assert error.value.notes == excerpt
    assert error.value.hint.startswith(hint)


def test_options_in_every_spelling() -> None:
    for text in (
        "distribute-stencil{strategy=2d-grid slices=1,2 restrict_domain=false}",
        'distribute-stencil{strategy="2d-grid",slices=1,2,restrict-domain=false}',
        "distribute-stencil { strategy = 2d-grid , slices = 1 , 2\n, restrict-domain = false, }",
    ):
        (one,) = typed_pipeline(text)
        assert str(one) == 'distribute-stencil{slices=1,2 strategy="2d-grid" restrict_domain=false}'
        assert str(typed_pipeline(str(one))[0]) == str(one)


@pytest.mark.slow
@given(st.lists(st.text(st.characters() | st.sampled_from('"\\{},u/#\n\r\u2028')), min_size=1))
def test_texts_of_options_read_back(texts: list[str]) -> None:
    made = [ApplyPDLPass(texts[0]), MLIROptPass(arguments=tuple(texts))]
    for write in (pipeline_spec, pipeline_lines):
        assert typed_pipeline(write(made)) == made
    assert pipeline_spec(made).isprintable()


def test_a_pipeline_for_mlir_opt_is_kept() -> None:
    (one, two) = typed_pipeline("mlir-opt[canonicalize,cse],dce")
    assert "builtin.module(canonicalize,cse)" in str(one)
    assert two.name == "dce"


def test_pipeline_from_file(tmp_path: Path) -> None:
    path = tmp_path / "own.pipeline"
    path.write_text("cse, // comment\ndce\n")
    assert [one.name for one in typed_pipeline(str(path))] == ["cse", "dce"]
    path.write_text("cse,\n dec\n")
    with pytest.raises(OptionError, match=r"own\.pipeline, line 2, column 2: no pass 'dec'"):
        typed_pipeline(str(path))


# ---------------------------------------------------------------------------------------------------- errors
WRONG = """
func.func @main(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %a = lpu.neg %x : tensor<?x8xf32> loc("model.a")
  %b = lpu.exp %c : tensor<?x8xf32> loc("model.b")
  %c = lpu.tanh %a : tensor<?x8xf32> loc("model.c")
  func.return %b : tensor<?x8xf32>
}
"""


def test_use_before_definition_is_one_short_error() -> None:
    module = parse_module(WRONG)
    module.verify()  # xDSL itself sees nothing
    with pytest.raises(PassError) as error:
        run_pipeline(module, "dce")
    assert str(error.value) == (
        "pass dce: lpu.exp: operand 0 is used before it is defined, in"
        " `%b = lpu.exp %c : tensor<?x8xf32>`, from model.b"
    )


def test_check_shows_two_neighbours_only() -> None:
    with pytest.raises(Exception, match="used before") as error:
        check_module(parse_module(WRONG))
    assert not getattr(error.value, "__notes__", [])
    assert [line[:12] for line in str(error.value).split("\n")[1:]] == [
        "  %a = lpu.n", "> %b = lpu.e", "  %c = lpu.t", "  from model",
    ]  # fmt: skip


def test_values_of_inner_regions_are_not_seen_outside() -> None:
    module = parse_module("""
func.func @main(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = lpu.repeat 2 (%i = %x : tensor<?x8xf32>) {
    %a = lpu.neg %i : tensor<?x8xf32>
    lpu.yield %a : tensor<?x8xf32>
  }
  %b = lpu.exp %y : tensor<?x8xf32>
  func.return %b : tensor<?x8xf32>
}""")
    check_module(module)
    inner = next(op for op in module.walk() if op.name == "lpu.neg")
    outer = next(op for op in module.walk() if op.name == "lpu.exp")
    outer.operands[0] = inner.results[0]
    with pytest.raises(Exception, match="used before it is defined"):
        check_module(module)


def test_text_that_does_not_parse_is_one_line() -> None:
    with pytest.raises(PassError, match=r"^a.mlir:3:1: Operation lpu.nothing is not registered$"):
        parse_module("func.func @main() {\n  %a = lpu.nothing\n}", "a.mlir")


@pytest.mark.slow
def test_tool_prints_one_line_and_fails() -> None:
    result = _opt("--no-repro", "--pipeline", "lower-lpu-to-isa", text="func.func @main() {\n  func.return\n}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: @main must take the token ids and the positions")
    assert "Traceback" not in result.stderr


def test_tool_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from hyperdex_ir.cli.opt import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().split("\n")[-1] == "[]"


@pytest.mark.slow
def test_plain_xdsl_opt_knows_our_passes() -> None:
    tool = Path(sys.executable).with_name("xdsl-opt")
    text = "func.func @f(%x: tensor<1x?x8xf32>) {\n  func.return\n}"
    result = subprocess.run([tool, "-p", "lpu-token-major"], input=text, capture_output=True, text=True, check=True)
    assert "%x: tensor<?x8xf32>" in result.stdout


def _opt(*arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyperdex_ir.cli.opt", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------------------------------------------- text
def test_f32_constants_survive_text_to_the_bit() -> None:
    generator = random.Random(0)
    values = [0.1, 128**-0.5, 1e-6, 1e-5, 1e-45, 3.4028234663852886e38, 0.70710678118, 0.044715, 30.0, -0.0]
    values += [generator.uniform(-2, 2) * 10.0 ** generator.randint(-40, 4) for _ in range(500)]
    for value in values:
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        module = ModuleOp([ConstantOp(value)])
        parsed = parse_module(print_module(module)).body.block.first_op
        assert isinstance(parsed, ConstantOp)
        assert struct.unpack("<I", struct.pack("<f", parsed.value.value.data)) == (bits,), value


def test_module_paths_survive_text() -> None:
    module = parse_module('func.func @f() {\n  func.return loc("model.layers.*.mlp")\n}')
    again = parse_module(print_module(module, locations=True))
    assert [module_path(op) for op in again.walk() if isinstance(op, ReturnOp)] == ["model.layers.*.mlp"]


# ---------------------------------------------------------------------------------------------------- outlining
def _expand(items: list) -> list[int]:
    result = []
    for item in items:
        result += [item] if isinstance(item, int) else item[0] * _expand(item[1])
    return result


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([0] * 30, [(30, [0])]),
        (([0] * 5 + [1]) * 4 + [0, 0], [(4, [(5, [0]), 1]), (2, [0])]),
        ([0, 1, 2], [0, 1, 2]),
        ([0, 1, 0, 1, 2], [(2, [0, 1]), 2]),
        ([0, 0, 0, 1, 1], [(3, [0]), (2, [1])]),
        ([], []),
    ],
)
def test_runs_and_periods(kinds: list[int], expected: list) -> None:
    assert compress(kinds) == expected
    assert _expand(compress(kinds)) == kinds


def test_every_sequence_of_kinds_is_kept() -> None:
    for kinds in product(range(3), repeat=7):
        assert _expand(compress(kinds)) == list(kinds)


def test_a_table_is_for_orders_that_repeats_do_not_shorten() -> None:
    assert not is_shorter_as_table([0] * 80)
    assert not is_shorter_as_table(([0] * 5 + [1]) * 4 + [0, 0])
    assert not is_shorter_as_table([0, 1, 2])
    assert is_shorter_as_table([0, 1, 1, 0, 1, 0, 0])


def test_instructions_of_main_are_bounded_by_the_distinct_layers() -> None:
    for kinds in product(range(3), repeat=8):
        table = 4 + 4 * len(set(kinds))
        chosen = table if is_shorter_as_table(kinds) else instructions(compress(kinds))
        assert chosen <= table


# ---------------------------------------------------------------------------------------------------- token-major
def test_canonical_shapes() -> None:
    tokens = parse_module("func.func @f(%x: tensor<1x4x?x16xf32>) {\n  func.return\n}")
    shape = next(tokens.walk()).regions[0].block.first_op.body.block.args[0].type.get_shape()  # pyright: ignore
    dynamic = shape[2]
    assert canonical_shape(shape) == (dynamic, 4, 16)
    assert canonical_shape((1, dynamic, 8)) == (dynamic, 8)
    assert canonical_shape((1, 1, dynamic, 8)) == (dynamic, 1, 8)
    assert canonical_shape((dynamic, 1, 8)) == (dynamic, 1, 8)
    assert canonical_shape((1, dynamic)) == (dynamic,)
    assert canonical_shape((1, 4, 8)) == (1, 4, 8)


# ---------------------------------------------------------------------------------------------------- views
def _words(view: View) -> list[int]:
    """The words of a view's elements, in order."""
    places = product(*(range(extent) for extent in view.dims))
    return [view.offset + sum(i * s for i, s in zip(place, view.strides, strict=True)) for place in places]


def _view(*dims: int) -> View:
    return View(BufferOp(LmuType("tokens", 4096)).res, 0, dims, contiguous_strides(dims))


def test_views_reshape_as_their_elements_lie() -> None:
    view = _view(8, 16)
    assert view.reshaped((128,)) == View(view.buffer, 0, (128,), (1,))
    assert view.reshaped((2, 4, 1, 16)) is not None
    half = view.sliced(1, 8, 1, 8)
    assert half.reshaped((64,)) is None
    turned = view.permuted((1, 0))
    assert turned.reshaped((128,)) is None
    for part in (view, half, turned, view.sliced(0, 1, 2, 4)):
        for dims in ((*part.dims[:1], 2, part.dims[1] // 2), (2, part.dims[0] // 2, part.dims[1])):
            again = part.reshaped(dims)
            assert again is not None
            assert _words(again) == _words(part)


@pytest.mark.parametrize("order", list(product((0, 1, 2), repeat=3)))
def test_elementwise_blocks_visit_each_element_once(order: tuple[int, ...]) -> None:
    if sorted(order) != [0, 1, 2]:
        return
    source = _view(3, 4, 5).permuted(order).sliced(0, 1, 2, 1)
    target = _view(*source.dims)
    pairs = [pair for block in elementwise_blocks(target.dims, [target, source]) for pair in _pairs(block)]
    assert sorted(pairs) == sorted(zip(_words(target), _words(source), strict=True))


def _pairs(block) -> list[tuple[int, int]]:
    def word(use: ViewUse, group: int, column: int) -> int:
        return use.offset + group * use.group_stride + column * use.column_stride

    places = product(range(block.groups), range(block.columns))
    return [(word(block.uses[0], g, c), word(block.uses[1], g, c)) for g, c in places]


def test_broadcast_views_repeat() -> None:
    row = _view(16).broadcast((4, 16))
    assert _words(row) == list(range(16)) * 4
    assert _words(_view(4, 1).broadcast((4, 3))) == [w for w in range(4) for _ in range(3)]
    assert len(merge_dims((4, 16), [row.strides, _view(4, 16).strides])) == 2


# ---------------------------------------------------------------------------------------------------- allocation
def _random_module(seed: int) -> ModuleOp:
    """Buffers of random widths with random uses; every operation reads and writes one."""
    generator = random.Random(seed)
    block = Block()
    buffers = [BufferOp(LmuType(generator.choice(["tokens", "head", 1]), generator.randint(1, 99))) for _ in range(12)]
    block.add_ops(buffers)
    for _ in range(30):
        a, b = generator.sample(buffers, 2)
        block.add_op(OPS["softmax"](dst=LmuUse(a.res), src=LmuUse(b.res), rows=1))
    block.add_op(ReturnOp())
    return ModuleOp([FuncOp("main", ([], []), Region(block))])


@pytest.mark.parametrize("seed", range(20))
def test_buffers_that_live_together_are_apart(seed: int) -> None:
    module = _random_module(seed)
    frames = find_frames(module)
    placement = place(frames, 8, 4)
    for value, address in placement.addresses.items():
        assert address % 16 == 0
        Rewriter.replace_value_with_new_type(value, value.type.at(address))  # pyright: ignore
    assert find_overlaps(module, 8, 4) == []


def test_overlaps_are_found() -> None:
    module = _random_module(0)
    for op in list(module.walk()):
        if isinstance(op, BufferOp):
            Rewriter.replace_value_with_new_type(op.res, op.res.type.at(0))
    assert find_overlaps(module, 8, 4)


def test_chunk_is_the_largest_that_fits() -> None:
    target = load_target("u55c")
    for width in (2, 5000, 40000, 2_000_000):
        block = Block()
        block.add_ops([buffer := BufferOp(LmuType("tokens", width)), head := BufferOp(LmuType("head", 30000))])
        block.add_op(OPS["softmax"](dst=LmuUse(buffer.res), src=LmuUse(head.res), rows=1))
        block.add_op(ReturnOp())
        frames = find_frames(ModuleOp([FuncOp("main", ([], []), Region(block))]))
        found = choose(frames, target, 300)
        assert found.words <= target.lmu_words
        assert found.chunk == 256 or place(frames, found.chunk * 2, 1).words > target.lmu_words
        at_most = found.head_rows == found.chunk
        assert at_most or place(frames, found.chunk, found.head_rows * 2).words > target.lmu_words


def test_powers_of_two_only() -> None:
    block = Block(ops=[buffer := BufferOp(LmuType("tokens", 64)), ReturnOp()])
    frames = find_frames(ModuleOp([FuncOp("main", ([], []), Region(block))]))
    chunks = [choose(frames, load_target("u55c"), length).chunk for length in (1, 2, 3, 100, 256, 5000)]
    assert chunks == [1, 2, 2, 64, 256, 256]
    assert list(frames[0].lives) == [buffer.res]
    assert all(a <= b for a, b in pairwise(chunks))
