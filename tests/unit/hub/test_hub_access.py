"""Gated models: where the token comes from, three refusals that must not look alike, and the prompt on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes.hub_server import TOKEN, Fault, HubState, gated, hub_of_tests, running_hub

from hyperdex_ir.cli.process import _without_token
from hyperdex_ir.errors import AccessError, ModelNotFoundError, OptionError
from hyperdex_ir.hub.access import Credential
from hyperdex_ir.hub.download import HubOptions, fetch_config
from hyperdex_ir.support.locations import find_folder
from hyperdex_ir.support.progress import short_size

FILES = {"config.json": b'{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}'}
PROMPT = b"Enter your token (input will not be visible): "


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    with hub_of_tests(dict(FILES), tmp_path, monkeypatch) as state:
        state.gate = gated
        yield state


def fetch(token: str | None = None) -> None:
    fetch_config(find_folder("owner/model"), HubOptions(token))


def store(home: Path, token: str) -> None:
    (home / "hf").mkdir()
    (home / "hf/token").write_text(token + "\n")


def found(argument: str | None) -> tuple[str | None, str]:
    credential = Credential(argument)
    return credential.token, credential.source


def test_the_argument_goes_before_the_variable_and_that_before_the_login(
    hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, "hf_stored")
    assert found(None) == ("hf_stored", "the stored login")
    monkeypatch.setenv("HF_TOKEN", "hf_variable")
    assert found("") == ("hf_variable", "HF_TOKEN")
    assert found(" hf_argument\n") == ("hf_argument", "the argument")
    fetch(TOKEN)
    assert {one.token for one in hub.requests} == {TOKEN}


def test_a_stored_login_opens_the_gate(hub: HubState, tmp_path: Path) -> None:
    store(tmp_path, TOKEN)
    fetch()
    assert find_folder("owner/model").source.joinpath("config.json").read_bytes() == FILES["config.json"]


def test_the_token_stays_with_the_hub(hub: HubState) -> None:
    """The storage that it redirects to has links of its own."""
    from hyperdex_ir.hub.download import fetch_model

    hub.files["model.safetensors"] = b"weights"
    fetch(TOKEN)
    fetch_model(find_folder("owner/model"), HubOptions(TOKEN))
    assert [one.token for one in hub.requests if one.path.startswith("/storage/")] == [None]
    others = [one for one in hub.requests if not one.path.startswith("/storage/")]
    assert {one.token for one in others} == {TOKEN}
    assert sum(one.method == "GET" for one in others) == 3


def refuse(status: int, words: str, code: str = "GatedRepo") -> tuple[int, dict[str, str]]:
    return status, {"X-Error-Message": words} | ({"X-Error-Code": code} if code else {})


REFUSALS = {
    "no token": (None, refuse(401, "Please log in."), "gives access on request only, and there is no access token"),
    "no token, 403": (None, refuse(403, ""), "gives access on request only, and there is no access token"),
    "unknown": (
        "hf_a", refuse(401, "Invalid credentials in Authorization header", ""),
        r"the access token of the argument does not give access \(401 Unauthorized: Invalid credentials",
    ),
    "too little": (
        "hf_a", refuse(403, "Please enable access to public gated repositories in your fine-grained token settings"),
        r"the access token of the argument does not give access \(403 Forbidden: Please enable access to public gated",
    ),
    "not gated": ("hf_a", refuse(403, "", ""), r"token of the argument does not give access \(403 Forbidden\)"),
    "licence": (
        "hf_a", refuse(403, "Access to model owner/model is restricted and you are not in the authorized list."),
        r"its licence has not been accepted with the account of the access token of the argument \(403 Forbidden: Acc",
    ),
    "waiting": (
        "hf_a", refuse(403, "Your request to access model owner/model is awaiting a review from the repo authors."),
        r"the request for access has not been granted \(403 Forbidden: Your request",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_told_apart(hub: HubState, name: str) -> None:
    token, answer, words = REFUSALS[name]
    hub.gate = lambda _: answer
    with pytest.raises(AccessError, match=f"^owner/model: .*{words}") as caught:
        fetch(token)
    assert "http" in caught.value.hint
    assert not find_folder("owner/model").root.exists()
    hub.gate = gated
    fetch(TOKEN)


@pytest.mark.parametrize(("token", "hint"), [(None, "a private model needs an access token"), ("hf_a", "gives access")])
def test_a_private_model_and_none_look_alike(hub: HubState, token: str | None, hint: str) -> None:
    hub.faults[""] = Fault("status", status=401, headers={"X-Error-Code": "RepoNotFound"})
    with pytest.raises(ModelNotFoundError, match="no such model on the Hub") as caught:
        fetch(token)
    assert hint in caught.value.hint


@pytest.mark.parametrize("token", ["hf_a b", "hf_\n_b", "hf_é", "hf_\x00"])
def test_a_token_that_is_none_is_not_repeated(hub: HubState, token: str) -> None:
    with pytest.raises(OptionError, match="the access token holds blanks") as caught:
        fetch(token)
    assert token not in f"{caught.value}{caught.value.hint}"
    assert hub.requests == []


def test_a_login_that_cannot_be_read(hub: HubState, tmp_path: Path) -> None:
    (tmp_path / "hf/token").mkdir(parents=True)
    with pytest.raises(OptionError, match="the stored login cannot be read"):
        fetch()


@pytest.mark.parametrize(
    ("arguments", "kept", "values"),
    [
        ("compile m --token hf_a --force", "compile m --force", ["hf_a"]),
        ("plan --token=hf_a m", "plan m", ["hf_a"]),
        ("compile m --token - --token= --token", "compile m --token - --token= --token -", []),
        ("run m --token hf_a", "", []),
    ],
)
def test_the_command_without_its_token(arguments: str, kept: str, values: list[str]) -> None:
    assert _without_token(arguments.split()) == (kept.split(), values)


# ------------------------------------------------------------------------------------------------------- a terminal
def converse(home: Path, endpoint: str, answer: bytes, *options: str) -> tuple[bytes, int]:
    """`hyperdex compile` on a terminal of its own, with `answer` typed at the prompt: the screen, and the exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HYPERDEX_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf")}
    command = [sys.executable, "-m", "hyperdex_ir.cli.main", "compile", "owner/model", *options]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command, environment)
    screen, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                block = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            screen += block
            if answer and PROMPT in screen:
                time.sleep(0.2)  # getpass drops what was typed before it
                os.write(terminal, answer)
                answer = b""
    finally:
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
    return screen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--token", "-"]])
