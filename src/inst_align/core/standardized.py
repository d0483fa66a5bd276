"""Expression with every gene standardised, which is only multiplied with; and the principal axes that sections share."""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from inst_align.core.rows import Rows, Streamed
from inst_align.core.threads import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scipy import sparse

    from inst_align.core.rows import Expression, Held

ROWS_AT_ONCE = 1 << 16
TYPICAL_CELLS = 10_000
"""Of a section with more cells than this, so many, evenly chosen, tell the moments of its genes and the shared axes."""
KRYLOV_BLOCKS = 6
"""Products with the covariance of the genes that the axes are made of; with fewer they depend on where these began."""
OVERSAMPLING = 10
MODERATE = 40
"""Power of two beyond which expression is scaled before it is standardised."""
_FILTERS = Lock()
"""Held while the filters of warnings, which all threads share, are changed."""


class Standardized:
    """A section's expression with every gene at mean 0 and standard deviation 1, without storing that dense matrix.

    Only products are standardised: ``z = (x - mean) / sd``, so ``z @ v = x @ (v / sd) - mean @ (v / sd)``. With
    ``scale=False`` the genes are centred and nothing else. On the CPU the values are not copied. Expression that is on
    disk is read twice: for the typical cells, which are held, and for the products with all cells.
    """

    def __init__(self, expression: Expression, device: torch.device, *, scale: bool = True) -> None:
        expression = not_extreme(expression) if scale else expression
        typical = _typical(expression)
        mean, square = _moments(typical)
        variance = square - mean**2
        varies = variance > 1e-8 * mean**2
        inverse_sd = np.zeros_like(mean)
        inverse_sd[varies] = variance[varies] ** -0.5 if scale else 1.0
        self._mean = torch.as_tensor(mean, dtype=torch.float32, device=device)
        self.inverse_sd = torch.as_tensor(inverse_sd, dtype=torch.float32, device=device)
        self.shape = expression.shape
        self._x = _factor(expression, device)
        self._source = typical if isinstance(self._x, _StreamedFactor) else expression

    def of_genes(self, genes: np.ndarray) -> Standardized:
        """Return the section as if nothing but some genes (indices) had been measured; it shares all memory."""
        some = copy(self)
        some.inverse_sd = only(self.inverse_sd, genes)
        return some

    @property
    def typical(self) -> Standardized:
        """The section with no more than ``TYPICAL_CELLS`` cells, evenly chosen, in memory, standardised as before."""
        cells = _typical(self._source)
        if cells.shape == self.shape and isinstance(self._x, _HeldFactor):
            return self
        some = copy(self)
        some._x, some._source, some.shape = _factor(cells, self._mean.device), cells, cells.shape
        return some

    @property
    def n_genes(self) -> int:
        """Number of genes that vary."""
        return int((self.inverse_sd > 0).sum())

    def matmul(self, v: torch.Tensor) -> torch.Tensor:
        """Return ``z @ v``, shape (n, k), for ``v`` of shape (g, k)."""
        return next(self.products([v]))

    def products(self, several: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield :meth:`matmul` of each; expression that is on disk is read once for all of them."""
        scaled = [v * self.inverse_sd[:, None] for v in several]
        products = self._x.products(scaled)
        for each in scaled:  # no name for the product, which would keep it while the next one is computed
            yield next(products).sub_(self._mean @ each)

    def rmatmul(self, u: torch.Tensor) -> torch.Tensor:
        """Return ``z.T @ u``, shape (g, k), for ``u`` of shape (n, k)."""
        return (self._x.transposed(u) - self._mean[:, None] * u.sum(dim=0)) * self.inverse_sd[:, None]


def only(values: torch.Tensor, genes: np.ndarray) -> torch.Tensor:
    """Return values by gene, shape (g,) or (g, k), with those of all but some genes (indices) set to zero."""
    chosen = torch.as_tensor(genes, device=values.device)
    return torch.zeros_like(values).index_copy_(0, chosen, values[chosen])


class _HeldFactor:
    """A matrix in memory, on the device, and with its rows in the order that is wanted."""

    def __init__(self, x: Held, order: np.ndarray | None, device: torch.device) -> None:
        self.shape = x.shape if order is None else (len(order), x.shape[1])
        self._order = None if order is None else torch.as_tensor(order, device=device)
        self._x = _to_torch(x, device)
        self._xt: sparse.csc_matrix | sparse.csc_array | torch.Tensor
        if isinstance(x, np.ndarray):
            self._xt = self._x.T
        elif device.type == "cpu":  # scipy multiplies by the transposed matrix without sorting it by genes first
            self._xt = x.T.astype(np.float32, copy=False)
        else:
            self._xt = _to_torch(x.T, device)

    def products(self, several: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        for v in several:
            yield self._x @ v if self._order is None else (self._x @ v)[self._order]

    def transposed(self, u: torch.Tensor) -> torch.Tensor:
        if self._order is not None:
            u = torch.empty_like(u).index_copy_(0, self._order, u)
        return self._xt @ u if isinstance(self._xt, torch.Tensor) else torch.as_tensor(self._xt @ u.numpy())


class _StreamedFactor:
    """A matrix on disk, whose blocks are brought to the device one by one."""

    def __init__(self, x: Streamed, order: np.ndarray, device: torch.device) -> None:
        self.shape = x.shape
        self._stored, self._device = x, device
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._place = torch.as_tensor(place, device=device)

    def products(self, several: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        found = [torch.empty(self.shape[0], v.shape[1], device=self._device) for v in several]
        for rows, block in self._stored.blocks():
            x = sparse_tensor(block, self._device)
            for product, v in zip(found, several, strict=True):
                product[self._place[rows]] = x @ v
        while found:
            yield found.pop(0)

    def transposed(self, u: torch.Tensor) -> torch.Tensor:
        parts = (
            sparse_tensor(block.T.tocsr(), self._device) @ u[self._place[rows]] for rows, block in self._stored.blocks()
        )
        return sum(parts, torch.zeros(self.shape[1], u.shape[1], device=self._device))


def _factor(x: Expression, device: torch.device) -> _HeldFactor | _StreamedFactor:
    stored, order = (x.stored, x.order) if isinstance(x, Rows) else (x, None)
    if isinstance(stored, Streamed):
        return _StreamedFactor(stored, np.arange(stored.shape[0]) if order is None else order, device)
    return _HeldFactor(stored, order, device)


def _typical(x: Expression) -> Expression:
    """Return at most ``TYPICAL_CELLS`` rows, evenly chosen, in memory."""
    step = -(-x.shape[0] // TYPICAL_CELLS)
    on_disk = isinstance(x.stored if isinstance(x, Rows) else x, Streamed)
    return x if step == 1 and not on_disk else x[::step]


def _moments(x: Expression) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of every gene, added up in float64, a block of cells at a time."""
    sums = np.zeros((2, x.shape[1]))
    for start in range(0, x.shape[0], ROWS_AT_ONCE):
        block = x[start : start + ROWS_AT_ONCE]
        if isinstance(block, np.ndarray):
            values = block.astype(np.float64)
            sums += values.sum(axis=0), np.square(values).sum(axis=0)
        else:
            values = block.data.astype(np.float64)
            for total, weights in zip(sums, (values, values**2), strict=True):
                total += np.bincount(block.indices, weights, minlength=len(total))
    return sums[0] / x.shape[0], sums[1] / x.shape[0]


def _to_torch(x: sparse.spmatrix | np.ndarray, device: torch.device) -> torch.Tensor:
    if isinstance(x, np.ndarray):
        return torch.as_tensor(np.ascontiguousarray(x, dtype=np.float32), device=device)
    return sparse_tensor(x.tocsr(), device)


def sparse_tensor(csr: sparse.csr_matrix | sparse.csr_array, device: torch.device) -> torch.Tensor:
    """Return a sparse matrix as a float32 tensor that can be multiplied with."""
    data = csr.data.astype(np.float32, copy=False)
    with _FILTERS, warnings.catch_warnings():  # torch announces on first use that its CSR support may still change
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.as_tensor(csr.indptr),
            torch.as_tensor(csr.indices),
            torch.as_tensor(data),
            size=csr.shape,
            device=device,
            check_invariants=False,
        )


