"""Pairs with known truth, made from one real section: two samples of it, the second one warped, harmed and moved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from inst_align.datasets._placement import Warp

if TYPE_CHECKING:
    from collections.abc import Sequence

N_BUMPS = 12
BUMP_SCALE = 0.25
MIN_DET = 0.3
MARGIN = 0.15
TRIES = 200
MAX_GENES = 2000
JITTER = 0.3
"""Largest shift of a spot's true position, in spot pitches: two sections never share one lattice."""
LATTICE = 0.15
"""Neighbour distances that vary by less than this, relative to their mean, are those of spots on a lattice."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """What is done to the source. Lengths are shares of the extent, the longer side of the section's bounding box.

    Parameters
    ----------
    warp
        Largest displacement of the smooth warp.
    gene_factors
        Standard deviation of the logarithm of gene-wise factors.
    kept_counts
        Share of the counts that are left.
    mirrored
        Whether the source is turned over.
    crop
        Share of the cells that are left, on one side of a random line.
    wedge
        Angle in degrees, seen from the middle, of a sector that is missing.
    torn
        Share of the cells, beyond a random line, that form a piece torn off and laid down elsewhere.
    n_genes
        Genes that the source's panel has; None for all.
    """

    warp: float = 0.10
    gene_factors: float = 0.0
    kept_counts: float = 1.0
    mirrored: bool = False
    crop: float = 1.0
    wedge: float = 0.0
    torn: float = 0.0
    n_genes: int | None = None


LEVELS = {
    "rigid": Level(warp=0.0),
    "easy": Level(warp=0.05),
    "medium": Level(),
    "hard": Level(warp=0.15),
    "batch": Level(gene_factors=0.5, kept_counts=0.4),
    "partial": Level(crop=0.6),
    "mirror": Level(mirrored=True),
    "crop30": Level(crop=0.3),
    "wedge": Level(wedge=60.0),
    "torn": Level(torn=0.25),
    "thin20": Level(kept_counts=0.2),
    "genes100": Level(n_genes=100),
}
TEAR_GAP, TEAR_SLIDE = 0.10, 0.05
PANEL_FROM = 500
"""A small panel is drawn from this many of the most detected genes: nobody designs one of genes that are not seen."""


def make_pair(
    section: AnnData, level: str, *, inverted: bool = False, label_key: str | None = None, rng: np.random.Generator
) -> tuple[AnnData, AnnData]:
    """Make a pair with known truth from one section.

    Spots on a lattice that hold whole counts: both sections have all spots, each count is split at random between the
    two, and the source's spots are moved a little off the lattice. All else: a random half of the cells is the
    reference, the rest the source.

    Parameters
    ----------
    section
        Counts in X (whole or not), coordinates in ``obsm["spatial"]``.
    level
        Key of :data:`LEVELS`.
    inverted
        Whether the map from source to reference is the smooth field itself, rather than the inverse of one.
    label_key
        Column of obs that is kept, as "label", for reports.
    rng
        Source of all randomness.

    Returns
    -------
    Reference and source. The reference keeps the section's frame; ``obsm["spatial_true"]`` of the source says where
    each of its cells belongs there, and ``uns["truth"]`` (JSON) what was done.
    """
    if level not in LEVELS:
        raise ValueError(f"`level={level!r}` is not known; available: {sorted(LEVELS)}.")
    spec = LEVELS[level]
    whole = _plain(section, label_key)
    is_lattice = _on_lattice(whole.obsm["spatial"]) and _is_whole(whole.X)
    ref, src = (_split_counts if is_lattice else _split_cells)(whole, rng)
    true = src.obsm["spatial"]
    extent = float(np.ptp(whole.obsm["spatial"], axis=0).max())

    warp = _draw_warp(whole.obsm["spatial"], spec.warp * extent, extent, rng)
    xy = true.copy() if warp is None else solve(warp, true) if inverted else warp(true)
    kept, xy = _harm(true, xy, spec, extent, rng)
    matrix, pose = _draw_pose(xy, extent, mirrored=spec.mirrored, rng=rng)
    src.obsm["spatial_true"] = true
    src.obsm["spatial"] = xy @ matrix[:, :2].T + matrix[:, 2]
    src = _thinned(src[kept].copy(), spec, rng)
    described = {"level": level, "amp": spec.warp, "inverted": inverted, "mirrored": spec.mirrored, **pose}
    src.uns["truth"] = json.dumps(described)
    return ref, src


def solve(warp: Warp, xy: np.ndarray) -> np.ndarray:
    """Return the points that a warp moves to ``xy``, shape ``(n, 2)``, by Newton's method."""
    found: np.ndarray = xy - warp.displacement(xy)
    for _ in range(30):
        residual = xy - warp(found)
        if np.abs(residual).max() <= 1e-10 * warp.scale:
            return found
        found = found + np.linalg.solve(warp.jacobian(found), residual[:, :, None])[:, :, 0]
    raise RuntimeError(f"A warp was not inverted: {np.abs(residual).max():.2g} left after 30 steps.")


def _plain(section: AnnData, label_key: str | None) -> AnnData:
    """Return expression of the most detected genes, coordinates and labels, as a copy."""
    counts = sp.csr_matrix(section.X, dtype=np.float32)
    detected = counts.getnnz(axis=0)
    genes = np.sort(np.argsort(-detected, kind="stable")[: min(MAX_GENES, int((detected > 0).sum()))])
    adata = AnnData(counts[:, genes])
    adata.obs_names, adata.var_names = section.obs_names.copy(), section.var_names[genes]
    adata.obsm["spatial"] = np.array(section.obsm["spatial"], dtype=np.float64)
    if label_key is not None:
        adata.obs["label"] = section.obs[label_key].to_numpy()
    return adata


