"""What is taken for granted about transformers, beyond what its documentation promises: all of it, and that it holds.

Each is tested with the transformers that is installed: the locked version in `make test`, both ends of the range in
`make test-latest`. Which versions that were is in CHECKED.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.requirements import Requirement
from packaging.version import Version
from safetensors.torch import load_file, save_file
from support import ROOT
from support.models.architectures import CASES
from support.models.dense_cases import SIZES
from support.models.tiny import tiny_llama_config
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, core_model_loading
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bloom import modeling_bloom
from transformers.models.falcon import modeling_falcon
from transformers.models.mpt import modeling_mpt

from hyperdex_ir.checkpoint import merging
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import name_rules
from hyperdex_ir.errors import UnsupportedModelError
from hyperdex_ir.frontend import experts, operators
from hyperdex_ir.frontend.adapters import ADAPTERS, adapt
from hyperdex_ir.frontend.derived import HeadSlopes, RotaryTable, layer_kinds, rotary_modules
from hyperdex_ir.frontend.families import FAMILIES
from hyperdex_ir.frontend.family import HEAD
from hyperdex_ir.frontend.renamed import RENAMED
from hyperdex_ir.frontend.trace import _our_functions, build_model, trace

#: The versions on which these tests have passed: the lowest of the range, and the newest that there was.
CHECKED = ("5.19.0", "5.24.0")
#: Every name of transformers that the package uses -> what is assumed of it.
ASSUMED = {
    "transformers.AttentionInterface": "register(name, function), and _global_mapping to undo it",
    "transformers.AttentionMaskInterface": "register(name, function), and _global_mapping to undo it",
    "transformers.AutoConfig": "from_pretrained(gguf_file=...), for_model(**keys)",
    "transformers.AutoModelForCausalLM": "from_config(config), from_pretrained(config=..., dtype=...)",
    "transformers.AutoModelForMultimodalLM": "from_pretrained(config=..., dtype=...)",
    "transformers.AutoTokenizer": "from_pretrained(gguf_file=...)",
    "transformers.CONFIG_MAPPING": "model type -> configuration class",
    "transformers.PreTrainedConfig": "_attn_implementation, _experts_implementation, output_router_logits may be set; "
    "get_text_config(decoder=True) is another one in a wrapper only",
    "transformers.PreTrainedModel": "_from_config, _init_weights, _keys_to_ignore_on_load_*, base_model_prefix; "
    "get_decoder(), get_input_embeddings(), get_output_embeddings() find the text part of a wrapper",
    "transformers.__version__": "",
    "transformers.dynamic_module_utils": "get_class_in_module(name, path): what would import code of a checkpoint",
    "transformers.logging": "get_verbosity(), set_verbosity(level)",
    "transformers.conversion_mapping.get_model_conversion_mapping": "(model) -> renamings and conversions, in order",
    "transformers.core_model_loading.WeightConverter": "operations, source_patterns, target_patterns; in merging.py",
    "transformers.core_model_loading.WeightRenaming": "(their pattern, our name)",
    "transformers.core_model_loading.dot_natural_key": "(name) -> the key by which names are sorted",
    "transformers.core_model_loading.rename_source_key": "(name, renamings, converters, prefix, names)",
    "transformers.integrations.moe.ExpertsInterface": "register, _global_mapping; what experts_function reads",
    "transformers.modeling_gguf_pytorch_utils.TENSOR_PROCESSORS": "architecture of a file -> TensorProcessor",
    "transformers.modeling_gguf_pytorch_utils.TensorProcessor": "(config=), process(weights=, name=, ...)",
    "transformers.modeling_gguf_pytorch_utils.get_gguf_hf_weights_map": "(model, processor) -> names",
    "transformers.modeling_outputs.BaseModelOutputWithPastAndCrossAttentions": "(last_hidden_state=)",
    "transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "model type -> architecture",
    "transformers.models.auto.modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING": "class of a configuration -> model class",
    "transformers.models.bloom.modeling_bloom.build_alibi_tensor": "(mask, heads, type) -> biases",
    "transformers.models.falcon.modeling_falcon.apply_rotary_pos_emb": "(query, key, cos, sin) -> query, key",
    "transformers.models.falcon.modeling_falcon.build_alibi_tensor": "(mask, heads, type) -> biases in bfloat16",
    "transformers.models.mpt.modeling_mpt.build_mpt_alibi_tensor": "(heads, positions) -> biases",
    "transformers.utils.logging": "is_progress_bar_enabled(), enable_progress_bar(), disable_progress_bar()",
}


def test_versions_checked_are_the_ends_of_the_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = next(one for one in map(Requirement, project["dependencies"]) if one.name == "transformers")
    assert f">={CHECKED[0].removesuffix('.0')}" in str(wanted.specifier).split(",")
    assert f"\ntransformers=={CHECKED[-1]} " in (ROOT / "requirements.lock").read_text()
    assert all(version in wanted.specifier for version in CHECKED)
    assert Version(transformers.__version__) in wanted.specifier


def used(tree: ast.Module) -> Iterator[str]:
    """The names of transformers that a module imports, or takes of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "transformers":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "transformers":
            yield f"transformers.{node.attr}"


