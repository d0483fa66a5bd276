"""A matrix that is on disk gives the rows that are asked for, whichever they are, and reads no block without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from inst_align.core.rows import Rows, same_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.rows import Streamed

BOUNDS = [0, 4, 4, 9, 20]


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.7, (20, 6)).astype(np.float32)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 19), max_size=40))
def test_any_rows_in_any_order_are_given_and_each_block_is_read_once(
    rows: list[int], matrix: np.ndarray, streamed: Callable[..., Streamed]
) -> None:
    read: list[int] = []
    asked = np.array(rows, dtype=int)
    found = streamed(matrix, BOUNDS, read)[asked]
    np.testing.assert_array_equal(found.toarray(), matrix[asked])
    assert found.dtype == np.float32
    assert read == sorted({{0: 0, 1: 2, 2: 3}[int(np.searchsorted([4, 9], row, side="right"))] for row in rows})


@pytest.mark.parametrize("rows", [slice(None), slice(3, 11), slice(None, None, 7), np.arange(20) % 3 == 0])
def test_slices_and_masks_are_those_of_a_matrix(
    rows: Any, matrix: np.ndarray, streamed: Callable[..., Streamed]
) -> None:
    np.testing.assert_array_equal(streamed(matrix, BOUNDS)[rows].toarray(), matrix[rows])
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(Rows(streamed(matrix, BOUNDS), order)[rows].toarray(), matrix[order][rows])


def test_the_blocks_are_all_rows_in_their_order(matrix: np.ndarray, streamed: Callable[..., Streamed]) -> None:
    found = np.zeros_like(matrix)
    for rows, block in streamed(matrix, BOUNDS).blocks():
        assert block.shape[0] == rows.stop - rows.start > 0
        found[rows] = block.toarray()
    np.testing.assert_array_equal(found, matrix)


def test_columns_and_powers_of_two_are_those_of_a_matrix(matrix: np.ndarray, streamed: Callable[..., Streamed]) -> None:
    keep = np.array([True, False, True, True, False, True])
    found = streamed(matrix, BOUNDS).of_columns(keep).times_power_of_two(-3)
    assert found.shape == (20, 4)
    assert found.largest == matrix.max() / 8
    np.testing.assert_array_equal(found[np.array([11, 2])].toarray(), matrix[[11, 2]][:, keep] / 8)


def test_the_same_values_are_told_from_others_wherever_they_are(
    matrix: np.ndarray, streamed: Callable[..., Streamed]
) -> None:
    forms = [sparse.csr_matrix(matrix), streamed(matrix, BOUNDS), streamed(matrix, [0, 13, 20])]
    other = matrix.copy()
    other[17, 2] += 1
    for one in forms:
        assert all(same_values(one, same) for same in forms)
        assert not same_values(one, sparse.csr_matrix(other))
        assert not same_values(streamed(other, [0, 20]), one)
    assert same_values(matrix, matrix.copy())
    assert not same_values(matrix, other)
