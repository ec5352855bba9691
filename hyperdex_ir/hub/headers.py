"""Download for `hyperdex plan` of a model on the Hub: config.json, the index, and the headers of the safetensors.

The headers are put into files of the weights' names and lengths that hold nothing else. The files are sparse, so they
take no room, and every reader of a checkpoint's headers can read them.
"""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hyperdex_ir.checkpoint import torch_weights
from hyperdex_ir.checkpoint.files import shards
from hyperdex_ir.errors import CheckpointError, DownloadError
from hyperdex_ir.hub.download import HubOptions, check_beside, no_config
from hyperdex_ir.hub.requests import HubModel, Listing, RemoteFile
from hyperdex_ir.hub.transfer import fetch_file
from hyperdex_ir.support.files import atomic_file
from hyperdex_ir.support.locations import CONFIG, SAFETENSORS, SAFETENSORS_INDEX

_AT_ONCE = 8
_LONGEST = 1 << 42  # bytes of a file whose length is not known


def fetch_headers(hub_id: str, folder: Path, options: HubOptions) -> int:
    """Puts config.json and the headers of the weights into a folder; returns the bytes of all weight files.

    Nothing is fetched of weights in torch's format. Raises as `hub.fetch_config`, and CheckpointError when a header is
    not valid.
    """
    if options.local_files_only:
        raise DownloadError(f"{hub_id}: not downloaded, and only local files are allowed", "drop --local-files-only")
    hub = HubModel(hub_id, options.credential)
    listing = hub.listing(options.revision)
    if CONFIG not in listing.files:
        raise no_config(hub_id, listing)
    fetch_file(hub, listing.commit, CONFIG, listing.files[CONFIG], folder)
    if SAFETENSORS not in listing.files and SAFETENSORS_INDEX not in listing.files:
        return _torch_bytes(listing)
    names = [SAFETENSORS]
    if SAFETENSORS not in listing.files:
        fetch_file(hub, listing.commit, SAFETENSORS_INDEX, listing.files[SAFETENSORS_INDEX], folder)
        names = list(shards(folder / SAFETENSORS_INDEX))
        check_beside(hub_id, SAFETENSORS_INDEX, names)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        headers = list(pool.map(lambda name: hub.header(listing.commit, name), names))
    return sum(
        _write_header(hub_id, folder / name, header, listing.files.get(name))
        for name, header in zip(names, headers, strict=True)
    )


def _torch_bytes(listing: Listing) -> int:
    """Bytes of the files in torch's format, by their usual names."""
    names = [name for name in listing.files if name.startswith("pytorch_model") and name.endswith(".bin")]
    if torch_weights.SINGLE in names:
        names = [torch_weights.SINGLE]
    return sum(listing.files[name].size or 0 for name in names)


def _write_header(hub_id: str, path: Path, header: Any, listed: RemoteFile | None) -> int:
    """Writes a file with the header, a `SafetensorsFileMetadata`, and a hole in the place of the tensors.

    Returns the length of the Hub's file; of this one, where the Hub does not say it.
    """
    tensors = {
        name: {"dtype": one.dtype, "shape": one.shape, "data_offsets": one.data_offsets}
        for name, one in header.tensors.items()
    }
    text = json.dumps({"__metadata__": header.metadata, **tensors}).encode()
    ends = [end for one in header.tensors.values() for end in one.data_offsets]
    size = None if listed is None else listed.size
    if not all(type(end) is int and 0 <= end <= (_LONGEST if size is None else size) for end in ends):
        raise CheckpointError(f"{hub_id}: {path.name}: not safetensors: has tensors beyond its end")
    with atomic_file(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        length = file.truncate(file.tell() + max(ends, default=0))
    return length if size is None else size