@pytest.mark.slow
def test_every_name_of_transformers_is_listed() -> None:
    sources = sorted((ROOT / "hyperdex_ir").rglob("*.py"))
    assert {name for path in sources for name in used(ast.parse(path.read_text(encoding="utf-8")))} == set(ASSUMED)


#: Modules of `checkpoint/` that look at models of transformers.
_OF_MODELS = ("merging.py", "names.py", "pretrained.py")


def test_no_module_is_found_by_the_name_of_its_class() -> None:
    """The name of a class may be in a message only."""
    frontend = sorted((ROOT / "hyperdex_ir" / "frontend").rglob("*.py"))
    for path in (*frontend, *((ROOT / "hyperdex_ir" / "checkpoint" / name) for name in _OF_MODELS)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.Call)]
        for node in compared:
            tested = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.func]
            names = [one for part in tested for one in ast.walk(part) if isinstance(one, ast.Attribute)]
            assert not any(one.attr == "__name__" for one in names), f"{path.name}:{node.lineno}"


# ---------------------------------------------------------------------------------------------- models on meta
def case(model_type: str) -> dict[str, Any]:
    return next(SIZES | one.fields for one in CASES.values() if one.model_type == model_type)


def on_meta(model_type: str, **options: Any) -> PreTrainedModel:
    """A model as it is before it is exported."""
    config = AutoConfig.for_model(model_type, **(case(model_type) | options))
    with _our_functions():
        return build_model(config, next(one.architecture for one in FAMILIES.values() if one.model_type == model_type))


MODEL_TYPES = sorted({one.model_type for one in CASES.values()})
ROUTED = sorted({one.model_type for one in CASES.values() if "num_experts_per_tok" in one.fields})


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_rotary_modules(model_type: str) -> None:
    """They are those that are called so. All but those of adapters have a configuration, frequencies and a factor."""
    model = on_meta(model_type)
    found = dict(rotary_modules(model))
    called = {path: one for path, one in model.named_modules() if type(one).__name__.endswith("RotaryEmbedding")}
    assert found == called
    adapt(model)
    for path, module in rotary_modules(model):
        assert module.config is not None
        for kind in layer_kinds(path, module):
            RotaryTable.of_module(path, module, 8, kind)


