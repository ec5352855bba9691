"""Single operators: what each is imported as, and how those that cannot be are reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.models.evaluate import evaluate
from support.models.graphs import graph_of
from torch import Tensor, nn
from torch.nn import functional

from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import UnsupportedModelError, UnsupportedOpError
from hyperdex_ir.frontend.importer import import_graph
from hyperdex_ir.frontend.operators import ROTARY_TABLE
from hyperdex_ir.frontend.prescan import check_supported, find_unsupported

TOKENS = [3, 1, 4, 1, 5]


class Toy(nn.Module):
    """[1, T] ids -> [1, T, 12] features -> a function of them."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.embed = nn.Embedding(10, 12)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 12))
        self.function = function

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self.function(self.embed(input_ids), self.gain)


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sub": lambda x, w: x - w,
    "sub-number": lambda x, w: x - 3,
    "rsub": lambda x, w: 2.5 - x,
    "torch-rsub": lambda x, w: torch.rsub(x, w),
    "div": lambda x, w: x / w,
    "div-number": lambda x, w: x / 3.0,
    "number-div": lambda x, w: 1.0 / (x + 9),
    "mul-sum": lambda x, w: x * w + x * 2 + 1,
    "max-min": lambda x, w: torch.maximum(x, w) + torch.minimum(x, w) * 2,
    "pow-2": lambda x, w: x.pow(2),
    "pow-3": lambda x, w: x**3,
    "square": lambda x, w: x.square(),
    "mean": lambda x, w: x - x.mean(-1, keepdim=True),
    "mean-dropped": lambda x, w: x * x.mean(dim=2).unsqueeze(-1),
    "sum": lambda x, w: x * x.sum((-1,), keepdim=True),
    "roots": lambda x, w: torch.sqrt(x * x + 1) + torch.rsqrt(x * x + 2),
    "exponentials": lambda x, w: x.exp() + x.tanh() * 2 + x.erf() * 3 + x.sigmoid() * 4,
    "negative": lambda x, w: -x,
    "activations": lambda x, w: functional.relu(x) + 2 * functional.silu(x),
    "gelu": lambda x, w: functional.gelu(x) + 2 * functional.gelu(x, approximate="tanh"),
    "layer-norm-computed": lambda x, w: functional.layer_norm(x, (12,), w + 1, w * 2),
    "rms-norm-computed": lambda x, w: functional.rms_norm(x, (12,), w * w, 1e-3),
    "concatenation-with-nothing": lambda x, w: torch.cat((x[..., :7], x[..., 12:], x[..., 7:12]), -1) + w,
    "layer-norm": lambda x, w: functional.layer_norm(x, (12,), w, None, 1e-3),
    "rms-norm": lambda x, w: functional.rms_norm(x, (12,), w, 1e-3),
    "rms-norm-default": lambda x, w: functional.rms_norm(x, (12,)),
    "heads": lambda x, w: x.view(1, -1, 3, 4).transpose(1, 2).neg().permute(0, 2, 1, 3).reshape(x.shape),
    "flatten": lambda x, w: x.unflatten(-1, (3, 4)).flatten(2, 3),
    "squeeze": lambda x, w: x.squeeze(0).unsqueeze(0),
    "halves": lambda x, w: torch.cat((-x[..., 6:], x[..., :6]), dim=-1),
    "steps": lambda x, w: torch.cat((x[..., 1::2], x[..., ::2]), dim=2),
    "stack": lambda x, w: torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2),
    "stack-before": lambda x, w: torch.stack((x[..., :6], x[..., 6:]), dim=2).flatten(2),
    "repeat-interleave": lambda x, w: x * x[..., :4].repeat_interleave(3, dim=-1),
    "repeat-heads": lambda x, w: x + x[..., :6].view(1, -1, 2, 3).repeat_interleave(2, dim=2).flatten(2),
    "negative-bounds": lambda x, w: torch.cat((x[..., -4:], x[..., :-4]), dim=-1),
    "chunk": lambda x, w: torch.cat(x.chunk(3, dim=-1)[::-1], dim=-1),
    "split": lambda x, w: torch.cat(x.split(5, dim=-1)[::-1], dim=-1),
    "split-sizes": lambda x, w: torch.cat(x.split([2, 3, 7], dim=2)[::-1], dim=2),
    "select": lambda x, w: x * x.view(1, -1, 3, 4)[:, :, 1, -1].unsqueeze(-1),
    "all-tokens": lambda x, w: x[:, 0:, :] + x[0:],
    "expand": lambda x, w: x + x[..., :1].expand(-1, -1, 12),
    "nothing": lambda x, w: functional.dropout(x.to(torch.float32), 0.5, False).contiguous().clone().detach(),
    "clamp": lambda x, w: x.clamp(-0.5, 0.7) + 2 * x.clamp(min=0.1) + 3 * x.clip(max=0.2) + 4 * x.clamp_min(-0.3),
    "in-place": lambda x, w: (x * 2).clamp_(-0.5, 0.5).add_(x).mul_(w),
    "in-place-of-a-view": lambda x, w: (x * 2).view(1, -1, 3, 4).neg_().flatten(2),
    "rectifiers": lambda x, w: functional.relu6(8 * x) + 2 * functional.leaky_relu(x) + functional.hardswish(4 * x),
    "prelu": lambda x, w: functional.prelu(x, w[:1]),
    "mish": lambda x, w: functional.mish(9 * x),
    "softplus": lambda x, w: functional.softplus(9 * x),
    "expm1": lambda x, w: torch.expm1(x) + 2 * torch.expm1(5 * x) + torch.expm1(1e-5 * x),
    "where": lambda x, w: torch.where(x > 0, x * x, x - w) + 2 * torch.where(x > 0.4, w, x),
    "no-grad": lambda x, w: torch.no_grad()(lambda y: y * 2)(x) + x,
}


