"""Cokriging: right where the answer is known, better than either section alone, and fair to what one section lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from inst_align.core.kriging import BLOCK, SCALES, WINDOW, Covariance, _blocks, _windows, krige
from inst_align.core.spatial_axes import Cells

CPU = torch.device("cpu")
NOISE = 0.7


def two_sections(n: int, *, seed: int = 0, side: float | None = None) -> Cells:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.sqrt(n) if side is None else side, (2 * n, 2))
    return Cells(xy=xy, in_source=np.repeat([False, True], n))


def smooth(cells: Cells) -> np.ndarray:
    """Smooth pattern of standard deviation about one, shape ``(n,)``."""
    x, y = cells.xy.T
    return np.sin(0.5 * x) + np.cos(0.4 * y)


def rough(cells: Cells) -> np.ndarray:
    """Pattern of variance one whose covariance is an exponential of range 6, shape ``(n,)``."""
    covariance = np.exp(-np.linalg.norm(cells.xy[:, None] - cells.xy[None], axis=2) / 6)
    return np.linalg.cholesky(covariance + 1e-9 * np.eye(len(cells.xy))) @ np.random.default_rng(7).standard_normal(
        len(cells.xy)
    )


def by_hand(cells: Cells, values: np.ndarray, covariance: Covariance, at: Cells) -> np.ndarray:
    """All equations at once, from the textbook."""

    def between(a: Cells, b: Cells, channel: int, *, private: bool) -> np.ndarray:
        distance = np.linalg.norm(a.xy[:, None] - b.xy[None], axis=2)
        basis = np.exp(-distance[:, :, None] / np.array(SCALES))
        same = a.in_source[:, None] == b.in_source[None]
        return basis @ covariance.shared[channel] + private * same * (basis @ covariance.private[channel])

    columns = []
    for channel in range(values.shape[1]):
        noise = covariance.noise[cells.in_source.astype(int), channel]
        matrix = between(cells, cells, channel, private=True) + np.diag(noise)
        columns.append(between(at, cells, channel, private=False) @ np.linalg.solve(matrix, values[:, channel]))
    return np.stack(columns, axis=1)


def covariance_of(n_channels: int) -> Covariance:
    rng = np.random.default_rng(1)
    shared, private = rng.uniform(0, 1, (2, n_channels, len(SCALES)))
    return Covariance(shared=shared, private=private, noise=rng.uniform(0.3, 1, (2, n_channels)))


def test_where_one_window_holds_all_cells_the_answer_is_exact() -> None:
    cells, at = two_sections(20), two_sections(33, seed=1)
    values = np.random.default_rng(2).standard_normal((40, 3))
    covariance = covariance_of(3)
    found = krige(cells, values, covariance, at, CPU)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(cells, values, covariance, at), atol=1e-4)


def test_windows_lose_next_to_nothing() -> None:
    cells = two_sections(350)
    values = (smooth(cells) + NOISE * np.random.default_rng(0).standard_normal(700))[:, None]
    values -= values.mean()
    covariance = Covariance.of(cells, values)
    found, expected = krige(cells, values, covariance, cells, CPU), by_hand(cells, values, covariance, cells)
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.05 * expected.std()


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), m=st.integers(1, 60), repeated=st.booleans(), seed=st.integers(0, 1000))
def test_every_place_is_in_a_block_whose_window_has_the_cell_nearest_to_it(
    n: int, m: int, repeated: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    xy, at = rng.uniform(0, 8, (n, 2)), rng.uniform(0, 8, (m, 2))
    if repeated:
        xy, at = xy.round(), at.round()
    blocks = _blocks(at)
    windows, spare = _windows(cKDTree(xy), at[blocks])
    assert set(blocks.ravel()) == set(range(m))
    assert blocks.shape[1] == BLOCK
    assert windows.shape == spare.shape
    assert windows.shape[1] <= WINDOW
    for block, window, extra in zip(blocks, windows, spare, strict=True):
        kept = window[~extra]
        assert len(set(kept)) == len(kept)
        distance = np.linalg.norm(at[block][:, None] - xy[None], axis=2)
        np.testing.assert_allclose(distance[:, kept].min(axis=1), distance.min(axis=1))


def test_signal_is_found_under_noise_and_better_with_the_other_section() -> None:
    cells = two_sections(600)
    truth = rough(cells)
    values = (truth + NOISE * np.random.default_rng(0).standard_normal(1200))[:, None]
    alone = Cells(xy=cells.xy + 1e4 * cells.in_source[:, None], in_source=cells.in_source)
    errors = []
    for where in (cells, alone):
        covariance = Covariance.of(where, values - values.mean())
        found = krige(where, values - values.mean(), covariance, where, CPU)[:, 0] + values.mean()
        errors.append(np.sqrt(((found - truth) ** 2).mean()))
    assert errors[1] < 0.6 * NOISE
    assert errors[0] < 0.95 * errors[1]


def test_shared_and_private_structure_are_told_apart() -> None:
    cells = two_sections(800)
    rng = np.random.default_rng(0)
    signal, noise = smooth(cells), rng.standard_normal(1600)
    scratch = np.where(cells.in_source, np.sin(0.9 * cells.xy[:, 0]), np.cos(0.8 * cells.xy[:, 1]))
    values = np.stack([signal + 0.3 * noise, scratch + 0.3 * noise, signal + scratch + 0.3 * noise], axis=1)
    values -= values.mean(axis=0)
    covariance = Covariance.of(cells, values)
    shared = covariance.shared_fraction
    assert shared[0] > 0.9
    assert shared[1] < 0.3
    assert 0.4 < shared[2] < 0.9
    found = krige(cells, values, covariance, cells, CPU)[:, 2]
    assert np.corrcoef(found, signal)[0, 1] > np.corrcoef(values[:, 2], signal)[0, 1] + 0.05


def test_noise_is_taken_for_noise() -> None:
    cells = two_sections(600)
    values = np.random.default_rng(0).standard_normal((1200, 2))
    values -= values.mean(axis=0)
    found = krige(cells, values, Covariance.of(cells, values), cells, CPU)
    assert found.std() < 0.3


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_constant_channels_and_few_cells_do_no_harm(n: int) -> None:
    cells = two_sections(n, side=3.0)
    values = np.stack([np.zeros(2 * n), np.random.default_rng(0).standard_normal(2 * n)], axis=1)
    found = krige(cells, values, Covariance.of(cells, values), cells, CPU)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, 0], 0)
