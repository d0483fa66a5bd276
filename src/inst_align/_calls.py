"""What the public functions have in common: how they end, what they warn of, and the progress bar."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.spatial import cKDTree

from inst_align._anndata import write_alignment
from inst_align._checks import warn_user
from inst_align._keys import cell_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from anndata import AnnData

    from inst_align._anndata import Pair
    from inst_align.core.alignment import Alignment, Callback, Step
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.section import Section
    from inst_align.core.transforms import Affine

logger = logging.getLogger("inst_align")

AGREES = 0.005
"""By how much the correlation may fall from the rigid to the non-rigid map before a warning."""
LITTLE_OVERLAP = 0.2
"""Share of the cells below which sections hardly overlap."""
REACH = 3.0
"""Cells within this many neighbour distances of a cell of the other section lie on its tissue."""
OVERLAP_CELLS = 20_000
"""Cells of a section, evenly spread over its rows, that are looked at to tell how far the sections overlap."""


def identity_of(pair: Pair) -> Affine | None:
    """Return the identity as the pose of a section over itself, of which a log line tells, else ``None``."""
    from inst_align.core.transforms import Affine

    if not pair.identical:
        return None
    logger.info("the source has the same cells at the same places as the reference: the pose is the identity")
    return Affine(np.eye(3))


def fit_rigidly(
    ref: Section,
    src: Section,
    *,
    init: Affine | None,
    method: Literal["fft", "icp"],
    allow_reflection: bool,
    landmarks: Landmarks | None,
    generator: torch.Generator,
    device: torch.device,
) -> Alignment:
    """Return the pose given as an alignment, or else the one that is found."""
    from inst_align.core.alignment import Alignment
    from inst_align.core.fit import fit_pose
    from inst_align.core.landmarks import landmark_report
    from inst_align.core.prepared import PairConfig

    if init is not None:
        report = {"pose_method": "given", "angle": init.angle, "mirrored": init.is_reflection}
        if landmarks is not None:
            report |= landmark_report(landmarks, init, init, ref.spacing)
        return Alignment(affine=init, transform=init, report=report)
    return fit_pose(
        ref,
        src,
        method=method,
        allow_reflection=allow_reflection,
        landmarks=landmarks,
        config=PairConfig(),
        generator=generator,
        device=device,
    )


def finish(
    adata_ref: AnnData,
    adata_src: AnnData,
    pair: Pair,
    result: Alignment,
    *,
    key_added: str,
    spatial_key: str,
    copy: bool,
    rng: Any,
    **params: Any,
) -> tuple[AnnData, AnnData] | None:
    """Write an alignment, to copies if asked for, and return what the public function returns.

    The record holds the parameters given, the seed if ``rng`` was an integer (a generator cannot be stored), and what
    was decided while reading.
    """
    stages = ", ".join(f"{stage}: {seconds:.1f} s" for stage, seconds in result.seconds.items())
    logger.info("%s", stages)
    if copy:
        adata_ref, adata_src = adata_ref.copy(), adata_src.copy()
    seed = {"rng": int(rng)} if isinstance(rng, int | np.integer) else {}
    genes = {} if pair.genes is None else {"n_genes": len(pair.genes)}
    write_alignment(
        adata_ref,
        adata_src,
        key_added=key_added,
        spatial_key=spatial_key,
        params=params | seed | genes | {"spatial_key": spatial_key, "normalized": dict(pair.normalized)},
        alignment=result,
        xy_aligned=pair.cells[1].moved_by(result.transform),
        columns=_columns(pair, result, key_added),
    )
    return (adata_ref, adata_src) if copy else None


def _columns(pair: Pair, result: Alignment, key_added: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the columns of ``obs`` for the reference and the source, in the order of their objects."""
    if result.cells is None:
        return {}, {}
    (ref, src), (overlap, sd) = pair.cells, cell_columns(key_added)
    return (
        {overlap: ref.spread(result.cells.overlap_ref)},
        {overlap: src.spread(result.cells.overlap_src), sd: src.spread(result.cells.position_sd)},
    )


