"""Is there another pose that the sections would agree in nearly as well? Asked again where the search was in doubt.

The search compares poses on coarse images, where the winner was refined and most others were not, and small sections
look better or worse than they are. So a runner-up that comes near is polished as the winner was, and both are asked on the
cells, in both directions. The best mirror image is asked in the same way where mirror images may not win: they may not
because sections are rarely turned over, so that one has to agree as well as the winner to be told of, and not nearly as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align.core.polish import polish_pose
from inst_align.core.quality import AMBIGUOUS, MIRRORED, correlation, interpolate
from inst_align.core.registration_config import RegistrationConfig
from inst_align.core.sampling import some_rows
from inst_align.core.section import median_spacing
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    import torch

    from inst_align.core.pose import PoseResult
    from inst_align.core.pose_parts import Candidate

    Cells = tuple[np.ndarray, torch.Tensor]

DOUBT = 0.8
"""A runner-up whose score reaches this share of the winner's is looked at again."""
RIVAL = 0.9
"""A pose whose agreement reaches this share of the winner's makes the pose ambiguous."""
AS_WELL = 0.99
"""A mirror image whose agreement reaches this share of the winner's is as good as it, as far as can be told."""
ON_ITS_WAY = 0.9
"""A pose that the polish brings this much nearer to the winner is on the winner's slope."""
ROUNDS = 2
"""Of the polish."""
MAX_CELLS = 8000
"""Cells of either section that are looked at."""
MAX_ASKED = 1500
OVERLAP_POWER = 0.5
MIN_CELLS = 10


def doubts(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features: tuple[torch.Tensor, torch.Tensor],
    found: PoseResult,
    *,
    allow_reflection: bool,
    landmarks: bool = False,
    again: bool = True,
) -> dict[str, Any]:
    """Return what there is to doubt about a pose that was found, as entries of the report.

    Parameters
    ----------
    xy_ref, xy_src, features
        As for :func:`rivalry`.
    found
        By the search.
    allow_reflection
        Whether a mirror image could have won.
    landmarks
        Whether the scores are those of landmarks, too: then the cells alone are not asked, and a rival has lost.
    again
        Whether to ask the cells; else the scores of the search are taken as they are.
    """
    best, second, mirrored = found.best, found.runner_up, found.mirrored
    runner_up = second.score if second else -1.0

    def asked(other: Candidate | None) -> float | None:
        if landmarks or not again or other is None or not 0 < best.score * DOUBT <= other.score:
            return None
        return rivalry(xy_ref, xy_src, features, Affine(best.matrix), Affine(other.matrix))

    rival, mirror = asked(second), None if allow_reflection else asked(mirrored)
    shares = {"pose_rivalry": rival, "pose_mirrored_rivalry": mirror}
    ambiguous = (not landmarks and best.score <= 0) or runner_up >= AMBIGUOUS * best.score
    better = mirrored.score > MIRRORED * max(best.score, 0.0)
    return {
        **{name: share for name, share in shares.items() if share is not None},
        "pose_score": best.score,
        "pose_overlap": best.overlap,
        "pose_runner_up": runner_up,
        "pose_ambiguous": ambiguous if rival is None else rival >= RIVAL,
        "pose_mirrored_score": mirrored.score,
        "pose_mirrored_better": better if mirror is None else mirror >= AS_WELL,
    }


def rivalry(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features: tuple[torch.Tensor, torch.Tensor],
    winner: Affine,
    runner_up: Affine,
) -> float:
    """Return the agreement after the runner-up, once polished, as a share of that after the winner.

    Zero if the polish takes it towards the winner: then it is no pose of its own, but one that was on its way there.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates, shapes (n, 2) and (m, 2), each centred, in one common unit.
    features
        Of the reference (n, k) and the source (m, k).
    winner, runner_up
        The poses, of these coordinates; the winner polished already.
    """
    rows_ref, rows_src = (some_rows(len(xy), MAX_CELLS) for xy in (xy_ref, xy_src))
    xy_ref, xy_src = xy_ref[rows_ref], xy_src[rows_src]
    features = features[0][rows_ref], features[1][rows_src]
    posed = runner_up(xy_src)
    polished = Affine(polish_pose(xy_ref, posed, *features, RegistrationConfig(), rounds=ROUNDS))(posed)
    won = winner(xy_src)
    if np.linalg.norm(polished - won) < ON_ITS_WAY * np.linalg.norm(posed - won):
        return 0.0
    width = max(median_spacing(xy_ref), median_spacing(xy_src))
    found = [_agreement((xy_ref, features[0]), (xy, features[1]), width) for xy in (won, polished)]
    return found[1] / found[0] if found[0] > 0 else float("inf")


def _agreement(ref: Cells, src: Cells, width: float) -> float:
    """Correlation, mean of both directions, times a power of the overlap."""
    directions = [_one_way(own, other, width) for own, other in ((ref, src), (src, ref))]
    agreement, overlap = zip(*directions, strict=True)
    return float(np.mean(agreement) * max(overlap) ** OVERLAP_POWER)


def _one_way(own: Cells, other: Cells, width: float) -> tuple[float, float]:
    step = -(-len(own[0]) // MAX_ASKED)
    found, covered = interpolate(*other, own[0][::step], width=width)
    if covered.sum() < MIN_CELLS:
        return 0.0, float(covered.mean())
    measured = own[1][::step].cpu().numpy()[covered]
    found, measured = (values - values.mean(axis=0) for values in (found[covered], measured))
    return correlation(found, measured), float(covered.mean())
