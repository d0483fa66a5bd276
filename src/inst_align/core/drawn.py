"""Sections as rasters: smoothed features on a grid, and where there is tissue."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from inst_align.core.raster import Grid, blur, splat
from inst_align.core.section import lattice_constant, nearest_distances

TISSUE = 0.4
"""A pixel is tissue where the blurred number of cells exceeds this share of its median over occupied pixels."""
TISSUE_BLUR = 1.5
"""Least blur of the number of cells for that purpose, in neighbour distances: no holes between cells."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """A section's cells in the reference's unit frame, with their features and median neighbour distance."""

    xy: torch.Tensor  # (n, 2), float64
    features: torch.Tensor  # (n, k); the sum over those at one place, where there are several
    spacing: float
    lattice: float = 0.0  # the same where the cells are known to be spots of a lattice
    number: torch.Tensor | None = None  # (n, 1): how many there are at a place, or one at each

    @classmethod
    def of(cls, xy: np.ndarray, features: torch.Tensor) -> Cells:
        """Take coordinates (n, 2) and features (n, k)."""
        points = torch.as_tensor(xy, dtype=torch.float64, device=features.device)
        distance = nearest_distances(xy)
        spacing, lattice = float(np.median(distance)), lattice_constant(distance)
        return cls(xy=points, features=features, spacing=spacing, lattice=lattice)

    def drawn(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of features (k, H, W) and number of cells (1, H, W) on a grid."""
        number = torch.ones_like(self.features[:, :1]) if self.number is None else self.number
        sums = splat(grid, self.xy, torch.cat([self.features, number], dim=1))
        return sums[:-1], sums[-1:]

    def gathered(self, grid: Grid) -> Cells:
        """Return what is drawn on a grid as cells at its points, if these are fewer.

        Coarser drawings can be made of that, at a cost that does not depend on the number of cells.
        """
        if len(self.xy) <= grid.height * grid.width:
            return self
        sums, number = self.drawn(grid)
        occupied = number[0] > 0
        return replace(
            self,
            xy=grid.points(self.xy.device, torch.float64)[occupied],
            features=sums[:, occupied].T,
            number=number[:, occupied].T,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A section's smoothed features on a grid, its tissue, and the variance of each channel over it."""

    grid: Grid
    features: torch.Tensor  # (k, H, W), zero off the tissue
    tissue: torch.Tensor  # (H, W), 0 or 1
    variance: torch.Tensor  # (k,)

    @classmethod
    def draw(cls, grid: Grid, cells: Cells, sigma: float) -> Drawn:
        """Draw a section, blurred by ``sigma``."""
        sums, count = cells.drawn(grid)
        mass = blur(count, sigma / grid.pixel)
        density = blur(count, max(sigma, TISSUE_BLUR * cells.spacing) / grid.pixel)
        occupied = density > (0.1 * density.max()).clamp_max(1e-2)  # few cells on many pixels make low densities
        tissue = ((density > TISSUE * density[occupied].median()) & (mass > 1e-6)).to(mass.dtype)
        drawn = blur(sums, sigma / grid.pixel) / mass.clamp_min(1e-6) * tissue
        variance = drawn.square().sum(dim=(1, 2)) / tissue.sum()
        return cls(grid=grid, features=drawn, tissue=tissue[0], variance=variance)
