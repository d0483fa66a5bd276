"""The plot: the median error of each pair with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def plot(rows: pd.DataFrame, path: Path, best: pd.DataFrame | None) -> None:
    """Draw the median error of each pair with known truth on a log axis: the pose alone, ours, the best peer.

    Parameters
    ----------
    rows
        Of the table.
    path
        Where the picture goes.
    best
        Column median, indexed by pair; or None.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    known = rows[rows["kind"].isin(["truth", "made"])]
    mean = known.groupby(["pair", "method"])["median"].mean().unstack()
    ours = next((name for name in ("default", "default-nofield", "rigid") if name in mean), None)
    if ours is None:
        return
    mean = mean.dropna(subset=[ours]).sort_values(ours, ascending=False)
    series = {"pose alone": (mean.get("rigid"), "0.6", "o"), f"inst-align, {ours}": (mean[ours], "C0", "o")}
    if best is not None:
        series["best peer"] = (best["median"].reindex(mean.index), "C1", "D")
    figure = Figure(figsize=(6.5, 1.2 + 0.2 * len(mean)), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="median error (neighbour distances)")
    height = np.arange(len(mean))
    for label, (values, color, marker) in series.items():
        if values is not None and values.notna().any():
            axes.plot(values, height, marker, color=color, label=label, markersize=5, linestyle="none")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(height, mean.index, fontsize=8)
    axes.set_ylim(-0.7, len(mean) - 0.3)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
