"""Phase 0: config.json, checked without torch or transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from hyperdex_ir.errors import ConfigError, HyperdexError, UnsupportedModelError
from hyperdex_ir.frontend.config import check_config, read_config
from hyperdex_ir.frontend.families import FAMILIES
from hyperdex_ir.frontend.renamed import RENAMED

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
#: Architectures that generate text by themselves, with defaults for all keys.
WHOLE = [name for name, family in FAMILIES.items() if not (family.wrapped or family.needed)]
#: Of architectures whose defaults make no model.
SIZES = {
    "Glm4MoeForCausalLM": {"num_attention_heads": 64},
    "Dots1ForCausalLM": {"num_experts_per_tok": 2, "n_shared_experts": 1, "n_routed_experts": 4},
}
OPT: dict[str, Any] = {"architectures": ["OPTForCausalLM"], "model_type": "opt"}


def test_llama_summary() -> None:
    smollm2 = LLAMA | {
        "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30,
        "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        "eos_token_id": [2, 0], "rope_theta": 100000,
    }  # fmt: skip
    summary = check_config(smollm2, "config.json")
    assert (summary.layers, summary.heads, summary.kv_heads, summary.head_size) == (30, 9, 3, 64)
    assert (summary.hidden, summary.intermediate, summary.vocab) == (576, 1536, 49152)
    assert (summary.max_positions, summary.learned_positions) == (8192, False)
    assert (summary.eos_ids, summary.tied) == ((2, 0), True)


def test_opt_summary_with_defaults() -> None:
    summary = check_config(OPT, "config.json")
    assert (summary.layers, summary.heads, summary.kv_heads, summary.head_size) == (12, 12, 12, 64)
    assert (summary.intermediate, summary.vocab, summary.learned_positions) == (3072, 50272, True)
    assert (summary.eos_ids, summary.tied) == ((2,), True)


def test_explicit_head_size_and_no_end() -> None:
    summary = check_config(LLAMA | {"head_dim": 256, "eos_token_id": None}, "config.json")
    assert summary.head_size == 256
    assert summary.eos_ids == ()


@pytest.mark.parametrize("architectures", [{}, {"architectures": None}, {"architectures": []}])
@pytest.mark.parametrize("name", WHOLE)
def test_no_class_is_that_of_the_model_type(name: str, architectures: dict[str, Any]) -> None:
    config = of_family(name, num_key_value_heads=1, **SIZES.get(name, {}))
    named = check_config(config, "config.json")
    del config["architectures"]
    assert check_config(config | architectures, "config.json") == named


@pytest.mark.parametrize("name", WHOLE)
def test_code_beside_a_known_architecture_is_ignored(name: str) -> None:
    config = of_family(name, num_key_value_heads=1, auto_map={"AutoConfig": "x.Y"}, **SIZES.get(name, {}))
    summary = check_config(config, "d/config.json")
    (note,) = summary.notes
    assert note.startswith(f"d/config.json: auto_map is ignored: {FAMILIES[name].architecture} is built in")


def test_an_unknown_architecture_has_three_near_ones() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        check_config({"architectures": ["Qwen3_6ForCausalLM"], "model_type": "qwen3_6"}, "config.json")
    assert {"Qwen3ForCausalLM", "Qwen2ForCausalLM"} < set(str(caught.value).partition(" are ")[2].split(", "))
    assert len(str(caught.value).split("ForCausalLM")) == 5
    assert caught.value.hint == "`hyperdex models` lists all that are supported"


def test_a_model_type_with_the_class_of_another() -> None:
    """Its own defaults; any other type is still refused."""
    summary = check_config(LLAMA | {"model_type": "internlm3"}, "config.json")
    assert (summary.model_type, summary.kv_heads, summary.vocab) == ("internlm3", 2, 128512)
    with pytest.raises(ConfigError, match='expected "llama" for LlamaForCausalLM'):
        check_config(LLAMA | {"model_type": "internlm4"}, "config.json")


def test_implementations_by_their_plain_names() -> None:
    named = {"_attn_implementation": "flash_attention_2", "experts_implementation": None}
    check_config(LLAMA | named | {"_attn_implementation_autoset": True}, "config.json")


@pytest.mark.parametrize("name", list(FAMILIES))
def test_defaults_are_those_of_transformers(name: str) -> None:
    from transformers import AutoConfig

    family = FAMILIES[name]
    renamed = RENAMED.get(name)
    theirs = AutoConfig.for_model(**({"model_type": family.model_type} if renamed is None else renamed.config({})))
    keys = {} if renamed is None else renamed.keys
    ours: dict[str, Any] = {key: size.default for key, size in family.sizes.items() if size.default is not None}
    ours |= family.numbers | family.flags | {key: default for key, (default, _) in family.choices.items()}
    if family.wrapped and not hasattr(theirs, "tie_word_embeddings"):
        del ours["tie_word_embeddings"]  # the wrapper decides
    assert ours == {key: getattr(theirs, keys.get(key, key)) for key in ours}
    assert {key: only for key, (only, _) in family.fixed.items()} == {
        key: attrgetter(key)(theirs) for key in family.fixed
    }
    assert family.eos == getattr(theirs, "eos_token_id", None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"architectures": ["LlamaForCausalLN"], "model_type": "lama"},
            UnsupportedModelError,
            "nearest supported are LlamaForCausalLM, ",
        ),
        ({"architectures": ["LlamaModel"]}, UnsupportedModelError, "model_type llama: LlamaForCausalLM is wanted"),
        ({"architectures": ["LlamaForSequenceClassification"]}, UnsupportedModelError, "LlamaForCausalLM is wanted"),
        ({"architectures": [["LlamaForCausalLM"]]}, ConfigError, "expected a list of one name"),
        ({"architectures": "LlamaForCausalLM"}, ConfigError, "expected a list of one name"),
        ({"architectures": None, "model_type": None}, ConfigError, "no architectures and no model_type"),
        ({"architectures": None, "model_type": 3}, ConfigError, "model_type is 3, expected a name"),
        ({"architectures": [], "model_type": "lama"}, UnsupportedModelError, "model_type lama is not supported; the n"),
        ({"model_type": "opt"}, ConfigError, 'model_type is "opt", expected "llama"'),
        ({"quantization_config": {"quant_method": "gptq"}}, UnsupportedModelError, "weights quantized by gptq"),
        (
            {"attn_implementation": "o/n"},
            UnsupportedModelError,
            'attn_implementation is "o/n": code from the Hub is nev',
        ),
        ({"x": {"_attn_implementation": "paged|o/n"}}, UnsupportedModelError, "code from the Hub is never run"),
        ({"_attn_implementation_internal": {"": "o/n"}}, UnsupportedModelError, "code from the Hub is never run"),
        ({"experts_implementation": ["o/n"]}, UnsupportedModelError, "code from the Hub is never run"),
        ({"hidden_size": -64}, ConfigError, "hidden_size is -64, expected a whole number from 1 to 2147483647"),
        ({"hidden_size": "576"}, ConfigError, 'hidden_size is "576", expected a whole number'),
        ({"hidden_size": True}, ConfigError, "hidden_size is true, expected a whole number"),
        ({"hidden_size": 10**30}, ConfigError, "hidden_size is 1000000000000000000000000000000"),
        ({"vocab_size": 0}, ConfigError, "vocab_size is 0"),
        ({"vocab_size": None}, ConfigError, "vocab_size is null"),
        ({"num_hidden_layers": 2.5}, ConfigError, "num_hidden_layers is 2.5"),
        ({"hidden_size": 4097}, ConfigError, "hidden_size is 4097, expected a multiple of num_attention_heads 32"),
        ({"num_key_value_heads": 5}, ConfigError, "expected a multiple of num_key_value_heads 5"),
        ({"head_dim": 63}, ConfigError, "head_dim is 63, expected an even number"),
        ({"rms_norm_eps": 0}, ConfigError, "rms_norm_eps is 0, expected a positive number"),
        ({"tie_word_embeddings": "yes"}, ConfigError, 'tie_word_embeddings is "yes", expected true or false'),
        ({"hidden_act": "misch"}, UnsupportedModelError, "hidden_act misch is not supported; the nearest supported is"),
        ({"hidden_act": 3}, ConfigError, "hidden_act is 3, expected one of"),
        ({"rope_scaling": "linear"}, ConfigError, 'rope_scaling is "linear", expected an object or null'),
        ({"rope_scaling": {"type": "llama4"}}, UnsupportedModelError, "the nearest supported is llama3"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -1}}, ConfigError, "rope_scaling.factor is -1"),
        ({"eos_token_id": -1}, ConfigError, "eos_token_id is -1"),
        ({"eos_token_id": [2, "x"]}, ConfigError, 'eos_token_id is [2, "x"]'),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[HyperdexError], message: str) -> None:
    with pytest.raises(error) as caught:
        check_config(LLAMA | changes, "dir/config.json")
    assert str(caught.value).startswith("dir/config.json: ")
    assert message in str(caught.value)


def of_family(architecture: str, **changes: Any) -> dict[str, Any]:
    family = FAMILIES[architecture]
    return {"architectures": [family.architecture], "model_type": family.model_type} | changes


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (of_family("OlmoForCausalLM", clip_qkv=-8.0), ConfigError, "clip_qkv is -8.0, expected a positive number"),
        (of_family("GPTBigCodeForCausalLM", add_cross_attention=True), UnsupportedModelError, "another model"),
        (of_family("GPTBigCodeForCausalLM", n_embd=770), ConfigError, "a multiple of n_head 12"),
        (of_family("NemotronForCausalLM"), ConfigError, "num_key_value_heads is null, expected a whole number"),
        (of_family("HeliumForCausalLM", head_dim=64), ConfigError, "hidden_size 2560 / num_attention_heads 20"),
        (of_family("MistralForCausalLM", hidden_size=100), ConfigError, "a multiple of num_attention_heads 32"),
        (of_family("MistralForCausalLM", sliding_window=0), ConfigError, "sliding_window is 0, expected a whole"),
        (of_family("Qwen2ForCausalLM", max_window_layers=-1), ConfigError, "a whole number from 0"),
        (of_family("Qwen2ForCausalLM", layer_types=["full_attention"]), ConfigError, "a list of 32 values"),
        (of_family("Qwen2ForCausalLM", layer_types="full_attention"), ConfigError, "a list of 32 values, one a layer"),
        (of_family("Qwen2ForCausalLM", layer_types=["linear"] * 32), ConfigError, "one of full_attention, sliding"),
        (of_family("SmolLM3ForCausalLM", no_rope_layers=[True] * 36), ConfigError, "no_rope_layers is true, expected"),
        (of_family("GraniteSWAForCausalLM", layer_rope_theta=[-1] * 24), ConfigError, "a positive number or 0 for"),
        (of_family("GraniteSWAForCausalLM", layer_rope_theta=[1.0]), ConfigError, "a list of 24 values"),
        (of_family("Lfm2MoeForCausalLM"), ConfigError, "layer_types is null, expected a list of 32 values"),
        (of_family("PhiForCausalLM", partial_rotary_factor=0.05), ConfigError, "partial_rotary_factor is 0.05"),
        (of_family("PhiForCausalLM", partial_rotary_factor=1.5), ConfigError, "a part of the head size 64"),
        (of_family("GPTNeoXForCausalLM", rotary_pct="all"), ConfigError, 'rotary_pct is "all", expected a positive'),
        (of_family("BloomForCausalLM", slow_but_exact=True), UnsupportedModelError, "multiplied in slices"),
        (of_family("BloomForCausalLM", n_embed=63), ConfigError, "hidden_size is 63, expected a multiple of n_head 8"),
        (of_family("MptForCausalLM", attn_config={"alibi": False}), UnsupportedModelError, "other positions than"),
        (of_family("MptForCausalLM", attn_config={"qk_ln": True}), UnsupportedModelError, "attn_config.qk_ln is true"),
        (of_family("MptForCausalLM", attn_config={"clip_qkv": -1}), ConfigError, "attn_config.clip_qkv is -1"),
        (of_family("MptForCausalLM", attn_config=[]), ConfigError, "attn_config is [], expected an object or null"),
        (of_family("MptForCausalLM", no_bias=False), UnsupportedModelError, "no_bias is false: biases are not"),
        (of_family("Gemma3ForCausalLM", use_bidirectional_attention=True), UnsupportedModelError, "attend to later"),
        (of_family("Gemma3ForCausalLM", final_logit_softcapping=0), ConfigError, "expected a positive number"),
        (of_family("Gemma3ForCausalLM", rope_parameters={"rope_type": "linear"}), ConfigError, "full_attention and"),
        (
            of_family("Olmo3ForCausalLM", rope_parameters={"full_attention": {"rope_type": "warp"}}),
            UnsupportedModelError,
            "rope_parameters.full_attention.rope_type warp",
        ),
        (of_family("GlmForCausalLM", rope_scaling={"partial_rotary_factor": 0.01}), ConfigError, "that is even"),
    ],
)  # fmt: skip
def test_refusals_of_families(config: dict[str, Any], error: type[HyperdexError], message: str) -> None:
    with pytest.raises(error) as caught:
        check_config(config, "config.json")
    assert message in str(caught.value)


def test_sizes_under_other_names() -> None:
    summary = check_config(of_family("GPTBigCodeForCausalLM", n_positions=99), "config.json")
    assert (summary.layers, summary.heads, summary.kv_heads, summary.head_size) == (12, 12, 1, 64)
    assert (summary.hidden, summary.intermediate, summary.max_positions) == (768, 3072, 99)
    assert check_config(of_family("GPTBigCodeForCausalLM", multi_query=False), "config.json").kv_heads == 12
    bloom = check_config(of_family("BloomForCausalLM", n_embed=96, num_attention_heads=6), "config.json")
    assert (bloom.hidden, bloom.heads, bloom.intermediate) == (96, 6, 384)
    assert (bloom.max_positions, bloom.learned_positions) == (2048, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not valid JSON"),
        (b'{"architectures": ["Llama', "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", "holds a list, expected an object"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path)


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path)


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OPT))
    script = (
        "import sys; sys.modules.update(torch=None, transformers=None)\n"
        "from pathlib import Path; from hyperdex_ir.frontend.config import read_config\n"
        "print(read_config(Path(sys.argv[1])).layers)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.stdout, run.stderr) == ("12\n", "")
