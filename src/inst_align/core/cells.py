"""What is said of each cell of an alignment, and what the report says of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inst_align.core.drawn import Cells
from inst_align.core.overlap import overlap_of
from inst_align.core.quality import POOR
from inst_align.core.uncertainty import position_sd

if TYPE_CHECKING:
    from inst_align.core.registration_config import RegistrationConfig
    from inst_align.core.section import Section, UnitFrame
    from inst_align.core.transforms import Affine, Compose, Displacement


@dataclass(frozen=True, kw_only=True, eq=False)
class CellQuality:
    """What is said of each cell, in the order of the sections; NaN where nothing agrees, so that nothing can be said.

    Parameters
    ----------
    overlap_ref, overlap_src
        Probability to have a counterpart in the other section, shapes (n,) and (m,).
    position_sd
        Expected root mean square distance of the source's cells from where they belong, shape (m,), user units.
    """

    overlap_ref: np.ndarray
    overlap_src: np.ndarray
    position_sd: np.ndarray

    @classmethod
    def of(
        cls,
        ref: Section,
        src: Section,
        features: tuple[torch.Tensor, torch.Tensor],
        transform: Affine | Compose,
        frame: UnitFrame,
        config: RegistrationConfig,
        verdict: str,
    ) -> CellQuality:
        """Judge the cells of two sections, in the order in which they are given, as are the features."""
        if verdict == POOR:
            nothing = [np.full(len(section), np.nan) for section in (ref, src, src)]
            return cls(overlap_ref=nothing[0], overlap_src=nothing[1], position_sd=nothing[2])
        moved = transform(src.xy)
        overlap = overlap_of(ref.xy, moved, max(ref.spacing, src.spacing))
        drawn = [
            Cells(
                xy=torch.as_tensor(frame.to_unit(xy), dtype=torch.float64, device=values.device),
                features=values,
                spacing=section.spacing / frame.scale,
            )
            for xy, values, section in ((ref.xy, features[0], ref), (moved, features[1], src))
        ]
        sd = position_sd(drawn[0], drawn[1], config) * frame.scale
        return cls(overlap_ref=overlap[0], overlap_src=overlap[1], position_sd=sd)

    def in_order(self, ref: np.ndarray, src: np.ndarray) -> CellQuality:
        """Return the same for the sections that these were made of by taking the rows ``ref`` and ``src``."""
        back = np.argsort(ref), np.argsort(src)
        return CellQuality(
            overlap_ref=self.overlap_ref[back[0]],
            overlap_src=self.overlap_src[back[1]],
            position_sd=self.position_sd[back[1]],
        )

    def report(self, unit: float) -> dict[str, Any]:
        """Return what the report says, in units of a length; nothing of cells of which nothing can be said."""
        known = self.position_sd[np.isfinite(self.position_sd)] / unit
        if not len(known):
            return {}
        return {"position_sd_median": float(np.median(known)), "position_sd_p95": float(np.quantile(known, 0.95))}


def inverse_consistency(xy: np.ndarray, forward: Displacement, backward: Displacement, unit: float) -> dict[str, float]:
    """How far points (m, 2) end from where they were after a map and what was fitted as its inverse, in units of a length."""
    distance = np.linalg.norm(backward(forward(xy)) - xy, axis=1) / unit
    return {
        "inverse_consistency_median": float(np.median(distance)),
        "inverse_consistency_p95": float(np.quantile(distance, 0.95)),
    }
