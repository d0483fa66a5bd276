"""Points that belong together, marked by hand. No torch here: what they cost a fit is in ``landmark_terms``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.transforms import Transform


FEWEST = 3
MARKED_WITHIN = 2.0
"""Neighbour distances to which landmarks can be expected to be right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Landmarks:
    """Points of the reference and where the same spots of tissue are in the source, row by row.

    Parameters
    ----------
    ref, src
        Shapes (k, 2), each in its own section's frame.
    weight
        How much they count; 1 is meant for marks that are right to about one neighbour distance.
    """

    ref: np.ndarray
    src: np.ndarray
    weight: float = 1.0

    def mapped(self, ref: Callable[[np.ndarray], np.ndarray], src: Callable[[np.ndarray], np.ndarray]) -> Landmarks:
        """Return the same pairs in other frames."""
        return replace(self, ref=ref(self.ref), src=src(self.src))

    def distances(self, transform: Transform) -> np.ndarray:
        """Distance, shape (k,), from each reference's point to where the source's is put."""
        return np.linalg.norm(transform(self.src) - self.ref, axis=1)

    def ask_for_bending(self, pose: Affine, spacing: float) -> bool:
        """Whether neither the pose nor the best rigid fit brings most of the pairs as near as hands can mark them.

        Distances are taken for larger by what a fit of three parameters to 2 k coordinates makes them smaller. Of
        fewer than three pairs nothing can be said.
        """
        n_pairs = len(self.ref)
        if n_pairs < FEWEST:
            return False
        best = rigid_fit(self.src, self.ref, mirror=pose.is_reflection)
        left = min(float(np.median(self.distances(each))) for each in (pose, best))
        return left * math.sqrt(2 * n_pairs / (2 * n_pairs - 3)) > MARKED_WITHIN * spacing


def rigid_fit(src: np.ndarray, ref: np.ndarray, *, mirror: bool = False) -> Affine:
    """Return the rigid map from ``src`` to ``ref``, both (k, 2) with paired rows, of least squared error.

    In the plane the best angle has a closed form. ``mirror`` makes it a reflection.
    """
    center_ref, center_src = ref.mean(axis=0), src.mean(axis=0)
    flip = np.array([-1.0 if mirror else 1.0, 1.0])
    product = ((src - center_src) * flip).T @ (ref - center_ref)
    angle = float(np.arctan2(product[0, 1] - product[1, 0], product[0, 0] + product[1, 1]))
    turn = Affine.from_rigid(angle, (0.0, 0.0), mirror=mirror)
    return Affine.from_rigid(angle, center_ref - turn(center_src[None])[0], mirror=mirror)


def landmark_report(landmarks: Landmarks, affine: Transform, transform: Transform, spacing: float) -> dict[str, Any]:
    """How far apart the pairs end, after the rigid and after the whole map, in median neighbour distances."""
    rigid, moved = (landmarks.distances(each) / spacing for each in (affine, transform))
    return {
        "landmark_error": moved,
        "landmark_error_median": float(np.median(moved)),
        "landmark_error_max": float(moved.max()),
        "landmark_error_rigid_median": float(np.median(rigid)),
    }
