"""How badly two sections agree under a map: the data term of the registration, in both directions.

Both sections are drawn as smoothed feature rasters in the reference's unit frame. In one direction, every tissue pixel
is asked whether it finds its own features in the other section. Per channel c, r_c is the mean squared difference and
the term is the mean of ``w_c log r_c`` over channels: the negative log-likelihood of Gaussian residuals of unknown
variance, so that a channel counts by how well it *can* be matched in this pair. The weight w_c is the channel's
correlation between the sections when the descent begins: channels of noise do not pull.

Pixels that ought to have a counterpart and are mapped off the other section's tissue pay as if matched with the mean,
so that tissue cannot improve its score by sliding over the edge. Pixels that have none neither pull nor are pulled,
which is what partial overlap needs. Ought to: those on the other's tissue when the descent began; and, where the
sections cover each other nearly wholly, those just outside of it too, since then the outline itself is evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inst_align.core.raster import Grid, blur, grid_sample, splat
from inst_align.core.section import median_spacing

if TYPE_CHECKING:
    import numpy as np

TISSUE = 0.4
"""A pixel is tissue where the blurred number of cells exceeds this share of its median over occupied pixels."""
TISSUE_BLUR = 1.5
"""Least blur of the number of cells for that purpose, in neighbour distances: no holes between cells."""
FULL_OVERLAP = 0.85
"""Sections cover each other nearly wholly when each has this share of its tissue on the other's."""
OUTLINE_REACH = 0.5
"""How far outside "just outside" is, in units of a level's blur."""
RESIDUAL_FLOOR = 0.02
"""Share of a channel's variance below which a smaller residual earns little: keeps the logarithm finite."""
MIN_COVERAGE = 0.2
"""A sampled raster counts where at least this share of the interpolated pixels is tissue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """A section's cells in the reference's unit frame, with their features and median neighbour distance."""

    xy: torch.Tensor  # (n, 2), float64
    features: torch.Tensor  # (n, k)
    spacing: float

    @classmethod
    def of(cls, xy: np.ndarray, features: torch.Tensor) -> Cells:
        """Take coordinates (n, 2) and features (n, k)."""
        points = torch.as_tensor(xy, dtype=torch.float64, device=features.device)
        return cls(xy=points, features=features, spacing=median_spacing(xy))


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A section's smoothed features on a grid, its tissue, and the variance of each channel over it."""

    features: torch.Tensor  # (k, H, W), zero off the tissue
    tissue: torch.Tensor  # (H, W), 0 or 1
    variance: torch.Tensor  # (k,)

    @classmethod
    def draw(cls, grid: Grid, cells: Cells, sigma: float) -> Drawn:
        """Draw a section, blurred by ``sigma``."""
        sums, count = splat(grid, cells.xy, cells.features)
        mass = blur(count, sigma / grid.pixel)
        density = blur(count, max(sigma, TISSUE_BLUR * cells.spacing) / grid.pixel)
        occupied = density > (0.1 * density.max()).clamp_max(1e-2)  # few cells on many pixels make low densities
        tissue = ((density > TISSUE * density[occupied].median()) & (mass > 1e-6)).to(mass.dtype)
        drawn = blur(sums, sigma / grid.pixel) / mass.clamp_min(1e-6) * tissue
        variance = drawn.square().sum(dim=(1, 2)) / tissue.sum()
        return cls(features=drawn, tissue=tissue[0], variance=variance)

    def at(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (k, H, W) and coverage by tissue (H, W) at points in the convention of ``grid_sample``."""
        image = torch.cat([self.features, self.tissue[None]])[None]
        values = grid_sample(image, points)[0]
        coverage = values[-1]
        features = values[:-1] / coverage.clamp_min(MIN_COVERAGE) * (coverage > MIN_COVERAGE)
        return features, coverage


def residuals(
    own: Drawn, found: torch.Tensor, coverage: torch.Tensor, expected: torch.Tensor, escape_cost: float
) -> torch.Tensor:
    """Residual variance of every channel, shape (k,), relative to the channel's own; see the module's text.

    Parameters
    ----------
    own
        The section that asks.
    found
        The other section's features at the places that it is mapped to, shape (k, H, W).
    coverage
        How much of the other's tissue there is at these places, (H, W).
    expected
        Where there ought to be tissue, (H, W): there its absence costs.
    escape_cost
        What that costs, in units of being matched with the mean.
    """
    matched = coverage * own.tissue
    left = (1 - coverage) * own.tissue * expected
    difference = found - own.features
    # A channel's mean over the overlap differs where one section is cropped; it is taken out, without a gradient.
    offset = ((difference * matched).sum(dim=(1, 2)) / matched.sum().clamp_min(1.0)).detach()
    squared = (difference - offset[:, None, None]).square() * matched + escape_cost * own.features.square() * left
    total = (matched.sum() + left.sum()).clamp_min(1.0)
    return squared.sum(dim=(1, 2)) / total / own.variance.clamp_min(1e-12)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mismatch:
    """The data term for two drawn sections; ``forward`` is where the source's pixels go, ``backward`` the reference's.

    Both have shape (1, H, W, 2), in the convention of ``grid_sample``.
    """

    ref: Drawn
    src: Drawn
    escape_cost: float
    correlation: torch.Tensor  # (k,), of the channels between the sections, when the descent began
    expected: tuple[torch.Tensor, torch.Tensor]  # (H, W) each: where the source, the reference ought to find tissue

    @classmethod
    @torch.no_grad()
    def begin(
        cls, ref: Drawn, src: Drawn, forward: torch.Tensor, backward: torch.Tensor, *, escape_cost: float, sigma: float
    ) -> Mismatch:
        """Fix the channels' weights and the tissue expected from the map that the descent begins with.

        ``sigma`` is the blur of the drawings, in pixels.
        """
        ratio, expected, share = [], [], []
        for own, other, points in ((src, ref, forward), (ref, src, backward)):
            found, coverage = other.at(points)
            ratio.append(residuals(own, found, coverage, torch.zeros_like(coverage), 0.0))
            expected.append(coverage)
            share.append((coverage * own.tissue).sum() / own.tissue.sum())
        correlation = (1 - (ratio[0] + ratio[1]) / 4).clamp(0, 1)  # r = v_ref + v_src - 2 cov, each v about 1
        if min(share) > FULL_OVERLAP:
            expected = [(2 * blur(coverage[None], OUTLINE_REACH * sigma)[0]).clamp(0, 1) for coverage in expected]
        return cls(
            ref=ref, src=src, escape_cost=escape_cost, correlation=correlation, expected=(expected[0], expected[1])
        )

    def __call__(self, forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
        """Mean of both directions."""
        weights = self.correlation / self.correlation.mean().clamp_min(1e-3)
        terms = []
        for own, other, points, expected in (
            (self.src, self.ref, forward, self.expected[0]),
            (self.ref, self.src, backward, self.expected[1]),
        ):
            ratio = residuals(own, *other.at(points), expected, self.escape_cost)
            terms.append((weights * torch.log(ratio + RESIDUAL_FLOOR)).mean())
        return (terms[0] + terms[1]) / 2
