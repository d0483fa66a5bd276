"""The best poses of the search, refined on the cells of the source."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inst_align.core.adam import Adam
from inst_align.core.guards import tell
from inst_align.core.raster import blur, sample

if TYPE_CHECKING:
    import numpy as np

    from inst_align.core.landmark_terms import PoseTerm
    from inst_align.core.pose_parts import Candidate, Image
    from inst_align.core.raster import Grid

OVERLAP_POWER = 0.5
"""Of the overlap, which a score is multiplied by: a small accidental overlap must not win."""
REFINE_STEPS = 50
MAX_CELLS = 1500
"""Cells of the source that the refinement looks at."""


def refine(
    ref: Image, xy_src: np.ndarray, features: torch.Tensor, candidates: list[Candidate], marks: PoseTerm | None
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


def finite(refined: list[Candidate], starts: list[Candidate]) -> list[Candidate]:
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
