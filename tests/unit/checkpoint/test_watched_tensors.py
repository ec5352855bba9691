"""The hash of a tensor that is read in any order, and what of it is read for the hash alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hyperdex_ir.backend.sources import SourceWatch, is_unchanged
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.hashing import COLUMNS, ROWS, Watched
from hyperdex_ir.errors import CheckpointError


@dataclass
class Counted:
    """A matrix of 16-bit patterns that counts how often each row and column is read."""

    values: np.ndarray
    dtype: str = "BF16"
    names: tuple[str, ...] = ("a",)
    times: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.times = np.zeros(self.values.shape, int)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        self.times[start:stop] += 1
        return self.values[start:stop]

    def columns(self, start: int, stop: int) -> np.ndarray:
        self.times[:, start:stop] += 1
        return self.values[:, start:stop]


def matrix(rows: int, columns: int) -> Counted:
    return Counted(np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns))


def expected(values: np.ndarray, order: str) -> str:
    return hashlib.sha256((values if order == ROWS else values.T).tobytes()).hexdigest()


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from([ROWS, COLUMNS]), st.integers(0, 9), st.integers(0, 9)), min_size=1),
)
def test_any_readings_give_the_hash_of_all(rows: int, columns: int, readings: list[tuple[str, int, int]]) -> None:
    counted = matrix(rows, columns)
    tensor = Watched(counted)
    for order, first, second in readings:
        start, stop = sorted(min(one, rows if order == ROWS else columns) for one in (first, second))
        read, whole = (tensor.rows, counted.values) if order == ROWS else (tensor.columns, counted.values.T)
        got = read(start, stop)
        assert np.array_equal(got if order == ROWS else got.T, whole[start:stop])
    assert tensor.order == readings[0][0]
    before, advanced = counted.times.sum(), []
    left = tensor.unseen_bytes
    assert tensor.sha256(advanced.append) == expected(counted.values, tensor.order)
    assert sum(advanced) == left == 2 * (counted.times.sum() - before)
    assert tensor.unseen_bytes == 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 8), st.sampled_from([ROWS, COLUMNS]))
def test_readings_in_order_leave_nothing_unseen(rows: int, columns: int, step: int, overlap: int, order: str) -> None:
    counted = matrix(rows, columns)
    tensor = Watched(counted)
    count, read = (rows, tensor.rows) if order == ROWS else (columns, tensor.columns)
    for start in range(0, count, step):
        read(max(start - overlap, 0), min(start + step, count))
    times = counted.times.copy()
    assert tensor.sha256() == expected(counted.values, order)
    assert np.array_equal(counted.times, times)
    assert overlap or times.max() == 1


def test_an_order_that_the_tensor_has_not() -> None:
    flat = Counted(np.zeros(3, np.uint16))
    for order in (COLUMNS, "diagonal"):
        with pytest.raises(CheckpointError, match=rf"a: no tensor of shape \[3\] is read by '{order}'"):
            Watched(flat, order)
    assert Watched(flat, ROWS).sha256() == expected(flat.values, ROWS)


# ------------------------------------------------------------------------------------------------------------- files
@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file({"a": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.ones(5, np.float16)}, tmp_path / WEIGHTS)
    return tmp_path / WEIGHTS


WEIGHTS = "model.safetensors"


def watched(path: Path) -> tuple[SourceWatch, Checkpoint]:
    watch, checkpoint = SourceWatch(path.parent, [path]), Checkpoint(path.parent)
    watch.watch(checkpoint)
    return watch, checkpoint


def test_parts_in_another_order_are_hashed_at_the_end(path: Path) -> None:
    watch, checkpoint = watched(path)
    checkpoint.rows("a", 2, 4)
    checkpoint.rows("a", 0, 2)
    record = watch.describe()
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert record[WEIGHTS]["tensors"] == {"a": {"order": ROWS, "sha256": expected(values, ROWS)}}
    assert is_unchanged(path.parent, record, [path])


def test_what_is_hashed_at_the_end_must_be_what_was_read(path: Path) -> None:
    """Even where all that was hashed before is as it was."""
    watch, checkpoint = watched(path)
    checkpoint.rows("a", 2, 4)
    path.write_bytes(path.read_bytes().replace(np.float32(7).tobytes(), np.float32(8).tobytes()))
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: changed while it was converted"):
        watch.describe()


def test_a_file_that_is_gone(path: Path) -> None:
    watch, checkpoint = watched(path)
    checkpoint.read("b")
    record = watch.describe()
    path.unlink()
    assert not is_unchanged(path.parent, record, [path])
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: changed while it was converted"):
        watch.describe()
