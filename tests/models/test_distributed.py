"""One process a device: the same tokens as one device gives, and one clear line when a process is lost or differs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import SOAK
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.once import make_once
from support.processes import forked
from support.processes.ring_processes import START_SECONDS, WORKER, Ended, RingProcesses, free_port, run_all

from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_spec
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.tools import AutoCompiler

RUN = ("-m", "hyperdex_ir.cli.run")
PROMPT = ("--prompt", "Once upon a time")
KILLS = 50 if SOAK else 3
#: Processes that torchrun starts.
TORCHRUN = (2, 4) if SOAK else (2,)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def model(shared_dir: Path) -> Path:
    """A tiny Llama, compiled for 1, 2 and 4 devices."""

    def make(folder: Path) -> None:
        write_checkpoint(tiny_llama_config(), folder)
        for count in (1, 2, 4):
            AutoCompiler().compile(str(folder), num_device=count)

    return make_once(shared_dir / "tiny-ring", make)


@pytest.fixture(scope="session")
def expected(model: Path, shared_dir: Path) -> str:
    """What one device generates, as `hyperdex run` prints it."""
    done = forked.run([*RUN, *arguments(model)])
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments(model: Path, tokens: int = 12) -> list[str]:
    return [str(model), *PROMPT, "--max-new-tokens", str(tokens)]


def check_failure(ended: Ended, words: str) -> None:
    """One line and a hint, no traceback."""
    assert ended.code == 1, ended
    lines = ended.err.splitlines()
    assert len(lines) == 2, ended.err
    assert lines[0].startswith("error[HDX060"), ended.err
    assert words in lines[0]
    assert lines[1].startswith("hint: ")


def run_by_torchrun(
    count: int, command: Sequence[str], python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node count command`, which must end well; each process runs `python command`."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", str(free_port())]
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHON_EXEC": python}
    done = forked.run([*launcher, *command], env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("count", TORCHRUN)
def test_torchrun(model: Path, expected: str, count: int):
    """Processes of their own from the start."""
    done = run_by_torchrun(count, [*RUN, *arguments(model)])
    assert done.stdout == expected
    assert done.stderr.count("hyperdex: ") == 1


LOGITS = """
import hashlib, sys
from hyperdex_ir.transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
logits = model.logits([[1, 2, 3, 5, 7]])
sys.stdout.write(f"{logits.shape} {hashlib.sha256(logits.tobytes()).hexdigest()}\\n")  # in one piece
"""


def check_logits_by_torchrun(model: Path, folder: Path, counts: Sequence[int]) -> None:
    """The native executor gives the same bits of all logits in one process, and in each of several."""
    script = folder / "logits.py"
    script.write_text(LOGITS)
    command = [str(script), str(model)]
    alone = forked.run(command).stdout
    assert "(" in alone
    python = forked.commands(os.environ) / "python"
    for count in counts:
        done = run_by_torchrun(count, command, str(python))
        assert done.stdout.splitlines() == alone.splitlines() * count
        assert "using the interpreter" not in done.stderr


@pytest.mark.parametrize("count", TORCHRUN)
def test_logits_under_torchrun(model: Path, tmp_path: Path, count: int):
    check_logits_by_torchrun(model, tmp_path, [count])


@pytest.mark.skipif(not SOAK, reason="compiles SmolLM2 twice more")
def test_logits_of_smollm2_under_torchrun(smollm2_dir: Path, shared_dir: Path, tmp_path: Path):
    def make(folder: Path) -> None:
        shutil.copytree(smollm2_dir, folder, dirs_exist_ok=True)
        for count in (2, 4):
            AutoCompiler().compile(model_id=str(folder), num_device=count)

    check_logits_by_torchrun(make_once(shared_dir / "smollm2-ring", make), tmp_path, [2, 4])


def test_each_process_reads_its_own_images_only(model: Path, expected: str, tmp_path: Path):
    for rank in range(2):
        copy = shutil.copytree(model, tmp_path / str(rank))
        folder = ModelFolder(copy, copy, None, made_by_tool=False)
        for path in (copy / "param").iterdir():
            if not path.name.startswith(f"param_2lpu_{rank:02x}_"):
                path.unlink()
        folder.model_binary.unlink()
        (copy / "model.safetensors").unlink()
    commands = [[*RUN, *arguments(tmp_path / str(rank))] for rank in range(2)]
    ended = run_all(tmp_path / "out", commands)
    assert [one.code for one in ended.values()] == [0, 0], ended
    assert (ended[0].out, ended[1].out, ended[1].err) == (expected, "", "")


def test_python_interface(model: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from hyperdex_ir.transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], device_map={'lpu': int(sys.argv[2])})\n"
        "print(model.generate([[1, 2, 3]], max_new_tokens=5).tolist(), model.logits([[4, 5]]).tobytes().hex())\n"
    )
    check_alone_and_together(tmp_path, [str(script), str(model)])


def check_alone_and_together(folder: Path, command: Sequence[str]) -> None:
    """A command, given the number of processes as its last argument, prints the same as one process and as two."""
    alone = run_all(folder / "alone", [[*command, "1"]])
    together = run_all(folder / "together", [[*command, "2"]] * 2)
    assert [one.code for one in together.values()] == [0, 0], together
    assert alone[0].out == together[0].out == together[1].out != ""


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_process_ends_all(model: Path, tmp_path: Path, seed: int):
    """One of four dies before a random instruction, or message of the native executor: the others stop within 5 s."""
    choice = random.Random(seed)
    victim = choice.randrange(4)
    unit, most = (("instruction", 3000), ("message", 300))[seed % 2]
    # One of those that go on is a process of its own from the start: nothing that torch says is seen.
    anew = [(victim + 1) % 4] if seed == 2 else []
    ended = run_with_event(model, tmp_path, 4, victim, "kill", unit, choice.randrange(most), anew=anew)
    assert ended[victim].code == -signal.SIGKILL
    for rank, one in ended.items():
        if rank != victim:
            check_failure(one, f"device {victim} is lost: its connection closed")
            assert one.when - ended[victim].when < 5


def run_with_event(
    model: Path,
    folder: Path,
    count: int,
    victim: int,
    event: str,
    unit: str,
    number: int,
    *options: str,
    anew: Container[int] = (),
) -> dict[int, Ended]:
    """A run in which something happens to one process, before an instruction or a message of its."""
    commands = [[*RUN, *arguments(model, 100), *options] for _ in range(count)]
    commands[victim] = [str(WORKER), event, unit, str(number), *arguments(model, 100), *options]
    return run_all(folder, commands, anew=anew)


@pytest.mark.parametrize(("unit", "number"), [("instruction", 500), ("message", 50)])
def test_a_stalled_process_ends_the_others(model: Path, tmp_path: Path, unit: str, number: int):
    with RingProcesses(tmp_path) as ring:
        port, options = free_port(), ("--peer-timeout", "2")
        for rank in range(3):
            command = [str(WORKER), "stop", unit, str(number)] if rank == 1 else list(RUN)
            ring.start([*command, *arguments(model, 100), *options], rank, 4, port)
        ring.start([*RUN, *arguments(model, 100), *options], 3, 4, port)
        stopped = wait_until_stopped(ring.processes[1].pid)
        ended = ring.wait(START_SECONDS, [0, 2, 3])
    for one in ended.values():
        check_failure(one, "device 1 is lost: no sign of life for 2 s")
        assert one.when - stopped < 5


def wait_until_stopped(process: int) -> float:
    """When a process stood still, by time.monotonic()."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return time.monotonic()
        time.sleep(0.01)
    raise TimeoutError


