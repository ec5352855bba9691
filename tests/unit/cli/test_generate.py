"""The prompt's tokens, and special tokens in the answer, of `hyperdex run`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.models.tiny import write_tokenizer

from hyperdex_ir.cli.generate import check_ids, print_json, stream_answer
from hyperdex_ir.errors import PromptError
from hyperdex_ir.runtime.generate import Generation
from hyperdex_ir.runtime.tokenizer import Tokenizer

ANSWER = (256, ord("h"), ord("i"), 257)


@pytest.mark.parametrize(("show", "text"), [(False, "hi"), (True, "<s>hi</s>")])
def test_special_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str], show: bool, text: str) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    result = Generation(ANSWER, "eos", 1, 0.1, 1.0)

    def generate(*arguments: Any) -> Generation:
        for token in ANSWER:
            arguments[3](token)
        return result

    model: Any = SimpleNamespace(generate=generate)
    stream_answer(model, tokenizer, [1], 4, (), None, show)
    assert capsys.readouterr().out == f"{text}\n"
    print_json(tokenizer, result, show)
    assert json.loads(capsys.readouterr().out)["text"] == text


def test_a_token_without_a_row_is_named(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    check_ids(tokenizer, [1, 256], 257)
    with pytest.raises(PromptError, match="token id 257, '</s>', is outside the vocabulary of 257"):
        check_ids(tokenizer, [1, 257], 257)
