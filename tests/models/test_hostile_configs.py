"""Broken and hostile configurations: one clear line each, at once; nothing is allocated, imported or run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import SOAK

pytestmark = pytest.mark.slow

#: Kilobytes that the process may need: those of the interpreter and its libraries.
MOST_MEMORY = 200 << 10
#: Seconds from the start of the process, the median of five.
MOST_SECONDS = 1.0

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
YARN = {"rope_type": "yarn", "factor": 4.0}


def llama(**changes: Any) -> bytes:
    return json.dumps(LLAMA | changes).encode()


def nested(depth: int) -> bytes:
    return b'{"architectures": ' + b"[" * depth + b"]" * depth + b"}"


UNKNOWN = {"architectures": ["MyLlamaForCausalLM"], "model_type": "my_llama", "auto_map": {"AutoConfig": "evil.Config"}}

#: What is in config.json, and a part of the line that says what is wrong with it.
CASES: dict[str, tuple[bytes, str]] = {
    "negative-size": (llama(hidden_size=-4096), "hidden_size is -4096, expected a whole number"),
    "size-beyond-64-bits": (llama(vocab_size=10**40), "vocab_size is 1000"),
    "huge-sizes": (llama(hidden_size=2**30, intermediate_size=2**31 - 1), "make about 7e+19 parameters"),
    "huge-depth": (llama(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "huge-vocabulary": (llama(vocab_size=2**31 - 1), "make about 9e+12 parameters"),
    "fraction": (llama(num_hidden_layers=1.5), "num_hidden_layers is 1.5"),
    "text-for-a-number": (llama(num_attention_heads="32"), 'num_attention_heads is "32"'),
    "list-for-a-number": (llama(hidden_size=[4096]), "hidden_size is [4096]"),
    "null-for-a-number": (llama(hidden_size=None), "hidden_size is null"),
    "no-architecture": (b'{"model_type": "lama"}', "model_type lama is not supported; the nearest supported are Llama"),
    "another-head": (llama(architectures=["LlamaForTokenClassification"]), "LlamaForCausalLM is wanted"),
    "no-keys": (b"{}", "no architectures"),
    "empty": (b"", "not valid JSON"),
    "cut-off": (llama()[:-9], "not valid JSON"),
    "a-list": (b"[]", "holds a list, expected an object"),
    "not-a-number": (llama(rms_norm_eps=float("nan")), "not valid JSON: NaN is no number"),
    "infinite": (llama(rope_theta=float("inf")), "not valid JSON: Infinity is no number"),
    "a-key-twice": (b'{"hidden_size": 1, "hidden_size": 2}', "hidden_size stands twice in one object"),
    "deep": (nested(100_000), "not valid JSON"),
    "nested-a-little": (nested(50), "architectures is [[[["),
    "another-encoding": (json.dumps(LLAMA).encode("utf-16"), "not valid JSON"),
    "no-text": (bytes(range(256)) * 16, "not valid JSON"),
    "many-digits": (b'{"vocab_size": ' + b"9" * 100_000 + b"}", "not valid JSON"),
    "a-giant-file": (b'{"junk": "' + b"x" * (8 << 20) + b'"}', "bytes, the most that is read is 4194304"),
    "unknown-positions": (llama(rope_scaling={"rope_type": "warp"}), "rope_type warp is not supported; the nearest"),
    "positions-of-no-type": (llama(rope_scaling={"rope_type": {"a": []}}), "rope_type is"),
    "negative-factor": (llama(rope_scaling={"rope_type": "linear", "factor": -4}), "rope_scaling.factor is -4"),
    "experts-without-end": (
        json.dumps(MIXTRAL | {"num_local_experts": 2**31 - 1}).encode(),
        "num_local_experts is 2147483647, expected a whole number from 1 to 4096",
    ),
    "a-billion-labels": (llama(num_labels=10**9), "num_labels is 1000000000, expected a whole number up to 65536"),
    "colours-for-a-number": (llama(rope_parameters=YARN | {"attention_factor": "\x1b[31m"}), "factor is"),
    "unknown-activation": (llama(hidden_act="explode"), "hidden_act explode is not supported; the nearest"),
    "code": (json.dumps(UNKNOWN).encode(), "code of its own (auto_map), which is never run; the nearest"),
    "code-for-a-known-model": (llama(auto_map={"AutoModel": "evil.Model"}, vocab_size=0), "vocab_size is 0"),
    "lines-in-a-name": (llama(architectures=["Llama\n\x1b[31mError"]), r'"Llama\n\u001b[31mError" is not the class'),
    "a-long-name": (llama(architectures=["Llama" * 100_000]), "LlamaLlama"),
    "heads-that-do-not-divide": (llama(num_attention_heads=31), "expected a multiple of num_attention_heads 31"),
    "a-deep-list-of-ends": (llama(eos_token_id=[[[2]]]), "eos_token_id is [[[2]]]"),
}  # fmt: skip

#: Runs the command; an import of what may not be imported would be an error of its own. The peak in /proc begins with
#: the program; getrusage's counts that of the process which started it, too.
SCRIPT = """
import re, sys
sys.modules.update(torch=None, transformers=None)
sys.argv = ["hyperdex", "compile", sys.argv[1]]
from hyperdex_ir.cli.main import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


