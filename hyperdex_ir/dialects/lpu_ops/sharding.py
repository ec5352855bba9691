"""One model on several devices: the part of a value that each device holds, and gathering of the parts.

All devices run the same module on values of the same local shape. A *sharding* says which elements of one dimension a
device holds: those of one or more segments, one segment after another. Elements that a device holds from the extent of
a segment on are padding. Padding is 0 in parameters, and is computed from these zeros in values; it is dropped when
parts are gathered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import DYNAMIC_INDEX, I64, ArrayAttr, IntAttr, IntegerAttr, TensorType, f32
from xdsl.ir import Attribute, Operation, ParametrizedAttribute, SSAValue
from xdsl.irdl import (
    irdl_attr_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure

from hyperdex_ir.dialects.lpu_ops.base import TENSOR, LpuOp, element_of, require, shape_of
from hyperdex_ir.dialects.lpu_ops.traits import RowWise

#: Most devices of a module: the data that a pass makes for each device must stay small.
MAX_DEVICES = 1024

#: The attribute of a module that says how many devices run it, and that of an operation with a sharded result.
GRID, SHARDING = "lpu.grid", "lpu.sharding"


@dataclass(frozen=True)
class Segment:
    """A range of `size` elements on each device: device d holds starts[d], starts[d] + 1, ... of one dimension.

    Elements from `extent` on are padding; a start is at most the extent.
    """

    size: int
    extent: int
    starts: tuple[int, ...]

    def shifted(self, offset: int) -> Segment:
        """The same elements in a dimension in which they lie `offset` further on."""
        return Segment(self.size, self.extent + offset, tuple(start + offset for start in self.starts))

    def scaled(self, factor: int) -> Segment:
        """The same elements when each is `factor` elements."""
        return Segment(self.size * factor, self.extent * factor, tuple(start * factor for start in self.starts))


def block_segment(extent: int, devices: int, unit: int = 1) -> Segment:
    """Equal blocks of consecutive elements, whole units of `unit` elements; the last devices may hold padding."""
    size = -(-extent // (devices * unit)) * unit
    return Segment(size, extent, tuple(min(device * size, extent) for device in range(devices)))


@irdl_attr_definition
class GridAttr(ParametrizedAttribute):
    """The number of devices that run the module: `#lpu.grid<4>`."""

    name = "lpu.grid"
    count: IntAttr

    def __init__(self, devices: int):
        super().__init__(IntAttr(devices))

    @property
    def devices(self) -> int:
        return self.count.data

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer(allow_boolean=False))]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{self.devices}>")

    def verify(self) -> None:
        require(self.devices > 0, "lpu.grid: the number of devices must be positive")
        require(self.devices <= MAX_DEVICES, f"lpu.grid: {self.devices} devices, at most {MAX_DEVICES} are possible")


@irdl_attr_definition
class ShardingAttr(ParametrizedAttribute):
    """The elements of a dimension that each device holds: `#lpu.sharding<1, 3 of 9 at [0, 3, 6, 9]>`.

    Several segments, separated by commas, lie one behind the other on the device.
    """

    name = "lpu.sharding"
    dimension: IntAttr
    sizes: ArrayAttr[IntAttr]
    extents: ArrayAttr[IntAttr]
    starts: ArrayAttr[ArrayAttr[IntAttr]]  # starts of each segment, by device

    def __init__(self, dim: int, segments: Sequence[Segment]):
        super().__init__(
            IntAttr(dim),
            _integers(segment.size for segment in segments),
            _integers(segment.extent for segment in segments),
            ArrayAttr([_integers(segment.starts) for segment in segments]),
        )

    @property
    def dim(self) -> int:
        return self.dimension.data

    @property
    def devices(self) -> int:
        return len(self.starts.data[0])

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments in the order in which they lie on the device."""
        starts = [tuple(one.data for one in row) for row in self.starts]
        sizes, extents = ([one.data for one in row] for row in (self.sizes, self.extents))
        return tuple(map(Segment, sizes, extents, starts))

    @property
    def size(self) -> int:
        """Elements on each device, padding included."""
        return sum(segment.size for segment in self.segments)

    @property
    def is_block(self) -> bool:
        """True if device d holds block d of equal blocks of the whole, as collectives take and give them."""
        if len(self.segments) != 1:
            return False
        one = self.segments[0]
        blocks = tuple(min(device * one.size, one.extent) for device in range(self.devices))
        return one.starts == blocks and one.size * self.devices >= one.extent

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            dim = parser.parse_integer(allow_boolean=False)
            segments: list[Segment] = []
            while parser.parse_optional_punctuation(",") is not None:
                segments.append(_parse_segment(parser))
            if len({len(segment.starts) for segment in segments}) != 1 or not segments[0].starts:
                parser.raise_error("lpu.sharding: every segment needs a start for each device")
            return cls(dim, segments).parameters

    def print_parameters(self, printer: Printer) -> None:
        parts = [f"{one.size} of {one.extent} at [{', '.join(map(str, one.starts))}]" for one in self.segments]
        printer.print_string(f"<{', '.join([str(self.dim), *parts])}>")

    def verify(self) -> None:
        require(self.dim >= 0, "lpu.sharding: negative dimension")
        for segment in self.segments:
            inside = all(0 <= start <= segment.extent for start in segment.starts)
            require(inside and segment.size > 0, f"lpu.sharding: a segment outside 0..{segment.extent}")


