"""The names of transformers for running compiled models: same calls, same meanings, neither torch nor transformers.

    from hyperdex_ir.transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

torch tensors in, torch tensors out; lists and NumPy arrays in, NumPy arrays out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from hyperdex_ir.errors import OptionError, PromptError
from hyperdex_ir.runtime.chat import Rendered
from hyperdex_ir.runtime.generate import Generation
from hyperdex_ir.runtime.model import CompiledModel, read_eos_ids, read_generation_config
from hyperdex_ir.runtime.model_folders import checkpoint_folders, compiled_folder, load_tokenizer
from hyperdex_ir.runtime.sampling import Sampling, draw_seed, resolve_sampling
from hyperdex_ir.runtime.stream import TextStreamer, flat_ids
from hyperdex_ir.runtime.tokenizer import Tokenizer

__all__ = ["AutoModelForCausalLM", "AutoTokenizer", "TextStreamer"]

#: New tokens when neither the call nor generation_config.json says how many.
DEFAULT_NEW_TOKENS = 20
_SEED_BOUND = 1 << 32  # upper bound of seeds drawn by torch
#: Settings of generation_config.json that are not followed, with their neutral values.
_NEUTRAL = {"no_repeat_ngram_size": 0, "num_beams": 1, "min_length": 0, "min_new_tokens": 0}
_NEUTRAL_WHEN_SAMPLING = {"min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "top_h": None}


class Streamer(Protocol):
    """The receiver of tokens while they are generated: our TextStreamer, and those of transformers."""

    def put(self, value: Any) -> None: ...

    def end(self) -> None: ...


class AutoModelForCausalLM:
    """Opens compiled models."""

    @staticmethod
    def from_pretrained(
        model_id: str | os.PathLike[str], device_map: Mapping[str, int] | None = None
    ) -> LpuModelForCausalLM:
        """The compiled model of a Hub id or directory, on `device_map["lpu"]` LPUs (by default 1, or one a process when
        torchrun has started several).

        Raises NotCompiledError, with the command that compiles it, when it is not compiled for that count; OptionError
        for a device map that asks for something else.
        """
        num_device = None if device_map is None else _lpu_count(device_map)
        folder = compiled_folder(model_id)
        model = CompiledModel.open(folder.root, num_device, name=os.fspath(model_id))
        places = checkpoint_folders(folder)
        return LpuModelForCausalLM(model, read_generation_config(*places), read_eos_ids(*places))


class LpuModelForCausalLM:
    """A compiled model with transformers' way of calling it. `last_seed`: the seed of the last call, None when it did
    not sample."""

    def __init__(self, model: CompiledModel, generation_config: Mapping[str, Any], eos_ids: Sequence[int]):
        self.compiled = model
        self.last_seed: int | None = None
        self.generation_config = dict(generation_config)
        self.eos_ids = tuple(eos_ids)

    def generate(
        self,
        input_ids: Any,
        *,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        do_sample: bool | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        temperature: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        attention_mask: Any = None,
        streamer: Streamer | None = None,
    ) -> Any:
        """The prompt's ids and the new ones, int64 [1, prompt + new], a torch tensor if `input_ids` is one.

        Arguments mean what they mean in transformers; defaults come from generation_config.json, and without one 20 new
        tokens are made. `pad_token_id` has no effect: there is one sequence. `seed` chooses what is drawn when
        sampling; without one, it comes from torch's generator where torch is loaded, so that torch.manual_seed counts.
        Raises OptionError for a setting out of range and for more than one sequence, PromptError for a prompt that is
        empty or does not fit.
        """
        ids = _single_sequence(input_ids)
        _check_mask(attention_mask)
        warpers = {"top_p": top_p, "top_k": top_k, "temperature": temperature}
        sampling = resolve_sampling(
            self.generation_config, do_sample, seed, repetition_penalty=repetition_penalty, **warpers
        )
        if not sampling.do_sample:
            _note_ignored(**warpers, seed=seed)
        self._note_config(sampling)
        count = self._new_tokens(len(ids), max_new_tokens, max_length)
        eos = self.eos_ids if eos_token_id is None else tuple(flat_ids(eos_token_id))
        if streamer is None:
            result = self.compiled.generate(ids, count, eos, sampling=sampling, draw=_draw_seed)
        else:
            result = self._stream(ids, count, eos, streamer, sampling)
        self.last_seed = result.seed
        return _like(np.asarray([[*ids, *result.tokens]], np.int64), input_ids)

    def logits(self, input_ids: Any) -> Any:
        """Logits at every position, float32 [tokens, vocab_size], a torch tensor if `input_ids` is one."""
        return _like(self.compiled.logits(_single_sequence(input_ids)), input_ids)

    def _stream(
        self, ids: list[int], count: int, eos: Sequence[int], streamer: Streamer, sampling: Sampling
    ) -> Generation:
        def put(token: int) -> None:
            streamer.put(np.asarray([token], np.int64))

        streamer.put(np.asarray([ids], np.int64))
        result = self.compiled.generate(ids, count, eos, put, sampling, _draw_seed)
        streamer.end()
        return result

    def _new_tokens(self, prompt: int, max_new_tokens: int | None, max_length: int | None) -> int:
        """The most new tokens: the call's arguments before the file's, `max_new_tokens` before `max_length`."""
        own = [_count_in(self.generation_config, name) for name in ("max_new_tokens", "max_length")]
        for new, total in ((max_new_tokens, max_length), own):
            if new is not None:
                return new
            if total is not None and total <= prompt:
                raise PromptError(
                    f"the prompt has {prompt} tokens, max_length is {total}, prompt and response together",
                    "pass max_new_tokens, or a larger max_length",
                )
            if total is not None:
                return total - prompt
        return DEFAULT_NEW_TOKENS

    def _note_config(self, sampling: Sampling) -> None:
        config = self.generation_config
        known = _NEUTRAL | (_NEUTRAL_WHEN_SAMPLING if sampling.do_sample else {})
        asked = [key for key, neutral in known.items() if config.get(key) not in (neutral, None)]
        if asked:
            _note(f"generation_config.json sets {', '.join(asked)}; not there yet, generating without")


class AutoTokenizer:
    """Opens the tokenizer of a model."""

    @staticmethod
    def from_pretrained(model_id: str | os.PathLike[str]) -> LpuTokenizer:
        """The tokenizer of a Hub id that has been compiled, or of a directory."""
        return LpuTokenizer(load_tokenizer(model_id))


class Encoding(dict[str, Any]):
    """The result of tokenizing: `input_ids` and `attention_mask`, as keys and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class LpuTokenizer:
    """A tokenizer with transformers' way of calling it."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.bos_token, self.eos_token, self.unk_token, self.pad_token = (
            tokenizer.special_tokens.get(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        )
        self.bos_token_id = tokenizer.token_id("bos_token")
        self.eos_token_id = tokenizer.token_id("eos_token")
        self.unk_token_id = tokenizer.token_id("unk_token")
        self.pad_token_id = tokenizer.token_id("pad_token")

    def __len__(self) -> int:
        return self._tokenizer.vocab_size

    def __call__(
        self, text: str | Sequence[str], *, add_special_tokens: bool = True, return_tensors: str | None = None
    ) -> Encoding:
        """Ids of a text, or of each of several; `return_tensors`: "np" or "pt" for [1, tokens]."""
        if isinstance(text, str):
            return _encoding(self.encode(text, add_special_tokens=add_special_tokens), return_tensors)
        rows = [self.encode(item, add_special_tokens=add_special_tokens) for item in text]
        if return_tensors is not None and len(rows) != 1:
            raise OptionError(f"tensors for {len(rows)} texts: one sequence at a time is supported")
        if return_tensors is not None:
            return _encoding(rows[0], return_tensors)
        return Encoding(input_ids=rows, attention_mask=[[1] * len(row) for row in rows])

    def encode(self, text: str, add_special_tokens: bool = True, return_tensors: str | None = None) -> Any:
        """Ids of a text: a list, or with `return_tensors` an array or tensor [1, tokens]."""
        return _tensor(self._tokenizer.encode(text, add_special_tokens), return_tensors)

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str:
        """Text of ids: a number, list, array or tensor of one sequence."""
        return self._tokenizer.decode(list(flat_ids(token_ids)), skip_special_tokens)

    def batch_decode(self, sequences: Iterable[Any], skip_special_tokens: bool = False) -> list[str]:
        """Text of each sequence of ids."""
        return [self.decode(sequence, skip_special_tokens) for sequence in sequences]

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The checkpoint's chat template, or several by name. Raises PromptError when it is broken."""
        return self._tokenizer.chat_template

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        *,
        return_dict: bool = True,
        return_tensors: Literal["np", "pt"] | None = None,
        return_assistant_tokens_mask: bool = False,
        sanitize_control_tokens: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        **variables: Any,
    ) -> Any:
        """A conversation as prompt: an Encoding; ids with `return_dict=False`; text with `tokenize=False`. Of a list of
        conversations, all of them.

        Arguments mean what they mean in transformers. tools: JSON schemas, or functions with type hints and a
        docstring. chat_template: a template, or the name of one of the checkpoint's. continue_final_message: leave the
        last message open, after its content or the key that is given. return_assistant_tokens_mask: adds
        `assistant_masks`, 1 for the tokens that the template marks as an answer. variables: what else the template
        reads.

        Raises PromptError when the checkpoint has no chat template, or it refuses, fails, or takes too much time or
        memory; OptionError for arguments and messages of a wrong form, and for a variable that the template does not
        read.
        """
        if sanitize_control_tokens:
            raise OptionError("sanitize_control_tokens is not there yet", "remove control tokens from the messages")
        if return_assistant_tokens_mask and not (tokenize and return_dict and not continue_final_message):
            raise OptionError(
                "return_assistant_tokens_mask needs return_dict and tokenize, and no continue_final_message"
            )
        is_batch = _is_batch(conversation)
        rendered = [
            self._tokenizer.rendered_chat(
                one,
                add_generation_prompt,
                chat_template=chat_template,
                tools=tools,
                documents=documents,
                continue_final_message=continue_final_message,
                **variables,
            )
            for one in (conversation if is_batch else [conversation])
        ]
        texts = [one.text for one in rendered]
        if not tokenize:
            return texts if is_batch else texts[0]
        lengths = {"padding": padding, "truncation": truncation, "max_length": max_length}
        given = {name: value for name, value in lengths.items() if value not in (None, False)}
        given |= {"return_tensors": return_tensors, **(tokenizer_kwargs or {})}
        found = self(texts if is_batch else texts[0], add_special_tokens=False, **given)
        if return_assistant_tokens_mask:
            found["assistant_masks"] = self._answer_masks(found["input_ids"], rendered, is_batch)
        return found if return_dict else found["input_ids"]

    def _answer_masks(self, input_ids: Any, rendered: Sequence[Rendered], is_batch: bool) -> Any:
        """1 for each token that overlaps a place that the template marks, else 0; in the form of `input_ids`."""
        masks = []
        for one in rendered:
            offsets = self._tokenizer.offsets(one.text, add_special_tokens=False)
            masks.append([int(any(a < end and start < b for start, end in one.spans)) for a, b in offsets])
        if hasattr(input_ids, "shape"):
            return _like(np.asarray(masks, np.int64), input_ids)
        return masks if is_batch else masks[0]


