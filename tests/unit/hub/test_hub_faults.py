"""What goes wrong between the Hub and the disk: one clear line each, no wrong or half file, and a rerun ends well."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from huggingface_hub import constants
from support import SOAK
from support.processes import forked
from support.processes.hub_server import COMMIT, Fault, HubState, hub_of_tests, use_endpoint

from hyperdex_ir.errors import AccessError, ConfigError, DownloadError, HyperdexError, OptionError, StorageError
from hyperdex_ir.hub import requests as hub_requests
from hyperdex_ir.hub.download import HubOptions, fetch_config, fetch_model
from hyperdex_ir.support.locations import MARKER, find_folder

WEIGHTS, SMALL = "model.safetensors", "tokenizer.json"
FILES = {
    "config.json": b'{"architectures": ["OPTForCausalLM"]}',
    SMALL: random.Random(1).randbytes(3001),
    WEIGHTS: random.Random(2).randbytes(300_007),
}
SEEDS = range(1000 if SOAK else 6)
SILENCE = "huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    monkeypatch.setenv("HYPERDEX_HUB_ATTEMPTS", "2")
    with hub_of_tests(dict(FILES), tmp_path, monkeypatch) as state:
        yield state


def fetch() -> None:
    folder, options = find_folder("owner/model"), HubOptions()
    fetch_config(folder, options)
    fetch_model(folder, options)


def visible() -> dict[str, bytes]:
    """The files of the folder that have their names, but for the marker."""
    ckpt = find_folder("owner/model").source
    files = sorted(ckpt.iterdir()) if ckpt.is_dir() else []
    return {path.name: path.read_bytes() for path in files if not path.name.startswith(".") and path.name != MARKER}


def part() -> Path:
    """Where the weights grow."""
    (found,) = find_folder("owner/model").source.glob(f".{WEIGHTS}.*.part")
    return found


def check_failure(words: str, error: type[HyperdexError] = DownloadError) -> HyperdexError:
    """A download fails with one line that says so and what to do; what is there then is right."""
    with pytest.raises(error, match=words) as caught:
        fetch()
    assert str(caught.value).startswith("owner/model: ")
    assert len(str(caught.value)) < 400
    assert caught.value.hint
    assert all(body == FILES[name] for name, body in visible().items())
    return caught.value


def check_rerun(hub: HubState) -> None:
    """When nothing is wrong any more, the same command ends well and leaves nothing else."""
    hub.faults.clear()
    hub.swapped.clear()
    fetch()
    assert visible() == FILES
    assert not list(find_folder("owner/model").source.glob(".*"))


FAULTS = {
    "dropped": (Fault("drop", at=123_456), r"the connection was lost: .+, at byte [\d,]+ of 300,007 \(2 attempts\)"),
    "stalled": (Fault("stall", at=1000), r"nothing came for 0\.3 s, at byte 1,000 of 300,007 \(2 attempts\)"),
    "short": (Fault("short", at=290_000), "answered 416 Requested Range Not Satisfiable, at byte 290,000 of 300,007"),
    "long": (Fault("long"), "the Hub sends more than the 300,007 bytes that it lists"),
    "damaged": (Fault("damage", at=200_000), "hash of the 300,007 bytes received is [0-9a-f]{12}, the Hub lists "),
    "unauthorized": (
        Fault("status", status=401),
        "//localhost:.+ answered 401 Unauthorized, at byte 0 of 300,007",
    ),
    "forbidden": (Fault("status", status=403), "//localhost:.+ answered 403 Forbidden, at byte 0 of 300,007"),
    "gone": (Fault("status", status=404), "//localhost:.+ answered 404 Not Found, at byte 0 of 300,007"),
    "server error": (
        Fault("status", status=500),
        "//localhost:.+ answered 500 Internal Server Error, at byte 0 of",
    ),
    "redirected": (Fault("loop"), "the Hub sends from one address to the next without end"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays(hub: HubState, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fault, words = FAULTS[name]
    monkeypatch.setattr(SILENCE, 0.3 if name == "stalled" else 5)
    hub.faults[WEIGHTS] = fault
    check_failure(rf"^owner/model: model\.safetensors: .*{words}")
    check_rerun(hub)


@pytest.mark.parametrize("name", ["dropped", "short", "unauthorized", "server error"])
def test_a_fault_that_passes_is_not_seen(hub: HubState, name: str) -> None:
    """The transfer goes on where it broke off."""
    hub.faults[WEIGHTS] = replace(FAULTS[name][0], times=1)
    fetch()
    assert visible() == FILES
    ranges = [one.range for one in hub.requests if one.path.startswith("/storage/")]
    assert len(ranges) == 2
    assert sum(one is not None for one in ranges) == (name == "short") or name == "dropped"


@pytest.mark.slow
def test_a_later_run_fetches_what_is_missing_only(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SILENCE, 0.3)
    hub.faults[WEIGHTS] = Fault("stall", at=200_000)
    check_failure("at byte 200,000 of 300,007")
    assert part().read_bytes() == FILES[WEIGHTS][:200_000]
    hub.requests.clear()
    check_rerun(hub)
    assert [one.range for one in hub.requests if one.name == WEIGHTS and one.method == "GET"] == ["bytes=200000-"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("left", [200_000, 300_007, 400_000])
def test_a_part_with_other_bytes_is_dropped(hub: HubState, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """A disk may lose what was not synced: the hash tells, and the file comes once more from its first byte."""
    monkeypatch.setattr(SILENCE, 0.3)
    hub.faults[WEIGHTS] = Fault("stall", at=200_000)
    check_failure("at byte 200,000 of 300,007")
    part().write_bytes(bytes(left))
    check_rerun(hub)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, AccessError, "the Hub gives access on request only, and there is no access token"),
        (403, AccessError, "the Hub gives access on request only, and there is no access token"),
        (404, DownloadError, r"the Hub has no file tokenizer\.json"),
        (400, DownloadError, r"tokenizer\.json: the Hub answered 400 Bad Request"),
        (
            500,
            DownloadError,
            r"tokenizer\.json: the Hub answered 500 Internal Server Error, at byte 0 of 3,001 ",
        ),
        (503, DownloadError, r"tokenizer\.json: the Hub answered 503 Service Unavailable, at byte 0 of 3,001 "),
    ],
)
def test_an_answer_of_the_hub_itself(hub: HubState, status: int, error: type[HyperdexError], words: str) -> None:
    hub.faults[SMALL] = Fault("status", status=status)
    check_failure(words, error)
    check_rerun(hub)


def test_the_config_is_missing_after_all(hub: HubState) -> None:
    hub.faults["config.json"] = Fault("status", status=404)
    check_failure(r"has no config\.json", ConfigError)
    assert not find_folder("owner/model").root.exists()
    check_rerun(hub)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"siblings": [{}], "sha": 1}', b'{"siblings": [], "sha": "x"}']
)
def test_a_list_of_files_that_is_none(hub: HubState, body: bytes) -> None:
    hub.swapped[""] = body
    check_failure("does not answer as the Hub does|names no commit")
    check_rerun(hub)


@pytest.mark.parametrize("fault", [Fault("drop"), Fault("stall"), Fault("status", status=502), Fault("loop")])
def test_the_list_of_files_does_not_come(hub: HubState, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setattr(SILENCE, 0.3)
    hub.faults[""] = fault
    check_failure("no such directory, and not fetched from the Hub: ")
    assert not find_folder("owner/model").root.exists()
    hub.faults[""] = replace(fault, times=0)
    check_rerun(hub)


def test_a_connection_that_is_refused(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    fetch_config(find_folder("owner/model"), HubOptions())
    use_endpoint("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DownloadError, match=r"tokenizer\.json: no connection to http://127\.0\.0\.1:9: .*refused"):
        fetch_model(find_folder("owner/model"), HubOptions())
    use_endpoint(endpoint, monkeypatch)
    check_rerun(hub)


@pytest.mark.parametrize("address", ["ftp://127.0.0.1", "http://[", "nothing", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_no_address(hub: HubState, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    use_endpoint(address, monkeypatch)
    with pytest.raises(DownloadError, match="no such directory, and not fetched from the Hub: "):
        fetch()


@pytest.mark.parametrize("after", ["2", "date", None])
def test_too_many_requests(hub: HubState, monkeypatch: pytest.MonkeyPatch, after: str | None) -> None:
    """The Hub says how long to wait: in seconds, as a date, or in a header of its own."""
    waits: list[float] = []
    monkeypatch.setattr(hub_requests.time, "sleep", waits.append)
    date = formatdate(time.time() + 60, usegmt=True)
    headers = (
        {"RateLimit": '"resolvers";r=0;t=7'} if after is None else {"Retry-After": date if after == "date" else after}
    )
    hub.faults[SMALL] = Fault("status", status=429, headers=headers, times=1)
    fetch()
    assert visible() == FILES
    assert len(waits) == 1
    assert round(waits[0]) in {"2": [2], "date": range(40, 62), None: [7]}[after]


def test_a_wait_that_is_too_long(hub: HubState) -> None:
    hub.faults[WEIGHTS] = Fault("status", status=429, headers={"Retry-After": "3600"})
    check_failure(r"answered 429 Too Many Requests and asks to wait for 3600 s, at byte 0 of 300,007$")
    check_rerun(hub)


@pytest.mark.parametrize("name", [SMALL, WEIGHTS])
@pytest.mark.parametrize("change", ["longer", "other"])
def test_a_file_that_is_replaced_after_it_was_listed(hub: HubState, name: str, change: str) -> None:
    """Even at one commit: a server that does not hold to its own list."""
    hub.swapped[name] = FILES[name] + b"more" if change == "longer" else bytes(len(FILES[name]))
    check_failure(f"{name}: (what the Hub sends has|the hash of the|the Hub sends more)")
    assert name not in visible()
    check_rerun(hub)


def test_a_server_that_answers_with_another_commit(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_config(find_folder("owner/model"), HubOptions())
    hub.claimed = "f" * 40
    with pytest.raises(
        DownloadError, match=f"{SMALL}: what the Hub sends is of commit f{{12}}, asked for was {COMMIT[:12]}"
    ):
        fetch_model(find_folder("owner/model"), HubOptions())
    hub.claimed = None
    check_rerun(hub)


def test_a_disk_that_refuses(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hyperdex_ir.hub.transfer.os.fsync", full)
        with pytest.raises(StorageError, match="no space left on the device"):
            fetch()
    check_rerun(hub)


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_attempts_are_a_number(hub: HubState, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HYPERDEX_HUB_ATTEMPTS", text)
    with pytest.raises(OptionError, match=f"HYPERDEX_HUB_ATTEMPTS is '{text}'"):
        fetch()


SCRIPT = """
from hyperdex_ir.hub.download import HubOptions, fetch_config, fetch_model
from hyperdex_ir.support.locations import find_folder
for fetch in (fetch_config, fetch_model):
    fetch(find_folder("owner/model"), HubOptions())
