"""What is said of single cells against what is true of them, counted in bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

import inst_align as ia

if TYPE_CHECKING:
    from anndata import AnnData

    from benchmarks.calibration.cases import Case

OVERLAP_BINS = np.array([0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0])
SD_BINS = np.array([0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, np.inf])
"""In neighbour distances."""
THERE = 2.5
"""The source has tissue where one of its cells belongs within this many neighbour distances."""


def binned(case: Case, src: AnnData) -> list[dict[str, Any]]:
    """Return counts, mean prediction and mean truth by bin; nothing without a truth, or if nothing was said.

    Of the overlap, truth is whether there is a counterpart, and the score is Brier's. Of the positions, prediction and truth
    are mean squares of distances in neighbour distances of the reference, over the source's cells with a counterpart, and
    the score is the rank correlation of prediction and truth within the pair.
    """
    if case.xy_true is None or "inst_sd" not in src.obs or src.obs["inst_sd"].isna().all():
        return []
    ref = src.uns["reference"]
    xy_ref, unit = ref.obsm["spatial"], ia.metrics.spacing(ref.obsm["spatial"])
    matched = np.ones(src.n_obs, dtype=bool) if case.matched is None else case.matched
    reach = THERE * max(unit, ia.metrics.spacing(case.xy_true))
    there = cKDTree(case.xy_true).query(xy_ref)[0] <= reach
    said = np.concatenate([section.obs["inst_overlap"].to_numpy() for section in (src, ref)])
    rows = _bins("overlap", OVERLAP_BINS, said, said, np.concatenate([matched, there]).astype(float))
    known = np.isfinite(said)
    brier = float(np.square(said - np.concatenate([matched, there]))[known].mean())
    error = ia.metrics.registration_error(src.obsm["spatial_aligned"], case.xy_true, unit=unit)[matched]
    sd = src.obs["inst_sd"].to_numpy()[matched] / unit
    order = float(spearmanr(sd, error, nan_policy="omit").statistic)
    bent = bool(ia.get.report(src)["displacement_max"] > 0)
    more = _bins("sd" if bent else "sd, not bent", SD_BINS, sd, sd**2, error**2)
    return [row | {"score": brier} for row in rows] + [row | {"score": order} for row in more]


def _bins(what: str, edges: np.ndarray, by: np.ndarray, said: np.ndarray, true: np.ndarray) -> list[dict[str, Any]]:
    known = np.isfinite(by) & np.isfinite(true)
    at = np.clip(np.searchsorted(edges, by, side="right") - 1, 0, len(edges) - 2)
    return [
        {"what": what, "from": edges[i], "to": edges[i + 1], "n": int(some.sum()), "said": said[some].mean(), "true": true[some].mean()}
        for i in range(len(edges) - 1)
        if (some := known & (at == i)).any()
    ]  # fmt: skip
