"""What can be said of an alignment without knowing the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from inst_align.core.sampling import some_rows

if TYPE_CHECKING:
    import torch

    from inst_align.core.section import Section
    from inst_align.core.transforms import Affine, Compose

AMBIGUOUS = 0.95
"""A runner-up pose whose score reaches this share of the winner's makes the pose ambiguous, where the cells are not asked."""
MIRRORED = 1.05
"""A mirrored pose whose score exceeds the winner's by this factor is told of, where the cells are not asked."""
NON_RIGID, RIGID_SUFFICIENT, UNTESTED = "non-rigid", "rigid sufficient", "untested"
POOR, AMBIGUOUS_POSE = "poor", "ambiguous pose"
"""Verdicts."""
N_NEIGHBORS = 8
MAX_CELLS = 10_000
"""Cells of the source that are asked what they agree with, or lie on; a share of these is right to a per cent."""


def interpolate(
    xy_cells: np.ndarray, features: torch.Tensor, xy: np.ndarray, *, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of cells' features around given places, with Gaussian weights over the nearest cells.

    The weights have one width everywhere: a width that followed the distance to the nearest cell would smooth more
    where two lattices coincide, and so reward that.

    Parameters
    ----------
    xy_cells, features
        Cells, shapes (n, 2) and (n, k).
    xy
        Places, shape (m, 2).
    width
        Standard deviation of the weights.

    Returns
    -------
    Values, float64, shape (m, k), and which places have a cell within three widths, bool, shape (m,).
    """
    index, weight, covered = weights_around(cKDTree(xy_cells), xy, width)
    values = features.cpu().numpy()
    mean = np.zeros((len(xy), values.shape[1]))
    for column, share in zip(index.T, weight.T, strict=True):  # no (m, n_neighbors, k) array
        mean += values[column] * share[:, None]
    return mean, covered


def weights_around(tree: cKDTree, xy: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells nearest to places (m, 2), their Gaussian weights, and which places have a cell within three widths.

    Shapes (m, q), (m, q) and (m,); the weights of a place add up to one.
    """
    distance, index = tree.query(xy, k=np.arange(1, min(N_NEIGHBORS, tree.n) + 1))
    # relative to the nearest cell, lest all weights of a remote place vanish
    weight = np.exp(-0.5 * (distance**2 - distance[:, :1] ** 2) / width**2)
    weight /= weight.sum(axis=1, keepdims=True)
    return index, weight, distance[:, 0] <= 3 * width


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """One correlation of two arrays of channels (p, k), each of mean zero, so that a channel counts by its variance."""
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()).clip(1e-12))


def feature_correlation(
    xy_ref: np.ndarray, xy_src: np.ndarray, features_ref: torch.Tensor, features_src: torch.Tensor, *, width: float
) -> float:
    """Correlation of the source's features with the reference's around the place it is put at.

    Source cells without a reference cell within three widths do not count. One correlation over all cells and channels,
    so that a channel counts by its variance.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in one frame, shapes (n, 2) and (m, 2).
    features_ref, features_src
        Shared features, shapes (n, k) and (m, k).
    width
        Standard deviation of the weights.
    """
    asked = some_rows(len(xy_src), MAX_CELLS)
    fixed, covered = interpolate(xy_ref, features_ref, xy_src[asked], width=width)
    if covered.sum() < 3:
        return float("nan")
    fixed = fixed[covered]
    moving = features_src[asked].cpu().numpy()[covered].astype(np.float64)
    fixed -= fixed.mean(axis=0)
    moving -= moving.mean(axis=0)
    return correlation(fixed, moving)


def map_report(ref: Section, src: Section, affine: Affine, transform: Affine | Compose) -> dict[str, Any]:
    """How far the non-rigid part moves the cells, how it changes areas, and whether it folds.

    Distances are in median neighbour distances of the reference, areas relative to the affine part. The overlap is that of
    ``MAX_CELLS`` cells of a larger source.
    """
    rigid, moved = affine(src.xy), transform(src.xy)
    distance = np.linalg.norm(moved - rigid, axis=1) / ref.spacing
    area = np.linalg.det(transform.jacobian(src.xy)) / np.linalg.det(affine.matrix[:2, :2])
    nearest, _ = cKDTree(ref.xy).query(moved[some_rows(len(moved), MAX_CELLS)])
    return {
        "spacing_reference": ref.spacing,
        "spacing_source": src.spacing,
        "displacement_median": float(np.median(distance)),
        "displacement_max": float(distance.max()),
        "area_change_min": float(area.min()),
        "area_change_max": float(area.max()),
        "fold_fraction": float((area <= 0).mean()),
        "overlap": float((nearest <= 3 * max(ref.spacing, src.spacing)).mean()),
    }
