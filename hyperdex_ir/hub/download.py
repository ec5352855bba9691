"""Phases 0 and 1: download of a model from the Hub into `ckpt/`, only the files that a compile and a run need.

The first request finds the commit that a branch stands for; everything else is of that commit. Its files, with lengths
and hashes, are in the marker in `ckpt/`, so that a later run continues with the same files, or detects changes.
config.json comes first, small files next, weights last. Weights in torch's own format are fetched only where there are
no safetensors, and rewritten. `huggingface_hub` is imported when something has to be fetched.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from hyperdex_ir.checkpoint import torch_weights
from hyperdex_ir.checkpoint.files import shards, weight_files
from hyperdex_ir.checkpoint.other_names import other_weights
from hyperdex_ir.errors import ConfigError, DownloadError, ModelNotFoundError, StorageError
from hyperdex_ir.hub.access import Credential
from hyperdex_ir.hub.requests import HubModel, Listing, RemoteFile
from hyperdex_ir.hub.transfer import fetch_file, part_of, same_content
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.folder_access import FolderTree, final_name, place_of
from hyperdex_ir.support.locations import (
    ADAPTER_CONFIG,
    CONFIG,
    MARKER,
    MERGE,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    SMALL_FILES,
    ModelFolder,
    read_marker,
)
from hyperdex_ir.support.progress import log
from hyperdex_ir.support.reading import TORCH_INDEX

_INDEXES = (SAFETENSORS_INDEX, TORCH_INDEX)
_WEIGHTS = re.compile(r"[\w.-]+\.safetensors|pytorch_model[\w.-]*\.bin", re.ASCII)


@dataclass(frozen=True)
class HubOptions:
    """The options of a download.

    token: access token. revision: branch, tag or commit. local_files_only: without the network. refresh: ask the Hub
    whether a branch has moved, although all files are there.
    """

    token: str | None = field(default=None, repr=False)
    revision: str | None = None
    local_files_only: bool = False
    refresh: bool = False

    @cached_property
    def credential(self) -> Credential:
        """The access token, found once."""
        return Credential(self.token)


def is_part(name: str) -> bool:
    """Test for the name, in `source`, of an unfinished download, or of an unfinished file made from one."""
    final = final_name(name) or ""
    return final in (*SMALL_FILES, *_INDEXES, MARKER) or _WEIGHTS.fullmatch(final) is not None


def is_complete(folder: ModelFolder, options: HubOptions) -> bool:
    """Test that `source` has all files of the wanted revision: config.json, small ones as far as known, weights."""
    listing = _recorded(folder)
    small = [folder.source / name for name in SMALL_FILES if listing is not None and name in listing.files]
    present = all(path.is_file() for path in (*small, *weight_files(folder.source)))
    return _has_config(folder, options) and present


def _has_config(folder: ModelFolder, options: HubOptions) -> bool:
    marker = read_marker(folder.source) or {"revision": None}
    return (folder.source / CONFIG).is_file() and marker.get("revision") == options.revision


def _is_settled(folder: ModelFolder) -> bool:
    """Test that the folder has once been complete: then its commit stays until something else is asked for."""
    marker = read_marker(folder.source)
    if marker is None or marker.get("complete") is True:
        return True
    return "commit" not in marker and all(path.is_file() for path in weight_files(folder.source))


def fetch_config(folder: ModelFolder, options: HubOptions) -> None:
    """Fetches config.json, so that an unsupported model costs no download. A failed first fetch leaves no folder.

    Files of another commit are removed: afterwards all files are of the wanted one.

    Raises ModelNotFoundError when the Hub has no such model, ConfigError when that has no config.json, AccessError when
    it is gated, and DownloadError when it has no such revision, or cannot be reached.
    """
    if folder.hub_id is None:
        return
    present, settled = _has_config(folder, options), _is_settled(folder)
    if present and (options.local_files_only or (settled and not options.refresh)):
        return
    try:
        listing = _listing(folder.hub_id, options)
    except (DownloadError, ModelNotFoundError) as error:
        if not (present and settled):
            raise
        log(f"{error}; go on with the files that are there")
        return
    missing = _first_missing(folder.source)
    try:
        _adopt(folder, options, listing)
        _fetch(folder, options, CONFIG)
    except BaseException:
        if missing is not None:
            _undo(folder, missing)
        raise


def file_names(folder: ModelFolder) -> list[str]:
    """The names of a checkpoint's files: of the commit that is to be downloaded, else of those that are there."""
    listing = None if folder.hub_id is None else _recorded(folder)
    return sorted(path.name for path in folder.source.iterdir()) if listing is None else sorted(listing.files)


