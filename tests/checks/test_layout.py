"""Cells far from all others are found, wherever they are, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inst_align import _checks as checks
from inst_align.core.section import median_spacing


def disc(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    radius, angle = np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
    return radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


def lattice(n: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2).astype(float)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(12, 800), length=st.floats(1, 8))
def test_a_section_without_strays_has_none(seed: int, n: int, length: float) -> None:
    assert not checks.stray_cells(disc(n, seed) * [length, 1]).any()


@pytest.mark.parametrize("xy", [lattice(5), lattice(60), np.vstack([disc(300), disc(300, 1) + [6, 0]])])
def test_lattices_and_halves_that_lie_apart_have_no_strays(xy: np.ndarray) -> None:
    assert not checks.stray_cells(xy).any()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(60, 600),
    clump=st.integers(1, 3),
    angle=st.floats(0, 2 * np.pi),
    distance=st.floats(3, 1e6),
)
def test_a_small_clump_far_off_is_found_whole(seed: int, n: int, clump: int, angle: float, distance: float) -> None:
    far = distance * np.array([np.cos(angle), np.sin(angle)]) + 0.01 * disc(clump, 1)
    xy = np.vstack([disc(n, seed), far])
    assert np.flatnonzero(checks.stray_cells(xy)).tolist() == list(range(n, n + clump))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(0, 2 * np.pi), unit=st.sampled_from([1e-3, 1.0, 4.7, 1e6]))
def test_strays_do_not_depend_on_order_place_angle_and_unit(seed: int, angle: float, unit: float) -> None:
    rng = np.random.default_rng(seed)
    xy = np.vstack([disc(200, seed), [[5, 5], [-4, 0], [1.1, 0]]])
    wanted = checks.stray_cells(xy)
    order = rng.permutation(len(xy))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (xy[order] @ turn.T + rng.normal(size=2)) * unit
    assert wanted.sum() == 2
    np.testing.assert_array_equal(checks.stray_cells(moved), wanted[order])


def test_the_thin_end_of_a_tail_belongs_to_the_tissue() -> None:
    tail = np.column_stack([1 + 0.2 * np.arange(1, 9), np.zeros(8)])
    assert not checks.stray_cells(np.vstack([disc(500), tail])).any()


def test_up_to_a_tenth_of_the_cells_may_be_strays() -> None:
    far = 20 * np.column_stack([np.cos(np.arange(20)), np.sin(np.arange(20))]) * (1 + np.arange(20))[:, None]
    assert checks.stray_cells(np.vstack([disc(300), far])).sum() == 20


def test_ten_cells_are_always_left() -> None:
    xy = np.vstack([disc(9), [[1e4, 0]]])
    assert not checks.stray_cells(xy).any()


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ([disc(400)], [400]),
        ([disc(400), disc(300, 1) + [5, 0]], [400, 300]),
        ([disc(400), disc(300, 1) + [5, 0], disc(15, 2) - [9, 0]], [400, 300]),  # debris is no piece
        ([lattice(30)], [900]),
        ([lattice(20), lattice(20) + [25, 0]], [800]),  # a gap of a few spots
        ([lattice(20), lattice(20) + [60, 0]], [400, 400]),
    ],
)
def test_pieces_are_counted(parts: list[np.ndarray], sizes: list[int]) -> None:
    xy = np.vstack(parts)
    assert checks.piece_sizes(xy, median_spacing(xy)) == sizes
