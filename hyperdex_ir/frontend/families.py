"""The supported architectures: what their config.json may say, as a table. A new architecture is a new entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_LARGEST = 2**31 - 1
#: Activations of transformers whose operators the importer knows.
ACTIVATIONS = (
    "relu", "relu2", "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "sigmoid",
    "tanh",
)  # fmt: skip
#: Rules for rotary frequencies that give one set for a given length.
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")


@dataclass(frozen=True)
class Size:
    """A whole number from 1 to `most`. default: what an absent key means; optional: whether null is allowed."""

    default: int | None
    most: int = _LARGEST
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """What one architecture's config.json holds.

    sizes, numbers (positive), flags, choices: keys with their defaults, as in transformers. divisions: pairs of keys of
    which the first must be a multiple of the second. names: the keys of the summary's fields, where they differ from
    architecture to architecture. rotary: whether positions are rotary; otherwise they are learned. eos: what an absent
    eos_token_id means. token_embedding: the last components of its name.
    """

    architecture: str
    model_type: str
    sizes: dict[str, Size]
    numbers: dict[str, float] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    choices: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    divisions: tuple[tuple[str, str], ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    rotary: bool = True
    eos: Any = None
    token_embedding: str = "embed_tokens.weight"


_LLAMA = Family(
    architecture="LlamaForCausalLM",
    model_type="llama",
    sizes={
        "vocab_size": Size(32000),
        "hidden_size": Size(4096),
        "intermediate_size": Size(11008),
        "num_hidden_layers": Size(32, most=4096),
        "num_attention_heads": Size(32),
        "num_key_value_heads": Size(None, optional=True),
        "head_dim": Size(None, optional=True),
        "max_position_embeddings": Size(2048),
    },
    numbers={"rms_norm_eps": 1e-6},
    flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    choices={"hidden_act": ("silu", ACTIVATIONS)},
    divisions=(("hidden_size", "num_attention_heads"), ("num_attention_heads", "num_key_value_heads")),
    names={"intermediate": "intermediate_size"},
    eos=2,
)

_OPT = Family(
    architecture="OPTForCausalLM",
    model_type="opt",
    sizes={
        "vocab_size": Size(50272),
        "hidden_size": Size(768),
        "ffn_dim": Size(3072),
        "num_hidden_layers": Size(12, most=4096),
        "num_attention_heads": Size(12),
        "word_embed_proj_dim": Size(None, optional=True),
        "max_position_embeddings": Size(2048),
    },
    flags={
        "tie_word_embeddings": True,
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
    },
    choices={"activation_function": ("relu", ACTIVATIONS)},
    divisions=(("hidden_size", "num_attention_heads"),),
    names={"intermediate": "ffn_dim"},
    rotary=False,
    eos=2,
)

FAMILIES = {family.architecture: family for family in (_LLAMA, _OPT)}
