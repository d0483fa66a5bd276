"""How a map bends the tissue: a grid carried along by it, over the change of area at every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.spatial import cKDTree

from inst_align import _keys, get
from inst_align.pl import _axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from numpy.typing import ArrayLike

    from inst_align.core.transforms import Affine
    from inst_align.core.transforms.base import Transform

    Bend = Callable[[np.ndarray], np.ndarray]

LIMITS = (0.1, 2.0)
"""Least and greatest half-width of the colour scale (log2): 7 % of area should not look like a strong change, and the
few cells next to a fold should not make everything else look pale."""

SAMPLES_PER_SQUARE = 12
"""Points that one side of a grid square is drawn with."""

FOLDED_COLOR = "black"


def deformation(
    adata_src: AnnData | ArrayLike,
    *,
    transform: Transform | None = None,
    key: str = _keys.SPATIAL_ALIGNED,
    spatial_key: str | None = None,
    n_lines: int = 20,
    ax: Axes | None = None,
    size: float | None = None,
    cmap: str = "coolwarm",
    invert_y: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw how the non-rigid part of a map bends and stretches what it moves.

    A regular grid is laid over the cells after the global (affine) part of the map, that is, in the frame that the map
    leads to, and is drawn where the non-rigid part carries it. Colours show by how much the area around each cell
    grows or shrinks on the way; the global part's own scale does not count.

    Parameters
    ----------
    adata_src
        The section that was moved, with the recorded map. With a ``transform`` also points in the frame that it starts
        from, shape ``(n, 2)``, axis order (x, y).
    transform
        Any other map to draw: the inverse of a recorded one, say, over the cells of the reference. ``None`` takes the
        recorded one.
    key
        Name under which the alignment was recorded (its ``key_added``).
    spatial_key
        Key of ``obsm`` with the coordinates to start from, shape ``(n, 2)``, axis order (x, y); ``None`` takes those that
        were aligned, or ``"spatial"`` for a ``transform``.
    n_lines
        Number of grid squares along the longer side of the tissue.
    ax
        Where to draw; ``None`` makes a figure.
    size
        Marker size in points squared; ``None`` adapts it to the number of cells and the size of the axes.
    cmap
        Diverging colour map; its middle means no change.
    invert_y
        Let y grow downwards, as in images. By default it grows upwards.
    title
        Title of the plot; ``None`` states the share of cells at which the map folds, or that the map is rigid.

    Returns
    -------
    The Axes drawn into, in the frame and units that the map leads to: the reference's, for a recorded one.

    Raises
    ------
    KeyError
        When no map is recorded under ``key``, or the coordinates are not there.
    TypeError
        When points are given without a ``transform``, or ``transform`` is none.
    ValueError
        When the section was the reference, which did not move, or ``n_lines`` is not positive.

    Notes
    -----
    The change of area is the determinant of the map's Jacobian over that of its affine part, as a base-2 logarithm: +1
    is twice the area, -1 half of it. The limits are symmetric and take in 99 % of the cells, up to 4 times the area. A
    cell where that ratio is not positive lies in a fold and is drawn in black. The affine part of a composition is the
    product of its affine parts; a displacement alone has none.

    Examples
    --------
    >>> import inst_align as ia
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from matplotlib.figure import Figure
    >>> src = AnnData(np.zeros((50, 1)), obsm={"spatial": np.random.default_rng(0).uniform(size=(50, 2))})
    >>> turn = ia.transforms.to_dict(ia.transforms.Affine.from_rigid(30, (1, 0)))
    >>> src.uns["inst_align"] = {"spatial_rigid": {"version": 1, "role": "source", "transform": turn}}
    >>> ax = ia.pl.deformation(src, key="spatial_rigid", ax=Figure().subplots())
    >>> ax.get_title(loc="left")
    'Rigid: nothing is bent'
    >>> back = ia.get.transform(src, "spatial_rigid").inverse()
    >>> ax = ia.pl.deformation([[0, 0], [1, 0], [1, 1]], transform=back, ax=Figure().subplots())
    """
    if n_lines < 1:
        raise ValueError(f"`n_lines={n_lines}` is not a number of grid squares; give 1 or more.")
    xy, transform = _start(adata_src, transform, key, spatial_key)
    xy = _axes.placed(xy)
    affine, bend = _split(transform)
    start, end = affine(xy), transform(xy)
    if ax is None:
        ax = _axes.new_panels([_axes.aspect(end)], explained=bend is not None)[0]
    size = _axes.marker_size(ax, [end], coverage=3.5) if size is None else size
    if bend is None:
        _cells(ax, end, "0.88", size)
        verdict = "Rigid: nothing is bent"
    else:
        ratio = np.linalg.det(transform.jacobian(xy)) / np.linalg.det(affine.jacobian(xy))
        _area_change(ax, end, ratio, size=size, cmap=cmap)
        folded = np.mean(~(ratio > 0))
        verdict = f"Folds at {folded:.2%} of cells" if folded else "No folds"
    _grid(ax, start, bend, n_lines)
    _axes.as_map(ax, invert_y=invert_y, title=verdict if title is None else title)
    return ax


