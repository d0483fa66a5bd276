"""Two sections, one over the other, before and after alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inst_align import _keys
from inst_align.pl import _axes, _colors

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from inst_align.pl._colors import Coloring, Palette

ADVICE = ", or run `ia.tl.align_pair` first"


def alignment(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    color: str | None = None,
    basis: str = _keys.SPATIAL_ALIGNED,
    before: str | None = _keys.SPATIAL,
    ax: Axes | None = None,
    size: float | None = None,
    alpha: float | None = None,
    palette: Palette | None = None,
    cmap: str = "viridis",
    invert_y: bool = False,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw both sections over each other, before and after alignment.

    The cells of the two sections are drawn in one shuffled order (the same on every call), so that neither section
    hides the other. With ``color``, the reference's cells are dots and the source's are rings.

    Parameters
    ----------
    adata_ref
        The section that stays in place.
    adata_src
        The section that was moved.
    color
        ``None`` colours by section. Otherwise a column of ``obs`` or a gene of ``var_names`` that both sections have;
        a column comes first where the name is both. A gene's values are those of ``X``, as they are.
    basis
        Key of ``obsm`` with the coordinates after alignment, shape ``(n, 2)``, axis order (x, y).
    before
        Key of ``obsm`` with the coordinates before alignment; ``None`` leaves that panel out.
    ax
        Where to draw. Only the overlay in ``basis`` is drawn then. ``None`` makes a figure with the panels "Before"
        and "After".
    size
        Marker size in points squared; ``None`` adapts it to the number of cells and the size of the axes.
    alpha
        Opacity of the markers between 0 and 1; ``None`` means 0.85.
    palette
        Colours of the sections or categories: a sequence, a mapping from category (or ``"reference"`` and
        ``"source"``) to colour, or the name of a colour map. ``None`` takes ``uns[f"{color}_colors"]`` of the
        reference, then of the source, then a palette that colour-blind readers can use as far as that goes.
    cmap
        Colour map of numbers. Both sections share its limits: the range of a column, and for a gene the range up to
        the 99th percentile.
    invert_y
        Let y grow downwards, as in images. By default it grows upwards.
    title
        Title of the plot, or of the figure when there are two panels.
    legend
        Whether to explain the colours, right of the axes.

    Returns
    -------
    The Axes of the overlay in ``basis``. Its ``figure`` holds both panels.

    Raises
    ------
    KeyError
        When a section lacks the coordinates, or when the two do not both have ``color``.
    ValueError
        When coordinates are not of shape ``(n, 2)``, or none is finite.
    TypeError
        When a section is no AnnData.

    Notes
    -----
    Cells without a value are grey; cells without finite coordinates are left out. With more than 20,000 cells the markers are rasterised in vector files.

    Examples
    --------
    >>> import inst_align as ia
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from matplotlib.figure import Figure
    >>> xy = np.random.default_rng(0).uniform(size=(50, 2))
    >>> ref = AnnData(np.zeros((50, 1)), obsm={"spatial_aligned": xy})
    >>> src = AnnData(np.zeros((50, 1)), obsm={"spatial_aligned": xy + 0.01})
    >>> ax = ia.pl.alignment(ref, src, ax=Figure().subplots())
    >>> len(ax.collections[0].get_offsets())
    100
    """
    after = _both(adata_ref, adata_src, basis, argument="basis", advice=ADVICE)
    coloring = _colors.color_cells(adata_ref, adata_src, color, palette=palette, cmap=cmap)
    panels = {"After": after}
    if ax is None and before is not None:
        panels = {"Before": _both(adata_ref, adata_src, before, argument="before"), "After": after}
    axes = (
        [ax]
        if ax is not None
        else _axes.new_panels([_axes.aspect(*clouds) for clouds in panels.values()], explained=legend)
    )
    for panel, (name, clouds) in zip(axes, panels.items()):
        _overlay(panel, clouds, coloring, size=size, alpha=0.85 if alpha is None else alpha)
        _axes.as_map(panel, invert_y=invert_y, title=name if len(panels) > 1 else title)
    if len(panels) > 1 and title is not None:
        axes[-1].figure.suptitle(title, fontsize="large")
    if legend:
        _explain(axes[-1], coloring)
    return axes[-1]


def _both(adata_ref: AnnData, adata_src: AnnData, key: str, *, argument: str, advice: str = "") -> list[np.ndarray]:
    return [
        _axes.coordinates(adata_ref, key, argument=argument, name="reference", advice=advice),
        _axes.coordinates(adata_src, key, argument=argument, name="source", advice=advice),
    ]


def _overlay(ax: Axes, clouds: list[np.ndarray], coloring: Coloring, *, size: float | None, alpha: float) -> None:
    """Draw dots and rings as one collection: only then can the order be mixed."""
    size = _axes.marker_size(ax, clouds) if size is None else size
    xy = np.vstack(clouds)
    edge = coloring.rgba * np.array([1.0, 1.0, 1.0, alpha])
    face = edge.copy()
    width = np.zeros(len(xy))
    if coloring.name is not None:
        source = np.arange(len(xy)) >= len(clouds[0])
        face[source, 3] = 0.0
        width[source] = np.clip(0.22 * np.sqrt(size), 0.3, 1.5)
    order = np.random.default_rng(0).permutation(len(xy))
    order = order[np.isfinite(xy[order, 0])]
    ax.scatter(
        xy[order, 0],
        xy[order, 1],
        s=size,
        c=face[order],
        edgecolors=edge[order],
        linewidths=width[order].tolist(),
        rasterized=len(xy) > _axes.RASTER_ABOVE,
    )


def _explain(ax: Axes, coloring: Coloring) -> None:
    entries = [_axes.key_entry(label, color) for label, color in coloring.legend.items()]
    if coloring.name is None:
        _axes.outside_legend(ax, entries)
        return
    marks = [_axes.key_entry("reference", _axes.INK), _axes.key_entry("source", _axes.INK, hollow=True)]
    if coloring.missing:
        marks.append(_axes.key_entry("no value", _colors.MISSING_COLOR))
    if coloring.scale is None:
        gap = _axes.key_entry("", "none")
        _axes.outside_legend(ax, [*entries, gap, *marks], title=coloring.name)
    else:
        _axes.outside_scale(ax, coloring.scale, label=coloring.name, extend=coloring.extend)
        _axes.outside_legend(ax, marks, low=True)
