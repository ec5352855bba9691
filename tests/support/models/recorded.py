"""Hashes of the files of compiled models, as of commit d776916: a rebuild of the compiler changes no byte of them.

The checkpoints are made by torch, and rotary frequencies are torch's: another processor or another version of a library
may give other numbers. `MACHINE` tells by what this one computes and by the versions whether hashes can be compared.
GPT-J and CodeGen were recorded later, at 0345f94: d776916 does not know their rotary modules in these versions.
`PYTHONPATH=tests python -m support.models.recorded CASE` records a case of architectures.py that is new.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import transformers

#: Kinds of files of a model compiled for {n} devices, by pattern.
FILES = {
    "program": "inst/inst_{n}lpu.bin",
    "images": "param/param_{n}lpu_*.bin",
    "model": "ckpt/hyperdex_model.bin",
    "map": "config/config_{n}lpu_*.json",
}
#: Positions that cases of architectures.py are compiled for.
POSITIONS = 40
_DEVICES = {"two": 2}
_FILE = Path(__file__).with_name("recorded_bytes.json")
_RECORD = json.loads(_FILE.read_text())


def _machine() -> str:
    """A digest of numbers as this machine computes them, and of the versions that shape a trace."""
    weights = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, 64, 2, dtype=torch.int64).float() / 64)
    waves = np.cos(np.outer(frequencies.numpy(), np.arange(512, dtype=np.float32)).astype(np.float64))
    numbers = [array.tobytes() for array in (weights.numpy(), frequencies.numpy(), waves.astype(np.float32))]
    versions = f"{torch.__version__.partition('+')[0]} {transformers.__version__} {np.__version__}"
    return hashlib.sha256(b"".join([*numbers, versions.encode()])).hexdigest()[:16]


#: Empty where hashes can be compared, else the reason against it.
MACHINE = "" if _machine() == _RECORD["machine"] else "needs the processor and versions that the hashes were taken with"


def _digest(paths: Iterable[Path]) -> str:
    state = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        state.update(f"{path.name} {len(content)}\n".encode() + content)
    return state.hexdigest()[:16]


def digests(folder: Path, num_device: int = 1) -> dict[str, str]:
    """A digest for each of FILES."""
    return {kind: _digest(folder.glob(pattern.format(n=num_device))) for kind, pattern in FILES.items()}


def has_recorded_bytes(name: str, variant: str, folder: Path) -> bool:
    """Test for the recorded files in the folder of a compiled model; true where they cannot be compared.

    name: of a case of architectures.py, or `smollm2`. variant: `default`, `o0`, or `two`, the number of devices.
    """
    return bool(MACHINE) or digests(folder, _DEVICES.get(variant, 1)) == _RECORD["models"][name][variant]


def record(name: str) -> None:
    """Compiles a case of architectures.py in each variant and writes its hashes, or those that it has now."""
    from hyperdex_ir.tools import AutoCompiler
    from support.models.architectures import CASES, write_case

    models: dict[str, dict[str, dict[str, str]]] = _RECORD["models"]
    variants = {"default": {}, "o0": {"pipeline": "o0"}, "two": {"num_device": 2}}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_case(CASES[name], Path(folder, "checkpoint"), 0)
        for variant, options in variants.items():
            output = Path(folder, variant)
            AutoCompiler().compile(str(checkpoint), max_length=POSITIONS, output_dir=str(output), **options)
            models.setdefault(name, {})[variant] = digests(output, _DEVICES.get(variant, 1))
    lines = []
    for model, found in models.items():
        rows = ",\n".join(f'   "{variant}": {json.dumps(hashes)}' for variant, hashes in found.items())
        lines.append(f'  "{model}": {{\n{rows}}}')
    _FILE.write_text(f'{{"machine": "{_RECORD["machine"]}",\n "models": {{\n' + ",\n".join(lines) + "}}\n")


if __name__ == "__main__":
    if MACHINE:
        sys.exit(f"recorded.py {MACHINE}")
    record(sys.argv[1])
