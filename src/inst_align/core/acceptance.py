"""Whether a non-rigid map is accepted: the trial on held-out genes (:mod:`inst_align.core.heldout`), for a whole pair."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inst_align.core.features import joint_features
from inst_align.core.heldout import HeldOut, held_out_gain

if TYPE_CHECKING:
    import numpy as np

    from inst_align.core.heldout import Features
    from inst_align.core.registration_config import RegistrationConfig
    from inst_align.core.section import Section

MIN_GENES = 8
"""With fewer, halves say too little and no trial is made."""
CLEAR = 3.0
"""Standard errors from zero beyond which one way of the halves decides; else they change places and both count."""


def trial(
    ref: Section,
    src: Section,
    xy: tuple[np.ndarray, np.ndarray],
    config: RegistrationConfig,
    *,
    n_components: int,
    n_neighbors: int,
    generator: torch.Generator,
    device: torch.device,
) -> HeldOut | None:
    """Fit on half of the genes, rigidly and not, and judge on the other half; ``None`` with fewer than ``MIN_GENES``.

    Parameters
    ----------
    ref, src
        The sections. Of a representation given by the user, columns take the place of genes.
    xy
        Coordinates of both in the reference's unit frame, the source's after the global pose.
    config
        Of the registration to be tried.
    n_components, n_neighbors, generator, device
        See :func:`inst_align.core.features.joint_features`; the generator also splits the genes.
    """
    n_genes = ref.expression.shape[1]
    if n_genes < MIN_GENES:
        return None
    order = torch.randperm(n_genes, generator=generator).numpy()

    def features(genes: np.ndarray) -> Features:
        parts = (replace(section, expression=section.expression[:, sorted(genes)]) for section in (ref, src))
        return joint_features(
            *parts, n_components=n_components, n_neighbors=n_neighbors, generator=generator, device=device
        )

    one, other = features(order[: n_genes // 2]), features(order[n_genes // 2 :])
    first = held_out_gain(*xy, one, other, config)
    if abs(first.gain) > CLEAR * first.standard_error:
        return first
    return first.mean(held_out_gain(*xy, other, one, config))
