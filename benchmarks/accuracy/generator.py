"""Pairs with known truth, made from one real section: two samples of it, the second one warped, harmed and moved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from benchmarks.accuracy.damage import binned, is_whole, log_normalised, missing_region, panels, thinned, torn
from benchmarks.accuracy.levels import LEVELS
from inst_align.datasets._placement import Warp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.accuracy.levels import Level

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
        Key of :data:`benchmarks.accuracy.levels.LEVELS`.
    inverted
        Whether the map from source to reference is the smooth field itself, rather than the inverse of one.
    label_key
        Column of obs that is kept, as "label", for reports.
    rng
        Source of all randomness.

    Returns
    -------
    Reference and source. The reference keeps the section's frame; ``obsm["spatial_true"]`` of the source says where
    each of its cells belongs there, ``obs["matched"]`` whether the reference has tissue at that place, and
    ``uns["truth"]`` (JSON) what was done.
    """
    if level not in LEVELS:
        raise ValueError(f"`level={level!r}` is not known; available: {sorted(LEVELS)}.")
    spec = LEVELS[level]
    whole = _plain(section, label_key)
    is_lattice = _on_lattice(whole.obsm["spatial"]) and is_whole(whole.X)
    ref, src = (_split_counts if is_lattice else _split_cells)(whole, rng)
    extent = float(np.ptp(whole.obsm["spatial"], axis=0).max())
    warp = _draw_warp(whole.obsm["spatial"], spec.warp * extent, extent, rng)

    direction = _direction(rng)
    src, true, xy = _damaged(src, spec, _Maps(warp, inverted), direction, extent, rng)
    matrix, pose = _draw_pose(xy, extent, mirrored=spec.mirrored, rng=rng)
    ref, src = panels(ref, src, spec, rng)
    src = thinned(src, spec, rng)
    if spec.logged:
        src = log_normalised(src)
    gone = missing_region(spec.ref, ref.obsm["spatial"], -direction, rng)
    ref = ref[~gone(ref.obsm["spatial"])].copy()
    if spec.ref_pitch:
        ref, ref.obsm["spatial"] = binned(ref, ref.obsm["spatial"], spec.ref_pitch, rng)

    src.obs["matched"] = ~gone(true)
    src.obsm["spatial_true"] = true
    src.obsm["spatial"] = xy @ matrix[:, :2].T + matrix[:, 2]
    described = {"level": level, "amp": spec.warp, "inverted": inverted, "mirrored": spec.mirrored, **pose}
    src.uns["truth"] = json.dumps(described)
    return ref, src


@dataclass(frozen=True)
class _Maps:
    """Between where the source's cells belong and where the warp puts them."""

    warp: Warp | None
    inverted: bool

    def to_src(self, true: np.ndarray) -> np.ndarray:
        return self._move(true, forward=not self.inverted)

    def to_true(self, xy: np.ndarray) -> np.ndarray:
        return self._move(xy, forward=self.inverted)

    def _move(self, xy: np.ndarray, *, forward: bool) -> np.ndarray:
        if self.warp is None:
            return xy.copy()
        return self.warp(xy) if forward else solve(self.warp, xy)


def _damaged(
    src: AnnData, spec: Level, maps: _Maps, direction: np.ndarray, extent: float, rng: np.random.Generator
) -> tuple[AnnData, np.ndarray, np.ndarray]:
    """Return what is left of the source, where it belongs, and where the warp and the tear put it."""
    true = src.obsm["spatial"]
    kept = ~missing_region(spec.src, true, direction, rng)(true)
    src, true = src[kept].copy(), true[kept]
    xy = torn(true, maps.to_src(true), spec.torn, direction, extent)
    if spec.src_pitch:
        src, xy = binned(src, xy, spec.src_pitch, rng)
        true = maps.to_true(xy)
    return src, true, xy


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


def _draw_pose(
    xy: np.ndarray, extent: float, *, mirrored: bool, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw a turn about the middle and a shift of up to one extent, as a ``(2, 3)`` matrix and in words."""
    degrees = rng.uniform(0, 360)
    shift = extent * rng.uniform() * _direction(rng)
    return rigid_matrix(xy, degrees, shift, mirrored=mirrored), {"angle_deg": degrees, "shift": shift.tolist()}


def rigid_matrix(xy: np.ndarray, degrees: float, shift: Sequence[float] | np.ndarray, *, mirrored: bool) -> np.ndarray:
    """Return the ``(2, 3)`` matrix that turns points about their middle (x mirrored first) and then shifts them."""
    cos, sin = _unit_vector(np.deg2rad(degrees))
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = (xy.min(axis=0) + xy.max(axis=0)) / 2
    return np.column_stack([turn, middle - turn @ middle + np.asarray(shift)])


def _unit_vector(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _direction(rng: np.random.Generator) -> np.ndarray:
    return _unit_vector(rng.uniform(0, 2 * np.pi))
