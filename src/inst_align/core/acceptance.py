"""What moves: nothing, the section as a whole, or its tissue? Decided on held-out genes, the simplest that will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.heldout import HeldOut, bending_gain, compare
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from inst_align.core.features import SharedFeatures
    from inst_align.core.heldout import Features
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.registration_config import RegistrationConfig

MIN_GENES = 8
"""With fewer, halves say too little and nothing is tried."""
CLEAR = 6.0
"""Standard errors from zero beyond which one way of the halves decides; else they change places and both count."""
MOSTLY = 0.5
"""Share of the cells that must find tissue for a map to be thought of as nearly right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Halves:
    """The shared features of a pair, computed from either half of the genes."""

    features: tuple[Features, Features]

    @classmethod
    def of(cls, shared: SharedFeatures, generator: torch.Generator) -> Halves | None:
        """Split the genes at random, or the columns of a representation; ``None`` if there are fewer than ``MIN_GENES``."""
        if shared.n_genes < MIN_GENES:
            return None
        order = torch.randperm(shared.n_genes, generator=generator).numpy()
        one, other = np.split(order, [shared.n_genes // 2])
        first, second = map(shared.averaged, shared.of_subsets(generator, [np.sort(one), np.sort(other)]))
        return cls(features=(first, second))

    def bending(
        self, xy: tuple[np.ndarray, np.ndarray], config: RegistrationConfig, landmarks: Landmarks | None = None
    ) -> HeldOut:
        """Judge what a non-rigid map gains; ``xy`` in the reference's unit frame, the source's after the pose."""
        one, other = self.features
        first = bending_gain(*xy, one, other, config, landmarks)
        if abs(first.gain) > CLEAR * first.standard_error:
            return first
        return first.mean(bending_gain(*xy, other, one, config, landmarks))

    def moving(self, xy: tuple[np.ndarray, np.ndarray], pose: Affine) -> HeldOut:
        """Judge what a pose gains over leaving the source where it is; ``xy`` in one frame, as stored."""
        stored = Affine(np.eye(3))
        trials = [compare(*xy, half, (stored, stored), (pose, pose.inverse())) for half in self.features]
        return trials[0].mean(trials[1])


def stays(found: HeldOut) -> bool:
    """Whether the sections lie on each other as they are stored, so that moving one would not pay."""
    return found.covered >= MOSTLY and not found.pays