def fetch_anything(folder: ModelFolder, options: HubOptions) -> None:
    """Fetches config.json if the folder has none of this revision. Raises as `fetch_config`."""
    if not _has_config(folder, options):
        fetch_config(folder, options)


def fetch_model(folder: ModelFolder, options: HubOptions, is_needed: Callable[[str], bool] | None = None) -> None:
    """Fetches the missing files: tokenizer and generation files, then the weights. Raises as `fetch_config`.

    is_needed: test for the tensors that are used, by name; of several weight files, those without any are left out.
    """
    if folder.hub_id is None or (is_complete(folder, options) and _is_settled(folder)):
        return
    if options.local_files_only:
        raise DownloadError(
            f"{folder.hub_id}: the files in {folder.source} are not complete", "run without --local-files-only"
        )
    listing = _recorded(folder)
    if listing is None:
        listing = _listing(folder.hub_id, options)
        _adopt(folder, options, listing)
    for name in (*SMALL_FILES, SAFETENSORS_INDEX):
        if name in listing.files:
            _fetch(folder, options, name)
    shards = _shards(folder, options, listing, is_needed)
    _check_room(folder.source, listing, shards)
    for name in shards:
        _fetch_weights(folder, options, name)
    if not _has_safetensors(listing) and torch_weights.SINGLE not in listing.files:
        if (folder.source / SAFETENSORS_INDEX).is_file() and not is_fetched(folder, SAFETENSORS_INDEX):
            _set_aside(folder, SAFETENSORS_INDEX)
        torch_weights.rewrite_index(folder.source / TORCH_INDEX, _tree(folder).root)
        _record_fetched(folder, SAFETENSORS_INDEX)
    _write_marker(folder, options, listing, complete=True)
    if options.credential.token is None:
        print("Not logged in!", file=sys.stderr)


def _has_safetensors(listing: Listing) -> bool:
    return SAFETENSORS in listing.files or SAFETENSORS_INDEX in listing.files


def _shards(
    folder: ModelFolder, options: HubOptions, listing: Listing, is_needed: Callable[[str], bool] | None
) -> list[str]:
    """The weight files to fetch; those in torch's format where there are no others."""
    of_torch = torch_weights.SINGLE, TORCH_INDEX
    single, index = (SAFETENSORS, SAFETENSORS_INDEX) if _has_safetensors(listing) else of_torch
    if single in listing.files:
        return [single]
    if index not in listing.files:
        assert folder.hub_id is not None
        others, hint = other_weights(sorted(_listing(folder.hub_id, options).files))
        raise DownloadError(
            f"{folder.hub_id}: has no weights (neither {SAFETENSORS} nor {torch_weights.SINGLE}, nor an index){others}",
            hint,
        )
    _fetch(folder, options, index)
    if is_needed is not None and is_fetched(folder, index):
        _leave_out(folder, index, is_needed)
    names = list(shards(folder.source / index))
    check_beside(folder.hub_id, index, names)
    for name in names:
        if name not in listing.files:
            raise DownloadError(f"{folder.hub_id}: has no file {name}, which {index} names", "its owner must repair it")
    return names


def check_beside(hub_id: str | None, index: str, names: list[str]) -> None:
    """Raises DownloadError when an index of the Hub names files in folders."""
    inside = next((name for name in names if "/" in name), None)
    if inside is not None:
        raise DownloadError(
            f"{hub_id}: {index} names {inside}: only files beside the index are downloaded",
            f"hf download {hub_id} --local-dir DIR, then compile DIR",
        )


def _leave_out(folder: ModelFolder, index: str, is_needed: Callable[[str], bool]) -> None:
    """Takes the weight files without any needed tensor out of the index in `source`."""
    files = shards(folder.source / index)
    left = {name: file for file, names in files.items() if any(map(is_needed, names)) for name in names}
    kept = len(set(left.values()))
    if kept == len(files) or not left:
        return
    log(f"{len(files) - kept} of {len(files)} weight files hold nothing of the text model: they are not fetched")
    write_text(folder.source / index, json.dumps({"weight_map": left}, indent=1) + "\n", _tree(folder).root)
    _record_fetched(folder, index)


