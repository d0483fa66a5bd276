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

from inst_align.core.adam import Adam
from inst_align.core.guards import tell
from inst_align.core.landmark_terms import PoseTerm
from inst_align.core.ncc import MaskedNcc
from inst_align.core.polish import polish_pose
from inst_align.core.raster import Grid, blur, sample, splat
from inst_align.core.registration_config import RegistrationConfig
from inst_align.core.threads import one_thread

if TYPE_CHECKING:
    from inst_align.core.landmarks import Landmarks

N_PIXELS = 48
"""Pixels along the side of the square that holds either section at any angle."""
N_CHANNELS = 10
BLUR = 0.9
"""Blur of the rasters of the global search, in pixels."""
TISSUE = 0.15
"""A pixel is tissue where the blurred number of cells exceeds this share of its median over occupied pixels."""
MIN_OVERLAP = 0.25
OVERLAP_POWER = 0.5
N_CANDIDATES = 6
REFINE_STEPS = 50
MAX_CELLS = 1500
"""Cells of the source that the refinement looks at."""


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
class Candidate:
    """One pose: ``y = rotation(angle) @ (mirror * x, y) + shift``, from the source's unit frame to the reference's."""

    angle: float
    mirror: bool
    shift: tuple[float, float]
    score: float
    overlap: float
    missed: float = 0.0
    """What the landmarks took off the score."""

    @property
    def matrix(self) -> np.ndarray:
        """Homogeneous (3, 3) matrix."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        sign = -1.0 if self.mirror else 1.0
        return np.array([[c * sign, -s, self.shift[0]], [s * sign, c, self.shift[1]], [0.0, 0.0, 1.0]])

    def turn(self, other: Candidate) -> float:
        """Angle between the two poses, in degrees, from 0 to 180."""
        return math.degrees(abs((self.angle - other.angle + math.pi) % (2 * math.pi) - math.pi))

    def differs(self, other: Candidate, distance: float) -> bool:
        """Whether the two poses are distinctly different: in mirror, by over 20 degrees, or by ``distance`` in shift."""
        shift = math.dist(self.shift, other.shift)
        return self.mirror != other.mirror or self.turn(other) > 20 or shift > distance


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
    ref = _Image.of(grid, xy_ref, features_ref[:, :N_CHANNELS], BLUR)
    src = _Image.of(grid, xy_src, features_src[:, :N_CHANNELS], BLUR)
    marks = None if landmarks is None else PoseTerm.of(landmarks, features_ref.device)

    fixed = MaskedNcc(ref.channels, ref.mask, (grid.height, grid.width))
    found: list[Candidate] = []
    starts: list[Candidate] = []
    for mirror in (False, True):
        angles = 2 * math.pi / config.n_angles * np.arange(config.n_angles)
        by_angle = [_best_shift(fixed, src, float(angle), mirror=mirror, marks=marks) for angle in angles]
        starts += _distinct(by_angle, limit=N_CANDIDATES, distance=0.3 * radius)
        found += by_angle
    refined = _finite(_refine(ref, xy_src, features_src[:, :N_CHANNELS], starts, marks), starts)
    result = _choose(refined, found, 0.3 * radius, config)
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """A section's channels and its tissue on a grid; the channels are zero off the tissue."""

    grid: Grid
    channels: torch.Tensor  # (k, H, W)
    mask: torch.Tensor  # (1, H, W), 0 or 1

    @classmethod
    def of(cls, grid: Grid, xy: np.ndarray, features: torch.Tensor, sigma: float) -> _Image:
        points = torch.as_tensor(xy, dtype=torch.float64, device=features.device)
        drawn = blur(splat(grid, points, torch.cat([features, torch.ones_like(features[:, :1])], dim=1)), sigma)
        sums, mass = drawn[:-1], drawn[-1:]
        mask = (mass > TISSUE * mass[mass > 1e-3].median()).to(mass.dtype)
        return cls(grid=grid, channels=sums / mass.clamp_min(1e-6) * mask, mask=mask)

    def turned(self, angle: float, *, mirror: bool) -> _Image:
        """The image of the section after mirroring x and rotating by ``angle`` about the origin."""
        points = self.grid.points(self.mask.device)
        c, s = math.cos(angle), math.sin(angle)
        back = torch.stack([points @ points.new_tensor([c, s]), points @ points.new_tensor([-s, c])], dim=-1)
        if mirror:
            back = back * back.new_tensor([-1.0, 1.0])
        moved = sample(torch.cat([self.channels, self.mask]), self.grid, back)
        mask = (moved[-1:] > 0.5).to(moved.dtype)
        channels = moved[:-1] / moved[-1:].clamp_min(0.5) * mask
        return replace(self, channels=channels, mask=mask)


