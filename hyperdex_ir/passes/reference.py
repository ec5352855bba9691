"""The table of passes: `python -m hyperdex_ir.passes.reference`, also printed by `hyperdex-opt --list-passes`."""

from __future__ import annotations

from xdsl.passes import ModulePass

from hyperdex_ir.passes import get_all_passes
from hyperdex_ir.passes.pipeline_text import parse_pipeline, pass_options, pipeline_names


def pass_table() -> str:
    """A Markdown table of this package's passes: summary, exactness, options, and the pipelines that run each."""
    users = {name: [one.name for one in parse_pipeline(name)] for name in pipeline_names()}
    rows = ["| pass | what it does | bits | options | in pipelines |", "| --- | --- | --- | --- | --- |"]
    for name, load in get_all_passes().items():
        cls = load()
        pipelines = ", ".join(pipeline for pipeline, names in users.items() if name in names)
        rows.append(f"| `{name}` | {_summary(cls)} | {exactness(cls)} | {_options(cls)} | {pipelines} |")
    return "\n".join(rows) + "\n"


def exactness(cls: type[ModulePass]) -> str:
    """`exact` or `rounding`, as the class declares; a pass that declares nothing has to be exact."""
    return getattr(cls, "exactness", "exact")


def _summary(cls: type[ModulePass]) -> str:
    """The first paragraph of the docstring, without the full stop."""
    paragraph = (cls.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".").replace("|", "\\|")


def _options(cls: type[ModulePass]) -> str:
    return ", ".join(f"`{name}`: {type_}" for name, type_, _ in pass_options(cls)).replace("|", "\\|")


def main() -> None:
    """Prints the table."""
    print(pass_table(), end="")


if __name__ == "__main__":
    main()
