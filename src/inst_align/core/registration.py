"""Coarse-to-fine registration of the two sections' feature fields: a smooth, invertible, expression-driven map.

Both sections are drawn as smoothed feature rasters in the reference's unit frame. At every level, from blurred to sharp,
the velocity field of a map and of its inverse (:mod:`inst_align.core.velocity`) is moved downhill on

    (D(source -> reference) + D(reference -> source)) / 2 + strain * E_strain + bending * E_bending

D asks in one direction whether every tissue pixel finds its own features in the other section. Per channel c it takes
the mean squared difference r_c and averages ``w_c log r_c`` over channels: the negative log-likelihood of Gaussian
residuals of unknown variance, so that a channel counts by how well it *can* be matched in this pair. The weight w_c is
the channel's correlation between the sections when the level begins: channels of noise do not pull.

Pixels that ought to have a counterpart and are mapped off the other section's tissue pay as if matched with the mean,
so that tissue cannot improve its score by sliding over the edge. Pixels that have none neither pull nor are pulled,
which is what partial overlap needs. Ought to: those on the other's tissue when the level began; and, where the sections
cover each other nearly wholly, those just outside of it too, since then the outline itself is evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

from inst_align.core.landmark_terms import Pull
from inst_align.core.raster import Grid, blur, splat
from inst_align.core.registration_config import Level, RegistrationConfig
from inst_align.core.velocity import ControlLattice, Flow, bending_energy, fade, strain_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inst_align.core.landmarks import Landmarks

__all__ = ["Level", "Registration", "RegistrationConfig", "register", "residuals"]

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
class Registration:
    """The map found: points x of the posed source go to ``x + displacement(x)``; unit frame of the reference.

    Parameters
    ----------
    grid
        Where the displacement is known.
    displacement
        Shape (2, H, W), float32; zero on the outermost points.
    history
        Data and smoothness terms by step, arrays of shape (n_steps,).
    """

    grid: Grid
    displacement: np.ndarray
    history: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cells:
    """A section's cells in the reference's unit frame, with their features and median neighbour distance."""

    xy: torch.Tensor  # (n, 2), float64
    features: torch.Tensor  # (n, k)
    spacing: float

    @classmethod
    def of(cls, xy: np.ndarray, features: torch.Tensor) -> _Cells:
        positions = np.unique(xy, axis=0)
        distance, _ = cKDTree(positions).query(positions, k=2)
        points = torch.as_tensor(xy, dtype=torch.float64, device=features.device)
        return cls(xy=points, features=features, spacing=float(np.median(distance[:, 1])))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Field:
    """A section's smoothed features on a grid, its tissue, and the variance of each channel over it."""

    features: torch.Tensor  # (k, H, W), zero off the tissue
    tissue: torch.Tensor  # (H, W), 0 or 1
    variance: torch.Tensor  # (k,)

    @classmethod
    def draw(cls, grid: Grid, cells: _Cells, sigma: float) -> _Field:
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
        values = torch.nn.functional.grid_sample(image, points, align_corners=True)[0]
        coverage = values[-1]
        features = values[:-1] / coverage.clamp_min(MIN_COVERAGE) * (coverage > MIN_COVERAGE)
        return features, coverage


