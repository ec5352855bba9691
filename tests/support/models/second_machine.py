"""The machine, implemented from the documents alone: docs/isa.md, docs/arithmetic.md and docs/files.md.

It tests these documents, so it shares no code with the package. Encodings come from the tables of docs/isa.md, files
are read by the code of docs/files.md, the arithmetic is `second_implementation.py`. It knows the instructions of
Llama and OPT, on one device or on several, and checks nothing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from support.models.second_implementation import (
    ACTIVATIONS,
    ROUND,
    F,
    Floats,
    exp,
    layer_norm,
    mac,
    rms_norm,
    tanh,
    total,
)

Values = dict[str, Any]
Table = dict[int, tuple[str, list[tuple[str, int, int, str]]]]


def read_tables(page: str) -> Table:
    """The fields of each instruction by its opcode, of docs/isa.md: name, highest bit, lowest bit, values."""
    tables: Table = {}
    for section in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        opcode = re.search(r"^Opcode 0x(\w\w)", section, re.MULTILINE)
        if opcode is None:
            continue
        rows = re.findall(r"^\| (\d+)(?::(\d+))? \| `([\w.]+)` \| (.*?) \|", section, re.MULTILINE)
        fields = [(name, int(high), int(low or high), values) for high, low, name, values in rows]
        tables[int(opcode[1], 16)] = (section.split()[0], fields)
    return tables


def decode(word: bytes, tables: Table, bits: Callable[[bytes, int, int], int]) -> tuple[str, Values]:
    """Name and values of an instruction word."""
    name, fields = tables[bits(word, 7, 0)]
    return name, {field: _value(bits(word, high, low), high - low + 1, kind) for field, high, low, kind in fields}


def _value(number: int, width: int, kind: str) -> Any:
    if kind == "f32":
        return np.uint32(number).view(F)
    if choices := dict(re.findall(r"(\d+) `(\w+)`", kind)):
        return choices[str(number)]
    return number - (1 << width) if kind.startswith("-") and number >> width - 1 else number


class SecondMachine:
    """One device. files: the functions of docs/files.md; isa: the text of docs/isa.md."""

    def __init__(
        self, folder: Path, files: SimpleNamespace, isa: str, config: dict[str, Any], devices: int, device: int
    ):
        target, self.files, self.trees = config["target"], files, config["target"]["trees"]
        self.hbm = np.zeros(config["end"], np.uint8)
        images = files.read_images(folder, devices, device, target["channels"])
        self.hbm[: config["parameter_end"]] = files.parameters(images)
        code = files.read_binary(folder / "inst" / f"inst_{devices}lpu.bin", files.PROGRAM)
        tables = read_tables(isa)
        words = [code[start : start + 64] for start in range(0, len(code), 64)]
        self.program = [decode(word, tables, files.bits) for word in words]
        self.lmu = np.zeros(target["lmu_bytes"] // 4, F)
        self.registers: dict[int, int] = {}
        self.flag = False
        self.inbox: deque[Floats] = deque()
        self.next = self

    # What docs/files.md asks of a device

    def write(self, address: int, data: bytes) -> None:
        self.hbm[address : address + len(data)] = np.frombuffer(data, np.uint8)

    def read(self, address: int, size: int) -> bytes:
        return self.hbm[address : address + size].tobytes()

    def run(self) -> None:
        for _ in self.steps():
            raise RuntimeError("waits for a message of another device")

    def steps(self) -> Iterator[None]:
        """Executes the program; comes back where it waits for a message."""
        self.lmu[:] = np.nan
        self.registers[0] = 0
        yield from self._block(0, len(self.program))

    def _block(self, at: int, stop: int) -> Iterator[None]:
        """Instructions from `at` on, up to `stop`, halt or ret."""
        while at < stop:
            name, v = self.program[at]
            at += 1
            if name in ("halt", "ret"):
                return
            if name == "call":
                yield from self._block(v["target"], len(self.program))
            elif name == "repeat":
                for _ in range(v["count"]):
                    yield from self._block(at, at + v["length"])
                at += v["length"]
            else:
                while name == "receive" and not self.inbox:
                    yield
                getattr(self, f"_{name}")(v)

    # Operands

    def at(self, v: Values, name: str) -> int:
        """Start of an operand: a byte of HBM or a word of the LMU."""
        start = v.get(f"{name}.offset", v.get(f"{name}.address"))
        return start + self.registers[v[f"{name}.register"]]

    def words(self, v: Values, name: str, columns: int, rows: int = 0) -> Any:
        """Indices of the LMU words of an operand: [rows, columns], of a view [rows, groups, columns]."""
        row = np.arange(rows or self.registers[v["rows"]]) * v[f"{name}.stride"] + self.at(v, name)
        if f"{name}.group_stride" not in v:
            return row[:, None] + np.arange(columns)
        group = np.arange(v["groups"]) * v[f"{name}.group_stride"]
        return row[:, None, None] + group[:, None] + np.arange(columns) * v[f"{name}.column_stride"]

    def array(self, v: Values, name: str, shape: tuple[int, ...], kind: str = "<f4") -> Any:
        """An array in HBM, row-major."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return self.hbm[self.at(v, name) : self.at(v, name) + size].view(kind).reshape(shape)

    def optional(self, v: Values, name: str, columns: int) -> Any:
        """An optional vector in HBM, or None."""
        return self.array(v, name, (columns,)) if v[f"{name}.present"] else None

    def elements(self, start: int, rows: Any, k: int) -> Any:
        """Bytes of the elements of rows of a matrix with k columns in tile order, [rows, k]."""
        return start + self.files.element(np.asarray(rows)[:, None], np.arange(k), k, self.trees)

    def matrix(self, start: int, rows: Any, k: int, kind: str) -> Floats:
        """Rows of a matrix in tile order, widened."""
        byte = self.elements(start, rows, k)
        bits = self.hbm[byte].astype(np.uint16) | self.hbm[byte + 1].astype(np.uint16) << 8
        return bits.view(np.float16).astype(F) if kind == "f16" else (bits.astype(np.uint32) << 16).view(F)

    def put(self, byte: Any, data: Floats, kind: str) -> None:
        """Rounds to the matrix type and writes elements to their bytes."""
        rounded = ROUND[kind](data)
        bits = rounded.astype(np.float16).view(np.uint16) if kind == "f16" else rounded.view(np.uint32) >> 16
        self.hbm[byte], self.hbm[byte + 1] = bits & 255, bits >> 8

    def position(self, row: int) -> int:
        return self.registers[2] + row

    # MEM

    def _embed(self, v: Values) -> None:
        index = self._index(v)
        self.lmu[self.words(v, "dst", v["columns"])] = (
            self.matrix(self.at(v, "table"), index, v["columns"], v["type"]) * v["scale"]
        )

    def _gather(self, v: Values) -> None:
        table = self.array(v, "table", (v["limit"], v["columns"]))
        self.lmu[self.words(v, "dst", v["columns"])] = table[self._index(v)] * v["scale"]

    def _index(self, v: Values) -> Any:
        rows = self.registers[v["rows"]]
        ids = self.array(v, "ids", (rows,), "<i8") if v["index"] == "token" else self.position(0) + np.arange(rows)
        return ids + v["offset"]

    def _store(self, v: Values) -> None:
        for row, words in enumerate(self.words(v, "src", v["columns"])):
            self.write(self.at(v, "dst") + row * v["pitch"], self.lmu[words].tobytes())

    def _store_key(self, v: Values) -> None:
        for row, words in enumerate(self.words(v, "src", v["heads"] * v["size"])):
            for head, key in enumerate(self.lmu[words].reshape(v["heads"], -1)):
                start = self.at(v, "cache") + head * v["pitch"]
                self.put(self.elements(start, [self.position(row)], v["size"])[0], key, v["type"])

    def _store_value(self, v: Values) -> None:
        for row, words in enumerate(self.words(v, "src", v["heads"] * v["size"])):
            for head, value in enumerate(self.lmu[words].reshape(v["heads"], -1)):
                start = self.at(v, "cache") + head * v["pitch"]
                element = self.files.element(np.arange(v["size"]), self.position(row), v["limit"], self.trees)
                self.put(start + element, value, v["type"])

    # COMP

    def _matmul(self, v: Values) -> None:
        n, k, rounded = v["n"], v["k"], ROUND[v["type"]]
        first = v["gate_distance"] or n
        rows = [np.arange(n), first + np.arange(n)] if v["gated"] else [np.arange(n)]
        weights = [self.matrix(self.at(v, "weight"), some, k, v["type"]) for some in rows]
        biases = self.optional(v, "bias", int(rows[-1][-1]) + 1)
        inputs = self.lmu[self.words(v, "src", k)]
        joined = {name: self.lmu[self.words(v, name, n)] for name in ("times", "plus") if v[f"{name}.present"]}
        results = []
        for row, x in enumerate(inputs):
            y, *gates = [mac(weight, x, rounded) for weight in weights]
            y = y if biases is None else y + biases[rows[0]]
            y = y * v["scale"]
            y = tanh(y / v["softcap"]) * v["softcap"] if v["softcap"] else y
            y = y if v["activation"] == "none" else ACTIVATIONS[v["activation"]](y)
            for gate in gates:
                y = y * (gate if biases is None else gate + biases[rows[1]])
            y = y * joined["times"][row] if "times" in joined else y
            results.append(y + joined["plus"][row] if "plus" in joined else y)
        self.lmu[self.words(v, "dst", n)] = results

    def _seen(self, v: Values, row: int) -> Any:
        """The positions that a row sees."""
        p = self.position(row)
        return np.arange(max(0, p - v["window"] + 1) if v["window"] else 0, p + 1)

    def _scores(self, v: Values) -> None:
        for row, words in enumerate(self.words(v, "query", v["size"])):
            seen = self._seen(v, row)
            keys = self.matrix(self.at(v, "cache"), seen, v["size"], v["type"])
            s = mac(keys, self.lmu[words], ROUND[v["type"]]) * v["scale"]
            self.lmu[self.at(v, "dst") + row * v["dst.stride"] + seen] = s

    def _softmax(self, v: Values) -> None:
        for row in range(self.registers[v["rows"]]):
            seen = self._seen(v, row)
            s = self.lmu[self.at(v, "src") + row * v["src.stride"] + seen]
            e = np.zeros(self.position(row) + 1, F)
            e[seen] = exp(s - s.max())
            self.lmu[self.at(v, "dst") + row * v["dst.stride"] + seen] = e[seen] / total(e)

    def _values(self, v: Values) -> None:
        cache = self.matrix(self.at(v, "cache"), np.arange(v["size"]), v["limit"], v["type"])
        for row, words in enumerate(self.words(v, "dst", v["size"])):
            seen, w = self._seen(v, row), np.zeros(self.position(row) + 1, F)
            w[seen] = self.lmu[self.at(v, "src") + row * v["src.stride"] + seen]
            self.lmu[words] = mac(cache[:, : len(w)], w, ROUND[v["type"]])

    def _rms_norm(self, v: Values) -> None:
        weight = self.optional(v, "weight", v["columns"])
        self._by_row(v, lambda x: rms_norm(x, weight, v["epsilon"]))

    def _layer_norm(self, v: Values) -> None:
        weight, bias = (self.optional(v, name, v["columns"]) for name in ("weight", "bias"))
        self._by_row(v, lambda x: layer_norm(x, weight, bias, v["epsilon"]))

    def _by_row(self, v: Values, function: Callable[[Floats], Floats]) -> None:
        a = self.lmu[self.words(v, "a", v["columns"])]
        self.lmu[self.words(v, "dst", v["columns"])] = [[function(group) for group in row] for row in a]

    def _rotary(self, v: Values) -> None:
        assert v["style"] == "half"
        turned, half = v["turned"], v["turned"] // 2
        a = self.lmu[self.words(v, "a", v["columns"])]
        cos, sin = (self.lmu[self.words(v, name, turned)][:, None] for name in ("cos", "sin"))
        x = a[..., :turned]
        r = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
        self.lmu[self.words(v, "dst", v["columns"])] = np.concatenate([x * cos + r * sin, a[..., turned:]], axis=-1)

    def _binary(self, v: Values) -> None:
        a, b = (self.lmu[self.words(v, name, v["columns"])] for name in "ab")
        self.lmu[self.words(v, "dst", v["columns"])] = {"add": a + b, "mul": a * b}[v["function"]]

    def _binary_scalar(self, v: Values) -> None:
        assert v["function"] == "mul"
        self.lmu[self.words(v, "dst", v["columns"])] = self.lmu[self.words(v, "a", v["columns"])] * v["b"]

    def _unary(self, v: Values) -> None:
        assert v["function"] == "copy"
        self.lmu[self.words(v, "dst", v["columns"])] = self.lmu[self.words(v, "a", v["columns"])]

    def _select_rows(self, v: Values) -> None:
        first, rows = self.registers[v["first"]], self.registers[v["rows"]]
        source = self.words(v, "src", v["columns"], first + rows)[first:]
        self.lmu[self.words(v, "dst", v["columns"])] = self.lmu[source]

    def _select_columns(self, v: Values) -> None:
        columns = self.registers[v["index"]] * v["columns"] + np.arange(v["columns"])
        source = self.words(v, "src", v["limit"])[:, np.minimum(columns, v["limit"] - 1)]
        self.lmu[self.words(v, "dst", v["columns"])] = np.where(columns < v["limit"], self.lmu[source], F(0))

    def _sample(self, v: Values) -> None:
        assert self.array(v, "settings", (1,), "<i8")[0] == 0
        self.registers[v["dst"]] = int(self.lmu[self.words(v, "src", v["columns"])[-1]].argmax())

    # NET

    def _send(self, v: Values) -> None:
        self.next.inbox.append(self.lmu[self._part(v, "src")])

    def _receive(self, v: Values) -> None:
        self.lmu[self._part(v, "dst")] = self.inbox.popleft()

    def _part(self, v: Values, name: str) -> Any:
        part = (self.registers[31] - v["hop"]) % v["parts"]
        return self.words(v, name, v["columns"]) + part * v["pitch"] + v["first"]

    # CTRL

    def _set(self, v: Values) -> None:
        self.registers[v["dst"]] = v["value"]

    def _add(self, v: Values) -> None:
        self.registers[v["dst"]] = self.registers[v["a"]] + self.registers[v["b"]] + v["value"]

    def _multiply(self, v: Values) -> None:
        self.registers[v["dst"]] = self.registers[v["a"]] * v["value"]


class SecondRing:
    """Several devices, to the host of docs/files.md like one."""

    def __init__(self, machines: list[SecondMachine]):
        self.machines = machines
        for machine, following in zip(machines, [*machines[1:], machines[0]], strict=True):
            machine.next = following
        self.flag = False
        self.registers: dict[int, int] = {}

    def write(self, address: int, data: bytes) -> None:
        for machine in self.machines:
            machine.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return self.machines[0].read(address, size)

    def run(self) -> None:
        """Executes devices in turns, each up to where it waits."""
        for number, machine in enumerate(self.machines):
            machine.registers = self.registers | {31: number}
        running = [machine.steps() for machine in self.machines]
        while running:
            running = [steps for steps in running if next(steps, self) is not self]
        self.registers = self.machines[0].registers
