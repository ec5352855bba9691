"""docs/tour.md: runs the commands that it shows. `python tests/docs/tour.py --write` writes the page anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from page_code import ROOT, python_blocks

PAGE = ROOT / "docs" / "tour.md"
_BLOCK = re.compile(r"^```(?:text|mlir|asm)\n((?:// |; )?\$ ([^\n]*)\n).*?^```$", re.MULTILINE | re.DOTALL)


def build(page: str, folder: Path) -> str:
    """The page with what its commands print now. The model is made and compiled in `folder`."""
    graph = f"{python_blocks(page)[0]}\nimport tour\ntour.print_graph('tiny')"
    (folder / "graph.txt").write_text(_run([sys.executable, "-c", graph], folder))

    def rerun(block: re.Match[str]) -> str:
        printed = _run(["bash", "-euo", "pipefail", "-c", block[2]], folder)
        return f"{block[0][: block.end(1) - block.start()]}{printed}```"

    return _BLOCK.sub(rerun, page)


def _run(command: list[str], folder: Path) -> str:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def print_graph(folder: str) -> None:
    """Prints the torch graph of a Llama, one node a line: module path, result, operation and inputs."""
    from hyperdex_ir.frontend import model

    traced = model.trace(Path(folder), "LlamaForCausalLM", 128)
    for node in traced.program.graph.nodes:
        modules = node.meta.get("nn_module_stack")
        if node.op != "call_function" or not modules:
            continue
        path = [name for name, _ in modules.values()][-1].removeprefix("model_.")
        inputs = ", ".join(map(str, node.args))
        print(f"{path}: {node.name} = {node.target}({inputs})")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("HYPERDEX_HOME", f"{name}/home")
        text = build(PAGE.read_text(encoding="utf-8"), Path(name))
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
