"""Axes of expression on which neighbouring cells agree, within a section and across two aligned ones.

Principal axes follow variance, and most of the variance of a single cell is noise. Noise is independent from cell to cell,
so it is absent, on average, from products of *different* cells. The axes found here are those of the covariance of
neighbours, as in spatial principal component analysis :cite:p:`dray2008`, with the neighbours taken from both sections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree

from inst_align.core.standardized import Standardized, sparse_tensor

if TYPE_CHECKING:
    from typing import TypeAlias

    from scipy.sparse import csr_array, csr_matrix

    Expression: TypeAlias = csr_matrix | csr_array | np.ndarray

OVERSAMPLING = 15
ITERATIONS = 6
N_NEIGHBORS = 6
"""Neighbours in each of the sections."""
REACH = 3.0
"""A cell of the other section counts as a neighbour up to this distance, in neighbour distances."""
LEAST_AGREEMENT = 0.2
"""Of an axis that is kept: correlation of a cell with its neighbours, those of the own and of the other section added."""
STANDARD_ERRORS = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The cells of two sections in one frame, those of the reference first.

    Parameters
    ----------
    xy
        Shape (n, 2), in neighbour distances.
    in_source
        Which cells are the source's, bool, shape (n,).
    """

    xy: np.ndarray
    in_source: np.ndarray

    def take(self, rows: np.ndarray) -> Cells:
        """Return the cells that a mask, shape (n,), is true of."""
        return Cells(xy=self.xy[rows], in_source=self.in_source[rows])

    def mean_of_neighbours(self, *, other: bool) -> sparse.csr_matrix:
        """Matrix (n, n) that takes the mean over each cell's neighbours in its own section, or in the other one.

        A row without neighbours within reach is zero.
        """
        parts = []
        for source in (False, True):
            cells = np.flatnonzero(self.in_source == source)
            targets = np.flatnonzero(self.in_source == (source != other))
            k = min(N_NEIGHBORS + (not other), len(targets))
            distance, found = cKDTree(self.xy[targets]).query(self.xy[cells], k=np.arange(1, k + 1))
            column = targets[found]
            near = (distance <= REACH) if other else column != cells[:, None]
            row = np.broadcast_to(cells[:, None], column.shape)
            weight = near / near.sum(axis=1, keepdims=True).clip(1)
            parts.append(sparse.coo_matrix((weight[near], (row[near], column[near])), shape=(len(self.xy),) * 2))
        return (parts[0] + parts[1]).tocsr()

    def overlap(self) -> np.ndarray:
        """Which cells have a cell of the other section within reach, bool, shape (n,)."""
        near = np.zeros(len(self.xy), dtype=bool)
        for source in (False, True):
            cells = self.in_source == source
            near[cells] = cKDTree(self.xy[~cells]).query(self.xy[cells])[0] <= REACH
        return near

    def agreement(self) -> sparse.csr_matrix:
        """Symmetric matrix A (n, n) for which ``z @ A @ z`` is the covariance of ``z`` with the neighbours.

        The mean over the cells, each section with the same weight, of a cell's product with the mean of its neighbours in
        its own section plus that in the other.
        """
        size = np.where(self.in_source, self.in_source.sum(), (~self.in_source).sum())
        mean = self.mean_of_neighbours(other=False) + self.mean_of_neighbours(other=True)
        weighted = sparse.diags(0.5 / size) @ mean
        return ((weighted + weighted.T) / 2).tocsr()


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The expression of both sections as one matrix (n, g) that is only multiplied with.

    Genes are standardised in each section, and then weighted.

    Parameters
    ----------
    expression
        Of the reference and of the source.
    is_rep
        Whether the columns are a representation, which is centred only.
    device
        Where to compute.
    """

    expression: tuple[Expression, Expression]
    is_rep: bool
    device: torch.device

    @cached_property
    def sections(self) -> tuple[Standardized, ...]:
        """Both sections, standardised."""
        return tuple(Standardized(values, self.device, scale=not self.is_rep) for values in self.expression)

    @cached_property
    def gene_weights(self) -> torch.Tensor:
        """What each gene counts, shape (g, 1): the root of its standard deviation, geometric mean of both sections.

        Standardised, rare genes, which are counting noise for the most part, would count as much as the strongest markers;
        not standardised, a few abundant genes would be all that counts.
        """
        product = self.sections[0].inverse_sd * self.sections[1].inverse_sd
        weights = torch.where(product > 0, product, torch.inf) ** -0.25
        return torch.ones_like(weights)[:, None] if self.is_rep else weights[:, None]

    def take(self, rows: np.ndarray) -> Measured:
        """Return the cells that a mask, shape (n,), is true of; standardised anew."""
        of_ref, of_src = np.split(rows, [self.expression[0].shape[0]])
        return replace(self, expression=(self.expression[0][of_ref], self.expression[1][of_src]))

    def matmul(self, loadings: torch.Tensor) -> torch.Tensor:
        """Scores (n, k) of loadings (g, k)."""
        weighted = self.gene_weights * loadings
        return torch.cat([section.matmul(weighted) for section in self.sections])

    def rmatmul(self, scores: torch.Tensor) -> torch.Tensor:
        """Transposed product (g, k) with scores (n, k)."""
        parts = scores.split([section.shape[0] for section in self.sections])
        products = [section.rmatmul(part) for section, part in zip(self.sections, parts, strict=True)]
        return self.gene_weights * (products[0] + products[1])

    def scores(self, loadings: torch.Tensor) -> np.ndarray:
        """:meth:`matmul` as a float64 array."""
        return np.asarray(self.matmul(loadings).cpu().numpy(), dtype=np.float64)


def spatial_axes(
    measured: Measured, agreement: sparse.csr_matrix, n_axes: int, generator: torch.Generator
) -> torch.Tensor:
    """Leading axes of the covariance of neighbours, by randomised subspace iteration :cite:p:`halko2011`.

    Parameters
    ----------
    measured
        Expression of n cells and g genes.
    agreement
        Of the cells, shape (n, n): :meth:`Cells.agreement`.
    n_axes
        How many, at most.
    generator
        Of the start, on the CPU.

    Returns
    -------
    Loadings, shape (g, k), orthonormal columns by decreasing covariance, each signed so that its largest entry is
    positive.
    """
    weights = sparse_tensor(agreement, measured.device)

    def product(v: torch.Tensor) -> torch.Tensor:
        return measured.rmatmul(weights @ measured.matmul(v))

    n_genes = int(measured.expression[0].shape[1])
    axes = torch.randn(n_genes, min(n_axes + OVERSAMPLING, n_genes), generator=generator).to(measured.device)
    for _ in range(ITERATIONS):
        axes, _ = torch.linalg.qr(product(axes))
    small = axes.T @ product(axes)
    _, rotation = torch.linalg.eigh((small + small.T) / 2)
    axes = axes @ rotation.flip(1)[:, :n_axes]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0)


def count_reliable(measured: Measured, cells: Cells, n_axes: int, generator: torch.Generator) -> tuple[int, np.ndarray]:
    """Count the axes that hold for cells which they were not found on.

    Axes fit noise, too, the more the fewer the cells. So they are found on a random half of the cells, and what
    counts is how well neighbours agree on them in the other half; then the other way round.

    Parameters
    ----------
    measured, cells
        Expression and places of n cells.
    n_axes
        How many to try, at most.
    generator
        Of the halves, on the CPU.

    Returns
    -------
    How many leading axes to keep, up to the first that does not hold but at least one, and the agreement of each, shape (k,): the mean of both ways.
    """
    half = _random_half(cells.in_source, generator)
    found, error = [], []
    for rows in (half, ~half):
        axes = spatial_axes(measured.take(rows), cells.take(rows).agreement(), n_axes, generator)
        matrix = cells.take(~rows).agreement()
        scores, in_source = measured.take(~rows).scores(axes), cells.in_source[~rows]
        variance = np.mean([(scores[in_source == source] ** 2).mean(axis=0) for source in (False, True)], axis=0)
        found.append((scores * (matrix @ scores)).sum(axis=0) / variance.clip(1e-12))
        error.append(np.sqrt(2 * matrix.multiply(matrix).sum()))  # of Moran's statistic for independent cells
    agreement = np.mean(found, axis=0)
    fails = agreement <= max(LEAST_AGREEMENT, STANDARD_ERRORS * float(np.mean(error)))
    return max(1, int(np.argmax(np.append(fails, True)))), agreement


def _random_half(in_source: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Half of the cells of each section, bool, shape (n,)."""
    half = np.zeros(len(in_source), dtype=bool)
    for source in (False, True):
        cells = np.flatnonzero(in_source == source)
        half[cells[torch.randperm(len(cells), generator=generator).numpy()[: len(cells) // 2]]] = True
    return half
