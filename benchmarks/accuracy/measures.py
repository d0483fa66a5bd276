"""What is measured of one outcome. Errors are in median neighbour distances of the reference (``spacing``)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

import inst_align as ia

if TYPE_CHECKING:
    from anndata import AnnData

    from benchmarks.accuracy.methods import Outcome
    from benchmarks.accuracy.pairs import Pair
    from inst_align.core.transforms import Transform

GRID = 100
"""Points a side of the grid over the source's bounding box on which folds are looked for, besides the cells."""
SMOOTHED_OVER = 10
INTERPOLATED_FROM = 40
BANDWIDTH_NEIGHBOUR = 6
"""The reference is interpolated by a Gaussian whose width is the median distance to this neighbour. It must not depend
on the place: a width that follows the nearest spot averages more, so correlates better, where two lattices coincide."""
N_HELD_OUT = 100
"""Held-out genes that count: those whose values agree best with the cells around, the worse of the two sections."""

Row = dict[str, float]


def measure(pair: Pair, outcome: Outcome) -> Row:
    """Return all measures of an outcome; those that do not apply are left out."""
    row = {"seconds": outcome.seconds, **_overlay(pair, outcome)}
    if pair.xy_true is not None:
        row |= true_error(pair, outcome)
    if outcome.transform is not None:
        row |= of_the_map(outcome.transform, pair.src.obsm["spatial"], ia.metrics.spacing(pair.ref.obsm["spatial"]))
    if pair.labels_ref is not None and pair.labels_src is not None:
        row |= of_labels(pair, outcome)
    if "pose_ambiguous" in outcome.report:
        row["pose_ambiguous"] = float(outcome.report["pose_ambiguous"])
    return row


def _overlay(pair: Pair, outcome: Outcome) -> Row:
    xy_ref = pair.ref.obsm["spatial"]
    return {"chamfer": ia.metrics.chamfer_distance(xy_ref, outcome.xy) / ia.metrics.chamfer_floor(xy_ref, outcome.xy)}


def true_error(pair: Pair, outcome: Outcome) -> Row:
    """How far the cells are from where they belong, and whether the pose is right.

    The pose is right when its median error is at most 1.5 times that of the best rigid map to the truth, or at most
    0.5 neighbour distances more than that.
    """
    assert pair.xy_true is not None
    unit = ia.metrics.spacing(pair.ref.obsm["spatial"])
    error = ia.metrics.registration_error(outcome.xy, pair.xy_true, unit=unit)
    row = {"median": float(np.median(error)), "p95": float(np.quantile(error, 0.95)), "max": float(error.max())}
    xy = pair.src.obsm["spatial"]
    best = ia.metrics.registration_error(best_rigid(xy, pair.xy_true), pair.xy_true, unit=unit)
    row["pose_best"] = float(np.median(best))
    pose = None if outcome.transform is None else pose_of(outcome.transform)
    if pose is not None:
        row["pose_median"] = float(np.median(ia.metrics.registration_error(pose(xy), pair.xy_true, unit=unit)))
        row["pose_right"] = float(row["pose_median"] <= max(1.5 * row["pose_best"], row["pose_best"] + 0.5))
    return row


def best_rigid(xy: np.ndarray, xy_true: np.ndarray) -> np.ndarray:
    """Return the points under the rigid map, mirrored or not, that brings them nearest to the truth (least squares)."""
    middle, middle_true = xy.mean(axis=0), xy_true.mean(axis=0)
    left, _, right = np.linalg.svd((xy - middle).T @ (xy_true - middle_true))
    return np.asarray((xy - middle) @ left @ right + middle_true)


def pose_of(transform: Transform) -> Transform | None:
    """Return the affine map that a map starts with, or None."""
    first = transform.parts[0] if isinstance(transform, ia.transforms.Compose) else transform
    return first if isinstance(first, ia.transforms.Affine) else None


def of_the_map(transform: Transform, xy: np.ndarray, unit: float) -> Row:
    """Folds on the cells and around them, and how well the map can be undone."""
    grid = np.stack(np.meshgrid(*np.linspace(xy.min(axis=0), xy.max(axis=0), GRID).T), axis=-1).reshape(-1, 2)
    try:
        back = transform.inverse()(transform(xy))
        error = np.nan_to_num(np.linalg.norm(back - xy, axis=1) / unit, nan=np.inf)
    except ia.transforms.FoldError:  # what folds has no inverse
        error = np.full(len(xy), np.inf)
    return {
        "folds": ia.metrics.fold_fraction(transform, np.concatenate([xy, grid])),
        "inverse_median": float(np.median(error)),
        "inverse_p99": float(np.quantile(error, 0.99)),
    }


def of_labels(pair: Pair, outcome: Outcome) -> Row:
    """How often nearest cells have the same label, next to the same at the true positions; for real pairs also OT."""
    assert pair.labels_ref is not None
    assert pair.labels_src is not None
    xy_ref, labels = pair.ref.obsm["spatial"], (pair.labels_ref, pair.labels_src)
    if not all((~pd.isna(values)).any() for values in labels):
        return {}
    row = {
        "nn_src": ia.metrics.nn_accuracy(xy_ref, outcome.xy, *labels, direction="src_to_ref"),
        "nn_ref": ia.metrics.nn_accuracy(xy_ref, outcome.xy, *labels, direction="ref_to_src"),
    }
    if pair.xy_true is not None:
        row["nn_src_ceiling"] = ia.metrics.nn_accuracy(xy_ref, pair.xy_true, *labels, direction="src_to_ref")
        row["nn_ref_ceiling"] = ia.metrics.nn_accuracy(xy_ref, pair.xy_true, *labels, direction="ref_to_src")
        row["nn_src_gap_se"] = _paired_error(xy_ref, outcome.xy, pair.xy_true, *labels)
    if pair.kind == "real":
        row["ot"] = ia.metrics.ot_accuracy(xy_ref, outcome.xy, *labels, rng=0)
        if pair.xy_true is not None:
            row["ot_ceiling"] = ia.metrics.ot_accuracy(xy_ref, pair.xy_true, *labels, rng=0)
    return row


def _paired_error(
    xy_ref: np.ndarray, xy: np.ndarray, xy_true: np.ndarray, labels_ref: np.ndarray, labels_src: np.ndarray
) -> float:
    """Standard error of the difference between NN accuracy (source to reference) and its ceiling, cell by cell."""
    known_ref, known_src = ~pd.isna(labels_ref), ~pd.isna(labels_src)
    tree, names = cKDTree(xy_ref[known_ref]), labels_ref[known_ref]
    found, true = (
        (names[tree.query(points[known_src])[1]] == labels_src[known_src]).astype(float) for points in (xy, xy_true)
    )
    return float((found - true).std(ddof=1) / np.sqrt(len(found)))


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
    ref = _log_expression(pair.ref, pair.logged)[:, columns_ref[shared]].toarray()
    src = _log_expression(pair.src, pair.logged)[:, columns_src[shared]].toarray()
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
