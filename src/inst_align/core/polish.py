"""The last step of a rigid alignment: the pose that agrees best in fine detail.

The search for the pose (:mod:`inst_align.core.pose`) looks at coarse rasters of a few channels. Where a section is not
warped, the data term of the registration, at one of its finer levels, places it several times as exactly; where it is,
nothing is lost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.adam import Adam
from inst_align.core.drawn import Cells, Drawn
from inst_align.core.guards import Guard
from inst_align.core.landmark_terms import PoseTerm, trusted
from inst_align.core.mismatch import Mismatch
from inst_align.core.threads import one_thread, side_by_side

if TYPE_CHECKING:
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.mismatch import Both
    from inst_align.core.registration_config import RegistrationConfig

SIGMA = 0.08
"""Blur of the feature rasters, in unit lengths."""
STEPS = 20
"""Of the optimiser, in a round."""
RATE = 0.1
"""Step of the optimiser in units of the blur; for the angle, radians times a unit length."""


@one_thread()
def polish_pose(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features_ref: torch.Tensor,
    features_src: torch.Tensor,
    config: RegistrationConfig,
    *,
    landmarks: Landmarks | None = None,
    rounds: int = 3,
) -> np.ndarray:
    """Find the small rotation and shift that bring a posed source nearer to the reference; homogeneous (3, 3).

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in the reference's unit frame, shapes (n, 2) and (m, 2); the source's after the global pose.
    features_ref, features_src
        Shared features, shapes (n, k) and (m, k).
    config
        Of the registration, whose data term this shares.
    landmarks
        Pairs of points that are to meet, in the frame of the coordinates.
    rounds
        How often the descent begins anew, each time with a new notion of where tissue ought to find tissue, which
        holds the section back a little; a pose that is nearly right needs one.
    """
    device = features_ref.device
    grid = config.grid(np.concatenate([xy_ref, xy_src]), SIGMA)
    ref, src = side_by_side(
        lambda xy, features: Drawn.draw(grid, Cells.of(xy, features), SIGMA),
        (xy_ref, xy_src),
        (features_ref, features_src),
    )
    pose = torch.zeros(3, device=device)
    marks = None if landmarks is None else PoseTerm.of(landmarks, device)

    def rotation() -> torch.Tensor:
        c, s = pose[0].cos(), pose[0].sin()
        return torch.stack([torch.stack([c, -s]), torch.stack([s, c])])

    def both_ways(places: Both) -> Both:
        turn = rotation()
        return places[0] @ turn.T + pose[1:], (places[1] - pose[1:]) @ turn

    def cost(mismatch: Mismatch, turn: int) -> torch.Tensor:
        data = mismatch(both_ways, turn)
        if marks is None:
            return data
        return data + marks.of_poses(rotation()[None], pose[None, 1:])[0] / trusted(mismatch.correlation)

    for _ in range(rounds):
        mismatch = Mismatch.begin(ref, src, both_ways, escape_cost=config.escape_cost, sigma=SIGMA)
        adam = Adam([pose], [RATE * SIGMA], n_steps=STEPS, end=0.1)
        guard, fine = Guard([pose], STEPS), True
        for turn in range(STEPS):
            loss = cost(mismatch, turn)
            adam.step(adam.gradients(loss))
            fine = guard.fine(loss)
        if not fine:
            break
    angle, x, y = pose.detach().cpu().double().tolist()
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0.0, 0.0, 1.0]])
