"""Cokriging: the best linear guess at what two sections share, from noisy values around a place in both.

How much a cell's own value counts, how far its neighbours count, and what those of the other section are worth is read
off the data, for each channel by itself: from the mean products of pairs of cells, by distance, within the sections and
between them. In the linear model of coregionalisation :cite:p:`goulard1992` a channel is the sum of a signal that both
sections share, of structure that is one section's own (spots that leak into each other, a scratch, a gradient of the
staining), and of noise that no two cells share. The guess is at the first of the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from inst_align.core.spatial_axes import Cells

SCALES = (1.5, 3.0, 6.0, 12.0, 24.0)
"""Ranges, in neighbour distances, of the exponentials that a covariance is made of. What falls off faster is noise."""
N_PAIRS = 60
"""Nearest cells, of both sections together, with which a cell makes pairs."""
MOST_CELLS = 20_000
"""Cells whose pairs are looked at: more would not change what is found."""
EDGES = (0.03, 0.08, 0.16, 0.28, 0.45, 0.7, 1.0)
"""Quantiles of the distances of all pairs that bound the groups whose products are averaged."""
LEAST_PAIRS = 50
MOST_RATIO = 5.0
"""Between the covariances of all cells and of those in the overlap: beyond, the overlap is no guide."""
LEAST_NOISE = 0.02
"""Of a channel's variance: keeps the equations solvable where no noise shows."""
N_NEAREST = 30
"""Cells, of both sections together and with the cell itself, that a value is guessed from."""
CHUNK = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class Covariance:
    """How k channels vary in space.

    Parameters
    ----------
    shared, private
        Variance by range of the signal that the sections share, and of structure of their own, shapes (k, len(SCALES)).
    noise
        Variance that no two cells share, in the reference and in the source, shape (2, k).
    """

    shared: np.ndarray
    private: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, cells: Cells, values: np.ndarray) -> Covariance:
        """Fit channels (n, k), each of mean zero, by least squares with non-negative variances.

        Between the sections nothing is known but where they overlap, which may be the quiet part of the tissue: what is
        found there is taken in relation to what is found there within the sections. Where sections do not overlap at
        all, everything is taken for shared.
        """
        some = np.arange(0, len(values), -(-len(values) // MOST_CELLS))
        within, _ = _products(cells, values, some)
        within_overlap, between = _products(cells, values, some[cells.overlap()[some]])
        here = within_overlap.mean
        ratio = np.where(here > 0, within.mean / np.where(here > 0, here, 1.0), 1.0).clip(1 / MOST_RATIO, MOST_RATIO)
        n_shared = len(SCALES)
        if len(between.distance):
            nothing = np.zeros_like(between.basis)
            design = np.block([[within.basis, within.basis], [between.basis, nothing]])
            target = np.concatenate([within.target, ratio * between.target])
        else:
            design, target = within.basis, within.target
        fitted = np.stack([nnls(design, column)[0] for column in target.T])
        shared, private = fitted[:, :n_shared], fitted[:, n_shared:]
        private = private if private.size else np.zeros_like(shared)
        variance = np.stack([(values[cells.in_source == source] ** 2).mean(axis=0) for source in (False, True)])
        least = np.where(variance.any(axis=0), LEAST_NOISE * variance.mean(axis=0), 1.0)
        noise = np.maximum(variance - (shared + private).sum(axis=1), least)
        return cls(shared=shared, private=private, noise=noise)

    @property
    def shared_fraction(self) -> np.ndarray:
        """Of the structure of each channel, in [0, 1], shape (k,)."""
        shared, private = self.shared.sum(axis=1), self.private.sum(axis=1)
        return np.asarray(shared / np.maximum(shared + private, 1e-12))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Products:
    """Mean products of pairs of cells, in m groups by distance.

    Parameters
    ----------
    distance
        Mean in each group, shape (m,).
    product
        Shape (m, k).
    weight
        Root of the number of pairs, shape (m,).
    """

    distance: np.ndarray
    product: np.ndarray
    weight: np.ndarray

    @property
    def basis(self) -> np.ndarray:
        """Exponentials at the distances, weighted, shape (m, len(SCALES))."""
        return np.asarray(np.exp(-self.distance[:, None] / np.array(SCALES)) * self.weight[:, None])

    @property
    def target(self) -> np.ndarray:
        """Products, weighted alike, shape (m, k)."""
        return self.product * self.weight[:, None]

    @property
    def mean(self) -> np.ndarray:
        """Mean product of all pairs, shape (k,); zero if there are none."""
        number = self.weight**2
        return np.asarray(number @ self.product / max(number.sum(), 1.0))


def _products(cells: Cells, values: np.ndarray, some: np.ndarray) -> tuple[_Products, _Products]:
    """Pair ``some`` cells, shape (s,), with the cells nearest to them; pairs within the sections, and between them."""
    n_pairs = min(N_PAIRS, len(values))
    distance, found = cKDTree(cells.xy).query(cells.xy[some], k=np.arange(1, n_pairs + 1))
    distance = distance.round(6)  # on a lattice, rounding must not tell equal distances apart
    different = found != some[:, None]
    between = cells.in_source[found] != cells.in_source[some][:, None]
    edges = np.quantile(distance[different], EDGES) if different.any() else np.empty(0)
    groups = np.where(different, np.searchsorted(edges, distance), len(EDGES))
    parts = []
    for kind in (different & ~between, different & between):
        rows = []
        for group in range(len(EDGES)):
            cell, slot = np.nonzero(kind & (groups == group))
            if len(cell) >= LEAST_PAIRS:
                product = np.einsum("mk,mk->k", values[some[cell]], values[found[cell, slot]]) / len(cell)
                rows.append(np.concatenate([[distance[cell, slot].mean(), np.sqrt(len(cell))], product]))
        table = np.array(rows).reshape(len(rows), 2 + values.shape[1])
        parts.append(_Products(distance=table[:, 0], weight=table[:, 1], product=table[:, 2:]))
    return parts[0], parts[1]


def krige(cells: Cells, values: np.ndarray, covariance: Covariance, at: Cells, device: torch.device) -> np.ndarray:
    """Guess the shared signal at places in both sections, from the cells around them in both.

    A place where a cell lies makes the most of what was measured on that cell. The cost grows with the number of places:
    for each of them and each channel ``N_NEAREST`` equations are solved. A channel of which the sections share nothing is
    denoised by each section alone.

    Parameters
    ----------
    cells
        Where the channels were measured.
    values
        Channels, each of mean zero, shape (n, k).
    covariance
        Of the channels.
    at
        m places, in the frame and unit of the cells, and which of them are the source's.
    device
        Where to compute.

    Returns
    -------
    Signal, float32, shape (m, k).
    """
    _, nearest = cKDTree(cells.xy).query(at.xy, k=np.arange(1, min(N_NEAREST, len(values)) + 1))
    xy, targets, measured, noise = (
        torch.as_tensor(array, dtype=torch.float32, device=device)
        for array in (cells.xy, at.xy, values, covariance.noise)
    )
    source, target_source = (torch.as_tensor(each.in_source, device=device) for each in (cells, at))
    signal = torch.empty(len(targets), values.shape[1], device=device)
    for rows in torch.arange(len(targets), device=device).split(CHUNK):
        index = torch.as_tensor(nearest[rows.cpu().numpy()], device=device)
        place, of_source = xy[index], source[index]
        apart = _exponentials(torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist"))
        away = _exponentials(torch.linalg.vector_norm(place - targets[rows][:, None], dim=2))
        same = of_source[:, :, None] == of_source[:, None, :]
        own_section = of_source == target_source[rows][:, None]
        for channel, (shared, private) in enumerate(zip(covariance.shared, covariance.private, strict=True)):
            matrix = _combined(apart, shared) + same * _combined(apart, private)
            matrix.diagonal(dim1=1, dim2=2).add_(noise[:, channel][of_source.long()])
            here = _combined(away, shared) if shared.any() else own_section * _combined(away, private)
            weight = torch.cholesky_solve(here[:, :, None], torch.linalg.cholesky(matrix))[:, :, 0]
            signal[rows, channel] = (weight * measured[index, channel]).sum(dim=1)
    return signal.cpu().numpy()


def _exponentials(distance: torch.Tensor) -> list[torch.Tensor]:
    """One for each of the ranges in ``SCALES``."""
    return [torch.exp(distance / -scale) for scale in SCALES]


def _combined(exponentials: list[torch.Tensor], variances: np.ndarray) -> torch.Tensor:
    """Sum of exponentials, each times its variance."""
    total = torch.zeros_like(exponentials[0])
    for variance, exponential in zip(variances.tolist(), exponentials, strict=True):
        if variance > 0:
            total.add_(exponential, alpha=variance)
    return total
