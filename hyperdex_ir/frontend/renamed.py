"""Architectures that transformers has under another name only: translation of their keys and tensors.

The code that comes with such checkpoints is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers.core_model_loading import WeightRenaming


@dataclass(frozen=True)
class Renamed:
    """Translation of an architecture to transformers' names.

    architecture, model_type: the equivalent ones of transformers. keys: key of config.json -> key in transformers.
    defaults: values for keys of transformers that the architecture omits, where they differ from transformers'.
    tensors: parts of tensor names -> the parts in transformers.
    """

    architecture: str
    model_type: str
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    tensors: Mapping[str, str]

    def config(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """A config.json of the architecture as transformers would have written it."""
        ours = {self.keys.get(key, key): value for key, value in theirs.items() if key != "auto_map"}
        ours = {**self.defaults, **ours, "architectures": [self.architecture], "model_type": self.model_type}
        if ours.get("intermediate_size") is None:
            ours["intermediate_size"] = 4 * ours["hidden_size"]
        return ours

    def transforms(self) -> tuple[WeightRenaming, ...]:
        """Renamings of its tensors, for transformers' loader."""
        from transformers.core_model_loading import WeightRenaming

        return tuple(WeightRenaming(theirs, ours) for theirs, ours in self.tensors.items())


#: Architecture -> its translation.
RENAMED: dict[str, Renamed] = {
    "ExaoneForCausalLM": Renamed(
        architecture="LlamaForCausalLM",
        model_type="llama",
        keys={
            "num_layers": "num_hidden_layers",
            "layer_norm_epsilon": "rms_norm_eps",
            "activation_function": "hidden_act",
        },
        defaults={
            "vocab_size": 102400,
            "hidden_size": 2048,
            "rms_norm_eps": 1e-5,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "tie_word_embeddings": True,
        },
        tensors={
            r"^transformer\.wte\.": "model.embed_tokens.",
            r"^transformer\.ln_f\.": "model.norm.",
            r"^transformer\.h\.": "model.layers.",
            r"\.ln_1\.": ".input_layernorm.",
            r"\.ln_2\.": ".post_attention_layernorm.",
            r"\.attn\.attention\.out_proj\.": ".self_attn.o_proj.",
            r"\.attn\.attention\.": ".self_attn.",
            r"\.mlp\.c_fc_0\.": ".mlp.gate_proj.",
            r"\.mlp\.c_fc_1\.": ".mlp.up_proj.",
            r"\.mlp\.c_proj\.": ".mlp.down_proj.",
        },
    ),
}
