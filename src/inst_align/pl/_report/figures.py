"""The page's pictures, as PNG. They look the same whatever style the user has set."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inst_align import _keys
from inst_align.pl import _axes, _colors
from inst_align.pl._alignment import _explain, _overlay
from inst_align.pl._convergence import convergence
from inst_align.pl._deformation import deformation

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from matplotlib.axes import Axes

    from inst_align.pl._report.sections import Sections

DPI = 110
HEIGHT = 4.2
"""Inches of a panel."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with what stands below it.

    Parameters
    ----------
    title, caption
        Above and below; plain text.
    alt
        For those who cannot see it.
    png
        The file.
    """

    title: str
    caption: str
    alt: str
    png: bytes


def drawn(draw: Callable[..., object], aspects: list[float], *, height: float = HEIGHT) -> bytes:
    """Return what a function draws into new Axes, one for each ratio of width to height, as the bytes of a PNG."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = BytesIO()
    with style.context("default"):
        widths = [height * ratio for ratio in aspects]
        figure = Figure(figsize=(sum(widths) + 0.6 * len(widths), height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        draw(*axes)
        figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    return file.getvalue()


def before_and_after(sections: Sections, adata_ref: AnnData, adata_src: AnnData, *, invert_y: bool) -> Picture:
    """Draw both sections before and after, for readers without scripts."""
    coloring = _colors.color_cells(adata_ref, adata_src, None, palette=None, cmap="viridis")
    panels = {
        "As stored": [sections.ref_stored, sections.stored],
        "After": [sections.ref, sections.moved],
    }

    def draw(*axes: Axes) -> None:
        for ax, (name, clouds) in zip(axes, panels.items()):
            _overlay(ax, clouds, coloring, size=None, alpha=0.85)
            _axes.as_map(ax, invert_y=invert_y, title=name)
        _explain(axes[-1], coloring)

    return Picture(
        title="Before and after",
        caption="Both sections as they are stored and after the run.",
        alt="Two scatter plots of the cells of both sections, before and after alignment",
        png=drawn(draw, [_axes.aspect(*clouds) for clouds in panels.values()], height=HEIGHT / len(panels) ** 0.5),
    )


def bending(adata_src: AnnData, sections: Sections, *, key: str, invert_y: bool) -> Picture:
    """Draw how the map bends the tissue."""
    return Picture(
        title="How the map bends the source",
        caption="A square grid over the source after the pose, as the rest of the map carries it. Colours: how much the area "
        "around a cell grows or shrinks. Trust smooth, gentle bending; doubt sharp kinks, and black cells, where the map "
        "folds.",
        alt="A bent grid over the cells of the source, coloured by the change of area",
        png=drawn(
            lambda ax: deformation(adata_src, key=key, ax=ax, invert_y=invert_y),
            [_axes.aspect(sections.moved)],
            height=1.25 * HEIGHT,
        ),
    )


def losses(adata_src: AnnData, *, key: str) -> Picture:
    """Draw how the losses went down."""
    return Picture(
        title="Convergence",
        caption="Terms of the loss, step by step; a jump begins a finer scale. A curve that is still falling at its end may "
        "gain by more steps. Low losses are no evidence of a right alignment.",
        alt="Curves of the terms of the loss against steps",
        png=drawn(lambda ax: convergence(adata_src, key=key, ax=ax), [1.9], height=0.8 * HEIGHT),
    )


def overlap(sections: Sections, adata_ref: AnnData, adata_src: AnnData, *, key: str, invert_y: bool) -> Picture | None:
    """Draw the probability that a cell has a counterpart, of the sections that have it."""
    both = {"reference": (adata_ref, sections.ref), "source": (adata_src, sections.moved)}
    column, _ = _keys.cell_columns(key)
    panels = {
        name: (xy, values) for name, (adata, xy) in both.items() if (values := _numbers(adata, column)) is not None
    }
    if not panels:
        return None

    def draw(*axes: Axes) -> None:
        for ax, (name, (xy, values)) in zip(axes, panels.items()):
            _map(ax, xy, values, limits=(0, 1), label="probability", scale=ax is axes[-1], extend="neither")
            _axes.as_map(ax, invert_y=invert_y, title=name.capitalize())

    return Picture(
        title="Overlap",
        caption="Probability that a cell has a counterpart in the other section. Where it is low, the map is carried on "
        "from the tissue around and nothing supports it.",
        alt="Cells coloured by the probability of having a counterpart",
        png=drawn(draw, [_axes.aspect(xy) for xy, _ in panels.values()], height=HEIGHT / len(panels) ** 0.5),
    )


def uncertainty(sections: Sections, adata_src: AnnData, *, key: str, invert_y: bool) -> Picture | None:
    """Draw how far cells may be off, where that is known."""
    _, column = _keys.cell_columns(key)
    values = _numbers(adata_src, column)
    if values is None:
        return None
    known = values[np.isfinite(values)]
    top = float(np.percentile(known, 99))

    def draw(ax: Axes) -> None:
        extend = "max" if (values > top).any() else "neither"
        _map(
            ax,
            sections.moved,
            values,
            limits=(0, top or 1.0),
            label="in the reference's unit",
            scale=True,
            extend=extend,
        )
        _axes.as_map(ax, invert_y=invert_y, title=None)

    return Picture(
        title="Uncertainty",
        caption="How far a cell of the source is expected to be from where it belongs (root mean square), if the pose is "
        "right. Where that is large, do not compare single cells.",
        alt="Cells of the source coloured by how far off they may be",
        png=drawn(draw, [_axes.aspect(sections.moved)]),
    )


def _numbers(adata: AnnData, column: str) -> np.ndarray | None:
    """Return a column of obs, shape ``(n,)``, NaN where there is no value; None where there is none at all."""
    if column not in adata.obs or not pd.api.types.is_numeric_dtype(adata.obs[column]):
        return None
    values = adata.obs[column].to_numpy(dtype=np.float64, na_value=np.nan)
    return values if np.isfinite(values).any() else None


def _map(
    ax: Axes, xy: np.ndarray, values: np.ndarray, *, limits: tuple[float, float], scale: bool, **words: Any
) -> None:
    """Draw cells coloured by numbers, and the scale."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    known = np.isfinite(xy[:, 0])
    drawn = ax.scatter(
        xy[known, 0],
        xy[known, 1],
        c=values[known],
        s=_axes.marker_size(ax, [xy], coverage=0.9),
        cmap=mpl.colormaps["viridis"].with_extremes(bad=_colors.MISSING_COLOR),
        norm=Normalize(*limits),
        plotnonfinite=True,
        linewidths=0,
    )
    if scale:
        _axes.outside_scale(ax, drawn, **words)