def residuals(
    own: _Field, found: torch.Tensor, coverage: torch.Tensor, expected: torch.Tensor, escape_cost: float
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


def register(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features_ref: torch.Tensor,
    features_src: torch.Tensor,
    config: RegistrationConfig,
    *,
    landmarks: Landmarks | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Registration:
    """Find the non-rigid map that takes the posed source onto the reference.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in the reference's unit frame, shapes (n, 2) and (m, 2); the source's after the global pose.
    features_ref, features_src
        Shared features, shapes (n, k) and (m, k).
    config
        How.
    landmarks
        Pairs of points that are to meet, in the frame of the coordinates.
    on_step
        Called after every optimiser step.
    """
    device = features_ref.device
    both = np.concatenate([xy_ref, xy_src])
    cells = _Cells.of(xy_ref, features_ref), _Cells.of(xy_src, features_src)
    longer_side = float(np.ptp(both, axis=0).max()) + 2 * config.margin
    finest = longer_side / (config.n_pixels - 1)

    grids = [Grid.around(both, pixel=max(level.sigma / 1.5, finest), margin=config.margin) for level in config.levels]
    grid, terms = grids[0], []
    velocity = torch.zeros(2, grid.height, grid.width, device=device)
    for level, new_grid in zip(config.levels, grids, strict=True):
        lattice = ControlLattice(new_grid, level.control_spacing, device)
        control = lattice.fit(_resample(velocity, grid, new_grid))
        grid = new_grid
        ref, src = (_Field.draw(grid, section, level.sigma) for section in cells)
        pull = None
        if landmarks is not None:
            pull = Pull.of(landmarks, grid, control=level.control_spacing, spacing=cells[0].spacing, device=device)
        problem = _Problem(grid, ref, src, fade(grid.points(device), both, config.margin), lattice, config, pull)
        velocity, level_terms = problem.solve(control, level, on_step)
        terms.append(level_terms)

    with torch.no_grad():
        displacement = Flow(grid, device).exp(velocity, squarings=8)
    data, smoothness = torch.cat(terms).T.cpu().numpy()
    return Registration(
        grid=grid,
        displacement=displacement.cpu().numpy(),
        history={"registration.data": data, "registration.smoothness": smoothness},
    )


def _resample(velocity: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    points = old.normalize(new.points(velocity.device))[None]
    return torch.nn.functional.grid_sample(velocity[None], points, align_corners=True, padding_mode="border")[0]


class _Problem:
    """The cost of one level, and its descent."""

    def __init__(
        self,
        grid: Grid,
        ref: _Field,
        src: _Field,
        window: torch.Tensor,
        lattice: ControlLattice,
        config: RegistrationConfig,
        pull: Pull | None = None,
    ) -> None:
        self.grid, self.ref, self.src, self.window, self.lattice, self.config = grid, ref, src, window, lattice, config
        self.pull = pull
        self.flow = Flow(grid, window.device)
        self.either = torch.maximum(ref.tissue, src.tissue)

    def velocity(self, control: torch.Tensor) -> torch.Tensor:
        return self.lattice.velocity(control) * self.window

    def directions(self, velocity: torch.Tensor) -> Iterator[tuple[_Field, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield, for the source and for the reference, itself, its displacement, and what it finds in the other."""
        for sign, own, other in ((1, self.src, self.ref), (-1, self.ref, self.src)):
            displacement = self.flow.exp(sign * velocity)
            yield own, displacement, *other.at(self.flow.at(displacement))

    @torch.no_grad()
    def begin(self, control: torch.Tensor, sigma: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the channels' weights and where each section ought to find tissue, as the level begins."""
        ratio, expected, share = [], [], []
        for own, _, found, coverage in self.directions(self.velocity(control)):
            ratio.append(residuals(own, found, coverage, torch.zeros_like(coverage), 0.0))
            expected.append(coverage)
            share.append((coverage * own.tissue).sum() / own.tissue.sum())
        correlation = (1 - (ratio[0] + ratio[1]) / 4).clamp(0, 1)  # r = v_ref + v_src - 2 cov, each v about 1
        weights = correlation / correlation.mean().clamp_min(1e-3)
        self.pull = self.pull and self.pull.beside(correlation)
        if min(share) > FULL_OVERLAP:
            reach = OUTLINE_REACH * sigma / self.grid.pixel
            expected = [(2 * blur(coverage[None], reach)[0]).clamp(0, 1) for coverage in expected]
        return weights, expected

    def cost(
        self, control: torch.Tensor, weights: torch.Tensor, expected: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Data term, with the pull of the landmarks, and weighted smoothness term."""
        velocity = self.velocity(control)
        data, strain, displacements = [], [], []
        for (own, displacement, found, coverage), ought in zip(self.directions(velocity), expected, strict=True):
            ratio = residuals(own, found, coverage, ought, self.config.escape_cost)
            data.append((weights * torch.log(ratio + RESIDUAL_FLOOR)).mean())
            strain.append(strain_energy(displacement, self.grid.pixel, self.either))
            displacements.append(displacement)
        bending = bending_energy(velocity, self.grid.pixel, self.either)
        smoothness = self.config.strain * (strain[0] + strain[1]) / 2 + self.config.bending * bending
        evidence = (data[0] + data[1]) / 2
        if self.pull is not None:
            evidence = evidence + self.pull.cost(*displacements)
        return evidence, smoothness

    def solve(
        self, control: torch.Tensor, level: Level, on_step: Callable[[], None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Descend from ``control``; returns the velocity and the terms by step, shape (steps, 2)."""
        weights, expected = self.begin(control, level.sigma)
        control.requires_grad_()
        rate = self.config.learning_rate * level.sigma
        optimiser = torch.optim.Adam([control], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, level.steps, eta_min=0.1 * rate)
        terms = []
        for _ in range(level.steps):
            optimiser.zero_grad()
            data, smoothness = self.cost(control, weights, expected)
            (data + smoothness).backward()
            optimiser.step()
            schedule.step()
            terms.append(torch.stack([data, smoothness]).detach())
            on_step()
        with torch.no_grad():
            return self.velocity(control), torch.stack(terms)
