"""Operands in the LMU and in HBM: addresses, bounds-checked as in the interpreter, and ways to walk the operands."""

from __future__ import annotations

from dataclasses import dataclass

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.formats import ITEM_BYTES
from hyperdex_ir.native.context import Context, Region
from hyperdex_ir.native.emit import F32, I8, I64, POINTER, Emitter, V, define
from hyperdex_ir.native.fields import Fields
from hyperdex_ir.native.shared import Shared, offset_of
from hyperdex_ir.targets import BEAT_BYTES, LANES, TREE_BYTES, TREE_CHANNELS

_FARTHEST = 1 << 62  # beyond it, sums of addresses could wrap round


@dataclass(frozen=True)
class LmuRows:
    """Rows of f32 in the LMU. `pointer`: row 0; `stride`: words from row to row; `first`, `last`: numbers of its first
    and last word in the LMU. Without words, the last is before the first."""

    e: Emitter
    pointer: V
    stride: V
    first: V
    last: V

    def row(self, row: int | V) -> V:
        """The address of a row."""
        return self.e.element(self.pointer, self.e.mul(self.e.i64(row), self.stride), F32)


@dataclass(frozen=True)
class LmuView:
    """f32 [rows, groups, columns] in the LMU, strides in words. `first`, `last`: words of the LMU."""

    e: Emitter
    pointer: V
    stride: V
    group_stride: V
    column_stride: V  # 0 to 3
    first: V
    last: V

    def row(self, row: int | V, group: int | V = 0) -> V:
        """The address of column 0 of a row and group."""
        e = self.e
        words = e.add(e.mul(e.i64(row), self.stride), e.mul(e.i64(group), self.group_stride))
        return e.element(self.pointer, words, F32)

    def element(self, row: int | V, group: int | V, column: int | V) -> V:
        """The address of an element."""
        e = self.e
        return e.element(self.row(row, group), e.mul(e.i64(column), self.column_stride), F32)


@dataclass(frozen=True)
class Tiles:
    """A matrix in tile order: see memory/map.py.

    Column n of the MAC's matrix [rows, columns] (one of its rows) belongs to tree n % trees, group n / trees. In step s
    its lanes 0..31 are in the tree's first channel, lanes 32..63 in the second, both at beat
    `beat + group * steps + s` of the channel. So every column is two streams, `stride` bytes from step to step, and the
    groups of a tree follow each other without a gap.
    """

    e: Emitter
    channels: V  # pointer to the channels' pointers
    beat: V  # beat of the matrix's first stripe
    stride: V  # bytes from beat to beat of a channel
    trees: V
    steps: V
    groups: V

    def stream(self, tree: V, group: int | V = 0) -> tuple[V, V]:
        """The addresses of lanes 0..31 and of lanes 32..63 of step 0 of a tree's column of a group."""
        e = self.e
        beat = e.add(self.beat, e.mul(e.i64(group), self.steps))
        distance = e.mul(beat, self.stride)
        first = e.mul(tree, TREE_CHANNELS)
        low = e.load(e.element(self.channels, first, POINTER), POINTER)
        high = e.load(e.element(self.channels, e.add(first, 1), POINTER), POINTER)
        return e.offset(low, distance), e.offset(high, distance)

    def column(self, column: V) -> tuple[V, V]:
        """`stream` of a matrix row by its number (two divisions)."""
        e = self.e
        return self.stream(e.builder.urem(column, self.trees), e.builder.udiv(column, self.trees))


