"""Generated programs that mean harm, between guard pages, on 1, 2 and 3 threads: no death, no write outside, and the
same as in the interpreter. 20,000 instructions, and 1,000,000 in a soak.

Each seed is a program: `python tests/support/hostile/program_worker.py SEED 1 FILE` runs it alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import SOAK, TESTS

from hyperdex_ir.native.features import VARIABLE, available

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guard pages are made with Linux's mmap and memfd"),
]

#: Instructions, and how many of them one process runs.
INSTRUCTIONS = 1_000_000 if SOAK else 10_000
PART = 50_000
#: How long a process may take: to start and compile, and for each instruction; ten times what it takes.
START_SECONDS, INSTRUCTION_SECONDS = 120, 0.02
WORKER = TESTS / "support/hostile/program_worker.py"


def run_worker(first: int, count: int, status: Path, cpu: str | None = None) -> Counter[str]:
    """The programs from a seed on, until they hold so many instructions. Fails when the process dies, hangs or finds a
    difference. cpu: one of FEATURES, by name; None: what the computer has."""
    status.write_bytes(b"")
    command = [sys.executable, WORKER, str(first), str(count), status]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), **({} if cpu is None else {VARIABLE: cpu})}
    limit = START_SECONDS + count * INSTRUCTION_SECONDS
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        pytest.fail(f"seed {status.read_text().strip()}: not over after {limit:.0f} s")
    died = f"seed {status.read_text().strip()}: exit code {done.returncode}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, died
    return Counter(json.loads(done.stdout))


def test_programs_between_guard_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    totals: Counter[str] = Counter()
    seed = 0
    while totals["instructions"] < INSTRUCTIONS:
        part = run_worker(seed, min(PART, INSTRUCTIONS - totals["instructions"]), tmp_path / "status")
        seed = part.pop("next")
        totals += part
    with capsys.disabled():
        print(f"\nbetween guard pages, on 1, 2 and 3 threads: {json.dumps(totals)}")
    assert totals["executed"] > totals["instructions"]
    assert totals["faults"] < totals["programs"]
    assert totals["rewritten"] > 0


@pytest.mark.skipif(not SOAK, reason="for a soak: SOAK=1")
@pytest.mark.parametrize("name", [item.name for item in available()[1:]])
def test_with_fewer_vector_instructions(name: str, tmp_path: Path) -> None:
    assert run_worker(0, PART, tmp_path / "status", name)["instructions"] >= PART


def test_a_process_that_hangs_names_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = "import sys, time; open(sys.argv[3], 'w').write('7'); time.sleep(600)"
    (tmp_path / "worker.py").write_text(worker)
    monkeypatch.setitem(globals(), "WORKER", tmp_path / "worker.py")
    monkeypatch.setitem(globals(), "START_SECONDS", 2)
    with pytest.raises(pytest.fail.Exception, match=r"^seed 7: not over after 2 s"):
        run_worker(7, 1, tmp_path / "status")


#: What a fence must notice: how it is made, what is done to it, and the signal that ends the process; 0: an error.
TOUCHES = {
    "write behind": ("Fence(400)", "memoryview(f.reach)[400] = 1", signal.SIGSEGV),
    "read behind": ("Fence(400)", "int(f.reach[400])", signal.SIGSEGV),
    "write behind, readable": ("Fence(400, readable=True)", "int(f.reach[400]); f.reach[400] = 1", signal.SIGSEGV),
    "write before": ("Fence(400, end=False)", "ctypes.memset(f.bytes.ctypes.data - 1, 1, 1)", signal.SIGSEGV),
    "write beside": ("Fence(400, end=False)", "f.reach[400] = 1; f.check()", 0),
}


@pytest.mark.parametrize("name", list(TOUCHES))
def test_a_fence_notices(name: str) -> None:
    made, touch, ended = TOUCHES[name]
    code = (
        f"import ctypes\nfrom support.programs.guard_pages import Fence\nf = {made}\nf.bytes[:] = 1\nf.check()\n{touch}"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (-ended if ended else 1), done.stderr
    assert ended or "written outside" in done.stderr
