"""Numbers as a reader of the screen wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "median_error": ("error", "median", "{:.2f}"),
    "p95_error": ("error", "95 %", "{:.2f}"),
    "nn_accuracy": ("same layer", "nearest", "{:.3f}"),
    "ot_accuracy": ("same layer", "transport", "{:.3f}"),
    "chamfer_over_floor": ("Chamfer", "/ floor", "{:.2f}"),
    "fold_fraction": ("folds", "share", "{:.1%}"),
}
"""Group, name and format of the columns of the demo's table."""


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return what a run says of its own result, one line per finding, as words.

    Parameters
    ----------
    report
        As :func:`inst_align.get.report` returns it; what is not in it is left out.
    """
    turned = f"turned by {report['angle']:.1f} degrees, {'mirrored' if report['mirrored'] else 'not mirrored'}"
    lines = {"Pose": turned}
    if "pose_score" in report:
        lines["Pose"] += f", score {report['pose_score']:.2f}"
    if report.get("pose_runner_up"):
        lines["Pose"] += f" (next best pose {report['pose_runner_up']:.2f})"
    if "overlap" in report:
        lines["Overlap"] = f"{report['overlap']:.1%} of the source's cells lie on the reference"
    elif "pose_overlap" in report:
        lines["Overlap"] = f"{report['pose_overlap']:.1%} of the smaller section"
    if report.get("verdict") == "poor":
        lines["Verdict"] = "poor; the sections do not agree where the source was laid"
    elif "heldout_gain" in report:
        lines["Verdict"] = (
            f"{report['verdict']}; genes held out of a trial correlate by {report['heldout_correlation_rigid']:.3f} "
            f"after the pose, by {report['heldout_correlation_nonrigid']:.3f} after bending"
        )
    if report.get("displacement_max", 0) > 0:
        lines |= _non_rigid(report)
    if "landmark_error_median" in report:
        lines["Landmarks"] = (
            f"{len(report['landmark_error'])} pairs end {report['landmark_error_median']:.1f} neighbour distances apart "
            f"at the median, {report['landmark_error_max']:.1f} at most"
        )
    return [f"  {name + ':':<14}{text}" for name, text in lines.items()]


def _non_rigid(report: dict[str, Any]) -> dict[str, str]:
    folds = report["fold_fraction"]
    return {
        "Displacement": f"beyond the pose {report['displacement_median']:.1f} neighbour distances at the median, "
        f"{report['displacement_max']:.1f} at most",
        "Area": f"between {report['area_change_min']:.2f} and {report['area_change_max']:.2f} times what it was",
        "Folds": "none" if folds == 0 else f"at {folds:.2%} of the source's cells",
        "Expression": f"correlates by {report['feature_correlation_rigid']:.3f} after the pose, by "
        f"{report['feature_correlation']:.3f} after the non-rigid map",
    }


def table(numbers: pd.DataFrame) -> list[str]:
    """Return the demo's numbers, one row per alignment and the columns of ``COLUMNS``, as lines of text."""
    width = max(map(len, numbers.index)) + 2
    groups = [group for group, _, _ in COLUMNS.values()]
    shown = [group if i == 0 or group != groups[i - 1] else "" for i, group in enumerate(groups)]
    rows = [("", shown), ("", [name for _, name, _ in COLUMNS.values()])]
    for name, row in numbers.iterrows():
        cells = [
            "-" if row[column] != row[column] else form.format(row[column]) for column, (_, _, form) in COLUMNS.items()
        ]
        rows.append((str(name), cells))
    lines = ["  " + name.ljust(width) + "".join(cell.rjust(10) for cell in cells) for name, cells in rows]
    return [*lines[:2], "  " + "-" * (len(lines[1]) - 2), *lines[2:]]
