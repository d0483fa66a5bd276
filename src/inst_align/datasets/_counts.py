"""What the cells of a made-up tissue express, and the counts that are measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inst_align.datasets._tissue import CELL_TYPES, FIELDS, LAYERS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from inst_align.datasets._tissue import Tissue

PATTERNS = ("layer", "gradient", "patch", "cell type", "housekeeping")
"""What a gene follows."""
_SHARES = np.array([0.30, 0.15, 0.08, 0.22, 0.25])

_ABUNDANCE_SD = 0.9
_SIZE_SD = 0.35
_BLOCK_ENTRIES = 1 << 20
_FEW = 12.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Programme:
    """How each gene's log rate depends on a cell.

    Parameters
    ----------
    loadings
        Weights of the tissue's fields and then of the cell types (one of which is 1), float32, shape ``(k, g)``.
    base
        Log abundances, float32, shape ``(g,)``.
    pattern
        Index into :data:`PATTERNS`, shape ``(g,)``.
    """

    loadings: np.ndarray
    base: np.ndarray
    pattern: np.ndarray

    def proportions(self, fields: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Share of each gene in what each cell expresses, float32, shape ``(n, g)``; rows sum to one."""
        design = np.hstack([fields, np.eye(len(CELL_TYPES))[types]]).astype(np.float32)
        rates = design @ self.loadings
        rates += self.base
        np.exp(rates, out=rates)
        rates /= rates.sum(axis=1, keepdims=True)
        return rates


def draw_programme(n_genes: int, rng: np.random.Generator) -> Programme:
    """Draw what each gene follows and how strongly; a weak smooth background is common to all genes."""
    pattern = rng.permutation(np.searchsorted(np.cumsum(_SHARES), (np.arange(n_genes) + 0.5) / n_genes))
    names = (*FIELDS, *CELL_TYPES)
    broad = [i for i, name in enumerate(FIELDS) if name.startswith(("along", "across", "smooth"))]
    patches = [i for i, name in enumerate(FIELDS) if name.startswith("patch")]
    followed = (
        (range(len(LAYERS)), 1.2, 2.4),
        (broad, 0.4, 0.9),
        (patches, 1.5, 2.5),
        (range(len(FIELDS), len(names)), 1.5, 2.8),
    )
    loadings = np.zeros((len(names), n_genes))
    loadings[broad] = rng.normal(0.0, 0.1, (len(broad), n_genes))
    for kind, (rows, low, high) in enumerate(followed):
        genes = np.flatnonzero(pattern == kind)
        rows_of_genes = np.resize(rows, len(genes))  # in turn, so that each is followed by some gene
        loadings[rows_of_genes, genes] += rng.uniform(low, high, len(genes))
    falling = (pattern == PATTERNS.index("gradient")) & (rng.random(n_genes) < 0.5)
    loadings[:, falling] *= -1.0
    return Programme(
        loadings=loadings.astype(np.float32),
        base=rng.normal(0.0, _ABUNDANCE_SD, n_genes).astype(np.float32),
        pattern=pattern,
    )


def draw_batch_factors(n_genes: int, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Log-normal factors of the genes' rates, shape ``(g,)``."""
    return np.exp(sd * rng.normal(size=n_genes))


def draw_counts(
    xy: np.ndarray,
    tissue: Tissue,
    programme: Programme,
    *,
    depth: float,
    factors: np.ndarray,
    rng: np.random.Generator,
) -> tuple[csr_matrix, np.ndarray]:
    """Measure cells at ``xy`` ``(n, 2)``, block by block: counts ``(n, g)``, float32, and cell types ``(n,)``.

    Rates are ``depth`` times the cell's size times the gene's share times the gene's factor; the factors are scaled by
    one number, so that they leave the section's mean depth as it is.
    """
    from scipy import sparse

    n_genes = len(factors)
    rows = max(64, _BLOCK_ENTRIES // n_genes)
    some = xy[:: max(1, len(xy) // rows)]
    mean_share = programme.proportions(tissue.fields(some), tissue.sample_types(some, rng)).mean(axis=0)
    factors = (factors / (mean_share @ factors)).astype(np.float32)
    blocks, types = [], []
    for start in range(0, len(xy), rows):
        block = xy[start : start + rows]
        types.append(tissue.sample_types(block, rng))
        size = depth * np.exp(_SIZE_SD * rng.normal(size=(len(block), 1)))
        rates = programme.proportions(tissue.fields(block), types[-1])
        rates *= factors
        rates *= size.astype(np.float32)
        blocks.append(_draw_poisson(rates, rng))
    return sparse.vstack(blocks, format="csr"), np.concatenate(types)


def _draw_poisson(rates: np.ndarray, rng: np.random.Generator) -> csr_matrix:
    """Poisson counts for a dense block of rates ``(n, g)``.

    Most entries are zero, which one uniform number decides; the rest are found by inverting the distribution function,
    all at once, for as many steps as the largest count. Rates for which that would take long go to numpy.
    """
    from scipy import sparse

    uniform = rng.random(rates.shape, dtype=np.float32)
    positive = uniform > np.exp(-rates)
    where = np.flatnonzero(positive)
    rate = rates.ravel()[where].astype(np.float64)
    counts = np.ones(len(where), dtype=np.float32)
    many = rate >= _FEW
    counts[many] = rng.poisson(rate[many])
    pending = np.flatnonzero(~many)
    rate = rate[pending]
    probability = np.exp(-rate)
    excess = uniform.ravel()[where[pending]] - probability
    count = 0
    while len(pending):
        count += 1
        counts[pending] = count
        probability *= rate / count
        excess -= probability
        further = excess > 0
        pending, rate, excess, probability = pending[further], rate[further], excess[further], probability[further]
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(positive, axis=1))])
    indices = (where % rates.shape[1]).astype(np.int32)
    block = sparse.csr_matrix((counts, indices, indptr), shape=rates.shape)
    block.eliminate_zeros()
    return block