@dataclass(frozen=True)
class Words:
    """`count` elements of `item` bytes in HBM, one after another; beats of 64 bytes go round the channels."""

    e: Emitter
    region: V  # pointer to the Region
    channel_count: V
    relative: V  # byte address of element 0 from the region's begin
    count: V
    item: int

    def pointer(self, index: int | V) -> V:
        """The address of an element; its neighbours are beside it up to the end of the 64-byte beat."""
        e = self.e
        byte = e.add(self.relative, e.mul(e.i64(index), self.item))
        return e.call(beat_address(e), [self.region, self.channel_count, byte])

    def copy_to(self, target: V, first: int | V = 0, count: int | V | None = None) -> None:
        """Copies elements first..first+count-1 (all by default) to memory."""
        self._copy(target, first, count, store=False)

    def copy_from(self, source: V, first: int | V = 0, count: int | V | None = None) -> None:
        """Copies memory to elements first..first+count-1 (all by default)."""
        self._copy(source, first, count, store=True)

    def _copy(self, memory: V, first: int | V, count: int | V | None, store: bool) -> None:
        e = self.e
        byte = e.add(self.relative, e.mul(e.i64(first), self.item))
        size = e.mul(self.count if count is None else e.i64(count), self.item)
        e.call(_copy_function(e, store), [self.region, self.channel_count, byte, size, memory])


def beat_address(e: Emitter) -> V:
    """ptr beat_address(ptr region, i64 channels, i64 byte): where byte `begin + byte` of a region lies."""
    name = "beat_address"
    known = e.module.globals.get(name)
    if known is not None:
        return known
    function = define(e.module, name, POINTER, (POINTER, I64, I64))
    function.attributes.discard("noinline")
    region, channels, byte = function.args
    e = Emitter(function, e.features)
    b, fields = e.builder, Shared(e, region, Region)
    beat = b.udiv(byte, I64(BEAT_BYTES))
    start = e.load(e.element(fields.load_pointer("channels"), b.urem(beat, channels), POINTER), POINTER)
    place = e.mul(b.udiv(beat, channels), fields.load("stride"))
    b.ret(e.offset(start, e.add(place, b.urem(byte, I64(BEAT_BYTES)))))
    return function


def _copy_function(e: Emitter, store: bool) -> V:
    """void copy(ptr region, i64 channels, i64 byte, i64 size, ptr memory): from HBM beat by beat, or to it."""
    name = "copy_to_hbm" if store else "copy_from_hbm"
    known = e.module.globals.get(name)
    if known is not None:
        return known
    address = beat_address(e)
    function = define(e.module, name, I64, (POINTER, I64, I64, I64, POINTER))
    region, channels, byte, size, memory = function.args
    e = Emitter(function, e.features)
    done = e.local(I64, I64(0))
    with e.loop_while() as end:
        at = done.get()
        e.leave(end, e.builder.icmp_signed(">=", at, size))
        here = e.add(byte, at)
        room = e.sub(I64(BEAT_BYTES), e.builder.urem(here, I64(BEAT_BYTES)))
        part = e.minimum(room, e.sub(size, at))
        hbm, own = e.call(address, [region, channels, here]), e.offset(memory, at)
        with e.if_else(e.equal(part, BEAT_BYTES)) as (whole, piece):
            for block, length in ((whole, I64(BEAT_BYTES)), (piece, part)):
                with block:
                    e.copy(hbm if store else own, own if store else hbm, length)
        done.set(e.add(at, part))
    e.builder.ret(I64(0))
    return function


# ---------------------------------------------------------------------------------------------------- LMU


def lmu_rows(op: Fields, name: str, rows: V, columns: V, added: V) -> LmuRows:
    """See Operation.lmu."""
    e = op.e
    stride = op.immediate(f"{name}.stride")
    distance = e.add(e.mul(e.sub(rows, 1), stride), e.sub(columns, 1))
    pointer, first, last = _lmu(op, name, distance, added, e.mul(rows, columns))
    return LmuRows(e, pointer, stride, first, last)


def lmu_view(op: Fields, name: str, rows: V, groups: V, columns: V) -> LmuView:
    """See Operation.view."""
    e = op.e
    strides = [op.immediate(f"{name}.{part}") for part in ("stride", "group_stride", "column_stride")]
    distance: V = I64(0)
    for extent, stride in zip((rows, groups, columns), strides, strict=True):
        distance = e.add(distance, e.mul(e.sub(extent, 1), stride))
    pointer, first, last = _lmu(op, name, distance, I64(0), e.mul(rows, e.mul(groups, columns)))
    row, group, column = strides
    return LmuView(e, pointer, row, group, column, first, last)


