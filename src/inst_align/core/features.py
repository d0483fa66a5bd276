"""Features that both sections share: standardised per section, jointly projected, averaged over neighbouring cells.

Everything that moves a cell later is driven by these numbers, which come from the expression measured on *both*
sections. Standardising each gene within its section removes gene-wise batch factors; one projection for both keeps the
channels comparable; averaging over neighbours trades a little sharpness for a lot less noise.
"""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

from inst_align.core.section import Rows

if TYPE_CHECKING:
    from scipy import sparse

    from inst_align.core.section import Section

ROWS_AT_ONCE = 1 << 16
AXES_CELLS = 50_000
"""The shared axes are found on no more cells of a section than this; all are projected on them."""
POWER_ITERATIONS = 2
OVERSAMPLING = 10
MODERATE = 40
"""Power of two beyond which expression is scaled before it is standardised."""
MOST_TIES = 8
"""Cells beyond the last neighbour that may be as near as it: more than any lattice has."""


class Standardized:
    """A section's expression with every gene at mean 0 and standard deviation 1, without storing that dense matrix.

    Only products are standardised: ``z = (x - mean) / sd``, so ``z @ v = x @ (v / sd) - mean @ (v / sd)``. With
    ``scale=False`` the genes are centred and nothing else. On the CPU the values are not copied.
    """

    def __init__(
        self,
        expression: sparse.csr_matrix | sparse.csr_array | np.ndarray | Rows,
        device: torch.device,
        *,
        scale: bool = True,
    ) -> None:
        expression = _not_extreme(expression) if scale else expression
        mean, square = _moments(expression)
        variance = square - mean**2
        varies = variance > 1e-8 * mean**2
        inverse_sd = np.zeros_like(mean)
        inverse_sd[varies] = variance[varies] ** -0.5 if scale else 1.0
        self._mean = torch.as_tensor(mean, dtype=torch.float32, device=device)
        self.inverse_sd = torch.as_tensor(inverse_sd, dtype=torch.float32, device=device)
        self._hold(expression, device)

    def _hold(self, expression: sparse.csr_matrix | sparse.csr_array | np.ndarray | Rows, device: torch.device) -> None:
        self.shape, self._stored = expression.shape, expression
        self._order: torch.Tensor | None = None
        if isinstance(expression, Rows):
            self._order = torch.as_tensor(expression.order, device=device)
            expression = expression.stored
        self._x = _to_torch(expression, device)
        self._xt: sparse.csc_matrix | sparse.csc_array | torch.Tensor
        if isinstance(expression, np.ndarray):
            self._xt = self._x.T
        elif device.type == "cpu":  # scipy multiplies by the transposed matrix without sorting it by genes first
            self._xt = expression.T.astype(np.float32, copy=False)
        else:
            self._xt = _to_torch(expression.T, device)

    def of_genes(self, genes: np.ndarray) -> Standardized:
        """Return the section as if nothing but some genes (indices) had been measured; it shares all memory."""
        some = copy(self)
        chosen = torch.zeros_like(self.inverse_sd)
        chosen[torch.as_tensor(genes, device=chosen.device)] = 1
        some.inverse_sd = self.inverse_sd * chosen
        return some

    def at_most(self, n_cells: int) -> Standardized:
        """Return the section with no more cells than this, evenly chosen, standardised as before."""
        step = -(-self.shape[0] // n_cells)
        if step == 1:
            return self
        some = copy(self)
        some._hold(self._stored[::step], self._mean.device)
        return some

    @property
    def n_genes(self) -> int:
        """Number of genes that vary."""
        return int((self.inverse_sd > 0).sum())

    def matmul(self, v: torch.Tensor) -> torch.Tensor:
        """Return ``z @ v``, shape (n, k), for ``v`` of shape (g, k)."""
        scaled = v * self.inverse_sd[:, None]
        product = self._x @ scaled
        return (product if self._order is None else product[self._order]) - self._mean @ scaled

    def rmatmul(self, u: torch.Tensor) -> torch.Tensor:
        """Return ``z.T @ u``, shape (g, k), for ``u`` of shape (n, k)."""
        if self._order is not None:
            u = torch.empty_like(u).index_copy_(0, self._order, u)
        product = self._xt @ u if isinstance(self._xt, torch.Tensor) else torch.as_tensor(self._xt @ u.numpy())
        return (product - self._mean[:, None] * u.sum(dim=0)) * self.inverse_sd[:, None]


def _moments(x: sparse.csr_matrix | sparse.csr_array | np.ndarray | Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of every gene, added up in float64, a block of cells at a time."""
    sums = np.zeros((2, x.shape[1]))
    for start in range(0, x.shape[0], ROWS_AT_ONCE):
        block = x[start : start + ROWS_AT_ONCE].astype(np.float64)
        ones = np.ones(block.shape[0])
        sums[0] += ones @ block
        sums[1] += ones @ (block**2 if isinstance(block, np.ndarray) else block.power(2))
    return sums[0] / x.shape[0], sums[1] / x.shape[0]


def _to_torch(x: sparse.spmatrix | np.ndarray, device: torch.device) -> torch.Tensor:
    if isinstance(x, np.ndarray):
        return torch.as_tensor(np.ascontiguousarray(x, dtype=np.float32), device=device)
    return sparse_tensor(x.tocsr(), device)


def sparse_tensor(csr: sparse.csr_matrix | sparse.csr_array, device: torch.device) -> torch.Tensor:
    """Return a sparse matrix as a float32 tensor that can be multiplied with."""
    with warnings.catch_warnings():  # torch announces on first use that its CSR support may still change
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.as_tensor(csr.indptr),
            torch.as_tensor(csr.indices),
            torch.as_tensor(csr.data.astype(np.float32, copy=False)),
            size=csr.shape,
            device=device,
            check_invariants=False,
        )


def joint_axes(sections: list[Standardized], n_components: int, generator: torch.Generator) -> torch.Tensor:
    """Leading joint principal axes of several standardised sections, each section with the same total weight.

    Randomised subspace iteration :cite:p:`halko2011`, which reads the matrices through products only, those of at most
    ``AXES_CELLS`` cells of each.

    Returns
    -------
    Loadings, shape (g, n_components), orthonormal columns, by decreasing variance.
    """
    sections = [section.at_most(AXES_CELLS) for section in sections]
    device = sections[0]._mean.device
    n_genes = max(section.n_genes for section in sections)
    n_components = min(n_components, n_genes, sum(s.shape[0] for s in sections) - 1)
    rank = min(n_components + OVERSAMPLING, n_genes)
    axes = torch.randn(sections[0].shape[1], rank, generator=generator, device=generator.device).to(device)
    for _ in range(POWER_ITERATIONS + 1):
        axes, _ = torch.linalg.qr(_covariance_product(sections, axes))
    small = axes.T @ _covariance_product(sections, axes)
    _, rotation = torch.linalg.eigh((small + small.T) / 2)
    return axes @ rotation.flip(1)[:, :n_components]


def _covariance_product(sections: list[Standardized], v: torch.Tensor) -> torch.Tensor:
    return torch.stack([s.rmatmul(s.matmul(v)) / s.shape[0] for s in sections]).sum(dim=0)


class NeighbourMean:
    """The mean over each cell's ``n_neighbors`` nearest cells in ``xy`` (n, 2), itself among them.

    Cells that are as near as the last of these count too.
    """

    def __init__(self, xy: np.ndarray, n_neighbors: int, device: torch.device) -> None:
        self._index: torch.Tensor | None = None
        n_neighbors = min(n_neighbors, len(xy))
        if n_neighbors < 2:
            return
        distance, index = cKDTree(xy).query(xy, k=min(len(xy), n_neighbors + MOST_TIES))
        # On a lattice several cells are equally near; all of them count, since only rounding could choose among them.
        near = distance <= distance[:, n_neighbors - 1 : n_neighbors] * (1 + 1e-6)
        most = int(near.sum(axis=1).max())  # the distances are sorted
        weights = near[:, :most] / near.sum(axis=1, keepdims=True)
        self._index = torch.as_tensor(np.ascontiguousarray(index[:, :most].T), device=device)
        self._weights = torch.as_tensor(np.ascontiguousarray(weights.T), dtype=torch.float32, device=device)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the means of values (n, k)."""
        if self._index is None:
            return values
        mean = torch.zeros_like(values)
        for index, weight in zip(self._index, self._weights, strict=True):  # no (n, n_neighbors, k) array
            mean.addcmul_(values[index], weight[:, None])
        return mean


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedFeatures:
    """Features of both sections of a pair, from all of its genes or from some.

    Parameters
    ----------
    sections
        Expression of the reference and the source; or a user's own representation, each column at mean 0, (n, d).
    means
        Of each section's cells over their neighbours.
    n_components
        Most channels.
    device
        Where the features are wanted.
    """

    sections: tuple[Standardized | torch.Tensor, Standardized | torch.Tensor]
    means: tuple[NeighbourMean, NeighbourMean]
    n_components: int
    device: torch.device

    @classmethod
    def of_pair(
        cls, ref: Section, src: Section, *, n_components: int, n_neighbors: int, device: torch.device
    ) -> SharedFeatures:
        """Take the sections as they are; nothing is computed of their expression but its moments."""
        home = device
        if torch.are_deterministic_algorithms_enabled():
            device = torch.device("cpu")  # the sparse products of CUDA promise no order
        sections: list[Standardized | torch.Tensor]
        if ref.is_rep:
            sections = [_centred(values, device) for values in _of_moderate_size(ref.expression, src.expression)]
        else:
            sections = [Standardized(section.expression, device) for section in (ref, src)]
        means = [NeighbourMean(section.unit_xy, n_neighbors, device) for section in (ref, src)]
        return cls(
            sections=(sections[0], sections[1]), means=(means[0], means[1]), n_components=n_components, device=home
        )

    @property
    def n_genes(self) -> int:
        """Number of genes, or of columns."""
        return int(self.sections[0].shape[1])

    def of(self, generator: torch.Generator, genes: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shared features of both sections, averaged over neighbours; see :meth:`of_cells`."""
        return self.averaged(self.of_cells(generator, genes))

    def averaged(self, features: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the means of cells' features over their neighbours."""
        ref, src = (mean(values).to(self.device) for mean, values in zip(self.means, features, strict=True))
        return ref, src

    def of_cells(
        self, generator: torch.Generator, genes: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shared features of both sections' single cells, float32, shapes (n_ref, k) and (n_src, k).

        Channels are ordered by variance and scaled together, so that all of them add up to a variance of 1; their
        relative sizes, which tell signal from noise, are kept. A user's own representation (``Section.is_rep``) is
        centred and scaled as a whole, but neither standardised nor projected.

        Parameters
        ----------
        generator
            Of the projection.
        genes
            Indices of the genes, or columns, to go by; ``None`` for all.
        """
        chosen = np.arange(self.n_genes) if genes is None else genes
        scores = [section[:, chosen] for section in self.sections if isinstance(section, torch.Tensor)]
        if not scores:
            measured = [section.of_genes(chosen) for section in self.sections if isinstance(section, Standardized)]
            axes = joint_axes(measured, self.n_components, generator)
            scores = [section.matmul(axes) for section in measured]
        total = torch.stack([s.square().sum(dim=1).mean() for s in scores]).mean().clamp_min(1e-12)
        one, other = (s / total.sqrt() for s in scores)
        return one, other


def _centred(values: np.ndarray, device: torch.device) -> torch.Tensor:
    raw = torch.as_tensor(np.asarray(values, dtype=np.float32), device=device)
    return raw - raw.mean(dim=0)


def _not_extreme(
    x: sparse.csr_matrix | sparse.csr_array | np.ndarray | Rows,
) -> sparse.csr_matrix | sparse.csr_array | np.ndarray | Rows:
    """Return expression of which sums of squares stay within float32; standardising takes the factor out again."""
    if isinstance(x, Rows):
        return replace(x, stored=_not_extreme(x.stored))
    values = x if isinstance(x, np.ndarray) else x.data
    if abs(np.frexp(max(values.max(initial=0), -values.min(initial=0)))[1]) <= MODERATE:
        return x
    [scaled] = _of_moderate_size(values)
    if isinstance(x, np.ndarray):
        return scaled
    return type(x)((scaled, x.indices, x.indptr), shape=x.shape)


def _of_moderate_size(*arrays: np.ndarray) -> list[np.ndarray]:
    """Return arrays as float32, divided by the one power of two that brings them near 1: their squares stay finite.

    A power of two leaves every digit as it is.
    """
    largest = max(float(np.abs(values).max(initial=0)) for values in arrays)
    exponent = int(np.frexp(largest)[1])
    return [np.ldexp(np.asarray(values, dtype=np.float64), -exponent).astype(np.float32) for values in arrays]
