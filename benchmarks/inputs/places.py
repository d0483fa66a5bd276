"""Rows 1 to 20: where the cells are."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

import inst_align as ia
from benchmarks.inputs.case import Case
from benchmarks.inputs.sections import KEY, align, coarse_search, expected, must, off_by, pair, same_bits, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


def with_xy(change: Callable[[np.ndarray], Any], *, both: bool = True) -> tuple[AnnData, AnnData]:
    ref, src = pair()
    for section in (ref, src) if both else (src,):
        section.obsm["spatial"] = change(section.obsm["spatial"])
    return ref, src


def refused(change: Callable[[np.ndarray], Any], **arguments: Any) -> str:
    """Align after a change of the source's coordinates, which has to fail."""
    return unchanged(align, *with_xy(change, both=False), **arguments)


def read_as(change: Callable[[np.ndarray], Any]) -> str:
    return same_bits(align(*with_xy(change)))


def no_key() -> str:
    ref, src = pair()
    src.obsm["X_umap"] = src.obsm.pop("spatial")
    return unchanged(align, ref, src)


def with_nan(xy: np.ndarray) -> np.ndarray:
    xy = xy.copy()
    xy[[3, 70], 0] = np.nan, np.inf
    return xy


def nan_dropped() -> str:
    ref, src = with_xy(with_nan, both=False)
    fewer = align(ref.copy(), src[np.isfinite(src.obsm["spatial"]).all(axis=1)].copy())
    found = align(ref, src, nan_policy="drop-from-fit").obsm[KEY]
    known = np.isfinite(found).all(axis=1)
    must(np.flatnonzero(~known).tolist() == [3, 70], "other rows are NaN")
    must(np.array_equal(found[known], fewer.obsm[KEY]), "the other cells moved")
    return "NaN in these rows, and the others as without them"


def cells(n: int, **arguments: Any) -> str:
    ref, src = pair()
    return unchanged(align, ref, src[:n].copy(), **arguments)


def few_cells() -> str:
    ref, src = pair()
    src = align(ref, src[:30].copy())
    must(isinstance(ia.get.transform(src), ia.transforms.Affine), "the map is not rigid")
    return "a rigid map"


def stacked() -> str:
    ref, src = with_xy(lambda xy: np.vstack([xy[:40], xy[:40], xy[80:]]))
    found = align(ref, src).obsm[KEY]
    must(np.isfinite(found).all(), "the result is not finite")
    must(np.array_equal(found[:40], found[40:80]), "cells at one place were moved apart")
    return "cells at one place stay together"


def flat_in_3d() -> str:
    ref, src = with_xy(lambda xy: np.column_stack([xy, np.full(len(xy), 7.0)]))
    align(ref, src)
    must((src.obsm[KEY][:, 2] == 7).all() and ref.obsm[KEY].shape == (len(ref), 3), "z was lost")
    return f"{same_bits(src)}, z kept beside it"


def far_from_origin() -> str:
    ref, src = with_xy(lambda xy: (xy + 1e6).astype(np.float32))
    error = off_by(align(ref, src).obsm[KEY] - 1e6, expected())
    must(error < 0.01, f"off by {error:.3f} neighbour distances")
    return "the same result, to 0.01 neighbour distances"


def table() -> str:
    ref, src = pair()
    for section in (ref, src):
        section.obsm["spatial"] = pd.DataFrame(section.obsm["spatial"], section.obs_names, ["x", "y"])
    align(ref, src)
    must(list(src.obsm[KEY].columns) == ["x", "y"] and (src.obsm[KEY].index == src.obs_names).all(), "no such table")
    return f"{same_bits(src)}, as a table too"


@functools.cache
def turned(**arguments: Any) -> tuple[AnnData, AnnData]:
    return ia.datasets.toy_pair(n_cells=250, n_genes=60, warp=0.0, rng=5, **arguments)


def pose_of(ref: AnnData, src: AnnData, **arguments: Any) -> tuple[AnnData, float]:
    """Find the pose; return the source, and the median distance from the truth in neighbour distances."""
    with coarse_search():
        _, src = ia.pp.rigid_align(ref, src, rng=0, device="cpu", copy=True, **arguments)
    unit = ia.metrics.spacing(ref.obsm["spatial"])
    error = ia.metrics.registration_error(src.obsm["spatial_rigid"][:, :2], src.obsm["spatial_true"], unit=unit)
    return src, float(np.median(error))


def mirrored() -> str:
    pose_of(*turned(mirror=True))
    return "no word"


def mirror_allowed() -> str:
    src, error = pose_of(*turned(mirror=True), allow_reflection=True)
    must(error < 1.5 and ia.get.report(src, "spatial_rigid")["mirrored"], f"off by {error:.1f}")
    return "right, and the report says that it is mirrored"


