"""transformers, eager: forward passes with its KV cache, greedy. Run by decode.py.

PYTHON torch_model.py DIRECTORY THREADS DTYPE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from protocol import serve
from transformers import AutoModelForCausalLM, DynamicCache


class Eager:
    """A checkpoint in a torch type, called module by module as transformers does, without `generate` around it."""

    def __init__(self, path: str, threads: int, dtype: str):
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
        self._cache = DynamicCache(config=self._model.config)

    @torch.inference_mode()
    def run(self, tokens: Sequence[int], position: int) -> int:
        """See protocol.Peer. Logits are made for the last token only."""
        if position == 0:
            self._cache = DynamicCache(config=self._model.config)
        ids = torch.tensor([list(tokens)])
        result = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return int(result.logits[0, -1].argmax())


if __name__ == "__main__":
    serve(Eager(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