def _start(
    data: AnnData | ArrayLike, transform: Transform | None, key: str, spatial_key: str | None
) -> tuple[np.ndarray, Transform]:
    """Return the points to draw, before they are moved, and the map."""
    if transform is not None and not (callable(transform) and hasattr(transform, "jacobian")):
        raise TypeError(
            f"`transform` is a {type(transform).__name__}, which is no map: pass one of `ia.transforms`, or what "
            f"`ia.get.transform` returns."
        )
    if hasattr(data, "obsm"):
        adata = cast("AnnData", data)
        if transform is None:
            transform = get.transform(adata, key)
            spatial_key = spatial_key or str(get.params(adata, key).get("spatial_key", _keys.SPATIAL))
        at = _axes.coordinates(adata, spatial_key or _keys.SPATIAL, argument="spatial_key", name="source")
        return at, transform
    if transform is None:
        raise TypeError(
            f"`adata_src` is a {type(data).__name__}, which holds no map: pass an AnnData, or give a `transform` as well."
        )
    from inst_align.core.transforms.base import as_points

    return as_points(cast("ArrayLike", data)), transform


def _split(transform: Transform) -> tuple[Affine, Bend | None]:
    """Return the global part of a map and, if there is one, the non-rigid part that follows it."""
    from inst_align.core.transforms import Affine, Compose

    affine, parts = Affine(np.eye(3)), transform.parts if isinstance(transform, Compose) else (transform,)
    for part in parts:
        affine = part @ affine if isinstance(part, Affine) else affine
    if all(isinstance(part, Affine) for part in parts):
        return affine, None
    back = affine.inverse()
    return affine, lambda xy: transform(back(xy))


def _cells(ax: Axes, xy: np.ndarray, color: str | np.ndarray, size: float, **style: Any) -> PathCollection:
    rasterized = len(xy) > _axes.RASTER_ABOVE
    return ax.scatter(xy[:, 0], xy[:, 1], s=size, c=color, linewidths=0, rasterized=rasterized, **style)


def _area_change(ax: Axes, xy: np.ndarray, ratio: np.ndarray, *, size: float, cmap: str) -> None:
    """Draw the cells coloured by log2 of the area ratio, and the scale."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    change = np.log2(ratio, where=ratio > 0, out=np.full(len(ratio), np.nan))
    sizes = np.abs(change[ratio > 0])
    limit = float(np.clip(np.percentile(sizes, 99), *LIMITS)) if len(sizes) else LIMITS[0]
    colors = mpl.colormaps[cmap].with_extremes(bad=FOLDED_COLOR)
    drawn = _cells(ax, xy, change, size, cmap=colors, norm=Normalize(-limit, limit), plotnonfinite=True)
    extend = "both" if (sizes > limit).any() else "neither"
    bar = _axes.outside_scale(ax, drawn, label="log2 area change", extend=extend)
    bar.ax.set_title("grown", fontsize="x-small", color=_axes.INK, pad=10)
    bar.ax.set_xlabel("shrunk", fontsize="x-small", color=_axes.INK, labelpad=10)
    if len(sizes) < len(ratio):
        _axes.outside_legend(ax, [_axes.key_entry("folded", FOLDED_COLOR)], low=True)


def _grid(ax: Axes, xy: np.ndarray, bend: Bend | None, n_lines: int) -> None:
    """Draw the lines of a regular grid over ``xy``, where there is tissue, after ``bend`` has moved them."""
    from matplotlib.collections import LineCollection

    low, high = xy.min(axis=0), xy.max(axis=0)
    side = float((high - low).max()) / n_lines
    tissue = cKDTree(xy)
    some = xy[:: max(1, len(xy) // 2000)]
    reach = max(0.4 * side, float(np.median(tissue.query(some, k=[min(7, len(xy))])[0])))  # to the sixth neighbour
    lines = []
    for along in (0, 1):
        for line in _straight_lines(low, high, side, along=along):
            near = np.isfinite(tissue.query(line, distance_upper_bound=reach)[0])
            for run in np.split(np.arange(len(line)), np.flatnonzero(np.diff(near)) + 1):
                if near[run[0]] and len(run) > SAMPLES_PER_SQUARE:
                    lines.append(line[run] if bend is None else bend(line[run]))
    ax.add_collection(LineCollection(lines, colors="0.15", linewidths=0.6, alpha=0.7), autolim=True)
    ax.autoscale_view()


def _straight_lines(low: np.ndarray, high: np.ndarray, side: float, *, along: int) -> list[np.ndarray]:
    """Return the grid lines that run along one axis, each of shape ``(m, 2)``, centred on the box and just past it."""
    middle = (low + high) / 2
    squares = np.ceil((high - low) / side / 2 + 0.5).astype(int)
    across = 1 - along
    lines = []
    for k in range(-squares[across], squares[across] + 1):
        line = np.empty((2 * squares[along] * SAMPLES_PER_SQUARE + 1, 2))
        line[:, along] = middle[along] + side * np.linspace(-squares[along], squares[along], len(line))
        line[:, across] = middle[across] + side * k
        lines.append(line)
    return lines