def symmetric() -> str:
    ref, _ = turned()
    xy = ref.obsm["spatial"] - ref.obsm["spatial"].mean(axis=0)
    half = ref[xy[:, 1] > 0].copy()
    both = sp.vstack([half.X, half.X], format="csr")
    sections = []
    for _ in range(2):
        section = ia.datasets.toy_pair(n_cells=2 * half.n_obs, n_genes=60, rng=0)[0]
        section.X, section.obsm["spatial"] = both, np.vstack([xy[xy[:, 1] > 0], -xy[xy[:, 1] > 0]])
        section.obsm["spatial_true"] = section.obsm["spatial"]
        sections.append(section)
    sections[1].obsm["spatial"] = sections[1].obsm["spatial"] + 1.0
    pose_of(*sections)
    return "no word"


def half_turn() -> str:
    error = pose_of(*turned(rotation=171))[1]
    must(error < 1.5, f"off by {error:.1f} neighbour distances")
    return "right, from no start"


def other_unit(factor: float) -> str:
    return refused(lambda xy: xy * factor, init="search")


def scaled() -> str:
    ref, src = with_xy(lambda xy: xy / 0.25, both=False)
    with coarse_search():
        found = align(ref, src, init="search", scale=0.25)
        plain = align(*pair(), init="search")
    error = off_by(found.obsm[KEY], plain.obsm[KEY])
    must(error < 1e-6 and abs(ia.get.transform(found).parts[0].scale - 0.25) < 1e-9, f"off by {error:.3f}")
    return "the same result; the factor is part of the map"


def estimated() -> str:
    ref, src = (section.copy() for section in turned(crop=0.5))
    src.obsm["spatial"] = src.obsm["spatial"] / 0.2125
    src, error = pose_of(ref, src, scale="estimate")
    found = ia.get.report(src, "spatial_rigid")["scale"]
    must(abs(found / 0.2125 - 1) < 0.1 and error < 3, f"a factor of {found:.4f}, off by {error:.1f}")
    return "right to some per cent, in spite of the crop"


def other_resolution() -> str:
    ref, src = (section.copy() for section in ia.datasets.toy_pair(n_cells=4000, n_genes=60, warp=0.0, rng=2))
    src = src[::80].copy()  # neighbours nine times as far apart
    error = pose_of(ref, src)[1] * ia.metrics.spacing(ref.obsm["spatial"]) / ia.metrics.spacing(src.obsm["spatial"])
    must(error < 1, f"off by {error:.1f} of the wider neighbour distances")
    return "right"


def crop() -> str:
    src, error = pose_of(*turned(crop=0.3))
    must(error < 3, f"off by {error:.1f} neighbour distances")
    must(ia.get.report(src, "spatial_rigid")["pose_overlap"] > 0.8, "no overlap is reported")
    return "right; the report holds the overlap"


def tiny() -> str:
    ref, src = ia.datasets.toy_pair(n_cells=2500, n_genes=100, warp=0.0, rng=3)
    center = np.median(src.obsm["spatial_true"], axis=0)
    near = np.argsort(np.linalg.norm(src.obsm["spatial_true"] - center, axis=1))[:125]
    pose_of(ref, src[np.sort(near)].copy())
    return "no word"


def hardly_overlapping() -> str:
    far = np.eye(3)
    far[0, 2] = 1.05 * np.ptp(pair()[0].obsm["spatial"][:, 0])
    align(*pair(), init=far)
    return "no word"


def in_pieces() -> str:
    ref, src = (section.copy() for section in turned(rotation=0))
    for section in (ref, src):
        truth = section.obsm.get("spatial_true", section.obsm["spatial"])
        right = truth[:, 0] > np.median(truth[:, 0])
        section.obsm["spatial"] = section.obsm["spatial"] + 1500.0 * right[:, None] * [1, 0]
    pose_of(ref, src)
    return "no word"


def with_hole() -> str:
    ref, src = pair()
    away = np.linalg.norm(src.obsm["spatial"] - np.median(src.obsm["spatial"], axis=0), axis=1)
    keep = away > np.quantile(away, 0.15)
    src = align(ref, src[keep].copy())
    error = off_by(src.obsm[KEY], expected()[keep])
    must(error < 3, f"off by {error:.1f} neighbour distances")
    must(ia.get.report(src)["fold_fraction"] == 0, "the map folds")
    return "nearly the same result; the report holds the share of folds"


