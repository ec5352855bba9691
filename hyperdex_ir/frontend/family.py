"""What the table of architectures is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_LARGEST = 2**31 - 1
#: Activations of transformers whose operators the importer knows.
ACTIVATIONS = (
    "relu", "relu2", "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "sigmoid",
    "tanh", "gelu_10", "gelu_python", "gelu_python_tanh", "gelu_accurate", "hardswish", "laplace", "leaky_relu",
    "linear", "mish", "prelu", "relu6", "sqrtsoftplus", "xielu",
)  # fmt: skip
#: Rules for rotary frequencies that give one set for a given length.
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
#: Fields of a summary -> the keys that nearly all architectures have for them.
NAMES = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "positions": "max_position_embeddings",
}
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class Size:
    """A whole number from `least` to `most`. default: what an absent key means; optional: whether null is allowed."""

    default: int | None
    most: int = _LARGEST
    optional: bool = False
    least: int = 1


@dataclass(frozen=True)
class Family:
    """What one architecture's config.json holds.

    sizes, numbers (positive), flags, choices: keys with their defaults, as in transformers. lists: keys that may
    hold a list of one value a layer, and the values. divisions: pairs of keys of which the first must be a multiple
    of the second. refused: keys that must be absent, null or false, and the mechanism that they stand for. fixed:
    keys (of objects inside too, `object.key`) with the only value that is supported, which is the default, and the
    mechanism that another stands for. limits: pairs of keys of which the first must be at most the second.
    head_parts: the keys of the parts of a head of queries, of which the last rotates, where there are such.
    optional_numbers: keys, inside too, of a positive number or null, with their defaults. aliases: keys -> others
    that come before them. fills_hidden: whether all heads together must be as wide as the hidden state. names:
    fields of NAMES -> their keys, where those are others. limit: how many positions a model is made for whose
    config.json does not say. multi_query: the flag, by default true, that makes one head of all keys and values.
    rotary: whether positions are rotary; otherwise they are learned, or a bias of attention where slopes is set.
    rotated: the key and default of the part of a head that rotates, turned: the key of how many of its elements do,
    where there is one. rotary_kinds: whether rope_parameters are given for each kind of layer. eos: what an absent
    eos_token_id means. token_embedding: the last components of its name. activation: its activation, where no key
    names it. own_code: whether its checkpoints come with code (auto_map), which is not run. variants: what of its
    options the tests run, in words. checked: what its logits were compared with.
    """

    architecture: str
    model_type: str
    sizes: dict[str, Size]
    numbers: dict[str, float] = field(default_factory=dict)
    optional_numbers: dict[str, float | None] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    choices: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    lists: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    divisions: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    head_parts: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, tuple[Any, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    fills_hidden: bool = False
    names: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    multi_query: str = ""
    rotary: bool = True
    slopes: bool = False
    rotated: tuple[str, float] | None = None
    rotary_kinds: bool = False
    turned: str = ""
    eos: Any = None
    token_embedding: str = "embed_tokens.weight"
    activation: str = ""
    own_code: bool = False
    variants: str = ""
    checked: str = "made weights"


def sizes(
    vocab: int, hidden: int, intermediate: int, layers: int, heads: int, positions: int, **others: Size
) -> dict[str, Size]:
    """The sizes that nearly all architectures name alike, and others."""
    return {
        "vocab_size": Size(vocab),
        "hidden_size": Size(hidden),
        "intermediate_size": Size(intermediate),
        "num_hidden_layers": Size(layers, most=4096),
        "num_attention_heads": Size(heads),
        "max_position_embeddings": Size(positions),
        **others,
    }


def activation(default: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {"hidden_act": (default, ACTIVATIONS)}


NONE = Size(None, optional=True)
HEADS = ("hidden_size", "num_attention_heads")
GROUPS = ("num_attention_heads", "num_key_value_heads")
UNTIED = {"tie_word_embeddings": False}
PART = "partial_rotary_factor"
