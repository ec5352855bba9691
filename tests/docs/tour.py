"""docs/tour.md and the README: runs the commands whose output they show.

`python tests/docs/tour.py --write` writes both anew. A command is the first line of a block, after `$`, or stands in a
comment before it: `<!-- $ command -->`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from support.page_code import ROOT, python_blocks
from support.processes import forked

PAGES = (ROOT / "docs" / "tour.md", ROOT / "README.md")
_SHOWN = r"^(```(?:text|mlir|asm)\n(?:// |; )?\$ ([^\n]*)\n).*?^```$"
_HIDDEN = r"^(<!-- \$ ([^\n]*) -->\n```(?:text|mlir|asm)\n).*?^```$"


def build(folder: Path) -> dict[Path, str]:
    """The pages with what their commands print now. The model of the tour is made and compiled in `folder`."""
    make = f"{python_blocks(PAGES[0].read_text(encoding='utf-8'))[0]}\nimport tour\ntour.print_graph('tiny')"
    (folder / "graph.txt").write_text(_run(["python", "-c", make], folder))

    def rerun(block: re.Match[str]) -> str:
        return f"{block[1]}{_run(['bash', '-euo', 'pipefail', '-c', block[2]], folder)}```"

    pages: dict[Path, str] = {}
    for path in PAGES:
        pages[path] = path.read_text(encoding="utf-8")
        for form in (_SHOWN, _HIDDEN):
            pages[path] = re.sub(form, rerun, pages[path], flags=re.MULTILINE | re.DOTALL)
    return pages


def _run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = forked.shell(command, folder, environment)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def print_graph(folder: str) -> None:
    """Prints the torch graph of a Llama, one node a line: module path, result, operation and inputs."""
    from hyperdex_ir.frontend.trace import trace

    traced = trace(Path(folder), "LlamaForCausalLM")
    for node in traced.program.graph.nodes:
        modules = node.meta.get("nn_module_stack")
        if node.op != "call_function" or not modules:
            continue
        path = [name for name, _ in modules.values()][-1].removeprefix("model_.")
        inputs = ", ".join(map(str, node.args))
        print(f"{path}: {node.name} = {node.target}({inputs})")


def write() -> None:
    """Writes the pages anew."""
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("HYPERDEX_HOME", f"{name}/home")
        os.environ[forked.FOLDER_VARIABLE] = name
        for path, text in build(Path(name)).items():
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/docs/tour.py --write")
    write()
