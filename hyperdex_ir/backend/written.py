"""The names of the files that a compile writes into the folder of a model. No others are replaced or removed there.

A folder's record of itself, such as its state, is trusted for these names only.
"""

from __future__ import annotations

import re

from hyperdex_ir.hub.download import is_part
from hyperdex_ir.support.folder_access import FolderTree, final_name
from hyperdex_ir.support.locations import GGUF_MARKER, SMALL_FILES
from hyperdex_ir.support.reading import PROGRAM, TABLE, TOKENIZER

#: Beside the manifest: the record of the files, and the folder of the files that are not in their places yet.
STATE_FILE = ".hyperdex_state.json"
STAGING = ".hyperdex_next"
MANIFEST = "manifest.json"
FOLDERS = ("ckpt", "param", "config", "inst")

_COUNT = "[1-9][0-9]{0,5}"
_CONVERTED = r"ckpt/hyperdex_(?:model\.bin|config\.json)"
_TEXT = r"ckpt/hyperdex_tokenizer(?:_config)?\.json"
_COPY = f"ckpt/(?:{'|'.join(map(re.escape, SMALL_FILES))})"
_IMAGES = r"param/param_{count}lpu_[0-9a-f]{{2,8}}_[0-9a-f]{{2,8}}\.bin|config/config_{count}lpu_hbm\.json"
_PROGRAM = r"inst/inst_{count}lpu\.(?:bin|json)"
#: The name of a phase -> the names of its files; `count`: number of devices, in both.
_PHASES = {
    "2": f"{_CONVERTED}|{_COPY}",
    "2-text": f"{_TEXT}|{_COPY}",
    "3-{count}lpu": _IMAGES,
    "4-{count}lpu": _PROGRAM,
}
_OWN = re.compile("|".join((_CONVERTED, _TEXT, *(text.format(count=_COUNT) for text in (_IMAGES, _PROGRAM)))))
_COPIES = re.compile(_COPY)
_RECORDS = {MANIFEST, STATE_FILE}


def files_of_phase(phase: str) -> re.Pattern[str] | None:
    """The names of the files that a phase writes; None when no phase has this name."""
    count = re.fullmatch(f"[34]-({_COUNT})lpu", phase)
    if count is None:
        return re.compile(_PHASES[phase]) if phase in _PHASES and "{" not in phase else None
    return re.compile(_PHASES[f"{phase[0]}-{{count}}lpu"].format(count=count[1]))


def is_larger_than_written(name: str, size: int) -> bool:
    """Test for more bytes than the compiler ever writes under this name, where it has a limit."""
    if name.endswith(".bin"):
        return name.startswith("inst/") and size > PROGRAM.limit
    return size > max(TABLE.limit, TOKENIZER.limit)


def is_own(name: str) -> bool:
    """Test for a name of files that only the compiler writes."""
    return _OWN.fullmatch(name) is not None


def is_copy(name: str) -> bool:
    """Test for the name of a copy of a checkpoint's small file. The checkpoint itself may lie in the same folder."""
    return _COPIES.fullmatch(name) is not None


def is_unfinished(name: str) -> bool:
    """Test for the name of a file that a compile or a download had not finished."""
    folder, _, last = name.rpartition("/")
    final = final_name(last)
    if final is None:
        return False
    whole = f"{folder}/{final}" if folder else final
    is_checkpoints = folder == "ckpt" and (is_part(last) or final == GGUF_MARKER)
    return is_checkpoints or is_own(whole) or whole in _RECORDS


def own_files(tree: FolderTree) -> list[str]:
    """The files in the folder of a model that the compiler has written, finished or not; of copies only staged ones.

    Links among them count, not their targets. Raises StorageError where one of its folders is a link.
    """
    found = [name for folder in ("", *FOLDERS) for name in tree.names(folder) if is_own(name) or is_unfinished(name)]
    for folder in ("", *FOLDERS):
        for path in tree.names(f"{STAGING}/{folder}" if folder else STAGING):
            name = path.removeprefix(f"{STAGING}/")
            if is_own(name) or is_copy(name) or is_unfinished(name) or name in _RECORDS:
                found.append(path)
    return [name for name in found if tree.is_no_folder(name)]


def unfinished_files(tree: FolderTree) -> list[str]:
    """The files that killed compiles have left; for a caller that holds the folder's lock."""
    return [name for name in own_files(tree) if is_unfinished(name.removeprefix(f"{STAGING}/"))]
