"""Features that both sections share: standardised per section, jointly projected, averaged over neighbouring cells.

Everything that moves a cell later is driven by these numbers, which come from the expression measured on *both*
sections. Standardising each gene within its section removes gene-wise batch factors; one projection for both keeps the
channels comparable; averaging over neighbours trades a little sharpness for a lot less noise.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from scipy import sparse

    from inst_align.core.section import Section

POWER_ITERATIONS = 2
OVERSAMPLING = 10
MODERATE = 40
"""Power of two beyond which expression is scaled before it is standardised."""
MOST_TIES = 8
"""Cells beyond the last neighbour that may be as near as it: more than any lattice has."""


class Standardized:
    """A section's expression with every gene at mean 0 and standard deviation 1, without storing that dense matrix.

    Only products are standardised: ``z = (x - mean) / sd``, so ``z @ v = x @ (v / sd) - mean @ (v / sd)``.
    """

    def __init__(self, expression: sparse.csr_matrix | sparse.csr_array | np.ndarray, device: torch.device) -> None:
        self.shape = expression.shape
        expression = _not_extreme(expression)
        mean, square = _moments(expression)
        variance = square - mean**2
        varies = variance > 1e-8 * mean**2
        inverse_sd = np.zeros_like(mean)
        inverse_sd[varies] = variance[varies] ** -0.5
        self._x, self._xt = _to_torch(expression, device), _to_torch(expression.T, device)
        self._mean = torch.as_tensor(mean, dtype=torch.float32, device=device)
        self._inverse_sd = torch.as_tensor(inverse_sd, dtype=torch.float32, device=device)

    def matmul(self, v: torch.Tensor) -> torch.Tensor:
        """Return ``z @ v``, shape (n, k), for ``v`` of shape (g, k)."""
        scaled = v * self._inverse_sd[:, None]
        return self._x @ scaled - self._mean @ scaled

    def rmatmul(self, u: torch.Tensor) -> torch.Tensor:
        """Return ``z.T @ u``, shape (g, k), for ``u`` of shape (n, k)."""
        return (self._xt @ u - self._mean[:, None] * u.sum(dim=0)) * self._inverse_sd[:, None]


def _moments(x: sparse.csr_matrix | sparse.csr_array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of every gene, added up in float64 (the sparse ``mean`` adds up in the matrix's own type)."""
    if isinstance(x, np.ndarray):
        return x.mean(axis=0, dtype=np.float64), np.einsum("ng,ng->g", x, x, dtype=np.float64) / len(x)
    values = x.data.astype(np.float64)
    sums = [np.bincount(x.indices, weights=weights, minlength=x.shape[1]) for weights in (values, values**2)]
    return sums[0] / x.shape[0], sums[1] / x.shape[0]


def _to_torch(x: sparse.spmatrix | np.ndarray, device: torch.device) -> torch.Tensor:
    if isinstance(x, np.ndarray):
        return torch.as_tensor(np.ascontiguousarray(x, dtype=np.float32), device=device)
    csr = x.tocsr()
    with warnings.catch_warnings():  # torch announces on first use that its CSR support may still change
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.as_tensor(csr.indptr.astype(np.int64)),
            torch.as_tensor(csr.indices.astype(np.int64)),
            torch.as_tensor(csr.data.astype(np.float32)),
            size=csr.shape,
            device=device,
            check_invariants=False,
        )


def joint_axes(sections: list[Standardized], n_components: int, generator: torch.Generator) -> torch.Tensor:
    """Leading joint principal axes of several standardised sections, each section with the same total weight.

    Randomised subspace iteration :cite:p:`halko2011`, which reads the matrices through products only.

    Returns
    -------
    Loadings, shape (g, n_components), orthonormal columns, by decreasing variance.
    """
    device = sections[0]._mean.device
    n_genes = sections[0].shape[1]
    n_components = min(n_components, n_genes, sum(s.shape[0] for s in sections) - 1)
    rank = min(n_components + OVERSAMPLING, n_genes)
    axes = torch.randn(n_genes, rank, generator=generator, device=generator.device).to(device)
    for _ in range(POWER_ITERATIONS + 1):
        axes, _ = torch.linalg.qr(_covariance_product(sections, axes))
    small = axes.T @ _covariance_product(sections, axes)
    _, rotation = torch.linalg.eigh((small + small.T) / 2)
    return axes @ rotation.flip(1)[:, :n_components]


def _covariance_product(sections: list[Standardized], v: torch.Tensor) -> torch.Tensor:
    return torch.stack([s.rmatmul(s.matmul(v)) / s.shape[0] for s in sections]).sum(dim=0)


def neighbour_mean(xy: np.ndarray, values: torch.Tensor, n_neighbors: int) -> torch.Tensor:
    """Mean of ``values`` (n, k) over each cell's ``n_neighbors`` nearest cells in ``xy`` (n, 2), itself among them.

    Cells that are as near as the last of these count too.
    """
    n_neighbors = min(n_neighbors, len(xy))
    if n_neighbors < 2:
        return values
    distance, index = cKDTree(xy).query(xy, k=min(len(xy), n_neighbors + MOST_TIES))
    # On a lattice several cells are equally near; all of them count, since only rounding could choose among them.
    near = distance <= distance[:, n_neighbors - 1 : n_neighbors] * (1 + 1e-6)
    weights = torch.as_tensor(near / near.sum(axis=1, keepdims=True), dtype=values.dtype, device=values.device)
    neighbours = torch.as_tensor(index, device=values.device)
    mean = torch.zeros_like(values)
    for column, weight in zip(neighbours.T, weights.T, strict=True):  # no (n, n_neighbors, k) array
        mean += values[column] * weight[:, None]
    return mean


def joint_features(
    ref: Section,
    src: Section,
    *,
    n_components: int = 30,
    n_neighbors: int = 5,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shared features of both sections, float32 on ``device``, shapes (n_ref, k) and (n_src, k).

    Channels are ordered by variance and scaled together, so that all of them add up to a variance of 1; their relative
    sizes, which tell signal from noise, are kept. A user's own representation (``Section.is_rep``) is centred and scaled
    as a whole, but neither standardised nor projected.
    """
    home = device
    if torch.are_deterministic_algorithms_enabled():
        device = torch.device("cpu")  # the sparse products of CUDA promise no order
    if ref.is_rep:
        raw = [torch.as_tensor(values, device=device) for values in _of_moderate_size(ref.expression, src.expression)]
        scores = [values - values.mean(dim=0) for values in raw]
    else:
        sections = [Standardized(s.expression, device) for s in (ref, src)]
        axes = joint_axes(sections, n_components, generator)
        scores = [s.matmul(axes) for s in sections]
    total = torch.stack([s.square().sum(dim=1).mean() for s in scores]).mean().clamp_min(1e-12)
    ref_scores, src_scores = (s / total.sqrt() for s in scores)
    both = (ref, ref_scores), (src, src_scores)
    means = [neighbour_mean(section.unit_xy, values, n_neighbors) for section, values in both]
    return means[0].to(home), means[1].to(home)


def _not_extreme(x: sparse.csr_matrix | sparse.csr_array | np.ndarray) -> sparse.csr_matrix | np.ndarray:
    """Return expression of which sums of squares stay within float32; standardising takes the factor out again."""
    values = x if isinstance(x, np.ndarray) else x.data
    if abs(np.frexp(np.abs(values).max(initial=0))[1]) <= MODERATE:
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