@pytest.mark.parametrize("name", list(CASES))
def test_operators_mean_what_torch_computes(name: str) -> None:
    torch.manual_seed(0)
    toy = Toy(CASES[name]).double()
    with torch.no_grad():
        expected = toy(torch.tensor([TOKENS]), torch.arange(5)[None])[0].numpy()
    parameters = {key: value.numpy().copy() for key, value in toy.state_dict().items()}
    module = import_graph(graph_of(toy.float()), target="u55c", max_length=8, matrix_type="bf16")
    np.testing.assert_allclose(evaluate(module, lambda key: parameters[key], TOKENS), expected, atol=1e-6)


def test_scalars_become_constants() -> None:
    module = import_graph(graph_of(Toy(lambda x, w: 2.5 - x)), target="u55c", max_length=8, matrix_type="f16")
    (constant,) = [op for op in module.walk() if isinstance(op, lpu.ConstantOp)]
    (difference,) = [op for op in module.walk() if isinstance(op, lpu.SubOp)]
    assert constant.value.value.data == 2.5
    assert difference.lhs is constant.res


def test_positions_with_an_offset() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(16, 4)

        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            torch.cumsum(torch.ne(position_ids * 2, input_ids), -1)  # as masks do: nothing depends on it
            return self.places(position_ids + 5 - 2)

    module = import_graph(graph_of(Learned()), target="u55c", max_length=13, matrix_type="f16")
    (embedding,) = [op for op in module.walk() if isinstance(op, lpu.EmbeddingOp)]
    assert embedding.offset.value.data == 3