def _integers(values: Iterable[int]) -> ArrayAttr[IntAttr]:
    return ArrayAttr([IntAttr(value) for value in values])


def _parse_segment(parser: AttrParser) -> Segment:
    size = parser.parse_integer(allow_boolean=False)
    parser.parse_keyword("of")
    extent = parser.parse_integer(allow_boolean=False)
    parser.parse_keyword("at")
    starts = parser.parse_comma_separated_list(
        parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False)
    )
    return Segment(size, extent, tuple(starts))


def sharding_of(op: Operation) -> ShardingAttr | None:
    """The sharding that an operation's first result is annotated with; None: every device holds all of it."""
    attribute = op.attributes.get(SHARDING)
    return attribute if isinstance(attribute, ShardingAttr) else None


def grid_of(module: Operation) -> int:
    """The number of devices that run a module; 1 when the module does not say."""
    attribute = module.attributes.get(GRID)
    return attribute.devices if isinstance(attribute, GridAttr) else 1


def _columns(op: Operation, value: SSAValue) -> int:
    shape = shape_of(value)
    require(len(shape) == 2 and shape[0] == DYNAMIC_INDEX, f"{op.name}: values must be [?, columns]")
    require(element_of(value) == f32, f"{op.name}: values must be f32")
    return shape[1]


class AllGatherOp(LpuOp):
    """The whole of a value of which device d holds block d of columns; the same on all devices.

    Operands: the columns of the block, in one or more consecutive chunks, [?, c] each. Result: [?, C], the blocks of
    `devices` devices one after another; columns beyond C are padding and are dropped.
    """

    name = "lpu.all_gather"
    chunks = var_operand_def(TENSOR)
    devices = prop_def(IntegerAttr[I64])
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    assembly_format = "$chunks `over` $devices attr-dict `:` functional-type(operands, results)"

    def __init__(self, chunks: Sequence[SSAValue | Operation], devices: int, columns: int):
        super().__init__(
            operands=[chunks],
            properties={"devices": IntegerAttr(devices, 64)},
            result_types=[TensorType(f32, [DYNAMIC_INDEX, columns])],
        )

    @property
    def count(self) -> int:
        """The number of devices that take part."""
        return self.devices.value.data

    @property
    def part(self) -> int:
        """Columns of one device's block."""
        return sum(shape_of(chunk)[1] for chunk in self.chunks)

    def verify_(self) -> None:
        require(len(self.chunks) > 0, "lpu.all_gather: needs a value to gather")
        require(self.count > 0, "lpu.all_gather: the number of devices must be positive")
        require(self.count <= MAX_DEVICES, f"lpu.all_gather: {self.count} devices, at most {MAX_DEVICES} are possible")
        gathered = self.count * sum(_columns(self, chunk) for chunk in self.chunks)
        wanted = _columns(self, self.res)
        require(wanted <= gathered, f"lpu.all_gather: {wanted} columns of the {gathered} that there are")


class SelectColumnsOp(LpuOp):
    """This device's block of the columns of a value that all devices hold; +0 beyond its last column.

    x: [?, C]; result: [?, c], columns d * c to d * c + c - 1 on device d.
    """

    name = "lpu.select_columns"
    x = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation, columns: int):
        super().__init__(operands=[x], result_types=[TensorType(f32, [DYNAMIC_INDEX, columns])])

    @property
    def depends_on_device(self) -> bool:
        return True

    def verify_(self) -> None:
        columns, selected = _columns(self, self.x), _columns(self, self.res)
        require(0 < selected <= columns, f"lpu.select_columns: {selected} columns of {columns}")
