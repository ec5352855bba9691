"""Safe reading of files: regular ones only, small ones whole and up to a limit of their kind, JSON in its strict form.

A file that somebody else has made may be a link to a device, a FIFO that nobody writes to, or of any size. Links are
followed: a cache of the Hub consists of them. Checks look at the opened file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hyperdex_ir.errors import (
    COMPILE_AGAIN,
    DOWNLOAD_AGAIN,
    AssemblyError,
    CheckpointError,
    ConfigError,
    FileFormatError,
    HyperdexError,
    OptionError,
)

_MIB = 1 << 20
#: Names by which a user means standard input and output.
STANDARD_INPUT, STANDARD_OUTPUT = ("-", "/dev/stdin"), ("-", "/dev/stdout")


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is read whole.

    limit: bytes of the largest that is read. error, hint: of one that cannot be read.
    """

    limit: int
    error: type[HyperdexError]
    hint: str = ""

    @property
    def most_values(self) -> int:
        """The most values of a file that become objects; so they take a small multiple of the limit in memory."""
        return self.limit // _BYTES_OF_A_VALUE


CONFIG = FileKind(4 * _MIB, ConfigError, DOWNLOAD_AGAIN)
GENERATION_CONFIG = FileKind(4 * _MIB, FileFormatError, DOWNLOAD_AGAIN)
TOKENIZER_CONFIG = FileKind(16 * _MIB, ConfigError, DOWNLOAD_AGAIN)
TOKENIZER = FileKind(64 * _MIB, ConfigError, DOWNLOAD_AGAIN)  # the largest vocabularies, of 262,144 tokens, have 33 MB
TEMPLATE = FileKind(1 * _MIB, ConfigError, DOWNLOAD_AGAIN)
WEIGHTS_INDEX = FileKind(64 * _MIB, CheckpointError, DOWNLOAD_AGAIN)
WEIGHTS_HEADER = FileKind(32 * _MIB, CheckpointError, DOWNLOAD_AGAIN)
WEIGHTS_PICKLE = FileKind(64 * _MIB, CheckpointError, DOWNLOAD_AGAIN)
MARKER = FileKind(4 * _MIB, FileFormatError)
STATE = FileKind(64 * _MIB, FileFormatError)
TABLE = FileKind(64 * _MIB, FileFormatError, COMPILE_AGAIN)
PROGRAM = FileKind(4 * _MIB + 16, FileFormatError, COMPILE_AGAIN)
PIPELINE = FileKind(1 * _MIB, OptionError)
TARGET = FileKind(1 << 13, OptionError, "hyperdex_ir/targets/u55c.toml shows what a target says")
DUMP = FileKind(16 * _MIB, OptionError, "name a file that --dump-ir wrote")
ASSEMBLY = FileKind(32 * _MIB, AssemblyError)

#: The files that transformers makes a tokenizer of: settings, and vocabularies of several programs.
TOKENIZER_FILES = {
    "tokenizer.json": TOKENIZER,
    **dict.fromkeys(("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"), TOKENIZER_CONFIG),
    **dict.fromkeys(("vocab.json", "merges.txt", "vocab.txt"), TOKENIZER),
    **dict.fromkeys(("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"), TOKENIZER),
    **dict.fromkeys(("tiktoken.model", "tekken.json"), TOKENIZER),
}
#: The files of a checkpoint besides its weights that are kept with a model.
SMALL_FILES = {
    "config.json": CONFIG,
    "generation_config.json": GENERATION_CONFIG,
    **TOKENIZER_FILES,
    "chat_template.jinja": TEMPLATE,
    "chat_template.json": TOKENIZER_CONFIG,
}
#: A checkpoint's weights in several files: the names of the index of safetensors, and of torch's format.
SAFETENSORS_INDEX, TORCH_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
#: Weights in torch's format in one file.
SINGLE_TORCH_FILE = "pytorch_model.bin"
#: All files that transformers looks for in the folder of a checkpoint.
_OF_CHECKPOINTS = {
    **SMALL_FILES,
    "adapter_config.json": CONFIG,
    **dict.fromkeys(("processor_config.json", "preprocessor_config.json"), TOKENIZER_CONFIG),
    **dict.fromkeys((SAFETENSORS_INDEX, TORCH_INDEX), WEIGHTS_INDEX),
}

