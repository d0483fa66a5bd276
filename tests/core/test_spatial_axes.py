"""Axes on which neighbours agree: found where they were planted, counted on cells that were not used to find them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.spatial_axes import REACH, Cells, Measured, count_reliable, spatial_axes

CPU = torch.device("cpu")
SIDE = 20


def grid(shift: float = 0.3) -> Cells:
    """Two sections of 400 cells each, one lattice over the other."""
    xy = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2).astype(float)
    return Cells(xy=np.concatenate([xy, xy + shift]), in_source=np.repeat([False, True], len(xy)))


def waves(cells: Cells, number: int) -> np.ndarray:
    """Smooth patterns that both sections share, of standard deviation about one, shape ``(n, number)``."""
    x, y = cells.xy.T
    patterns = [np.sin(0.5 * x), np.cos(0.45 * y), np.sin(0.4 * (x + y)), np.cos(0.6 * (x - y))]
    return np.sqrt(2) * np.stack(patterns[:number], axis=1)


def measured(
    cells: Cells, patterns: np.ndarray, *, n_genes: int = 40, strength: float = 0.4, seed: int = 0
) -> Measured:
    """Each gene follows one pattern, in turn, under noise of standard deviation one."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(cells.xy), n_genes))
    values += strength * patterns[:, np.arange(n_genes) % patterns.shape[1]]
    cut = (~cells.in_source).sum()
    return Measured(expression=(values[:cut].astype("f4"), values[cut:].astype("f4")), is_rep=False, device=CPU)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_neighbours_are_others_and_within_reach() -> None:
    cells = grid()
    own, other = (cells.mean_of_neighbours(other=other) for other in (False, True))
    assert own.diagonal().max() == 0
    np.testing.assert_allclose(own.sum(axis=1), 1)
    np.testing.assert_allclose(other.sum(axis=1), 1)
    assert not own[:400, 400:].nnz
    assert not other[:400, :400].nnz
    row, column = other.nonzero()
    assert np.linalg.norm(cells.xy[row] - cells.xy[column], axis=1).max() <= REACH


def test_a_section_out_of_reach_has_no_neighbours_in_the_other() -> None:
    cells = grid(shift=100.0)
    assert not cells.mean_of_neighbours(other=True).nnz
    assert not cells.overlap().any()
    assert grid().overlap().all()


def test_agreement_is_the_covariance_of_a_cell_with_its_neighbours() -> None:
    cells = grid()
    cells = cells.take(np.flatnonzero(np.arange(800) % 3 > 0))
    matrix = cells.agreement()
    assert abs(matrix - matrix.T).max() < 1e-15
    z = np.random.default_rng(0).standard_normal(len(cells.xy))
    by_section = []
    for source in (False, True):
        rows = cells.in_source == source
        around = sum(cells.mean_of_neighbours(other=other)[rows] @ z for other in (False, True))
        by_section.append((z[rows] * around).mean())
    assert z @ matrix @ z == pytest.approx(np.mean(by_section))


def test_axes_are_orthonormal_and_find_what_was_planted() -> None:
    cells = grid()
    axes = spatial_axes(measured(cells, waves(cells, 3)), cells.agreement(), 8, generator()).numpy()
    np.testing.assert_allclose(axes.T @ axes, np.eye(8), atol=1e-5)
    planted = np.eye(3)[np.arange(40) % 3] / np.sqrt(np.bincount(np.arange(40) % 3))
    cosines = np.linalg.svd(axes[:, :3].T @ planted, compute_uv=False)
    assert cosines.min() > 0.97


@pytest.mark.parametrize("number", [1, 2, 4])
def test_as_many_axes_are_reliable_as_were_planted(number: int) -> None:
    cells = grid()
    found, agreement = count_reliable(measured(cells, waves(cells, number)), cells, 12, generator())
    assert found == number
    assert agreement[:number].min() > 0.5
    assert np.abs(agreement[number:]).max() < 0.4


def test_of_noise_one_axis_is_kept() -> None:
    cells = grid()
    found, agreement = count_reliable(measured(cells, waves(cells, 1), strength=0.0), cells, 12, generator())
    assert found == 1
    assert np.abs(agreement).max() < 0.3


def test_sparse_and_dense_expression_give_the_same_scores() -> None:
    cells = grid()
    dense = measured(cells, waves(cells, 2))
    thin = tuple(np.where(values > 0, values, 0).astype("f4") for values in dense.expression)
    scores = []
    for expression in (thin, tuple(sparse.csr_matrix(values) for values in thin)):
        table = Measured(expression=expression, is_rep=False, device=CPU)
        scores.append(table.scores(spatial_axes(table, cells.agreement(), 2, generator())))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
