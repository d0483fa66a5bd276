"""What is done to sections of a made pair: tissue goes missing or is torn, counts and genes are lost, cells are binned.

What only some levels draw comes from generators spawned off the pair's: so pairs of one seed differ in their level alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from benchmarks.accuracy.levels import PANEL_FROM, TEAR_GAP, TEAR_SLIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.accuracy.levels import Level, Missing

    Region = Callable[[np.ndarray], np.ndarray]
    """Coordinates (n, 2) to bool (n,): which of the points lie in it."""

LOG_TOTAL = 1e4
NEIGHBOURS = 8


def missing_region(missing: Missing, xy: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> Region:
    """Return the region of a section with cells at ``xy`` that is not there; shares hold exactly for these cells."""
    along = np.quantile(xy @ direction, missing.crop) if missing.crop < 1 else np.inf
    middle, cosine = xy.mean(axis=0), np.cos(np.deg2rad(missing.wedge / 2))
    center, radius = middle, -1.0
    if missing.hole:
        inner = np.argsort(np.linalg.norm(xy - middle, axis=1), kind="stable")[: -(-len(xy) // 4)]
        center = xy[rng.spawn(1)[0].choice(inner)]
        radius = np.quantile(np.linalg.norm(xy - center, axis=1), missing.hole)

    def region(points: np.ndarray) -> np.ndarray:
        away = points - middle
        in_wedge = (away @ direction) / np.linalg.norm(away, axis=1).clip(1e-12) >= cosine
        in_hole = np.linalg.norm(points - center, axis=1) <= radius
        return np.asarray((points @ direction > along) | (in_wedge & (missing.wedge > 0)) | in_hole)

    return region


def torn(true: np.ndarray, xy: np.ndarray, share: float, direction: np.ndarray, extent: float) -> np.ndarray:
    """Return ``xy`` with the share of the points that lies farthest in a direction, truly, laid down elsewhere."""
    if not share:
        return xy
    along = true @ direction
    sideways = np.array([-direction[1], direction[0]])
    step = extent * (TEAR_GAP * direction + TEAR_SLIDE * sideways)
    return np.asarray(xy + (along > np.quantile(along, 1 - share))[:, None] * step)


def panels(ref: AnnData, src: AnnData, spec: Level, rng: np.random.Generator) -> tuple[AnnData, AnnData]:
    """Leave each section the genes of its panel, in the order that they were in."""
    if spec.n_genes is None:
        return ref, src
    drawn = rng.permutation(np.argsort(-src.X.getnnz(axis=0), kind="stable")[:PANEL_FROM])
    if spec.n_shared is None:
        return ref, src[:, np.sort(drawn[: spec.n_genes])].copy()
    own = min(spec.n_genes - spec.n_shared, (len(drawn) - spec.n_shared) // 2)
    shared, of_src, of_ref = np.split(drawn, [spec.n_shared, spec.n_shared + own])
    return tuple(
        adata[:, np.sort(np.concatenate([shared, genes[:own]]))].copy()
        for adata, genes in ((ref, of_ref), (src, of_src))
    )


def thinned(src: AnnData, spec: Level, rng: np.random.Generator) -> AnnData:
    """Lose counts, evenly and by gene. Values that are not whole are multiples of their cell's smallest."""
    factors = np.exp(rng.normal(0, spec.gene_factors, src.n_vars)) if spec.gene_factors else np.ones(src.n_vars)
    share = np.minimum(1.0, spec.kept_counts * factors)
    if (share < 1).any():
        values = src.X
        counts = np.maximum(1, np.rint(values.data / _unit(values))).astype(np.int64)
        values.data = (values.data / counts * rng.binomial(counts, share[values.indices])).astype(np.float32)
        values.eliminate_zeros()
        src.X = values
    return src


def _unit(values: sp.csr_matrix) -> np.ndarray:
    """Return for each stored value what one count of its cell is worth."""
    if is_whole(values):
        return np.ones(values.nnz)
    smallest = np.full(values.shape[0], np.inf)
    cell = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    np.minimum.at(smallest, cell, values.data)
    return np.asarray(smallest[cell])


def is_whole(counts: sp.csr_matrix) -> bool:
    """Whether all values are whole numbers."""
    return bool((counts.data == np.rint(counts.data)).all())


def log_normalised(adata: AnnData) -> AnnData:
    """Scale each cell to one total, take logarithms, and say so in ``uns["log1p"]``."""
    total = np.asarray(adata.X.sum(axis=1, dtype=np.float64)).ravel()
    scaled = sp.csr_matrix(sp.diags(LOG_TOTAL / np.where(total > 0, total, 1.0)) @ adata.X)
    adata.X = scaled.log1p().astype(np.float32)
    adata.uns["log1p"] = {"base": None}
    return adata


def binned(adata: AnnData, xy: np.ndarray, pitch: float, rng: np.random.Generator) -> tuple[AnnData, np.ndarray]:
    """Bin cells to spots on a hexagonal lattice that leaves no gaps.

    Parameters
    ----------
    adata
        Counts in X; "label" in obs, if there is one, becomes the most frequent of a spot's cells.
    xy
        Where its cells lie when they are binned, shape ``(n, 2)``.
    pitch
        Distance of the spots, in mean distances of the cells.
    rng
        For the place of the lattice.

    Returns
    -------
    The spots that have cells, and where they lie, shape ``(m, 2)``.
    """
    centers = _hexagons(xy, pitch * _cell_distance(xy), rng)
    places, spot = np.unique(centers, axis=0, return_inverse=True)
    members = sp.csr_matrix((np.ones(len(xy)), (spot.ravel(), np.arange(len(xy)))), shape=(len(places), len(xy)))
    obs = pd.DataFrame(index=[f"spot_{i}" for i in range(len(places))])
    if "label" in adata.obs:
        obs["label"] = _most_frequent(adata.obs["label"].to_numpy(dtype=object), members)
    spots = AnnData(sp.csr_matrix(members @ adata.X).astype(np.float32), obs=obs, var=adata.var.copy())
    return spots, places


def _cell_distance(xy: np.ndarray) -> float:
    """Square root of the area that a cell has for itself, from the median distance to some neighbour."""
    positions = np.unique(xy, axis=0)
    k = min(NEIGHBOURS, len(positions) - 1)
    distance, _ = cKDTree(positions).query(positions, k=[k + 1])
    return float(np.median(distance) * np.sqrt(np.pi / k))


def _hexagons(xy: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Return the middle of the hexagon that each point lies in: the nearer one of two interleaved rectangular lattices."""
    sides = pitch * np.array([1.0, np.sqrt(3)])
    origin = rng.spawn(1)[0].uniform(size=2) * sides
    candidates = np.stack([np.rint((xy - start) / sides) * sides + start for start in (origin, origin + sides / 2)])
    nearer = np.linalg.norm(candidates - xy, axis=2).argmin(axis=0)
    return np.asarray(candidates[nearer, np.arange(len(xy))].round(9))


def _most_frequent(labels: np.ndarray, members: sp.csr_matrix) -> np.ndarray:
    codes, names = pd.factorize(labels)
    known = codes >= 0
    votes = members[:, known] @ np.eye(len(names))[codes[known]]
    found = np.asarray(names, dtype=object)[votes.argmax(axis=1)]
    found[votes.sum(axis=1) == 0] = np.nan
    return found
