"""Operations of the `isa` dialect as Python objects; their text is tested in tests/filecheck/isa."""

from __future__ import annotations

import subprocess
import sys

import pytest
from xdsl.dialects.builtin import ModuleOp, NameLoc, NoneAttr, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region
from xdsl.transforms.common_subexpression_elimination import cse
from xdsl.transforms.dead_code_elimination import dce
from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.dialects import isa
from hyperdex_ir.dialects.isa import BufferOp, HbmRef, LmuType, LmuUse, ViewUse
from hyperdex_ir.isa.instructions import SPECS
from hyperdex_ir.isa.operands import Lmu, LmuRef


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_")) + "Op"


def test_one_class_an_instruction() -> None:
    control = {"halt", "repeat", "repeat_rows", "call", "ret", "skip_unless"}
    assert list(isa.OPS) == [spec.name for spec in SPECS if spec.name not in control]
    for name, op in isa.OPS.items():
        assert isa.OPS[name] is op
        assert (op.__name__, op.name, op.__doc__) == (_class_name(name), f"isa.{name}", op.spec().doc)


@pytest.fixture
def buffer() -> BufferOp:
    return BufferOp(LmuType("tokens", 576))


def test_operands_come_back(buffer: BufferOp) -> None:
    op = isa.OPS["matmul"](
        dst=LmuUse(buffer.res, 64, 9),
        src=buffer.res,
        weight=HbmRef(4096, 5),
        k=576,
        n=512,
        type="f16",
        scale=0.1,
        rows="tokens",
        plus=LmuUse(buffer.res),
    )
    op.verify()
    assert op.operand("dst") == LmuUse(buffer.res, 64, 9)
    assert op.operand("src") == LmuUse(buffer.res)
    assert op.operand("weight") == HbmRef(4096, 5)
    assert op.operand("bias") is None
    assert op.operand("times") is None
    assert op.operand("scale") == 0.10000000149011612
    assert op.operand("softcap") == 0.0
    assert op.operand("activation") == "none"
    assert op.operand("rows") == 1
    assert list(op.values()) == [operand.name for operand in op.spec().operands]
    assert [name for name, _ in op.uses()] == ["dst", "src", "plus"]
    with pytest.raises(KeyError, match=r"isa\.matmul has no operand banana"):
        op.operand("banana")


def test_views_come_back(buffer: BufferOp) -> None:
    view = ViewUse(buffer.res, 1, 9, 64, 0, True)
    dst = ViewUse(buffer.res, group_stride=1)
    op = isa.OPS["reduce"](function="sum", dst=dst, a=view, groups=9, columns=64, rows=1)
    op.verify()
    assert op.operand("a") == view
    assert op.operand("dst") == ViewUse(buffer.res, group_stride=1)
    assert dict(op.uses()) == {"dst": op.operand("dst"), "a": view}


def test_location_is_kept() -> None:
    location = NameLoc(StringAttr("model.norm"), NoneAttr())
    assert isa.OPS["set"](dst=9, value=1, location=location).location == location
    assert isa.RepeatOp(3, location=location).location == location
    assert isa.CallOp("layer", location=location).location == location


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ({"value": 1}, r"isa\.set needs operand dst"),
        ({"dst": 1, "value": 1, "other": 2}, r"isa\.set has no operand other"),
        ({"dst": "nowhere", "value": 1}, "no register 'nowhere'"),
    ],
)
def test_wrong_operands(operands: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        isa.OPS["set"](**operands)


def test_wrong_use(buffer: BufferOp) -> None:
    with pytest.raises(TypeError, match="dst: expected LmuUse"):
        isa.OPS["load"](dst=ViewUse(buffer.res), src=HbmRef(0), columns=1)


@pytest.mark.parametrize(
    ("use", "operands", "word"),
    [
        (LmuUse, {"columns": 577}, 576),
        (LmuUse, {"columns": 1, "offset": 576}, 576),
        (ViewUse, {"columns": 64, "group_stride": 64, "groups": 10}, 639),
        (ViewUse, {"columns": 289, "column_stride": 2}, 576),
    ],
)
def test_narrow_buffers(buffer: BufferOp, use: type, operands: dict, word: int) -> None:
    columns, groups = operands.pop("columns"), operands.pop("groups", 1)
    if use is LmuUse:
        op = isa.OPS["load"](dst=LmuUse(buffer.res, **operands), src=HbmRef(0), columns=columns)
    else:
        target = ViewUse(buffer.res)
        op = isa.OPS["reduce"](
            function="sum", dst=target, a=ViewUse(buffer.res, **operands), groups=groups, columns=columns, rows=1
        )
    with pytest.raises(VerifyException, match=f"reaches word {word} of rows that have 576 words"):
        op.verify()


def test_columns_are_known_unless_they_grow_with_the_position() -> None:
    growing = {("scores", "dst"), ("values", "src"), ("softmax", "dst"), ("softmax", "src")}
    operands = [(spec, operand) for spec in SPECS for operand in spec.lmu if isinstance(operand, Lmu)]
    values = dict.fromkeys((name for _, operand in operands for name in operand.immediates()), 1)
    unknown = [(spec.name, one.name) for spec, one in operands if one.row_words(LmuRef(0), values) is None]
    assert set(unknown) == growing


@pytest.mark.slow
def test_the_program_side_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, hyperdex_ir.dialects.isa_program, hyperdex_ir.isa.assembly, hyperdex_ir.isa.codec;"
        "print([m for m in ('numpy', 'torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_type() -> None:
    type_ = LmuType("tokens", 576)
    assert (type_.rows, type_.width, type_.address, type_.row_stride) == ("tokens", 576, None, 576)
    assert type_.words(7, 2) == 7 * 576
    assert LmuType("head", 10).words(7, 2) == 20
    assert LmuType(3, 10).words(7, 2) == 30
    assert type_.at(64) == LmuType("tokens", 576, 64)
    assert type_.at(64).at(None) == type_
    assert LmuType(1, 64).row_stride == 0
    with pytest.raises(VerifyException, match="rows are 'many', must be a number, tokens or head"):
        LmuType("many", 1)


def test_nothing_is_deleted_or_merged_but_unused_buffers() -> None:
    buffers = [BufferOp(LmuType("tokens", 64)) for _ in range(3)]
    unary = isa.OPS["unary"]
    steps = [unary(function="exp", dst=b.res, a=b.res, columns=64, rows=1) for b in (*buffers[:2], buffers[0])]
    steps += [isa.OPS["set"](dst=9, value=1), isa.OPS["set"](dst=9, value=1), isa.RepeatOp(2)]
    module = ModuleOp([FuncOp("main", ((), ()), Region(Block([*buffers, *steps, ReturnOp()])))])
    cse(module)
    dce(module)
    main = next(iter(module.ops))
    assert isinstance(main, FuncOp)
    assert list(main.body.block.ops)[:-1] == [*buffers[:2], *steps]
