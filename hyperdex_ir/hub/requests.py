"""Requests to the Hub, by way of `huggingface_hub`: the list of files, a file's facts, bytes and header.

The library makes the requests, follows redirects and reads the Hub's refusals. Here they become one-line errors, and
transient failures are tried again. Why not its `hf_hub_download`: docs/decisions/0014-resuming-downloads.md.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hyperdex_ir import __version__
from hyperdex_ir.errors import AccessError, CheckpointError, DownloadError, OptionError
from hyperdex_ir.hub.access import Credential, Redaction, answer, check_endpoint, refusal
from hyperdex_ir.support.locations import is_safe
from hyperdex_ir.support.progress import log

ATTEMPTS_VARIABLE = "HYPERDEX_HUB_ATTEMPTS"
#: Attempts without a further byte before a run gives up; for the list of files, which comes first, fewer.
ATTEMPTS, ATTEMPTS_TO_LIST = 5, 2
#: Seconds before the second attempt; each further wait is twice as long, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 1.0, 8.0
#: The longest wait that a server may ask for.
PATIENCE = 120.0
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AGAIN = "run again: what is there already is kept"
_ENDPOINT = "look at HF_ENDPOINT, and at what answers there"
_FIRST = "no such directory, and not fetched from the Hub"  # when the list of files cannot be had
_NETWORK = "check the name and the network, or give a directory that holds the checkpoint"
_REDACTION = Redaction()
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # the library's errors on bad answers

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """The Hub's facts of a file. size: bytes. digest: SHA-256 (64 digits) of a large file, git's hash of another.

    None: the Hub does not give it.
    """

    size: int | None
    digest: str | None

    @staticmethod
    def of(size: Any, digest: Any) -> RemoteFile:
        """The facts in a server's words. A value that is no size, or no hash, counts as not given."""
        known = isinstance(digest, str) and _HASH.fullmatch(digest)
        return RemoteFile(size if type(size) is int and size >= 0 else None, digest if known else None)


@dataclass(frozen=True)
class Listing:
    """The files of a model at one commit, by name."""

    commit: str
    files: Mapping[str, RemoteFile]

    def to_json(self) -> dict[str, Any]:
        """The listing as JSON values."""
        files = {name: {"bytes": file.size, "digest": file.digest} for name, file in self.files.items()}
        return {"commit": self.commit, "files": files}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Listing | None:
        """The listing in a result of `to_json`; None for any other value."""
        commit, files = value.get("commit"), value.get("files")
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(files, dict):
            return None
        if not all(is_safe(name) and isinstance(entry, dict) for name, entry in files.items()):
            return None
        return Listing(commit, {name: RemoteFile.of(e.get("bytes"), e.get("digest")) for name, e in files.items()})


class Transient(Exception):
    """A failure that may not come again. wait: the seconds that the server asks for; None: it names none."""

    def __init__(self, reason: str, hint: str = _AGAIN, wait: float | None = None):
        super().__init__(reason)
        self.reason, self.hint, self.wait = reason, hint, wait


