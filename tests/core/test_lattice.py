"""Lattices are told from scattered cells, and only tissue found again on either lattice is followed below its spacing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inst_align.core.drawn import Cells, Drawn
from inst_align.core.lattice import shared_detail
from inst_align.core.raster import Grid
from inst_align.core.registration import Level, RegistrationConfig, register
from inst_align.core.section import lattice_constant, nearest_distances

SPACING = 0.2


def hexagonal(spacing: float = SPACING, side: float = 3.4) -> np.ndarray:
    columns = np.arange(0, side, spacing)
    rows = np.arange(0, side, spacing * np.sqrt(3) / 2)
    x, y = np.meshgrid(columns, rows)
    x = x + (np.arange(len(rows)) % 2)[:, None] * spacing / 2
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    return xy - xy.mean(axis=0)


def scattered(n: int = 350) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.7, 1.7, (n, 2))


def spots(xy: np.ndarray, seed: int) -> torch.Tensor:
    """Twelve channels: smooth tissue, and more that is peculiar to each spot."""
    waves = np.random.default_rng(9).normal(0, 0.5, (2, 12))
    noise = np.random.default_rng(seed).normal(0, 1, (len(xy), 12))
    return torch.as_tensor(0.7 * np.sin(xy @ waves + np.arange(12)) + noise, dtype=torch.float32)


@pytest.mark.parametrize("lattice", [hexagonal(), np.unique(np.round(hexagonal() / SPACING), axis=0) * SPACING])
def test_lattices_are_recognised_with_gaps_and_a_little_jitter(lattice: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    kept = lattice[rng.random(len(lattice)) < 0.85] + rng.normal(0, 0.01 * SPACING, 2)
    assert lattice_constant(nearest_distances(kept + rng.normal(0, 0.02 * SPACING, kept.shape))) == pytest.approx(
        SPACING, rel=0.06
    )


def test_scattered_cells_are_no_lattice() -> None:
    assert lattice_constant(nearest_distances(scattered())) == 0


def detail(xy: np.ndarray, seeds: tuple[int, int]) -> float:
    grid = Grid.around(xy, pixel=0.08, margin=0.3)
    cells = [Cells.of(xy, spots(xy, seed)) for seed in seeds]
    return shared_detail(cells, [Drawn.draw(grid, each, 0.15) for each in cells], 0.4, lambda places: places)


def test_detail_is_shared_by_a_section_and_itself_and_not_by_two_draws_of_spots() -> None:
    assert detail(hexagonal(), (0, 0)) == pytest.approx(1, abs=1e-6)
    assert abs(detail(hexagonal(), (0, 1))) < 0.12


def steps(xy: np.ndarray, seeds: tuple[int, int]) -> int:
    levels = (
        Level(sigma=0.5, control_spacing=1.5, steps=4),
        Level(sigma=0.32, control_spacing=1.1, steps=4),
        Level(sigma=0.17, control_spacing=1.0, steps=4),
    )
    found = register(xy, xy, *(spots(xy, seed) for seed in seeds), RegistrationConfig(levels=levels, n_pixels=48))
    assert np.isfinite(found.forward(xy)).all()
    return len(found.history["registration.data"])


def test_below_its_spacing_a_lattice_is_followed_only_if_spots_recur() -> None:
    assert steps(hexagonal(), (0, 0)) == 12
    assert steps(hexagonal(), (0, 1)) == 8
    assert steps(scattered(), (0, 1)) == 12
