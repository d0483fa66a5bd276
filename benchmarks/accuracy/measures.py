"""What is measured of one outcome. Errors are in median neighbour distances of the reference (``spacing``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, cKDTree

import inst_align as ia

if TYPE_CHECKING:
    from benchmarks.accuracy.methods import Outcome
    from benchmarks.accuracy.pairs import Pair
    from inst_align.core.transforms import Transform

GRID = 100
"""Points a side of the grid over the source's bounding box on which folds are looked for, besides the cells."""
SMALL = 3.0
"""Triangles count as small whose sides are at most this many times the median side."""

WITH_OT = ("real", "paper")
"""Kinds of pairs for which optimal transport is worth its time: those without a known truth."""

Row = dict[str, float]


def measure(pair: Pair, outcome: Outcome) -> Row:
    """Return all measures of an outcome; those that do not apply are left out."""
    row = {"seconds": outcome.seconds, **of_the_overlay(pair, outcome.xy)}
    if pair.xy_true is not None:
        row |= true_error(pair, outcome)
    if outcome.transform is not None:
        row |= of_the_map(outcome.transform, pair.src.obsm["spatial"], ia.metrics.spacing(pair.ref.obsm["spatial"]))
    if pair.labels_ref is not None and pair.labels_src is not None:
        row |= of_labels(pair, outcome)
    if "pose_ambiguous" in outcome.report:
        row["pose_ambiguous"] = float(outcome.report["pose_ambiguous"])
    if "heldout_gain" in outcome.report:
        row["bent"] = float(outcome.report["displacement_max"] > 0)
        row["gain_in_errors"] = outcome.report["heldout_gain"] / outcome.report["heldout_gain_standard_error"]
    return row


def of_the_overlay(pair: Pair, xy: np.ndarray) -> Row:
    """Chamfer distance, and the share of small triangles of neighbouring cells that were turned over.

    Against most of them, that is: a mirrored section is not a folded one.
    """
    xy_ref, own = pair.ref.obsm["spatial"], pair.src.obsm["spatial"]
    chamfer, floor = ia.metrics.chamfer_distance(xy_ref, xy), ia.metrics.chamfer_floor(xy_ref, xy)
    positions, first = np.unique(own, axis=0, return_index=True)
    corners = Delaunay(positions).simplices
    sides = np.linalg.norm(positions[corners] - positions[np.roll(corners, 1, axis=1)], axis=2)
    small = corners[sides.max(axis=1) <= SMALL * np.median(sides)]
    turned = _orientation(xy[first], small) * _orientation(positions, small)
    return {
        "chamfer": chamfer / floor,
        "chamfer_units": chamfer,
        "flipped": float((turned * np.sign(np.median(turned)) < 0).mean()),
    }


def _orientation(xy: np.ndarray, corners: np.ndarray) -> np.ndarray:
    a, b, c = (xy[corners[:, k]] for k in range(3))
    return np.asarray(np.sign((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]))


def true_error(pair: Pair, outcome: Outcome) -> Row:
    """How far the cells are from where they belong, and whether the pose is right.

    Cells whose place is missing of the reference are told of apart, and count for nothing else. The pose is right when
    its median error is at most 1.5 times that of the best rigid map to the truth, or at most 0.5 neighbour distances
    more than that.
    """
    assert pair.xy_true is not None
    unit = ia.metrics.spacing(pair.ref.obsm["spatial"])
    counts = np.ones(pair.src.n_obs, dtype=bool) if pair.matched is None else pair.matched
    xy, true = pair.src.obsm["spatial"][counts], pair.xy_true[counts]
    error = ia.metrics.registration_error(outcome.xy, pair.xy_true, unit=unit)
    found, lost = error[counts], error[~counts]
    row = {"median": float(np.median(found)), "p95": float(np.quantile(found, 0.95)), "max": float(found.max())}
    if len(lost):
        row["median_lost"] = float(np.median(lost))
    best = ia.metrics.registration_error(best_rigid(xy, true), true, unit=unit)
    row["pose_best"] = float(np.median(best))
    posed = outcome.xy_posed
    if posed is not None:
        row["pose_median"] = float(np.median(ia.metrics.registration_error(posed[counts], true, unit=unit)))
        row["pose_right"] = float(row["pose_median"] <= max(1.5 * row["pose_best"], row["pose_best"] + 0.5))
    return row


def best_rigid(xy: np.ndarray, xy_true: np.ndarray) -> np.ndarray:
    """Return the points under the rigid map, mirrored or not, that brings them nearest to the truth (least squares)."""
    middle, middle_true = xy.mean(axis=0), xy_true.mean(axis=0)
    left, _, right = np.linalg.svd((xy - middle).T @ (xy_true - middle_true))
    return np.asarray((xy - middle) @ left @ right + middle_true)


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
        "inverse_p99": float(np.quantile(error, 0.99, method="higher")),  # infinite where the map folds
    }


def symmetry(pair: Pair, forward: Outcome, backward: Outcome) -> Row:
    """How far a cell ends from where it was, when one fit takes it to the reference and the fit the other way back.

    The unit is the source's neighbour distance. A method that tells only where cells go is interpolated between these;
    cells that it puts beyond all of the reference's do not count then.

    Parameters
    ----------
    pair
        The pair.
    forward
        What a method found.
    backward
        What it found with the sections in each other's place: where the reference's cells belong in the source.
    """
    own = pair.src.obsm["spatial"]
    if backward.transform is not None:
        back = backward.transform(forward.xy)
    else:
        back = LinearNDInterpolator(pair.ref.obsm["spatial"], backward.xy)(forward.xy)
    error = np.linalg.norm(back - own, axis=1) / ia.metrics.spacing(own)
    if np.isnan(error).all():
        return {"symmetry_median": np.inf, "symmetry_p95": np.inf}
    return {"symmetry_median": float(np.nanmedian(error)), "symmetry_p95": float(np.nanquantile(error, 0.95))}


def of_labels(pair: Pair, outcome: Outcome) -> Row:
    """How often nearest cells have the same label, next to the same at the true positions; for pairs without a truth also OT."""
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
    if pair.kind in WITH_OT:
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
