"""Two compiles of one folder at the same time: one works, the other waits and uses what it left."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes import forked

from hyperdex_ir.backend.check import check_file, listed_files
from hyperdex_ir.backend.lock import LOCK_FILE, locked_folder
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow
COMPILE = [*forked.HYPERDEX, "compile"]
WAITING = "[ INFO ] : Wait for another process that works on "
LIMIT_SECONDS = 300


def test_the_second_uses_what_the_first_made(tmp_path: Path) -> None:
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    processes = [forked.popen([*COMPILE, str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    ended = [(*process.communicate(timeout=LIMIT_SECONDS), process.returncode) for process in processes]
    assert [code for _, _, code in ended] == [0, 0, 0], ended
    assert {out for out, _, _ in ended} == {f"{model}\n"}
    assert sum("Save the converted checkpoint" in err for _, err, _ in ended) == 1
    assert sum("Compiled already with these options" in err for _, err, _ in ended) == 2
    assert not (model / LOCK_FILE).exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom hyperdex_ir.backend.lock import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    with forked.popen(["-c", code, str(model)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with forked.popen([*COMPILE, str(model)], stderr=subprocess.PIPE) as waiter:
            assert waiter.stderr is not None
            lines = [next(waiter.stderr) for _ in range(3)]
            assert lines[-1] == f"{WAITING}{model}\n"
            time.sleep(0.5)
            assert waiter.poll() is None
            holder.send_signal(signal.SIGKILL)
            assert "Model compile Complete!" in waiter.stderr.read()
    assert waiter.returncode == 0


def test_the_waiter_finishes_the_job_of_a_killed_process(tmp_path: Path) -> None:
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    with forked.popen([*COMPILE, str(model)], stderr=subprocess.PIPE) as worker:
        assert worker.stderr is not None
        assert any("Phase-0" in line for line in worker.stderr)
        with forked.popen([*COMPILE, str(model)], stderr=subprocess.PIPE) as waiter:
            assert waiter.stderr is not None
            assert any("Save the converted checkpoint" in line for line in worker.stderr)
            worker.send_signal(signal.SIGKILL)
            log = waiter.stderr.read()
    assert worker.returncode == -signal.SIGKILL
    assert waiter.returncode == 0
    assert "Model compile Complete!" in log
    assert not any(check_file(model, one) for one in listed_files(model / "manifest.json"))


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    with locked_folder(root):
        assert (root / LOCK_FILE).is_file()
    assert list(tmp_path.iterdir()) == []


def test_unfinished_files_of_a_killed_compile_go(tmp_path: Path) -> None:
    """Whoever holds the folder is alone: what is unfinished belongs to no one, whatever its process number."""
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    left = model / "param" / ".param_1lpu_00_00.bin.1.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    AutoCompiler().compile(str(model))
    assert not left.exists()
