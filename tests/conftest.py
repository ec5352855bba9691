"""Fixtures that all tests share. Nothing here touches the user's own cache folder."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

SOAK = os.environ.get("SOAK") == "1"

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
    """A HYPERDEX_HOME of the session's own; all workers share the native engine's code."""
    home = tmp_path_factory.mktemp("home")
    code = shared_dir / "engine"
    code.mkdir(mode=0o700, exist_ok=True)
    (home / "engine").symlink_to(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERDEX_HOME", str(home))
        yield home


@pytest.fixture(autouse=True)
def forget_instructions(hyperdex_home: Path) -> Callable[[], None]:
    """Forgets the instructions that compiles share; done before each test, so that it is its own compile that lowers.

    To be called where two compiles of one test are compared.
    """

    def forget() -> None:
        shutil.rmtree(hyperdex_home / "instructions", ignore_errors=True)

    forget()
    return forget


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder` as `make` leaves it, made by whichever worker comes first; the others wait."""
    done = folder.with_name(folder.name + ".done")
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def smollm2_checkpoint(shared_dir: Path) -> Path:
    """The demo's checkpoint itself, not compiled."""
    from hyperdex_ir.demo_checkpoint import find_gguf, write_checkpoint

    return make_once(shared_dir / "smollm2-checkpoint", lambda folder: write_checkpoint(find_gguf(), folder))


@pytest.fixture(scope="session")
def smollm2_dir(shared_dir: Path) -> Path:
    """SmolLM2-135M-Instruct with its real weights, compiled; the checkpoint is in `ckpt/`."""
    from hyperdex_ir.demo_checkpoint import find_gguf, write_checkpoint
    from hyperdex_ir.tools import AutoCompiler

    def make(folder: Path) -> None:
        write_checkpoint(find_gguf(), folder / "ckpt")
        AutoCompiler().compile(model_id=str(folder))

    return make_once(shared_dir / "smollm2", make)
