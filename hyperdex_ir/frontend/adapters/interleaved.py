"""GPT-J and CodeGen: interleaved rotary positions from a table of sines and cosines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hyperdex_ir.errors import ConfigError, UnsupportedModelError
from hyperdex_ir.frontend.adapters import modules_with, set_forward
from hyperdex_ir.frontend.derived import Derived, RotaryTable, rotary_modules
from hyperdex_ir.frontend.operators import ATTENTION, ROTARY_TABLE

_TABLE = "transformer.rotary.table"
#: CodeGen's matrix has one block for each core that it was trained on: queries, values and keys, in this order.
_BLOCKS = 4

Projections = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def adapt(model: PreTrainedModel) -> dict[str, Derived]:
    """Makes each attention of a GPT-J or CodeGen one node, and its tables one table with as many positions.

    Raises ConfigError when a CodeGen's heads do not divide into its blocks, UnsupportedModelError when the sines and
    cosines of a rotary module differ from the table.
    """
    config: Any = model.config
    turned = config.rotary_dim or config.n_embd
    for module in modules_with(model, "out_proj", "num_attention_heads", "head_dim"):
        project = _fused(module) if hasattr(module, "qkv_proj") else _separate(module)
        set_forward(module, _attention(module, project, turned))
    # The formula of `create_sinusoidal_positions`.
    frequency = (1.0 / (10000 ** (torch.arange(0, turned, 2, dtype=torch.int64, device="cpu") / turned))).numpy()
    column = np.repeat(np.arange(len(frequency)), 2)
    table = RotaryTable(_TABLE, config.n_positions, turned, frequency, column, np.float32(1), "default")
    for path, module in list(rotary_modules(model)):
        with torch.device("cpu"):
            _check(path, type(module)(config), table, config.n_positions - 1)
        set_forward(module, _no_embeddings)
    return {_TABLE: table}


def _check(path: str, module: torch.nn.Module, table: RotaryTable, last: int) -> None:
    """Compares a module's sines and cosines with the table, at the first positions and at the last."""
    positions = [0, min(1, last), last]
    with torch.no_grad():
        found = module(torch.zeros(1), torch.tensor([positions]))
    rows = np.concatenate([table.rows(position, position + 1) for position in positions])
    expected = rows[:, 1, ::2], rows[:, 0, ::2]
    if len(found) != 2 or not all(map(_is_close, found, expected)):
        raise UnsupportedModelError(
            f"{path} ({type(module).__name__}): does not compute the sines and cosines of {_TABLE}"
        )


def _is_close(found: torch.Tensor, expected: np.ndarray) -> bool:
    return found.shape[1:] == expected.shape and np.allclose(found[0].numpy(), expected, rtol=0, atol=1e-5)


def _separate(module: Any) -> Projections:
    def project(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = (*x.shape[:-1], module.num_attention_heads, module.head_dim)
        return module.q_proj(x).view(shape), module.k_proj(x).view(shape), module.v_proj(x).view(shape)

    return project


def _fused(module: Any) -> Projections:
    if module.num_attention_heads % _BLOCKS:
        raise ConfigError(f"config.json: n_head is {module.num_attention_heads}, expected a multiple of {_BLOCKS}")

    def project(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = (*x.shape[:-1], module.num_attention_heads, module.head_dim)
        mixed = module.qkv_proj(x).view(*x.shape[:-1], _BLOCKS, -1)
        query, value, key = (part.reshape(shape) for part in mixed.chunk(3, dim=-1))
        return query, key, value

    return project


def _attention(module: Any, project: Projections, turned: int) -> Callable[..., tuple[torch.Tensor, None]]:
    def forward(
        hidden_states: torch.Tensor, position_ids: torch.Tensor | None = None, **_: Any
    ) -> tuple[torch.Tensor, None]:
        query, key, value = project(hidden_states)
        cos, sin = ROTARY_TABLE(position_ids, _TABLE, turned)
        query, key = (_rotated(x, cos[:, :, None], sin[:, :, None], turned) for x in (query, key))
        operands = (x.transpose(1, 2) for x in (query, key, value))
        attended = ATTENTION(*operands, module.head_dim**-0.5, None, None, None, None, False)
        return module.out_proj(attended.flatten(2)), None

    return forward


def _no_embeddings(*_: Any, **__: Any) -> None:
    """Nothing in place of sines and cosines: the replaced attention does not use them, it takes the positions."""


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, turned: int) -> torch.Tensor:
    """Rotates pairs of adjacent elements among the first `turned` elements of each head."""
    first = x[..., :turned]
    partner = torch.stack((-first[..., 1::2], first[..., ::2]), dim=-1).flatten(-2)
    return torch.cat([first * cos + partner * sin, x[..., turned:]], dim=-1)
