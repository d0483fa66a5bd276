"""Which cells have a counterpart is told from where there is tissue."""

from __future__ import annotations

import numpy as np
import pytest

from inst_align.core.overlap import overlap_of
from inst_align.core.section import median_spacing


def square(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, (n, 2))


def overlap(ref: np.ndarray, src: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return overlap_of(ref, src, max(median_spacing(ref), median_spacing(src)))


def test_cells_of_sections_that_cover_each_other_have_counterparts() -> None:
    for found in overlap(square(1500, 0), square(1000, 1)):
        assert (found > 0.5).mean() > 0.98
        assert np.median(found) > 0.99


def test_the_probability_falls_from_one_to_zero_across_the_edge_and_is_right_on_average() -> None:
    ref, src = square(2000, 0), square(2000, 1)
    src = src[src[:, 0] > 50]
    found, of_src = overlap(ref, src)
    assert found[ref[:, 0] < 42].max() < 0.05
    assert np.median(found[ref[:, 0] > 58]) > 0.99
    assert found.mean() == pytest.approx((ref[:, 0] > 50).mean(), abs=0.03)
    assert of_src.min() > 0.2
    assert np.square(found - (ref[:, 0] > 50)).mean() < 0.02


def test_a_hole_has_no_tissue_but_the_gaps_between_cells_do() -> None:
    ref, src = square(3000, 0), square(3000, 1)
    away = np.linalg.norm(src - 50, axis=1) > 15
    found, _ = overlap(ref, src[away])
    assert found[np.linalg.norm(ref - 50, axis=1) < 8].max() < 0.3
    assert np.median(found[np.linalg.norm(ref - 50, axis=1) > 25]) > 0.99


def test_cells_far_from_all_tissue_have_none() -> None:
    ref = square(500, 0)
    for found in overlap(ref, square(500, 1) + 1000):
        assert (found == 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_units_and_the_order_of_cells_do_not_matter(scale: float) -> None:
    ref, src = square(400, 0), square(300, 1)[:, :] * [0.6, 1.0]
    order = np.random.default_rng(2).permutation(400)
    expected, found = overlap(ref, src), overlap(scale * ref[order], scale * src)
    np.testing.assert_allclose(found[0], expected[0][order], atol=1e-9)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-9)