def test_the_prompt_does_not_show_the_token(tmp_path: Path, options: list[str]) -> None:
    with running_hub(FILES) as (state, endpoint):
        state.gate = gated
        screen, code = converse(tmp_path, endpoint, TOKEN.encode() + b"\n", *options)
        assert screen.count(PROMPT) == 1
        assert TOKEN.encode() not in screen
        assert b"error[HDX0103]: " in screen  # config.json has come; what it asks for is another matter
        assert "config.json: 100%|█".encode() in screen
        assert "█| 69/69\r\n".encode() in screen
        assert code == 1
        assert state.requests[-1].token == TOKEN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"hf_wrong\n", b"error[HDX0106]: owner/model: its licence has not been accepted"),
        (b"\x04", b"error[HDX0106]: owner/model: the Hub gives access on request only, and there is no access token"),
        (b"\x03", b"hyperdex: interrupted"),
    ],
)
def test_other_answers_to_the_prompt(tmp_path: Path, answer: bytes, words: bytes) -> None:
    with running_hub(FILES) as (state, endpoint):
        state.gate = gated
        screen, code = converse(tmp_path, endpoint, answer)
        assert screen.count(PROMPT) == 1
        assert words in screen
        assert b"Traceback" not in screen
        assert code == (130 if answer == b"\x03" else 1)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (653, "653"), (999, "999"), (1000, "1.00k"), (898_823, "899k"), (999_499, "999k"), (999_500, "1.00M"),
     (2_631_639_353, "2.63G"), (12_345_678, "12.3M"), (10**15, "1000T")],
)  # fmt: skip
def test_sizes_are_short(count: int, text: str) -> None:
    assert short_size(count) == text