def _check_room(source: Path, listing: Listing, shards: list[str]) -> None:
    """Raises StorageError when the disk cannot hold the missing files."""
    files = [(name, listing.files[name]) for name in shards if not _weights_of(source, name).is_file()]
    parts = [part for name, file in files if (part := part_of(source, name, file)).is_file()]
    needed = sum(file.size or 0 for _, file in files) - sum(part.stat().st_size for part in parts)
    free = shutil.disk_usage(source).free
    if needed > free:
        raise StorageError(
            f"{source}: the weights still to fetch have {needed:,} bytes, {free:,} are free", "free some space"
        )


def _weights_of(source: Path, name: str) -> Path:
    """The file with the tensors of a weight file: itself, or the safetensors file made from torch's format."""
    return source / (name if name.endswith(".safetensors") else torch_weights.safetensors_name(name))


def _fetch_weights(folder: ModelFolder, options: HubOptions, name: str) -> None:
    place = _weights_of(folder.source, name)
    if place.is_file():
        return
    _fetch(folder, options, name)
    if place.name == name:
        return
    torch_weights.rewrite(folder.source / name, _tree(folder).root)
    _record_fetched(folder, place.name)
    if is_fetched(folder, name):
        _remove(folder, name)


# ---------------------------------------------------------------------------------------------- files of the tool
def _tree(folder: ModelFolder) -> FolderTree:
    """The folder that `source` lies in, for writing."""
    return FolderTree(folder.source.parent)


def _inner(folder: ModelFolder, name: str) -> str:
    return f"{folder.source.name}/{name}"


def _remove(folder: ModelFolder, name: str) -> None:
    _tree(folder).remove(_inner(folder, name))


def is_fetched(folder: ModelFolder, name: str) -> bool:
    """Test that the file in `source` is the one that this tool has put there, by size, time and inode.

    A stranger who makes a folder for others can write a marker too, but does not know the inodes of its files.
    """
    entry = _fetched(folder).get(name)
    if entry is None:
        return False
    found = _tree(folder).info(_inner(folder, name))
    return found is not None and entry == place_of(found)


def _fetched(folder: ModelFolder) -> dict[str, Any]:
    """The marker's record: name -> size, time and inode of each file that was downloaded, or made from a download."""
    found = (read_marker(folder.source) or {}).get("fetched")
    return found if isinstance(found, dict) else {}


def _record_fetched(folder: ModelFolder, name: str) -> None:
    marker, found = read_marker(folder.source), _tree(folder).info(_inner(folder, name))
    assert marker is not None
    assert found is not None
    _put_marker(folder, marker | {"fetched": {**_fetched(folder), name: place_of(found)}})


def _undo(folder: ModelFolder, missing: Path) -> None:
    """Removes the files of a failed first fetch, and the folders that were made for it, from `missing` on."""
    for name in (MARKER, *_fetched_files(folder.source)):
        _remove(folder, name)
    for path in (folder.source, *folder.source.parents):
        if path == missing or missing in path.parents:
            FolderTree(path.parent).remove_if_empty(path.name)


def _set_aside(folder: ModelFolder, name: str) -> None:
    """Moves a file that the user has put into `source` out of the way: it may be the only one of its kind."""
    tree = _tree(folder)
    places = (f"replaced/{name}" + (f".{number}" if number else "") for number in count())
    place = next(one for one in places if tree.info(one) is None)
    tree.move(_inner(folder, name), place)
    log(f"{folder.source / name}: not of this commit, and not downloaded by this tool: moved to {tree.root / place}")


# ------------------------------------------------------------------------------------------------------ one commit
def _listing(hub_id: str, options: HubOptions) -> Listing:
    if options.local_files_only:
        raise DownloadError(f"{hub_id}: not downloaded, and only local files are allowed", "drop --local-files-only")
    return HubModel(hub_id, options.credential).listing(options.revision)


def _recorded(folder: ModelFolder) -> Listing | None:
    """The commit that the folder holds, or is to hold."""
    return Listing.from_json(read_marker(folder.source) or {})