def _is_batch(conversation: Any) -> bool:
    """Test for a list of conversations."""
    if not isinstance(conversation, list | tuple) or not conversation:
        return False
    return isinstance(conversation[0], list | tuple) or hasattr(conversation[0], "messages")


def _count_in(config: Mapping[str, Any], name: str) -> int | None:
    """A number of generation_config.json. Raises OptionError when it is none."""
    value = config.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise OptionError(f"generation_config.json: {name} is {value!r}, expected a whole number", f"pass {name}")
    return value


def _lpu_count(device_map: Mapping[str, int]) -> int:
    if not isinstance(device_map, Mapping) or not set(device_map) <= {"lpu", "gpu"}:
        raise OptionError(f"device_map {device_map!r} is not understood", 'write it as device_map={"lpu": 1}')
    if device_map.get("gpu", 0) != 0:
        raise OptionError("hybrid execution on LPU and GPU is not there yet", 'leave "gpu" out of device_map')
    return device_map.get("lpu", 1)


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _like(values: np.ndarray, given: Any) -> Any:
    """`values` as a torch tensor if `given` is one."""
    return sys.modules["torch"].from_numpy(values) if _is_torch(given) else values


def _tensor(ids: list[int], return_tensors: str | None) -> Any:
    if return_tensors is None:
        return ids
    if return_tensors not in ("np", "pt"):
        raise OptionError(f"return_tensors is {return_tensors!r}", 'it can be "np" or "pt"')
    values = np.asarray([ids], np.int64)
    if return_tensors == "np":
        return values
    import torch

    return torch.from_numpy(values)