def wait_until_made(files: Sequence[Path]) -> None:
    """Returns when all of the files are there."""
    deadline = time.monotonic() + START_SECONDS
    while not all(file.exists() for file in files):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still missing after {START_SECONDS} s: {files}")
        time.sleep(0.01)


def test_a_process_that_computes_for_long_is_not_lost(model: Path, tmp_path: Path):
    ended = run_with_event(model, tmp_path, 2, 1, "compute", "instruction", 500, "--peer-timeout", "2")
    assert [one.code for one in ended.values()] == [0, 0], ended


def test_a_fault_on_one_device_is_the_fault_of_all(model: Path, tmp_path: Path):
    ended = run_with_event(model, tmp_path, 2, 1, "spoil", "instruction", 500)
    assert {one.code for one in ended.values()} == {1}
    assert ended[0].err == ended[1].err
    assert ended[0].err.startswith("error[HDX0602]: device 1: NaN or infinity made in chunk 0")


@pytest.mark.parametrize("what", ["model", "program", "prompt", "number of new tokens", "version"])
def test_processes_that_differ_are_refused(model: Path, tmp_path: Path, what: str):
    other = model
    own = [*arguments(model)]
    if what == "model":
        other = write_checkpoint(tiny_llama_config(), tmp_path / "other", seed=1)
        AutoCompiler().compile(str(other), num_device=2)
    if what == "program":
        other = Path(shutil.copytree(model, tmp_path / "other"))
        passes = [one for one in parse_pipeline("default") if one.name != "isa-schedule"]
        AutoCompiler().compile(str(other), num_device=2, pipeline=pipeline_spec(passes))
    theirs = [str(other), *own[1:]]
    if what == "prompt":
        theirs[2] = "Once upon a day!"
    if what == "number of new tokens":
        theirs[-1] = "13"
    commands = [[*RUN, *own], [*RUN, *theirs]]
    if what == "version":
        code = "from hyperdex_ir.cli.main import main\nfrom hyperdex_ir.runtime import distributed\n"
        code += "distributed.__version__ = '0'; main()"
        commands[1] = ["-c", code, "run", *theirs]
    ended = run_all(tmp_path / "out", commands)
    for one in ended.values():
        check_failure(one, f"device 1 has another {what}")


