"""The command line: exit codes, streams, one-line errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import forked

import hyperdex_ir
from hyperdex_ir.cli.main import main


def hyperdex(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return forked.hyperdex(*arguments, input=stdin, env={**os.environ, **environment})


def assert_one_error(result: subprocess.CompletedProcess[str], code: str, message: str) -> None:
    """One line `error[code]: ...message...` and at most a hint, nothing on stdout, exit code 1."""
    lines = result.stderr.splitlines()
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert lines[0].startswith(f"error[{code}]: ")
    assert message in lines[0]
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))


@pytest.mark.slow
@pytest.mark.parametrize("anew", [False, True])
def test_version(anew: bool) -> None:
    """Also of the installed command, started anew."""
    installed = [Path(sys.executable).with_name("hyperdex"), "--version"]
    result = subprocess.run(installed, capture_output=True, text=True, check=False) if anew else hyperdex("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"hyperdex-ir {hyperdex_ir.__version__}\n", "")


@pytest.mark.parametrize("command", ["", "compile", "run", "demo", "models", "dis", "as", "verify", "diff"])
def test_help(command: str) -> None:
    result = hyperdex(*command.split(), "--help", NO_COLOR="1", COLUMNS="200")
    assert result.returncode == 0, result.stderr
    assert "\x1b[" not in result.stdout
    for option in {"compile": ["--num-device", "--max-length"], "run": ["--prompt", "--chat"]}.get(command, []):
        assert option in result.stdout


@pytest.mark.parametrize("arguments", [["run"], ["run", "m"], ["nonsense"], ["run", "m", "--prompt", "p", "--colour"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = hyperdex(*arguments, NO_COLOR="1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("spelling", ["--num-device", "--num_device"])
def test_not_compiled(spelling: str) -> None:
    result = hyperdex("run", "some/model", "--prompt", "hello", spelling, "2")
    assert_one_error(result, "HDX0502", "some/model: not compiled")
    assert result.stderr.splitlines()[1] == "hint: hyperdex compile some/model --num-device 2"


def test_no_such_model() -> None:
    assert_one_error(hyperdex("run", "./no/such/model", "--prompt", "hello"), "HDX0101", "no such directory")


def test_dis_of_nothing(tmp_path: Path) -> None:
    assert_one_error(hyperdex("dis", str(tmp_path / "none.bin")), "HDX0501", "no such file")


def test_models_is_a_table() -> None:
    result = hyperdex("models")
    assert result.returncode == 0
    assert "| LlamaForCausalLM | llama | rotary |" in result.stdout
    assert "| OPTForCausalLM | opt | learned |" in result.stdout
    assert '"model_type": "opt"' in hyperdex("models", "--json").stdout


@pytest.mark.parametrize(
    ("raised", "exit_code", "line"),
    [
        ("KeyError('x')", 1, "error[HDX0001]: internal error: KeyError: 'x'"),
        ("PromptError('no prompt')", 1, "error[HDX0603]: no prompt"),
        ("OSError(28, 'No space left on device')", 1, "error[HDX0503]: No space left on device"),
        ("KeyboardInterrupt()", 130, "hyperdex: interrupted"),
    ],
)
def test_no_exception_becomes_a_traceback(raised: str, exit_code: int, line: str) -> None:
    script = f"""
import hyperdex_ir.cli.models
from hyperdex_ir.errors import PromptError
def broken(as_json):
    raise {raised}
hyperdex_ir.cli.models.print_models = broken
from hyperdex_ir.cli.main import main
main()
"""
    result = forked.run(["-c", script, "models"])
    assert result.returncode == exit_code
    assert result.stderr.strip().splitlines()[0] == line
    assert "Traceback" not in result.stderr


def test_ctrl_c_while_waiting(tmp_path: Path) -> None:
    """A real signal, to a command that waits for its input."""
    fifo = tmp_path / "text.s"
    os.mkfifo(fifo)
    script = """
import hyperdex_ir.cli.assembly as assembly
from hyperdex_ir.cli.main import main
assembly.read_source = lambda path, kind: path.read_text()  # which waits for a FIFO
main()
"""
    command = ["-c", script, "as", str(fifo), "-o", str(tmp_path / "out.bin")]
    process = forked.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer = os.open(fifo, os.O_WRONLY)  # returns when the command has opened it for reading
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    os.close(writer)
    assert process.returncode == 130
    assert stderr.strip() == "hyperdex: interrupted"
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.parametrize("command", ["hyperdex", "hyperdex-opt"])
def test_ctrl_c_during_imports(command: str) -> None:
    """The imports of a command take half a second: Ctrl+C then is one line too."""
    script = f"""
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name in ("typer", "xdsl"):
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from hyperdex_ir.cli import start
start.{command.replace("-", "_")}()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 130
    assert result.stderr == f"{command}: interrupted\n"


def test_light_start() -> None:
    """Help and errors come at once: nothing heavy is imported for them."""
    script = "import sys, hyperdex_ir.cli.main; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "xdsl", "numpy"} & set(result.stdout.split())


def test_ctrl_c_while_arguments_are_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.make_context", interrupted)
    monkeypatch.setattr("sys.argv", ["hyperdex", "models"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "hyperdex: interrupted\n"
