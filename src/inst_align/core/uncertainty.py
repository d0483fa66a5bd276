"""How far cells may be from where they belong, told from the fit alone: no further fit, no truth.

A match can be no finer than the distance over which the matched features change by as much as they disagree. Per channel,
with gradient g and squared disagreement r between the aligned sections, ``1 / sum(g^2 / r)`` is the square of that
distance (the Cramer-Rao bound of a shift), each channel counted by its correlation between the sections. A map that bends
is held by what lies around a cell, so near the edge of the tissue that both sections have, where half of that or more is
missing, cells are held less well, in proportion.

One factor turns this into the root mean square of the distance from the truth. It makes said and true equal in the geometric
mean over 67 pairs of known truth of seven tissues (``benchmarks/calibration``); a single pair may be off by a factor of two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.drawn import Drawn
from inst_align.core.raster import blur, sample

if TYPE_CHECKING:
    from inst_align.core.drawn import Cells
    from inst_align.core.registration_config import RegistrationConfig

FACTOR = 0.85
"""Root mean square distance from the truth, in units of what the features can tell apart."""
SIGMA = 0.15
"""Blur of the feature rasters, in unit lengths."""
AROUND = 0.25
"""Blur that says how much tissue there is around a cell, in unit lengths."""
LEAST = 0.2
"""Share of tissue around a cell below which it makes no further difference."""


@torch.no_grad()
def position_sd(ref: Cells, src: Cells, config: RegistrationConfig) -> np.ndarray:
    """Return the expected root mean square distance of the source's cells from where they belong, shape (m,).

    Parameters
    ----------
    ref, src
        Cells in the reference's unit frame, the source's after the alignment.
    config
        Of the registration, for the size of its rasters.

    Returns
    -------
    In unit lengths, float64; infinite where the features tell nothing.
    """
    xy = [cells.xy.cpu().numpy() for cells in (ref, src)]
    grid = config.grid(np.concatenate(xy), SIGMA)
    drawn_ref, drawn_src = (Drawn.draw(grid, cells, SIGMA) for cells in (ref, src))
    common = drawn_ref.tissue * drawn_src.tissue
    around = blur(common[None], AROUND / grid.pixel)
    held = sample(around, grid, src.xy.to(common.dtype))[0].clamp(LEAST, 1.0)
    return np.asarray(FACTOR * _resolved(drawn_ref, drawn_src, common, grid.pixel) / held.cpu().double().numpy())


def _resolved(ref: Drawn, src: Drawn, common: torch.Tensor, pixel: float) -> float:
    """Distance over which the features change by as much as they disagree."""
    count = common.sum().clamp_min(1.0)
    difference = (ref.features - src.features) * common
    offset = difference.sum(dim=(1, 2)) / count
    residual = ((difference - offset[:, None, None]) * common).square().sum(dim=(1, 2)) / count
    correlation = (1 - residual / (ref.variance + src.variance).clamp_min(1e-12)).clamp(0, 1)
    slope = _squared_slope(ref.features, common) / pixel**2
    information = (correlation * slope / residual.clamp_min(1e-12)).sum()
    return float(information.clamp_min(0).sqrt().reciprocal())


def _squared_slope(features: torch.Tensor, common: torch.Tensor) -> torch.Tensor:
    """Mean squared gradient of each channel, per pixel, where the neighbours on both sides are tissue."""
    total = torch.zeros(len(features), device=features.device)
    for axis in (1, 2):
        ahead, behind = features.roll(-1, axis), features.roll(1, axis)
        inside = common.roll(-1, axis - 1) * common.roll(1, axis - 1) * common
        total += ((ahead - behind) / 2 * inside).square().sum(dim=(1, 2)) / inside.sum().clamp_min(1.0)
    return total
