"""Phase 1: fetches a model from the Hugging Face Hub into `ckpt/`; only the files that a compile and a run need.

Small files come first and weights last, each file whole or not at all, so that a folder with all weights is complete.
Weights in torch's own format are fetched only where there are no safetensors, and rewritten.
`huggingface_hub` is imported when something has to be fetched.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperdex_ir import torch_weights
from hyperdex_ir.errors import CheckpointError, ConfigError, DownloadError, ModelNotFoundError
from hyperdex_ir.files import storage_errors, write_text
from hyperdex_ir.locations import MARKER, ModelFolder, read_marker

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class HubOptions:
    """How to fetch: access token, revision (branch, tag or commit), and whether the network may be used."""

    token: str | None = None
    revision: str | None = None
    local_files_only: bool = False


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the single one, or those that the index names; these may be missing."""
    single, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if single.is_file() or not index.is_file():
        return [single]
    return [folder / name for name in _shards(index)]


def _shards(index: Path) -> list[str]:
    """The names of the files that an index names, each of a file beside it: they are fetched, and removed, by name."""
    try:
        names = sorted(dict.fromkeys(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{index}: not an index of weight files ({error})") from None
    for name in names:
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            raise ConfigError(f"{index}: names {json.dumps(name)}, expected the name of a file beside it")
    return names


def is_complete(folder: ModelFolder, options: HubOptions) -> bool:
    """Whether `source` holds config.json and every weight file of the wanted revision."""
    return _has_config(folder, options) and all(path.is_file() for path in weight_files(folder.source))


def _has_config(folder: ModelFolder, options: HubOptions) -> bool:
    marker = read_marker(folder.source) or {"revision": None}
    return (folder.source / "config.json").is_file() and marker.get("revision") == options.revision


def fetch_config(folder: ModelFolder, options: HubOptions) -> None:
    """Fetches config.json, so that an unsupported model costs no download. A failed first fetch leaves no folder.

    Weights of another revision are removed: what is there afterwards is of the wanted one.

    Raises ModelNotFoundError when the Hub has no such model, ConfigError when that has no config.json, and
    DownloadError when it is gated, has no such revision, or cannot be reached.
    """
    if folder.hub_id is None or _has_config(folder, options):
        return
    missing = _first_missing(folder.source)
    try:
        _fetch(folder.hub_id, folder.source, options, "config.json")
        marker = {"hub_id": folder.hub_id, "revision": options.revision}
        for path in weight_files(folder.source):
            path.unlink(missing_ok=True)
        write_text(folder.source / MARKER, json.dumps(marker, indent=1) + "\n")
    except BaseException:
        if missing is not None:
            shutil.rmtree(missing, ignore_errors=True)
        raise


def fetch_model(folder: ModelFolder, options: HubOptions) -> None:
    """Fetches what is still missing: tokenizer and generation files, then the weights. Raises as `fetch_config`."""
    if folder.hub_id is None or is_complete(folder, options):
        return
    if options.local_files_only:
        raise DownloadError(
            f"{folder.hub_id}: the weights in {folder.source} are not complete", "run without --local-files-only"
        )
    names = _remote_files(folder.hub_id, options)
    for name in (*SMALL_FILES, WEIGHTS_INDEX):
        if name in names:
            _fetch(folder.hub_id, folder.source, options, name)
    if WEIGHTS not in names and WEIGHTS_INDEX not in names:
        return _fetch_torch_weights(folder.hub_id, folder.source, options, names)
    shards = [WEIGHTS] if WEIGHTS in names else _shards(folder.source / WEIGHTS_INDEX)
    for name in shards:
        _fetch(folder.hub_id, folder.source, options, name)


def _fetch_torch_weights(hub_id: str, folder: Path, options: HubOptions, names: dict[str, None]) -> None:
    """For models without safetensors: fetches torch's files and rewrites them, one by one; the index comes last."""
    if torch_weights.SINGLE not in names and torch_weights.INDEX not in names:
        raise DownloadError(f"{hub_id}: has no weights (neither {WEIGHTS} nor {torch_weights.SINGLE}, nor an index)")
    shards, index = [torch_weights.SINGLE], folder / torch_weights.INDEX
    if torch_weights.SINGLE not in names:
        _fetch(hub_id, folder, options, torch_weights.INDEX)
        shards = _shards(index)
    for name in shards:
        if (folder / torch_weights.safetensors_name(name)).is_file():
            continue
        _fetch(hub_id, folder, options, name)
        torch_weights.rewrite(folder / name)
        (folder / name).unlink()
    if torch_weights.SINGLE not in names:
        torch_weights.rewrite_index(index)


def fetch_small_file(hub_id: str, folder: Path, options: HubOptions, name: str) -> None:
    """Fetches one file into a folder. Raises as `fetch_config`."""
    _fetch(hub_id, folder, options, name)


def remote_weights(hub_id: str, options: HubOptions) -> int:
    """Bytes of the tensors of a model on the Hub, by the headers of its safetensors; no more of them is fetched.

    Where it has none, bytes of its files in torch's format. Raises as `fetch_config`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    api = HfApi(token=options.token)
    with _hub_errors(hub_id, options):
        try:
            found = api.get_safetensors_metadata(hub_id, revision=options.revision)
        except NotASafetensorsRepoError:
            info = api.model_info(hub_id, revision=options.revision, files_metadata=True)
            files = [one for one in info.siblings or () if one.rfilename.endswith(".bin")]
            return sum(one.size or 0 for one in files)
        except SafetensorsParsingError as error:
            raise CheckpointError(f"{hub_id}: a header of its safetensors does not hold: {error}") from None
    tensors = [tensor for file in found.files_metadata.values() for tensor in file.tensors.values()]
    return sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in tensors)


def _first_missing(path: Path) -> Path | None:
    """The topmost component of a path that does not exist."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    return missing[-1] if missing else None


def _remote_files(hub_id: str, options: HubOptions) -> dict[str, None]:
    from huggingface_hub import HfApi

    with _hub_errors(hub_id, options):
        info = HfApi().model_info(hub_id, revision=options.revision, token=options.token)
    return {sibling.rfilename: None for sibling in info.siblings or ()}


def _fetch(hub_id: str, folder: Path, options: HubOptions, name: str) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # its retries are no news for the user; the last error is
    if not sys.stderr.isatty():
        disable_progress_bars()
    arguments: dict[str, Any] = {
        "local_dir": folder,
        "revision": options.revision,
        "token": options.token,
        "local_files_only": options.local_files_only,
    }
    with _hub_errors(hub_id, options), storage_errors(folder / name):
        hf_hub_download(hub_id, name, **arguments)


@contextmanager
def _hub_errors(hub_id: str, options: HubOptions) -> Iterator[None]:
    """Turns what huggingface_hub and its HTTP client raise into one line each."""
    from huggingface_hub import errors

    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]  # the base of all errors of the HTTP client in use

    revision = f" at revision {options.revision}" if options.revision else ""
    try:
        yield
    except errors.GatedRepoError:
        raise DownloadError(
            f"{hub_id}: the Hub gives access on request only",
            f"ask for access at https://huggingface.co/{hub_id} and pass --token",
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"{hub_id}: no such directory, and no such model on the Hub", "a private model needs --token"
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{hub_id}: the Hub has no revision {options.revision}") from None
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(hub_id, options, error.__cause__ or error) from None
    except errors.EntryNotFoundError:
        raise ConfigError(f"{hub_id}{revision}: has no config.json", "it is no transformers checkpoint") from None
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, http_error) as error:
        raise _unreachable(hub_id, options, error) from None


def _unreachable(hub_id: str, options: HubOptions, error: BaseException) -> DownloadError:
    if options.local_files_only:
        return DownloadError(f"{hub_id}: not downloaded, and only local files are allowed", "drop --local-files-only")
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DownloadError(
        f"{hub_id}: no such directory, and not fetched from the Hub: {first_line[:200]}",
        "check the name and the network, or give a directory that holds the checkpoint",
    )
