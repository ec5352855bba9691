"""The logits of Llama and OPT, computed from docs/arithmetic.md and a checkpoint alone.

It tests that document, so it shares no code with the package and follows the text rather than speed: one token after
the other, vectorised over the outputs of a matrix and the elements of a vector only. Section numbers are those of the
document. The one thing that a text cannot give is the float32 power of torch, on which the rotary frequencies depend:
the caller may hand them over.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

F = np.float32
LANES = 64


# Section 1: storage


def round_f16(x: Floats) -> Floats:
    """R(x) for f16, widened again."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(F)


def round_bf16(x: Floats) -> Floats:
    """R(x) for bf16, widened again."""
    bits = x.view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 & 0xFFFF
    return (np.where(np.isnan(x), 0x7FC0, upper) << 16).astype(np.uint32).view(F)


ROUND = {"f16": round_f16, "bf16": round_bf16}


def read_safetensors(path: Path) -> dict[str, Floats]:
    """Every tensor of a file, widened to float32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        raw = data[start + first : start + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(F)
        else:
            values = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]).astype(F)
        tensors[name] = values.reshape(entry["shape"])
    return tensors


class Checkpoint:
    """config.json and the parameters of a directory: matrices rounded to the matrix type, the rest float32."""

    def __init__(self, directory: Path, matrix_type: str) -> None:
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.round = ROUND[matrix_type]
        self.tensors: dict[str, Floats] = {}
        for path in sorted(directory.glob("*.safetensors")):  # a checkpoint may leave out the prefix
            self.tensors |= {name.removeprefix("model."): value for name, value in read_safetensors(path).items()}

    def matrix(self, name: str) -> Floats:
        """A parameter stored in the matrix type."""
        return self.round(self.tensors[name.removeprefix("model.")])

    def vector(self, name: str, exists: bool = True) -> Floats | None:
        """A parameter stored as f32, or None."""
        return self.tensors[name.removeprefix("model.")] if exists else None


# Sections 2 and 3: sums and MAC


def padded(x: NDArray[Any]) -> NDArray[Any]:
    """x with +0 behind the last axis, up to a multiple of 64."""
    missing = -x.shape[-1] % LANES
    return np.concatenate([x, np.zeros((*x.shape[:-1], missing), x.dtype)], axis=-1)


def fold(a: Floats) -> Floats:
    """The 64 lanes of the last axis, added up."""
    for half in (32, 16, 8, 4, 2, 1):
        a = a[..., :half] + a[..., half : 2 * half]
    return a[..., 0]


def total(x: Floats) -> np.float32:
    """sum(x) of a vector."""
    x = padded(x)
    a = np.zeros(LANES, F)
    for start in range(0, len(x), LANES):
        a = a + x[start : start + LANES]
    return F(fold(a))


def mean(x: Floats) -> np.float32:
    """mean(x) of a vector."""
    return total(x) / F(len(x))


def mac(rows: Floats, x: Floats, rounded: Any) -> Floats:
    """MAC of every row with x. The fma in f64, which is right for both matrix types: rounding twice is innocuous."""
    w = padded(rows).astype(np.float64)
    v = padded(rounded(x)).astype(np.float64)
    a = np.zeros((len(w), LANES), F)
    for start in range(0, w.shape[1], LANES):
        lanes = slice(start, start + LANES)
        a = (a.astype(np.float64) + w[:, lanes] * v[lanes]).astype(F)
    return fold(a + F(0))


# Section 5: functions


def hexes(text: str) -> list[np.float32]:
    """Float32 constants from the bits that the document gives."""
    return [np.uint32(int(word, 16)).view(F) for word in text.split()]


LN_2_HIGH, LN_2_LOW, LOG_2_E, MAGIC = hexes("3F318000 B95E8083 3FB8AA3B 4B400000")
EXP = hexes("39509521 3AB6A490 3C088870 3D2AAA72 3E2AAAAB 3F000000")
TANH = hexes("3B1641E0 BC08B50B 3CB254BB BD5D0462 3E088875 BEAAAAAB")
ERF_SMALL = hexes("38A52B48 BA522844 3BAA0938 BCDBFD5D 3DE71688 BEC0939F 3E0375D4")
ERF_LARGE = hexes("B5DBBC18 37A6A0CD B90DEDCF 3A403EFE BB6A053A 3C86E0ED 3F6C7AF0 408D6193 40ABAD99")
SQRT_HALF, SQRT_2_PI, CUBIC, QUICK = hexes("3F3504F3 3F4C422A 3D372713 3FD9DB23")


def horner(z: Floats, coefficients: list[np.float32]) -> Floats:
    """The polynomial, each product and each sum rounded."""
    value = np.full_like(z, coefficients[0])
    for c in coefficients[1:]:
        value = value * z + c
    return value


def power_of_two(exponent: NDArray[np.int32]) -> Floats:
    """2 ** exponent from its bits."""
    return ((exponent + np.int32(127)) << 23).astype(np.int32).view(F)


def exp(x: Floats) -> Floats:
    """exp(x)."""
    x = np.where(x > F(89), F(89), x)
    x = np.where(x < F(-104), F(-104), x)
    t = x * LOG_2_E + MAGIC
    n = t - MAGIC
    r = (x - n * LN_2_HIGH) - n * LN_2_LOW
    y = (horner(r, EXP) * (r * r) + r) + F(1)
    e = t.view(np.int32) - MAGIC.view(np.int32)
    h = e >> 1
    with np.errstate(over="ignore"):
        return (y * power_of_two(h)) * power_of_two(e - h)


def signed(magnitude: Floats, x: Floats) -> Floats:
    """magnitude, with the sign bit of x or-ed in."""
    return (magnitude.view(np.uint32) | (x.view(np.uint32) & np.uint32(0x80000000))).view(F)


def tanh(x: Floats) -> Floats:
    """tanh(x)."""
    a = np.abs(x)
    z = a * a
    small = a + a * (z * horner(z, TANH))
    large = F(1) - F(2) / (exp(a + a) + F(1))
    return signed(np.where(a < F(0.625), small, large), x)


def erf(x: Floats) -> Floats:
    """erf(x)."""
    a = np.abs(x)
    small = a + a * horner(a * a, ERF_SMALL)
    b = np.where(a > F(4), F(4), a)
    large = F(1) - exp(-horner(b - F(2), ERF_LARGE))
    return signed(np.where(a < F(1), small, large), x)


def sigmoid(x: Floats) -> Floats:
    """sigmoid(x)."""
    return F(1) / (F(1) + exp(-x))


def silu(x: Floats) -> Floats:
    """silu(x)."""
    return x / (F(1) + exp(-x))


def relu(x: Floats) -> Floats:
    """relu(x)."""
    return np.where(x > 0, x, F(0))


def gelu(x: Floats) -> Floats:
    """gelu(x)."""
    return (F(0.5) * x) * (F(1) + erf(x * SQRT_HALF))


def gelu_tanh(x: Floats) -> Floats:
    """gelu_tanh(x)."""
    return (F(0.5) * x) * (F(1) + tanh(SQRT_2_PI * (x + CUBIC * ((x * x) * x))))


def gelu_fast(x: Floats) -> Floats:
    """gelu_fast(x)."""
    return (F(0.5) * x) * (F(1) + tanh((x * SQRT_2_PI) * (F(1) + (CUBIC * x) * x)))


def quick_gelu(x: Floats) -> Floats:
    """quick_gelu(x)."""
    return x * sigmoid(QUICK * x)


def relu2(x: Floats) -> Floats:
    """relu2(x)."""
    return relu(x) * relu(x)


ACTIVATIONS = {
    "relu": relu,
    "relu2": relu2,
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_fast": gelu_fast,
    "quick_gelu": quick_gelu,
    "sigmoid": sigmoid,
    "tanh": tanh,
}


# Sections 6 and 7: norms and rotary positions


def rsqrt(x: np.float32) -> np.float32:
    """1 / sqrt(x)."""
    return F(1) / np.sqrt(x)


def rms_norm(x: Floats, weight: Floats | None, epsilon: np.float32) -> Floats:
    """RMSNorm of a row."""
    y = x * rsqrt(mean(x * x) + epsilon)
    return y if weight is None else y * weight


def layer_norm(x: Floats, weight: Floats | None, bias: Floats | None, epsilon: np.float32) -> Floats:
    """LayerNorm of a row."""
    c = x - mean(x)
    y = c * rsqrt(mean(c * c) + epsilon)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def head_size(config: dict[str, Any]) -> int:
    """d of a Llama."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def frequencies(config: dict[str, Any]) -> Floats:
    """The inverse frequencies of the rules default and llama3, with a power rounded from f64 (torch's may differ)."""
    d = head_size(config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = rope.get("rope_theta") or config.get("rope_theta", 10000.0)
    exponents = np.arange(0, d, 2).astype(F) / F(d)
    f = F(1) / (np.float64(base) ** exponents.astype(np.float64)).astype(F)
    if rope.get("rope_type", "default") == "default":
        return f
    if rope["rope_type"] == "linear":
        return f / F(rope["factor"])
    if rope["rope_type"] != "llama3":
        raise NotImplementedError(rope["rope_type"])
    factor, low = F(rope["factor"]), F(rope["low_freq_factor"])
    length = rope["original_max_position_embeddings"]
    wavelength = F(1) / f * F(2 * math.pi)
    smooth = (F(1) / wavelength * F(length) - low) / F(rope["high_freq_factor"] - rope["low_freq_factor"])
    between = (F(1) - smooth) * f / factor + smooth * f
    long = wavelength > F(length / rope["low_freq_factor"])
    short = wavelength < F(length / rope["high_freq_factor"])
    return np.where(long, f / factor, np.where(short, f, between))


def rotated(head: Floats, f: Floats, position: int, scaling: np.float32) -> Floats:
    """A head rotated to its position, half style."""
    half = len(f)
    angle = (f * F(position)).astype(np.float64)
    cos = np.tile(np.cos(angle).astype(F) * scaling, 2)
    sin = np.tile(np.sin(angle).astype(F) * scaling, 2)
    x = head[: 2 * half]
    r = np.concatenate([-x[half:], x[:half]])
    return np.concatenate([x * cos + r * sin, head[2 * half :]])


# Section 8: attention


@dataclass(frozen=True)
class Attention:
    """What an attention may have besides its scale: a window, a softcap, a slope and a sink for each query head."""

    window: int = 0
    cap: np.float32 | None = None
    slopes: Floats | None = None
    bf16_bias: bool = False
    sinks: Floats | None = None

    def bias(self, h: int, p: int, scale: np.float32) -> Floats:
        """b[j] of head h for all j up to p."""
        j = np.arange(p + 1)
        if self.slopes is None:
            return np.zeros(p + 1, F)
        if self.bf16_bias:
            return round_bf16(self.slopes[h] * round_bf16(j.astype(F))) * scale
        return self.slopes[h] * (j - p).astype(F)


@dataclass
class Cache:
    """The rounded keys and values of a layer's positions so far, each [heads, d]."""

    keys: list[Floats]
    values: list[Floats]

    def attend(self, q: Floats, scale: np.float32, rounded: Any, more: Attention = Attention()) -> Floats:
        """The outputs of all query heads side by side for the newest position."""
        keys, values = np.stack(self.keys), np.stack(self.values)
        position = len(keys) - 1
        unseen = np.arange(position + 1) <= (position - more.window if more.window else -1)
        outputs = []
        for h in range(len(q)):
            g = h * keys.shape[1] // len(q)
            s = mac(keys[:, g], q[h], rounded) * scale
            if more.cap is not None:
                s = tanh(s / more.cap) * more.cap
            if more.slopes is not None:
                s = s + more.bias(h, position, scale)
            m = s[~unseen][0]
            for score in s[~unseen][1:]:
                m = m if m > score else score
            if more.sinks is not None:
                m = m if m > more.sinks[h] else more.sinks[h]
            e = np.where(unseen, F(0), exp(s - m))
            t = total(e)
            if more.sinks is not None:
                t = t + exp(np.array([more.sinks[h] - m]))[0]
            outputs.append(mac(values[:, g].T, e / t, rounded))
        return np.concatenate(outputs)


# Sections 4, 11 and 12: linear layers and models


class Linear:
    """A linear layer with or without a bias."""

    def __init__(self, checkpoint: Checkpoint, name: str, bias: bool) -> None:
        self.rounded = checkpoint.round
        self.weight = checkpoint.matrix(f"{name}.weight")
        self.bias = checkpoint.vector(f"{name}.bias", bias)

    def __call__(self, x: Floats) -> Floats:
        """Steps 1 and 2."""
        y = mac(self.weight, x, self.rounded)
        return y if self.bias is None else y + self.bias


class Norm:
    """A LayerNorm of OPT."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        affine = checkpoint.config.get("layer_norm_elementwise_affine", True)
        self.weight = checkpoint.vector(f"{name}.weight", affine)
        self.bias = checkpoint.vector(f"{name}.bias", affine)

    def __call__(self, x: Floats) -> Floats:
        """The norm of a row."""
        return layer_norm(x, self.weight, self.bias, F(1e-5))


def llama_logits(
    directory: Path, tokens: list[int], matrix_type: str, f: Floats | None = None, scaling: float = 1.0
) -> Floats:
    """The logits [tokens, vocabulary] of a Llama. f and scaling: the rotary frequencies, and the attention scaling."""
    ckpt = Checkpoint(directory, matrix_type)
    config, rounded = ckpt.config, ckpt.round
    f = frequencies(config) if f is None else f
    d, epsilon = head_size(config), F(config["rms_norm_eps"])
    scale = F(float(d) ** -0.5)
    activation = ACTIVATIONS[config.get("hidden_act", "silu")]
    of_attention, of_mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    biases = {f"self_attn.{name}_proj": of_attention for name in "qkvo"}
    biases |= {f"mlp.{name}_proj": of_mlp for name in ("gate", "up", "down")}
    layers = []
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{number}."
        linears = {name: Linear(ckpt, prefix + name, bias) for name, bias in biases.items()}
        norms = [ckpt.vector(f"{prefix}{name}_layernorm.weight") for name in ("input", "post_attention")]
        layers.append((linears, norms, Cache([], [])))
    embedding = ckpt.matrix("model.embed_tokens.weight")
    head = embedding if config.get("tie_word_embeddings", False) else ckpt.matrix("lm_head.weight")
    logits = []
    for p, token in enumerate(tokens):
        h = embedding[token]
        for linear, norms, cache in layers:
            x = rms_norm(h, norms[0], epsilon)
            q, k, v = (linear[f"self_attn.{name}_proj"](x).reshape(-1, d) for name in "qkv")
            q = np.stack([rotated(row, f, p, F(scaling)) for row in q])
            k = np.stack([rotated(row, f, p, F(scaling)) for row in k])
            cache.keys.append(rounded(k))
            cache.values.append(rounded(v))
            h = linear["self_attn.o_proj"](cache.attend(q, scale, rounded)) + h
            x = rms_norm(h, norms[1], epsilon)
            gate = activation(linear["mlp.gate_proj"](x))
            h = linear["mlp.down_proj"](gate * linear["mlp.up_proj"](x)) + h
        h = rms_norm(h, ckpt.vector("model.norm.weight"), epsilon)
        logits.append(mac(head, h, rounded))
    return np.stack(logits)


def opt_logits(directory: Path, tokens: list[int], matrix_type: str) -> Floats:
    """The logits [tokens, vocabulary] of an OPT."""
    ckpt = Checkpoint(directory, matrix_type)
    config, rounded = ckpt.config, ckpt.round
    d = config["hidden_size"] // config["num_attention_heads"]
    scale, before = F(float(d) ** -0.5), config.get("do_layer_norm_before", True)
    activation = ACTIVATIONS[config.get("activation_function", "relu")]
    names = [*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")), "fc1", "fc2"]
    layers = []
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.decoder.layers.{number}."
        linears = {name: Linear(ckpt, prefix + name, config.get("enable_bias", True)) for name in names}
        norms = [Norm(ckpt, f"{prefix}{name}_layer_norm") for name in ("self_attn", "final")]
        layers.append((linears, norms, Cache([], [])))
    embedding = ckpt.matrix("model.decoder.embed_tokens.weight")
    positions = ckpt.matrix("model.decoder.embed_positions.weight")
    projected = config["word_embed_proj_dim"] != config["hidden_size"]
    last = before and not config.get("_remove_final_layer_norm", False)
    head = embedding if config.get("tie_word_embeddings", True) else ckpt.matrix("lm_head.weight")
    logits = []
    for p, token in enumerate(tokens):
        h = embedding[token]
        if projected:
            h = mac(ckpt.matrix("model.decoder.project_in.weight"), h, rounded)
        h = h + positions[p + 2]
        for linear, norms, cache in layers:
            x = norms[0](h) if before else h
            q = linear["self_attn.q_proj"](x) * scale
            cache.keys.append(rounded(linear["self_attn.k_proj"](x)).reshape(-1, d))
            cache.values.append(rounded(linear["self_attn.v_proj"](x)).reshape(-1, d))
            h = linear["self_attn.out_proj"](cache.attend(q.reshape(-1, d), F(1), rounded)) + h
            h = h if before else norms[0](h)
            x = norms[1](h) if before else h
            h = linear["fc2"](activation(linear["fc1"](x))) + h
            h = h if before else norms[1](h)
        if last:
            h = Norm(ckpt, "model.decoder.final_layer_norm")(h)
        if projected:
            h = mac(ckpt.matrix("model.decoder.project_out.weight"), h, rounded)
        logits.append(mac(head, h, rounded))
    return np.stack(logits)