def stray() -> str:
    def spoil(xy: np.ndarray) -> np.ndarray:
        xy = xy.copy()
        xy[11] = 5e4, -2e4
        return xy

    ref, src = with_xy(spoil, both=False)
    others = np.arange(src.n_obs) != 11
    fewer = align(ref.copy(), src[others].copy()).obsm[KEY]
    found = align(ref, src).obsm[KEY]
    must(np.array_equal(found[others], fewer), "the other cells moved")
    must(np.allclose(found[11], [5e4, -2e4]), "the stray cell was not moved by the rigid part of the map")
    return "the others lie as without it"


LINE = np.array([[3.0, 4.0]])
SIX = (0, 1, 0, 1, 0, 1)

CASES = [
    Case(row=1, given="`spatial_key` is not in `obsm`", expect="error", run=no_key),
    Case(row=2, given="NaN or infinite coordinates", expect="error", run=lambda: refused(with_nan)),
    Case(row=2, given='the same with `nan_policy="drop-from-fit"`', expect="warning", run=nan_dropped),
    Case(
        row=3,
        given="all coordinates NaN",
        expect="error",
        run=lambda: refused(lambda xy: xy * np.nan, nan_policy="drop-from-fit"),
    ),
    Case(row=3, given="a section without cells", expect="error", run=lambda: cells(0)),
    Case(row=4, given="fewer than 10 cells", expect="error", run=lambda: cells(9)),
    Case(row=4, given="10 to 49 cells", expect="warning", run=few_cells),
    Case(row=5, given="cells on one line", expect="error", run=lambda: refused(lambda xy: xy[:, :1] * LINE)),
    Case(row=5, given="cells all at one place", expect="error", run=lambda: refused(lambda xy: xy * 0 + 5)),
    Case(row=6, given="several cells at one place", expect="handled", run=stacked),
    Case(row=7, given="three columns, z constant", expect="handled", run=flat_in_3d),
    Case(
        row=7,
        given="three columns, z varies",
        expect="error",
        run=lambda: refused(lambda xy: np.c_[xy, xy.sum(axis=1)]),
    ),
    Case(row=8, given="six columns", expect="error", run=lambda: refused(lambda xy: xy[:, SIX])),
    Case(
        row=9,
        given="coordinates of type uint16",
        expect="handled",
        run=lambda: read_as(lambda xy: xy.astype(np.uint16)),
    ),
    Case(
        row=9, given="coordinates of type int64", expect="handled", run=lambda: read_as(lambda xy: xy.astype(np.int64))
    ),
    Case(
        row=10,
        given="coordinates of type float16",
        expect="handled",
        run=lambda: read_as(lambda xy: xy.astype(np.float16)),
    ),
    Case(row=10, given="float32 coordinates around 1,000,000", expect="handled", run=far_from_origin),
    Case(row=10, given="coordinates beyond 1e+150", expect="error", run=lambda: refused(lambda xy: xy * 1e150)),
    Case(
        row=10, given="cells within 1e-300 of each other", expect="error", run=lambda: refused(lambda xy: xy * 1e-303)
    ),
    Case(row=11, given="coordinates in a DataFrame", expect="handled", run=table),
    Case(row=12, given="sparse coordinates", expect="error", run=lambda: refused(sp.csr_matrix)),
    Case(row=12, given="coordinates of type object", expect="error", run=lambda: refused(lambda xy: xy.astype(object))),
    Case(row=12, given="words for coordinates", expect="error", run=lambda: refused(lambda xy: xy.astype(str))),
    Case(row=13, given="y up in one section, down in the other", expect="warning", run=mirrored),
    Case(row=14, given="a mirrored section with `allow_reflection=True`", expect="handled", run=mirror_allowed),
    Case(row=15, given="tissue that is symmetric under a half-turn", expect="warning", run=symmetric),
    Case(row=16, given="a source turned by 171 degrees", expect="handled", run=half_turn),
    Case(row=17, given="one section in pixels (4.7 in a micrometre)", expect="error", run=lambda: other_unit(4.7)),
    Case(row=17, given="one section in millimetres", expect="error", run=lambda: other_unit(1e-3)),
    Case(row=17, given="the factor given as `scale`", expect="handled", run=scaled),
    Case(row=17, given='half a section in pixels, `scale="estimate"`', expect="handled", run=estimated, slow=True),
    Case(row=17, given="one unit, nine times the neighbour distance", expect="handled", run=other_resolution),
    Case(row=18, given="a source cropped to 30 %", expect="handled", run=crop),
    Case(row=18, given="a source of 5 % of the area, which fits in many places", expect="warning", run=tiny),
    Case(row=18, given="a pose at which the sections hardly overlap", expect="warning", run=hardly_overlapping),
    Case(row=19, given="sections in pieces, and a rigid map", expect="warning", run=in_pieces),
    Case(row=20, given="a section with a hole", expect="handled", run=with_hole),
    Case(row=20, given="one cell far from all others", expect="warning", run=stray),
]
