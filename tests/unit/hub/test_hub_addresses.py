"""Addresses that hold a password or a token: no message, log line or traceback shows these."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes.hub_server import Fault, HubState, gated, hub_of_tests, use_endpoint
from test_hub_faults import FAULTS, FILES, WEIGHTS

from hyperdex_ir import errors
from hyperdex_ir.cli import main as command_line
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.hub.download import HubOptions, fetch_config, fetch_model
from hyperdex_ir.support import progress
from hyperdex_ir.support.locations import find_folder

SECRET = "hunter2"
LONGEST = 2 * errors._LONGEST_LINE  # characters of a line, with what stands for others
STARTS = ("http://", f"http://bob:{SECRET}@")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    """A Hub whose address holds a password and a token."""
    from huggingface_hub import constants

    monkeypatch.setenv("HYPERDEX_HUB_ATTEMPTS", "2")
    with hub_of_tests(dict(FILES), tmp_path, monkeypatch) as state:
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        use_endpoint(constants.ENDPOINT.replace(*STARTS), monkeypatch)
        yield state


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """Everything that a download shows, which may fail."""
    folder, options = find_folder("owner/model"), HubOptions()
    said = ""
    try:
        fetch_config(folder, options)
        fetch_model(folder, options)
    except HyperdexError as error:
        said = f"{error}\n{error.hint}\n"
    return said + "".join(capsys.readouterr())


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("file", ["", "config.json", WEIGHTS])
def test_faults_show_no_password(hub: HubState, capsys: pytest.CaptureFixture[str], file: str, name: str):
    hub.faults[file] = FAULTS[name][0]
    said = shown(capsys)
    assert SECRET not in said
    if file == WEIGHTS:
        assert said.startswith("owner/model: model.safetensors: "), said


def test_a_mirror_with_a_password_is_asked_with_it(hub: HubState, capsys: pytest.CaptureFixture[str]):
    hub.faults[WEIGHTS] = replace(FAULTS["dropped"][0], times=1)
    assert shown(capsys).endswith("[ INFO ] : model.safetensors: 300,007 bytes\nNot logged in!\n")


def test_other_refusals_show_no_password(
    hub: HubState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    address = constants.ENDPOINT
    hub.swapped[""] = b"[]"
    assert f"http://***@{address.partition('@')[2]} does not answer as the Hub does" in shown(capsys)
    hub.swapped.clear()
    hub.gate = gated
    assert f"ask for access at http://***@{address.partition('@')[2]}/owner/model" in shown(capsys)
    hub.faults[""] = Fault("status", status=400, headers={"X-Error-Message": f"see {address}/?token={SECRET}, bob"})
    said = shown(capsys)
    assert SECRET not in said
    assert "see http://***@" in said
    for other in ("ftp://bob:hunter2@127.0.0.1", "bob:hunter2@127.0.0.1", "http://bob:hunter2@127.0.0.1:9?t=hunter2"):
        use_endpoint(other, monkeypatch)
        said = shown(capsys)
        assert SECRET not in said
        assert said.startswith("owner/model: no such directory, and not fetched from the Hub: no ")


def test_log_lines_of_the_library_show_none(hub: HubState, capsys: pytest.CaptureFixture[str]):
    """It writes to the stderr of the time when it was imported."""
    fetch_config(find_folder("owner/model"), HubOptions())
    library = logging.getLogger("huggingface_hub")
    assert library.handlers
    record = logging.LogRecord("huggingface_hub", 30, "", 1, "GET %s?a=b", (f"http://bob:{SECRET}@host/x",), None)
    for handler in library.handlers:
        assert handler.filter(record)
    assert record.getMessage() == "GET http://***@host/x?***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/path: gone", "https://host/path: gone"),
        ("to https://bob@host, from 'http://a:b@[::1]:5/x'", "to https://***@host, from 'http://***@[::1]:5/x'"),
        ("http://bob:hun/t@er2@host/x@y", "http://***@y"),
        ("(https://host/x?sig=hunter2&t=1) no? yes", "(https://host/x?*** no? yes"),
        ("mail bob@host? no", "mail bob@host? no"),
    ],
)
def test_what_is_redacted(text: str, expected: str, capsys: pytest.CaptureFixture[str]):
    assert errors.redact(text) == expected
    error = HyperdexError(text, text)
    assert (str(error), error.hint) == (expected, expected)
    progress.log(text)
    assert capsys.readouterr().err == f"[ INFO ] : {expected}\n"


@pytest.mark.parametrize("piece", ["://", "http://bob:", "://@", "://?", "x "])
def test_long_texts_are_redacted_in_one_pass(piece: str):
    """A pass per address takes minutes for a megabyte, one pass milliseconds."""
    text = piece * (1 << 18)
    start = time.process_time()
    assert len(errors.redact(text)) <= len(text)
    assert len(str(HyperdexError(text))) <= LONGEST
    assert len(errors.printable(text)) <= LONGEST
    assert time.process_time() - start < 10


@pytest.mark.parametrize("before", range(errors._LONGEST_LINE - 40, errors._LONGEST_LINE + 2))
def test_a_cut_line_shows_no_part_of_a_password(before: int):
    text = f"{'x ' * (before // 2)}{'y' * (before % 2)}https://bob:{SECRET}/{SECRET}@host/?{SECRET} and more"
    for shown in (str(HyperdexError(text)), errors.printable(text)):
        assert "bob" not in shown
        assert SECRET[:3] not in shown
        assert len(shown) <= LONGEST


@pytest.mark.parametrize("address", ["http://bob:hunter2/x@host", "http://bob:hunter2@[::1", "http://h:99999"])
def test_an_address_that_the_library_cannot_read(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It would say so with a piece of it, when it is imported."""
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(SystemExit):
        command_line.main(["plan", "owner/model"])
    said = capsys.readouterr().err
    assert said.startswith("error[HDX0302]: HF_ENDPOINT is no address of a server\nhint: ")
    assert SECRET not in said


@pytest.mark.parametrize("traceback", ["", "1"])
def test_internal_errors_show_none(traceback: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def fail() -> None:
        raise ValueError(f"http://bob:{SECRET}@host/?x={SECRET} is wrong")

    monkeypatch.setattr(command_line, "check_endpoint", fail)
    monkeypatch.setenv("HYPERDEX_TRACEBACK", traceback)
    with pytest.raises(SystemExit) as caught:
        command_line.main(["models"])
    said = capsys.readouterr().err
    assert caught.value.code == 1
    assert "ValueError: http://***@host/?*** is wrong" in said
    assert SECRET not in said
    assert ("Traceback" in said) == bool(traceback)