def joint_axes(sections: list[Standardized], n_components: int, generator: torch.Generator) -> torch.Tensor:
    """Leading joint principal axes of several standardised sections, each section with the same total weight.

    Of few genes all axes are solved for. Of more, the leading ones are found in a block Krylov space with a random start
    :cite:p:`musco2015`, which reads the matrices through products only. At most ``TYPICAL_CELLS`` cells of each are asked.

    Returns
    -------
    Loadings, shape (g, n_components), orthonormal columns, by decreasing variance.
    """
    sections = [section.typical for section in sections]
    device = sections[0]._mean.device
    n_genes = max(section.n_genes for section in sections)
    n_components = min(n_components, n_genes, sum(s.shape[0] for s in sections) - 1)
    rank = n_components + OVERSAMPLING
    if n_genes <= KRYLOV_BLOCKS * rank:
        varies = torch.stack([section.inverse_sd for section in sections]).any(dim=0)
        basis = torch.eye(len(varies), device=device)[:, varies]
        products = _covariance_product(sections, basis)
    else:
        block = torch.randn(sections[0].shape[1], rank, generator=generator, device=generator.device).to(device)
        basis = products = block[:, :0]
        for _ in range(KRYLOV_BLOCKS):
            for _ in range(2):  # in float32 once is not orthogonal enough
                block, _ = torch.linalg.qr(block - basis @ (basis.T @ block))
            product = _covariance_product(sections, block)
            basis, products, block = torch.cat([basis, block], dim=1), torch.cat([products, product], dim=1), product
    small = basis.T @ products
    _, rotation = torch.linalg.eigh((small + small.T) / 2)
    return basis @ rotation.flip(1)[:, :n_components]


def _covariance_product(sections: list[Standardized], v: torch.Tensor) -> torch.Tensor:
    return torch.stack(side_by_side(lambda s: s.rmatmul(s.matmul(v)) / s.shape[0], sections)).sum(dim=0)


def not_extreme(x: Expression) -> Expression:
    """Return expression of which sums of squares stay within float32; standardising takes the factor out again."""
    if isinstance(x, Rows):
        return replace(x, stored=cast("Held | Streamed", not_extreme(x.stored)))
    if isinstance(x, Streamed):
        exponent = int(np.frexp(x.largest)[1])
        return x if abs(exponent) <= MODERATE else x.times_power_of_two(-exponent)
    values = x if isinstance(x, np.ndarray) else x.data
    if abs(np.frexp(max(values.max(initial=0), -values.min(initial=0)))[1]) <= MODERATE:
        return x
    [scaled] = of_moderate_size(values)
    if isinstance(x, np.ndarray):
        return scaled
    return type(x)((scaled, x.indices, x.indptr), shape=x.shape)


def of_moderate_size(*arrays: np.ndarray) -> list[np.ndarray]:
    """Return arrays as float32, divided by the one power of two that brings them near 1: their squares stay finite.

    A power of two leaves every digit as it is.
    """
    largest = max(float(np.abs(values).max(initial=0)) for values in arrays)
    exponent = int(np.frexp(largest)[1])
    return [np.ldexp(np.asarray(values, dtype=np.float64), -exponent).astype(np.float32) for values in arrays]
