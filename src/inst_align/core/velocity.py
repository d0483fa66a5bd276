"""Smooth invertible maps on a grid: stationary velocity fields made of cubic B-splines, and what bending them costs.

A map is ``exp(v)``, the flow of a velocity field v for one unit of time, so that ``exp(-v)`` is its inverse and neither
folds as long as v is smooth (Arsigny et al., MICCAI 2006; Ashburner, NeuroImage 38, 2007). Fields have shape
(..., 2, H, W), component 0 along x, in the units of the grid; several of them are worked on at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.raster import grid_sample

if TYPE_CHECKING:
    from inst_align.core.raster import Grid

SQUARINGS = 5


class ControlLattice:
    """Uniform cubic B-spline control points: velocity at a grid's points = ``basis_y @ c @ basis_x.T``.

    Parameters
    ----------
    grid
        Where the velocity is wanted.
    spacing
        Distance between control points, or a little less.
    device
        Where the bases live.
    over
        The grid whose extent the control points span; beyond it the velocity stays what it is on its border.
    """

    def __init__(self, grid: Grid, spacing: float, device: torch.device, *, over: Grid | None = None) -> None:
        span = over or grid
        self.basis_x, self.basis_y = (
            _basis(start + grid.pixel * np.arange(n), first, span.pixel * (m - 1), spacing).to(device)
            for start, n, first, m in zip(
                grid.origin, (grid.width, grid.height), span.origin, (span.width, span.height), strict=True
            )
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of control points along y and x."""
        return self.basis_y.shape[1], self.basis_x.shape[1]

    def velocity(self, control: torch.Tensor) -> torch.Tensor:
        """Velocity (2, H, W) of control vectors (2, h, w)."""
        return self.basis_y @ control @ self.basis_x.T

    def fit(self, velocity: torch.Tensor) -> torch.Tensor:
        """Control vectors (2, h, w) whose velocity is nearest to ``velocity`` (2, H, W) in the least-squares sense."""
        left, right = (torch.linalg.pinv(b.double(), rtol=1e-4).float() for b in (self.basis_y, self.basis_x))
        return left @ velocity @ right.T


def _basis(at: np.ndarray, first: float, extent: float, spacing: float) -> torch.Tensor:
    """Values at places (n,) of the cubic B-splines over ``[first, first + extent]``, shape (n, n_control)."""
    n_intervals = max(1, math.ceil(extent / spacing))
    position = torch.as_tensor(np.clip((at - first) / extent, 0, 1) * n_intervals)
    knots = torch.arange(-1, n_intervals + 2, dtype=torch.float64)
    t = (position[:, None] - knots).abs()
    near = 2 / 3 - t**2 + t**3 / 2
    far = (2 - t).clamp_min(0) ** 3 / 6
    return torch.where(t < 1, near, far).float()


def fade(points: torch.Tensor, tissue: np.ndarray, margin: float) -> torch.Tensor:
    """Weight of points (..., 2): 1 over the bounding box of ``tissue`` (n, 2), falling to 0 at ``margin`` around it."""
    low, high = (
        torch.as_tensor(corner, dtype=points.dtype, device=points.device)
        for corner in (tissue.min(axis=0), tissue.max(axis=0))
    )
    outside = torch.maximum(low - points, points - high).clamp_min(0) / margin
    t = outside.clamp_max(1.0)
    return ((1 - t) ** 2 * (1 + 2 * t)).prod(dim=-1)


class Flow:
    """Scaling and squaring on one grid."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self.points = grid.normalize(grid.points(device)).movedim(-1, 0).contiguous()
        size = torch.tensor([grid.width - 1, grid.height - 1], device=device, dtype=torch.float32)
        self._scale = (2 / (grid.pixel * size))[:, None, None]

    def at(self, displacement: torch.Tensor) -> torch.Tensor:
        """Where the grid's points go, (..., H, W, 2), in the convention of ``grid_sample``."""
        return (self.points + displacement * self._scale).movedim(-3, -1)

    def exp(self, velocity: torch.Tensor, squarings: int = SQUARINGS) -> torch.Tensor:
        """Displacement (..., 2, H, W) of ``exp(velocity)``, by composing small steps with themselves."""
        displacement = (velocity / 2**squarings).reshape(-1, *velocity.shape[-3:])
        for _ in range(squarings):
            moved = grid_sample(displacement, self.at(displacement))
            displacement = displacement + moved
        return displacement.reshape(velocity.shape)


def singular_values(displacement: torch.Tensor, pixel: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values of the Jacobian of ``x + displacement`` by forward differences, shapes (..., H - 1, W - 1).

    Closed form for 2 x 2 matrices; the smaller one carries the sign of the determinant, so that it is negative in folds.
    """
    along_x = (displacement[..., :-1, 1:] - displacement[..., :-1, :-1]) / pixel
    along_y = (displacement[..., 1:, :-1] - displacement[..., :-1, :-1]) / pixel
    (j11, j21), (j12, j22) = along_x.unbind(-3), along_y.unbind(-3)
    j11, j22 = 1 + j11, 1 + j22
    turn = ((j11 + j22).square() + (j21 - j12).square() + 1e-12).sqrt() / 2
    stretch = ((j11 - j22).square() + (j21 + j12).square() + 1e-12).sqrt() / 2
    return turn + stretch, turn - stretch


def strain_energy(displacement: torch.Tensor, pixel: float, where: torch.Tensor) -> torch.Tensor:
    """Mean of ``log(s1)^2 + log(s2)^2`` over ``where`` (H, W), and a steep wall before folds, ``relu(0.1 - det J)^2``.

    The same cost for growing by a factor as for shrinking by it (Park et al., Nerfies, ICCV 2021, elastic energy). Of
    several displacements the mean.
    """
    large, small = singular_values(displacement, pixel)
    weight = where[:-1, :-1]
    energy = large.log().square() + small.clamp_min(1e-3).log().square()
    wall = (0.1 - large * small).clamp_min(0).square()
    return (energy * weight).sum(dim=(-2, -1)).mean() / weight.sum() + 100 * wall.mean()


def bending_energy(velocity: torch.Tensor, pixel: float, where: torch.Tensor) -> torch.Tensor:
    """Mean over ``where`` (H, W) of the squared second derivatives of the velocity (thin-plate energy)."""
    v, weight = velocity / pixel**2, where[1:-1, 1:-1]
    xx = v[:, 1:-1, 2:] - 2 * v[:, 1:-1, 1:-1] + v[:, 1:-1, :-2]
    yy = v[:, 2:, 1:-1] - 2 * v[:, 1:-1, 1:-1] + v[:, :-2, 1:-1]
    xy = (v[:, 2:, 2:] - v[:, 2:, :-2] - v[:, :-2, 2:] + v[:, :-2, :-2]) / 4
    energy = (xx.square() + yy.square() + 2 * xy.square()).sum(dim=0)
    return (energy * weight).sum() / weight.sum()
