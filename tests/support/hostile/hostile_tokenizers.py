"""Tokenizer files and chat templates of a stranger. Each function gives (name, contents of the file); nothing is read.

`tokenizers`: tokenizer.json. `configs`: tokenizer_config.json. `templates`: chat_template.jinja. `generations`:
generation_config.json. All are small; what they ask for is not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

Surface = tuple[str, bytes]

#: The text that `tokenizers` are to be tried with: some show themselves when they encode it.
PROMPT = "a" * 40 + "b né \U0001f600"


def _vocabulary() -> dict[str, int]:
    return {chr(letter): letter for letter in range(32, 127)}


def tokenizer(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json of single characters that nothing is wrong with. changes: its members, `model` merged."""
    model = {"type": "BPE", "vocab": _vocabulary(), "merges": [], "unk_token": " "} | changes.pop("model", {})
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", **dict.fromkeys(parts), "added_tokens": [], "model": model, **changes}


def _added(number: int, text: str = "<x>", **changes: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": text, **flags, **changes}


def _charsmap(data: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def _template(*pieces: Any, **special: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": list(pieces), "special_tokens": special}


def _sequence(depth: int, inner: dict[str, Any], kind: str, key: str) -> dict[str, Any]:
    for _ in range(depth):
        inner = {"type": kind, key: [inner]}
    return inner


def tokenizers() -> Iterator[Surface]:
    """Broken, greedy and endless tokenizer.json files."""
    for name, value in _values():
        yield name, json.dumps(value).encode()
    yield "empty", b""
    yield "no JSON", b"{" * 100_000
    yield "deep", b"[" * 100_000 + b"]" * 100_000
    yield "no text", b'{"version": "\xff"}'
    yield "numbers", b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":1e999},"merges":[]}}'


def _values() -> Iterator[tuple[str, Any]]:
    words = {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "none"}
    yield "unknown token of WordLevel is missing", tokenizer(model=words)
    yield "unknown token of BPE is missing", tokenizer(model={"vocab": {"b": 0}, "unk_token": "none"})
    yield (
        "unknown token of WordPiece is missing",
        tokenizer(
            model={**words, "type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9}
        ),
    )
    unigram: dict[str, Any] = {"type": "Unigram", "vocab": [["b", -1.0]], "byte_fallback": False}
    yield "unigram without unknown", tokenizer(model={**unigram, "unk_id": None})
    yield "unigram unknown out of range", tokenizer(model={**unigram, "unk_id": 1 << 40})
    yield "unigram of nothing", tokenizer(model={**unigram, "vocab": [], "unk_id": 0})
    yield (
        "unigram scores",
        tokenizer(model={**unigram, "vocab": [["a", -1e308], ["aa", 1e308], ["", 0.0]], "unk_id": 0}),
    )
    for number in (1 << 31, (1 << 32) - 1, 1 << 32, -1):
        yield f"id {number} of the vocabulary", tokenizer(model={"vocab": {"a": number, "b": 0}, "unk_token": "b"})
        yield f"added id {number}", tokenizer(added_tokens=[_added(number)])
    yield "two tokens of one id", tokenizer(model={"vocab": {"a": 0, "b": 0}, "unk_token": "b"})
    yield "empty added token", tokenizer(added_tokens=[_added(200, "")])
    yield "added tokens of one text", tokenizer(added_tokens=[_added(200 + i) for i in range(100)])
    yield "long added token", tokenizer(added_tokens=[_added(200, "a" * 1_000_000, normalized=True)])
    yield "merge of what is not there", tokenizer(model={"merges": [["q1", "q2"]]})
    yield "merge of one part", tokenizer(model={"merges": ["ab"]})
    yield "merge of itself", tokenizer(model={"merges": [["a", ""]]})
    yield (
        "merge with a long prefix",
        tokenizer(
            model={"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], "continuing_subword_prefix": "#" * 99}
        ),
    )
    yield (
        "merge with a prefix inside a character",
        tokenizer(
            model={
                "vocab": {"a": 0, "é": 1, "a\u00a9": 2, "aé": 3},
                "merges": [["a", "é"]],
                "continuing_subword_prefix": "x",
            }
        ),
    )
    yield "dropout of 2", tokenizer(model={"dropout": 2.0})
    yield "dropout of NaN", tokenizer(model={"dropout": float("nan")})
    yield "end of word", tokenizer(model={"end_of_word_suffix": "a" * 1_000_000})
    yield "byte fallback without bytes", tokenizer(model={"byte_fallback": True, "unk_token": None})
    charsmaps = {"of nothing": b"", "cut short": b"\xff\xff", "larger than it is": b"\xff\xff\xff\x7f" + bytes(64),
                 "of ones": (64).to_bytes(4, "little") + b"\xff" * 128, "of odd size": b"\x03\0\0\0abc"}  # fmt: skip
    for name, data in charsmaps.items():
        yield f"characters map {name}", tokenizer(normalizer=_charsmap(data))
    yield "characters map no base64", tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "*"})
    yield "prepended text", tokenizer(normalizer={"type": "Prepend", "prepend": "a" * 4_000_000})
    longer = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    yield "replaced again and again", tokenizer(normalizer={"type": "Sequence", "normalizers": [longer] * 5})
    yield "nothing replaced", tokenizer(normalizer={**longer, "pattern": {"String": ""}})
    for name, regex in {"slow": "(a*)*$c", "slower": "(a|a|aa)+$", "broken": "(", "deep": "(" * 5000 + ")" * 5000,
                        "counted": "((a{1,1000}){1,1000}){1,1000}", "of itself": "(?<x>a\\g<x>?b)",
                        "of classes": "\\p{L}" * 20000}.items():  # fmt: skip
        pattern = {"Regex": regex}
        yield (
            f"{name} expression that splits",
            tokenizer(pre_tokenizer={"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}),
        )
        yield f"{name} expression that replaces", tokenizer(normalizer={**longer, "pattern": pattern})
        yield f"{name} expression that decodes", tokenizer(decoder={**longer, "pattern": pattern})
    yield "deep normalizers", tokenizer(normalizer=_sequence(60, {"type": "NFC"}, "Sequence", "normalizers"))
    yield "deeper normalizers", tokenizer(normalizer=_sequence(400, {"type": "NFC"}, "Sequence", "normalizers"))
    yield "deep decoders", tokenizer(decoder=_sequence(60, {"type": "Fuse"}, "Sequence", "decoders"))
    yield (
        "many splits",
        tokenizer(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}] * 20_000,
            }
        ),
    )
    space = {"type": "Metaspace", "replacement": "▁▁", "prepend_scheme": "always", "split": True}
    yield "two replacements", tokenizer(pre_tokenizer=space)
    yield "chunks of none", tokenizer(pre_tokenizer={"type": "FixedLength", "length": 0})
    whole = {"Sequence": {"id": "A", "type_id": 0}}
    special = {"SpecialToken": {"id": "s", "type_id": 0}}
    numbers = {"id": "s", "ids": list(range(100_000)), "tokens": ["s"] * 100_000}
    yield "template without its token", tokenizer(post_processor=_template(special, whole))
    yield "template of uneven lists", tokenizer(post_processor=_template(special, whole, s={**numbers, "tokens": []}))
    yield "template of many", tokenizer(post_processor=_template(*[special] * 3000, whole, s=numbers))
    yield "template without the text", tokenizer(post_processor=_template())
    yield "template of the text again", tokenizer(post_processor=_template(*[whole] * 1000))
    yield "template of a second text", tokenizer(post_processor=_template({"Sequence": {"id": "B", "type_id": 0}}))
    padding = {"strategy": {"Fixed": 1 << 40}, "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "x"}  # fmt: skip
    yield "padding", tokenizer(padding=padding)
    truncation = {"max_length": 1, "strategy": "LongestFirst", "stride": 5, "direction": "Right"}
    yield "truncation", tokenizer(truncation=truncation)
    pair = {"sep": ["b", 1], "cls": ["c", 2], "trim_offsets": True, "add_prefix_space": True}
    yield "roberta", tokenizer(post_processor={"type": "RobertaProcessing", **pair})
    yield "strip", tokenizer(decoder={"type": "Strip", "content": "a", "start": (1 << 64) - 1, "stop": (1 << 64) - 1})
    yield "strip to the end", tokenizer(decoder={"type": "Strip", "content": "a", "start": 1 << 40, "stop": 1 << 40})
    decoded = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    yield "decoded again and again", tokenizer(decoder={"type": "Sequence", "decoders": [decoded] * 5})
    yield "no model", {"version": "1.0", "model": None}
    yield "vocabulary of names", tokenizer(model={"vocab": {"a": "b"}})
    yield "a list", [1, 2, 3]


def templates() -> Iterator[Surface]:
    """Chat templates that are broken, endless or greedy, or reach for what they must not have."""
    for name, text in {
        "power": "{{ 7 ** 30000000 }}",
        "power of a power": "{% set x = 9 ** 9 ** 9 %}",
        "long text": "{{ 'a' * 1000000000 }}",
        "long list": "{{ [0] * 500000000 }}",
        "much output": "{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
        "doubled": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x * 2 %}{% endfor %}",
        "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "self": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "division": "{{ 1 // 0 }}",
        "overflow": "{{ 1e308 ** 2 }}",
        "shift": "{{ 1 / (10 ** 400) }}",
        "memory": "{{ ['x' * 100000000] * 100 | length }}{{ 'x' * 900000000000 }}",
        "width": "{{ '%*d' % (2000000000, 1) }}",
        "format": "{{ '{:2000000000}'.format(1) }}",
        "centre": "{{ 'x' | center(2000000000) }}",
        "indent": "{{ 'x\n' * 1000 | indent(100000000) }}",
        "deep": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
        "deep blocks": "{% if 1 %}" * 5_000 + "{% endif %}" * 5_000,
        "deep list": "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
        "not a template": "{% if %}",
        "no end": "{% for x in messages %}",
        "classes": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "globals": "{{ cycler.__init__.__globals__.os.popen('touch owned') }}",
        "globals of a filter": "{{ raise_exception.__globals__['__builtins__']['open']('owned', 'w') }}",
        "include": "{% include '/etc/passwd' %}",
        "import": "{% import 'os' as os %}{{ os.system('touch owned') }}",
        "changes": "{{ messages.append(1) }}",
        "time": "{{ strftime_now('%Y' * 1000000) }}",
        "time of nothing": "{{ strftime_now(1) }}",
        "raises a number": "{{ raise_exception(1) }}",
        "raises lines": "{{ raise_exception('\\x1b[31m\nx' * 100000) }}",
        "a lone half": "{{ '\\ud800' }}",
        "no such filter": "{{ 1 | nothing }}",
        "json of width": "{{ messages | tojson(indent=1000000000) }}",
        "attribute": "{{ messages[0].content.nothing.nothing }}",
        "sorted": "{{ [1, 'a', none] | sort }}",
    }.items():
        yield name, text.encode()
    yield "no text", b"\xff\xfe"
    yield "large", b"{# " + b"x" * (32 << 20) + b" #}"


def configs() -> Iterator[Surface]:
    """tokenizer_config.json with values of the wrong type or beyond all size."""
    wrong: tuple[Any, ...] = (1, 1.5, True, [], [1], [None], [{}], {}, {"a": 1}, [{"name": "default", "template": 1}],
                              [{"name": [], "template": "x"}], [{"template": "x"}], "x" * 1_000_000)  # fmt: skip
    for value in wrong:
        shown = repr(value)[:40]
        yield f"chat_template {shown}", json.dumps({"chat_template": value}).encode()
        yield f"tokens {shown}", json.dumps(dict.fromkeys(("bos_token", "eos_token", "unk_token"), value)).encode()
        yield f"flags {shown}", json.dumps({"add_bos_token": value, "add_prefix_space": value}).encode()
    yield "half a character", b'{"bos_token": "\\ud800", "eos_token": {"content": "\\udfff"}}'
    yield (
        "own code",
        json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}).encode(),
    )
    yield "a list", b"[]"
    yield "deep", b"[" * 100_000
    yield "no text", b"\xff"
    yield "digits", b'{"x": ' + b"9" * 10_000 + b"}"


def generations() -> Iterator[Surface]:
    """generation_config.json with values of the wrong type."""
    wrong: tuple[Any, ...] = (
        -1,
        1 << 70,
        10**60,
        10**400,
        1.5,
        True,
        "1",
        "a",
        [],
        [[1]],
        [None],
        ["a"],
        {},
        {"a": 1},
        1e400,
    )
    keys = ("eos_token_id", "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p",
            "repetition_penalty", "num_beams", "min_p")  # fmt: skip
    for key in keys:
        for value in wrong:
            yield f"{key} {value!r}", json.dumps({key: value}).encode()
    yield "a list", b"[1]"
    yield "deep", b"[" * 100_000
    yield "digits", b'{"eos_token_id": ' + b"9" * 10_000 + b"}"