"""


@pytest.mark.parametrize("seed", range(100 if SOAK else 2))
def test_a_process_that_is_killed(hub: HubState, seed: int) -> None:
    """While it waits for the next byte of some file."""
    draw = random.Random(seed)
    name = draw.choice([SMALL, WEIGHTS])
    hub.faults[name] = Fault("stall", at=draw.randrange(len(FILES[name])))
    environment = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": os.environ["HYPERDEX_HOME"]}
    process = forked.popen(["-c", SCRIPT], env=environment)
    try:
        deadline = time.monotonic() + 60
        while hub.faults[name].times == -1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.random() / 10)
    finally:
        process.kill()
        process.wait()
    assert hub.faults[name].times < -1
    assert all(body == FILES[name] for name, body in visible().items())
    check_rerun(hub)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_faults_in_any_order(hub: HubState, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Faults that pass after some time, at random files and bytes: reruns end with the bytes of the Hub."""
    draw = random.Random(seed)
    monkeypatch.setattr(SILENCE, 0.2)
    for name in draw.sample(["", "config.json", SMALL, WEIGHTS], draw.randint(1, 4)):
        kinds = ["drop", "stall", "short", "long", "status", "loop"] + ["damage"] * (name != "")  # a list has no hash
        kind = draw.choice(kinds)
        status = draw.choice([400, 401, 403, 404, 408, 429, 500, 502, 503])
        size = len(FILES.get(name, b"x" * 300))
        hub.faults[name] = Fault(kind, at=draw.randrange(size), times=draw.randint(1, 6), status=status)
    for _ in range(30):
        failed = failure()
        if failed is None:
            break
        assert failed.startswith("owner/model: ")
        assert "\n" not in failed
        assert all(body == FILES[name] for name, body in visible().items())
    assert visible() == FILES
    check_rerun(hub)


def failure() -> str | None:
    """The error of a download, None when it ends well."""
    try:
        fetch()
    except HyperdexError as error:
        return str(error)
    return None
