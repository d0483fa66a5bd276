"""The report of a run as an object: attributes to read, a mapping to go through, and words to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from html import escape
from typing import Any, NamedTuple

import numpy as np

from inst_align._history import Stage, ends
from inst_align._report_findings import findings
from inst_align._report_words import WIDTH, Verdict, doubts_about, verdict_in_words


class Agreement(NamedTuple):
    """How well two sections agree at a pose.

    Parameters
    ----------
    genes
        Which ones were asked.
    correlation, null, z
        Between the sections; what it would be if they had nothing to do with each other; and by how many standard
        deviations it exceeds that. NaN where hardly a cell lies on tissue of the other section.
    shared
        Share of the sections' own spatial signal that is common to both.
    """

    genes: str
    correlation: float
    null: float
    z: float
    shared: float | None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RunReport(Mapping[str, Any]):
    """What a run found out about its own result. An attribute is None where the run has nothing to say.

    It is also a mapping, of exactly what is stored: ``report["overlap"]``, ``"overlap" in report``, ``dict(report)``. On
    screen and in notebooks it shows as a short text, verdict first. "nd" stands for the median neighbour distance of the
    reference's cells, the unit of all lengths that have no other.

    Parameters
    ----------
    verdict
        ``"non-rigid"``, ``"rigid sufficient"``, ``"ambiguous pose"``, ``"poor"``, or ``"untested"`` where nothing was held
        out to judge by.
    pose_method
        Where the pose comes from: ``"fft"`` and ``"icp"`` found it, ``"given"``, ``"prealigned"`` and ``"recorded"`` were
        handed over, ``"identical"`` and ``"stored"`` say that the source stays where it is.
    angle
        By which the source is turned, degrees, counter-clockwise where x points right and y up.
    mirrored
        Whether the source is turned over.
    scale, scale_method
        What the source's coordinates are multiplied by, where that is not 1, and who said so.
    pose_score, pose_runner_up, pose_mirrored_score
        Agreement of the expression, at most 1, at the pose, at the best distinctly different one (-1: there is none), and
        at the best mirror image.
    pose_overlap
        Share of the smaller section that lies on the other at the pose.
    pose_rivalry
        Agreement at the best distinctly different pose as a share of that at the pose, both asked again on the cells; None
        where no other pose came near.
    pose_mirrored_rivalry
        The same of the best mirror image, where mirror images could not win.
    pose_ambiguous, pose_mirrored_better
        Whether the rival, or the mirror image, has to be reckoned with.
    pose_rmse
        Root mean square distance of matched cells after ICP, in the reference's unit.
    init_residual_median, init_residual_max, init_scale
        How far the rigid part of coordinates given as a start is from them, nd, and their size relative to the source.
    heldout_correlation_stored, heldout_correlation_rigid, heldout_correlation_nonrigid
        Correlation, between the sections, of genes that a trial fit had not seen: as stored, after the pose, and after
        bending.
    heldout_gain, heldout_gain_standard_error
        Share of these genes' variance that bending explains beyond the pose.
    heldout_correlation_pose, heldout_correlation_null, heldout_z, heldout_shared_signal
        Correlation at the pose, what it would be for sections that have nothing to do with each other, by how many
        standard deviations it exceeds that, and which share of the sections' own spatial signal is common to both.
    feature_correlation_pose, feature_correlation_null, feature_z, feature_shared_signal
        The same asked of all genes, where there are too few for halves.
    overlap
        Share of the source's cells within 3 nd of a cell of the reference.
    feature_correlation_rigid, feature_correlation
        Correlation of the features that were fitted, after the pose and after the whole map. They are no evidence.
    displacement_median, displacement_max
        How far the map moves cells beyond the pose, nd.
    area_change_min, area_change_max
        Range over the cells of the area after the map, relative to that after the pose.
    fold_fraction
        Share of the source's cells at which the map folds.
    inverse_consistency_median, inverse_consistency_p95
        How far cells end from where they were, after the map and what was fitted as its inverse, nd.
    position_sd_median, position_sd_p95
        How far cells are expected to be from where they belong, if the pose is right, nd.
    sampling_error
        Of the stored map relative to the fitted one at the worst cell, nd.
    landmark_error, landmark_error_median, landmark_error_max, landmark_error_rigid_median
        Distances between partners after the map, one per pair, shape ``(k,)``, nd; the last after the pose.
    landmarks_ask_for_bending
        Whether no rigid map brings the pairs together.
    stopped_early
        Stages that stopped because numbers were no longer finite, and where.
    spacing_reference, spacing_source
        Median neighbour distances, each in the section's own unit; the source's after ``scale``.
    other
        Whatever else is stored, by name.
    convergence
        How each stage ended, by name; empty where nothing was fitted in steps. No part of the mapping.

    Examples
    --------
    >>> report = RunReport.from_record({"report": {"verdict": "rigid sufficient", "overlap": 0.9, "pose_score": 0.8}})
    >>> report.overlap, report["overlap"], report.fold_fraction
    (0.9, 0.9, None)
    >>> report
    Verdict      rigid sufficient: a rotation and a shift are enough (supported)
    Meaning      Bending the source would not have made genes that the trial fit had not seen agree any better, so it was
                 left unbent.
    Next         Look at the overlay, then use the coordinates.
    Pose score   0.80
    Overlap      90.0% of the source's cells lie on the reference
    """

    verdict: str | None = None
    pose_method: str | None = None
    angle: float | None = None
    mirrored: bool | None = None
    scale: float | None = None
    scale_method: str | None = None
    pose_score: float | None = None
    pose_runner_up: float | None = None
    pose_mirrored_score: float | None = None
    pose_rivalry: float | None = None
    pose_mirrored_rivalry: float | None = None
    pose_overlap: float | None = None
    pose_ambiguous: bool | None = None
    pose_mirrored_better: bool | None = None
    pose_rmse: float | None = None
    init_residual_median: float | None = None
    init_residual_max: float | None = None
    init_scale: float | None = None
    heldout_correlation_stored: float | None = None
    heldout_correlation_rigid: float | None = None
    heldout_correlation_nonrigid: float | None = None
    heldout_gain: float | None = None
    heldout_gain_standard_error: float | None = None
    heldout_correlation_pose: float | None = None
    heldout_correlation_null: float | None = None
    heldout_z: float | None = None
    heldout_shared_signal: float | None = None
    feature_correlation_pose: float | None = None
    feature_correlation_null: float | None = None
    feature_z: float | None = None
    feature_shared_signal: float | None = None
    overlap: float | None = None
    feature_correlation_rigid: float | None = None
    feature_correlation: float | None = None
    displacement_median: float | None = None
    displacement_max: float | None = None
    area_change_min: float | None = None
    area_change_max: float | None = None
    fold_fraction: float | None = None
    inverse_consistency_median: float | None = None
    inverse_consistency_p95: float | None = None
    position_sd_median: float | None = None
    position_sd_p95: float | None = None
    sampling_error: float | None = None
    landmark_error: np.ndarray | None = None
    landmark_error_median: float | None = None
    landmark_error_max: float | None = None
    landmark_error_rigid_median: float | None = None
    landmarks_ask_for_bending: bool | None = None
    stopped_early: str | None = None
    spacing_reference: float | None = None
    spacing_source: float | None = None
    other: Mapping[str, Any] = field(default_factory=dict)
    convergence: Mapping[str, Stage] = field(default_factory=dict)

    @property
    def agreement(self) -> Agreement | None:
        """How well the sections agree at the pose, and how well they would if unrelated; None where that was not asked."""
        for genes, name in (("held-out genes", "heldout"), ("all genes", "feature")):
            found, null, z, shared = (
                getattr(self, f"{name}_{key}") for key in ("correlation_pose", "correlation_null", "z", "shared_signal")
            )
            if None not in (found, null, z):
                return Agreement(genes=genes, correlation=found, null=null, z=z, shared=shared)
        return None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunReport:
        """Return the report that a record of a run holds, with how its fit ended."""
        stored = record["report"]
        known = {name: value for name, value in stored.items() if name in NAMES}
        return cls(
            **known,
            other={name: value for name, value in stored.items() if name not in NAMES},
            convergence=ends(record.get("history", {})),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored, as a plain dict."""
        return dict(self)

    def __getitem__(self, name: str) -> Any:
        value = getattr(self, name) if name in NAMES else self.other.get(name)
        if value is None:
            raise KeyError(f"{name!r}: this run has no such number; it has {', '.join(self)}.")
        return value

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in NAMES if getattr(self, name) is not None)
        yield from self.other

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.keys() == other.keys() and all(np.array_equal(self[name], other[name]) for name in self)

    def lines(self) -> list[str]:
        """Return the report as aligned lines of text, at most about 120 characters long."""
        doubts = doubts_about(self)
        said = verdict_in_words(self, doubts)
        rows = [
            ("Verdict", _named(self.verdict, said)),
            ("Meaning", said.meaning),
            *(("Doubt", doubt) for doubt in doubts),
            ("Next", said.advice),
            *findings(self),
        ]
        width = max(len(name) for name, _ in rows) + 3
        return [
            line
            for name, text in rows
            for line in textwrap.wrap(
                text, WIDTH, initial_indent=name.ljust(width), subsequent_indent=" " * width, break_on_hyphens=False
            )
        ]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        doubts = doubts_about(self)
        said = verdict_in_words(self, doubts)
        rows = [*(("Doubt", doubt) for doubt in doubts), ("Next", said.advice), *findings(self)]
        cell = "style='text-align:left;vertical-align:top;padding:0.15em 1em 0.15em 0'"
        body = "".join(
            f"<tr><th scope='row' {cell}>{escape(name)}</th><td {cell}>{escape(text)}</td></tr>" for name, text in rows
        )
        return (
            f"<div class='inst-align-report'><p><strong>{escape(_named(self.verdict, said))}</strong><br>{escape(said.meaning)}</p>"
            f"<table>{body}</table></div>"
        )


def _named(verdict: str | None, said: Verdict) -> str:
    """Return the stored verdict, if any, what it means, and the tone."""
    title = f"{said.title} ({said.label.lower()})"
    return title if verdict is None else f"{verdict}: {title[0].lower()}{title[1:]}"


NAMES = tuple(each.name for each in fields(RunReport) if each.name not in ("other", "convergence"))
"""Of what a report may hold, as it is stored."""
