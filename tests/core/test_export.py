"""The displacement that users get is the map that was found, in their frame and units, and nothing beyond it."""

from __future__ import annotations

import numpy as np
import pytest

from inst_align.core.export import user_displacement
from inst_align.core.raster import Grid
from inst_align.core.section import UnitFrame

GRID = Grid(origin=(-2.2, -1.6), pixel=0.035, height=92, width=126)
SPACING = 0.035
"""Neighbour distance of 4000 cells over the unit frame's tissue."""


def frame_of(degrees: float, scale: float, center: tuple[float, float]) -> UnitFrame:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return UnitFrame(center=np.array(center), rotation=np.array([[c, -s], [s, c]]), scale=scale)


def move(unit: np.ndarray) -> np.ndarray:
    """Two smooth bumps of the size of a real warp; the identity at the border of the grid."""
    high = np.array(GRID.origin) + GRID.pixel * np.array([GRID.width - 1, GRID.height - 1])
    inside = np.clip((unit - GRID.origin) * (high - unit), 0, None)
    window = np.prod(np.clip(inside / 1.5, 0, 1) ** 2 * (3 - 2 * np.clip(inside / 1.5, 0, 1)), axis=1)
    one = np.exp(-0.5 * ((unit - [0.5, -0.3]) ** 2).sum(axis=1) / 0.5**2)
    two = np.exp(-0.5 * ((unit - [-0.7, 0.4]) ** 2).sum(axis=1) / 0.4**2)
    return unit + window[:, None] * (one[:, None] * [0.2, -0.1] + two[:, None] * [-0.05, 0.15])


FRAMES = [
    frame_of(0, 1.0, (0, 0)),
    frame_of(33, 1.0, (0, 0)),
    frame_of(90, 480.0, (3000, -5000)),
    frame_of(-160, 1e-3, (1e2, 1e2)),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_the_map_in_the_users_frame_is_the_one_in_the_unit_frame(frame: UnitFrame) -> None:
    unit = np.random.default_rng(0).uniform([-2.0, -1.4], [2.0, 1.4], (2000, 2))
    found = user_displacement(move, GRID, frame)(frame.to_user(unit))
    error = np.linalg.norm(frame.to_unit(found) - move(unit), axis=1)
    assert np.linalg.norm(move(unit) - unit, axis=1).max() > 5 * SPACING
    assert error.max() < 0.02 * SPACING


@pytest.mark.parametrize("frame", FRAMES)
def test_nothing_moves_beyond_the_grid(frame: UnitFrame) -> None:
    near = frame.to_user(np.array([[2.4, 0.0], [-2.5, 0.3], [0.0, 1.9]]))
    far = frame.to_user(np.array([[0.0, -50.0], [8.0, 0.0]]))
    transform = user_displacement(move, GRID, frame)
    np.testing.assert_allclose(transform(near), near, rtol=0, atol=1e-7 * frame.scale)
    np.testing.assert_array_equal(transform(far), far)


def test_nodes_lie_as_dense_as_the_pixels() -> None:
    assert user_displacement(move, GRID, FRAMES[2]).spacing == pytest.approx(GRID.pixel * 480)


def test_a_large_grid_is_sampled_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = user_displacement(move, GRID, FRAMES[1])
    monkeypatch.setattr("inst_align.core.export.CHUNK", 1000)
    assert user_displacement(move, GRID, FRAMES[1]) == whole
