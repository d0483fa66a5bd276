"""The same pair by five seeds, in another order, at another place, in other units, and turned."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import inst_align as ia
from benchmarks.accuracy.pairs import Pair
from benchmarks.robustness.rows import KEY, compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from benchmarks.robustness.rows import Row

    Change = Callable[[AnnData, AnnData], tuple[AnnData, AnnData, Callable[[np.ndarray], np.ndarray]]]

SEEDS = range(5)
SHIFT = np.array([12345.6, -9876.5])
ANGLE = np.radians(127.0)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])


def toy() -> Pair:
    """Return the made-up pair that the package brings along."""
    ref, src = ia.datasets.toy_pair(n_cells=1500, rng=0)
    xy_true = src.obsm.pop("spatial_true")
    return Pair(kind="made", name="toy", level="medium", seed=0, ref=ref, src=src, xy_true=xy_true)


def placed(pair: Pair, ref: AnnData, src: AnnData, *, seed: int = 0, field: bool = False) -> np.ndarray:
    """Align and return where the source's cells come to lie, shape ``(n, 2)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ia.tl.align_pair(
            ref, src, field=field, rng=seed, device="cpu", progress=False, allow_reflection=pair.allow_reflection
        )
    return np.asarray(src.obsm[KEY])


def seed_rows(pair: Pair, *, field: bool = True) -> Iterator[Row]:
    """Yield a row for each seed: how far its result is from the mean of all, and from the truth."""
    found = np.stack([placed(pair, *pair.blind(), seed=seed, field=field) for seed in SEEDS])
    mean = found.mean(axis=0)
    matched = np.ones(len(mean), dtype=bool) if pair.matched is None else pair.matched
    unit = ia.metrics.spacing(pair.ref.obsm["spatial"])
    for seed, xy in zip(SEEDS, found, strict=True):
        row = compared("seeds", pair.name, f"seed {seed}", xy, mean, pair.ref)
        error = np.nan if pair.xy_true is None else np.linalg.norm(xy - pair.xy_true, axis=1)[matched] / unit
        yield replace(row, error=float(np.median(error)))


def at(adata: AnnData, change: Callable[[np.ndarray], np.ndarray]) -> AnnData:
    """Return a copy whose coordinates are changed."""
    adata = adata.copy()
    adata.obsm["spatial"] = change(adata.obsm["spatial"])
    return adata


def same(xy: np.ndarray) -> np.ndarray:
    return xy


def cells_in_another_order(ref: AnnData, src: AnnData) -> Any:
    rng = np.random.default_rng(0)
    rows = rng.permutation(src.n_obs)
    return ref[rng.permutation(ref.n_obs)].copy(), src[rows].copy(), lambda xy: xy[np.argsort(rows)]


def genes_in_another_order(ref: AnnData, src: AnnData) -> Any:
    rng = np.random.default_rng(0)
    return ref[:, rng.permutation(ref.n_vars)].copy(), src[:, rng.permutation(src.n_vars)].copy(), same


def in_units(factor: float) -> Change:
    return lambda ref, src: (at(ref, lambda xy: xy * factor), at(src, lambda xy: xy * factor), lambda xy: xy / factor)


CHANGES: dict[str, tuple[Change, str, str]] = {
    "cells in another order": (cells_in_another_order, "extent", "largest"),
    "genes in another order": (genes_in_another_order, "extent", "largest"),
    "both sections shifted": (
        lambda ref, src: (at(ref, lambda xy: xy + SHIFT), at(src, lambda xy: xy - 2 * SHIFT), lambda xy: xy - SHIFT),
        "extent",
        "largest",
    ),
    "units of 0.3467": (in_units(0.3467), "extent", "largest"),
    "units of 1,000,000": (in_units(1e6), "extent", "largest"),
    "source turned by 127 degrees": (
        lambda ref, src: (ref.copy(), at(src, lambda xy: xy @ TURN.T), same),
        "spacing",
        "median",
    ),
    "reference turned by 127 degrees": (
        lambda ref, src: (at(ref, lambda xy: xy @ TURN.T), src.copy(), lambda xy: xy @ TURN),
        "spacing",
        "median",
    ),
}
"""By name: what is done to the sections and undone to the result, what the limit is measured in, and what it binds."""
SHARES = {"cells in another order": 1e-6, "genes in another order": 1e-6}
OF_EXTENT, OF_SPACING = 1e-5, 0.05


def invariance_rows(pair: Pair) -> Iterator[Row]:
    """Yield a row for each change that ought not to matter."""
    ref, src = pair.blind()
    extents = np.ptp(ref.obsm["spatial"], axis=0).max() / ia.metrics.spacing(ref.obsm["spatial"])
    wanted = placed(pair, ref.copy(), src.copy())
    for case, (change, of, bound) in CHANGES.items():
        new_ref, new_src, back = change(ref, src)
        limit = OF_SPACING if of == "spacing" else SHARES.get(case, OF_EXTENT) * float(extents)
        found = back(placed(pair, new_ref, new_src))
        yield compared("invariance", pair.name, case, found, wanted, ref, limit=limit, bound=bound)
