"""The constants of the registration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inst_align.core.raster import Grid

LEAST_SIGMA = 0.55
"""Least blur of a level, in median neighbour distances of the section where these are larger."""
TRIAL_SIGMA = 0.08
"""Levels with less blur than this are left out of a trial."""
PIXELS_PER_SIGMA = 1.5
"""Of a raster, as far as the limit on its size allows."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of detail; lengths in the unit frame, in which a section's coordinates have standard deviation 1.

    Parameters
    ----------
    sigma
        Gaussian blur of the feature rasters.
    control_spacing
        Distance between the control points of the velocity.
    steps
        Optimiser steps.
    """

    sigma: float
    control_spacing: float
    steps: int

    def __post_init__(self) -> None:
        for name in ("sigma", "control_spacing", "steps"):
            if not getattr(self, name) > 0:
                msg = f"`{name}={getattr(self, name)}` of a level: must be positive."
                raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class RegistrationConfig:
    """How the non-rigid map is found.

    Parameters
    ----------
    levels
        From coarse to fine.
    strain
        Weight of the squared log singular values of the Jacobian, mean over the tissue. More: areas and shapes are kept.
    bending
        Weight of the squared second derivatives of the velocity. More: a smoother map.
    escape_cost
        What leaving the other section's tissue costs, in units of being matched with the mean.
    learning_rate
        Step of the optimiser, in units of a level's blur.
    n_pixels
        Pixels along the longer side of the finest raster.
    margin
        Width of the zone around both tissues in which the map goes over to its rigid part.
    """

    levels: tuple[Level, ...] = (
        Level(sigma=0.6, control_spacing=1.65, steps=20),
        Level(sigma=0.32, control_spacing=1.2, steps=24),
        Level(sigma=0.19, control_spacing=1.0, steps=24),
        Level(sigma=0.13, control_spacing=0.72, steps=24),
        Level(sigma=0.08, control_spacing=0.5, steps=24),
        Level(sigma=0.045, control_spacing=0.31, steps=16),
        Level(sigma=0.03, control_spacing=0.31, steps=16),
    )
    strain: float = 0.2
    bending: float = 0.1
    escape_cost: float = 2.0
    learning_rate: float = 0.3
    n_pixels: int = 192
    margin: float = 0.5

    def __post_init__(self) -> None:
        if not self.levels:
            msg = "`levels` is empty: the registration needs at least one level."
            raise ValueError(msg)
        for name in ("strain", "bending", "escape_cost"):
            if not getattr(self, name) >= 0:
                msg = f"`{name}={getattr(self, name)}`: must not be negative."
                raise ValueError(msg)
        for name in ("learning_rate", "margin"):
            if not getattr(self, name) > 0:
                msg = f"`{name}={getattr(self, name)}`: must be positive."
                raise ValueError(msg)

        if not self.n_pixels >= 8:
            msg = f"`n_pixels={self.n_pixels}`: at least 8 pixels are needed."
            raise ValueError(msg)

    @property
    def n_steps(self) -> int:
        """Steps of all levels together."""
        return sum(level.steps for level in self.levels)

    def grid(self, xy: np.ndarray, sigma: float) -> Grid:
        """Return the raster for points (n, 2), with margin, that is fine enough for features blurred by ``sigma``."""
        longer_side = float(np.ptp(xy, axis=0).max()) + 2 * self.margin
        finest = longer_side / (self.n_pixels - 1)
        return Grid.around(xy, pixel=max(sigma / PIXELS_PER_SIGMA, finest), margin=self.margin)

    def suited(self, spacing: float) -> RegistrationConfig:
        """Return a variant for cells at this distance (unit frame): without levels that would tell single cells apart.

        There the lattices of spots, rather than the tissues, would be brought together.
        """
        levels = tuple(level for level in self.levels if level.sigma >= LEAST_SIGMA * spacing) or self.levels[:1]
        return replace(self, levels=levels)

    def trial(self) -> RegistrationConfig:
        """Return a cheaper variant, enough to see whether a non-rigid map pays: no fine levels, half of the steps."""
        levels = tuple(level for level in self.levels if level.sigma >= TRIAL_SIGMA) or self.levels[:1]
        return replace(self, levels=tuple(replace(level, steps=-(-level.steps // 2)) for level in levels))
