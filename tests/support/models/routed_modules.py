"""Models with routed experts as modules, written by hand: attention, a router of each kind, experts; all sizes odd."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.support.xdsl import parse_module

WIDTH, HEADS, SIZE, INNER, SHARED, EXPERTS, RANKS, VOCAB, LAYERS = 69, 3, 23, 37, 45, 9, 3, 51, 3
LENGTH = 40
#: What a router does, and the experts with it, as in Mixtral, gpt-oss and DeepSeek-V3.
KINDS = ("softmax-of-all", "softmax-of-chosen", "groups")


class _Layer:
    """The lines of one layer."""

    def __init__(self, number: int, matrix: str, ranks: int):
        self.ranks = ranks
        self.prefix = f"model.layers.{number}."
        self.number = number
        self.matrix = matrix
        self.lines: list[str] = []

    def add(self, result: str, text: str, module: str = "mlp") -> str:
        value = f"%{result}.{self.number}"
        self.lines.append(f'{value} = {text} loc("{self.prefix}{module}")')
        return value

    def weight(self, name: str, *shape: int, dtype: str = "") -> str:
        extents = "x".join(map(str, shape))
        return self.add(f"w.{name}", f'lpu.weight "{self.prefix}{name}" : tensor<{extents}x{dtype or self.matrix}>')

    def linear(self, result: str, x: str, n: int, k: int, rest: str = "", module: str = "mlp") -> str:
        weight = self.weight(f"{result}.weight", n, k)
        types = f"tensor<?x{k}xf32>, tensor<{n}x{k}x{self.matrix}> -> tensor<?x{n}xf32>"
        return self.add(result, f"lpu.linear {x} by {weight} {rest} : {types}", module)

    def binary(self, result: str, function: str, a: str, b: str, shape: str, other: str | None = None) -> str:
        types = f"(tensor<{shape}xf32>, tensor<{f'{shape}x' if other is None else other}f32>) -> tensor<{shape}xf32>"
        return self.add(result, f"lpu.{function} {a}, {b} : {types}")

    def constant(self, result: str, number: str) -> str:
        return self.add(result, f"lpu.constant {number} : tensor<f32>")

    def reduce(self, result: str, function: str, x: str, columns: int) -> str:
        return self.add(result, f"lpu.{function} {x} : (tensor<?x{columns}xf32>) -> tensor<?x1xf32>")

    def softmax(self, x: str, columns: int) -> str:
        shape = f"?x{columns}"
        most = self.reduce("most", "row_max", x, columns)
        shifted = self.binary("shifted", "sub", x, most, shape, "?x1x")
        e = self.add("e", f"lpu.exp {shifted} : tensor<{shape}xf32>")
        return self.binary("p", "div", e, self.reduce("total", "sum", e, columns), shape, "?x1x")

    def top_k(self, scores: str, more: str = "") -> str:
        return self.add(
            "chosen",
            f"lpu.top_k {scores} k {self.ranks} {more} : (tensor<?x{EXPERTS}xf32>) -> tensor<?x{self.ranks}xi64>",
        )

    def take(self, scores: str, indices: str) -> str:
        types = f"(tensor<?x{EXPERTS}xf32>, tensor<?x{self.ranks}xi64>) -> tensor<?x{self.ranks}xf32>"
        return self.add("taken", f"lpu.take_columns {scores} at {indices} : {types}")

    # ------------------------------------------------------------------------------------------------ parts
    def attention(self, h: str) -> str:
        heads, columns = f"tensor<?x{HEADS}x{SIZE}xf32>", HEADS * SIZE
        values = []
        for name in ("q", "k", "v"):
            flat = self.linear(name, h, columns, WIDTH, module="attn")
            values.append(self.add(f"{name}h", f"lpu.reshape {flat} : (tensor<?x{columns}xf32>) -> {heads}", "attn"))
        call = f"lpu.attention {', '.join(values)} slot {self.number} scale 2.000000e-01"
        attended = self.add("a", f"{call} : ({', '.join([heads] * 3)}) -> {heads}", "attn")
        flat = self.add("o.in", f"lpu.reshape {attended} : ({heads}) -> tensor<?x{columns}xf32>", "attn")
        out = self.linear("o", flat, WIDTH, columns, module="attn")
        return self.binary("h", "add", out, h, f"?x{WIDTH}")

    def router(self, kind: str, x: str) -> tuple[str, str]:
        """Indices and weights."""
        logits, taken = self.linear("router", x, EXPERTS, WIDTH), f"?x{self.ranks}"
        if kind == "softmax-of-chosen":
            indices = self.top_k(logits)
            return indices, self.softmax(self.take(logits, indices), self.ranks)
        if kind == "softmax-of-all":
            scores = self.softmax(logits, EXPERTS)
            indices = self.top_k(scores)
            weights = self.take(scores, indices)
            return indices, self.binary(
                "norm", "div", weights, self.reduce("s", "sum", weights, self.ranks), taken, "?x1x"
            )
        scores = self.add("scores", f"lpu.sigmoid {logits} : tensor<?x{EXPERTS}xf32>")
        correction = self.weight("correction", EXPERTS, dtype="f32")
        corrected = self.binary("corrected", "add", scores, correction, f"?x{EXPERTS}", f"{EXPERTS}x")
        indices = self.top_k(corrected, "groups 3 top 2")
        weights = self.take(scores, indices)
        total = self.reduce("s", "sum", weights, self.ranks)
        total = self.binary("s1", "add", total, self.constant("tiny", "1.0e-20"), "?x1", "")
        return indices, self.binary(
            "scaled",
            "mul",
            self.binary("norm", "div", weights, total, taken, "?x1x"),
            self.constant("f", "2.5"),
            taken,
            "",
        )

    def expert(self, result: str, x: str, indices: str, n: int, k: int, rest: str, of: str, to: str) -> str:
        """of, to: what follows the columns in the shapes of x and the result."""
        weight = self.weight(f"{result}.weight", EXPERTS, n, k)
        types = f"tensor<?x{k}{of}xf32>, tensor<{EXPERTS}x{n}x{k}x{self.matrix}>, tensor<?x{self.ranks}xi64>"
        return self.add(result, f"lpu.expert_linear {x} by {weight} at {indices} {rest} : {types} -> tensor<{to}xf32>")

    def gate_in_parts(self, x: str, indices: str) -> str:
        """Columns of gate and up in turns, clamped: (up + 1) * (gate * sigmoid(gate * 1.7))."""
        bias = self.weight("up.bias", EXPERTS, 2 * INNER, dtype="f32")
        rest = f"bias {bias} : tensor<{EXPERTS}x{2 * INNER}xf32>"
        both = self.expert("up", x, indices, 2 * INNER, WIDTH, rest, "", f"?x{2 * INNER}x{self.ranks}")
        shape, parts = f"?x{INNER}x{self.ranks}", []
        for start, name in enumerate(("gate", "plain")):
            cut = f"lpu.slice {both} dim 1 from {start} to {2 * INNER} {{step = 2 : i64}}"
            parts.append(self.add(name, f"{cut} : (tensor<?x{2 * INNER}x{self.ranks}xf32>) -> tensor<{shape}xf32>"))
        most = self.constant("limit", "0.5")
        gate = self.binary("gate.low", "min", parts[0], most, shape, "")
        up = self.binary("up.low", "min", parts[1], most, shape, "")
        up = self.binary("up.high", "max", up, self.constant("least", "-0.5"), shape, "")
        turned = self.binary("turned", "mul", gate, self.constant("alpha", "1.7"), shape, "")
        turned = self.add("turn", f"lpu.sigmoid {turned} : tensor<{shape}xf32>")
        glu = self.binary("glu", "mul", gate, turned, shape)
        return self.binary(
            "gated", "mul", self.binary("up1", "add", up, self.constant("one", "1.0"), shape, ""), glu, shape
        )

    def experts(self, kind: str, x: str) -> str:
        indices, weights = self.router(kind, x)
        bias = ""
        if kind == "softmax-of-chosen":
            inner = self.gate_in_parts(x, indices)
            bias = f"bias {self.weight('down.bias', EXPERTS, WIDTH, dtype='f32')} : tensor<{EXPERTS}x{WIDTH}xf32>"
        else:
            inner = self.expert("up", x, indices, 2 * INNER, WIDTH, "gated then silu", "", f"?x{INNER}x{self.ranks}")
        rest = f"{bias} sum {weights} : tensor<?x{self.ranks}xf32>"
        y = self.expert("down", inner, indices, WIDTH, INNER, rest, f"x{self.ranks}", f"?x{WIDTH}")
        if kind != "groups":
            return y
        shared = self.linear("shared.down", self.linear("shared.up", x, SHARED, WIDTH, "then silu"), WIDTH, SHARED)
        return self.binary("both", "add", y, shared, f"?x{WIDTH}")


def routed_model(kind: str, matrix: str = "f16", layers: int = LAYERS, ranks: int = RANKS) -> ModuleOp:
    """The model, flat, as after import. kind: one of KINDS; parameters: `imported.random_parameters`."""
    lines = [
        f'%table = lpu.weight "embed" : tensor<{VOCAB}x{WIDTH}x{matrix}>',
        f"%x = lpu.embedding %table at %ids : (tensor<{VOCAB}x{WIDTH}x{matrix}>, tensor<?xi64>)"
        f" -> tensor<?x{WIDTH}xf32>",
    ]
    hidden = "%x"
    for number in range(layers):
        layer = _Layer(number, matrix, ranks)
        attended = layer.attention(hidden)
        normed = layer.add("n", f"lpu.rms_norm {attended} epsilon 1.0e-05 : tensor<?x{WIDTH}xf32>")
        hidden = layer.binary("y", "add", layer.experts(kind, normed), attended, f"?x{WIDTH}")
        lines += layer.lines
    lines += [
        f'%head = lpu.weight "head" : tensor<{VOCAB}x{WIDTH}x{matrix}>',
        f"%logits = lpu.linear {hidden} by %head : tensor<?x{WIDTH}xf32>, tensor<{VOCAB}x{WIDTH}x{matrix}>"
        f" -> tensor<?x{VOCAB}xf32>",
        f"%wanted = lpu.select_rows %logits : tensor<?x{VOCAB}xf32>",
        f"func.return %wanted : tensor<?x{VOCAB}xf32>",
    ]
    body = "\n    ".join(lines)
    signature = f"@main(%ids: tensor<?xi64>, %positions: tensor<?xi64>) -> tensor<?x{VOCAB}xf32>"
    return parse_module(
        f'builtin.module attributes {{lpu.target = "u55c", lpu.max_length = {LENGTH} : i64,'
        f' lpu.matrix_type = "{matrix}"}} {{\n'
        f"  func.func {signature} {{\n    {body}\n  }}\n}}\n"
    )