@pytest.mark.parametrize("model_type", ["gptj", "codegen"])
def test_sines_and_cosines_of_interleaved_positions(model_type: str) -> None:
    """Those of the adapter's table, whether each layer has them or a module gives them."""
    with torch.device("cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **case(model_type)))
    rotary = [module for _, module in rotary_modules(model)]
    held = [buffer for name, buffer in model.named_buffers() if name.endswith(".embed_positions")]
    (table,) = adapt(model).values()
    assert isinstance(table, RotaryTable)
    first = table.at(50).values()[:, :, ::2]
    expected = torch.from_numpy(np.concatenate([first[:, 1], first[:, 0]], axis=1))
    assert len(held) == (1 if rotary else SIZES["num_hidden_layers"])
    for buffer in held:
        torch.testing.assert_close(buffer[:50], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", ["gptj", "codegen"])
def test_other_sines_and_cosines_are_refused(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_meta(model_type)
    rotary = dict(rotary_modules(model))
    if not rotary:
        pytest.skip(f"transformers {transformers.__version__} has no rotary module in a {model_type}")
    for kind in {type(module) for module in rotary.values()}:
        theirs = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, x, position_ids, f=theirs: f(self, x, position_ids)[::-1])
    with pytest.raises(UnsupportedModelError, match=r"transformer.rotary_emb \(\w+\): does not compute the sines"):
        adapt(model)


#: model type -> modules of each layer that are replaced, beside those of the model.
REPLACED = {"bloom": 2, "codegen": 1, "falcon": 6, "gptj": 1, "mpt": 1}


@pytest.mark.parametrize("model_type", sorted(ADAPTERS))
def test_adapters_find_their_modules(model_type: str) -> None:
    model = on_meta(model_type)
    adapt(model)
    replaced = [path for path, module in model.named_modules() if "forward" in vars(module)]
    in_layers = [path for path in replaced if re.search(r"\.\d+(\.|$)", path)]
    assert len(in_layers) == REPLACED[model_type] * SIZES["num_hidden_layers"]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(ADAPTERS))
def test_adapted_models_are_exported_with_attention_alone(model_type: str, tmp_path: Path) -> None:
    """A node for each layer, and none of the operators of transformers' own attention."""
    family = next(one for one in FAMILIES.values() if one.model_type == model_type)
    config = AutoConfig.for_model(model_type, **case(model_type), architectures=[family.architecture])
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    targets = [node.target for node in trace(tmp_path, family.architecture).program.graph.nodes]
    assert targets.count(operators.ATTENTION) == SIZES["num_hidden_layers"]
    assert not {torch.ops.aten.softmax.int, torch.ops.aten.matmul.default} & set(targets)


def test_a_missing_module_is_one_clear_error() -> None:
    model = on_meta("mpt")
    for module in model.modules():
        module._modules.pop("Wqkv", None)
    with pytest.raises(UnsupportedModelError, match=r"MptForCausalLM: transformers \S+ has no module with Wqkv"):
        adapt(model)


@pytest.mark.parametrize("model_type", ROUTED)
def test_experts(model_type: str) -> None:
    """What `experts_function` reads of them, and that their forward takes what it takes."""
    model = on_meta(model_type)
    experts.name_gates(model)
    found = [module for module in model.modules() if hasattr(module, "gate_activation")]
    assert found
    for module in found:
        one: Any = module
        assert one.has_gate
        assert not getattr(one, "has_post_expert_norm", False)
        assert one.gate_activation == (None if model_type == "gpt_oss" else "silu")
        columns = one.gate_up_proj.shape[-1 if one.is_transposed else -2]
        assert columns == 2 * one.down_proj.shape[-2 if one.is_transposed else -1]
        assert one.has_bias == hasattr(one, "gate_up_proj_bias") == hasattr(one, "down_proj_bias")
        assert one.config._experts_implementation == experts.EXPERTS_NAME


@pytest.mark.parametrize("name", ["silu", "swish", "relu", "gelu", "gelu_pytorch_tanh", "sigmoid", "tanh"])
def test_gates_are_known_by_their_values(name: str) -> None:
    model = on_meta("mixtral", hidden_act=name)
    experts.name_gates(model)
    expected = {"swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}.get(name, name)
    assert {one.gate_activation for one in model.modules() if hasattr(one, "gate_activation")} == {expected}


@pytest.mark.parametrize("name", ["relu6", "gelu_10", "leaky_relu", "quick_gelu", "relu2"])
def test_other_gates_are_none_of_them(name: str) -> None:
    model = on_meta("mixtral", hidden_act=name)
    experts.name_gates(model)
    assert {one.gate_activation for one in model.modules() if hasattr(one, "gate_activation")} == {None}


class LimitedGate:
    """A gate of SiLU with limits, as transformers has some."""

    has_gate = True

    def __init__(self, first: tuple[float | None, float | None], second: tuple[float | None, float | None]):
        self.limits = first, second

    def _apply_gate(self, x: torch.Tensor) -> torch.Tensor:
        """Values f32 [1, 2 n] -> [1, n]."""
        gate, up = (
            half if limits == (None, None) else half.clamp(*limits)
            for half, limits in zip(x.chunk(2, -1), self.limits, strict=True)
        )
        return torch.nn.functional.silu(gate) * up


@pytest.mark.parametrize("limit", [0.25, 7.0, 16.0, 20.0, 1e4, 3e38])
def test_a_limit_of_a_gate_is_seen_however_far_it_is(limit: float) -> None:
    no = (None, None)
    assert experts._activation_of(LimitedGate(no, no)) == "silu"
    for limits in ((limit, None), (None, limit), (-limit, limit)):
        assert experts._activation_of(LimitedGate(no, limits)) is None
    assert experts._activation_of(LimitedGate((None, limit), no)) is None
    if limit < 80:  # SiLU is -0 from there on
        assert experts._activation_of(LimitedGate((-limit, None), no)) is None


# -------------------------------------------------------------------------------------------------- interfaces
def test_attention_is_called_as_ours_takes_it() -> None:
    theirs, ours = (
        list(inspect.signature(function).parameters)
        for function in (sdpa_attention_forward, operators.attention_function)
    )
    assert theirs[:5] == ours[:5] == ["module", "query", "key", "value", "attention_mask"]
    assert "scaling" in theirs


def test_masks_are_told_the_window() -> None:
    assert "local_size" in inspect.signature(sdpa_mask).parameters


@pytest.mark.parametrize("heads", [4, 6])
@pytest.mark.parametrize(("model_type", "key"), [("bloom", "n_head"), ("falcon", "num_attention_heads")])
def test_biases_are_slopes_times_positions(model_type: str, key: str, heads: int) -> None:
    options = {key: heads, "hidden_size": heads * 16, "alibi": True, "num_attention_heads": heads}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(case(model_type) | options)))
    (parameter,) = adapt(model).values()
    assert isinstance(parameter, HeadSlopes)
    module = {"bloom": modeling_bloom, "falcon": modeling_falcon}[model_type]
    biases = module.build_alibi_tensor(torch.ones(1, 5, dtype=torch.long), heads, torch.float32)
    expected = torch.from_numpy(parameter.slopes)[:, None] * torch.arange(5)
    # Falcon's are rounded to bfloat16.
    torch.testing.assert_close(biases.reshape(heads, 5), expected, rtol=0 if model_type == "bloom" else 2**-8, atol=0)


