"""The tokenizer of a model, as transformers makes it of the checkpoint's files; kept beside the converted checkpoint.

transformers runs in a child process with limits, because the files may be a stranger's. The result is kept in
`$HYPERDEX_HOME/tokenizers`, too: models with the same files share it.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.checkpoint import content_of
from hyperdex_ir.backend.state import digest
from hyperdex_ir.errors import ConfigError, StorageError
from hyperdex_ir.support.confined import Confined, Limits
from hyperdex_ir.support.disk_cache import DiskCache
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.locations import CONFIG, ModelFolder, tokenizer_cache
from hyperdex_ir.support.own_code import code_digest, versions
from hyperdex_ir.support.progress import log
from hyperdex_ir.support.reading import SMALL_FILES, TEMPLATE, TOKENIZER, read_bytes, read_text
from hyperdex_ir.support.tokenizer_files import (
    BUILT,
    BUILT_CONFIG,
    CONVERTED,
    FORMAT,
    PLAIN,
    made_of,
    read_settings,
    template_files,
)
from hyperdex_ir.support.tokenizer_files import CONFIG as SETTINGS

#: transformers takes 2 s to start; a vocabulary of 262,144 pieces whose merges must be found takes a minute.
_LIMITS = Limits(seconds=180, memory=4 << 30, answer=2 * TOKENIZER.limit)
_WORK = "hyperdex_ir.checkpoint.published_tokenizer:convert"
_PACKAGES = (
    "transformers", "huggingface_hub", "safetensors", "numpy", "packaging", "yaml", "regex", "tqdm", "filelock",
    "sentencepiece", "google", "tiktoken", "tiktoken_ext", "mistral_common",
)  # fmt: skip
#: No network, no file of its own for tiktoken, no threads: the child may write nothing.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "TIKTOKEN_CACHE_DIR": "", "TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}  # fmt: skip
#: The folder's name where no Hub id is known.
_NAME = "checkpoint"
_KEEP = 40
_MAGIC = b"HDXT\x01\x00\x00\x00"
_NAMES = r"[0-9a-f]{32}\.bin"
_INSTALL = "pip install 'hyperdex-ir[tokenizers]'"


def check_vocabulary(model: object, names: Collection[str]) -> None:
    """Raises ConfigError when a checkpoint's tokenizer can only be read with a package that is not installed.

    model: for the error. names: the names of the checkpoint's files.
    """
    if PLAIN in names or {"vocab.json", "merges.txt"} <= set(names):
        return
    missing = {
        name: [package for package in packages if not _is_installed(package)]
        for name, packages in CONVERTED.items()
        if name in names
    }
    if missing and all(missing.values()):
        name, packages = next(iter(missing.items()))
        shown = " and ".join(package.replace("google.", "").replace("_", "-") for package in packages)
        hint = f"pip install {shown}" if name == "tekken.json" else _INSTALL
        raise ConfigError(f"{model}: its only tokenizer is {name}, which is read with {shown}: not installed", hint)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the outer package
        return False


def write_tokenizer(folder: ModelFolder, target: Path, rows: int) -> list[Path]:
    """Writes the tokenizer of the checkpoint into `target`; returns the files, none when there is no tokenizer.

    rows: of the token embedding. A tokenizer that transformers cannot make is said, and left to the run; so are tokens
    without a row.
    """
    if not any((folder.source / name).is_file() for name in (PLAIN, "vocab.json", *CONVERTED)):
        return []
    log("Convert the tokenizer")
    try:
        files = made_of(folder.source)
        built = _built(folder, files)
    except (ConfigError, StorageError) as error:
        log(f"{folder.source}: the tokenizer is not converted: {error}")
        return []
    _say_beyond(built["last"], rows)
    written = {BUILT: built["tokenizer"]} if built["tokenizer"] is not None else {}
    kept = {"format": FORMAT, "made_of": files, "tokenizer": next(iter(written), PLAIN), **built["settings"]}
    kept |= {"chat_templates": templates} if (templates := _more_templates(folder.source)) else {}
    written[BUILT_CONFIG] = json.dumps(kept, indent=1) + "\n"
    for name, text in written.items():
        write_text(target / name, text, folder.anchor)
    return [target / name for name in written]


def _say_beyond(last: list[tuple[int, str]], rows: int) -> None:
    """Logs the tokens that the model has no row for. last: those of the highest ids."""
    beyond = sorted((number, token) for number, token in last if number >= rows)
    if beyond:
        shown = ", ".join(f"{number} {token!r}" for number, token in beyond)
        count = beyond[-1][0] + 1 - rows
        log(f"The tokenizer has {count} ids beyond the {rows} rows of the embedding, which no prompt may hold: {shown}")


def _more_templates(source: Path) -> dict[str, str]:
    """The chat templates in files of a folder of their own, which has no copy beside the compiled model."""
    found = {}
    for path in template_files(source):
        with suppress(ConfigError, FileNotFoundError):  # the rendering says what is wrong
            found[path.stem] = read_text(path, TEMPLATE)
    return found


def _built(folder: ModelFolder, files: dict[str, str]) -> dict[str, Any]:
    """The result of the conversion, perhaps of another model. Raises ConfigError when it fails, StorageError for a link
    that leads out of the checkpoint."""
    name = _NAME if folder.hub_id is None else folder.hub_id
    contents = {one: _content(folder.source, one) for one in (CONFIG, *files)}
    facts = {"files": files, "config": contents[CONFIG].hex(), "name": name}
    packages = [_is_installed(package) for package in _PACKAGES]
    key = digest({**facts, "packages": packages, "versions": versions(), "compiler": code_digest()})
    place = tokenizer_cache()
    cache = None if place is None else DiskCache(place, _MAGIC, _NAMES, _KEEP)
    entry = None if cache is None else cache.read(f"{key[:32]}.bin", key)
    if entry is None:
        entry = json.dumps(_convert(name, contents)).encode()
        if cache is not None:
            cache.write(f"{key[:32]}.bin", key, entry)
    return json.loads(entry)


def _content(source: Path, name: str) -> bytes:
    if name == SETTINGS:
        return json.dumps(read_settings(source)).encode()
    return read_bytes(content_of(source, name), SMALL_FILES[name])


def _convert(name: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root:
        place = Path(root, name)
        place.mkdir(parents=True)
        for one, content in contents.items():
            (place / one).write_bytes(content)
        child = Confined(packages=_PACKAGES, environment=_ENVIRONMENT)
        return child.ask({"work": _WORK, "root": root, "name": name}, _LIMITS, "reading it", ConfigError)
