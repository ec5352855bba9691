"""The native executor's code on disk, what it is generated for, and where it cannot run."""

from __future__ import annotations

import multiprocessing
import platform
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from llvmlite import ir
from support import chosen

from hyperdex_ir.errors import OptionError
from hyperdex_ir.native import availability, features
from hyperdex_ir.native import code_cache as cache
from hyperdex_ir.native import codegen as compiler
from hyperdex_ir.native.codegen import (
    Library,
    assembly,
    build,
    compile_module,
    new_module,
)
from hyperdex_ir.native.emit import F32, I64, POINTER, Emitter, define, vector
from hyperdex_ir.native.features import FEATURES, available, host_features

HOST = available()[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a compiler that makes `code <n>` the n-th time."""
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path))
    count = iter(range(1, 100))
    monkeypatch.setattr(compiler, "native_module", lambda chosen: None)
    monkeypatch.setattr(compiler, "compile_module", lambda module, chosen: f"code {next(count)}".encode())
    return tmp_path / "engine"


def test_code_is_generated_once(folder: Path) -> None:
    assert cache.native_code(HOST) == b"code 1"
    assert cache.native_code(HOST) == b"code 1"
    assert [path.suffix for path in folder.iterdir()] == [".o"]


def test_each_feature_set_has_its_own(folder: Path) -> None:
    made = [cache.native_code(item) for item in FEATURES.values()]
    assert len(set(made)) == len(FEATURES) == len(list(folder.iterdir()))


def test_changed_sources_make_it_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.native_code(HOST)
    monkeypatch.setattr(cache, "code_digest", lambda *_: "others")
    assert cache.native_code(HOST) == b"code 2"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "other key"])
def test_a_damaged_entry_is_made_anew(folder: Path, damage: str) -> None:
    cache.native_code(HOST)
    (path,) = folder.iterdir()
    data = path.read_bytes()
    other = {"flip": data[:-1] + b"\x00", "cut": data[:-1], "empty": b"", "foreign": b"\x7fELF" * 20}
    if damage == "other key":
        cache.code_cache().write(path.name, "key", b"code 0")
    else:
        path.write_bytes(other[damage])
    assert cache.native_code(HOST) == b"code 2"
    assert cache.native_code(HOST) == b"code 2"


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    assert cache.native_code(HOST) == b"code 1"
    assert cache.native_code(HOST) == b"code 2"


def test_old_entries_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        monkeypatch.setattr(cache, "code_digest", lambda *_, number=number: str(number))
        cache.native_code(HOST)
    assert len(list(folder.iterdir())) == cache._KEEP
    assert cache.native_code(HOST) == b"code 30"


def _open_at_once(home: str, code: bytes) -> bool:
    own = replace(cache.code_cache(), folder=Path(home) / "engine")
    return all(own.read("x.o", "key") in (None, code) for _ in range(20) if own.write("x.o", "key", code) is None)


@pytest.mark.slow
def test_writers_at_once_leave_a_whole_entry(tmp_path: Path) -> None:
    code = bytes(range(256)) * 4000
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        assert all(pool.starmap(_open_at_once, [(str(tmp_path), code)] * 3))
    assert replace(cache.code_cache(), folder=tmp_path / "engine").read("x.o", "key") == code
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["x.o"]


# ---------------------------------------------------------------------------------------------------- code


def undefined(code: bytes) -> set[str]:
    """The symbols of an ELF file for 64 bits that it does not define."""
    start, size, count = (int.from_bytes(code[at : at + n], "little") for at, n in ((40, 8), (58, 2), (60, 2)))
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, start + size * number) for number in range(count)]
    table = next(section for section in sections if section[1] == 2)  # SHT_SYMTAB
    names, first, length = sections[table[6]][4], table[4], table[5]
    symbols = [struct.unpack_from("<IBBH", code, at) for at in range(first, first + length, 24)]
    return {code[names + name :].split(b"\0", 1)[0].decode() for name, _, _, section in symbols if section == 0}


#: The processor in the header of an ELF file.
_X86, _ARM = 62, 183


@pytest.mark.slow
@pytest.mark.parametrize("name", chosen(FEATURES, *dict.fromkeys((HOST.name, "sse2", "neon"))))
def test_code_for_every_processor_calls_nothing_but_memory_functions(name: str) -> None:
    """Where LLVM has no instruction for something it calls a library, which the loader would not find."""
    code = cache.native_code(FEATURES[name])
    assert code[:5] == b"\x7fELF\x02"
    assert int.from_bytes(code[18:20], "little") == (_X86 if FEATURES[name].is_x86 else _ARM)
    assert undefined(code) <= {"", "memcpy", "memset", "memmove"}


def test_what_a_library_would_have_to_give_is_seen() -> None:
    module = new_module(HOST)
    e = Emitter(define(module, "f", F32, (F32,), public=True), HOST)
    e.builder.ret(e.builder.call(ir.Function(module, ir.FunctionType(F32, [F32]), "sinf"), e.builder.function.args))
    assert undefined(compile_module(module, HOST)) == {"", "sinf"}


def test_nothing_is_contracted() -> None:
    module = new_module(HOST)
    function = define(module, "f", I64, (POINTER, POINTER), public=True)
    e = Emitter(function, HOST)
    x, y = (e.load(pointer, vector(F32, HOST.lanes)) for pointer in function.args)
    e.store(e.fadd(e.fmul(x, y), x), function.args[0])
    e.builder.ret(I64(0))
    assert "fmadd" not in assembly(module, HOST)


def test_a_library_has_what_is_public_in_it() -> None:
    module = new_module(HOST)
    Emitter(define(module, "f", I64, (), public=True), HOST).builder.ret(I64(7))
    code = build(module, HOST)
    assert isinstance(code, Library)
    assert code.address("f")
    with pytest.raises(KeyError, match="g"):
        code.address("g")


# ---------------------------------------------------------------------------------------------------- features


def test_the_best_features_are_taken_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(features.VARIABLE, raising=False)
    assert host_features() == available()[0]
    for item in available():
        monkeypatch.setenv(features.VARIABLE, item.name)
        assert host_features() == item


def test_features_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = next(name for name in FEATURES if name not in [item.name for item in available()])
    monkeypatch.setenv(features.VARIABLE, absent)
    with pytest.raises(OptionError, match=f"HYPERDEX_CPU is {absent}, which this computer has not got"):
        host_features()
    monkeypatch.setenv(features.VARIABLE, "steam")
    with pytest.raises(OptionError, match="HYPERDEX_CPU is 'steam'; it can be avx512, avx2, sse2, neon"):
        host_features()


def test_why_the_engine_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert availability.why_unavailable() == ""
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "riscv64")
        assert availability.why_unavailable() == "there is no code for the processor riscv64"
        with pytest.raises(OptionError, match="no code for the processor 'riscv64'"):
            host_features()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "llvmlite.binding", None)
        assert availability.why_unavailable().startswith("llvmlite cannot be loaded (")


def test_a_broken_llvmlite_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "llvmlite.binding":
                raise AttributeError("no attribute 'x'")

    monkeypatch.delitem(sys.modules, "llvmlite.binding")
    monkeypatch.delattr("llvmlite.binding")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert availability.why_unavailable() == "llvmlite cannot be loaded (no attribute 'x')"
