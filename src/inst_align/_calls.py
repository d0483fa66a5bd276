"""What the public functions have in common: how they end, what they warn of, and the progress bar."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._anndata import write_alignment
from inst_align._checks import warn_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from inst_align._anndata import Pair
    from inst_align.core.alignment import Alignment, Callback, Step

logger = logging.getLogger("inst_align")

AGREES = 0.005
"""By how much the correlation may fall from the rigid to the non-rigid map before a warning."""


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
        xy_aligned=result.transform(pair.src.xy),
    )
    return (adata_ref, adata_src) if copy else None


def warn_about_pose(report: dict[str, Any], *, allow_reflection: bool) -> None:
    """Warn when another pose, or a mirror image, explains the sections as well or better."""
    score = report.get("pose_score", float("nan"))
    if report.get("pose_mirrored_better") and not allow_reflection:
        warn_user(
            f"A mirror image of the source fits clearly better (score {report['pose_mirrored_score']:.2f} against "
            f"{score:.2f}): if a section may have been flipped, pass `allow_reflection=True`."
        )
    if report.get("pose_ambiguous"):
        warn_user(
            f"A distinctly different pose fits nearly as well (score {report['pose_runner_up']:.2f} against "
            f"{score:.2f}): the tissue may be symmetric; look at `ia.pl.alignment` before you trust the result."
        )


def warn_about_map(report: dict[str, Any]) -> None:
    """Warn when the non-rigid part cannot be trusted."""
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


@contextmanager
def progress_bar(*, show: bool) -> Iterator[Callback]:
    """Yield a callback that moves one progress bar, named after the stage that runs."""
    from tqdm.auto import tqdm

    with tqdm(disable=not show, leave=False, unit="step") as bar:

        def update(step: Step) -> None:
            bar.total = step.total
            bar.set_description(step.stage, refresh=False)
            bar.update(step.done - bar.n)

        yield update
