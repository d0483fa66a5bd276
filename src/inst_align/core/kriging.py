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
BLOCK = 16
"""Places that lie together and are guessed from one window of cells, so that one set of equations serves them all."""
N_AROUND = 40
"""Cells nearest to a place, of both sections together, that ask to be in the window of its block."""
WINDOW = 112
"""Cells in a window: of those that ask, the ones nearest to any place of the block."""
SPARE = 1e6
"""Factor by which the noise of a cell that only fills a window is raised, so that it has no say."""
CHUNK = 64
"""Blocks that are computed at once."""


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
        """Each function at the distances, weighted, shape (m, len(SCALES))."""
        functions = _functions(torch.as_tensor(self.distance))
        return np.stack([function.numpy() for function in functions], axis=1) * self.weight[:, None]

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
    for each ``BLOCK`` of them and each channel ``WINDOW`` equations are solved. A channel of which the sections share
    nothing is denoised by each section alone.

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
    blocks, tree = _blocks(at.xy), cKDTree(cells.xy)
    signal = torch.empty(len(at.xy), values.shape[1], device=device)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    for start in range(0, len(blocks), CHUNK):
        rows = blocks[start : start + CHUNK]
        window, spare = _windows(tree, at.xy[rows])
        place, target = tensor(cells.xy[window]), tensor(at.xy[rows])
        apart = _functions(torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist"))
        away = _functions(torch.cdist(target, place, compute_mode="donot_use_mm_for_euclid_dist"))
        source = cells.in_source[window]
        same, own = (tensor(each[:, :, None] == source[:, None, :]) for each in (source, at.in_source[rows]))
        noise = tensor(np.where(spare, SPARE, 1.0)[:, :, None] * covariance.noise[source.astype(int)])
        measured = tensor(values[window])
        for channel, (shared, private) in enumerate(zip(covariance.shared, covariance.private, strict=True)):
            matrix = _combined(apart, shared) + same * _combined(apart, private)
            matrix.diagonal(dim1=1, dim2=2).add_(noise[:, :, channel])
            here = _combined(away, shared) if shared.any() else own * _combined(away, private)
            solved = torch.cholesky_solve(measured[:, :, channel, None], torch.linalg.cholesky(matrix))
            signal[torch.as_tensor(rows, device=device), channel] = (here @ solved)[:, :, 0]
    return signal.cpu().numpy()


def _blocks(at: np.ndarray) -> np.ndarray:
    """Put places (m, 2) in blocks that lie together: indices, shape (b, ``BLOCK``), some twice to fill the last block."""
    by_place = np.lexsort(at.T)  # so that the order of the rows does not matter
    order = by_place[cKDTree(at[by_place], leafsize=BLOCK).indices]
    return np.concatenate([order, np.repeat(order[-1:], -len(order) % BLOCK)]).reshape(-1, BLOCK)


def _windows(tree: cKDTree, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose cells around each of b blocks of places, shape (b, ``BLOCK``, 2).

    Returns
    -------
    Indices of cells, shape (b, w) with w at most ``WINDOW``, and which of these are spare, because too few others asked.
    """
    distance, found = tree.query(places, k=np.arange(1, min(N_AROUND, tree.n) + 1))
    distance, found = (array.reshape(len(places), -1) for array in (distance, found))
    by_cell = np.lexsort((distance, found), axis=1)
    distance, found = (np.take_along_axis(array, by_cell, axis=1) for array in (distance, found))
    distance[:, 1:][found[:, 1:] == found[:, :-1]] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(WINDOW, tree.n)]
    distance, found = (np.take_along_axis(array, nearest, axis=1) for array in (distance, found))
    return found, np.isinf(distance)


def _functions(distance: torch.Tensor) -> list[torch.Tensor]:
    """What a covariance of variance one is at the distances, for each of the ranges in ``SCALES``."""
    return [torch.exp(distance / -scale) for scale in SCALES]


def _combined(functions: list[torch.Tensor], variances: np.ndarray) -> torch.Tensor:
    """Sum of the functions, each times its variance."""
    total = torch.zeros_like(functions[0])
    for variance, function in zip(variances.tolist(), functions, strict=True):
        if variance > 0:
            total.add_(function, alpha=variance)
    return total
