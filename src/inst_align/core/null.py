"""Do two sections agree at all under a pose, more than sections that have nothing to do with each other would?

Any two sections can be laid over each other so that their expression agrees a little: the search picks the best of many
poses, and neighbouring cells are alike, so that a few patches that match by chance look like a lot of evidence. Two
questions tell such a match from a true one.

*Is it more than chance?* The null are sections with the same spatial patterns whose expression programs do not
correspond: the source's channels are turned at random in the space of channels, and of the poses that are tried, the one
that then fits best counts. What the finite number of cells adds to its spread is that of cells that change places.

*Is it as much as it could be?* Cells some way apart within one section agree by as much as there is spatial signal
in the measurement. Of that signal, the same tissue must share most across the sections; different tissues share little
of it, even where that little is beyond chance.

Both look at a fixed number of cells and poses, whatever the size of the sections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from inst_align.core.quality import weights_around
from inst_align.core.section import median_spacing

if TYPE_CHECKING:
    import torch

    Features = tuple[torch.Tensor, torch.Tensor]

CERTAIN = 3.0
"""Standard deviations of the null by which the correlation must exceed it."""
SHARED = 0.75
"""Share of the sections' own spatial signal that must be common to both."""
LEAST_SIGNAL = 0.1
"""Share of the variance; less spatial signal than that is taken for that much, since it cannot be told from none."""
MIN_CELLS = 10
SAMPLE = 600
"""Cells of the source that are asked."""
MAX_CELLS = 50_000
"""Cells of either section that answer."""
N_POSES = 24
"""Poses tried for the null, evenly spread over the circle."""
N_TURNS = 60
"""Random turns of the channels."""
MIN_COVERED = 0.3
"""Share of the cells asked that must find tissue for another pose to count."""
APART = 18, 27
"""Neighbours of these ranks are so far from a cell that no third cell is averaged into the features of both."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well two sections agree under a pose, and how well they would if unrelated.

    Parameters
    ----------
    correlation
        Of the source's features with the reference's at the places of its cells.
    null
        What it is expected to be if the sections have nothing to do with each other.
    deviation
        Standard deviation of that.
    shared
        The covariance between the sections as a share of that of cells some way apart within either of them. 1 and more:
        the sections agree as well as their measurement lets them.
    """

    correlation: float
    null: float
    deviation: float
    shared: float

    @property
    def z(self) -> float:
        """Standard deviations by which the correlation exceeds the null."""
        return (self.correlation - self.null) / self.deviation

    @property
    def related(self) -> bool:
        """Whether the sections agree by more than chance, and by most of what they could; not if this is unknown."""
        return self.z > CERTAIN and self.shared > SHARED


