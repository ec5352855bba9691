"""The access token for the Hub, and the errors for the Hub's refusals.

The access token is the `token` argument, else `HF_TOKEN`, else that of a stored login; when the Hub wants one and there
is none, the user is asked on the terminal. It is sent to the Hub's own address only, and no text that this package
writes holds it.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from hyperdex_ir.errors import (
    AccessError,
    ConfigError,
    DownloadError,
    HyperdexError,
    ModelNotFoundError,
    OptionError,
    redact,
)

_GATED = "GatedRepo"
_LONGEST = 200  # characters of a server's own words, at most


class Credential:
    """The access token, looked for when it is first needed. source: where it was found, in words."""

    def __init__(self, given: str | None):
        self.source = "the argument"
        self._given = given
        self._found: str | None = None
        self._looked = False
        self._asked = False

    @property
    def token(self) -> str | None:
        """The token, or None. Raises OptionError when it cannot be one, or the stored login cannot be read."""
        if not self._looked:
            self._found = usable_token(self._given or "")
            if self._found is None:
                self._found, self.source = usable_token(_stored() or ""), _source()
            self._looked = True
        return self._found

    def ask(self) -> bool:
        """Asks for the token on the terminal, once; returns whether there is one now that was not there before."""
        if self._asked or self.token is not None:
            return False
        self._asked = True
        self._found, self.source = prompt_token(), "the prompt"
        return self._found is not None

    def scrub(self, text: str) -> str:
        """A text of a server or of the HTTP client: one line of bounded length, without the token, redacted."""
        if self._found:
            text = text.replace(self._found, "***")
        line = (text.strip().splitlines() or [""])[0]
        return redact(line)[:_LONGEST]


def check_endpoint() -> None:
    """Raises OptionError when HF_ENDPOINT keeps huggingface_hub from being imported. The value may hold a password."""
    try:
        _ = urlsplit(os.environ.get("HF_ENDPOINT", "")).port
    except ValueError:
        raise OptionError(
            "HF_ENDPOINT is no address of a server", "expected https://HOST, an IPv6 address in [], a port up to 65535"
        ) from None


class Redaction(logging.Filter):
    """The filter for a handler of another library's log lines, which quote addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def usable_token(text: str) -> str | None:
    """The token in a text, None when it is blank. Raises OptionError for a text that no HTTP header can carry."""
    token = text.strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise OptionError("the access token holds blanks or other characters that none has", "copy it again")
    return token or None


def prompt_token() -> str | None:
    """Asks for a token on the terminal, without showing what is typed; None when there is no terminal or no answer."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return None
    page = "https://huggingface.co/settings/tokens"
    print(f"\n    To log in, `huggingface_hub` requires a token generated from {page} .", file=sys.stderr, flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
        try:
            return usable_token(getpass.getpass("Enter your token (input will not be visible): "))
        except (EOFError, getpass.GetPassWarning):
            return None


def _stored() -> str | None:
    from huggingface_hub import get_token

    try:
        return get_token()
    except (OSError, ValueError) as error:
        raise OptionError(f"the stored login cannot be read: {error}", "hf auth login") from None


def _source() -> str:
    return next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), "the stored login")


def refusal(
    hub_id: str,
    name: str,
    revision: str | None,
    status: int,
    headers: Mapping[str, str],
    credential: Credential,
    page: str,
) -> HyperdexError:
    """The error for an answer 4xx of the Hub.

    name: the file asked for, empty for the list of files. revision: the one asked for. page: the model's page.
    """
    code, words = headers.get("X-Error-Code", ""), credential.scrub(headers.get("X-Error-Message", ""))
    if code == "RepoNotFound":
        return _no_model(hub_id, credential)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _no_access(hub_id, status, code, words, credential, page)
    if code == "RevisionNotFound":
        if not name:
            return DownloadError(f"{hub_id}: the Hub has no revision {revision}", "take a branch, tag or commit of it")
        return DownloadError(f"{hub_id}: {name}: the commit is gone from the Hub", "--force takes the one of now")
    if status == HTTPStatus.NOT_FOUND and name == "config.json":
        return ConfigError(f"{hub_id}: has no config.json", "it is no transformers checkpoint")
    if status == HTTPStatus.NOT_FOUND and name:
        return DownloadError(f"{hub_id}: the Hub has no file {name}", "run again: the model may just have been changed")
    if status == HTTPStatus.NOT_FOUND:
        return _no_model(hub_id, credential)
    return DownloadError(
        f"{hub_id}: {name or 'the list of files'}: the Hub answered {answer(status, words)}", "run again later"
    )


def answer(status: int, words: str = "") -> str:
    """`500 Internal Server Error: words`."""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    return f"{phrase}: {words}" if words else phrase


def _no_model(hub_id: str, credential: Credential) -> ModelNotFoundError:
    if credential.token is None:
        hint = "check the name; a private model needs an access token: HF_TOKEN, hf auth login, or --token -"
    else:
        hint = "check the name, and that the access token gives access to it"
    return ModelNotFoundError(f"{hub_id}: no such directory, and no such model on the Hub", hint)


def _no_access(hub_id: str, status: int, code: str, words: str, credential: Credential, page: str) -> HyperdexError:
    """The error for three cases that a user cannot tell apart: no token, one without access, no accepted licence."""
    if credential.token is None:
        return AccessError(
            f"{hub_id}: the Hub gives access on request only, and there is no access token",
            f"ask for access at {page}, then set HF_TOKEN, use hf auth login, or pass --token -",
        )
    source, said = credential.source, f" ({answer(status, words)})"
    under_review = re.search(r"review|pending|reject", words, re.IGNORECASE)
    if status == HTTPStatus.FORBIDDEN and code == _GATED and under_review:
        return AccessError(f"{hub_id}: the request for access has not been granted{said}", f"its state is at {page}")
    if status == HTTPStatus.FORBIDDEN and code == _GATED and not re.search(r"\btoken\b", words, re.IGNORECASE):
        return AccessError(
            f"{hub_id}: its licence has not been accepted with the account of the access token of {source}{said}",
            f"accept it at {page} and run again",
        )
    return AccessError(
        f"{hub_id}: the access token of {source} does not give access{said}",
        "make one that may read gated models at https://huggingface.co/settings/tokens",
    )
