"""Writing LLVM code: an `Emitter` adds instructions to one function, with less ceremony than `llvmlite.ir`.

A function is written top down:

    function = define(module, "add_rows", I64, (POINTER, POINTER, I64))
    e = Emitter(function, features)
    target, source, count = function.args
    with e.loop(0, count) as i:                          # i: i64 value
        x = e.load(e.element(source, i, F32), F32)
        e.store(e.fadd(x, e.f32(1.0)), e.element(target, i, F32))
    e.builder.ret(e.i64(0))

Values are `llvmlite.ir` values; everything that is not here is at `e.builder`. A Python int may stand for an i64.
Pointers are opaque: loads and address computations say the type. Floating-point instructions carry no fast-math flags,
so each is one IEEE operation. The fma of the arithmetic is `e.fma`; nothing else is ever fused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from hyperdex_ir.native.features import Features

V = Any  #: an llvmlite value
Type = Any  #: an llvmlite type

I1, I8, I16, I32, I64, I128 = (ir.IntType(width) for width in (1, 8, 16, 32, 64, 128))
HALF, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
POINTER = ir.PointerType()
VOID = ir.VoidType()


def vector(element: Type, lanes: int) -> Type:
    """<lanes x element>."""
    return ir.VectorType(element, lanes)


def define(module: ir.Module, name: str, result: Type, parameters: Sequence[Type], *, public: bool = False) -> Any:
    """A new function of the module with an empty body. public: callable from outside; the others stay separate too
    (`noinline`), so that each compiles on its own."""
    function = ir.Function(module, ir.FunctionType(result, list(parameters)), name)
    function.attributes.add("nounwind")
    if not public:
        function.linkage = "internal"
        function.attributes.add("noinline")
    function.append_basic_block("entry")
    return function


def byte_size(type_: Type) -> int:
    """Bytes of a scalar or a vector in memory."""
    if isinstance(type_, ir.VectorType):
        return type_.count * byte_size(type_.element)
    if isinstance(type_, ir.IntType):
        return max(1, type_.width // 8)
    return {HALF: 2, F32: 4, F64: 8, POINTER: 8}[type_]


class Local:
    """A variable of a function; LLVM turns it into a register."""

    def __init__(self, emitter: Emitter, pointer: V, type_: Type):
        self._emitter, self._pointer, self._type = emitter, pointer, type_

    def get(self) -> V:
        """The value now."""
        return self._emitter.builder.load(self._pointer, typ=self._type)

    def set(self, value: V) -> None:
        """Assigns the value."""
        self._emitter.builder.store(value, self._pointer)


class Emitter:
    """Adds instructions at the end of `function` (or of the block that `builder` stands in)."""

    def __init__(self, function: Any, features: Features):
        self.function = function
        self.module: ir.Module = function.module
        self.features = features
        self.entry = function.basic_blocks[0]
        self.builder: Any = ir.IRBuilder(self.entry)
        if self.entry.is_terminated:
            raise ValueError(f"{function.name} has a body already")
        self._body = function.append_basic_block("body")
        self.builder.branch(self._body)
        self.builder.position_at_end(self._body)

    # ------------------------------------------------------------------------------------------------ constants

    def i64(self, value: int | V) -> V:
        """An i64 constant; a value stays as it is."""
        return I64(value) if isinstance(value, int) else value

    def i32(self, value: int) -> V:
        return I32(value & 0xFFFFFFFF)

    def f32(self, value: float) -> V:
        """The nearest float32 (constants that matter to the bit: `f32_bits`)."""
        return F32(value)

    def f32_bits(self, bits: int) -> V:
        """The float32 with these bits."""
        return self.i32(bits).bitcast(F32)

    def zero(self, type_: Type) -> V:
        """+0, 0, or null; of a vector, all lanes."""
        return ir.Constant(type_, None)

    def lanes(self, element: Type, values: Sequence[int]) -> V:
        """A vector constant of integers."""
        return ir.Constant(vector(element, len(values)), [element(value) for value in values])

    def splat(self, value: V, lanes: int) -> V:
        """<lanes x type of value>, the value in each lane."""
        type_ = vector(value.type, lanes)
        if isinstance(value, ir.Constant) and not isinstance(value, ir.FormattedConstant):
            return ir.Constant(type_, [value] * lanes)
        first = self.builder.insert_element(ir.Constant(type_, ir.Undefined), value, I32(0))
        mask = ir.Constant(vector(I32, lanes), None)
        return self.builder.shuffle_vector(first, ir.Constant(type_, ir.Undefined), mask)

    # ------------------------------------------------------------------------------------------------ memory

    def offset(self, pointer: V, count: int | V) -> V:
        """The pointer plus `count` bytes."""
        return self.element(pointer, count, I8)

    def element(self, pointer: V, index: int | V, type_: Type) -> V:
        """The address of element `index` of an array of `type_`."""
        return self.builder.gep(pointer, [self.i64(index)], source_etype=type_)

    def load(self, pointer: V, type_: Type, align: int | None = None) -> V:
        """A scalar, or a vector (e.g. `vector(F32, 16)`) of neighbours; aligned to its elements unless `align` says
        more."""
        return self.builder.load(pointer, typ=type_, align=align or self._alignment(type_))

    def store(self, value: V, pointer: V, align: int | None = None) -> None:
        """Stores a scalar or a vector, aligned as in `load`."""
        self.builder.store(value, pointer, align=align or self._alignment(value.type))

    def load_once(self, pointer: V) -> V:
        """An i64 that another process may be writing: LLVM keeps the value that was read and does not read it again."""
        return self.builder.load_atomic(pointer, "monotonic", 8, typ=I64)

    def load_first(self, pointer: V, type_: Type, count: V, rest: V | None = None) -> V:
        """The first `count` (i64, may be more than there are) lanes of a vector, the others `rest` (0 by default);
        memory behind them is not touched."""
        result = self.zero(type_) if rest is None else rest
        return self._masked("load", type_, [pointer, self._alignment(type_), self.first_lanes(count, type_), result])

    def store_first(self, value: V, pointer: V, count: V) -> None:
        """Stores the first `count` lanes of a vector; memory behind them is not touched."""
        mask = self.first_lanes(count, value.type)
        self._masked("store", value.type, [value, pointer, self._alignment(value.type), mask])

    def first_lanes(self, count: V, type_: Type) -> V:
        """<i1> mask of a vector type: lane number < count (i64)."""
        limit = self.minimum(count, self.i64(type_.count))
        limit = self.builder.trunc(limit, I32)
        return self.builder.icmp_signed("<", self.lanes(I32, range(type_.count)), self.splat(limit, type_.count))

    def copy(self, target: V, source: V, count: int | V) -> None:
        """Copies `count` bytes between places that do not overlap."""
        function = self.declare("llvm.memcpy.p0.p0.i64", VOID, (POINTER, POINTER, I64, I1))
        self.builder.call(function, [target, source, self.i64(count), I1(0)])

    def clear(self, target: V, count: int | V) -> None:
        """Makes `count` bytes zero."""
        function = self.declare("llvm.memset.p0.i64", VOID, (POINTER, I8, I64, I1))
        self.builder.call(function, [target, I8(0), self.i64(count), I1(0)])

    def prefetch(self, pointer: V, locality: int = 3) -> None:
        """A hint that a read comes (locality 0: will not be reused, to 3: keep it near); never faults."""
        function = self.declare("llvm.prefetch.p0", VOID, (POINTER, I32, I32, I32))
        self.builder.call(function, [pointer, I32(0), I32(locality), I32(1)])

    def local(self, type_: Type, initial: V | None = None) -> Local:
        """A variable. `initial` is assigned here, not at the function's start; vectors are fine."""
        with self.builder.goto_block(self.entry):
            pointer = self.builder.alloca(type_)
        result = Local(self, pointer, type_)
        if initial is not None:
            result.set(initial)
        return result

    def buffer(self, element: Type, count: int, align: int = 64) -> V:
        """A pointer to an array on the stack (at most a few kilobytes), not initialised."""
        with self.builder.goto_block(self.entry):
            result = self.builder.alloca(element, size=I64(count))
            result.align = align
        return result

    # ------------------------------------------------------------------------------------------------ control

    @contextmanager
    def loop(self, start: int | V, stop: int | V, step: int | V = 1) -> Iterator[V]:
        """for (i = start; i < stop; i += step), signed; `with` gives i, an i64. The body may return from the function
        inside an `if_then`."""
        b = self.builder
        before = b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("loop", "loop.body", "loop.end"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(self.i64(start), before)
        b.cbranch(b.icmp_signed("<", index, self.i64(stop)), body, after)
        b.position_at_end(body)
        yield index
        if not b.block.is_terminated:
            index.add_incoming(b.add(index, self.i64(step)), b.block)
            b.branch(head)
        b.position_at_end(after)

    @contextmanager
    def loop_while(self) -> Iterator[V]:
        """An endless loop; `with` gives the block to branch to (`e.leave(block, condition)`) to end it."""
        head, after = self.function.append_basic_block("while"), self.function.append_basic_block("while.end")
        self.builder.branch(head)
        self.builder.position_at_end(head)
        yield after
        if not self.builder.block.is_terminated:
            self.builder.branch(head)
        self.builder.position_at_end(after)

    def leave(self, block: V, condition: V) -> None:
        """Goes to `block` if the condition (i1) holds, otherwise continues."""
        going_on = self.function.append_basic_block("on")
        self.builder.cbranch(condition, block, going_on)
        self.builder.position_at_end(going_on)

    def if_then(self, condition: V, likely: bool | None = None) -> Any:
        """`with e.if_then(c):` code that runs where the i1 holds."""
        return self.builder.if_then(condition, likely)

    def if_else(self, condition: V) -> Any:
        """`with e.if_else(c) as (then, otherwise):`, then `with then:` and `with otherwise:`."""
        return self.builder.if_else(condition)

    # ------------------------------------------------------------------------------------------------ arithmetic

    def add(self, a: V, b: int | V) -> V:
        """i64 sum; wraps."""
        return self.builder.add(a, self.i64(b))

    def sub(self, a: V, b: int | V) -> V:
        return self.builder.sub(a, self.i64(b))

    def mul(self, a: V, b: int | V) -> V:
        return self.builder.mul(a, self.i64(b))

    def ceil_div(self, a: V, b: int | V) -> V:
        """a / b rounded up; a at least 0, b at least 1."""
        return self.builder.udiv(self.add(a, self.sub(self.i64(b), 1)), self.i64(b))

    def less(self, a: int | V, b: int | V) -> V:
        """a < b, signed i64: i1."""
        return self.builder.icmp_signed("<", self.i64(a), self.i64(b))

    def equal(self, a: V, b: int | V) -> V:
        """a == b, i64: i1."""
        return self.builder.icmp_signed("==", a, self.i64(b))

    def minimum(self, a: V, b: int | V) -> V:
        """The smaller of two i64."""
        return self.builder.select(self.less(a, b), a, self.i64(b))

    def maximum(self, a: V, b: int | V) -> V:
        """The larger of two i64."""
        return self.builder.select(self.less(a, b), self.i64(b), a)

    def fadd(self, a: V, b: V) -> V:
        """One IEEE operation, scalar or vector, as the others."""
        return self.builder.fadd(a, b)

    def fmul(self, a: V, b: V) -> V:
        return self.builder.fmul(a, b)

    def fma(self, a: V, b: V, c: V) -> V:
        """a * b + c rounded once. Only where `features.has_fma`: elsewhere it would be a call into a C library."""
        if not self.features.has_fma:
            raise ValueError(f"{self.features.name} has no fused multiply-add")
        return self.intrinsic("llvm.fma", a.type, [a, b, c])

    def sqrt(self, a: V) -> V:
        """The correctly rounded square root."""
        return self.intrinsic("llvm.sqrt", a.type, [a])

    def magnitude_bits(self, value: V) -> V:
        """The bits of f32 values without their signs, as i32; a NaN or infinity has 0x7F800000 or more."""
        type_ = _like(I32, value.type)
        return self.builder.and_(self.builder.bitcast(value, type_), _constant(type_, 0x7FFFFFFF))

    # ------------------------------------------------------------------------------------------------ vectors

    def shuffle(self, a: V, b: V | None, lanes: Sequence[int]) -> V:
        """Lanes of a (0..n-1) and b (n..2n-1), by number."""
        second = ir.Constant(a.type, ir.Undefined) if b is None else b
        return self.builder.shuffle_vector(a, second, self.lanes(I32, lanes))

    def extract(self, value: V, lane: int) -> V:
        return self.builder.extract_element(value, I32(lane))

    def insert(self, value: V, element: V, lane: int) -> V:
        return self.builder.insert_element(value, element, I32(lane))

    def slice(self, value: V, first: int, count: int) -> V:
        """Lanes first..first+count-1."""
        return self.shuffle(value, None, range(first, first + count))

    def join(self, low: V, high: V) -> V:
        """Two vectors of n lanes as one of 2n."""
        return self.shuffle(low, high, range(2 * low.type.count))

    def reduce_umax(self, value: V) -> V:
        """The largest lane of a vector of integers, unsigned."""
        name = f"llvm.vector.reduce.umax.{_suffix(value.type)}"
        return self.builder.call(self.declare(name, value.type.element, (value.type,)), [value])

    # ------------------------------------------------------------------------------------------------ calls

    def intrinsic(self, name: str, type_: Type, arguments: Sequence[V]) -> V:
        """Calls an LLVM intrinsic whose operands and result all have `type_`, e.g. ("llvm.fabs", F32, [x])."""
        full = f"{name}.{_suffix(type_)}"
        return self.builder.call(self.declare(full, type_, (type_,) * len(arguments)), arguments)

    def declare(self, name: str, result: Type, parameters: Sequence[Type]) -> Any:
        """An external function or intrinsic, declared once a module."""
        known = self.module.globals.get(name)
        if known is not None:
            return known
        return ir.Function(self.module, ir.FunctionType(result, list(parameters)), name)

    def call(self, function: Any, arguments: Sequence[V]) -> V:
        return self.builder.call(function, list(arguments))

    def call_at(self, place: V, result: Type, arguments: Sequence[V]) -> V:
        """Calls the function whose address lies at `place`, e.g. one of the C library that Python put there."""
        type_ = ir.FunctionType(result, [value.type for value in arguments])
        return self.builder.call(self.builder.load(place, typ=type_.as_pointer()), list(arguments))

    # ------------------------------------------------------------------------------------------------ inside

    def _alignment(self, type_: Type) -> int:
        return byte_size(type_.element if isinstance(type_, ir.VectorType) else type_)

    def _masked(self, kind: str, type_: Type, arguments: list[Any]) -> V:
        mask = vector(I1, type_.count)
        name = f"llvm.masked.{kind}.{_suffix(type_)}.p0"
        if kind == "load":
            function = self.declare(name, type_, (POINTER, I32, mask, type_))
            arguments[1] = I32(arguments[1])
        else:
            function = self.declare(name, VOID, (type_, POINTER, I32, mask))
            arguments[2] = I32(arguments[2])
        return self.builder.call(function, arguments)


def _suffix(type_: Type) -> str:
    """The type in the name of an intrinsic: f32, i64, v16f32."""
    if isinstance(type_, ir.VectorType):
        return f"v{type_.count}{_suffix(type_.element)}"
    return f"i{type_.width}" if isinstance(type_, ir.IntType) else f"f{8 * byte_size(type_)}"


def _like(element: Type, shape: Type) -> Type:
    """`element`, or a vector with as many lanes as `shape` has."""
    return vector(element, shape.count) if isinstance(shape, ir.VectorType) else element


def _constant(type_: Type, value: int) -> V:
    if isinstance(type_, ir.VectorType):
        return ir.Constant(type_, [type_.element(value)] * type_.count)
    return type_(value)
