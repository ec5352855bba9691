"""A compile that is killed, or whose disk is full, anywhere: the next one ends with the bytes of an undisturbed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from support import SOAK
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes.interruptions import Disk, compile_killed, compile_watched, contents

from hyperdex_ir.backend.state import STAGING
from hyperdex_ir.errors import StorageError
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow
KILLS = 200 if SOAK else 5
FULL_DISKS = 100 if SOAK else 1  # and as many that refuse to sync


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("interrupted") / "checkpoint")


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What an undisturbed compile leaves, and how many moments it has."""
    model = copy(checkpoint, tmp_path_factory.mktemp("undisturbed"))
    moments = compile_watched(model)
    return contents(model), moments


@pytest.fixture(scope="module")
def disk(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """What an undisturbed compile asks of a disk."""
    model = copy(checkpoint, tmp_path_factory.mktemp("disk"))
    counted = Disk(model)
    with counted.full_at():
        AutoCompiler().compile(str(model))
    return counted


def copy(checkpoint: Path, folder: Path) -> Path:
    """A copy of its own."""
    return shutil.copytree(checkpoint, folder / "model")


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_a_random_moment(
    checkpoint: Path, undisturbed: tuple[dict[str, bytes], int], tmp_path: Path, seed: int
) -> None:
    expected, moments = undisturbed
    model = copy(checkpoint, tmp_path)
    compile_killed(model, random.Random(seed).randint(1, moments))
    AutoCompiler().compile(str(model))
    assert contents(model) == expected


@pytest.mark.parametrize("limit", ["byte", "sync"])
@pytest.mark.parametrize("seed", range(FULL_DISKS))
def test_a_disk_that_is_full_at_a_random_moment(
    checkpoint: Path, undisturbed: tuple[dict[str, bytes], int], disk: Disk, tmp_path: Path, seed: int, limit: str
) -> None:
    expected, _ = undisturbed
    model = copy(checkpoint, tmp_path)
    last = random.Random(seed).randrange({"byte": disk.bytes, "sync": disk.syncs}[limit])
    with Disk(model).full_at(**{limit: last}), pytest.raises(StorageError, match="no space left on the device"):
        AutoCompiler().compile(str(model))
    left = [path for path in model.rglob("*") if path.is_file() and not path.name.startswith(".")]
    final = {path.relative_to(model).as_posix().removeprefix(f"{STAGING}/"): path.read_bytes() for path in left}
    assert all(content == expected[name] for name, content in final.items())
    AutoCompiler().compile(str(model))
    assert contents(model) == expected
