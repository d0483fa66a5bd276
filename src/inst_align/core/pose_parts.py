"""What the search for a pose is made of: poses, and sections drawn as images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from inst_align.core.raster import Grid, blur, sample, splat

TISSUE = 0.15
"""A pixel is tissue where the blurred number of cells exceeds this share of its median over occupied pixels."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One pose: ``y = rotation(angle) @ (mirror * x, y) + shift``, from the source's unit frame to the reference's."""

    angle: float
    mirror: bool
    shift: tuple[float, float]
    score: float
    overlap: float
    missed: float = 0.0
    """What the landmarks took off the score."""

    @property
    def matrix(self) -> np.ndarray:
        """Homogeneous (3, 3) matrix."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        sign = -1.0 if self.mirror else 1.0
        return np.array([[c * sign, -s, self.shift[0]], [s * sign, c, self.shift[1]], [0.0, 0.0, 1.0]])

    def turn(self, other: Candidate) -> float:
        """Angle between the two poses, in degrees, from 0 to 180."""
        return math.degrees(abs((self.angle - other.angle + math.pi) % (2 * math.pi) - math.pi))

    def differs(self, other: Candidate, distance: float) -> bool:
        """Whether the two poses are distinctly different: in mirror, by over 20 degrees, or by ``distance`` in shift."""
        shift = math.dist(self.shift, other.shift)
        return self.mirror != other.mirror or self.turn(other) > 20 or shift > distance


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A section's channels and its tissue on a grid; the channels are zero off the tissue."""

    grid: Grid
    channels: torch.Tensor  # (k, H, W)
    mask: torch.Tensor  # (1, H, W), 0 or 1

    @classmethod
    def of(cls, grid: Grid, xy: np.ndarray, features: torch.Tensor, sigma: float) -> Image:
        """Draw cells (n, 2) with features (n, k), blurred by ``sigma`` pixels."""
        points = torch.as_tensor(xy, dtype=torch.float64, device=features.device)
        drawn = blur(splat(grid, points, torch.cat([features, torch.ones_like(features[:, :1])], dim=1)), sigma)
        sums, mass = drawn[:-1], drawn[-1:]
        mask = (mass > TISSUE * mass[mass > 1e-3].median()).to(mass.dtype)
        return cls(grid=grid, channels=sums / mass.clamp_min(1e-6) * mask, mask=mask)

    def turned(self, angle: float, *, mirror: bool) -> Image:
        """The image of the section after mirroring x and rotating by ``angle`` about the origin."""
        points = self.grid.points(self.mask.device)
        c, s = math.cos(angle), math.sin(angle)
        back = torch.stack([points @ points.new_tensor([c, s]), points @ points.new_tensor([-s, c])], dim=-1)
        if mirror:
            back = back * back.new_tensor([-1.0, 1.0])
        moved = sample(torch.cat([self.channels, self.mask]), self.grid, back)
        mask = (moved[-1:] > 0.5).to(moved.dtype)
        channels = moved[:-1] / moved[-1:].clamp_min(0.5) * mask
        return replace(self, channels=channels, mask=mask)
