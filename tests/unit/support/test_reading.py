"""How files of others are read: regular ones only, small ones up to a limit, JSON strictly; and that all are."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, TESTS

from hyperdex_ir.errors import ConfigError, FileFormatError, OptionError
from hyperdex_ir.isa.instructions import WORD_BYTES
from hyperdex_ir.isa.structure import MAX_INSTRUCTIONS
from hyperdex_ir.support import reading
from hyperdex_ir.support.files import HEADER_BYTES
from hyperdex_ir.support.reading import (
    CONFIG,
    MAX_DEPTH,
    PIPELINE,
    FileKind,
    check_checkpoint,
    read_bytes,
    read_json,
    read_object,
    read_text,
)

SMALL = FileKind(100, ConfigError, "what to do")


# ---------------------------------------------------------------------------------------------------- readers
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: memory cannot be limited to what is free")
def test_no_reader_waits_or_takes_a_device_for_a_file(tmp_path: Path) -> None:
    """Every reader, with little memory, on FIFOs, devices, folders, sockets and sparse files: one line each."""
    script = TESTS / "support/hostile/readers.py"
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    said: dict[str, str] = json.loads(result.stdout)
    absent = (
        ".hyperdex_state.json",
        "hyperdex_download.json",
        "hyperdex_tokenizer_config.json",
    )  # lost, these cost time and nothing else
    assert len(said) == 110
    for case, answer in said.items():
        name = case.partition(":")[0]
        if name in absent:
            assert answer == "read None", case
        elif name == "listed.bin":
            assert re.match(r"read '(cannot be read: it is a|8,589,934,592 bytes, 5 were written)", answer), case
        else:
            assert re.match(r"HDX\d{4} [^\n]*$", answer), f"{case}: {answer}"


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, SMALL) == b"x" * 100
    path.write_bytes(b"x" * 101)
    with pytest.raises(ConfigError, match=r"file: 101 bytes, the most that is read is 100$") as caught:
        read_bytes(path, SMALL)
    assert caught.value.hint == "what to do"
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "nothing", SMALL)
    with pytest.raises(ConfigError, match="cannot be read: embedded null"):
        read_bytes(Path("a\0b"), SMALL)
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        read_bytes(path / "below", SMALL)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    """As a cache of the Hub has them."""
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to("blob")
    assert read_object(tmp_path / "config.json", CONFIG) == {}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc: no file that says it has no bytes")
def test_a_file_that_hides_its_size() -> None:
    with pytest.raises(ConfigError, match="101 bytes, the most that is read is 100"):
        read_bytes(Path("/proc/self/maps"), SMALL)


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "a.pipeline"
    path.write_bytes("a\r\nb\rc\né".encode())
    assert read_text(path, PIPELINE) == "a\nb\nc\né"
    path.write_bytes(b"abc\xff")
    with pytest.raises(OptionError, match=r"a\.pipeline: not UTF-8 text \(byte 3\)$"):
        read_text(path, PIPELINE)


def test_what_transformers_would_read(tmp_path: Path) -> None:
    (tmp_path / "unrelated.json").symlink_to("/dev/zero")
    (tmp_path / "vocab.json").symlink_to("nowhere")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    check_checkpoint(tmp_path)
    (tmp_path / "generation_config.json").symlink_to("/dev/zero")
    with pytest.raises(FileFormatError, match=r"generation_config\.json: cannot be read: it is a device"):
        check_checkpoint(tmp_path)


# ---------------------------------------------------------------------------------------------------- JSON
JSON = {
    "an infinite number": (b'{"a": 1e999}', "1e999 is outside float64"),
    "no number": (b"[NaN]", "NaN is no number"),
    "digits": (b"[" + b"9" * 5000 + b"]", "a number of 5000 digits, at most 64 are read"),
    "a name twice": (b'{"a": {"b": 1, "b": 2}}', "b stands twice in one object"),
    "a name in colour twice": (b'{"\\u001b[31m": 1, "\\u001b[31m": 2}', r'"\\u001b\[31m" stands twice'),
    "half a pair": (b'{"a": "\\ud800"}', r"half of a surrogate pair, '\\ud800'"),
    "half a pair in a name": (b'{"\\uDC00": 1}', r"half of a surrogate pair, '\\udc00'"),
    "no UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff"),
    "UTF-16": ("{}".encode("utf-16"), "can't decode byte 0xff"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "cut off": (b'{"a": ', "Expecting value"),
    "as deep as Python goes": (b"[" * 500 + b"]" * 500, f"nested deeper than {MAX_DEPTH}"),
    "deeper": (b'{"a":' * 200_000, f"nested deeper than {MAX_DEPTH}"),
    "one too deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH}"),
}


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_refused(case: str, tmp_path: Path) -> None:
    content, message = JSON[case]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"config.json: not valid JSON: .*{message}") as caught:
        read_json(path, CONFIG)
    assert "\n" not in str(caught.value)


def test_json_that_is_read(tmp_path: Path) -> None:
    value = {"a": [10**30, -1, 1.5, 1e300, None, True], "\U0001f600": "\U0001f600"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(value))  # with escapes in pairs
    assert read_object(path, CONFIG) == value
    path.write_text("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert read_json(path, CONFIG)
    with pytest.raises(ConfigError, match="holds a list, expected an object"):
        read_object(path, CONFIG)


def test_many_values_are_refused_before_they_are_made(tmp_path: Path) -> None:
    """An empty object takes 3 bytes in a file, and 72 in memory."""
    path = tmp_path / "config.json"
    path.write_bytes(b"[" + b"{}," * (CONFIG.limit // 3 - 1) + b"0]")
    size = path.stat().st_size
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"not valid JSON: \d+ values, at most 262144 are read"):
        read_json(path, CONFIG)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * size


@pytest.mark.slow
def test_many_names_take_no_longer_than_they_are_many(tmp_path: Path) -> None:
    """The last of 200,000 stands twice: it is found without looking at all pairs."""
    path = tmp_path / "config.json"
    names = [*map(str, range(200_000)), "last", "last"]
    path.write_text("{" + ",".join(f'"{name}":0' for name in names) + "}")
    with pytest.raises(ConfigError, match="last stands twice"):
        read_json(path, CONFIG)


# ---------------------------------------------------------------------------------------------------- all of them
def kinds() -> dict[str, FileKind]:
    return {name: value for name, value in vars(reading).items() if isinstance(value, FileKind)}


def test_the_table_of_limits_is_that_of_the_documentation() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| .*? \| (\d+) (M|K)iB \|$", page, re.MULTILINE)
    assert {name: int(size) << (20 if unit == "M" else 10) for name, size, unit in rows} == {
        name: kind.limit - kind.limit % 1024 for name, kind in kinds().items()
    }
    assert reading.PROGRAM.limit == MAX_INSTRUCTIONS * WORD_BYTES + HEADER_BYTES


#: Functions that read a file otherwise: what the package itself brought along or made a moment ago, the system's own
#: files, what is read in parts with its length known, and those that look at who owns an open file.
OTHERS = {
    "backend/ram_ceiling.py": {"resident_bytes"},
    "support/disk_cache.py": {"_folder_of", "_followed", "_opened_file", "_put"},
    "errors/explanations.py": {"explanations"},
    "support/folder_access.py": {"_entered", "_followed", "_regular", "begin", "folder", "read_link"},
    "checkpoint/gguf.py": {"_tokenizer_files"},
    "support/own_code.py": {"_file_hashes", "code_digest"},
    "passes/pipeline_text.py": {"_named_text"},
    "support/reading.py": {"open_regular", "read_given"},
    "runtime/secret.py": {"_given", "_leave", "_made", "_private_folder"},
}
#: Opened to be written.
_WRITES = re.compile(r"""["'][rwax]?b?[wax+]+b?["']|["'][wax]""")


def readers(path: Path) -> Iterator[tuple[str, str]]:
    """(function, call) of each call in a module that opens or reads a file by its path."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _reads(node) and not _WRITES.search(ast.unparse(node)):
                yield function.name, ast.unparse(node)


def _reads(node: ast.Call) -> bool:
    name = ast.unparse(node.func)
    if name in ("open", "os.open", "io.open", "json.load", "pickle.load", "tomllib.load", "np.load", "np.memmap"):
        return True
    if name == "np.fromfile":
        return ast.unparse(node.args[0]) != "file"  # which `open_regular` has opened
    last = name.rpartition(".")[2]
    if last in ("read_text", "read_bytes"):
        return "." in name and not name.startswith("reading.")
    return last == "open" and _is_path(node)


def _is_path(node: ast.Call) -> bool:
    """Whether it is `path.open(mode)`, not the `open` of a class of ours."""
    return isinstance(node.func, ast.Attribute) and (not node.args or isinstance(node.args[0], ast.Constant))


@pytest.mark.slow
def test_files_are_read_in_one_way() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "hyperdex_ir").rglob("*.py")):
        for function, _ in readers(path):
            found.setdefault(path.relative_to(ROOT / "hyperdex_ir").as_posix(), set()).add(function)
    assert found == OTHERS
