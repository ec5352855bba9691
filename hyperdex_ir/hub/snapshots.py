"""Models in the cache of `huggingface_hub`, read where they lie when the network is forbidden."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from hyperdex_ir.checkpoint.files import check_weights
from hyperdex_ir.errors import CheckpointError, ConfigError
from hyperdex_ir.hub.download import HubOptions, is_complete
from hyperdex_ir.support.locations import CONFIG, ModelFolder
from hyperdex_ir.support.progress import log
from hyperdex_ir.support.reading import CONFIG as SMALL
from hyperdex_ir.support.reading import read_text

_COMMIT = re.compile(r"[0-9a-f]{40}")
_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def or_snapshot(folder: ModelFolder, options: HubOptions) -> ModelFolder:
    """The folder, with the snapshot of the wanted revision as its source if that is whole in the cache.

    Only where the network is forbidden and the folder has not all files itself.
    """
    offline = options.local_files_only or any(map(os.environ.get, _VARIABLES))
    if folder.hub_id is None or not offline or is_complete(folder, options):
        return folder
    found = _snapshot(folder.hub_id, options)
    if found is None:
        return folder
    log(f"{folder.hub_id}: the network is forbidden: the files in {found} are used where they lie")
    return replace(folder, source=found, hub_id=None, made_by_tool=False)


def _snapshot(hub_id: str, options: HubOptions) -> Path | None:
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.file_download import repo_folder_name

    if not (options.local_files_only or is_offline_mode()):
        return None
    model = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=hub_id, repo_type="model"))
    commit = _commit(model, options.revision or constants.DEFAULT_REVISION)
    folder = model / "snapshots" / commit
    try:
        if commit and (folder / CONFIG).is_file():
            check_weights(folder)
            return folder
    except CheckpointError:
        return None
    return None


def _commit(model: Path, revision: str) -> str:
    """The commit that a revision of a cached model stands for; empty when that is not known."""
    if _COMMIT.fullmatch(revision):
        return revision
    if ".." in Path(revision).parts or Path(revision).is_absolute():
        return ""
    try:
        commit = read_text(model / "refs" / revision, SMALL).strip()
    except (FileNotFoundError, ConfigError):
        return ""
    return commit if _COMMIT.fullmatch(commit) else ""
