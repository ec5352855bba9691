"""Faults of a hostile folder's checkpoint: tokenizer, chat template, code, weights, GGUF file, mark of a download."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperdex_ir.support.locations import MARKER
from support.hostile.case import SETTINGS, Case, edited, link, outside_names, replace
from support.hostile.edits import edit_json

ENDLESS = "{% for a in range(99999999) %}{% for b in range(99999999) %}{% endfor %}{% endfor %}"
TEMPLATES: tuple[Any, ...] = (
    ENDLESS, "{{ 7 ** 30000000 }}", "{{ 'x' * 1000000000 }}", "{{ 1 / 0 }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{",
    "{{ ''.__class__.__mro__ }}", "{{ messages.__init__.__globals__ }}", 7, [], {}, None, ["x"], "\x1b[2J", "\ud800",
    "{% include '/etc/passwd' %}",
)  # fmt: skip


def _tokenizer(case: Case) -> str:
    value = case.load("tokenizer.json")
    kind = case.choose("edit", "unknown", "added", "deep", "regex")
    if kind == "edit":
        return edited(case, ("tokenizer.json",))
    if kind == "unknown":
        value["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "nothing"}
    elif kind == "added":
        value["added_tokens"] = [{"id": case.choose(1 << 31, -1, 7), "content": "\x1b[2J", "special": True}]
    elif kind == "deep":
        value["normalizer"] = None
        for _ in range(case.choose(50, 5000)):
            value["normalizer"] = {"type": "Sequence", "normalizers": [value["normalizer"] or {"type": "NFC"}]}
        sys.setrecursionlimit(60_000)
    else:
        value["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"Regex": case.choose("(a*)*b", "(")},
            "behavior": "Isolated",
            "invert": False,
        }
    case.store("tokenizer.json", value)
    return kind


def _template(case: Case) -> str:
    template = case.choose(*TEMPLATES)
    value = case.load("tokenizer_config.json")
    value["chat_template"] = template
    case.store("tokenizer_config.json", value)
    if isinstance(template, str) and case.random.random() < 0.5:
        case.put("chat_template.jinja", template.encode("utf-8", "surrogatepass"))
    return repr(template)


def _remote_code(case: Case) -> str:
    """Classes of its own, which transformers asks on stdin whether to run."""
    for name in ("configuration_x", "modeling_x", "tokenization_x"):
        case.put(f"{name}.py", f"open({str(case.canary)!r}, 'w')\nclass X: pass\n".encode())
    name = case.choose("config.json", "tokenizer_config.json", "generation_config.json")
    value = case.load(name)
    value["auto_map"] = {
        "AutoConfig": "configuration_x.X",
        "AutoModelForCausalLM": "modeling_x.X",
        "AutoTokenizer": ["tokenization_x.X", None],
    }
    if case.random.random() < 0.5:
        value |= {"model_type": "x"} if name == "config.json" else {"tokenizer_class": "X"}
    case.store(name, value)
    return f"auto_map in {name}"


def _index(case: Case) -> str:
    name = case.choose(
        "../../outside/model/model.safetensors",
        str(case.outside / "model" / "model.safetensors"),
        *outside_names(case),
    )
    weights = {"model.embed_tokens.weight": name}
    (case.folder / "model.safetensors").unlink(missing_ok=True)
    case.store("model.safetensors.index.json", {"metadata": {}, "weight_map": weights})
    return f"index with {name!r}"[:200]


def _safetensors(case: Case) -> str:
    name = "model.safetensors"
    data = (case.good / name).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    kind = case.choose("length", "edit", "names")
    if kind == "length":
        case.put(name, struct.pack("<Q", case.choose(0, 1 << 40, (1 << 64) - 1, length - 1)) + data[8:])
        return kind
    header = json.loads(data[8 : 8 + length])
    if kind == "edit":
        edits = [("set", [case.random.randrange(99) for _ in range(3)], case.random.randrange(1 << 20))]
        header = edit_json(header, edits)
    else:
        header = {case.choose("\x1b[2J", "a\nb", "x" * 9999) + key: value for key, value in header.items()}
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    case.put(name, struct.pack("<Q", len(text)) + text + data[8 + length :])
    return kind


class _Starts:
    """An object that a pickle makes by starting a program."""

    def __init__(self, canary: Path):
        self._canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._canary}",)


def _pickle(case: Case) -> str:
    import torch

    (case.folder / "model.safetensors").unlink(missing_ok=True)
    value = {"model.embed_tokens.weight": _Starts(case.canary)}
    replace(case.folder / "pytorch_model.bin", lambda path: torch.save(value, path))
    return "pytorch_model.bin starts a program"


def _gguf(case: Case) -> str:
    (case.folder / "config.json").unlink(missing_ok=True)
    kind = case.choose("magic", "huge", "link")
    path = case.folder / "m.gguf"
    if kind == "link":
        return link(case, path, case.choose("/dev/zero", case.outside / "key"))
    count = 1 << 40 if kind == "huge" else 0
    case.put(path.name, b"GGUF" + struct.pack("<IQQ", 3, count, count) + bytes(64))
    return kind


def _marker(case: Case) -> str:
    """A folder that says it is a download of the tool's own, so that weights may be deleted."""
    value = case.choose(
        {"hub_id": "a/b", "revision": None}, {"hub_id": "../../outside/model"}, {"hub_id": "a\x1b[2J/b"}, {"hub_id": 7}
    )
    case.store(f"ckpt/{MARKER}", value)
    for name in (*SETTINGS, "model.safetensors"):
        case.put(f"ckpt/{name}", (case.good / name).read_bytes())
    target = case.outside / "model" / "model.safetensors"
    return f"{value} {link(case, case.folder / 'ckpt' / 'model.safetensors', target)}"


CHECKPOINT_FAULTS: dict[str, Callable[[Case], str]] = {
    "tokenizer": _tokenizer,
    "chat template": _template,
    "code of its own": _remote_code,
    "marker": _marker,
    "index": _index,
    "pickle": _pickle,
    "safetensors": _safetensors,
    "GGUF": _gguf,
}