def _encoding(ids: list[int], return_tensors: str | None) -> Encoding:
    return Encoding(input_ids=_tensor(ids, return_tensors), attention_mask=_tensor([1] * len(ids), return_tensors))


def _single_sequence(input_ids: Any) -> list[int]:
    """The ids of one sequence, given as [tokens] or [1, tokens]. Raises OptionError for anything else."""
    try:
        values = np.asarray(input_ids)
    except ValueError:
        raise OptionError("input_ids holds sequences of several lengths: one at a time is supported") from None
    if values.ndim == 2 and values.shape[0] != 1:
        raise OptionError(f"input_ids holds {values.shape[0]} sequences: one at a time is supported")
    if values.ndim not in (1, 2) or (values.size and values.dtype.kind not in "iu"):
        raise OptionError(f"input_ids of shape {list(values.shape)} and type {values.dtype}: give integers [1, tokens]")
    return [int(token) for token in values.reshape(-1)]


def _check_mask(attention_mask: Any) -> None:
    if attention_mask is not None and not np.all(np.asarray(attention_mask)):
        raise OptionError("attention_mask masks tokens: padding is not supported", "pass the prompt without padding")


def _draw_seed() -> int:
    """A seed, from torch's generator where torch is loaded."""
    torch = sys.modules.get("torch")
    return draw_seed() if torch is None else int(torch.randint(_SEED_BOUND, ()))


def _note_ignored(**settings: float | None) -> None:
    given = [name for name, value in settings.items() if value is not None]
    if given:
        _note(f"{', '.join(given)} without sampling: no effect")


def _note(text: str) -> None:
    print(f"hyperdex: {text}", file=sys.stderr)