#: Dimensions of a tensor in any file; the weights of models have four at most.
MOST_DIMENSIONS = 8
#: Arrays and objects of a JSON file inside each other.
MAX_DEPTH = 64
#: Digits of a whole number in a JSON file: tokenizers have 10**30 for a length without limit.
_MOST_DIGITS = 64
#: Bytes of a file's limit for each value that it may have: an empty object takes 3 bytes in a file, 72 in memory.
_BYTES_OF_A_VALUE = 16
_BLOCK_BYTES = _MIB
_HASHED_BYTES = 1 << 17  # stays in the processor's cache
#: Beginning of the small file that a clone without Git LFS has in the place of a large one.
_POINTER = b"version https://git-lfs.github.com/spec/"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TYPES = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


# ---------------------------------------------------------------------------------------------------- opening
def open_regular(path: Path, error: type[HyperdexError], hint: str = "", buffering: int = -1) -> IO[bytes]:
    """A regular file, open for reading; `buffering` as of `open`.

    Raises FileNotFoundError when there is none, `error` when it is something else or cannot be opened.
    """
    try:
        _check_type(path, os.stat(path), error, hint)  # opening a device may do something
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}", hint) from None
    except ValueError as failure:  # a name with a zero byte
        raise error(f"{path}: cannot be read: {failure}", hint) from None
    try:
        _check_type(path, os.fstat(descriptor), error, hint)
        return os.fdopen(descriptor, "rb", buffering)
    except BaseException:
        os.close(descriptor)
        raise


