"""The place of a hostile folder, and what its faults are made with.

What a folder leads to lies in `outside/` beside it. Nothing may change there, and the file CANARY must not appear.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.state import STATE_FILE
from support.hostile.edits import edit_json

CANARY = "started"
TABLES = (
    "manifest.json",
    STATE_FILE,
    "ckpt/hyperdex_config.json",
    "config/config_1lpu_hbm.json",
    "inst/inst_1lpu.json",
)
SETTINGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass
class Case:
    """A place for one command: `folder` is what the command is given; what it is not is watched.

    cwd: where the command runs. out: where the person asks for output.
    """

    root: Path
    name: str | bytes
    random: random.Random

    @property
    def folder(self) -> Path:
        return self.root / "models" / os.fsdecode(self.name)

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def cwd(self) -> Path:
        return self.root / "cwd"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def canary(self) -> Path:
        return self.outside / CANARY

    def choose(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def files(self) -> list[Path]:
        """The regular files of the folder, in order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())

    def folders(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_dir() and not path.is_symlink())

    @property
    def good(self) -> Path:
        """A copy of the folder without faults: what an earlier fault has left may be anything."""
        return self.outside / "model"

    def load(self, name: str) -> Any:
        return json.loads((self.good / name).read_text())

    def put(self, name: str, data: bytes) -> None:
        """A regular file in the place of whatever is there."""
        replace(self.folder / name, lambda path: path.write_bytes(data))

    def store(self, name: str, value: Any) -> None:
        self.put(name, json.dumps(value).encode("utf-8", "surrogatepass"))

    def dumps(self) -> dict[str, str]:
        """The good dumps, by name."""
        return {f"ir/{path.name}": path.read_text() for path in sorted((self.good / "ir").glob("*.mlir"))}


def replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


def link(case: Case, path: Path, target: str | Path) -> str:
    replace(path, lambda place: place.symlink_to(target))
    return f"{path.relative_to(case.folder)} -> {target}"


def outside_names(case: Case) -> list[str]:
    return ["../../outside/key", str(case.outside / "key"), "../../outside/documents/letter1.txt", "model.safetensors",
            "ckpt/../../../outside/key", "config.json", ".", "", "..", "/", "a\nb", "\x1b[2J", "x" * 5000]  # fmt: skip


def program_text(case: Case) -> str:
    """A pipeline that starts a program."""
    script = f"open({str(case.canary)!r}, 'w')"
    return f'mlir-opt{{executable="{sys.executable}" generic=true arguments="-c",{json.dumps(script)}}}'


def edited(case: Case, names: tuple[str, ...]) -> str:
    name = case.choose(*(name for name in names if (case.folder / name).is_file()))
    edits = []
    for _ in range(case.random.randint(1, 3)):
        path = [case.random.randrange(1 << 12) for _ in range(case.random.randint(0, 5))]
        edits.append(
            (case.choose("set", "set", "near", "delete", "double", "rename"), path, case.random.randrange(1 << 20))
        )
    case.store(name, edit_json(case.load(name), edits))
    return f"{name} {edits}"
