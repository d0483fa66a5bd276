"""Where the source of a made-up pair lies: a smooth warp without folds, then a similarity. All lengths in micrometres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inst_align.datasets._tissue import EXTENT

if TYPE_CHECKING:
    from inst_align.datasets._tissue import Tissue

_N_BUMPS = 12
_BUMP_SCALE = 0.25
_MIN_DET = 0.3
_TRIES = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Similarity ``(3, 3)`` from the warped to the observed source, and what it is made of (degrees, (2,))."""

    matrix: np.ndarray
    rotation: float
    shift: np.ndarray


def unit_vector(angle: float) -> np.ndarray:
    """Direction ``(2,)`` at an angle in radians."""
    return np.array([np.cos(angle), np.sin(angle)])


def draw_pose(tissue: Tissue, rng: np.random.Generator, *, rotation: float | None, mirror: bool) -> Pose:
    """Draw a turn about the tissue's middle (degrees, unless given) and a shift of up to one extent."""
    drawn = rng.uniform(0.0, 360.0)
    shift = EXTENT * rng.uniform() * unit_vector(rng.uniform(0.0, 2.0 * np.pi))
    degrees = drawn if rotation is None else float(rotation)
    cos, sin = unit_vector(np.deg2rad(degrees))
    matrix = np.eye(3)
    matrix[:2, :2] = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    matrix[:2, 2] = tissue.center - matrix[:2, :2] @ tissue.center + shift
    return Pose(matrix=matrix, rotation=degrees, shift=shift)


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """Sum of Gaussian bumps, added to the position: centres and amplitudes ``(k, 2)``, one length scale."""

    centers: np.ndarray
    amplitudes: np.ndarray
    scale: float = _BUMP_SCALE * EXTENT

    def displacement(self, xy: np.ndarray) -> np.ndarray:
        """How far each point is moved, shape ``(n, 2)``."""
        moved = np.zeros_like(xy)
        for center, amplitude in zip(self.centers, self.amplitudes):
            moved += self._bump(xy - center)[:, None] * amplitude
        return moved

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Where each point is moved to, shape ``(n, 2)``."""
        return xy + self.displacement(xy)

    def jacobian(self, xy: np.ndarray) -> np.ndarray:
        """Derivatives ``[n, i, j]`` of the i-th output by the j-th input, shape ``(n, 2, 2)``."""
        matrices = np.tile(np.eye(2), (len(xy), 1, 1))
        for center, amplitude in zip(self.centers, self.amplitudes):
            slope = -self._bump(xy - center)[:, None] * (xy - center) / self.scale**2
            matrices += amplitude[:, None] * slope[:, None, :]
        return matrices

    def min_det(self, tissue: Tissue) -> float:
        """Smallest Jacobian determinant over the tissue's bounding box and 15 % of the extent around it."""
        surroundings = tissue.grid(EXTENT / 60, margin=0.15 * EXTENT)
        return float(np.linalg.det(self.jacobian(surroundings)).min())

    def _bump(self, away: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (away**2).sum(axis=1) / self.scale**2)


def draw_warp(tissue: Tissue, size: float, rng: np.random.Generator) -> Warp:
    """Draw bumps until one set, scaled so that the largest displacement is ``size`` extents, has no near-fold."""
    lattice = tissue.grid(EXTENT / 60)
    points = lattice[tissue.inside(lattice)]
    for _ in range(_TRIES):
        centers = points[rng.choice(len(points), _N_BUMPS)]
        raw = Warp(centers=centers, amplitudes=rng.normal(size=(_N_BUMPS, 2)))
        largest = np.hypot(*raw.displacement(points).T).max()
        warp = Warp(centers=centers, amplitudes=raw.amplitudes * (size * EXTENT / largest))
        if warp.min_det(tissue) > _MIN_DET:
            return warp
    msg = f"`warp` is {size!r}, but none of {_TRIES} random warps of that size was free of folds: give a smaller one."
    raise ValueError(msg)
