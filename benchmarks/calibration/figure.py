"""The plot: what is said of cells against what is true of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from benchmarks.calibration.report import PARTIAL, SETS, pooled

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes


def plot(cells: pd.DataFrame, path: Path) -> None:
    """Draw the reliability of both columns, in bins of what was said; the line is where both agree."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    overlap, sd = figure.subplots(1, 2)
    _curves(overlap, cells[(cells["what"] == "overlap") & cells["kind"].isin(PARTIAL)], root=False)
    overlap.set(xlabel="inst_overlap", ylabel="share with a counterpart", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    _curves(sd, cells[cells["what"] == "sd"], root=True)
    top = 1.1 * max(values.max() for line in sd.lines for values in [np.append(line.get_xydata(), 0.1)])
    sd.set(xlabel="inst_sd (neighbour distances)", ylabel="true error, root mean square", xlim=(0, top), ylim=(0, top))
    for axes in (overlap, sd):
        axes.axline((0, 0), slope=1, color="0.7", linewidth=1, zorder=0)
        axes.set_aspect("equal")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = sd.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def _curves(axes: Axes, some: pd.DataFrame, *, root: bool) -> None:
    for (tuned, title), color in zip(SETS.items(), ("C0", "C1"), strict=True):
        points = np.array([found[2:] for found in pooled(some[some["tuned_on"] == tuned])]).reshape(-1, 2)
        values = np.sqrt(points) if root else points
        axes.plot(*values.T, "o-", color=color, label=title, markersize=4)
