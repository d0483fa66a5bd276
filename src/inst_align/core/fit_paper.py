"""``preset="paper"``: INST-Align as published, from sections to one transform in user units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.alignment import Alignment
from inst_align.core.canonical import CanonicalField
from inst_align.core.cells import CellQuality
from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.clock import Clock
from inst_align.core.export import TOLERANCE, user_displacement
from inst_align.core.fit import agreement, given_or_found_pose
from inst_align.core.paper import PaperConfig, PaperFit, fit_paper
from inst_align.core.prepared import Prepared
from inst_align.core.quality import UNTESTED, map_report
from inst_align.core.raster import Grid
from inst_align.core.registration_config import RegistrationConfig
from inst_align.core.section import Section, UnitFrame
from inst_align.core.threads import torch_settings
from inst_align.core.transforms import Affine, Compose, Displacement
from inst_align.core.velocity import fade
from inst_align.core.verdict import relation

if TYPE_CHECKING:
    from inst_align.core.alignment import Callback, Step

N_COMPONENTS = 50
"""Joint principal components of the first phase: the authors' number."""
MARGIN = 0.5
"""Unit lengths around both tissues over which the network's map goes over to the rigid part."""
N_NODES = 160
"""Nodes along the longer side of the stored displacement, at least."""


def fit_pair_paper(
    ref: Section,
    src: Section,
    *,
    config: PaperConfig,
    init: Affine | None = None,
    allow_reflection: bool = False,
    generator: torch.Generator,
    device: torch.device,
    callback: Callback | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> Alignment:
    """Align a pair as published: adaptive ICP, then the two phases; parameters as :func:`inst_align.core.fit.fit_pair`.

    Ours are three things around it, which the paper does not speak of: the pose may be given; the fitted network is
    sampled to a displacement grid; and around the tissue it goes over to the rigid part.
    """
    clock = Clock(config.phase1_epochs + config.phase2_epochs, callback)
    with torch_settings(len(ref) + len(src)):
        with clock.stage("features"):
            pair = Prepared.of(
                ref,
                src,
                n_components=N_COMPONENTS,
                n_fine=N_COMPONENTS,
                n_neighbors=1,
                generator=generator,
                device=device,
            )
        with clock.stage("pose"):
            affine, report = checkpoint.once(
                "pose",
                lambda: given_or_found_pose(pair, init, method="icp", allow_reflection=allow_reflection),
                generator=generator,
                stops=clock.stops,
            )
            report = {**report, "verdict": UNTESTED, **relation(pair, affine, 1)}
        frame = UnitFrame.of(pair.ref.xy)
        xy_ref, posed = frame.rounded(pair.ref.xy), frame.rounded(affine(pair.src.xy))

        def on_epoch(step: Step) -> None:
            clock.step(step.stage)

        with clock.stage("fit"):
            fit = fit_paper(
                xy_ref,
                posed,
                pair.ref.expression,
                pair.src.expression,
                pair.features_ref.cpu().numpy(),
                pair.features_src.cpu().numpy(),
                config=config,
                generator=generator,
                device=device,
                callback=on_epoch,
                checkpoint=checkpoint,
            )
        with clock.stage("export"):
            displacement, error = _sampled(fit, xy_ref, posed, frame, tolerance=TOLERANCE * pair.ref.spacing)
            transform = Compose((affine, displacement))
            report |= map_report(pair.ref, pair.src, affine, transform) | agreement(pair, affine, transform)
            report |= clock.report
            report["sampling_error"] = error / pair.ref.spacing
            features = pair.features_ref, pair.features_src
            cells = CellQuality.of(
                pair.ref, pair.src, features, transform, frame, RegistrationConfig(), report["verdict"]
            )
            report |= cells.report(pair.ref.spacing)
    z_score = np.eye(3)
    z_score[:2, :2], z_score[:2, 2] = np.diag(1 / fit.scale), -fit.center / fit.scale
    canonical = CanonicalField(matrix=z_score @ frame.matrix, field=fit.field, decoder=fit.decoder)
    return Alignment(
        affine=affine,
        transform=transform,
        report=report,
        history=fit.history,
        field=canonical.pack(),
        seconds=clock.seconds,
        cells=cells.in_order(*pair.orders),
    )


def _sampled(
    fit: PaperFit, xy_ref: np.ndarray, posed: np.ndarray, frame: UnitFrame, *, tolerance: float
) -> tuple[Displacement, float]:
    """Return the network's map on a grid, and its greatest error at the source's cells, in the user's units."""
    tissue = np.concatenate([xy_ref, posed])
    longer_side = float(np.ptp(tissue, axis=0).max()) + 2 * MARGIN
    grid = Grid.around(tissue, pixel=longer_side / (N_NODES - 1), margin=MARGIN)

    def move(xy: np.ndarray) -> np.ndarray:
        weight = fade(torch.as_tensor(xy), tissue, MARGIN).numpy()
        return xy + weight[:, None] * (fit.displace(xy) - xy)

    return user_displacement(move, grid, frame, cells=posed, tolerance=tolerance)