#: The same in a process for each folder that is named, forked once all is imported: what it prints goes to files
#: beside the folder, its exit status to stdout.
FORKING = """
import contextlib, gc, os, re, sys
sys.modules.update(torch=None, transformers=None)
from hyperdex_ir.cli.main import main
from hyperdex_ir.passes.pipeline import parse_pipeline
parse_pipeline("default")
with contextlib.suppress(SystemExit):
    main(["compile", os.devnull])  # for what is imported on the way
gc.freeze()
for folder in sys.argv[1:]:
    if (child := os.fork()) == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["hyperdex", "compile", folder]
        try:
            main()
        finally:
            print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[subprocess.CompletedProcess[str], Path]]:
    """How a process ended for each case, and its folder."""
    root = tmp_path_factory.mktemp("configs")
    folders = [_write(CASES[name][0], root / str(number)) for number, name in enumerate(CASES)]
    command = [sys.executable, "-c", FORKING, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    ended = {}
    for name, folder, code in zip(CASES, folders, done.stdout.split(), strict=True):
        out, err = (folder.with_name(f"{folder.name}.{end}").read_text() for end in ("out", "err"))
        ended[name] = subprocess.CompletedProcess(command, int(code), out, err), folder
    return ended


def _write(content: bytes, folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes(content)
    (folder / "evil.py").write_text("raise SystemExit('code of a checkpoint has run')\n")
    return folder


@pytest.mark.parametrize("name", list(CASES))
def test_one_line(name: str, forked: dict[str, tuple[subprocess.CompletedProcess[str], Path]]) -> None:
    run, folder = forked[name]
    _check(run, CASES[name][1])
    assert {path.name for path in folder.iterdir()} == {"config.json", "evil.py"}


@pytest.mark.parametrize("name", list(CASES) if SOAK else ["huge-sizes"])
def test_one_line_at_once(name: str, tmp_path: Path) -> None:
    """By a process of its own from the start."""
    content, message = CASES[name]
    folder = _write(content, tmp_path / "model")
    seconds = []
    for _ in range(5 if SOAK else 1):
        start = time.monotonic()
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False, timeout=60
        )
        seconds.append(time.monotonic() - start)
        _check(run, message)
    assert not SOAK or statistics.median(seconds) <= MOST_SECONDS
    assert {path.name for path in folder.iterdir()} == {"config.json", "evil.py"}


def _check(run: subprocess.CompletedProcess[str], message: str) -> None:
    errors = [line for line in run.stderr.splitlines() if "HDX" in line]
    assert run.returncode == 1, run.stderr
    assert len(errors) == 1, run.stderr
    assert message in errors[0]
    assert len(errors[0]) < 500
    assert "Traceback" not in run.stderr
    assert "\x1b" not in run.stderr
    assert int(run.stdout.splitlines()[-1]) < MOST_MEMORY