def agreement_of(xy_ref: np.ndarray, xy_src: np.ndarray, features: list[Features], *, n_neighbors: int) -> Agreement:
    """Judge whether two sections are related, under a pose.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in one frame, shapes (n, 2) and (m, 2); the source's after the pose.
    features
        One pair of arrays or several, for example one for each half of the genes, of which the mean counts: features of
        the reference (n, k) and the source (m, k).
    n_neighbors
        Cells over which a cell's features were averaged; so many cells count as one.
    """
    asked = _Asked.of(xy_ref, xy_src)
    if asked is None:
        return Agreement(correlation=float("nan"), null=float("nan"), deviation=float("nan"), shared=float("nan"))
    independent = max(2.0, min(len(asked.cells), asked.n_covered / n_neighbors))
    found = [asked.judge(ref.cpu().numpy(), src.cpu().numpy(), independent) for ref, src in features]
    correlation, null, noise, shared = (np.mean(values, axis=0) for values in zip(*found, strict=True))
    return Agreement(
        correlation=float(correlation),
        null=float(null.mean()),
        deviation=float(np.hypot(null.std(), noise)),
        shared=float(shared),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """Some of the source's cells that find tissue, whom they are compared with, and where other poses would put them."""

    cells: np.ndarray  # (p,), rows of the source
    n_covered: int
    own: np.ndarray  # (p, q), rows of the source some way apart from them
    nearest: np.ndarray  # (p,), rows of the reference
    others: np.ndarray  # (p, q), rows of the reference some way apart from those
    places: list[_Places]  # under the pose itself, and under the others

    @classmethod
    def of(cls, xy_ref: np.ndarray, xy_src: np.ndarray) -> _Asked | None:
        """Choose the cells; None if hardly any finds tissue."""
        rows = [np.arange(len(xy))[:: -(-len(xy) // MAX_CELLS)] for xy in (xy_ref, xy_src)]
        fixed, moving = (cKDTree(xy[kept]) for xy, kept in zip((xy_ref, xy_src), rows, strict=True))
        width = max(median_spacing(fixed.data), median_spacing(moving.data))
        distance, nearest = fixed.query(moving.data)
        covered = np.flatnonzero(distance <= 3 * width)
        if len(covered) < MIN_CELLS:
            return None
        some = covered[:: -(-len(covered) // SAMPLE)]
        xy = moving.data[some]
        places = [_Places.of(fixed, turned, width) for turned in [xy, *_poses(fixed.data, xy)]]
        return cls(
            cells=rows[1][some],
            n_covered=round(len(covered) * len(xy_src) / len(rows[1])),
            own=rows[1][_apart(moving, some)],
            nearest=rows[0][nearest[some]],
            others=rows[0][_apart(fixed, nearest[some])],
            places=[place.rows_of(rows[0]) for place in places],
        )

    def judge(self, ref: np.ndarray, src: np.ndarray, independent: float) -> tuple[float, np.ndarray, float, float]:
        """Return correlation, null (one value per turn), noise, and the shared part of the signal."""
        own = src[self.cells]
        products = np.stack([place.product(ref, own) for place in self.places if place.counts])
        found, first = products[0], self.places[0]
        n_channels = own.shape[1]
        turns = _turns(n_channels)
        null = np.einsum("pij,bji->bp", products, turns).max(axis=1)
        here, there = first.values(ref), own[first.covered]
        noise = _noise(here, there, independent)
        signal = (
            _signal(src[self.cells], src[self.own].mean(axis=1)),
            _signal(ref[self.nearest], ref[self.others].mean(axis=1)),
        )
        covariance = _covariance(here, there)
        return float(np.trace(found)), null, noise, float(covariance / np.sqrt(signal[0] * signal[1]))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Places:
    """Places in the reference, and how its cells' features are averaged there."""

    index: np.ndarray  # (p, q), rows of the reference
    weight: np.ndarray  # (p, q)
    covered: np.ndarray  # (p,), whether there is tissue
    counts: bool

    @classmethod
    def of(cls, tree: cKDTree, xy: np.ndarray, width: float) -> _Places:
        index, weight, covered = weights_around(tree, xy, width)
        return cls(
            index=index[covered],
            weight=weight[covered].astype(np.float32),
            covered=covered,
            counts=bool(covered.sum() >= max(MIN_CELLS, MIN_COVERED * len(xy))),
        )

    def rows_of(self, rows: np.ndarray) -> _Places:
        """Return the same, counting the reference's rows otherwise."""
        return _Places(index=rows[self.index], weight=self.weight, covered=self.covered, counts=self.counts)

    def values(self, features: np.ndarray) -> np.ndarray:
        return np.einsum("pq,pqk->pk", self.weight, features[self.index])

    def product(self, ref: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Cross-covariance of the channels, (k, k), scaled so that its trace is the correlation."""
        here, there = (values - values.mean(axis=0) for values in (self.values(ref), own[self.covered]))
        scale = np.sqrt(np.square(here).sum() * np.square(there).sum()).clip(1e-12)
        return here.T.astype(np.float64) @ there / scale


def _poses(xy_ref: np.ndarray, xy: np.ndarray) -> list[np.ndarray]:
    """Return points (p, 2), turned by angles all round the circle and laid somewhere on the reference."""
    rng = np.random.default_rng(0)  # always the same ones: nothing else is drawn from here
    centre, middle = xy_ref.mean(axis=0), xy.mean(axis=0)
    size, own = (np.sqrt(np.square(points - points.mean(axis=0)).sum(axis=1).mean()) for points in (xy_ref, xy))
    reach = max(0.3, 1 - own / size)
    turned = []
    for angle in 2 * np.pi * (np.arange(N_POSES) + 0.5) / N_POSES:
        c, s = np.cos(angle), np.sin(angle)
        place = centre + reach * (xy_ref[rng.integers(len(xy_ref))] - centre)
        turned.append((xy - middle) @ np.array([[c, s], [-s, c]]) + place)
    return turned


def _turns(n_channels: int) -> np.ndarray:
    """Return random rotations and reflections of the space of channels, shape (N_TURNS, k, k)."""
    q, r = np.linalg.qr(np.random.default_rng(1).standard_normal((N_TURNS, n_channels, n_channels)))
    return np.asarray(q * np.sign(np.einsum("bii->bi", r))[:, None, :])


def _apart(tree: cKDTree, cells: np.ndarray) -> np.ndarray:
    """Return neighbours (p, q) of some of a tree's own points that are some way off."""
    first, last = (min(rank, tree.n - 1 - ahead) for rank, ahead in zip(APART, (1, 0), strict=True))
    _, index = tree.query(tree.data[cells], k=np.arange(first, last + 1) + 1)
    return np.asarray(index)


def _covariance(a: np.ndarray, b: np.ndarray) -> float:
    """Covariance of two arrays of channels (p, k), summed over the channels."""
    return float(((a - a.mean(axis=0)) * (b - b.mean(axis=0))).sum(axis=1).mean())


def _signal(own: np.ndarray, apart: np.ndarray) -> float:
    """Covariance of cells' features (p, k) with those of cells some way apart: what is not noise."""
    return max(_covariance(own, apart), LEAST_SIGNAL * _covariance(own, own), 1e-12)


def _noise(here: np.ndarray, there: np.ndarray, independent: float) -> float:
    """Standard deviation of the correlation of channels (p, k) and (p, k) were the cells of one to change places."""
    one, other = (np.atleast_2d(np.cov(values, rowvar=False)) for values in (here, there))
    total = (np.trace(one) * np.trace(other)).clip(1e-12)
    return float(np.sqrt((one * other).sum() / total / independent))
