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

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.raster import Grid, blur, grid_sample, splat
from inst_align.core.section import lattice_constant, nearest_distances

if TYPE_CHECKING:
    from collections.abc import Callable

    Move = Callable[[torch.Tensor], torch.Tensor]
    """From places (2, p, 2) to places: of the source's in the first row, of the reference's in the second."""

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
FEW = 400
"""Pixels of tissue below which all of them are asked at once."""


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


def residuals(
    own: torch.Tensor,
    found: torch.Tensor,
    matched: torch.Tensor,
    left: torch.Tensor,
    variance: torch.Tensor,
    escape_cost: float,
) -> torch.Tensor:
    """Residual variance of every channel, shape (..., k), relative to the channel's own; see the module's text.

    Parameters
    ----------
    own
        Features of the section that asks, at its p pixels of tissue, shape (..., k, p).
    found
        The other section's features at the places that these are mapped to, (..., k, p).
    matched, left
        How much each pixel counts that finds tissue, and that ought to and does not, (..., p).
    variance
        Of the channels, (..., k).
    escape_cost
        What it costs to find none, in units of being matched with the mean.
    """
    difference = found - own
    number = matched.sum(dim=-1, keepdim=True)
    # A channel's mean over the overlap differs where one section is cropped; it is taken out.
    offset = _weighted(difference, matched).square() / number.clamp_min(1.0)
    squared = _weighted(difference.square(), matched) - offset + escape_cost * _weighted(own.square(), left)
    total = (number + left.sum(dim=-1, keepdim=True)).clamp_min(1.0)
    return squared / total / variance.clamp_min(1e-12)


def _weighted(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sums (..., k) of values (..., k, p) with weights (..., p)."""
    return (values * weights[..., None, :]).sum(dim=-1)  # a product of matrices takes six times as long here


@dataclass(frozen=True, kw_only=True, eq=False)
class _Question:
    """What some pixels of both sections ask of the other. Of two rows, the first is the source's, who asks the reference.

    Only pixels of tissue are looked at; the shorter row is filled up with pixels of no weight.
    """

    grid: Grid
    pixels: torch.Tensor  # (2, p), flat indices into the grid
    tissue: torch.Tensor  # (2, p), 1, or 0 of those that fill up
    own: torch.Tensor  # (2, k, p)
    other: torch.Tensor  # (2, k + 1, H, W): features, and tissue
    variance: torch.Tensor  # (2, k), of own

    @classmethod
    def of(cls, ref: Drawn, src: Drawn) -> _Question:
        rows = [drawn.tissue.flatten().nonzero()[:, 0] for drawn in (src, ref)]
        pixels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        tissue = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return cls(
            grid=ref.grid,
            pixels=pixels,
            tissue=tissue.to(ref.tissue.dtype),
            own=torch.stack([drawn.features.flatten(1)[:, row] for drawn, row in zip((src, ref), pixels)]),
            other=torch.stack([torch.cat([drawn.features, drawn.tissue[None]]) for drawn in (ref, src)]),
            variance=torch.stack([drawn.variance for drawn in (src, ref)]),
        )

    @property
    def places(self) -> torch.Tensor:
        """Where the pixels are, (2, p, 2)."""
        return self.grid.points(self.pixels.device).flatten(0, 1)[self.pixels]

    def parted(self) -> tuple[_Question, ...]:
        """Return two questions of every other pixel each, as on a chessboard; itself if there are few."""
        if self.pixels.shape[1] < FEW:
            return (self,)
        colour = (self.pixels // self.grid.width + self.pixels % self.grid.width) % 2
        return tuple(self._of_colour(colour == which) for which in (0, 1))

    def _of_colour(self, chosen: torch.Tensor) -> _Question:
        chosen = chosen & (self.tissue > 0)
        order = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(chosen.sum(dim=1).max())]
        return replace(
            self,
            pixels=self.pixels.gather(1, order),
            tissue=chosen.to(self.tissue.dtype).gather(1, order),
            own=self.own.gather(2, order[:, None].expand(-1, self.own.shape[1], -1)),
        )

    def pick(self, image: torch.Tensor) -> torch.Tensor:
        """Values (2, p) of images (2, H, W)."""
        return image.flatten(1).gather(1, self.pixels)

    def found(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (2, k, p) and coverage by tissue (2, p) where the pixels are mapped to, (2, p, 2)."""
        points = self.grid.normalize(places)[:, None]
        values = grid_sample(self.other, points)[:, :, 0]
        coverage = values[:, -1]
        scale = (coverage > MIN_COVERAGE) / coverage.clamp_min(MIN_COVERAGE)
        return values[:, :-1] * scale[:, None], coverage

    def residuals(self, places: torch.Tensor, expected: torch.Tensor, escape_cost: float) -> torch.Tensor:
        """Relative residual variance (2, k); ``expected`` (2, p) is where the absence of tissue costs."""
        found, coverage = self.found(places)
        matched, left = coverage * self.tissue, (1 - coverage) * self.tissue * expected
        return residuals(self.own, found, matched, left, self.variance, escape_cost)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mismatch:
    """The data term for two drawn sections.

    Every call asks but half of the pixels, those of one colour of a chessboard, and the next ought to ask the others:
    neighbouring pixels say nearly the same.
    """

    parts: tuple[_Question, ...]
    places: tuple[torch.Tensor, ...]  # (2, p, 2) of each part: where its pixels are
    expected: tuple[torch.Tensor, ...]  # (2, p) of each part: where the source, the reference ought to find tissue
    escape_cost: float
    correlation: torch.Tensor  # (k,), of the channels between the sections, when the descent began

    @classmethod
    @torch.no_grad()
    def begin(cls, ref: Drawn, src: Drawn, move: Move, *, escape_cost: float, sigma: float) -> Mismatch:
        """Fix the channels' weights and the tissue expected from the map that the descent begins with.

        ``sigma`` is the blur of the drawings, in unit lengths.
        """
        question = _Question.of(ref, src)
        ratio = question.residuals(move(question.places), torch.zeros_like(question.tissue), 0.0)
        everywhere = ref.grid.points(question.pixels.device)
        points = ref.grid.normalize(move(everywhere.flatten(0, 1).expand(2, -1, 2))).reshape(2, *everywhere.shape)
        coverage = grid_sample(question.other[:, -1:], points)[:, 0]
        share = (question.pick(coverage) * question.tissue).sum(dim=1) / question.tissue.sum(dim=1)
        if min(share) > FULL_OVERLAP:
            coverage = (2 * blur(coverage, OUTLINE_REACH * sigma / ref.grid.pixel)).clamp(0, 1)
        parts = question.parted()
        return cls(
            parts=parts,
            places=tuple(part.places for part in parts),
            expected=tuple(part.pick(coverage) for part in parts),
            escape_cost=escape_cost,
            correlation=(1 - ratio.sum(dim=0) / 4).clamp(0, 1),  # r = v_ref + v_src - 2 cov, each v about 1
        )

    def __call__(self, move: Move, turn: int) -> torch.Tensor:
        """Mean of both directions; ``turn`` counts the calls."""
        which = turn % len(self.parts)
        ratio = self.parts[which].residuals(move(self.places[which]), self.expected[which], self.escape_cost)
        weights = self.correlation / self.correlation.sum().clamp_min(1e-3 * len(self.correlation))
        return (torch.log(ratio + RESIDUAL_FLOOR) @ weights).mean()