def warn_about_pose(report: dict[str, Any], *, allow_reflection: bool) -> None:
    """Warn when another pose, or a mirror image, explains the sections as well or better."""
    score = report.get("pose_score", float("nan"))
    if report.get("pose_mirrored_better") and not allow_reflection:
        share = report.get("pose_mirrored_rivalry", report["pose_mirrored_score"] / max(score, 1e-9))
        verdict = 'Verdict "ambiguous pose": a' if report.get("verdict") != "poor" else "A"
        warn_user(
            f"{verdict} mirror image of the source fits {'better' if share > 1 else 'as well'} ({share:.0%} of the agreement "
            f"of the pose taken): if a section may have been turned over, pass `allow_reflection=True`; if none was, compare "
            f"`ia.pl.alignment` with the anatomy that you know."
        )
    if report.get("pose_ambiguous") and report.get("verdict") != "poor":
        rivalry = report.get("pose_rivalry", report["pose_runner_up"] / max(score, 1e-9))
        warn_user(
            f'Verdict "ambiguous pose": a distinctly different pose fits {"" if rivalry >= 1 else "nearly "}as well '
            f"({rivalry:.0%} of the agreement of the one taken): the tissue may be symmetric, or too little of it is in both sections; look at `ia.pl.alignment` before you "
            f"trust the result, and settle it by landmarks or `init`."
        )


def warn_about_verdict(report: dict[str, Any]) -> None:
    """Warn when the sections do not agree at all where the source was placed."""
    if report.get("verdict") != "poor":
        return
    name, genes = ("heldout", "held-out genes") if "heldout_z" in report else ("feature", "all genes")
    found, null, shared = (report[f"{name}_{key}"] for key in ("correlation_pose", "correlation_null", "shared_signal"))
    said = (
        f"{genes} correlate by {found:.2f} there, those of unrelated sections would by {null:.2f}, and {max(shared, 0):.0%} "
        f"of the spatial signal is common to both"
        if np.isfinite(found)
        else "hardly a cell lies on tissue of the other section"
    )
    warn_user(
        f'Verdict "poor": the sections do not agree where the source was placed ({said}): do not use this result before you '
        f"have checked that both are of the same tissue, that the rows of expression and coordinates belong together, and "
        f"that gene names mean the same in both; if all that is so, give the pose by landmarks or `init`."
    )


def warn_about_overlap(pair: Pair, result: Alignment) -> None:
    """Warn when little of either section lies on the other."""
    placed = result.transform(pair.src.xy)
    reach = REACH * max(pair.ref.spacing, pair.src.spacing * result.affine.scale)
    both = (pair.ref.xy, placed), (placed, pair.ref.xy)
    on_source, on_reference = (_share_on(own, other, reach) for own, other in both)
    if max(on_reference, on_source) < LITTLE_OVERLAP:
        warn_user(
            f"Only {on_reference:.0%} of the source's cells lie on the reference, and {on_source:.0%} of the reference's "
            f"on the source: look at `ia.pl.alignment` before you trust the result, and pass a pose as `init` if the "
            f"sections overlap more than that."
        )


def _share_on(own: np.ndarray, other: np.ndarray, reach: float) -> float:
    """Return the share of points, shape ``(n, 2)``, within reach of another set of points."""
    some = own[:: -(-len(own) // OVERLAP_CELLS)]
    return float(np.isfinite(cKDTree(other).query(some, distance_upper_bound=reach)[0]).mean())


def warn_about_map(report: dict[str, Any]) -> None:
    """Warn when the non-rigid part, if there is one, cannot be trusted."""
    if "fold_fraction" not in report:
        return
    if report["fold_fraction"] > 0:
        warn_user(
            f"The map folds at {report['fold_fraction']:.1%} of the source's cells, so that it has no inverse there; "
            f"look at `ia.pl.deformation`."
        )
    rigid, moved = report["feature_correlation_rigid"], report["feature_correlation"]
    if not moved >= rigid - AGREES:
        warn_user(
            f"The non-rigid map agrees less with the expression than the rigid one (correlation {moved:.3f} "
            f"against {rigid:.3f}): prefer `ia.pp.rigid_align` for this pair."
        )


def warn_about_stop(report: dict[str, Any]) -> None:
    """Warn when a stage stopped early."""
    if "stopped_early" in report:
        warn_user(
            f"A part of the fit stopped early ({report['stopped_early']}), and what it had last found to be fine was kept: "
            f"look at `ia.pl.alignment` before you trust the result."
        )


@contextmanager
def progress_bar(*, show: bool) -> Iterator[Callback]:
    """Yield a callback that moves one progress bar, named after the stage that runs.

    Where there is neither a terminal nor a notebook to draw it on, a bar would fill a log file, so there is none.
    """
    from tqdm.auto import tqdm

    visible = "ipykernel" in sys.modules or sys.stderr.isatty()
    with tqdm(disable=not (show and visible), leave=False, unit="step") as bar:

        def update(step: Step) -> None:
            bar.total = step.total
            bar.set_description(step.stage, refresh=False)
            bar.update(step.done - bar.n)

        yield update