def _on_lattice(xy: np.ndarray) -> bool:
    distance = _neighbour_distance(xy)
    return bool(distance.std() < LATTICE * distance.mean())


def _neighbour_distance(xy: np.ndarray) -> np.ndarray:
    positions = np.unique(xy, axis=0)
    return np.asarray(cKDTree(positions).query(positions, k=2)[0][:, 1])


def _is_whole(counts: sp.csr_matrix) -> bool:
    return bool((counts.data == np.rint(counts.data)).all())


def _split_cells(whole: AnnData, rng: np.random.Generator) -> tuple[AnnData, AnnData]:
    order = rng.permutation(whole.n_obs)
    return whole[np.sort(order[: whole.n_obs // 2])].copy(), whole[order[whole.n_obs // 2 :]].copy()


def _split_counts(whole: AnnData, rng: np.random.Generator) -> tuple[AnnData, AnnData]:
    ref, src = whole.copy(), whole.copy()
    ref.X.data = rng.binomial(whole.X.data.astype(np.int64), 0.5).astype(np.float32)
    src.X.data = whole.X.data - ref.X.data
    pitch = np.median(_neighbour_distance(whole.obsm["spatial"]))
    radius, angle = JITTER * pitch * np.sqrt(rng.uniform(size=whole.n_obs)), rng.uniform(0, 2 * np.pi, whole.n_obs)
    src.obsm["spatial"] = src.obsm["spatial"] + (radius * np.array([np.cos(angle), np.sin(angle)])).T
    for adata in (ref, src):
        adata.X.eliminate_zeros()
    return ref, src[rng.permutation(src.n_obs)].copy()


def _draw_warp(xy: np.ndarray, size: float, extent: float, rng: np.random.Generator) -> Warp | None:
    """Draw bumps until one set, scaled to the largest displacement ``size``, is far from folding on and around xy."""
    if size == 0:
        return None
    low, high = xy.min(axis=0) - MARGIN * extent, xy.max(axis=0) + MARGIN * extent
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 60).T), axis=-1).reshape(-1, 2)
    for _ in range(TRIES):
        centers = xy[rng.choice(len(xy), N_BUMPS)]
        raw = Warp(centers=centers, amplitudes=rng.normal(size=(N_BUMPS, 2)), scale=BUMP_SCALE * extent)
        largest = np.hypot(*raw.displacement(xy).T).max()
        warp = Warp(centers=centers, amplitudes=raw.amplitudes * (size / largest), scale=raw.scale)
        if min(np.linalg.det(warp.jacobian(points)).min() for points in (xy, grid)) > MIN_DET:
            return warp
    raise RuntimeError(f"None of {TRIES} random warps of size {size:.3g} was free of folds.")


def _harm(
    true: np.ndarray, xy: np.ndarray, spec: Level, extent: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells are left, bool ``(n,)``, and the coordinates once a piece was torn off."""
    kept = np.ones(len(true), dtype=bool)
    direction = _unit_vector(rng.uniform(0, 2 * np.pi))
    along = true @ direction
    if spec.crop < 1:
        kept &= along <= np.quantile(along, spec.crop)
    if spec.wedge:
        away = true - true.mean(axis=0)
        cosine = (away @ direction) / np.linalg.norm(away, axis=1).clip(1e-12)
        kept &= cosine < np.cos(np.deg2rad(spec.wedge / 2))
    if spec.torn:
        piece = along > np.quantile(along, 1 - spec.torn)
        sideways = np.array([-direction[1], direction[0]])
        xy = xy + piece[:, None] * extent * (TEAR_GAP * direction + TEAR_SLIDE * sideways)
    return kept, xy


def _draw_pose(
    xy: np.ndarray, extent: float, *, mirrored: bool, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw a turn about the middle and a shift of up to one extent, as a ``(2, 3)`` matrix and in words."""
    degrees = rng.uniform(0, 360)
    shift = extent * rng.uniform() * _unit_vector(rng.uniform(0, 2 * np.pi))
    return rigid_matrix(xy, degrees, shift, mirrored=mirrored), {"angle_deg": degrees, "shift": shift.tolist()}


def rigid_matrix(xy: np.ndarray, degrees: float, shift: Sequence[float] | np.ndarray, *, mirrored: bool) -> np.ndarray:
    """Return the ``(2, 3)`` matrix that turns points about their middle (x mirrored first) and then shifts them."""
    cos, sin = _unit_vector(np.deg2rad(degrees))
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = (xy.min(axis=0) + xy.max(axis=0)) / 2
    return np.column_stack([turn, middle - turn @ middle + np.asarray(shift)])


def _unit_vector(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _thinned(src: AnnData, spec: Level, rng: np.random.Generator) -> AnnData:
    """Lose counts, evenly and by gene, and genes. Values that are not whole are multiples of their cell's smallest."""
    if spec.n_genes is not None and spec.n_genes < src.n_vars:
        by_detection = np.argsort(-src.X.getnnz(axis=0), kind="stable")[:PANEL_FROM]
        src = src[:, np.sort(rng.permutation(by_detection)[: spec.n_genes])].copy()
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
    if _is_whole(values):
        return np.ones(values.nnz)
    smallest = np.full(values.shape[0], np.inf)
    cell = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    np.minimum.at(smallest, cell, values.data)
    return np.asarray(smallest[cell])
