"""Values, as in transformers, of buffers that are in no checkpoint, such as the scale of Gemma's embedding."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from hyperdex_ir.frontend.derived import rotary_modules


def buffer_values(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Names and float32 values of the floating-point buffers that no checkpoint holds, except those of rotary modules.

    The model is on the meta device, and is not changed. Loading a model starts on the meta device, too: transformers
    then calls `_init_weights` for the tensors that the checkpoint lacks. The same is done here, with the buffers on the
    CPU and the parameters still without contents. A buffer that gets no value this way is not in the result.
    """
    rotary = {id(module) for _, module in rotary_modules(model)}
    values: dict[str, np.ndarray] = {}
    for path, module in model.named_modules():
        if id(module) not in rotary:
            made = _made_anew(model, module)
            values |= {f"{path}.{name}".lstrip("."): value for name, value in made.items() if np.isfinite(value).all()}
    return values


def _made_anew(model: PreTrainedModel, module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The module's own buffers that are in no checkpoint; elements that `_init_weights` does not write are NaN."""
    on_meta = {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and (buffer.is_floating_point() or _is_whole_number(buffer))
    }
    if not on_meta:
        return {}
    types = {name: buffer.dtype if buffer.is_floating_point() else torch.float32 for name, buffer in on_meta.items()}
    made = {name: torch.full(on_meta[name].shape, torch.nan, dtype=dtype) for name, dtype in types.items()}
    module._buffers.update(made)
    with torch.no_grad():
        model._init_weights(module)
    module._buffers.update(on_meta)
    return {name: buffer.float().numpy() for name, buffer in made.items()}


def _is_whole_number(buffer: torch.Tensor) -> bool:
    """Test for one integer: a factor that is whole in config.json."""
    return buffer.dim() == 0 and buffer.dtype == torch.int64
