"""Fixtures that all tests share. Nothing here touches the user's own cache folder."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support import SOAK
from support.once import make_once
from support.processes.forked import FOLDER_VARIABLE

# CI tells about the change, not about luck: the same examples every time; a soak draws new ones.
settings.register_profile("hyperdex", derandomize=not SOAK)
settings.load_profile("hyperdex")

# Otherwise huggingface_hub's first request of a day, in whichever test comes first, is one of its own.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# A shell starts what runs in the background with Ctrl+C ignored, for its children too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def hyperdex_home(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> Iterator[Path]:
    """A HYPERDEX_HOME of the session's own; all workers share the native executor's code and, but in a soak, imported
    modules."""
    home = tmp_path_factory.mktemp("home")
    for name in ("engine",) if SOAK else ("engine", "modules", "tokenizers"):
        shared = shared_dir / name
        shared.mkdir(mode=0o700, exist_ok=True)
        (home / name).symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERDEX_HOME", str(home))
        patch.setenv(FOLDER_VARIABLE, str(shared_dir))
        yield home


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """`os.fsync` does nothing in this process: a killed process loses nothing that the system holds.

    Tests of crashes and of full disks patch it themselves, or run compiles in processes of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def forget_instructions(hyperdex_home: Path) -> Callable[[], None]:
    """Forgets the instructions that compiles share; done before each test, so that it is its own compile that lowers.

    To be called where two compiles of one test are compared. A soak forgets imported modules, too: each test traces.
    """

    def forget() -> None:
        for name in ("instructions", "modules") if SOAK else ("instructions",):
            shutil.rmtree(hyperdex_home / name, ignore_errors=True)

    forget()
    return forget


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Ends the process with a traceback after minutes: for tests where what is wrong never ends."""
    faulthandler.dump_traceback_later(600, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def demo_home(shared_dir: Path) -> Path:
    """A HYPERDEX_HOME that was empty before `hyperdex demo`. What the command printed is in `printed.txt`."""

    def make(home: Path) -> None:
        command = [Path(sys.executable).with_name("hyperdex"), "demo"]
        environment = {**os.environ, "HYPERDEX_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        with (home / "printed.txt").open("w") as file:
            done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, (home / "printed.txt").read_text()

    return make_once(shared_dir / "demo-home", make)


@pytest.fixture(scope="session")
def smollm2_dir(demo_home: Path) -> Path:
    """SmolLM2-135M-Instruct with its real weights, compiled; the checkpoint is in `ckpt/`."""
    from hyperdex_ir.cli.demo_checkpoint import MODEL_ID

    return demo_home / "hub" / MODEL_ID


@pytest.fixture(scope="session")
def smollm2_checkpoint(smollm2_dir: Path) -> Path:
    """The demo's checkpoint, beside files of the compiler's own."""
    return smollm2_dir / "ckpt"


#: Layers of `smollm2_short_dir`.
SHORT = 30 if SOAK else 3


@pytest.fixture(scope="session")
def smollm2_short_dir(smollm2_dir: Path, smollm2_checkpoint: Path, shared_dir: Path) -> Path:
    """The first layers of SmolLM2, 3 of 30, with everything else that it has, compiled: for what is done to it many
    times. In a soak all layers."""
    if SOAK:
        return smollm2_dir
    from hyperdex_ir.tools import AutoCompiler

    def make(folder: Path) -> None:
        write_first_layers(smollm2_checkpoint, folder / "ckpt")
        AutoCompiler().compile(model_id=str(folder))

    return make_once(shared_dir / "smollm2-short", make)


def write_first_layers(original: Path, folder: Path) -> None:
    """The first SHORT layers of a checkpoint in one safetensors file, without what the compiler has made of it."""
    from safetensors.numpy import load_file, save_file

    from hyperdex_ir.support.locations import CONFIG, SAFETENSORS

    shutil.copytree(original, folder, ignore=shutil.ignore_patterns(SAFETENSORS, "*hyperdex_*"))
    config = json.loads((original / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"num_hidden_layers": SHORT}))
    beyond = tuple(f"model.layers.{number}." for number in range(SHORT, config["num_hidden_layers"]))
    tensors = load_file(original / SAFETENSORS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(beyond)}
    save_file(kept, folder / SAFETENSORS)