def _best_shift(fixed: MaskedNcc, src: _Image, angle: float, *, mirror: bool, marks: PoseTerm | None) -> Candidate:
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


def _refine(
    ref: _Image, xy_src: np.ndarray, features: torch.Tensor, candidates: list[Candidate], marks: PoseTerm | None
) -> list[Candidate]:
    """Move all candidates uphill together, on the score taken at the source's cells."""
    device = features.device
    stride = -(-len(xy_src) // MAX_CELLS)
    xy = torch.as_tensor(xy_src[::stride], dtype=torch.float32, device=device)
    values = features[::stride].T  # (k, m)
    image = torch.cat([blur(ref.channels, 1.0), blur(ref.mask, 1.0)])
    area = _area(xy, ref.grid.pixel)
    sign = torch.tensor([[-1.0 if c.mirror else 1.0, 1.0] for c in candidates], device=device)
    angle = torch.tensor([c.angle for c in candidates], device=device)
    shift = torch.tensor([c.shift for c in candidates], device=device)
    adam = Adam([angle, shift], [0.02, 0.5 * ref.grid.pixel], n_steps=REFINE_STEPS)
    sources = xy, values, area, sign
    for _ in range(REFINE_STEPS):
        score, _ = _score_at_cells(image, ref.grid, *sources, angle, shift)
        adam.step(adam.gradients((_missed(marks, sign, angle, shift) - score).sum()))
    with torch.no_grad():
        score, overlap = _score_at_cells(image, ref.grid, *sources, angle, shift)
        missed = _missed(marks, sign, angle, shift)
    rows = zip(candidates, *(column.tolist() for column in (angle, shift, score - missed, overlap, missed)))
    return [
        replace(c, angle=a % (2 * math.pi), shift=(t[0], t[1]), score=s, overlap=o, missed=m)
        for c, a, t, s, o, m in rows
    ]


def _finite(refined: list[Candidate], starts: list[Candidate]) -> list[Candidate]:
    """Return the refined candidates, and their starts in place of those that have left the finite."""
    fine = [all(map(math.isfinite, (c.angle, *c.shift, c.score))) for c in refined]
    if not all(fine):
        tell(f"{len(fine) - sum(fine)} of {len(fine)} candidates not finite once refined")
    return [new if kept else old for new, old, kept in zip(refined, starts, fine, strict=True)]


def _rotations(angle: torch.Tensor) -> torch.Tensor:
    """Matrices (p, 2, 2) of angles (p,)."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def _missed(marks: PoseTerm | None, sign: torch.Tensor, angle: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """What the landmarks take off the score of every pose, shape (p,)."""
    if marks is None:
        return torch.zeros_like(angle)
    return marks.of_poses(_rotations(angle) * sign[:, None], shift)


def _score_at_cells(
    image: torch.Tensor,
    grid: Grid,
    xy: torch.Tensor,
    values: torch.Tensor,
    area: float,
    sign: torch.Tensor,
    angle: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation times a power of the overlap, and the overlap, for every pose; shapes (p,). ``area`` is the source's."""
    moved = (xy[None] * sign[:, None]) @ _rotations(angle).transpose(1, 2) + shift[:, None]  # (p, m, 2)
    drawn = sample(image, grid, moved)  # (k + 1, p, m)
    weight = drawn[-1]
    fixed = drawn[:-1] / weight.clamp_min(1e-3)
    total = weight.sum(dim=1).clamp_min(1e-6)
    moving = values[:, None].expand_as(fixed)
    fixed = fixed - ((fixed * weight).sum(dim=2) / total)[..., None]
    moving = moving - ((moving * weight).sum(dim=2) / total)[..., None]
    product = (fixed * moving * weight).sum(dim=(0, 2))
    norm = ((fixed.square() * weight).sum(dim=(0, 2)) * (moving.square() * weight).sum(dim=(0, 2))).sqrt()
    covered = total / xy.shape[0]
    tissue = image[-1].sum() * grid.pixel**2
    overlap = (covered * area / tissue.clamp_max(area)).clamp_max(1.0)
    return product / norm.clamp_min(1e-9) * overlap**OVERLAP_POWER, overlap.detach()


def _area(xy: torch.Tensor, pixel: float) -> float:
    """Area of the pixels that hold a cell."""
    occupied = torch.unique((xy / pixel).floor().long(), dim=0)
    return len(occupied) * pixel**2
