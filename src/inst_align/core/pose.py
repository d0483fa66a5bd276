"""Global pose: the rotation, shift and, when asked for, mirror image that lay one section over the other.

No start is needed. Feature channels of both sections are drawn on a common raster; for every angle, masked normalised
cross-correlation (Padfield, IEEE Trans. Image Process. 21(5), 2012) gives the score of every shift at once through the
FFT; a power of the overlap keeps small accidental overlaps from winning. The best distinct poses are then refined on
the cells themselves, against the reference's smoothed features, and the winner is polished on finer rasters. Landmarks,
if there are any, take part all the way: a pose pays for pairs that it keeps apart (:mod:`inst_align.core.landmark_terms`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.landmark_terms import PoseTerm
from inst_align.core.ncc import MaskedNcc
from inst_align.core.polish import polish_pose
from inst_align.core.pose_parts import Candidate, Image
from inst_align.core.pose_refine import OVERLAP_POWER, finite, refine
from inst_align.core.raster import Grid
from inst_align.core.registration_config import RegistrationConfig
from inst_align.core.threads import one_thread, side_by_side

if TYPE_CHECKING:
    from inst_align.core.landmarks import Landmarks

N_PIXELS = 48
"""Pixels along the side of the square that holds either section at any angle."""
N_CHANNELS = 10
BLUR = 0.9
"""Blur of the rasters of the global search, in pixels."""
MIN_OVERLAP = 0.25
N_CANDIDATES = 6


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """What the search covers.

    Parameters
    ----------
    n_angles
        Angles over the full circle.
    allow_reflection
        Whether a mirrored pose may win. Mirrored poses are scored in any case, so that a better one can be told of.
    """

    n_angles: int = 72
    allow_reflection: bool = False

    def __post_init__(self) -> None:
        if self.n_angles < 4:
            msg = f"`n_angles={self.n_angles}`: at least 4 angles are needed to search the circle."
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class PoseResult:
    """The winning pose, the best one that is distinctly different, and the best one of the other handedness.

    The winner's score is that of the features; the others' are less by what they fit the landmarks worse than it does.
    """

    best: Candidate
    runner_up: Candidate | None
    mirrored: Candidate


@one_thread()
def search_pose(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features_ref: torch.Tensor,
    features_src: torch.Tensor,
    config: PoseConfig,
    landmarks: Landmarks | None = None,
) -> PoseResult:
    """Find the pose of the source over the reference.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates, shapes (n, 2) and (m, 2), each centred, in one common unit.
    features_ref, features_src
        Shared feature channels, shapes (n, k) and (m, k); the search uses the leading ones, the polish all.
    config
        What the search covers.
    landmarks
        Pairs of points that are to meet, in the frames of the coordinates.
    """
    radius = float(max(np.linalg.norm(xy_ref, axis=1).max(), np.linalg.norm(xy_src, axis=1).max()))
    grid = _square(radius, N_PIXELS)
    ref = Image.of(grid, xy_ref, features_ref[:, :N_CHANNELS], BLUR)
    src = Image.of(grid, xy_src, features_src[:, :N_CHANNELS], BLUR)
    marks = None if landmarks is None else PoseTerm.of(landmarks, features_ref.device)

    fixed = MaskedNcc(ref.channels, ref.mask, (grid.height, grid.width))
    angles = 2 * math.pi / config.n_angles * np.arange(config.n_angles)

    def searched(mirror: bool) -> tuple[list[Candidate], ...]:  # noqa: FBT001 - one of two cases
        by_angle = [_best_shift(fixed, src, float(angle), mirror=mirror, marks=marks) for angle in angles]
        starts = _distinct(by_angle, limit=N_CANDIDATES, distance=0.3 * radius)
        return by_angle, starts, refine(ref, xy_src, features_src[:, :N_CHANNELS], starts, marks)

    upright, mirrored = side_by_side(searched, (False, True))
    found, starts, refined = (one + other for one, other in zip(upright, mirrored, strict=True))
    result = _choose(finite(refined, starts), found, 0.3 * radius, config)
    # The scores of all poses stay those of one raster, so that they can be compared.
    return replace(result, best=_polished(result.best, xy_ref, xy_src, features_ref, features_src, landmarks))


def _polished(
    pose: Candidate,
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features_ref: torch.Tensor,
    features_src: torch.Tensor,
    landmarks: Landmarks | None,
) -> Candidate:
    def posed(xy: np.ndarray) -> np.ndarray:
        return xy @ pose.matrix[:2, :2].T + pose.shift

    marks = landmarks and landmarks.mapped(lambda xy: xy, posed)
    features = features_ref, features_src
    step = polish_pose(xy_ref, posed(xy_src), *features, RegistrationConfig(), landmarks=marks)
    matrix = step @ pose.matrix
    sign = -1.0 if pose.mirror else 1.0
    angle = math.atan2(sign * matrix[1, 0], sign * matrix[0, 0]) % (2 * math.pi)
    return replace(pose, angle=angle, shift=(float(matrix[0, 2]), float(matrix[1, 2])))


def _square(radius: float, n_pixels: int) -> Grid:
    """Return the grid about the origin that holds a section of this radius at any angle."""
    pixel = 2.04 * radius / (n_pixels - 1)
    corner = -pixel * (n_pixels - 1) / 2
    return Grid(origin=(corner, corner), pixel=pixel, height=n_pixels, width=n_pixels)


def _choose(refined: list[Candidate], found: list[Candidate], distance: float, config: PoseConfig) -> PoseResult:
    ranked = sorted(refined, key=lambda c: -c.score)
    best = next(c for c in ranked if config.allow_reflection or not c.mirror)
    mirrored = next(c for c in ranked if c.mirror != best.mirror)
    # Most starts are refined to the winner itself. What was found at other angles stands for those that are not peaks
    # of their own, at a turn that is too large for them to lie on the winner's slope.
    others = [c for c in refined if c.differs(best, distance)] + [c for c in found if c.turn(best) > 45]
    allowed = [c for c in others if config.allow_reflection or not c.mirror]
    runner_up = max(allowed, key=lambda c: c.score, default=None)

    def compared(candidate: Candidate) -> Candidate:
        return replace(candidate, score=candidate.score + best.missed)

    return PoseResult(best=compared(best), runner_up=runner_up and compared(runner_up), mirrored=compared(mirrored))


def _best_shift(fixed: MaskedNcc, src: Image, angle: float, *, mirror: bool, marks: PoseTerm | None) -> Candidate:
    turned = src.turned(angle, mirror=mirror)
    ncc, overlap = fixed(turned.channels, turned.mask)
    score = torch.where(overlap >= MIN_OVERLAP, ncc * overlap**OVERLAP_POWER, -1.0)
    grid, centre = src.grid, src.grid.height - 1
    unshifted = Candidate(angle=angle, mirror=mirror, shift=(0.0, 0.0), score=0.0, overlap=0.0)
    missed = torch.zeros_like(score)
    if marks is not None:
        steps = grid.pixel * (torch.arange(len(score), device=score.device) - centre)
        missed = marks.of_shifts(unshifted.matrix[:2, :2], steps)
        score = score - missed
    row, column = at = divmod(int(score.argmax()), score.shape[1])
    shift = ((column - centre) * grid.pixel, (row - centre) * grid.pixel)
    return replace(unshifted, shift=shift, score=float(score[at]), overlap=float(overlap[at]), missed=float(missed[at]))


def _distinct(found: list[Candidate], *, limit: int, distance: float) -> list[Candidate]:
    """The best candidates, leaving out those that are near a better one."""
    kept: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: -c.score):
        if all(candidate.differs(other, distance) for other in kept):
            kept.append(candidate)
        if len(kept) == limit:
            break
    return kept
