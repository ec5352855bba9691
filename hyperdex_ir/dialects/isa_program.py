"""Conversion of a module of the `isa` dialect to its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ArrayAttr, CallSiteLoc, FusedLoc, ModuleOp, NameLoc
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from hyperdex_ir.dialects.isa_ops.checks import reference
from hyperdex_ir.dialects.isa_ops.control import CallOp, RepeatOp, RepeatRowsOp, SkipUnlessOp
from hyperdex_ir.dialects.isa_ops.instruction import InstructionOp
from hyperdex_ir.dialects.isa_ops.lmu_type import LMU_WORDS, BufferOp, LmuUse, ViewUse, buffer_type
from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import CapacityError, LoweringError
from hyperdex_ir.isa.operands import Value
from hyperdex_ir.isa.program import Instruction, Origin, Program

ENTRY = "main"
DEFAULT_CHUNK = 256


def to_program(module: ModuleOp, *, chunk: int | None = None, head_rows: int | None = None) -> Program:
    """The program of a verified module: `@main`, which ends in halt, then the other functions, which end in ret.

    Buffers without an address get addresses of their own, one after another, behind the allocated ones. Their sizes are
    those for `chunk` tokens in flight and `head_rows` wanted rows, by default the attributes `isa.chunk` and
    `isa.head_rows` of the module, otherwise 256.
    Raises LoweringError for an operation without an instruction, recursion, or calls that do not agree; CapacityError
    when the buffers do not fit the LMU's address space.
    """
    functions = _functions(module)
    chosen = ModuleFacts(module).rows(DEFAULT_CHUNK)
    chunk, head_rows = (own if given is None else given for given, own in zip((chunk, head_rows), chosen, strict=True))
    writer = _Writer(_place_buffers(functions, chunk, head_rows))
    for function in functions.values():
        writer.add_function(function)
    return writer.program()


def _functions(module: ModuleOp) -> dict[str, FuncOp]:
    """All functions by name, the entry first."""
    functions: dict[str, FuncOp] = {}
    for op in module.body.block.ops:
        if not isinstance(op, FuncOp):
            raise LoweringError(f"{op.name} at the top of an isa module: only functions can be made into a program")
        functions[op.sym_name.data] = op
    if ENTRY not in functions:
        raise LoweringError("the isa module has no function @main")
    if functions[ENTRY].body.block.args:
        raise LoweringError("@main of an isa module takes no arguments")
    return {ENTRY: functions[ENTRY], **functions}


def _place_buffers(functions: Mapping[str, FuncOp], chunk: int, head_rows: int) -> dict[SSAValue, int]:
    """The word address of every buffer value, arguments included."""
    values = [value for function in functions.values() for value in _buffer_values(function)]
    addresses = {value: address for value in values if (address := buffer_type(value).address) is not None}
    end = max((addresses[value] + buffer_type(value).words(chunk, head_rows) for value in addresses), default=0)
    for value in values:
        if isinstance(value.owner, BufferOp) and value not in addresses:
            addresses[value] = end
            end += buffer_type(value).words(chunk, head_rows)
    if end > LMU_WORDS:
        raise CapacityError(
            f"the buffers take {end:,} words with {chunk} tokens in flight and {head_rows} wanted rows, LMU addresses"
            f" reach {LMU_WORDS:,}",
            "run isa-allocate-lmu, or set the module attributes isa.chunk and isa.head_rows to less",
        )
    for name in _callers_first(functions):
        for call in _calls(functions[name]):
            _pass_arguments(name, call, functions[call.function], addresses)
    return addresses


def _buffer_values(function: FuncOp) -> list[SSAValue]:
    return [*function.body.block.args, *(op.res for op in function.walk() if isinstance(op, BufferOp))]


def _calls(function: FuncOp) -> list[CallOp]:
    return [op for op in function.walk() if isinstance(op, CallOp)]


def _callers_first(functions: Mapping[str, FuncOp]) -> list[str]:
    """All functions, callers before callees. Raises LoweringError for recursion and unknown callees."""
    finished: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise LoweringError(f"@{name} calls itself: {' -> '.join((*path, name))}")
        if name not in functions:
            raise LoweringError(f"@{path[-1]} calls @{name}, which is not there")
        if name not in finished:
            for call in _calls(functions[name]):
                visit(call.function, (*path, name))
            finished[name] = None

    for name in functions:
        visit(name, ())
    return list(reversed(finished))


def _pass_arguments(caller: str, call: CallOp, callee: FuncOp, addresses: dict[SSAValue, int]) -> None:
    parameters = callee.body.block.args
    if len(parameters) != len(call.buffers):
        raise LoweringError(f"@{call.function} takes {len(parameters)} buffers, a call passes {len(call.buffers)}")
    for index, (parameter, passed) in enumerate(zip(parameters, call.buffers, strict=True)):
        if passed not in addresses:
            raise LoweringError(f"@{caller} is never called, so its arguments have no addresses")
        address = addresses[passed]
        known = addresses.setdefault(parameter, address)
        if known != address:
            raise LoweringError(
                f"@{call.function}: argument {index} is the buffer at {known}, a call passes one at {address}"
            )


@dataclass
class _Writer:
    """Linearises functions one after another; calls get their targets at the end."""

    addresses: Mapping[SSAValue, int]
    instructions: list[Instruction] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    function: str = ENTRY

    def program(self) -> Program:
        instructions = tuple(
            Instruction("call", {"target": self.starts[str(item["target"])]}) if item.name == "call" else item
            for item in self.instructions
        )
        return Program(instructions, tuple(self.origins))

    def add_function(self, function: FuncOp) -> None:
        self.function = function.sym_name.data
        self.starts[self.function] = len(self.instructions)
        self._add_block(function.body.block)

    def _add_block(self, block: Block) -> None:
        for op in block.ops:
            self._add_operation(op)

    def _add_operation(self, op: Operation) -> None:
        match op:
            case BufferOp():
                return
            case InstructionOp():
                self._add(op, op.spec().name, self._values(op))
            case CallOp():
                self._add(op, "call", {"target": op.function})
            case RepeatOp():
                self._add_body(op, op.body.block, "repeat", {"count": op.count})
            case RepeatRowsOp():
                self._add_body(op, op.body.block, "repeat_rows", {"rows": op.register})
            case SkipUnlessOp():
                self._add_body(op, op.body.block, "skip_unless", {"a": op.register, "value": op.wanted})
            case ReturnOp():
                self._add(op, "halt" if self.function == ENTRY else "ret", {})
            case _:
                raise LoweringError(f"@{self.function}: {op.name} is no machine instruction")

    def _add_body(self, op: Operation, body: Block, name: str, values: Mapping[str, Value]) -> None:
        start = len(self.instructions)
        self._add(op, name, {})
        self._add_block(body)
        length = len(self.instructions) - start - 1
        if not length:  # a body must not be empty
            del self.instructions[start:], self.origins[start:]
            return
        self.instructions[start] = Instruction(name, {**values, "length": length})

    def _add(self, op: Operation, name: str, values: Mapping[str, Value]) -> None:
        self.instructions.append(Instruction(name, values))
        self.origins.append(Origin(self.function, module_path(op.location), op.name))

    def _values(self, op: InstructionOp) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name, value in op.values().items():
            if isinstance(value, LmuUse | ViewUse):
                if value.buffer not in self.addresses:
                    raise LoweringError(f"@{self.function} is never called, so its arguments have no addresses")
                values[name] = reference(value, self.addresses[value.buffer])
            else:
                values[name] = value
        return values


def module_path(location: Attribute) -> str:
    """The module path that a location names, or an empty string."""
    match location:
        case NameLoc():
            return location.desc.data
        case FusedLoc(locations=ArrayAttr(data=items)):
            return next((path for item in items if (path := module_path(item))), "")
        case CallSiteLoc():
            return module_path(location.callee)
    return ""
