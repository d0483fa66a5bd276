"""What is to be said of a pair, and what follows: does anything agree, is the pose certain, does bending pay?

The verdicts, by precedence: "poor", nothing of note agrees; "ambiguous pose", something does, but elsewhere nearly as
well; "non-rigid" or "rigid sufficient", as a trial on held-out genes found; "untested", if there was none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align.core.acceptance import MOSTLY, Halves, stays
from inst_align.core.null import agreement_of
from inst_align.core.quality import AMBIGUOUS_POSE, NON_RIGID, POOR, RIGID_SUFFICIENT, UNTESTED
from inst_align.core.section import UnitFrame
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    import torch

    from inst_align.core.fit import Accept
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.null import Features
    from inst_align.core.prepared import PairConfig, Prepared

MIN_CELLS = 50
"""With fewer in either section, chance does too much to say that nothing agrees."""
MIN_CHANNELS = 20
"""Halves of the genes with fewer channels are too noisy to tell little agreement from none; all genes are asked then.

No half is new to the pose, which was searched with all of them, so that nothing is lost by it.
"""
TRIAL_CELLS = 5000
"""Cells of either section that the trial looks at: whether bending pays is as sure with these as with more."""


def judge(
    pair: Prepared,
    affine: Affine,
    pose: dict[str, Any],
    *,
    searched: bool,
    accept: Accept,
    config: PairConfig,
    landmarks: Landmarks | None,
    generator: torch.Generator,
) -> tuple[Affine, bool, dict[str, Any]]:
    """Decide what moves: returns the pose, whether to bend the source, and what there is to say about it.

    Parameters
    ----------
    pair, affine, pose
        The sections, the pose (source to reference, user units), and what the search said of it.
    searched
        Whether the pose was searched for, so that leaving the source as it is stored is an alternative.
    accept, config, landmarks, generator
        As for :func:`inst_align.core.fit.fit_pair`.
    """
    frame, unit = UnitFrame.of(pair.ref.xy), pair.ref.spacing
    pair = pair.at_most(TRIAL_CELLS, n_neighbors=config.n_neighbors)
    halves = Halves.of(pair.shared, generator) if accept == "auto" else None
    marks = landmarks if landmarks is not None and landmarks.weight > 0 else None
    report: dict[str, Any] = {}
    if halves is not None:
        stored = frame.rounded(pair.ref.xy), frame.rounded(pair.src.xy)
        moving = halves.moving(stored, _in_frame(affine, frame))
        if moving.covered >= MOSTLY:
            report["heldout_correlation_stored"] = moving.simple
        if searched and marks is None and stays(moving):  # landmarks say where the source belongs
            affine = Affine(np.eye(3))
            report |= {"pose_method": "stored", "angle": 0.0, "mirrored": False}
    found = relation(pair, affine, config.n_neighbors, halves)
    report |= found
    poor = found.get("verdict") == POOR
    called_for = marks is not None and marks.ask_for_bending(affine, unit)
    if marks is not None and halves is not None:
        report["landmarks_ask_for_bending"] = called_for
    if halves is None or poor:
        bends = called_for if accept == "auto" and halves is not None else accept != "rigid"
        return affine, bends, {**report, "verdict": verdict_of(POOR if poor else UNTESTED, pose)}
    posed = frame.rounded(pair.ref.xy), frame.rounded(affine(pair.src.xy))
    in_frame = marks and marks.mapped(frame.rounded, lambda xy: frame.rounded(affine(xy)))
    trial = halves.bending(posed, config.registration.trial(), in_frame)
    bends = trial.pays or called_for
    return (
        affine,
        bends,
        {
            **report,
            "verdict": verdict_of(NON_RIGID if bends else RIGID_SUFFICIENT, pose),
            "heldout_correlation_rigid": trial.simple,
            "heldout_correlation_nonrigid": trial.elaborate,
            "heldout_gain": trial.gain,
            "heldout_gain_standard_error": trial.standard_error,
        },
    )


def relation(pair: Prepared, affine: Affine, n_neighbors: int, halves: Halves | None = None) -> dict[str, Any]:
    """Return whether the sections agree at all under a pose (user units), as entries of the report.

    ``verdict`` is among them only if they do not. Names begin with ``heldout`` where either half of the genes was asked,
    as happens if there are enough of them, and with ``feature`` where all were.
    """
    if min(len(pair.ref), len(pair.src)) < MIN_CELLS:
        return {}
    features: list[Features] = [(pair.features_ref, pair.features_src)]
    name = "feature"
    if halves is not None and min(half[0].shape[1] for half in halves.features) >= MIN_CHANNELS:
        features, name = list(halves.features), "heldout"
    frame = UnitFrame.of(pair.ref.xy)
    xy = frame.rounded(pair.ref.xy), frame.rounded(affine(pair.src.xy))
    found = agreement_of(*xy, features, n_neighbors=n_neighbors)
    report: dict[str, Any] = {
        f"{name}_correlation_pose": found.correlation,
        f"{name}_correlation_null": found.null,
        f"{name}_z": found.z,
        f"{name}_shared_signal": min(found.shared, 1.0),
    }
    return report if found.related else {**report, "verdict": POOR}


def verdict_of(verdict: str, pose: dict[str, Any]) -> str:
    """Return a verdict in the light of what the search said of the pose."""
    doubted = pose.get("pose_ambiguous") or pose.get("pose_mirrored_better")
    return AMBIGUOUS_POSE if doubted and verdict != POOR else verdict


def _in_frame(affine: Affine, frame: UnitFrame) -> Affine:
    """Return a map of user units as one of the unit frame."""
    return Affine(frame.matrix @ affine.matrix @ np.linalg.inv(frame.matrix))
