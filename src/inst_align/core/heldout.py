"""Does the more elaborate of two maps pay? Asked of genes that the fit has not seen.

It is counted how much less of the held-out genes' variance the elaborate map leaves unexplained than the simple one. A
map that follows noise gains nothing there. The standard error comes from blocks of tissue, since neighbouring places are
not independent. Halves of genes share the positions of the cells, and so part of the noise: a little can be gained from
nothing. So the gain has to exceed its standard error several times, and to be worth having.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from inst_align.core.polish import polish_pose
from inst_align.core.quality import correlation, interpolate
from inst_align.core.registration import register
from inst_align.core.section import median_spacing
from inst_align.core.threads import side_by_side
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    import torch

    from inst_align.core.landmarks import Landmarks
    from inst_align.core.registration_config import RegistrationConfig
    from inst_align.core.transforms import Transform

    Features = tuple[torch.Tensor, torch.Tensor]
    BothWays = tuple[Transform, Transform]

CERTAIN = 3.0
"""Standard errors by which the gain must exceed zero."""
WORTHWHILE = 0.012
"""Share of what the simple map leaves unexplained that the gain must reach."""
BLOCK = 0.35
"""Side of a block of tissue, in unit lengths."""
MAX_CELLS = 5000
"""Cells of each section that are asked."""
MIN_CELLS = 10
MAD_TO_SD = 1.4826
"""Standard deviations per median absolute deviation of a normal variable."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What held-out genes say of two maps.

    Parameters
    ----------
    simple, elaborate
        Correlation of the sections after either map.
    gain
        How much less of the variance the elaborate map leaves unexplained.
    standard_error
        Of the gain.
    left
        Share of the variance that the simple map leaves unexplained.
    covered
        Share of the cells that find tissue after both maps; the others cannot be asked.
    """

    simple: float
    elaborate: float
    gain: float
    standard_error: float
    left: float
    covered: float

    def mean(self, other: HeldOut) -> HeldOut:
        """Return the mean of two trials. They share their cells, so that the standard error is no smaller."""
        names = [field.name for field in fields(self)]
        return HeldOut(**{name: (getattr(self, name) + getattr(other, name)) / 2 for name in names})

    @property
    def pays(self) -> bool:
        """Whether the gain is more than chance and worth having."""
        return self.gain > CERTAIN * self.standard_error and self.gain > WORTHWHILE * self.left


def bending_gain(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    fitted: Features,
    held_out: Features,
    config: RegistrationConfig,
    landmarks: Landmarks | None = None,
) -> HeldOut:
    """Fit a pose and a non-rigid map on some genes, and judge on others what the latter gains.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in the reference's unit frame, shapes (n, 2) and (m, 2); the source's after the global pose.
    fitted, held_out
        Features of the reference (n, k) and the source (m, k), from disjoint sets of genes.
    config
        Of the registration to be tried.
    landmarks
        Pairs of points that both maps go by, in the frame of the coordinates.
    """
    found, pose = side_by_side(
        lambda fit: fit(xy_ref, xy_src, *fitted, config, landmarks=landmarks),
        (register, partial(polish_pose, rounds=1)),
    )
    rigid = Affine(pose)
    return compare(xy_ref, xy_src, held_out, (rigid, rigid.inverse()), (found.forward, found.backward))


def compare(
    xy_ref: np.ndarray, xy_src: np.ndarray, features: Features, simple: BothWays, elaborate: BothWays
) -> HeldOut:
    """Judge what an elaborate map gains over a simple one; both from source to reference, and their inverses.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates, shapes (n, 2) and (m, 2), in one unit.
    features
        Of the reference (n, k) and the source (m, k).
    simple, elaborate
        The maps.
    """
    width = max(median_spacing(xy_ref), median_spacing(xy_src))
    ref, src = (xy_ref, features[0]), (xy_src, features[1])
    forward, backward = zip(simple, elaborate, strict=True)
    one, other = side_by_side(_Answers.of, (src, ref), (ref, src), (forward, backward), (width, width))
    return one.joined(other).summary()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answers:
    """Two maps of cells into the other section, judged cell by cell; p of the cells asked find tissue after both."""

    values: np.ndarray  # (3, p, k): measured, found after the simple, after the elaborate map
    places: np.ndarray  # (p, 2)
    asked: int

    @classmethod
    def of(
        cls,
        own: tuple[np.ndarray, torch.Tensor],
        other: tuple[np.ndarray, torch.Tensor],
        maps: tuple[Transform, Transform],
        width: float,
    ) -> _Answers:
        stride = -(-len(own[0]) // MAX_CELLS)
        xy, features = own[0][::stride], own[1][::stride].cpu().numpy()
        found = [interpolate(*other, move(xy), width=width) for move in maps]
        covered = found[0][1] & found[1][1]
        values = np.stack([features[covered], found[0][0][covered], found[1][0][covered]])
        if covered.any():
            values -= values.mean(axis=1, keepdims=True)
        return cls(values=values, places=xy[covered], asked=len(xy))

    def joined(self, other: _Answers) -> _Answers:
        return _Answers(
            values=np.concatenate([self.values, other.values], axis=1),
            places=np.concatenate([self.places, other.places]),
            asked=self.asked + other.asked,
        )

    def summary(self) -> HeldOut:
        measured, *found = self.values
        n_cells = len(measured)
        if n_cells < MIN_CELLS:
            nothing = dict.fromkeys(("simple", "elaborate", "gain", "standard_error", "left"), float("nan"))
            return HeldOut(**nothing, covered=n_cells / self.asked)
        total = np.square(measured).sum(axis=1).mean().clip(1e-12)
        loss = [np.square(values - measured).sum(axis=1) / total for values in found]
        gain = loss[0] - loss[1]
        return HeldOut(
            simple=correlation(measured, found[0]),
            elaborate=correlation(measured, found[1]),
            gain=float(gain.mean()),
            standard_error=_block_error(gain, np.floor(self.places / BLOCK)),
            left=float(loss[0].mean()),
            covered=n_cells / self.asked,
        )


def _block_error(values: np.ndarray, blocks: np.ndarray) -> float:
    """Standard error of the mean of values (p,) that are independent between blocks (p, 2) only, were there no gain.

    From the median absolute deviation of the blocks' sums: where a map gains much in a few blocks, as it does if the
    tissue is bent in one place, these blocks tell of the gain and not of the noise.
    """
    _, label, count = np.unique(blocks, axis=0, return_inverse=True, return_counts=True)
    sums = np.bincount(label.ravel(), values) / np.sqrt(count)
    deviation = np.median(np.abs(sums - np.median(sums)))
    return float(MAD_TO_SD * deviation / np.sqrt(len(values)))