def test_another_number_of_processes_is_refused(model: Path, tmp_path: Path):
    with RingProcesses(tmp_path) as ring:
        port = free_port()
        ring.start([*RUN, *arguments(model)], 0, 2, port)
        ring.start([*RUN, *arguments(model)], 1, 4, port)
        for one in ring.wait(START_SECONDS).values():
            check_failure(one, "device 1 has another number of processes than device 0: 4, not 2")


def test_another_secret_is_refused(model: Path, tmp_path: Path):
    with RingProcesses(tmp_path) as ring:
        port = free_port()
        for rank in range(2):
            variables = {"HYPERDEX_RUN_SECRET": f"secret of process {rank}"}
            ring.start([*RUN, *arguments(model)], rank, 2, port, variables=variables)
        for rank, one in ring.wait(START_SECONDS).items():
            check_failure(one, f"device {1 - rank} has another secret than device {rank}, or a stranger writes to")


def test_not_compiled_for_so_many(model: Path, tmp_path: Path):
    ended = run_all(tmp_path, [[*RUN, *arguments(model)]] * 3)
    for one in ended.values():
        assert one.code == 1
        assert "Traceback" not in one.err
        assert "not compiled for 3 devices" in one.err


@pytest.fixture
def two_hosts():
    """Two network namespaces with a cable between them, 10.77.0.1 and 10.77.0.2: hosts as far as TCP can tell."""
    names = [f"hdx{os.getpid()}{end}" for end in "ab"]
    commands = [
        *(["ip", "netns", "add", name] for name in names),
        ["ip", "link", "add", "ring", "netns", names[0], "type", "veth", "peer", "name", "ring", "netns", names[1]],
        *(["ip", "-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", "ring"] for n, name in enumerate(names, 1)),
        *(["ip", "-n", name, "link", "set", device, "up"] for name in names for device in ("lo", "ring")),
    ]
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"needs the privilege CAP_NET_ADMIN: {' '.join(command)}: {done.stderr.strip()}")
        yield names
    except FileNotFoundError:
        pytest.skip("needs the program ip (iproute2)")
    finally:
        for name in names if shutil.which("ip") else ():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


#: Enters a network namespace, as `ip netns exec` does, and becomes a command there.
ON_HOST = """
import ctypes, os, sys
from support.processes.fork_server import run_command
if ctypes.CDLL(None, use_errno=True).setns(os.open(f"/run/netns/{sys.argv[1]}", os.O_RDONLY), 0):
    raise OSError(ctypes.get_errno(), "setns")
run_command(sys.argv[2:], sys.path)
"""


def start_on_hosts(ring: RingProcesses, hosts: list[str], command: list[str], marks: Sequence[Path] = ()) -> None:
    """marks: the RING_MARK of each process, if it has one."""
    port = free_port()
    for rank, host in enumerate(hosts):
        variables = {"HYPERDEX_RUN_SECRET": "known to both hosts"}
        if marks:
            variables["RING_MARK"] = str(marks[rank])
        ring.start(["-c", ON_HOST, host, *command], rank, 2, port, "10.77.0.1", variables)


