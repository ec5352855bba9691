"""The places of a model: the folder of everything that is made of it, and the folder of its original checkpoint.

A model is named by (a) a Hub id; (b) an existing directory that holds a checkpoint directly or in `ckpt/`, or one GGUF
file, or by a path to that file; (c) an absolute path that does not exist or is empty, whose last two components are the
Hub id to download. A marker in `ckpt/` tells (c) from (b) the next time. Only in the checkpoints of (a), (c) and GGUF
files may the tool delete weights, and there only the files that it has made, by the markers (`hub/download.py`,
`checkpoint/gguf.py`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hyperdex_ir.errors import ConfigError, FileFormatError, ModelNotFoundError, OptionError
from hyperdex_ir.support import reading

#: The files of a checkpoint besides its weights.
CONFIG = "config.json"
SMALL_FILES = tuple(reading.SMALL_FILES)
#: The file that tells the folder of a LoRA adapter, and the hint for one.
ADAPTER_CONFIG = "adapter_config.json"
MERGE = "with peft: PeftModel.from_pretrained(base, ADAPTER).merge_and_unload().save_pretrained(DIR), then compile DIR"
#: A checkpoint's weights as safetensors: in one file, or in several, which the index names.
SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = reading.SAFETENSORS_INDEX
#: The record, in `ckpt/`, of the files that the tool has downloaded, and of those made from a GGUF file.
MARKER = "hyperdex_download.json"
GGUF_MARKER = "hyperdex_gguf.json"
_HUB_ID = re.compile(r"(?=.{1,96}$)([A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*", re.ASCII)


def is_safe(name: object) -> bool:
    """Test for a printable relative path, in its shortest form, that stays below its folder."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name:
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and path.as_posix() == name


def hub_root() -> Path:
    """The folder of models named by Hub id: `$HYPERDEX_HOME/hub`, by default `~/.cache/hyperdex/hub`."""
    return _home() / "hub"


def native_cache() -> Path:
    """The folder of the native executor's machine code: `$HYPERDEX_HOME/engine`, else `~/.cache/hyperdex/engine`."""
    return _home() / "engine"


def instruction_cache() -> Path | None:
    """Instructions that models share: `$HYPERDEX_HOME/instructions`, by default `~/.cache/hyperdex/instructions`.

    None where there is no home directory: a compile into a folder of its own needs none.
    """
    return _optional("instructions")


def module_cache() -> Path | None:
    """Imported modules that models share, `modules` beside the instructions; None where there is no home directory."""
    return _optional("modules")


def tokenizer_cache() -> Path | None:
    """Tokenizers that models share, `tokenizers` beside the instructions; None where there is no home directory."""
    return _optional("tokenizers")


def source_cache() -> Path | None:
    """The places of checkpoints, `sources` beside the instructions; None where there is no home directory."""
    return _optional("sources")


def _optional(name: str) -> Path | None:
    try:
        return _home() / name
    except OptionError:
        return None


