"""The displacement that users get is the map that was found, in their frame and units, and nothing beyond it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from inst_align._anndata import read_pair
from inst_align.core import export, fit
from inst_align.core.export import user_displacement
from inst_align.core.prepared import PairConfig
from inst_align.core.raster import Grid
from inst_align.core.registration import RegistrationConfig
from inst_align.core.registration_config import Level
from inst_align.core.section import UnitFrame
from inst_align.core.transforms import Affine, Displacement

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


def cells(n: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).uniform([-2.0, -1.4], [2.0, 1.4], (n, 2))


def exported(frame: UnitFrame, tolerance: float = 0.02 * SPACING, move: Any = move) -> tuple[Displacement, float]:
    """Return the displacement and its error in the unit frame."""
    found, error = user_displacement(move, GRID, frame, cells=cells(), tolerance=tolerance * frame.scale)
    return found, error / frame.scale


@pytest.mark.parametrize("frame", FRAMES)
def test_the_map_in_the_users_frame_is_the_one_in_the_unit_frame(frame: UnitFrame) -> None:
    unit = cells()
    found = exported(frame)[0](frame.to_user(unit))
    error = np.linalg.norm(frame.to_unit(found) - move(unit), axis=1)
    assert np.linalg.norm(move(unit) - unit, axis=1).max() > 5 * SPACING
    assert error.max() < 0.02 * SPACING
    assert exported(frame)[1] == pytest.approx(error.max(), rel=1e-6)


@pytest.mark.parametrize("frame", FRAMES)
def test_nothing_moves_beyond_the_grid(frame: UnitFrame) -> None:
    near = frame.to_user(np.array([[2.4, 0.0], [-2.5, 0.3], [0.0, 1.9]]))
    far = frame.to_user(np.array([[0.0, -50.0], [8.0, 0.0]]))
    for tolerance in (0.02 * SPACING, 1e-7):
        transform, _ = exported(frame, tolerance)
        np.testing.assert_allclose(transform(near), near, rtol=0, atol=1e-6 * frame.scale)
        np.testing.assert_array_equal(transform(far), far)


def test_nodes_lie_as_dense_as_the_pixels_where_that_is_enough() -> None:
    assert exported(FRAMES[2])[0].spacing == pytest.approx(GRID.pixel * 480)


def wrinkled(unit: np.ndarray) -> np.ndarray:
    """What a network may fit: waves of three pixels, with kinks."""
    wave = np.abs(np.sin(np.pi * unit[:, :1] / (3 * GRID.pixel)))
    return move(unit) + 0.2 * GRID.pixel * wave * np.exp(-4 * (unit**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("tolerance", [1e-3, 3e-4])
def test_a_map_with_finer_detail_gets_a_finer_grid(tolerance: float) -> None:
    fine, error = exported(FRAMES[1], tolerance, wrinkled)
    assert fine.spacing < 0.8 * GRID.pixel
    assert error <= tolerance
    found = np.linalg.norm(FRAMES[1].to_unit(fine(FRAMES[1].to_user(cells()))) - wrinkled(cells()), axis=1)
    assert error == pytest.approx(found.max(), rel=1e-6)


def test_a_grid_gets_no_finer_than_allowed_and_the_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST_NODES", 4 * GRID.width * GRID.height)
    found, error = exported(FRAMES[0], 1e-9, wrinkled)
    assert found.spacing == pytest.approx(GRID.pixel / 2)
    assert error > 1e-6


def test_a_large_grid_is_sampled_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exported(FRAMES[1])
    monkeypatch.setattr(export, "CHUNK", 1000)
    assert exported(FRAMES[1]) == whole


def test_the_map_of_a_real_fit_is_the_composed_fit_at_the_cells(
    toy: Any, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored, a grid in the user's frame, against the flow, which was fitted in another frame."""
    kept: dict[str, Any] = {}

    def spy(move: Any, grid: Grid, frame: UnitFrame, **options: Any) -> Any:
        kept.update(move=move, frame=frame)
        return user_displacement(move, grid, frame, **options)

    monkeypatch.setattr(fit, "user_displacement", spy)
    pair = read_pair(*toy)
    levels = (Level(sigma=0.5, control_spacing=1.5, steps=15), Level(sigma=0.27, control_spacing=1.1, steps=15))
    found = fit.fit_pair(
        pair.ref,
        pair.src,
        config=PairConfig(registration=RegistrationConfig(levels=levels), field=None),
        init=Affine(true_pose),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    xy, frame = pair.src.xy, kept["frame"]
    composed = frame.to_user(kept["move"](frame.to_unit(found.affine(xy))))
    error = np.linalg.norm(found.transform(xy) - composed, axis=1) / pair.ref.spacing
    assert np.linalg.norm(composed - found.affine(xy), axis=1).max() > pair.ref.spacing
    assert error.max() < 0.02
    assert found.report["sampling_error"] == pytest.approx(error.max(), rel=1e-4)