class Block(nn.Module):
    """Mixes tokens in ways that no machine of ours does."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cumsum(x, dim=1)
        x = x + torch.sin(x)
        x = torch.sub(x, x, alpha=2)
        return x.half().float()


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 12)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        x = x.pow(0.5) * position_ids[..., None]
        return x[:, :2].sum(1) + x.mean(1, keepdim=True)


def test_everything_unsupported_is_listed_at_once() -> None:
    unsupported = find_unsupported(graph_of(Odd()))
    assert unsupported == sorted(unsupported)
    found = {(op.name, op.reason, op.count, op.path) for op in unsupported}
    assert found >= {
        ("aten.cumsum.default", "", 2, "blocks.0"),
        ("aten.sin.default", "", 2, "blocks.0"),
        ("aten.sub.Tensor", "alpha=2", 2, "blocks.0"),
        ("aten.to.dtype", "cast from float32 to float16", 2, "blocks.0"),
        ("aten.to.dtype", "cast from float16 to float32", 2, "blocks.0"),
        ("aten.pow.Tensor_Scalar", "exponent 0.5, supported are 2 and 3", 1, "Toy"),
        ("aten.mean.dim", "dimensions [1], supported is the last one", 1, "Toy"),
        ("aten.slice.Tensor", "takes some of the tokens", 1, "Toy"),
    }
    by_name = {op.name: op for op in unsupported}
    assert by_name["aten.sin.default"].source.startswith("test_frontend_import.py:")
    assert by_name["aten.cumsum.default"].nearest == "aten.sum.dim_IntList"
    assert by_name["aten.sub.Tensor"].nearest == ""


def test_the_error_is_one_line() -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        return torch.div(torch.cos(x), x, rounding_mode="floor") + torch.atanh(torch.cos(x))

    with pytest.raises(UnsupportedOpError) as caught:
        check_supported(graph_of(Toy(function)))
    line = Toy.forward.__code__.co_firstlineno + 1
    assert str(caught.value) == (
        "Toy: 3 unsupported operations: "
        f"aten.atanh.default x1 (first in Toy, test_frontend_import.py:{line}, nearest supported aten.tanh.default); "
        f"aten.cos.default x2 (first in Toy, test_frontend_import.py:{line}); "
        f"aten.div.Tensor_mode x1 (first in Toy, test_frontend_import.py:{line}, nearest supported aten.div.Scalar)"
    )


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, w: x * x.shape[1], "depends on the number of tokens"),
        (lambda x, w: x[:, :2], "takes some of the tokens"),
        (lambda x, w: x.flatten(1, 2)[..., None], "computed from the number of tokens"),
        (lambda x, w: functional.linear(x, w.view(12, 1) * w), "a weight that is computed"),
        (lambda x, w: functional.layer_norm(x.view(1, -1, 3, 4), (3, 4)), "normalized_shape [3, 4]"),
        (lambda x, w: torch.cat((x, x), dim=1), "computed from the number of tokens"),
        (lambda x, w: x[:, 1], "works along the tokens"),
        (lambda x, w: x + x[..., 12:].sum(-1, keepdim=True), "an empty slice"),
        (lambda x, w: x + torch.cat((x[..., 12:], x[..., 12:]), -1).sum(-1, keepdim=True), "nothing but empty"),
        (lambda x, w: functional.dropout(x, 0.5, True), "dropout of a model in training"),
        (lambda x, w: torch.addmm(w, x[0], w.view(12, 1) * w)[None], "a weight that is computed"),
        (lambda x, w: torch.addmm(w, x[0], w.view(12, 1) * w, alpha=2)[None], "alpha=2"),
        (lambda x, w: x.clamp(2, 1), "bounds 2 and 1"),
        (lambda x, w: functional.leaky_relu(x, 2.0), "negative_slope=2.0"),
        (lambda x, w: functional.softplus(x, beta=2), "beta=2"),
        (lambda x, w: functional.prelu(x.transpose(1, 2), w).transpose(1, 2), "slopes, supported is one"),
        (lambda x, w: torch.where(x > w, x, w), ""),
        (lambda x, w: torch.where(x < 1, x, w), ""),
        (lambda x, w: x * (x > 1), "a comparison for something else than a choice"),
        (lambda x, w: torch.where(x > 1, 2.0, x), ""),
    ],
)
def test_refused_arguments(function: Callable[[Tensor, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        check_supported(graph_of(Toy(function)))
    assert reason in str(caught.value)


def test_a_matrix_is_no_vector() -> None:
    class Both(Toy):
        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            return self.embed(input_ids) * self.embed.weight[0]

    with pytest.raises(UnsupportedOpError, match="a parameter that is a matrix elsewhere"):
        check_supported(graph_of(Both(lambda x, w: x)))


class Turned(nn.Module):
    """A product with a matrix as it is stored, and the product with it the other way round when `both`."""

    def __init__(self, both: bool):
        super().__init__()
        self.embed = nn.Embedding(10, 12)
        self.matrix = nn.Parameter(torch.randn(12, 12 if both else 5))
        self.bias = nn.Parameter(torch.randn(self.matrix.shape[1]))
        self.both = both

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        turned = torch.addmm(self.bias, x.view(-1, 12), self.matrix)[None]
        return turned + functional.linear(x, self.matrix) if self.both else turned


def test_a_matrix_is_not_taken_both_ways_round() -> None:
    with pytest.raises(UnsupportedOpError, match="taken the other way round elsewhere"):
        check_supported(graph_of(Turned(both=True)))


def test_a_transposed_matrix() -> None:
    graph = graph_of(Turned(both=False))
    assert graph.transposed == {"matrix"}
    module = import_graph(graph, target="u55c", max_length=8, matrix_type="f16")
    shapes = {op.key_names[0]: lpu.shape_of(op.res) for op in module.walk() if isinstance(op, lpu.WeightOp)}
    assert shapes == {"embed.weight": (10, 12), "matrix": (5, 12), "bias": (5,)}


@pytest.mark.slow
def test_changes_of_what_outlives_a_pass_are_refused() -> None:
    class Counting(Toy):
        def __init__(self) -> None:
            super().__init__(lambda x, w: x)
            self.seen = nn.Buffer(torch.zeros(12))

        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            return self.embed(input_ids) + self.seen.add_(1)

    with pytest.raises(UnsupportedOpError, match=r"aten.add_.Tensor x1 .*changes an operand in place"):
        check_supported(graph_of(Counting()))


def test_buffers_that_no_checkpoint_holds() -> None:
    class Scaled(Toy):
        def __init__(self) -> None:
            super().__init__(lambda x, w: x)
            self.register_buffer("factor", torch.ones(12), persistent=False)

        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            return self.embed(input_ids) * self.factor

    with pytest.raises(UnsupportedModelError, match="Toy: not in any checkpoint: factor"):
        import_graph(graph_of(Scaled()), target="u55c", max_length=8, matrix_type="f16")


def test_buffers_that_are_derived() -> None:
    """One number is a constant, known before any checkpoint is read; others are carried like a weight."""

    class Scaled(Toy):
        def __init__(self) -> None:
            super().__init__(lambda x, w: x)
            self.register_buffer("factor", torch.ones(12), persistent=False)
            self.register_buffer("scale", torch.tensor(1.0), persistent=False)

        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            return self.embed(input_ids) * self.scale * self.factor

    graph = graph_of(Scaled(), scale=np.array(2.5, np.float32), factor=np.ones(12, np.float32))
    module = import_graph(graph, target="u55c", max_length=8, matrix_type="f16")
    assert [op.key_names for op in module.walk() if isinstance(op, lpu.WeightOp)] == [("embed.weight",), ("factor",)]
    assert [op.value.value.data for op in module.walk() if isinstance(op, lpu.ConstantOp)] == [2.5]


def test_rotary_tables_come_in_the_order_of_their_keys() -> None:
    """Models that go through a set of them trace in an order that changes from process to process."""

    class Tables(Toy):
        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            tables = [ROTARY_TABLE(position_ids, key, 12) for key in ("b", "c", "a")]
            return self.embed(input_ids) + tables[1][0] + tables[0][1] * tables[2][0]

    module = import_graph(graph_of(Tables(lambda x, w: x)), target="u55c", max_length=8, matrix_type="f16")
    keys = [op.key_names for op in module.walk() if isinstance(op, lpu.WeightOp)]
    assert keys == [("a",), ("b",), ("c",), ("embed.weight",)]


def test_buffers_that_checkpoints_hold_are_parameters() -> None:
    class Scaled(Toy):
        def __init__(self) -> None:
            super().__init__(lambda x, w: x)
            self.register_buffer("factor", torch.ones(12))

        def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
            return self.embed(input_ids) * self.factor

    module = import_graph(graph_of(Scaled()), target="u55c", max_length=8, matrix_type="f16")
    assert [op.key_names for op in module.walk() if isinstance(op, lpu.WeightOp)] == [("embed.weight",), ("factor",)]