def _home() -> Path:
    home = os.environ.get("HYPERDEX_HOME")
    return user_path(home or "~/.cache/hyperdex").absolute()


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` expanded. Raises OptionError when there is no such home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise OptionError(f"{os.fspath(path)}: no such home directory", "set HOME or HYPERDEX_HOME") from None


def is_hub_id(text: str) -> bool:
    """Test for a text with the form of a Hub id: `name` or `organisation/name`."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


@dataclass(frozen=True)
class ModelFolder:
    """The folder of one model.

    root: everything that the compiler writes goes below it.
    source: the folder with config.json, tokenizer and safetensors.
    hub_id: the model to download into `source`, or None when the checkpoint is there already.
    gguf: the GGUF file to make the files in `source` from, or None.
    made_by_tool: the weights in `source` may be the tool's own copy: markers there say which files are.
    """

    root: Path
    source: Path
    hub_id: str | None
    made_by_tool: bool
    gguf: Path | None = None

    @property
    def anchor(self) -> Path:
        """The folder below which no link is followed when something is written: `folder_access.py`."""
        return self.root

    @property
    def ckpt(self) -> Path:
        """Tokenizer, config.json and the converted checkpoint."""
        return self.root / "ckpt"

    @property
    def model_binary(self) -> Path:
        """The converted checkpoint: every tensor under its LPU name."""
        return self.ckpt / "hyperdex_model.bin"

    @property
    def binary_name(self) -> str:
        """Its path below the root."""
        return self.model_binary.relative_to(self.root).as_posix()

    @property
    def model_config(self) -> Path:
        """The table of the converted checkpoint."""
        return self.ckpt / "hyperdex_config.json"

    @property
    def manifest(self) -> Path:
        """Versions, sizes and hashes of everything."""
        return self.root / "manifest.json"

    def parameter_file(self, num_device: int, device: int, channel: int) -> Path:
        """The parameter image of one HBM channel."""
        return self.root / "param" / f"param_{num_device}lpu_{device:02x}_{channel:02x}.bin"

    def memory_map(self, num_device: int) -> Path:
        """The memory map."""
        return self.root / "config" / f"config_{num_device}lpu_hbm.json"

    def instructions(self, num_device: int) -> Path:
        """The program."""
        return self.root / "inst" / f"inst_{num_device}lpu.bin"

    def origins(self, num_device: int) -> Path:
        """The table that leads from each instruction to IR op and module path."""
        return self.root / "inst" / f"inst_{num_device}lpu.json"


def find_folder(model_id: str | os.PathLike[str], output_dir: str | os.PathLike[str] | None = None) -> ModelFolder:
    """The folder of a model, by Hub id or path; nothing is created or downloaded.

    `output_dir` takes the place of the folder that the rules would choose; a checkpoint that exists stays where it is.
    Raises ModelNotFoundError when it is neither a directory nor has the form of a Hub id, ConfigError when a directory
    holds no checkpoint.
    """
    text = os.fspath(model_id)
    if not text:
        raise OptionError("the model id is empty", "give a Hub id such as facebook/opt-1.3b, or a directory")
    if output_dir is not None and not os.fspath(output_dir):
        raise OptionError("output_dir is empty", "name a folder; . is the current one")
    redirected = user_path(output_dir).absolute() if output_dir is not None else None
    if redirected is not None and redirected.exists() and not redirected.is_dir():
        raise OptionError(f"output_dir {redirected}: not a directory", "name a folder, which may not exist yet")
    path = user_path(text)
    if path.suffix == ".gguf" and path.is_file():
        return _of_gguf(path.absolute(), redirected or path.absolute().with_suffix(""))
    if path.is_dir() and any(path.iterdir()):
        folder = _existing(path.absolute(), redirected)
        if folder is not None:
            return folder
        if (path / ADAPTER_CONFIG).is_file():
            raise ConfigError(f"{path}: a LoRA adapter of {_base_of(path)}: merge it first", MERGE)
        raise ConfigError(
            f"{path}: holds no config.json, neither directly nor in ckpt/",
            "give the directory of a Hugging Face checkpoint",
        )
    if path.exists() and not path.is_dir():
        raise ModelNotFoundError(f"{path}: not a directory", "give the directory of a checkpoint, or a GGUF file")
    if path.is_absolute():
        return _install(path, redirected)
    if not is_hub_id(text):
        raise ModelNotFoundError(f"{text}: no such directory, and not a Hub id", "Hub ids look like facebook/opt-1.3b")
    root = redirected or hub_root() / text
    return ModelFolder(root, root / "ckpt", text, made_by_tool=True)


def _base_of(adapter: Path) -> str:
    """The name of the model that an adapter belongs to."""
    base = reading.read_object(adapter / ADAPTER_CONFIG, reading.CONFIG).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else "an unnamed model"


def _existing(path: Path, redirected: Path | None) -> ModelFolder | None:
    """Rule (b): the directory holds a checkpoint, or one that this tool was downloading; None when it does not."""
    root = redirected or path
    marker = read_marker(path / "ckpt")
    if marker is not None:
        return ModelFolder(root, path / "ckpt", marker["hub_id"], made_by_tool=True)
    made_by_tool = hub_root() in path.parents
    if (path / "config.json").is_file():
        return ModelFolder(root, path, None, made_by_tool)
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ConfigError(f"{path}: holds {len(files)} GGUF files and no config.json: {names}", "name one of them")
    if files:
        return _of_gguf(files[0], root)
    if (path / "ckpt" / "config.json").is_file():
        return ModelFolder(root, path / "ckpt", None, made_by_tool)
    return None


def _of_gguf(file: Path, root: Path) -> ModelFolder:
    """The folder of a GGUF file, in whose `ckpt/` the tool makes the checkpoint. A path to the file stands for the
    folder of the file's name without its suffix.
    """
    return ModelFolder(root, root / "ckpt", None, made_by_tool=True, gguf=file)


def _install(path: Path, redirected: Path | None) -> ModelFolder:
    """Rule (c): an absolute path that does not exist or is empty."""
    if path.exists() and not path.is_dir():
        raise ModelNotFoundError(f"{path}: not a directory", "give a directory or a Hub id")
    hub_id = "/".join(path.parts[-2:])
    if len(path.parts) < 3 or not is_hub_id(hub_id):
        raise ModelNotFoundError(
            f"{path}: no such directory, and its last two components are not a Hub id",
            "an install location ends like .../facebook/opt-1.3b",
        )
    root = redirected or path
    return ModelFolder(root, root / "ckpt", hub_id, made_by_tool=True)


def read_marker(ckpt: Path) -> dict[str, Any] | None:
    """The marker in a folder that the tool downloads into; None if there is none that names a Hub id."""
    try:
        value = reading.read_object(ckpt / MARKER, reading.MARKER)
    except (FileNotFoundError, FileFormatError):
        return None
    hub_id = value.get("hub_id")
    return value if isinstance(hub_id, str) and is_hub_id(hub_id) else None
