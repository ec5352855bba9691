"""The torch operators that stand for routed experts while a model is traced; importing this registers them.

Ranks are the last dimension, as in `lpu.expert_linear`: each rank has all columns of its expert.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hyperdex_ir.errors import UnsupportedModelError
from hyperdex_ir.frontend.operators import NAMESPACE, NEVER_COMPUTED
from hyperdex_ir.isa.functions import ACTIVATIONS

#: The name under which our function is registered in transformers' interface of experts while a model is traced.
EXPERTS_NAME = "hyperdex"
#: The activations of `lpu.expert_linear`, by the torch functions that compute them.
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: partial(functional.gelu, approximate="tanh") if name == "gelu_tanh" else getattr(functional, name)
    for name in ACTIVATIONS
}


@torch.library.custom_op(f"{NAMESPACE}::expert_linear", mutates_args=())
def _expert_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    indices: torch.Tensor,
    bias: torch.Tensor | None,
    scores: torch.Tensor | None,
    activation: str | None,
    is_transposed: bool,
) -> torch.Tensor:
    raise NotImplementedError(NEVER_COMPUTED)


@_expert_linear.register_fake
def _expert_linear_shape(x, weight, indices, bias, scores, activation, is_transposed):
    rows = weight.shape[2] if is_transposed else weight.shape[1]
    columns = rows if activation is None else rows // 2
    ranks = (indices.shape[1],) if scores is None else ()
    return x.new_empty(x.shape[0], columns, *ranks)


@torch.library.custom_op(f"{NAMESPACE}::top_k", mutates_args=())
def _top_k(scores: torch.Tensor, k: int, groups: int, top_groups: int) -> torch.Tensor:
    raise NotImplementedError(NEVER_COMPUTED)


@_top_k.register_fake
def _top_k_shape(scores, k, groups, top_groups):
    return scores.new_empty(scores.shape[0], k, dtype=torch.int64)


#: (x [T, K] or [T, K, k], weight [E, N, K], or [E, K, N] if transposed, indices [T, k], bias [E, N], scores [T, k],
#: activation, is_transposed) -> [T, N, k], with scores [T, N]; with an activation its first half times the second.
EXPERT_LINEAR = torch.ops.hyperdex.expert_linear.default
#: (scores [T, E], k, groups, top_groups) -> the columns of the k largest of the best groups, [T, k] of int64
TOP_K = torch.ops.hyperdex.top_k.default


class _RanksBehind(TorchFunctionMode):
    """Moves a gate's operations from the last dimension to the one before it: ranks come after the gate's columns."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.chunk, torch.Tensor.chunk, torch.split, torch.Tensor.split):
            values, parts, *dim = args
            if kwargs.pop("dim", *dim) != -1:
                raise UnsupportedModelError("a gate of experts that does not work along its last dimension")
            return func(values, parts, dim=-2)
        if func is torch.Tensor.__getitem__ and isinstance(args[1], tuple) and args[1][0] is Ellipsis:
            return args[0][:, args[1][1]]
        return func(*args, **kwargs)


def name_gates(model: torch.nn.Module) -> None:
    """Sets `gate_activation` of each module of experts: its gate's activation, None when the gate has another form.

    The caller must own the model instance. The gates are computed, so this must not run during export.
    """
    for module in model.modules():
        if hasattr(module, "_apply_gate"):
            experts: Any = module
            experts.gate_activation = _activation_of(experts)


def _activation_of(experts: Any) -> str | None:
    """The activation with which a gate computes activation(first half) * second half, bit for bit; None when it has
    another form."""
    if not experts.has_gate:
        return None
    first, second = _probes()
    gated = experts._apply_gate(torch.cat([first, second])[None])[0].view(torch.int32)
    for name, activation in _ACTIVATIONS.items():
        if torch.equal(gated, (activation(first) * second).view(torch.int32)):
            return name
    return None


def _probes() -> tuple[torch.Tensor, torch.Tensor]:
    """First and second halves for a gate, f32 [n] each.

    Their magnitudes cover all of f32, so that no limit of a gate lies beyond them. The first half has many values in
    the range in which activations differ."""
    with torch.device("cpu"):
        powers = torch.linspace(-126, 127, 24, dtype=torch.float32).exp2() * (2 - 2**-23)  # up to the largest f32
        ends = torch.cat([powers, -powers])
        pairs = torch.cartesian_prod(torch.cat([ends, torch.linspace(-16, 16, 257, dtype=torch.float32)]), ends)
        return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


def experts_function(
    module: torch.nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Function that transformers calls for routed experts during tracing: two matrices, and the gate between them.

    Raises UnsupportedModelError, by name, for experts of another form.
    """
    experts: Any = module
    name = type(module).__name__
    # Versions of transformers before 5.20 have no such norm.
    if not experts.has_gate or getattr(experts, "has_post_expert_norm", False):
        raise UnsupportedModelError(f"{name}: experts without a gate, or with a norm, are not supported")
    biases = (experts.gate_up_proj_bias, experts.down_proj_bias) if experts.has_bias else (None, None)
    activation: str | None = experts.gate_activation
    hidden = EXPERT_LINEAR(
        hidden_states, experts.gate_up_proj, top_k_index, biases[0], None, activation, experts.is_transposed
    )
    if activation is None:
        with _RanksBehind():
            hidden = experts._apply_gate(hidden)
    return EXPERT_LINEAR(hidden, experts.down_proj, top_k_index, biases[1], top_k_weights, None, experts.is_transposed)
