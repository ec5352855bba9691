"""llama.cpp through llama-cpp-python's C interface. Run by decode.py with an interpreter that has llama_cpp.

    PYTHON llama.py serve MODEL.gguf THREADS POSITIONS
    PYTHON llama.py float16 FROM.gguf TO.gguf

serve: answers requests, see protocol.py. float16: llama.cpp's own quantizer writes every matrix as float16.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import llama_cpp  # pyright: ignore[reportMissingImports]  another environment's
import numpy as np
from protocol import serve


class Llama:
    """A GGUF model on the CPU, with the library's own defaults but for threads, batch and context."""

    def __init__(self, path: str, threads: int, positions: int):
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = positions
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def run(self, tokens: Sequence[int], position: int) -> int:
        """See protocol.Peer. Logits are made for the last token only."""
        if position == 0:
            llama_cpp.llama_memory_clear(self._memory, True)
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch only points to it
        batch = llama_cpp.llama_batch_get_one(ids, len(tokens))
        if llama_cpp.llama_decode(self._context, batch):
            sys.exit("llama_decode failed")
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self._vocab_size,))))


def write_float16(source: str, target: str) -> None:
    """Writes a GGUF model with float16 matrices."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_F16
    options.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), options):
        sys.exit("llama_model_quantize failed")


def main() -> None:
    """Command line."""
    match sys.argv[1:]:
        case ["serve", path, threads, positions]:
            serve(Llama(path, int(threads), int(positions)))
        case ["float16", source, target]:
            write_float16(source, target)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
