"""What a report found, one line per finding, as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from inst_align._report_words import number

if TYPE_CHECKING:
    from inst_align._report import RunReport


def findings(report: RunReport) -> list[tuple[str, str]]:
    """Return a name and a line for each finding; lengths in nd, which the last line explains."""
    rows = [
        ("Pose", _pose(report)),
        ("Pose score", _score(report)),
        ("Overlap", _overlap(report)),
        ("Held-out", _held_out(report)),
        ("Gain", _gain(report)),
        ("Agreement", _agreement(report)),
        ("Displacement", _displacement(report)),
        ("Area", _area(report)),
        ("Folds", _folds(report)),
        ("Fitted", _fitted(report)),
        (
            "Inverse",
            _spread(
                "the map fitted the other way round misses a cell's place by",
                report.inverse_consistency_median,
                report.inverse_consistency_p95,
            ),
        ),
        (
            "Uncertainty",
            _spread(
                "if the pose is right, cells are expected to be off by",
                report.position_sd_median,
                report.position_sd_p95,
            ),
        ),
        ("Landmarks", _landmarks(report)),
        (
            "Stored map",
            "" if report.sampling_error is None else f"within {report.sampling_error:.2g} nd of the fitted one",
        ),
        ("Convergence", _convergence(report)),
        ("Also", _others(report)),
    ]
    shown = [(name, text) for name, text in rows if text]
    if report.spacing_reference is not None and any(" nd" in text for _, text in shown):
        shown.append(("nd", f"median neighbour distance of the reference, {report.spacing_reference:.4g} in its unit"))
    return shown


HOW = {
    "fft": "found by a global search",
    "icp": "found by adaptive ICP",
    "given": "as given",
    "prealigned": "fitted to the coordinates given",
    "recorded": "from the recorded rigid alignment",
    "identical": "both sections are the same",
    "stored": "left as stored",
}


def _pose(report: RunReport) -> str:
    turned = "" if report.angle is None else f"turned by {report.angle:.1f} degrees"
    mirrored = "" if report.mirrored is None else "mirrored" if report.mirrored else "not mirrored"
    scaled = "" if report.scale is None else f"scaled by {report.scale:.4g} ({report.scale_method or 'given'})"
    method = report.pose_method
    text = ", ".join(filter(None, [turned, mirrored, scaled, method and HOW.get(method, method)]))
    if report.init_residual_median is not None:
        text += f" to within {report.init_residual_median:.1f} nd at the median"
    return text


def _score(report: RunReport) -> str:
    if report.pose_score is None:
        return ""
    rival, mirrored = report.pose_runner_up, report.pose_mirrored_score
    others = [
        f"next best pose {rival:.2f}" if rival is not None and rival > -1 else "",
        f"mirror image {mirrored:.2f}" if mirrored is not None else "",
        _asked_again(report),
    ]
    return "; ".join(filter(None, [f"{report.pose_score:.2f}", *others]))


def _asked_again(report: RunReport) -> str:
    """Return what came of a second look at the poses that came near."""
    shares = {
        "the next best": report.pose_rivalry or None,  # zero: refined, it was on its way to the pose itself
        "the mirror image": report.pose_mirrored_rivalry,
    }
    found = " and ".join(f"{name} {share:.0%}" for name, share in shares.items() if share is not None)
    return f"on a second look, of the agreement at the pose {found}" if found else ""


def _overlap(report: RunReport) -> str:
    if report.overlap is not None:
        return f"{report.overlap:.1%} of the source's cells lie on the reference"
    return "" if report.pose_overlap is None else f"{report.pose_overlap:.1%} of the smaller section"


def _held_out(report: RunReport) -> str:
    numbers = {
        "as stored": report.heldout_correlation_stored,
        "after the pose": report.heldout_correlation_rigid,
        "after bending": report.heldout_correlation_nonrigid,
    }
    text = _listed(numbers)
    return f"genes that a trial fit had not seen correlate by {text}" if text else ""


def _gain(report: RunReport) -> str:
    gain, error = report.heldout_gain, report.heldout_gain_standard_error
    if gain is None:
        return ""
    spread = "" if error is None else f" +- {error:.1%}"
    return f"bending explains {gain:.1%}{spread} more of their variance"


def _agreement(report: RunReport) -> str:
    found = report.agreement
    if found is None:
        return ""
    if math.isnan(found.correlation):
        return "hardly a cell lies on tissue of the other section"
    text = (
        f"at the pose, {found.genes} correlate by {found.correlation:.3f}; those of unrelated sections would by "
        f"{found.null:.3f} ({found.z:.1f} standard deviations less)"
    )
    if found.shared is not None:
        text += f"; {max(found.shared, 0):.0%} of the spatial signal is common to both sections"
    return text


def _displacement(report: RunReport) -> str:
    if not report.displacement_max:
        return "" if report.displacement_max is None else "none beyond the pose"
    return f"beyond the pose {number(report.displacement_median, 1)} nd at the median, {report.displacement_max:.1f} nd at most"


def _area(report: RunReport) -> str:
    low, high = report.area_change_min, report.area_change_max
    if low is None or high is None or not report.displacement_max:
        return ""
    return f"{low:.2f} to {high:.2f} times what it was"


def _folds(report: RunReport) -> str:
    if report.fold_fraction is None or not (report.displacement_max or report.fold_fraction):
        return ""
    return "none" if report.fold_fraction == 0 else f"at {report.fold_fraction:.2%} of the source's cells"


def _fitted(report: RunReport) -> str:
    numbers = {"after the pose": report.feature_correlation_rigid}
    if report.displacement_max:
        numbers["after the whole map"] = report.feature_correlation
    text = _listed(numbers)
    return f"the features that were fitted correlate by {text}" if text else ""


def _landmarks(report: RunReport) -> str:
    if report.landmark_error is None:
        return ""
    return (
        f"{len(report.landmark_error)} pairs end {number(report.landmark_error_median, 1)} nd apart at the median, "
        f"{number(report.landmark_error_max, 1)} nd at most"
    )


def _convergence(report: RunReport) -> str:
    stages = []
    for name, stage in report.convergence.items():
        losses = ", ".join(f"{term} {value:.3g}" for term, value in stage.last.items())
        stages.append(f"{name or 'fit'} ended after {stage.steps} steps at {losses}")
    return "; ".join(stages)


def _others(report: RunReport) -> str:
    texts = (_short(name, value) for name, value in report.other.items())
    return ", ".join(texts)


def _short(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{name} {value:.4g}"
    return f"{name} {value}" if isinstance(value, str | int) else name


def _spread(words: str, median: float | None, p95: float | None) -> str:
    if median is None:
        return ""
    return f"{words} {median:.2g} nd at the median" + ("" if p95 is None else f", {p95:.2g} nd at the 95th percentile")


def _listed(numbers: dict[str, float | None]) -> str:
    return ", ".join(f"{value:.3f} {when}" for when, value in numbers.items() if value is not None)
