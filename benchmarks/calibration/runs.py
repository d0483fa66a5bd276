"""One case through the package: what it says of its result, and what is true of it."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

import inst_align as ia
from benchmarks.accuracy.measures import best_rigid
from benchmarks.calibration.cases import AMBIGUOUS, POOR

if TYPE_CHECKING:
    from anndata import AnnData

    from benchmarks.calibration.cases import Case

ELSEWHERE = 2.0
"""A pose is elsewhere if its median error exceeds 1.5 times that of the best rigid map by this many neighbour distances."""
SAID = [
    "verdict",
    "pose_score",
    "pose_runner_up",
    "pose_rivalry",
    "pose_ambiguous",
    "pose_mirrored_rivalry",
    "pose_mirrored_better",
    "heldout_correlation_stored",
    "heldout_correlation_pose",
    "heldout_correlation_null",
    "heldout_z",
    "heldout_shared_signal",
    "heldout_correlation_rigid",
    "heldout_correlation_nonrigid",
    "heldout_gain",
    "heldout_gain_standard_error",
    "feature_correlation",
    "overlap",
    "displacement_median",
    "fold_fraction",
    "inverse_consistency_median",
    "inverse_consistency_p95",
    "position_sd_median",
    "position_sd_p95",
]


def row_of(case: Case) -> tuple[dict[str, Any], AnnData]:
    """Align a case; returns what was said and what is true, and the source as it came out, beside the reference."""
    ref, src = case.ref.copy(), case.src.copy()
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ia.tl.align_pair(
            ref, src, field=False, allow_reflection=case.allow_reflection, rng=0, device="cpu", progress=False
        )
    seconds = time.perf_counter() - start
    report = ia.get.report(src)
    row: dict[str, Any] = {
        "kind": case.kind,
        "name": case.name,
        "tuned_on": case.tuned_on,
        "n_ref": ref.n_obs,
        "n_src": src.n_obs,
        "right": " | ".join(case.right),
        **{name: report.get(name, float("nan")) for name in SAID},
        "warned": any("Verdict" in str(warning.message) or "mirror image" in str(warning.message) for warning in told),
        "seconds": seconds,
    }
    if case.xy_true is not None:
        row |= _truth(case, ref, src)
        if row["pose_median"] > 1.5 * row["pose_best"] + ELSEWHERE:
            row["right"] = f"{AMBIGUOUS} | {POOR}"
    src.uns["reference"] = ref
    return row, src


def _truth(case: Case, ref: AnnData, src: AnnData) -> dict[str, float]:
    unit = ia.metrics.spacing(ref.obsm["spatial"])
    there = np.ones(src.n_obs, dtype=bool) if case.matched is None else case.matched
    true = np.asarray(case.xy_true)[there]
    xy = np.asarray(src.obsm["spatial"])[there]
    error = ia.metrics.registration_error(np.asarray(src.obsm["spatial_aligned"])[there], true, unit=unit)
    transform = ia.get.transform(src)
    posed = getattr(transform, "parts", (transform,))[0](xy)
    return {
        "error_median": float(np.median(error)),
        "error_p95": float(np.quantile(error, 0.95)),
        "pose_median": float(np.median(ia.metrics.registration_error(posed, true, unit=unit))),
        "pose_best": float(np.median(ia.metrics.registration_error(best_rigid(xy, true), true, unit=unit))),
    }
