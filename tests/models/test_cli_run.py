"""`hyperdex run` and `hyperdex demo` on compiled models: streams, errors, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes import forked

from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(tiny_llama_config(), folder)
    AutoCompiler().compile(model_id=folder, max_length=48)
    return folder


def run(model: Path | str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return forked.hyperdex("run", str(model), *arguments, input=stdin)


def test_text_on_stdout_statistics_on_stderr(model: Path) -> None:
    result = run(model, "--prompt", "hello", "--max-new-tokens", "6")
    as_json = run(model, "--prompt", "-", "--max_new_tokens", "6", "--json", stdin="hello")
    assert result.returncode == as_json.returncode == 0, result.stderr + as_json.stderr
    value = json.loads(as_json.stdout)
    assert result.stdout == value["text"] + "\n"
    assert len(value["tokens"]) == 6
    assert (value["finish"], value["prompt_tokens"]) == ("max_new_tokens", 5)
    assert value["first_token_seconds"] > 0
    assert as_json.stderr == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("hyperdex: 6 tokens, ")
    assert "tokens/s, first token after" in line
    assert line.endswith("(5 prompt tokens), stopped at max_new_tokens")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--prompt", ""], "HDX0603", "the prompt is empty"),
        (["--prompt", "x" * 50], "HDX0603", "the prompt has 50 tokens; the model was compiled for max_length 48"),
        (["--prompt", "x" * 48], "HDX0603", "48 tokens; the model was compiled for max_length 48, prompt and response"),
        (["--prompt", "\udcff"], "HDX0603", "the prompt is not Unicode text (character 0)"),
        (["--prompt", "x", "--chat"], "HDX0603", "the checkpoint has no chat template"),
        (["--prompt", "x", "--num-device", "2"], "HDX0502", "not compiled for 2 devices"),
        (["--prompt", "x", "--temperature", "0"], "HDX0302", "temperature is 0.0; it must be a number above 0"),
        (["--prompt", "x", "--top-p", "1.5"], "HDX0302", "top_p is 1.5; it must be from 0 to 1"),
        (["--prompt", "x", "--top_k", "-1"], "HDX0302", "top_k is -1; it must be a whole number, 0 or more"),
        (["--prompt", "x", "--seed", "-1"], "HDX0302", "seed is -1; it must be from 0 to 2^64 - 1"),
        (["--prompt", "x", "--repetition-penalty", "0"], "HDX0302", "repetition_penalty is 0.0; it must be a number"),
        (["--prompt", "x", "--engine", "steam"], "HDX0302", "no executor 'steam'; there are native, interpreter"),
    ],
)
def test_one_line_errors(model: Path, arguments: list[str], code: str, message: str) -> None:
    result = run(model, *arguments)
    first, second = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (1, "")
    assert first.startswith(f"error[{code}]: ")
    assert message in first
    assert second.startswith("hint: ")


def test_standard_input_that_is_no_text(model: Path) -> None:
    result = forked.hyperdex("run", str(model), "--prompt", "-", input=b"a\xff")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error[HDX0603]: standard input is not UTF-8 text (byte 1)\nhint: ")


def test_damaged_image(model: Path) -> None:
    path = model / "param" / "param_1lpu_00_05.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run(model, "--prompt", "x", "--engine", "interpreter")
    path.write_bytes(data)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error[HDX0501]: {path}: corrupted")


def test_executors_and_threads_write_the_same_text(model: Path) -> None:
    arguments = ["--prompt", "hello", "--max-new-tokens", "6"]
    expected = run(model, *arguments, "--engine", "interpreter").stdout
    assert run(model, *arguments, "--engine", "native", "--threads", "3").stdout == expected != ""


def test_a_seed_gives_the_text_again(model: Path) -> None:
    arguments = ["--prompt", "hello", "--max-new-tokens", "6", "--temperature", "1.5"]
    drawn = json.loads(run(model, *arguments, "--json").stdout)
    again = run(model, *arguments, "--seed", str(drawn["seed"]), "--engine", "interpreter")
    assert again.stdout == drawn["text"] + "\n"
    assert again.stderr.endswith(f"(5 prompt tokens), seed {drawn['seed']}, stopped at max_new_tokens\n")
    greedy = json.loads(run(model, *arguments[:-2], "--repetition-penalty", "1.5", "--json").stdout)
    assert greedy["seed"] is None
    assert greedy["tokens"] != drawn["tokens"]


def test_vector_instructions_that_are_not_there(model: Path) -> None:
    environment = {**os.environ, "HYPERDEX_CPU": "steam"}
    result = forked.hyperdex("run", str(model), "--prompt", "x", env=environment)
    first, second = result.stderr.splitlines()
    assert first == "error[HDX0302]: HYPERDEX_CPU is 'steam'; it can be avx512, avx2, sse2, neon"
    assert second.startswith("hint: ")


def test_ctrl_c_while_generating(smollm2_dir: Path) -> None:
    command = [*forked.HYPERDEX, "run", str(smollm2_dir), "--prompt", "Once upon a time", "--max-new-tokens", "500"]
    process = forked.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "hyperdex: interrupted"


def test_second_demo_only_runs(demo_home: Path) -> None:
    environment = {**os.environ, "HYPERDEX_HOME": str(demo_home)}
    result = forked.hyperdex("demo", env=environment)
    assert result.returncode == 0
    assert result.stdout == "The capital of France is Paris.\n"
    assert "Phase" not in result.stderr
    assert "> What is the capital of France?" in result.stderr
    assert "tokens/s" in result.stderr
