"""Does bending the source pay? Asked of genes that the fit has not seen.

The genes are split in two at random. The pose is polished and a non-rigid map is fitted on one half; on the other half
it is counted how much less the non-rigid map leaves unexplained than the polished pose. A map that follows noise gains
nothing there. The standard error comes from blocks of tissue, since neighbouring places are not independent. (Halves of
genes share the positions of the cells, and so part of the noise: a small gain can be had from nothing, which is why it
has to exceed its standard error, and why the trial stops before the finest level.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inst_align.core.polish import polish_pose
from inst_align.core.quality import interpolate
from inst_align.core.registration import register
from inst_align.core.section import median_spacing
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    import torch

    from inst_align.core.registration_config import RegistrationConfig
    from inst_align.core.transforms import Transform

    Features = tuple[torch.Tensor, torch.Tensor]

PAYS = 1.5
"""Standard errors by which the gain must exceed zero."""
BLOCK = 0.35
"""Side of a block of tissue, in unit lengths."""
POLISH_STEPS = 20
MAX_CELLS = 5000
"""Cells of each section that are asked."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What genes held out of the fit say.

    Parameters
    ----------
    rigid, nonrigid
        Correlation of the sections' held-out features after the polished pose and after the non-rigid map.
    gain
        How much less of the held-out variance the non-rigid map leaves unexplained.
    standard_error
        Of the gain.
    """

    rigid: float
    nonrigid: float
    gain: float
    standard_error: float

    def mean(self, other: HeldOut) -> HeldOut:
        """Return the mean of two trials. They share their cells, so that the standard error is no smaller."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in ("rigid", "nonrigid", "gain")}
        error = (self.standard_error + other.standard_error) / 2
        return HeldOut(**{name: (a + b) / 2 for name, (a, b) in pairs.items()}, standard_error=error)

    def report(self) -> dict[str, float]:
        """Return entries for the report."""
        return {
            "heldout_correlation_rigid": self.rigid,
            "heldout_correlation_nonrigid": self.nonrigid,
            "heldout_gain": self.gain,
            "heldout_gain_standard_error": self.standard_error,
        }

    @property
    def pays(self) -> bool:
        """Whether the gain is more than chance."""
        return self.gain > PAYS * self.standard_error


def held_out_gain(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    fitted: Features,
    held_out: Features,
    config: RegistrationConfig,
) -> HeldOut:
    """Fit on some genes and judge on others.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in the reference's unit frame, shapes (n, 2) and (m, 2); the source's after the global pose.
    fitted, held_out
        Features of the reference (n, k) and the source (m, k), from disjoint sets of genes.
    config
        Of the registration to be tried.
    """
    found = register(xy_ref, xy_src, *fitted, config)
    matrix = polish_pose(xy_ref, xy_src, *fitted, config, steps=POLISH_STEPS)
    forward, backward = (Affine(matrix), found.forward), (Affine(matrix).inverse(), found.backward)
    width = max(median_spacing(xy_ref), median_spacing(xy_src))
    ref, src = (xy_ref, held_out[0]), (xy_src, held_out[1])
    return _summary(*(_compare(*sections, width) for sections in ((src, ref, forward), (ref, src, backward))))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Comparison:
    """Two maps of one section's cells into the other section, judged cell by cell."""

    gain: np.ndarray  # (p,)
    places: np.ndarray  # (p, 2), where these cells are
    rigid: float  # correlation
    nonrigid: float


def _compare(
    own: tuple[np.ndarray, torch.Tensor],
    other: tuple[np.ndarray, torch.Tensor],
    maps: tuple[Transform, Transform],
    width: float,
) -> _Comparison:
    """Compare a rigid and a non-rigid map on the cells that find tissue after both."""
    stride = -(-len(own[0]) // MAX_CELLS)
    xy, features = own[0][::stride], own[1][::stride].cpu().numpy()
    found = [interpolate(*other, move(xy), width=width) for move in maps]
    covered = found[0][1] & found[1][1]
    values = [_centred(v[covered]) for v in (features, found[0][0], found[1][0])]
    loss = [np.square(v - values[0]).sum(axis=1) for v in values[1:]]
    total = np.square(values[0]).sum(axis=1).mean().clip(1e-12)
    return _Comparison(
        gain=(loss[0] - loss[1]) / total,
        places=xy[covered],
        rigid=_correlation(values[0], values[1]),
        nonrigid=_correlation(values[0], values[2]),
    )


def _summary(forward: _Comparison, backward: _Comparison) -> HeldOut:
    gain = np.concatenate([forward.gain, backward.gain])
    places = np.concatenate([forward.places, backward.places])
    return HeldOut(
        rigid=(forward.rigid + backward.rigid) / 2,
        nonrigid=(forward.nonrigid + backward.nonrigid) / 2,
        gain=float(gain.mean()),
        standard_error=_block_error(gain, np.floor(places / BLOCK)),
    )


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()).clip(1e-12))


def _block_error(values: np.ndarray, blocks: np.ndarray) -> float:
    """Standard error of the mean of values (p,) that are independent between blocks (p, 2) only."""
    _, label = np.unique(blocks, axis=0, return_inverse=True)
    label = label.ravel()
    deviation = np.bincount(label, values - values.mean())
    return float(np.sqrt((deviation**2).sum()) / len(values))
