"""The fit of one pair, stage by stage: features, pose, registration, canonical field, one transform."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inst_align.core.alignment import Alignment
from inst_align.core.cells import CellQuality, inverse_consistency
from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.clock import Clock
from inst_align.core.export import TOLERANCE, user_displacement
from inst_align.core.fourier import FourierField, fit_field
from inst_align.core.icp import adaptive_icp
from inst_align.core.landmarks import landmark_report
from inst_align.core.polish import polish_pose
from inst_align.core.pose import PoseConfig, search_pose
from inst_align.core.quality import UNTESTED, feature_correlation, map_report
from inst_align.core.registration import Registration, register
from inst_align.core.rival import doubts
from inst_align.core.section import UnitFrame
from inst_align.core.threads import torch_settings
from inst_align.core.transforms import Affine, Compose
from inst_align.core.verdict import judge, relation, verdict_of

if TYPE_CHECKING:
    import torch

    from inst_align.core.alignment import Callback
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.prepared import PairConfig, Prepared
    from inst_align.core.registration_config import RegistrationConfig
    from inst_align.core.section import Section

PoseMethod = Literal["fft", "icp"]
Accept = Literal["auto", "nonrigid", "rigid"]


def fit_pose(
    ref: Section,
    src: Section,
    *,
    method: PoseMethod = "fft",
    allow_reflection: bool = False,
    landmarks: Landmarks | None = None,
    config: PairConfig,
    generator: torch.Generator,
    device: torch.device,
) -> Alignment:
    """Find the global pose of ``src`` over ``ref``: rotation, shift and, if allowed, a mirror image.

    Parameters
    ----------
    ref, src
        The section that stays and the one that moves.
    method
        ``"fft"``, a global search (:mod:`inst_align.core.pose`), or ``"icp"``, the paper's adaptive ICP
        (:mod:`inst_align.core.icp`).
    allow_reflection
        Whether a mirrored pose may win.
    landmarks
        Points that belong together, in user units; for ``"fft"`` only.
    config, generator, device
        Constants of the features, randomness of their projection, and where they live.
    """
    clock = Clock(0, None)
    with torch_settings(len(ref) + len(src)):
        with clock.stage("features"):
            pair = config.prepare(ref, src, generator=generator, device=device)
        with clock.stage("pose"):
            affine, report = find_pose(pair, method=method, allow_reflection=allow_reflection, landmarks=landmarks)
            report |= relation(pair, affine, config.n_neighbors)
            report["verdict"] = verdict_of(report.get("verdict", UNTESTED), report)
    report |= clock.report
    if landmarks is not None:
        report |= landmark_report(landmarks, affine, affine, ref.spacing)
    return Alignment(affine=affine, transform=affine, report=report, seconds=clock.seconds)


def find_pose(
    pair: Prepared,
    *,
    method: PoseMethod,
    allow_reflection: bool,
    landmarks: Landmarks | None = None,
    again: bool = True,
) -> tuple[Affine, dict[str, Any]]:
    """Return the pose as a map from the source's to the reference's user frame, and what there is to say about it.

    ``again=False`` takes the scores of the search as they are, where those of rivals would be asked again on the cells.
    """
    frame_ref = UnitFrame.of(pair.ref.xy)
    frame_src = UnitFrame.of(pair.src.xy, scale=frame_ref.scale)
    xy_ref, xy_src = frame_ref.rounded(pair.ref.xy), frame_src.rounded(pair.src.xy)
    if method == "icp":
        features = pair.features_ref.cpu().numpy(), pair.features_src.cpu().numpy()
        icp = adaptive_icp(xy_ref, xy_src, *features, allow_reflection=allow_reflection)
        unit_matrix, found = icp.matrix, {"pose_score": icp.score, "pose_rmse": icp.rmse * frame_ref.scale}
    else:
        shared = pair.features_ref, pair.features_src
        marks = landmarks and landmarks.mapped(frame_ref.rounded, frame_src.rounded)
        result = search_pose(xy_ref, xy_src, *shared, PoseConfig(allow_reflection=allow_reflection), marks)
        unit_matrix = result.best.matrix
        found = doubts(
            xy_ref,
            xy_src,
            shared,
            result,
            allow_reflection=allow_reflection,
            landmarks=marks is not None,
            again=again,
        )
    affine = Affine(np.linalg.inv(frame_ref.matrix) @ unit_matrix @ frame_src.matrix)
    return affine, {"pose_method": method, "angle": affine.angle, "mirrored": affine.is_reflection, **found}


def fit_pair(
    ref: Section,
    src: Section,
    *,
    config: PairConfig,
    init: Affine | None = None,
    allow_reflection: bool = False,
    accept: Accept = "auto",
    landmarks: Landmarks | None = None,
    generator: torch.Generator,
    device: torch.device,
    callback: Callback | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> Alignment:
    """Align a pair: features, pose, trial, registration if it pays, field, and the map as one transform in user units.

    Parameters
    ----------
    ref, src
        The section that stays and the one that moves.
    config
        Constants.
    init
        A pose to start from, source to reference in user units; ``None`` searches for one.
    allow_reflection
        Whether a mirrored pose may win the search.
    accept
        ``"auto"``: bend the source if that pays on held-out genes, or if landmarks cannot meet otherwise.
        ``"nonrigid"``, ``"rigid"``: always, never.
    landmarks
        Points that belong together, in user units.
    generator, device
        Randomness, and where tensors live.
    callback
        Told of every step.
    checkpoint
        Where the state is kept after the pose, the trial and each level of the registration. Features and field are
        not kept, but computed again.
    """
    clock = Clock(0, callback)  # how many there will be depends on the cells
    with torch_settings(len(ref) + len(src)):
        with clock.stage("features"):
            pair = config.prepare(ref, src, generator=generator, device=device)
        with clock.stage("pose"):
            affine, report = checkpoint.once(
                "pose",
                lambda: given_or_found_pose(
                    pair, init, method="fft", allow_reflection=allow_reflection, landmarks=landmarks
                ),
                generator=generator,
                stops=clock.stops,
            )
        frame = UnitFrame.of(pair.ref.xy)
        spacing = max(pair.ref.spacing, pair.src.spacing) / frame.scale
        config = replace(config, registration=config.registration.suited(spacing))
        clock.expect(config.n_steps)
        with clock.stage("trial"):
            posed = affine
            affine, bends, verdict = checkpoint.once(
                "trial",
                lambda: judge(
                    pair,
                    posed,
                    report,
                    searched=init is None,
                    accept=accept,
                    config=config,
                    landmarks=landmarks,
                    generator=generator,
                ),
                generator=generator,
                stops=clock.stops,
            )
        marks = landmarks and landmarks.mapped(frame.rounded, lambda xy: frame.rounded(affine(xy)))
        xy = frame.rounded(pair.ref.xy), frame.rounded(affine(pair.src.xy))
        features = pair.features_ref, pair.features_src
        found: Registration | None = None
        if bends:
            with clock.stage("registration"):
                found = register(
                    *xy, *pair.of_cells, config.registration, landmarks=marks, on_step=clock.step, checkpoint=checkpoint
                )
        elif init is not None:  # a pose that was searched for has been polished already
            with clock.stage("polish"):
                affine, xy = _polished(affine, xy, features, frame, config.registration, marks)
        field: FourierField | None = None
        if config.field is not None:
            with clock.stage("field"):
                expression = None if ref.is_rep else (pair.ref.expression, pair.src.expression)
                placed = xy[0], xy[1] if found is None else found.forward(xy[1])
                field = fit_field(
                    placed, features, expression, config.field, unit_matrix=frame.matrix, generator=generator
                )
        with clock.stage("export"):
            transform: Affine | Compose = affine
            if found is not None:
                unit = pair.ref.spacing
                displacement, error = user_displacement(
                    found.forward, found.grid, frame, cells=xy[1], tolerance=TOLERANCE * unit
                )
                transform = Compose((affine, displacement))
                report["sampling_error"] = error / unit
            report |= verdict | map_report(pair.ref, pair.src, affine, transform) | agreement(pair, affine, transform)
            report |= clock.report
            if found is not None:
                report |= inverse_consistency(xy[1], found.forward, found.backward, pair.ref.spacing / frame.scale)
            cells = CellQuality.of(
                pair.ref, pair.src, features, transform, frame, config.registration, report["verdict"]
            )
            report |= cells.report(pair.ref.spacing)
            if landmarks is not None:
                report |= landmark_report(landmarks, affine, transform, pair.ref.spacing)
    return Alignment(
        affine=affine,
        transform=transform,
        report=report,
        history=found.history if found else {},
        field=field.pack() if field else None,
        seconds=clock.seconds,
        cells=cells.in_order(*pair.orders),
    )


def _polished(
    affine: Affine,
    xy: tuple[np.ndarray, np.ndarray],
    features: tuple[torch.Tensor, torch.Tensor],
    frame: UnitFrame,
    config: RegistrationConfig,
    marks: Landmarks | None,
) -> tuple[Affine, tuple[np.ndarray, np.ndarray]]:
    """Polish a pose (user units); returns it, and the coordinates of both in the unit frame."""
    step = Affine(polish_pose(*xy, *features, config, landmarks=marks))
    to_unit = frame.matrix
    return Affine(np.linalg.inv(to_unit) @ step.matrix @ to_unit @ affine.matrix), (xy[0], step(xy[1]))


def given_or_found_pose(
    pair: Prepared,
    init: Affine | None,
    *,
    method: PoseMethod,
    allow_reflection: bool,
    landmarks: Landmarks | None = None,
) -> tuple[Affine, dict[str, Any]]:
    """Return the pose given, or else the one that is found, and what there is to say about it."""
    if init is None:
        return find_pose(pair, method=method, allow_reflection=allow_reflection, landmarks=landmarks)
    return init, {"pose_method": "given", "angle": init.angle, "mirrored": init.is_reflection}


def agreement(pair: Prepared, affine: Affine, transform: Affine | Compose) -> dict[str, float]:
    """Correlation of the shared features after the rigid and after the whole map."""
    width = max(pair.ref.spacing, pair.src.spacing)
    features = pair.features_ref, pair.features_src
    rigid = feature_correlation(pair.ref.xy, affine(pair.src.xy), *features, width=width)
    moved = rigid
    if transform is not affine:
        moved = feature_correlation(pair.ref.xy, transform(pair.src.xy), *features, width=width)
    return {"feature_correlation_rigid": rigid, "feature_correlation": moved}