def _lmu(op: Fields, name: str, distance: V, added: V, count: V) -> tuple[V, V, V]:
    """Pointer and number of the first word, and number of the last, `distance` words further on. Fault unless both are
    in the LMU, and `count` elements are no more than it has words. Without elements the last word is the one before the
    first, which may be right behind the LMU."""
    e, b = op.e, op.e.builder
    distance = b.select(e.equal(count, 0), I64(-1), distance)
    address, register = e.add(op.immediate(f"{name}.address"), added), op.register(f"{name}.register")
    start, words = e.add(address, register), op.context.load("lmu_words")
    outside = b.or_(e.less(start, 0), e.less(_FARTHEST, start))
    outside = b.or_(outside, b.icmp_signed(">=", e.add(start, distance), words))
    op.fault_if(outside, Fault.LMU, address, register, distance, words)
    op.fault_if(e.less(words, count), Fault.LMU_ELEMENTS, count, words)
    return e.element(op.context.load_pointer("lmu"), start, F32), start, e.add(start, distance)


# ---------------------------------------------------------------------------------------------------- HBM


def tiles(op: Fields, name: str, rows: V, columns: V, added: V, written: bool) -> Tiles:
    """See Operation.tiles."""
    e, b = op.e, op.e.builder
    trees = op.context.load("trees")
    groups, steps = e.ceil_div(rows, trees), e.ceil_div(columns, LANES)
    stripe = e.mul(trees, TREE_BYTES)
    size = e.mul(e.mul(groups, steps), stripe)
    region, address, begin = _hbm(op, name, added, size, ITEM_BYTES, stripe, written)
    fields = Shared(e, region, Region)
    beat = b.udiv(e.sub(address, begin), stripe)
    return Tiles(e, fields.load_pointer("channels"), beat, fields.load("stride"), trees, steps, groups)


def words(op: Fields, name: str, count: V, item: int, added: V, written: bool) -> Words:
    """See Operation.words."""
    e = op.e
    region, address, begin = _hbm(op, name, added, e.mul(count, item), item, None, written)
    return Words(e, region, op.context.load("channels"), e.sub(address, begin), count, item)


def _hbm(op: Fields, name: str, added: V, size: V, item: int, stripe: V | None, written: bool) -> tuple[V, V, V]:
    """(pointer to the region, byte address, the region's begin) of `size` bytes, all checks made."""
    e, b = op.e, op.e.builder
    register = op.register(f"{name}.register")
    offset = e.add(op.immediate(f"{name}.offset"), added)
    address = e.add(offset, register)
    end, parameter_end = op.context.load("runtime.end"), op.context.load("parameters.end")
    outside = b.or_(e.less(address, 0), b.icmp_signed(">", address, e.sub(end, size)))
    op.fault_if(outside, Fault.HBM, register, offset, size, end)
    op.fault_if(b.icmp_signed("!=", b.and_(address, I64(item - 1)), I64(0)), Fault.HBM_ALIGNMENT, address, item)
    is_parameter = e.less(address, parameter_end)
    across = b.and_(is_parameter, b.icmp_signed(">", e.add(address, size), parameter_end))
    op.fault_if(across, Fault.HBM_STRADDLE, address, size, parameter_end)
    if stripe is not None:
        off = b.icmp_signed("!=", b.urem(address, stripe), I64(0))
        op.fault_if(off, Fault.HBM_STRIPE, address, stripe)
    if written:
        op.fault_if(is_parameter, Fault.HBM_PARAMETER, address, parameter_end)
    return _region(op, is_parameter, address)


def _region(op: Fields, is_parameter: V, address: V) -> tuple[V, V, V]:
    e, b = op.e, op.e.builder
    places = [I64(offset_of(Context, name)) for name in ("parameters", "runtime")]
    region = b.gep(op.context.pointer, [b.select(is_parameter, *places)], source_etype=I8)
    return region, address, Shared(e, region, Region).load("begin")