class HubModel:
    """One model on the Hub.

    All functions raise ModelNotFoundError, AccessError when the Hub gives no access, DownloadError for all else that
    goes wrong on the way. `facts` and `content` raise Transient: they are for an action that `persist` repeats.
    """

    def __init__(self, hub_id: str, credential: Credential):
        check_endpoint()
        from huggingface_hub import constants

        for handler in logging.getLogger("huggingface_hub").handlers:
            handler.addFilter(_REDACTION)

        self.hub_id = hub_id
        self.credential = credential
        self.endpoint: str = constants.ENDPOINT
        self.silence = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        self.attempts = _attempts()

    def listing(self, revision: str | None) -> Listing:
        """The commit that a branch, tag or commit stands for (None: the main branch), and its files."""

        def ask() -> Any:
            with self._errors("", revision):
                return self._api().model_info(self.hub_id, revision=revision, timeout=self.silence, files_metadata=True)

        try:
            model = self.persist(f"{self.hub_id}: {_FIRST}", ask, min(self.attempts, ATTEMPTS_TO_LIST))
            files = {one.rfilename: _listed(one) for one in model.siblings}
        except _MALFORMED:
            raise DownloadError(f"{self.hub_id}: {self.endpoint} does not answer as the Hub does", _ENDPOINT) from None
        if not isinstance(model.sha, str) or not _COMMIT.fullmatch(model.sha):
            raise DownloadError(f"{self.hub_id}: the Hub names no commit, but {json.dumps(model.sha)[:80]}", _ENDPOINT)
        for name in files:
            if not is_safe(name):
                raise DownloadError(
                    f"{self.hub_id}: lists the file {json.dumps(name)[:200]}, outside its folder or unprintable"
                )
        return Listing(model.sha, files)

    def header(self, commit: str, name: str) -> Any:
        """The header of a file of weights, a `SafetensorsFileMetadata`. Raises CheckpointError when there is none."""
        from huggingface_hub.errors import SafetensorsParsingError

        def ask() -> Any:
            with self._errors(name):
                return self._api().parse_safetensors_file_metadata(
                    self.hub_id, name, revision=commit, timeout=self.silence
                )

        try:
            return self.persist(f"{self.hub_id}: {name}", ask)
        except (SafetensorsParsingError, *_MALFORMED) as error:
            reason = self.credential.scrub(str(error).rpartition("): ")[2])
            raise CheckpointError(f"{self.hub_id}: {name}: not safetensors: {reason}") from None

    def facts(self, commit: str, name: str) -> tuple[str | None, RemoteFile]:
        """The commit that the Hub says a file is of, and the file's length and SHA-256.

        Only a SHA-256 counts: mirrors have tags of other kinds that look like git's hashes.
        """
        from huggingface_hub import get_hf_file_metadata

        try:
            with self._errors(name):
                found = get_hf_file_metadata(self._url(commit, name), headers=self._headers(), timeout=self.silence)
        except ValueError:  # the library splits addresses
            raise DownloadError(f"{self.hub_id}: {name}: the Hub sends to what is no address", _ENDPOINT) from None
        tag = found.etag if found.etag and len(found.etag) == 64 else None
        return found.commit_hash, RemoteFile.of(found.size, tag)

    @contextmanager
    def content(self, commit: str, name: str, start: int) -> Iterator[tuple[bool, Iterator[bytes]]]:
        """A file's bytes, as they come, and whether they are those from `start` on: a server may send all."""
        from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff

        asked = self._headers() | ({"Range": f"bytes={start}-"} if start else {})
        never: dict[str, Any] = {"retry_on_exceptions": (), "retry_on_status_codes": ()}
        with (
            self._errors(name),
            http_stream_backoff(
                "GET", self._url(commit, name), headers=asked, timeout=self.silence, **never
            ) as response,
        ):
            hf_raise_for_status(response)
            yield response.status_code == HTTPStatus.PARTIAL_CONTENT, response.iter_bytes()

    def persist(
        self, what: str, action: Callable[[], T], attempts: int = 0, progress: Callable[[], int] = lambda: 0
    ) -> T:
        """The result of an action that is tried until it succeeds, or fails `attempts` times without progress.

        attempts 0: the number that the object has. progress: a number that grows when an attempt made progress.
        """
        failures, wait, reached = 0, FIRST_WAIT, progress()
        while True:
            try:
                return action()
            except AccessError:
                if not self.credential.ask():
                    raise
                continue
            except Transient as error:
                if progress() > reached:
                    failures, wait, reached = 0, FIRST_WAIT, progress()
                failures += 1
                seconds = wait if error.wait is None else error.wait
                if failures >= (attempts or self.attempts) or seconds > PATIENCE:
                    tried = f" ({failures} attempts)" if failures > 1 else ""
                    raise DownloadError(f"{what}: {error.reason}{tried}", error.hint) from None
            if seconds > LONGEST_WAIT:
                log(f"{what}: wait for {seconds:.0f} s, as the Hub asks")
            time.sleep(seconds)
            wait = min(2 * wait, LONGEST_WAIT)

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        token = self.credential.token or False  # False: the library does not look for one either
        return HfApi(self.endpoint, token, "hyperdex-ir", __version__)

    def _headers(self) -> dict[str, str]:
        """The headers of a request for a file; a redirect to another host leaves the token out."""
        from huggingface_hub.utils import build_hf_headers

        token = self.credential.token or False
        headers = build_hf_headers(token=token, library_name="hyperdex-ir", library_version=__version__)
        return headers | {"Accept-Encoding": "identity"}

    def _url(self, commit: str, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.hub_id, name, revision=commit, endpoint=self.endpoint)

    @contextmanager
    def _errors(self, name: str, revision: str | None = None) -> Iterator[None]:
        """Turns the library's errors into Transient or an error of this package.

        name: the file that is asked for, empty for the list of files.
        """
        from huggingface_hub import errors

        # huggingface_hub has changed its HTTP client before; the names of the errors stayed
        http: Any = sys.modules[errors.HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
        place, scrub = f"{self.hub_id}: {name or _FIRST}", self.credential.scrub
        try:
            yield
        except errors.HfHubHTTPError as error:
            raise self._refused(error.response, name, revision) from None
        except http.TimeoutException:
            hint = f"{_AGAIN}; HF_HUB_DOWNLOAD_TIMEOUT sets the longest silence, in seconds"
            raise Transient(f"nothing came for {self.silence:g} s", hint) from None
        except http.TooManyRedirects:
            raise DownloadError(f"{place}: the Hub sends from one address to the next without end", _ENDPOINT) from None
        except http.ConnectError as error:
            raise Transient(f"no connection to {_origin(error.request.url)}: {scrub(str(error))}", _NETWORK) from None
        except (http.UnsupportedProtocol, http.LocalProtocolError, http.InvalidURL) as error:
            reason = "" if "@" in self.endpoint else f": {scrub(str(error))}"  # it may quote a part of a password
            raise DownloadError(f"{place}: no such address{reason}", _ENDPOINT) from None
        except http.HTTPError as error:
            raise Transient(f"the connection was lost: {scrub(str(error)) or type(error).__name__}") from None
        except errors.OfflineModeIsEnabled:
            raise DownloadError(f"{place}: HF_HUB_OFFLINE forbids the network", "unset it and run again") from None

    def _refused(self, response: Any, name: str, revision: str | None) -> Exception:
        """The error for an answer without the contents that were asked for."""
        status, is_hub = response.status_code, _origin(response.url) == _origin(self.endpoint)
        who = "the Hub" if is_hub else _origin(response.url)
        if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
            wait = _asked_wait(response.headers)
            asks = "" if wait is None else f" and asks to wait for {wait:.0f} s"
            return Transient(f"{who} answered {answer(status)}{asks}", f"{_AGAIN}; the fault is the server's", wait)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not is_hub:
            return Transient(f"{who} answered {answer(status)}")  # links to a storage expire
        page = f"{self.endpoint}/{self.hub_id}"
        return refusal(self.hub_id, name, revision, status, response.headers, self.credential, page)


def _listed(one: Any) -> RemoteFile:
    """An entry of the list of files. Large files are stored apart, and git has a pointer to them."""
    return RemoteFile.of(one.lfs.size, one.lfs.sha256) if one.lfs else RemoteFile.of(one.size, one.blob_id)


def _origin(url: Any) -> str:
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds in Retry-After, a number or a date, or in the Hub's own header of rate limits."""
    from huggingface_hub.utils import parse_ratelimit_headers

    text, limit = headers.get("Retry-After", "").strip(), parse_ratelimit_headers(headers)
    if text.isdecimal():
        return float(text)
    if not text:
        return float(limit.reset_in_seconds) if limit else None
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _attempts() -> int:
    text = os.environ.get(ATTEMPTS_VARIABLE) or str(ATTEMPTS)
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"{ATTEMPTS_VARIABLE} is {text!r}: must be a whole number from 1 on")
    return int(text)
