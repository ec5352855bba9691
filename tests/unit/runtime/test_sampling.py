"""Choosing a token: the generator's known answers, transformers' warpers, exact frequencies, and the instruction."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support import SOAK
from support.models.second_sampling import Choice, chosen, random_bits, weights
from support.programs.machine_programs import embed, layout, memory_map, op, parameter

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter import sampling
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Program
from hyperdex_ir.isa.settings import REFUSALS, SAMPLE, SETTINGS_BYTES, Settings
from hyperdex_ir.memory.layout import FunctionLayout, ModelLayout
from hyperdex_ir.memory.map import MAX_CHUNK, plan_memory
from hyperdex_ir.native.features import available
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.targets import load_target

# Of the file kat_vectors of Random123: counter, key, result of philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
]
WIDE = 3000
NAN = float("nan")


@pytest.mark.parametrize("line", KNOWN_ANSWERS)
def test_philox(line: str) -> None:
    c0, c1, c2, c3, k0, k1, *result = (int(word, 16) for word in line.split())
    assert list(sampling.philox((c0, c1, c2, c3), (k0, k1))) == result


def test_draws() -> None:
    for seed, position in ((0, 0), (1, 7), ((1 << 64) - 1, 1 << 40)):
        assert sampling.draw(seed, position) == random_bits(seed, position)
    assert sampling.draw(0, 0) == 0xE169C58D6627E8D5
    assert sampling.draw(3, -1) == random_bits(3, (1 << 64) - 1)


# ---------------------------------------------------------------------------------------------------- transformers
WARPED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0, "top_k": 7},
    {"top_k": 1},
    {"top_p": 0.5},
    {"top_p": 0.0},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.8},
    {"repetition_penalty": 1.7, "top_k": 30},
    {"repetition_penalty": 0.6, "top_p": 0.9},
]


def of_transformers(logits: np.ndarray, text: list[int], settings: Settings) -> np.ndarray:
    """Probabilities after transformers' own processors and warpers, float64."""
    import torch
    from transformers import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    ids, scores = torch.tensor([text]), torch.from_numpy(logits.astype(np.float64))[None]
    scores = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(ids, scores)
    scores = TemperatureLogitsWarper(settings.temperature)(ids, scores)
    if settings.top_k:
        scores = TopKLogitsWarper(settings.top_k)(ids, scores)
    if settings.top_p < 1:
        scores = TopPLogitsWarper(settings.top_p)(ids, scores)
    return torch.softmax(scores, -1)[0].numpy()