def _check_type(path: Path, found: os.stat_result, error: type[HyperdexError], hint: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        name = next((name for is_it, name in _TYPES if is_it(found.st_mode)), "of an unknown type")
        raise error(f"{path}: cannot be read: it is {name}, expected a regular file", hint)


def check_regular(path: Path, error: type[HyperdexError], hint: str = "") -> None:
    """Raises as `open_regular`; for a library that opens the file itself."""
    open_regular(path, error, hint, buffering=0).close()


# ---------------------------------------------------------------------------------------------------- small files
def read_bytes(path: Path, kind: FileKind) -> bytes:
    """All of a file.

    Raises FileNotFoundError when there is none, the kind's error when it is no regular file, cannot be read, or has
    more bytes than the kind allows.
    """
    with open_regular(path, kind.error, kind.hint, buffering=0) as file:
        return _read(file, path, kind)


def read_given(path: Path, kind: FileKind) -> bytes:
    """As `read_bytes`, of a file that the user names: `-` is standard input, and a name of `/dev` may be a pipe."""
    is_input = os.fspath(path) in STANDARD_INPUT
    if not is_input and not (is_of_dev(path) and path.is_fifo()):
        return read_bytes(path, kind)
    if is_input and sys.stdin is None:
        raise kind.error("standard input is closed", "name a file")
    with open(0 if is_input else path, "rb", buffering=0, closefd=not is_input) as file:
        return _read(file, path, kind)


def is_of_dev(path: Path) -> bool:
    """Test for a name of the system's, such as /dev/stdin and /dev/fd/63: never a name in a folder of a model."""
    return path.parent in (Path("/dev"), Path("/dev/fd"))


def _read(file: IO[bytes], path: Path, kind: FileKind) -> bytes:
    size = os.fstat(file.fileno()).st_size
    blocks: list[bytes] = []
    left = kind.limit + 1
    try:
        while size <= kind.limit and left and (block := file.read(min(left, _BLOCK_BYTES))):
            blocks.append(block)
            left -= len(block)
    except OSError as failure:
        raise kind.error(f"{path}: cannot be read: {failure.strerror}", kind.hint) from None
    if size > kind.limit or not left:
        raise kind.error(f"{path}: {max(size, kind.limit + 1)} bytes, the most that is read is {kind.limit}", kind.hint)
    data = b"".join(blocks)
    _check_content(path, data, kind.error)
    return data


def _check_content(path: Path, data: bytes, error: type[HyperdexError]) -> None:
    if data.startswith(_POINTER):
        raise error(f"{path}: is a pointer of Git LFS, not the file itself", "run `git lfs pull` in the folder")


def check_no_pointer(path: Path, error: type[HyperdexError]) -> None:
    """Raises `error` for a pointer of Git LFS in the place of the file; and as `open_regular`."""
    with open_regular(path, error) as file:
        _check_content(path, file.read(len(_POINTER)), error)


def sha256_of(path: Path, kind: FileKind) -> str:
    """The hash of a file. Raises as `read_bytes`."""
    found, buffer, left = hashlib.sha256(), memoryview(bytearray(_HASHED_BYTES)), kind.limit + 1
    with open_regular(path, kind.error, kind.hint, buffering=0) as file:
        try:
            while left > 0 and (count := file.readinto(buffer)):  # type: ignore[attr-defined]
                found.update(buffer[:count])
                left -= count
        except OSError as failure:
            raise kind.error(f"{path}: cannot be read: {failure.strerror}", kind.hint) from None
    if left <= 0:
        raise kind.error(f"{path}: more than {kind.limit} bytes, the most that is read", kind.hint)
    return found.hexdigest()


def check_checkpoint(folder: Path) -> None:
    """Raises as `check_small` for a file of a checkpoint that transformers would read whole, device or not."""
    for name, kind in _OF_CHECKPOINTS.items():
        if os.path.lexists(folder / name):
            with suppress(FileNotFoundError):  # a link that leads nowhere
                check_small(folder / name, kind)


def check_small(path: Path, kind: FileKind) -> None:
    """Raises as `read_bytes`, from the file's size alone; for a library that reads the file itself."""
    with open_regular(path, kind.error, kind.hint, buffering=0) as file:
        if (size := os.fstat(file.fileno()).st_size) > kind.limit:
            raise kind.error(f"{path}: {size} bytes, the most that is read is {kind.limit}", kind.hint)


def read_text(path: Path, kind: FileKind) -> str:
    r"""A file of UTF-8 text, each line end as `\n`. Raises as `read_bytes`, and the kind's error when it is no text."""
    return _decode(read_bytes(path, kind), path, kind)


def read_source(path: Path, kind: FileKind) -> str:
    """As `read_text`, of a source that the user names as in `read_given`. A byte-order mark is left out."""
    return _decode(read_given(path, kind), path, kind).removeprefix("\ufeff")


def _decode(data: bytes, path: Path, kind: FileKind) -> str:
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as failure:
        raise kind.error(f"{path}: not UTF-8 text (byte {failure.start})", kind.hint) from None


# ---------------------------------------------------------------------------------------------------- JSON
def read_json(path: Path, kind: FileKind) -> Any:
    """The value in a JSON file. Raises as `read_bytes`, and the kind's error unless `parse_json` takes it."""
    data = read_bytes(path, kind)
    try:
        return parse_json(data.decode(), kind)
    except ValueError as failure:
        raise kind.error(f"{path}: not valid JSON: {failure}", kind.hint) from None


def read_object(path: Path, kind: FileKind) -> dict[str, Any]:
    """The object in a JSON file. Raises as `read_json`, and the kind's error for another value."""
    value = read_json(path, kind)
    if not isinstance(value, dict):
        raise kind.error(f"{path}: holds {json_type(value)}, expected an object", kind.hint)
    return value


def parse_json(text: str, kind: FileKind) -> Any:
    """The value of a JSON text.

    Raises ValueError, one line, unless names are unique in their object, text is Unicode, numbers are finite and of at
    most 64 digits, values nest at most `MAX_DEPTH` deep, and are no more than the kind allows.
    """
    if (values := sum(map(text.count, ",[{"))) > kind.most_values:
        raise ValueError(f"{values} values, at most {kind.most_values} are read")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refused, parse_int=_whole, parse_float=_finite
        )
        _check_depth(value)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    except UnicodeEncodeError as failure:
        raise ValueError(f"holds half of a surrogate pair, {failure.object[failure.start]!r}") from None
    return value


def json_type(value: Any) -> str:
    """The name of a JSON value's type, for an error."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _check_depth(value: Any) -> None:
    """Raises ValueError when arrays and objects nest deeper than `MAX_DEPTH`."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        items = (item for holder in level for item in (holder.values() if type(holder) is dict else holder))
        level = [item for item in items if type(item) is dict or type(item) is list]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        shown = twice if twice.isidentifier() and twice.isascii() else json.dumps(twice)
        raise ValueError(f"{shown[:80]} stands twice in one object")
    return found


def _refused(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits, at most {_MOST_DIGITS} are read")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is outside float64")
    return value


def read_config_json(path: Path) -> dict[str, Any]:
    """The object in a config.json. Raises ConfigError when it is missing, not JSON, or not an object."""
    try:
        return read_object(path, CONFIG)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", "a checkpoint has a config.json in its directory") from None
