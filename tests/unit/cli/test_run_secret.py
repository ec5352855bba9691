"""The secret of a distributed run: given, or left in a file for the other processes of this user on this host."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hyperdex_ir.errors import OptionError, PeerError
from hyperdex_ir.runtime import secret
from hyperdex_ir.runtime.addresses import address_towards, is_loopback, listen_at
from hyperdex_ir.runtime.secret import FILE_VARIABLE, VARIABLE, run_secret, seal

SECRET = "0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where secrets are left."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"hyperdex-{os.geteuid()}"


def check_refused(words: str, one_host: bool = True) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        run_secret("run", one_host)
    assert "HYPERDEX_RUN_SECRET" in f"{caught.value} {caught.value.hint}"


def write_secret(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_seals_differ_by_everything_that_is_sealed():
    parts = [("a", b"bc", b"d"), ("a", b"b", b"cd"), ("a", b"bcd"), ("b", b"bc", b"d"), ("a", b"bc", b"d", b"")]
    assert len({seal(b"key", *one) for one in parts} | {seal(b"yek", "a", b"bc", b"d")}) == len(parts) + 1


def test_processes_of_a_host_find_the_same_secret(folder: Path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: run_secret("run", one_host=True), range(40)))
    assert len({one.key for one in found}) == 1
    assert len(found[0].key) == 64
    assert run_secret("another run", one_host=True).key != found[0].key
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    found[0].forget()
    found[0].forget()
    assert run_secret("run", one_host=True).key != found[0].key


def test_a_secret_that_is_given(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, link = tmp_path / "secret", tmp_path / "link"
    write_secret(file, f"{SECRET}\n")
    link.symlink_to(file)
    for name, value in ((VARIABLE, SECRET), (FILE_VARIABLE, str(file)), (FILE_VARIABLE, str(link))):
        monkeypatch.setenv(name, value)
        secret = run_secret("run", one_host=False)
        assert secret.key == SECRET.encode()
        secret.forget()
        monkeypatch.delenv(name)
    assert file.exists()
    assert not folder.exists()


def test_several_hosts_must_be_given_one():
    check_refused("several hosts need a secret", one_host=False)


def test_two_that_are_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    monkeypatch.setenv(FILE_VARIABLE, "file")
    check_refused("are both set")


@pytest.mark.parametrize("text", ["short", f"   {SECRET[1:]}   ", "x" * 5000])
def test_what_is_no_secret(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, text)
    check_refused(r"a secret of \d+ bytes, expected 16 to 4096")
    monkeypatch.delenv(VARIABLE)
    write_secret(tmp_path / "secret", text)
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "secret"))
    check_refused(r"a secret of \d+ bytes, expected 16 to 4096")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use(mode: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_secret(tmp_path / "secret", SECRET, mode)
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "secret"))
    check_refused(f"mode {mode:04o}: others could know the secret")
    monkeypatch.delenv(FILE_VARIABLE)
    run_secret("run", one_host=True)
    (made,) = folder.iterdir()
    made.chmod(mode)
    check_refused(f"mode {mode:04o}: others could know the secret")
    made.chmod(0o600)
    folder.chmod(0o755)
    check_refused("mode 0755: others could know the secret")


def test_a_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch):
    run_secret("run", one_host=True)
    owner = os.geteuid()
    folder.rename(folder.with_name(f"hyperdex-{owner + 1}"))
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    check_refused(f"of user {owner}, mode 0700")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
def test_what_is_no_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = Path("/dev/zero") if kind == "device" else tmp_path / "secret"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    check_refused("cannot be read: No such file" if kind == "missing" else "not a file")


@pytest.mark.parametrize("which", ["folder", "file"])
def test_links_where_secrets_are_left(which: str, folder: Path, tmp_path: Path):
    """Somebody else may make them first: there all may write."""
    theirs = tmp_path / "theirs"
    if which == "folder":
        theirs.mkdir(0o700)
        folder.symlink_to(theirs)
    else:
        write_secret(theirs, SECRET)
        run_secret("run", one_host=True)
        (made,) = folder.iterdir()
        made.unlink()
        made.symlink_to(theirs)
    check_refused("no secret can be left there")


@pytest.mark.parametrize("call", ["write", "close", "link"])
def test_nothing_is_left_on_a_full_disk(call: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.StringIO):
        """A file on it."""

    def opened(descriptor: int, mode: str) -> Full:
        os.close(descriptor)
        file = Full()
        monkeypatch.setattr(file, call, fail)
        return file

    if call == "link":
        monkeypatch.setattr(os, "link", fail)
    else:
        monkeypatch.setattr(secret, "open", opened, raising=False)
    check_refused("no secret can be left there: No space left on device")
    assert not list(folder.iterdir())


def test_addresses_that_stay_on_the_host():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("10.1.2.3", "0.0.0.0")))


def test_listening_where_asked():
    with socket.socket(fileno=listen_at("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        assert address == "127.0.0.1"
        server.listen()
        with pytest.raises(PeerError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
            listen_at("127.0.0.1", port)
        assert address_towards("127.0.0.1", port) == "127.0.0.1"
    with pytest.raises(OptionError, match=r"cannot listen at 192\.0\.2\.1: not an address of this host"):
        listen_at("192.0.2.1", 0)
    for call in (listen_at, address_towards, lambda host, _: is_loopback(host)):
        with pytest.raises(OptionError, match=r"MASTER_ADDR=no\.such\.host\.invalid is no address: "):
            call("no.such.host.invalid", 5)
