"""Types and shared parts of the table of architectures."""

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
#: Rules for rotary frequencies that have one set of frequencies for a given length.
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
#: Fields of a summary -> the keys that nearly all architectures use for them.
NAMES = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "positions": "max_position_embeddings",
}
#: The head's name in transformers, for all architectures.
HEAD = "lm_head.weight"
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class Size:
    """A whole number from `least` to `most`. default: value of an absent key. optional: True if null is allowed."""

    default: int | None
    most: int = _LARGEST
    optional: bool = False
    least: int = 1


@dataclass(frozen=True)
class Family:
    """Keys of one architecture's config.json, and the values that are supported.

    sizes, numbers (positive), flags, choices: keys with their defaults, as in transformers. lists: keys that may hold a
    list of one value a layer, and the values. layer_numbers: keys that may hold a list of one number a layer, positive
    or 0. needed: those of these keys that may not be null. divisions: pairs of keys of which the first must be a
    multiple of the second. refused: keys that must be absent, null or false, with the mechanism that each enables.
    fixed: keys (also of nested objects, `object.key`) with the only supported value, which is the default, and the
    mechanism that any other value enables. limits: pairs of keys of which the first must be at most the second.
    head_parts: the keys of the parts of a query head, if it has parts; the last part rotates. optional_numbers: keys
    (also of nested objects) of a positive number or null, with their defaults. aliases: keys -> keys that take
    precedence over them. fills_hidden: True when all heads together must be as wide as the hidden state. names: fields
    of NAMES -> their keys, where these differ. limit: number of positions when config.json does not give it.
    multi_query: the flag, true by default, that gives the model one head of keys and values. rotary: True for rotary
    positions; otherwise positions are learned, or a bias of attention if slopes is set. rotated: the key and default of
    the fraction of a head that rotates; turned: the key of the number of elements that rotate, if there is one.
    rotary_kinds: True when rope_parameters are given for each kind of layer. eos: the eos_token_id when the key is
    absent. token_embedding: the last components of the embedding's name; head: those of the head's, in checkpoints.
    activation: the activation, if no key names it. wrapped: True for a text model that has a head in wrappers only.
    sections: True if its frequencies have sections for images' positions. variants: the options that the tests run, in
    words. checked: the implementation that the logits were compared with.
    """

    architecture: str
    model_type: str
    sizes: dict[str, Size]
    numbers: dict[str, float] = field(default_factory=dict)
    optional_numbers: dict[str, float | None] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    choices: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    lists: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    layer_numbers: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
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
    head: str = HEAD
    activation: str = ""
    wrapped: bool = False
    sections: bool = False
    variants: str = ""
    checked: str = "made weights"


def sizes(
    vocab: int, hidden: int, intermediate: int, layers: int, heads: int, positions: int, **others: Size
) -> dict[str, Size]:
    """The sizes for which nearly all architectures use the same keys. others: further ones."""
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
