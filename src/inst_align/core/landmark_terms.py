"""What landmarks cost: a term in the score of a pose, and one in the cost of the registration.

The cost of a pair that is a distance r apart is that of Geman and McClure, ``r^2 / (r^2 + scale^2)``: a spring while r is
small against ``scale``, and never more than 1, so that a pair marked wrongly cannot drag the others along. The scale
shrinks with the level of detail (graduated non-convexity; Blake and Zisserman, Visual Reconstruction, 1987): at first
every pair pulls, at last those that the rest of the evidence could be brought to agree with.

Beside the data term of the registration a pair counts the more, the less the expression of the two sections agrees:
the terms of channels that hardly correlate are as large as any other, but say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inst_align.core.raster import sample

if TYPE_CHECKING:
    import numpy as np

    from inst_align.core.landmarks import Landmarks
    from inst_align.core.raster import Grid

SHARE = 0.02
"""Cost of one wholly missed pair in the registration, in units of the mean over all tissue of its log residuals."""
DOUBT = 0.05
"""Least squared correlation that is believed: a pair counts at most by the inverse of this more than its share."""
REACH = 0.5
"""Scale in the registration, in distances between a level's control points: what such a level cannot bend yet."""
ACCURACY = 5.0
"""Least scale there, in median neighbour distances of the reference: below it, expression should have the last word."""
POSE_SCALE = 0.4
"""Scale in the search of the pose, in unit lengths (a section spans about 4): pairs that a warp has moved still count."""
MOST = 100
"""Pairs that the search of the pose looks at."""


def missed(difference: torch.Tensor, scale: float) -> torch.Tensor:
    """Cost of differences (..., 2), from 0 for none to 1 for very long ones."""
    squared = difference.square().sum(dim=-1)
    return squared / (squared + scale**2)


def trusted(correlation: torch.Tensor) -> float:
    """What expression is worth whose channels (k,) correlate so between the sections: from 1, by the best of them."""
    return float(correlation.max().square().clamp_min(DOUBT))


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseTerm:
    """What a pose has to pay for the pairs that it keeps apart: between 0 and ``weight``, as a score is at most 1.

    Parameters
    ----------
    ref, src
        Shapes (k, 2), float32, in the centred unit frames that the pose is searched in.
    weight
        Cost of missing them all.
    """

    ref: torch.Tensor
    src: torch.Tensor
    weight: float

    @classmethod
    def of(cls, landmarks: Landmarks, device: torch.device) -> PoseTerm:
        """Take the landmarks, or evenly chosen ones of many."""
        stride = -(-len(landmarks.ref) // MOST)
        ref, src = (
            torch.as_tensor(xy[::stride], dtype=torch.float32, device=device) for xy in (landmarks.ref, landmarks.src)
        )
        return cls(ref=ref, src=src, weight=landmarks.weight)

    def of_shifts(self, linear: np.ndarray, steps: torch.Tensor) -> torch.Tensor:
        """Cost (h, h) of the poses ``linear @ point + (steps[j], steps[i])``."""
        wanted = self.ref - self.src @ torch.tensor(linear.T, dtype=torch.float32, device=self.src.device)
        x, y = (steps[:, None] - wanted.T[:, None]).square()  # (h, k) each
        squared = x[None] + y[:, None]
        return self.weight * (squared / (squared + POSE_SCALE**2)).mean(dim=-1)

    def of_poses(self, linear: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Cost (p,) of poses (p, 2, 2) and (p, 2)."""
        moved = self.src @ linear.transpose(1, 2) + shift[:, None]
        return self.weight * missed(moved - self.ref, POSE_SCALE).mean(dim=-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """What a map and its inverse have to pay for the pairs that they keep apart, at one level of the registration.

    Parameters
    ----------
    ref, src
        Shapes (k, 2), float32, in the reference's unit frame; the source's after the pose.
    scale
        Distance from which on a pair hardly pulls.
    weight
        Cost of a pair that is wholly missed, beside channels that correlate perfectly.
    """

    ref: torch.Tensor
    src: torch.Tensor
    scale: float
    weight: float

    @classmethod
    def of(cls, landmarks: Landmarks, *, control: float, spacing: float, device: torch.device) -> Pull:
        """Return the term for a level with this distance between control points; ``spacing`` is that between cells."""
        ref, src = (torch.as_tensor(xy, dtype=torch.float32, device=device) for xy in (landmarks.ref, landmarks.src))
        scale = max(REACH * control, ACCURACY * spacing)
        return cls(
            ref=ref,
            src=src,
            scale=scale,
            weight=SHARE * landmarks.weight,
        )

    def cost(
        self, grid: Grid, forward: torch.Tensor, backward: torch.Tensor, correlation: torch.Tensor
    ) -> torch.Tensor:
        """Sum over the pairs, mean of both directions, beside channels (k,) that correlate so.

        ``forward`` and ``backward`` are displacements (2, H, W) of the source and of the reference on a grid, beyond
        which nothing moves.
        """
        there = self.src + sample(forward, grid, self.src).T - self.ref
        back = self.ref + sample(backward, grid, self.ref).T - self.src
        apart = missed(there, self.scale) + missed(back, self.scale)
        return self.weight / trusted(correlation) * apart.sum() / 2