@pytest.mark.parametrize("options", WARPED, ids=str)
def test_probabilities_are_those_of_transformers(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    settings = Settings(mode=SAMPLE, **options)
    text = [3, 5, 5, 90]
    for _ in range(20):
        logits = (rng.standard_normal(200) * 3).astype(np.float32)
        expected = of_transformers(logits, text, settings)
        seen = np.isin(np.arange(200), text)
        ours = sampling.weights_of(sampling.penalized(logits, seen, settings.repetition_penalty), settings)
        assert ((ours > 0) == (expected >= expected.max() * 2**-40)).all()
        np.testing.assert_allclose(ours / ours.sum(), expected, rtol=2e-6, atol=2**-38)


# ---------------------------------------------------------------------------------------------------- by the document
def random_case(rng: np.random.Generator, columns: int) -> tuple[np.ndarray, Choice, int]:
    logits = (rng.standard_normal(columns) * rng.choice([0.01, 3, 40])).astype(np.float32)
    if rng.random() < 0.5:  # ties
        logits = np.round(logits)
    choice = Choice(
        greedy=bool(rng.random() < 0.1),
        top_k=int(rng.choice([0, 1, 3, columns, columns + 1, 1 << 62])),
        seed=int(rng.integers(1 << 63)),
        temperature=float(np.float32(rng.choice([1, 0.3, 2.5, 1e-30, 1e30]))),
        top_p=float(np.float32(rng.choice([0, 0.3, 0.9, 0.999, 1]))),
        penalty=float(np.float32(rng.choice([1, 1, 0.5, 1.2]))),
    )
    return logits, choice, int(rng.integers(1 << 40))


def settings_of(choice: Choice) -> Settings:
    return Settings(
        0 if choice.greedy else SAMPLE, choice.top_k, choice.seed, choice.temperature, choice.top_p, choice.penalty
    )


@pytest.mark.slow
def test_the_document_chooses_the_same_tokens() -> None:
    rng = np.random.default_rng(1)
    for _ in range(600):
        columns = int(rng.choice([1, 2, 9, 70]))
        logits, choice, position = random_case(rng, columns)
        text = rng.integers(0, columns, 5).tolist()
        seen = np.isin(np.arange(columns), text)
        with np.errstate(all="ignore"):
            ours = sampling.choose(sampling.penalized(logits, seen, choice.penalty), settings_of(choice), position)
            assert ours == chosen(logits, text, position, choice)


def test_every_random_number_has_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 2^64 numbers are divided among the tokens by weight, to the last one: each token from its first to its last
    number, and the numbers around these."""
    logits = np.array([0.5, -1, 2, -0.0, 0.0, -30, 2, 1], np.float32)
    for choice in (Choice(), Choice(temperature=0.7, top_k=4), Choice(top_p=0.8), Choice(top_k=3, top_p=0.3)):
        kept = weights(logits, choice)
        total, start = sum(kept.values()), 0
        for token in sorted(kept):
            first = -(-(start << 64) // total)
            last = -(-(start + kept[token] << 64) // total) - 1
            for number, expected in ((first, token), (last, token)):
                monkeypatch.setattr(sampling, "draw", lambda seed, position, number=number: number)
                assert sampling.choose(logits, settings_of(choice), 0) == expected
            assert abs(Fraction(last + 1 - first, 1 << 64) - Fraction(kept[token], total)) < Fraction(2, 1 << 64)
            start += kept[token]
        assert start == total


def test_ties_go_to_the_lowest_index() -> None:
    logits = np.array([1, 3, -0.0, 3, 0.0, 3], np.float32)
    for top_k, kept in ((1, [1]), (2, [1, 3]), (4, [1, 2, 3, 5]), (5, [1, 2, 3, 4, 5])):
        ours = sampling.weights_of(np.where(logits == 1, np.float32(-9), logits), Settings(SAMPLE, top_k=top_k))
        assert np.flatnonzero(ours).tolist() == kept
    assert sampling.choose(logits, Settings(), 0) == 1
    assert sampling.choose(np.array([-0.0, 0.0], np.float32), Settings(), 0) == 0
    half = sampling.weights_of(np.array([3, 3, 3, 3], np.float32), Settings(SAMPLE, top_p=0.5))
    assert half.tolist() == [1 << 40, 1 << 40, 0, 0]


# ---------------------------------------------------------------------------------------------------- the instruction
def wide_map() -> Any:
    return plan_memory(ModelLayout("f16", WIDE, FunctionLayout("main", (), ()), (), ()), load_target("u55c"), 8)


def machines(columns: int) -> list[Machine | NativeMachine]:
    """The interpreter, and the native executor on 1 to 3 threads and for every kind of processor that this one is, on
    one HBM: they take the logits from it and choose."""
    place = wide_map()
    program = Program(
        (
            op("load", dst=LmuRef(5), src=HbmRef(place.logits), columns=columns),
            op("sample", dst=7, src=LmuRef(5), columns=columns, rows=4, settings=HbmRef(place.sampling)),
            op("halt"),
        )
    )
    hbm = Hbm(place)
    engines: list[dict[str, Any]] = [{"threads": number} for number in (1, 2, 3)]
    engines += [{"threads": 2, "features": features} for features in available()[1:]]
    return [
        Machine(program, hbm, chunk=4, lmu_words=4000),
        *(NativeMachine(program, hbm, chunk=4, lmu_words=4000, **options) for options in engines),
    ]


def choose_on(
    machine: Machine | NativeMachine, logits: np.ndarray, marks: np.ndarray, settings: Settings, p: int
) -> tuple[int | None, bool]:
    """(the token, whether the flag was raised) for logits at position p, after marking tokens of the text."""
    place = wide_map()
    machine.write_hbm(place.logits, logits)
    machine.write_hbm(place.sampling, np.frombuffer(settings.pack(), np.int64))
    machine.write_hbm(place.sampling + SETTINGS_BYTES, marks.view(np.int64))
    machine.clear()
    machine.run([1, 2], p - 1, 1)
    return machine.registers[7], machine.fault is not None


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 63, 64, 65, 700, WIDE])
def test_machines_choose_the_same_tokens(columns: int) -> None:
    """Both executors, on any number of threads; a NaN or infinity gives token 0 and is told."""
    rng = np.random.default_rng(columns)
    targets = machines(columns)
    for number in range(40 if columns < WIDE or SOAK else 20):
        logits, choice, position = random_case(rng, columns)
        if number % 10 == 9:
            logits[rng.integers(columns)] = rng.choice([np.nan, np.inf, -np.inf])
        marks = np.zeros(-(-columns // 8) * 8, np.uint8)
        marks[:columns] = rng.integers(0, 3, columns)
        found = [choose_on(target, logits, marks, settings_of(choice), position) for target in targets]
        assert len(set(found)) == 1, (choice, found)
        finite = bool(np.isfinite(logits).all())
        expected = chosen(logits, np.flatnonzero(marks).tolist(), position, choice) if finite else 0
        assert found[0] == (expected, not finite)


def test_a_penalty_that_leaves_float32_is_told() -> None:
    logits, marks = np.array([-2, 1, 3], np.float32), np.array([1, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    for target in machines(3):
        assert choose_on(target, logits, marks, Settings(repetition_penalty=3e38), 4) == (0, True)
        assert choose_on(target, logits, marks * 0, Settings(repetition_penalty=3e38), 4) == (2, False)
        assert choose_on(target, logits, marks, Settings(), 4) == (2, False)


REFUSED = [
    (Settings(mode=2), 0), (Settings(mode=-1), 0), (Settings(top_k=-1), 1), (Settings(temperature=0.0), 2),
    (Settings(temperature=NAN), 2), (Settings(temperature=float("inf")), 2), (Settings(top_p=-0.5), 3),
    (Settings(top_p=1.5), 3), (Settings(top_p=NAN), 3), (Settings(repetition_penalty=0.0), 4),
    (Settings(repetition_penalty=-1.0), 4), (Settings(repetition_penalty=NAN), 4), (Settings(2, -1, 0, -1.0), 0),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "number"), REFUSED)
def test_machines_refuse_settings(settings: Settings, number: int) -> None:
    message = rf"^instruction 1 \(sample\): the sampling settings have {REFUSALS[number]}$"
    for target in machines(3):
        with pytest.raises(MachineFault, match=message):
            choose_on(target, np.zeros(3, np.float32), np.zeros(8, np.uint8), settings, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": 0}, "no columns to choose from"),
        ({"columns": 0, "rows": 20}, "register r20 is read, nothing has set it"),
        ({"settings": HbmRef(memory_map().sampling + 4)}, r"HBM address \d+ is not a multiple of 8"),
        ({"settings": HbmRef(0)}, "HBM address 0 is a parameter's"),
        ({"settings": HbmRef(memory_map().end - 64)}, "the map ends at"),
        ({"src": LmuRef(19_999)}, "LMU words 19999 to 20008, it has 20000"),
    ],
)  # fmt: skip
def test_machines_refuse_places(changes: dict[str, Any], message: str) -> None:
    place = memory_map()
    values = {"dst": 7, "src": LmuRef(0), "columns": 10, "rows": 1, "settings": HbmRef(place.sampling)}
    program = Program((embed(), op("sample", **(values | changes)), op("halt")))
    hbm = Hbm.from_parameters(place, layout(), parameter)
    for kind in (Machine, NativeMachine):
        machine = kind(program, hbm, chunk=4, lmu_words=20_000)
        machine.write_hbm(place.sampling, np.frombuffer(Settings().pack(), np.int64))
        with pytest.raises(MachineFault, match=message):
            machine.run([1], 0, 0)


def test_settings_that_nobody_wrote_are_refused() -> None:
    machine = machines(8)[0]
    machine.write_hbm(wide_map().logits, np.zeros(8, np.float32))
    with pytest.raises(MachineFault, match="hold words that nothing has written"):
        machine.run([1], 0, 0)
    machine.write_hbm(wide_map().sampling, np.frombuffer(Settings().pack(), np.int64))
    machine.run([1], 0, 0)
    machine.write_hbm(wide_map().sampling, np.frombuffer(Settings(repetition_penalty=2.0).pack(), np.int64))
    with pytest.raises(MachineFault, match="hold words that nothing has written"):
        machine.run([1], 0, 0)


def test_the_map_has_room_for_settings_and_marks() -> None:
    for place, vocabulary in ((memory_map(), layout().vocab_size), (wide_map(), WIDE)):
        stripe = place.target.stripe_bytes
        assert place.tokens % stripe == place.sampling % stripe == place.logits % stripe == 0
        assert place.tokens + 8 * MAX_CHUNK <= place.sampling
        assert place.sampling + SETTINGS_BYTES + 8 * -(-vocabulary // 8) <= place.logits


def test_settings_are_64_bytes_and_come_back() -> None:
    settings = Settings(SAMPLE, 50, (1 << 64) - 1, 0.75, 0.5, 1.25)
    assert len(settings.pack()) == SETTINGS_BYTES
    assert Settings.unpack(settings.pack()) == settings
    assert settings.pack()[24:36] == np.array([0.75, 0.5, 1.25], "<f4").tobytes()
