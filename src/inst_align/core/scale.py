"""The factor between the units of two sections, by the expression measured on both."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy.optimize import minimize_scalar

from inst_align.core.fit import find_pose
from inst_align.core.prepared import PairConfig
from inst_align.core.threads import torch_settings

if TYPE_CHECKING:
    import torch

    from inst_align.core.section import Section

RANGE = 2.0
"""The factor is looked for between the start divided and multiplied by this: a crop to 1/4 of the area and its inverse."""
N_STARTS = 5
TOLERANCE = 0.02
"""Of the factor's logarithm: what is left is for the non-rigid map, and less than sections of one tissue differ by."""


def estimate_scale(
    ref: Section, src: Section, *, start: float, generator: torch.Generator, device: torch.device
) -> float:
    """Estimate what the source's coordinates have to be multiplied by to be in the reference's unit.

    Neither extents nor neighbour distances tell the unit, since one section may be cropped and technologies resolve
    tissue differently. So they only say where to look: the factor is the one at which the best pose scores highest, by
    the features measured on both sections. The score is taken at a few factors around the start, and a bounded search
    (Brent) between the neighbours of the best of them finds the peak.

    Parameters
    ----------
    ref, src
        The section that stays and the one that moves, each in its own unit.
    start
        The factor that makes the extents equal.
    generator, device
        Randomness of the features' projection, and where they live.

    Returns
    -------
    The factor, between half and twice ``start``.
    """
    with torch_settings(len(ref) + len(src)):
        pair = PairConfig().prepare(ref, src, generator=generator, device=device)

        def cost(logarithm: float) -> float:
            resized = replace(pair.src, xy=pair.src.xy * math.exp(logarithm))
            _, report = find_pose(replace(pair, src=resized), method="fft", allow_reflection=True, again=False)
            return -float(report["pose_score"])

        reach = math.log(RANGE)
        step = 2 * reach / (N_STARTS - 1)
        starts = [math.log(start) - reach + step * k for k in range(N_STARTS)]
        costs = [cost(point) for point in starts]
        best = starts[costs.index(min(costs))]
        bounds = max(best - step, starts[0]), min(best + step, starts[-1])
        found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": TOLERANCE})
    return math.exp(found.x if found.fun < min(costs) else best)
