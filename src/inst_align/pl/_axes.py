"""What the plots share: where the cells are, new panels, the look of a map, sizes of markers, legends and scales.

Font sizes are matplotlib's relative ones, so that a user's own style carries over. ``matplotlib.pyplot`` is imported
only to make a figure that notebooks will show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inst_align import _checks as checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.legend import Legend

    from inst_align._checks import Role

INK = "0.35"
"""Grey of everything that is not data: ticks, spines, labels."""

OUTSIDE = 1.03
"""Where legends and scales begin, in widths of the axes."""

RASTER_ABOVE = 20_000
"""Number of points above which a vector file would be slow to open, so that the points go in as an image."""

PANEL_HEIGHT = 3.8
LEGEND_WIDTH = 1.3
LEGEND_ROW = 0.18
"""Inches."""


def coordinates(adata: AnnData, key: str, *, argument: str, name: Role, advice: str = "") -> np.ndarray:
    """Return ``obsm[key]``, shape ``(n, 2)``, float64, (x, y), NaN where a cell has no place; or say what is there."""
    checks.check_anndata(adata, "adata_ref" if name == "reference" else "adata_src")
    if key not in adata.obsm:
        raise KeyError(
            f"`{argument}={key!r}`: no `obsm[{key!r}]` in the {name}; it has {checks.listing(sorted(adata.obsm), 10)}: "
            f"pass one of these as `{argument}`{advice}."
        )
    xy = checks.coordinates(adata, key, name, nan_policy="drop-from-fit")
    if len(xy) and not np.isfinite(xy).any():
        raise ValueError(f"`{argument}={key!r}`: no cell of the {name} has finite coordinates there; pass another key.")
    return xy


def placed(xy: np.ndarray) -> np.ndarray:
    """Return the rows of points, shape ``(n, 2)``, that are not NaN."""
    return xy[np.isfinite(xy[:, 0])]


def aspect(*clouds: np.ndarray) -> float:
    """Return width over height of the box around some points, kept between 0.6 and 1.8."""
    width, height = np.ptp(placed(np.vstack(clouds)), axis=0)
    return float(np.clip(width / height, 0.6, 1.8)) if width > 0 and height > 0 else 1.0


def new_panels(aspects: Sequence[float], *, explained: bool = True) -> list[Axes]:
    """Return one Axes per aspect, side by side in a new figure, with room for a legend on the right if explained."""
    import matplotlib.pyplot as plt

    widths = [PANEL_HEIGHT * ratio for ratio in aspects]
    _, axes = plt.subplots(
        1,
        len(widths),
        figsize=(sum(widths) + 0.5 * len(widths) + explained * LEGEND_WIDTH, PANEL_HEIGHT + 0.7),
        width_ratios=widths,
        layout="compressed",
        squeeze=False,
    )
    return list(axes[0])


def mute(ax: Axes) -> None:
    """Take weight off the frame of a plot, so that the data stands out."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.75")
    ax.tick_params(length=2.5, color="0.75", labelcolor=INK, labelsize="x-small")
    ax.xaxis.label.set(color=INK, size="small")
    ax.yaxis.label.set(color=INK, size="small")


def as_map(ax: Axes, *, invert_y: bool, title: str | None) -> None:
    """Give a plot of coordinates equal axes, few ticks and a title on the left."""
    from matplotlib.ticker import MaxNLocator

    ax.set_aspect("equal")
    if invert_y:
        ax.yaxis.set_inverted(True)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    mute(ax)
    if title is not None:
        ax.set_title(title, loc="left", fontsize="medium")


def inches(ax: Axes) -> tuple[float, float]:
    """Return width and height of an Axes."""
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    return box.width, box.height


def area_per_cell(xy: np.ndarray) -> float:
    """Return the area that a cell takes up on average, 0 where there is none to speak of.

    It comes from the covariance, exactly so for a filled rectangle: rotation does not change it and stray cells hardly
    do.
    """
    if len(xy) < 3:
        return 0.0
    return float(12 * np.sqrt(max(np.linalg.det(np.cov(xy.T)), 0.0)) / len(xy))


def marker_size(ax: Axes, clouds: Sequence[np.ndarray], *, coverage: float = 0.5) -> float:
    """Return the size (points squared, as in ``Axes.scatter``) of markers that fill a share of the densest cloud."""
    clouds = [placed(xy) for xy in clouds]
    areas = [area for area in map(area_per_cell, clouds) if area > 0]
    if not areas:
        return 20.0
    points_per_unit = min(np.array(inches(ax)) * 72 / np.ptp(np.vstack(clouds), axis=0))
    return float(np.clip(coverage * min(areas) * points_per_unit**2, 0.2, 160.0 * coverage))


def key_entry(label: str, color: object, *, hollow: bool = False) -> Artist:
    """Return a legend's entry: a dot, or a ring."""
    from matplotlib.lines import Line2D

    face = "none" if hollow else color
    return Line2D(
        [], [], linestyle="none", marker="o", markersize=5.5, label=label, markerfacecolor=face, markeredgecolor=color
    )


def outside_legend(ax: Axes, entries: Sequence[Artist], *, title: str | None = None, low: bool = False) -> Legend:
    """Add and return a legend right of the axes, at their upper end, or at their lower end to stand below a scale."""
    rows = max(6, int(inches(ax)[1] / LEGEND_ROW) - 1)
    return ax.legend(
        handles=entries,
        title=title,
        loc="lower left" if low else "upper left",
        bbox_to_anchor=(OUTSIDE, 0.0 if low else 1.0),
        ncols=-(-len(entries) // rows),
        borderaxespad=0.0,
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
        handletextpad=0.3,
        columnspacing=1.0,
        labelspacing=0.35,
    )


def outside_scale(ax: Axes, mappable: ScalarMappable, *, label: str, extend: str) -> Colorbar:
    """Add a colour scale right of the axes that takes no room from them, and leaves some below it for a legend."""
    bar = ax.figure.colorbar(
        mappable, cax=ax.inset_axes((OUTSIDE + 0.01, 0.3, 0.04, 0.7)), extend=extend, extendfrac=0.03
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2.5, color=INK, labelcolor=INK, labelsize="x-small")
    bar.set_label(label, size="small")
    return bar