def test_biases_of_mpt_are_slopes_times_distances() -> None:
    (parameter,) = adapt(on_meta("mpt")).values()
    assert isinstance(parameter, HeadSlopes)
    biases = modeling_mpt.build_mpt_alibi_tensor(SIZES["num_attention_heads"], 5)
    expected = torch.from_numpy(parameter.slopes)[:, None] * torch.arange(-4, 1)
    torch.testing.assert_close(biases[:, 0], expected, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------- checkpoints
OPERATIONS: dict[str, Callable[[], tuple[Any, dict[str, list[torch.Tensor]], list[str]]]] = {
    "MergeModulelist": lambda: (core_model_loading.MergeModulelist(dim=0), {"a.*": parts(3)}, ["c"]),
    "Concatenate": lambda: (core_model_loading.Concatenate(dim=1), {"a": parts(1), "b": parts(1)}, ["c"]),
    "Chunk": lambda: (core_model_loading.Chunk(dim=0), {"a": parts(1)}, ["c", "d"]),
    "Transpose": lambda: (core_model_loading.Transpose(dim0=1, dim1=2), {"a": parts(1)}, ["c"]),
}


def parts(count: int) -> list[torch.Tensor]:
    return [torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_all_conversions_are_compared() -> None:
    assert set(OPERATIONS) == set(merging._OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_conversions_compute_what_transformers_computes(name: str, tmp_path: Path) -> None:
    operation, found, targets = OPERATIONS[name]()
    converter = core_model_loading.WeightConverter(list(found), targets, operations=[operation])
    given: dict[str, Any] = {pattern: list(tensors) for pattern, tensors in found.items()}
    theirs = operation.convert(
        given, source_patterns=list(found), target_patterns=targets, full_layer_name="c", config=None, model=None
    )
    stored = {f"{pattern}{i}": one for pattern, tensors in found.items() for i, one in enumerate(tensors)}
    save_file(stored, tmp_path / "model.safetensors")
    tensors = Checkpoint(tmp_path).tensors
    held = {pattern: [tensors[f"{pattern}{i}"] for i in range(len(ones))] for pattern, ones in found.items()}
    ours = merging.merge(converter, targets[0], held, "here", ())
    assert list(ours) == targets
    for target in targets:
        expected = theirs[target][0] if isinstance(theirs[target], list) else theirs[target]
        np.testing.assert_array_equal(ours[target].rows(0, ours[target].shape[0]), expected.numpy())


def test_the_head_is_tied_to_the_embedding_and_nothing_else_is() -> None:
    """A checkpoint that holds both is looked at by these names."""
    for name, family in ((name, family) for name, family in FAMILIES.items() if not family.wrapped):
        renamed = RENAMED.get(name)
        known = family.architecture if renamed is None else renamed.architecture
        tied = getattr(transformers, known)._tied_weights_keys or {}
        assert list(tied) in ([HEAD], [family.head]), name
        embedding = "embed_tokens.weight" if renamed else family.token_embedding
        assert all(f".{source}".endswith(f".{embedding}") for source in tied.values()), name
    others = {family.head for family in FAMILIES.values()} - {HEAD}
    assert sorted(others) == ["decoder.weight", "embed_out.weight", "output_projection.weight"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_neox", **SIZES))
    assert name_rules(model, {}).renamed("embed_out.weight")[0] == HEAD


@pytest.mark.parametrize("shape", [(4, 2, 6), (4, 6, 2)], ids=["transposed", "as it is"])
def test_a_transpose_that_looks_at_the_model(shape: tuple[int, ...], tmp_path: Path) -> None:
    """It leaves a tensor that has the model's shape already."""
    operation = core_model_loading.Transpose(dim0=1, dim1=2, check_dims=True)
    converter = core_model_loading.WeightConverter(["a"], ["a"], operations=[operation])
    model: Any = SimpleNamespace(get_parameter=lambda _: torch.empty(shape))
    given: Any = {"a": parts(1)}
    theirs: Any = operation.convert(
        given, source_patterns=["a"], target_patterns=["a"], full_layer_name="a", model=model
    )
    save_file({"a": parts(1)[0]}, tmp_path / "model.safetensors")
    ours = merging.merge(converter, "a", {"a": [Checkpoint(tmp_path).tensors["a"]]}, "here", shape)["a"]
    assert ours.shape == shape
    np.testing.assert_array_equal(ours.rows(0, 4), theirs["a"].numpy())


def test_old_buffers_in_a_checkpoint_are_ignored(tmp_path: Path) -> None:
    """`rotary_emb.inv_freq` is not an unexpected tensor: an exception that transformers makes in code."""
    model = AutoModelForCausalLM.from_config(tiny_llama_config())
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    weights["model.other"] = torch.ones(8)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["unexpected_keys"]) == {"model.other"}
