"""Folders of a compiled model that mean harm, made from a good one: the same number makes the same folder.

A folder has one to three faults of the kinds in FAULTS.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from hyperdex_ir.backend.lock import LOCK_FILE
from hyperdex_ir.backend.state import STAGING, STATE_FILE
from hyperdex_ir.support.locations import MARKER
from support.hostile.case import SETTINGS, TABLES, Case, edited, link, outside_names, program_text, replace
from support.hostile.checkpoints import CHECKPOINT_FAULTS
from support.hostile.edits import VALUES

#: Names of files and folders; those of bytes are not UTF-8.
NAMES: tuple[str | bytes, ...] = (
    "-rf", "--force", "a\nerror[HDX0001]: b", "\x1b[31mred\x1b[0m", "\x9b2J", "x" * 250, "$(touch started)",
    "`touch started`;", "\u202etxt.exe", b"\xff\xfe", " ", "a'b\"c", "*", ".model.safetensors.1.part", "%s%n{0}",
)  # fmt: skip


def build(root: Path, good: Path, number: int) -> tuple[Case, list[str]]:
    """Makes the folder of a number below `root`, which must not exist; what is wrong with it. Below 0: nothing."""
    case = Case(root, "model", random.Random(number))
    kinds = list(FAULTS)
    chosen = (
        [kinds[number % len(kinds)], *case.random.choices(kinds, k=number // len(kinds) % 3)] if number >= 0 else []
    )
    if "odd name of the folder" in chosen:
        case.name = case.choose(*(name for name in NAMES if name not in (" ", "x" * 250)))
    for place in (case.folder.parent, case.cwd, case.out):
        place.mkdir(parents=True)
    shutil.copytree(good, case.folder, symlinks=True)
    _write_outside(case.outside, good)
    return case, [f"{kind}: {_apply(kind, case)}" for kind in dict.fromkeys(chosen)]


def _apply(kind: str, case: Case) -> str:
    try:
        return FAULTS[kind](case)
    except OSError as error:  # an earlier fault has left no folder, say, where this one needs it
        return f"not made, {error.strerror}"


def _write_outside(outside: Path, good: Path) -> None:
    """What a person has beside the model: files of every name that a folder may lead to."""
    (outside / "documents").mkdir(parents=True)
    for number in range(3):
        (outside / "documents" / f"letter{number}.txt").write_text(f"letter {number}\n" * 9)
    (outside / "secret.pipeline").write_text("password\n")
    (outside / "key").write_text("password\n")
    os.chmod(outside / "key", 0o600)
    shutil.copytree(good, outside / "model", symlinks=True)
    for path in (outside / "model").rglob("*"):  # a compile of the folder knows its own files by this
        os.utime(path, ns=(1, 1), follow_symlinks=False)


# ---------------------------------------------------------------------------------------------------- links, devices


def _file_link(case: Case) -> str:
    path = case.choose(*case.files())
    same = case.outside / "model" / path.relative_to(case.folder)
    dangling = case.outside / "new" / path.name if case.random.random() < 0.3 else case.outside / path.name
    targets = (same, same, dangling, case.outside / "key", case.outside / "documents", path.name, path.parent)
    return link(case, path, case.choose(*targets))


def _device_link(case: Case) -> str:
    return link(
        case,
        case.choose(*case.files()),
        case.choose("/dev/zero", "/dev/stdin", "/dev/full", "/dev/tty", "/proc/self/mem"),
    )


def _folder_link(case: Case) -> str:
    path = case.folder / case.choose("ckpt", "param", "inst", "config", "repro", "ir", STAGING)
    same = case.outside / "model" / path.name
    return link(
        case, path, case.choose(same, same, case.outside / "documents", case.outside / "new", "..", ".", path.name)
    )


def _special(case: Case) -> str:
    path = case.choose(*case.files())
    kinds: dict[str, Callable[[Path], object]] = {"fifo": os.mkfifo, "socket": _socket, "folder": Path.mkdir}
    if may_make_devices(case.root):
        kinds["device"] = lambda place: os.mknod(place, 0o20666, os.makedev(1, 5))
    kind = case.choose(*kinds)
    replace(path, kinds[kind])
    return f"{path.relative_to(case.folder)} is a {kind}"


def _no_file(case: Case) -> str:
    """What is no file under the name of one that a command writes, at its place or where it is staged."""
    written = [path.relative_to(case.good) for path in sorted(case.good.rglob("*")) if path.is_file()]
    folder = case.choose("ckpt", "param", "config", "inst", "")  # not by the number of images
    names = [path for path in written if path.parts[0] == folder]
    name = case.choose(*(names or map(Path, ("manifest.json", STATE_FILE))))
    kinds: dict[str, Callable[[Path], object]] = {
        "folder": Path.mkdir,
        "folder that holds something": lambda place: (place / "inner").mkdir(parents=True),
        "fifo": os.mkfifo,
    }
    kind, where = case.choose(*kinds), case.choose("place", "staged", "all staged")
    if where == "all staged":  # a compile that has only its renames to do
        shutil.copytree(case.good, case.folder / STAGING, symlinks=True)
    replace(case.folder / (STAGING if where == "staged" else "") / name, kinds[kind])
    return f"{name} is a {kind}: {where}"


def _socket(path: Path) -> None:
    place = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{place}/{path.name}")
    finally:
        os.close(place)


def may_make_devices(folder: Path) -> bool:
    """Whether this process may make a device file."""
    try:
        os.mknod(folder / "device", 0o20666, os.makedev(1, 5))
    except OSError:
        return False
    (folder / "device").unlink()
    return True


def _odd_names(case: Case) -> str:
    folder = case.choose(case.folder, *case.folders())
    name = case.choose(*NAMES)
    path = folder / os.fsdecode(name)
    if case.random.random() < 0.5:
        path.write_text("x")
    else:
        path.mkdir()
    suffix = case.choose(".safetensors", ".bin", ".json", ".gguf", ".part")
    if len(name) < 200:
        (folder / (os.fsdecode(name) + suffix)).write_bytes(b"x")
    return f"{name!r} and with {suffix} in {folder.relative_to(case.folder)}"


def _temporaries(case: Case) -> str:
    """Links with the names that a process may give to its temporaries: `prepare` makes those of its own number."""
    (case.folder / ".hostile_temporaries").touch()
    return "links of the names .NAME.PID.part"


def prepare(case: Case) -> None:
    """What must be done in the process of the command, whose number is then known."""
    wanted = case.folder / ".hostile_temporaries"
    if not wanted.exists():
        return
    wanted.unlink()
    for path in case.files():
        for folder in (path.parent, case.folder / STAGING / path.parent.relative_to(case.folder)):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                place = folder / f".{path.name}.{os.getpid()}.part"
                place.symlink_to(case.outside / case.random.choice(("key", "made")))


# ---------------------------------------------------------------------------------------------------- state, staging
def _state(case: Case) -> str:
    value = case.load(STATE_FILE)
    names = case.random.sample(outside_names(case), 3)
    for phase in value["phases"].values():
        phase["files"] |= {name: {"bytes": 9, "mtime_ns": 1} for name in names}
    if case.random.random() < 0.5:
        value["staged"] = dict(value["phases"])
        shutil.copytree(case.good / "ckpt", case.folder / STAGING / "ckpt")
    case.store(STATE_FILE, value)
    return f"{names}"


def _staging(case: Case) -> str:
    staging = case.folder / STAGING
    shutil.copytree(case.good, staging)
    inner = case.choose("ckpt", "param", "inst", "config", "config.json", STATE_FILE, "manifest.json")
    target = case.choose(case.outside / "model" / inner, case.outside / "new")
    return link(case, staging / inner, target)


def _lock(case: Case) -> str:
    path = case.folder / LOCK_FILE
    choices: dict[str, Callable[[Path], object]] = {
        "fifo": os.mkfifo,
        "folder": Path.mkdir,
        "link to a file": lambda place: place.symlink_to(case.outside / "key"),
        "dangling link": lambda place: place.symlink_to(case.outside / "made"),
    }
    kind = case.choose(*choices)
    replace(path, choices[kind])
    return kind


# ---------------------------------------------------------------------------------------------------- tables
def _pipeline(case: Case) -> str:
    program, secret = program_text(case), case.outside / "secret.pipeline"
    texts = (
        program, f"dce,{program}", str(secret), "../outside/secret.pipeline", f'apply-pdl{{pdl-file="{secret}"}}',
        "mlir-opt[cse]", "lpu-apply-patterns{names=x}", "cse," * 100_000,
        "lower-lpu-to-isa", "isa-allocate-lmu", "lpu-propagate-sharding{num-device=1000000000000}", "", "\x1b[2J",
        "default", "nothing", "lower-lpu-to-isa{gather-chunks=1000000000000}", "{" * 9999, 7, [],
    )  # fmt: skip
    text = case.choose(*texts)
    value = case.load("manifest.json")
    value["devices"]["1"]["options"]["pipeline"] = text
    case.store("manifest.json", value)
    return repr(text)[:200]


def _manifest(case: Case) -> str:
    value, entry = case.load("manifest.json"), None
    kind = case.choose("target", "file", "file", "count", "length", "model")
    if kind == "target":
        entry = value["devices"]["1"]["target"] = case.choose(
            "../../outside/key", "/etc/passwd", "asic", "x" * 9999, "://" * 50_000, 7, None
        )
    elif kind == "file":
        entry = case.choose(*outside_names(case))
        value["devices"]["1"]["files"][entry] = {"bytes": 9, "sha256": "0" * 64}
    elif kind == "count":
        entry = case.choose("0", "-1", "9" * 4000, "1 ", "\uff12", "../2")
        value["devices"][entry] = value["devices"]["1"]
    elif kind == "length":
        entry = value["devices"]["1"]["options"]["max_length"] = case.choose(*VALUES)
    else:
        entry = value["model"] = case.choose("://" * 50_000, *VALUES)
    case.store("manifest.json", value)
    return f"{kind} {entry!r}"[:200]


def _places(case: Case) -> str:
    """Where the converted checkpoint has a parameter, as `verify` and a compile read it."""
    value = case.load("ckpt/hyperdex_config.json")
    key = case.choose("offset", "keys", "shape", "dtype", "name")
    found = case.choose(*value["tensors"])[key] = case.choose(-5, 1 << 39, "a", [[1]], *VALUES)
    case.store("ckpt/hyperdex_config.json", value)
    return f"{key} {found!r}"[:200]


def _deep(case: Case) -> str:
    """JSON that is nested deeply, endless, or no text."""
    name = case.choose(*TABLES, *SETTINGS, MARKER)
    depth = 100_000
    contents = {
        "nested": b"[" * depth + b"]" * depth,
        "objects": b'{"a":' * depth + b"1" + b"}" * depth,
        "not UTF-8": b'{"format": 2, "a": "\xff"}',
        "number": b'{"format": 2, "max_length": ' + b"9" * 100_000 + b"}",
        "empty": b"",
        "nan": b'{"format": NaN}',
    }
    kind = case.choose(*contents)
    case.put(name, contents[kind])
    return f"{name} is {kind}"


def _sparse(case: Case) -> str:
    name = case.choose(*TABLES, *SETTINGS, "param/param_1lpu_00_07.bin", "inst/inst_1lpu.bin", "model.safetensors")
    case.put(name, (case.good / name).read_bytes())
    os.truncate(case.folder / name, 8 << 30)
    return f"{name} has 8 GiB"


# ---------------------------------------------------------------------------------------------------- dumps
def _dump(case: Case) -> str:
    kind = case.choose("run", "left", "module", "escape", "long")
    for name, text in case.dumps().items():
        for part in ("run", "left"):
            marker = f"// passes {part}:\n"
            if kind == part:
                text = text.replace(marker, f"{marker}//   {program_text(case)},\n")
        if kind == "escape":
            text = text.replace('loc("', 'loc("\\1B[2J')
        elif kind == "long":
            text = text.replace("// passes left:\n", "// passes left:\n" + "//   cse,\n" * 100_000)
        elif kind == "module":
            text = text.replace("f16", case.choose("f64", "!py.object", "!x.y", "i99999999"), 3)
        case.put(name, text.encode())
    return kind


def _repro(case: Case) -> str:
    """A pass that fails writes into a folder that leads elsewhere."""
    value = case.load("manifest.json")
    value["devices"]["1"]["options"]["pipeline"] = "isa-allocate-lmu, lower-lpu-to-isa"
    case.store("manifest.json", value)
    for name, text in case.dumps().items():
        text = text.replace("// passes left:\n//   ", "// passes left:\n//   isa-allocate-lmu, ")
        case.put(name, text.encode())
    place = case.folder / "repro"
    if case.random.random() < 0.5:
        return link(case, place, case.outside / "documents")
    place.mkdir()
    return link(case, place / "command.txt", case.outside / case.choose("key", "made"))


def _assembly(case: Case) -> str:
    path = case.folder / "program.s"
    text = (case.good / path.name).read_text()
    kind = case.choose("escape", "huge", "long", "link")
    if kind == "link":
        return link(case, path, case.choose("/dev/zero", case.outside / "key", "/dev/stdin"))
    edits = {"escape": text + "\x1b[2J\x9b", "huge": text + "set r1 " + "9" * 100_000, "long": text * 200}
    case.put(path.name, edits[kind].encode())
    return kind


FAULTS: dict[str, Callable[[Case], str]] = {
    "link in place of a file": _file_link,
    "pipeline in the manifest": _pipeline,
    "names in the state": _state,
    "link in place of a folder": _folder_link,
    "entry of the manifest": _manifest,
    "special file": _special,
    "temporaries": _temporaries,
    "dump": _dump,
    "names": _odd_names,
    "staging": _staging,
    "odd name of the folder": lambda case: repr(case.name),
    "failing pass": _repro,
    "link to a device": _device_link,
    "tables": lambda case: edited(case, TABLES),
    "settings": lambda case: edited(case, SETTINGS),
    "lock": _lock,
    "deep": _deep,
    "assembly": _assembly,
    "sparse file": _sparse,
    "no file in the place of one": _no_file,
    "places of parameters": _places,
    **CHECKPOINT_FAULTS,
}