def _adopt(folder: ModelFolder, options: HubOptions, listing: Listing) -> None:
    """Makes the folder one of this commit: removes files of other content, then lists the expected ones in the marker.

    Only files that this tool has put there are removed, and links: the hashes in a marker may come from a stranger.
    """
    before = _recorded(folder)
    known = {} if before is None else before.files
    if before is not None and before.commit != listing.commit:
        log(f"{folder.hub_id}: has moved from commit {before.commit[:12]} to {listing.commit[:12]}")
    if CONFIG not in listing.files:
        raise no_config(folder.hub_id, listing)
    for name in _fetched_files(folder.source):
        path = folder.source / name
        if _belongs(path, known, listing):
            continue
        if path.suffix == ".part" or path.is_symlink() or is_fetched(folder, name):
            _remove(folder, name)
        else:
            _set_aside(folder, name)
    _write_marker(folder, options, listing, complete=False)


def no_config(hub_id: str | None, listing: Listing) -> ConfigError:
    """The error for a model without config.json."""
    if ADAPTER_CONFIG in listing.files:
        return ConfigError(f"{hub_id}: a LoRA adapter: merge it with its base model first", MERGE)
    return ConfigError(f"{hub_id}: has no {CONFIG}", "it is no transformers checkpoint")


def _fetched_files(source: Path) -> list[str]:
    """The names of a download's files that are in a folder; parts of files too."""
    found = [path for pattern in ("*.safetensors", "pytorch_model*.bin") for path in sorted(source.glob(pattern))]
    found += [path for path in sorted(source.glob(".*.part")) if is_part(path.name)]
    paths = (*found, *(source / name for name in (*SMALL_FILES, *_INDEXES)))
    return [path.name for path in paths if path.is_file() or path.is_symlink()]


def _belongs(path: Path, known: Mapping[str, RemoteFile], listing: Listing) -> bool:
    """Test that a file is the one that a download of this commit would put there. known: the files expected before."""
    listed, source = listing.files, path.parent
    if path.suffix == ".part":
        return any(path == part_of(source, name, file) for name, file in listed.items())
    if path.name not in listed and not _has_safetensors(listing):
        origins = [name for name in listed if name.endswith((".bin", ".bin.index.json")) and "/" not in name]
        made = {_weights_of(source, name).name: name for name in origins} | {SAFETENSORS_INDEX: TORCH_INDEX}
        origin = made.get(path.name, "")
        return origin in listed and known.get(origin) == listed[origin]
    if path.name not in listed:
        return False
    expected = listed[path.name]
    return (known.get(path.name) == expected and expected.digest is not None) or same_content(path, expected)


def _write_marker(folder: ModelFolder, options: HubOptions, listing: Listing, *, complete: bool) -> None:
    files = {name: file for name, file in listing.files.items() if _is_wanted(name)}
    facts = {"hub_id": folder.hub_id, "revision": options.revision, "complete": complete}
    fetched = {name: entry for name, entry in _fetched(folder).items() if is_fetched(folder, name)}
    _put_marker(folder, {**facts, **Listing(listing.commit, files).to_json(), "fetched": fetched})


def _put_marker(folder: ModelFolder, marker: Mapping[str, Any]) -> None:
    write_text(folder.source / MARKER, json.dumps(marker, indent=1) + "\n", _tree(folder).root)


def _is_wanted(name: str) -> bool:
    """Test for a file that may be among those to fetch. The index decides which weights are."""
    return "/" not in name and (name in SMALL_FILES or name in _INDEXES or name.endswith((".safetensors", ".bin")))


def _fetch(folder: ModelFolder, options: HubOptions, name: str) -> None:
    """Fetches a file of the folder's commit, unless it is there."""
    listing = _recorded(folder)
    assert listing is not None
    assert folder.hub_id is not None
    if (folder.source / name).is_file():
        return
    hub = HubModel(folder.hub_id, options.credential)
    fetch_file(hub, listing.commit, name, listing.files[name], folder.source, _tree(folder).root)
    _record_fetched(folder, name)


def _first_missing(path: Path) -> Path | None:
    """The topmost component of a path that does not exist."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    return missing[-1] if missing else None
