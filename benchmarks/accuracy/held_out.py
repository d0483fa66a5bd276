"""Correlation of genes that the alignment has not seen: what there is to judge a real pair by, besides labels."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from anndata import AnnData

    from benchmarks.accuracy.pairs import Pair

SMOOTHED_OVER = 10
INTERPOLATED_FROM = 40
BANDWIDTH_NEIGHBOUR = 6
"""The reference is interpolated by a Gaussian whose width is the median distance to this neighbour. It must not depend
on the place: a width that follows the nearest spot averages more, so correlates better, where two lattices coincide."""
N_HELD_OUT = 100
"""Held-out genes that count: those whose values agree best with the cells around, the worse of the two sections."""


def split_genes(genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split names of genes into two halves, always the same way, whatever else is in the panel."""
    odd = np.array([zlib.crc32(str(gene).encode()) % 2 == 1 for gene in genes], dtype=bool)
    return genes[~odd], genes[odd]


def held_out_correlation(pair: Pair, xy: np.ndarray, genes: np.ndarray) -> float:
    """Correlation, over the source's cells, of genes that the alignment has not seen; mean over the genes.

    The source's log-expression is averaged over each cell's nearest cells in its own section, the reference's
    interpolated at the place where the cell was put. All cells of the source count, so nothing is won by moving cells
    off the reference; and which genes count is decided in each section by itself.
    """
    xy_ref, own = pair.ref.obsm["spatial"], pair.src.obsm["spatial"]
    columns_ref, columns_src = (adata.var_names.get_indexer(genes) for adata in (pair.ref, pair.src))
    shared = (columns_ref >= 0) & (columns_src >= 0)
    ref = _log_expression(pair.ref, pair.logged[0])[:, columns_ref[shared]].toarray()
    src = _log_expression(pair.src, pair.logged[1])[:, columns_src[shared]].toarray()
    signal = np.minimum(_spatial_signal(ref, xy_ref), _spatial_signal(src, own))
    best = np.argsort(-signal, kind="stable")[:N_HELD_OUT]
    measured = src[:, best][cKDTree(own).query(own, k=min(SMOOTHED_OVER, len(own)))[1]].mean(axis=1)
    return float(np.mean(_correlation(measured, _interpolated(ref[:, best], xy_ref, xy))))


def _spatial_signal(values: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Correlation of each gene with its own mean over the cells around, shape ``(g,)``."""
    _, near = cKDTree(xy).query(xy, k=min(SMOOTHED_OVER + 1, len(xy)))
    around = sum(values[column] for column in near[:, 1:].T)
    return _correlation(values, around / (near.shape[1] - 1))


def _interpolated(values: np.ndarray, xy_ref: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the reference's values, smoothed alike everywhere, at other places."""
    tree = cKDTree(xy_ref)
    width = np.median(tree.query(xy_ref, k=[min(BANDWIDTH_NEIGHBOUR + 1, len(xy_ref))])[0])
    distance, near = tree.query(xy, k=min(INTERPOLATED_FROM, len(xy_ref)))
    weight = np.exp(-0.5 * (distance**2 - distance[:, :1] ** 2) / width**2)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(sum(weight[:, [k]] * values[near[:, k]] for k in range(near.shape[1])))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation column by column; 0 where a column is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.asarray((a * b).sum(axis=0) / np.maximum(norm, 1e-12))


def _log_expression(adata: AnnData, logged: bool) -> sp.csr_matrix:  # noqa: FBT001
    values = sp.csr_matrix(adata.X, dtype=np.float64)
    if logged:
        return values
    total = np.asarray(values.sum(axis=1)).ravel()
    scale = np.median(total[total > 0]) / np.where(total > 0, total, 1.0)
    return sp.csr_matrix(sp.diags(scale) @ values).log1p()
