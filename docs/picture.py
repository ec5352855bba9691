"""The picture of the README, docs/picture.svg: `python docs/picture.py --write`."""

from __future__ import annotations

import sys
from pathlib import Path

PICTURE = Path(__file__).with_suffix(".svg")
CHANNELS, TREES = 32, 16
#: Fill, stroke and text of each class, on a light page and on a dark one.
COLOURS = {
    "data": (("#eef2f7", "#8496ad", "#1f2328"), ("#1c2533", "#6e83a1", "#e6edf3")),
    "ir": (("#e3f1e6", "#4f9a62", "#1f2328"), ("#16301d", "#4f9a62", "#e6edf3")),
    "unit": (("#fdf0dc", "#c08a2b", "#1f2328"), ("#3a2a10", "#c08a2b", "#e6edf3")),
    "chip": (("none", "#8496ad", "#57606a"), ("none", "#6e83a1", "#9da7b3")),
    "wire": (("none", "#57606a", "#57606a"), ("none", "#9da7b3", "#9da7b3")),
}


def style(theme: int) -> str:
    rules = []
    for name, themes in COLOURS.items():
        fill, stroke, text = themes[theme]
        rules.append(f".{name} rect, .{name} path {{ fill: {fill}; stroke: {stroke} }} .{name} text {{ fill: {text} }}")
    rules.append(f".head {{ fill: {COLOURS['wire'][theme][1]} }}")
    return " ".join(rules)


def text(x: float, y: float, words: str, size: int = 13, weight: str = "normal", anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">{words}</text>'


def box(kind: str, x: float, y: float, width: float, height: float, title: str, *lines: str) -> str:
    """A box with a title and lines of small text, centred."""
    middle = x + width / 2
    top = y + height / 2 - 7.5 * len(lines) + 5
    words = [text(middle, top, title, 14, "bold")]
    words += [text(middle, top + 16 * number, line, 12) for number, line in enumerate(lines, 1)]
    return f'<g class="{kind}"><rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>{"".join(words)}</g>'


def arrow(
    points: list[tuple[float, float]], label: str = "", at: tuple[float, float] = (0, 0), both: bool = False
) -> str:
    """A line with a head at its end, or at both ends; a label in the place `at`."""
    line = "M" + " L".join(f"{x} {y}" for x, y in points)
    ends = 'marker-start="url(#head)" marker-end="url(#head)"' if both else 'marker-end="url(#head)"'
    words = text(*at, label, 12) if label else ""
    return f'<g class="wire"><path d="{line}" stroke-width="1.5" {ends}/>{words}</g>'


def compiler() -> list[str]:
    """The upper half: from the checkpoint to program and images."""
    return [
        box("data", 10, 20, 130, 56, "config.json", "Hugging Face model"),
        arrow([(140, 48), (205, 48)], "trace", (173, 41)),
        box("ir", 210, 20, 150, 56, "lpu dialect", "tensors, as traced"),
        arrow([(360, 48), (425, 48)], "passes", (393, 41)),
        box("ir", 430, 20, 150, 56, "lpu dialect", "fused, outlined"),
        arrow([(580, 48), (645, 48)], "lower", (613, 41)),
        box("ir", 650, 20, 150, 56, "isa dialect", "buffers, registers"),
        arrow([(800, 48), (865, 48)], "encode", (833, 41)),
        box("data", 870, 20, 120, 56, "inst/*.bin", "the program"),
        box("data", 10, 104, 130, 56, "weights", "safetensors, GGUF"),
        arrow([(140, 132), (415, 132)], "convert", (278, 125)),
        box("data", 420, 104, 170, 56, "hyperdex_model.bin", "f16 or bf16, f32"),
        arrow([(590, 132), (645, 132)], "map", (617, 125)),
        box("data", 650, 104, 150, 56, "param/*.bin", "an image a channel"),
    ]


def hbm() -> list[str]:
    """The row of channels."""
    width = 640 / CHANNELS
    cells = "".join(
        f'<rect x="{160 + number * width:g}" y="232" width="{width:g}" height="16"/>' for number in range(CHANNELS)
    )
    label = text(440, 225, f"HBM, {CHANNELS} channels: weights, KV cache, logits", 13, "bold")
    return [f'<g class="data">{cells}</g>', f'<g class="data">{label}</g>']


def trees() -> str:
    """The MAC trees: 64 lanes above, one sum below."""
    shapes = []
    for number in range(TREES):
        x = 350 + number * 16
        shapes.append(f'<path d="M{x} 318 L{x + 13} 318 L{x + 6.5} 336 Z"/>')
    return f'<g class="unit">{"".join(shapes)}</g>'


def machine() -> list[str]:
    """The lower half: the machine and its units."""
    frame = '<rect x="20" y="200" width="900" height="270" rx="10" stroke-dasharray="5 4"/>'
    return [
        f'<g class="chip">{frame}{text(906, 220, "LPU (u55c)", 13, "bold", "end")}</g>',
        *hbm(),
        box("unit", 40, 286, 110, 70, "ICP", "control: loops,", "calls, registers"),
        box("unit", 180, 286, 120, 70, "SMA", "moves data", "HBM and LMU"),
        box("unit", 330, 286, 286, 70, "", ""),
        f'<g class="unit">{text(473, 306, f"SXE: {TREES} MAC trees of 64 lanes", 14, "bold")}</g>',
        trees(),
        f'<g class="unit">{text(473, 350, "a tile of weights a cycle", 12)}</g>',
        box("unit", 650, 286, 130, 70, "VXE", "norms, softmax,", "activations"),
        box("unit", 810, 286, 90, 70, "ESL", "ring links"),
        box("data", 180, 406, 600, 44, "LMU: the scratchpad, words of 32 bits", "a row for each token in flight"),
        arrow([(240, 248), (240, 282)], both=True),
        arrow([(473, 248), (473, 282)], "weights, keys, values", (546, 270)),
        arrow([(240, 356), (240, 402)], both=True),
        arrow([(410, 402), (410, 360)], "x", (398, 385)),
        arrow([(540, 356), (540, 402)], "y", (552, 385)),
        arrow([(715, 356), (715, 402)], both=True),
        arrow([(784, 428), (855, 428), (855, 360)], both=True),
        arrow([(900, 321), (975, 321)], "next", (952, 311)),
        arrow([(930, 76), (930, 184), (95, 184), (95, 282)], "instructions, one word each", (300, 178)),
        arrow([(725, 160), (725, 228)]),
    ]


def picture() -> str:
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto-start-reverse"><path class="head" d="M0 0 L8 4 L0 8 Z"/></marker>'
    )
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 480" role="img" font-family="sans-serif">',
        "<title>From a checkpoint to program and images, and the machine that runs them</title>",
        f"<style>{style(0)} @media (prefers-color-scheme: dark) {{ {style(1)} }}</style>",
        f"<defs>{head}</defs>",
        *compiler(),
        *machine(),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PICTURE.write_text(picture(), encoding="utf-8")
    else:
        print(picture(), end="")