def test_two_hosts(model: Path, expected: str, tmp_path: Path, two_hosts: list[str]):
    with RingProcesses(tmp_path) as ring:
        start_on_hosts(ring, two_hosts, [*RUN, *arguments(model)])
        ended = ring.wait(START_SECONDS)
    assert [one.code for one in ended.values()] == [0, 0], ended
    assert (ended[0].out, ended[1].out) == (expected, "")


def test_a_cable_that_is_pulled(model: Path, tmp_path: Path, two_hosts: list[str]):
    """Nothing closes: only the signs of life are missing. Neither process stands still before: the other needs it."""
    marks = [tmp_path / f"{rank}.slow" for rank in range(2)]
    with RingProcesses(tmp_path) as ring:
        command = [str(WORKER), "slow", "instruction", "500", *arguments(model, 100), "--peer-timeout", "2"]
        start_on_hosts(ring, two_hosts, command, marks)
        wait_until_made(marks)
        subprocess.run(["ip", "-n", two_hosts[0], "link", "set", "ring", "down"], check=True)
        pulled = time.monotonic()
        ended = ring.wait(START_SECONDS)
    for rank, one in ended.items():
        check_failure(one, f"device {1 - rank} is lost: no sign of life for 2 s")
        assert one.when - pulled < 5


def run_as_json(folder: Path, commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What rank 0 prints; all must end well, and no other process prints anything."""
    ended = run_all(folder, [[*command, "--json"] for command in commands])
    assert {one.code for one in ended.values()} == {0}, ended
    assert all(one.out == one.err == "" for rank, one in ended.items() if rank), ended
    return json.loads(ended[0].out)


def test_sampling(model: Path, tmp_path: Path):
    """The seed that rank 0 draws is that of all, and the text is that of one device."""
    command = [*RUN, *arguments(model), "--top-p", "0.9", "--repetition-penalty", "1.3"]
    drawn = run_as_json(tmp_path / "drawn", [command] * 2)
    seeded = [*command, "--seed", str(drawn["seed"])]
    again = run_as_json(tmp_path / "again", [seeded] * 2)
    alone = run_as_json(tmp_path / "alone", [seeded])
    assert drawn["tokens"] == again["tokens"] == alone["tokens"]
    assert drawn["seed"] == alone["seed"]


def test_seeds_of_torch(model: Path, tmp_path: Path):
    """Each process has a generator of its own; that of rank 0 counts."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, torch\n"
        "from hyperdex_ir.transformers import AutoModelForCausalLM\n"
        "torch.manual_seed(int(os.environ['RANK']))\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "print(model.generate([[1, 2, 3]], do_sample=True, max_new_tokens=9).tolist(), model.last_seed)\n"
    )
    check_alone_and_together(tmp_path, [str(script), str(model)])


@pytest.mark.parametrize(
    ("option", "what"),
    [(("--top-k", "3"), "set of sampling settings"), (("--seed", "1"), "seed")],
)
def test_other_settings_are_refused(model: Path, tmp_path: Path, option: tuple[str, str], what: str):
    command = [*RUN, *arguments(model), "--temperature", "0.7", "--top-k", "5"]
    ended = run_all(tmp_path, [command, [*command, *option]])
    for one in ended.values():
        check_failure(one, f"device 1 has another {what} than device 0")


def test_executors_and_threads_may_differ(model: Path, expected: str, tmp_path: Path):
    command = [*RUN, *arguments(model)]
    ended = run_all(tmp_path, [[*command, "--engine", "interpreter"], [*command, "--threads", "2"]])
    assert [one.code for one in ended.values()] == [0, 0], ended
    assert ended[0].out == expected


def test_processes_of_a_host_share_its_cores(model: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "os.sched_getaffinity = lambda process: set(range(7))\n"
        "from hyperdex_ir.runtime.model import CompiledModel\n"
        "print(CompiledModel.open(sys.argv[1]).device.machine.machine.threads)\n"
    )
    for local, threads in (("1", 7), ("2", 3)):
        ended = run_all(tmp_path / local, [[str(script), str(model)]] * 2, variables={"LOCAL_WORLD_SIZE": local})
        assert [one.out for one in ended.values()] == [f"{threads}\n"] * 2, ended


def test_json_of_a_distributed_run(model: Path, tmp_path: Path):
    ended = run_all(tmp_path, [[*RUN, *arguments(model), "--json"]] * 2)
    assert len(json.loads(ended[0].out)["tokens"]) == 12
    assert ended[1].out == ""
