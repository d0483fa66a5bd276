"""Landmarks over the two sections, before and after alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align import _keys, get
from inst_align._landmarks import read_pairs
from inst_align.metrics import spacing
from inst_align.pl import _axes, _colors
from inst_align.pl._alignment import ADVICE, _both, _overlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from matplotlib.axes import Axes

    from inst_align._landmarks import Points

FAINT = 0.25
"""Opacity of the cells."""
MARK_SIZE = 34.0
NUMBERED = 40
"""Most pairs that get their row's number."""


def landmarks(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    landmarks_ref: Points | None = None,
    landmarks_src: Points | None = None,
    basis: str = _keys.SPATIAL_ALIGNED,
    before: str | None = _keys.SPATIAL,
    ax: Axes | None = None,
    size: float | None = None,
    invert_y: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw pairs of landmarks over both sections, before and after alignment, with a line between partners.

    The landmarks of the source move along the recorded map. A pair that stays long where others have closed was
    marked wrongly, or the map is wrong there.

    Parameters
    ----------
    adata_ref
        The section that stayed in place.
    adata_src
        The section that was moved, with the recorded map.
    landmarks_ref, landmarks_src
        Points that belong together, row by row, each in its own section's frame: shape ``(k, 2)``, a DataFrame with x
        and y, or a GeoDataFrame of points. ``None`` takes those that the run was given.
    basis
        Key of ``obsm`` with the coordinates after alignment, under which the map is recorded.
    before
        The same before alignment: coordinates that were aligned, or those of an earlier run such as
        ``"spatial_rigid"``. ``None`` leaves that panel out.
    ax
        Where to draw; only the panel of ``basis`` is drawn then. ``None`` makes a figure.
    size
        Marker size of the cells in points squared; ``None`` adapts it.
    invert_y
        Let y grow downwards, as in images.
    title
        Title of the plot, or of the figure when there are two panels. ``None`` states the distances after alignment.

    Returns
    -------
    The Axes of the panel in ``basis``. Its ``figure`` holds both panels.

    Raises
    ------
    KeyError
        When coordinates or a map are missing, or no landmarks were given and none are recorded.
    TypeError
        When a section is no AnnData, or landmarks are no points.
    ValueError
        When landmarks do not pair up.

    Examples
    --------
    >>> import inst_align as ia
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from matplotlib.figure import Figure
    >>> xy = np.random.default_rng(0).uniform(0, 100, size=(50, 2))
    >>> shift = ia.transforms.Affine.from_rigid(0, (10, 0))
    >>> ref = AnnData(np.zeros((50, 1)), obsm={"spatial": xy, "spatial_aligned": xy})
    >>> src = AnnData(np.zeros((50, 1)), obsm={"spatial": xy - [10, 0], "spatial_aligned": xy})
    >>> record = {"version": 1, "role": "source", "transform": ia.transforms.to_dict(shift)}
    >>> src.uns["inst_align"] = {"spatial_aligned": record}
    >>> ax = Figure().subplots()
    >>> marks = {"landmarks_ref": [[20, 20], [80, 30]], "landmarks_src": [[10, 20], [70, 30]]}
    >>> ia.pl.landmarks(ref, src, **marks, ax=ax).get_title(loc="left")
    'Landmarks 0.0 neighbour distances apart (median; 0.0 at most)'
    """
    marks = _marks(adata_src, basis, landmarks_ref, landmarks_src)
    clouds = {"After": (basis, _both(adata_ref, adata_src, basis, argument="basis", advice=ADVICE))}
    if ax is None and before is not None:
        clouds = {"Before": (before, _both(adata_ref, adata_src, before, argument="before")), **clouds}
    panels = {
        name: (cells, marks[0], _map_to(adata_src, key, basis)(marks[1])) for name, (key, cells) in clouds.items()
    }
    axes = [ax] if ax is not None else _axes.new_panels([_axes.aspect(*cells) for cells, _, _ in panels.values()])
    coloring = _colors.color_cells(adata_ref, adata_src, None, palette=None, cmap="viridis")
    verdict = _verdict(*panels["After"])
    for panel, (name, (cells, ref, src)) in zip(axes, panels.items()):
        _overlay(panel, cells, coloring, size=size, alpha=FAINT)
        _draw_pairs(panel, ref, src)
        alone = verdict if title is None else title
        _axes.as_map(panel, invert_y=invert_y, title=name if len(panels) > 1 else alone)
    if len(panels) > 1:
        axes[-1].figure.suptitle(verdict if title is None else title, fontsize="medium", color=_axes.INK)
    _axes.outside_legend(axes[-1], [_axes.key_entry(label, color) for label, color in coloring.legend.items()])
    return axes[-1]


def _marks(adata_src: AnnData, key: str, ref: Any, src: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the landmarks given, or else those of the run."""
    if ref is not None or src is not None:
        return read_pairs([] if ref is None else ref, [] if src is None else src)
    params = get.params(adata_src, key)
    if "landmarks_ref" not in params:
        raise KeyError(
            f"`landmarks_ref`: none were given, and the run under `basis={key!r}` had none; pass `landmarks_ref` and "
            f"`landmarks_src`."
        )
    return params["landmarks_ref"], params["landmarks_src"]


def _map_to(adata_src: AnnData, key: str, basis: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the map from the source's own frame to that of ``obsm[key]``."""
    if key != basis and key == get.params(adata_src, basis).get("spatial_key", _keys.SPATIAL):
        return lambda xy: xy
    return get.transform(adata_src, key)


def _verdict(cells: list[np.ndarray], ref: np.ndarray, src: np.ndarray) -> str:
    distance = np.linalg.norm(src - ref, axis=1) / spacing(cells[0])
    return f"Landmarks {np.median(distance):.1f} neighbour distances apart (median; {distance.max():.1f} at most)"


def _draw_pairs(ax: Axes, ref: np.ndarray, src: np.ndarray) -> None:
    """Draw both points of each pair, a line between them, and the number of the row."""
    from matplotlib.collections import LineCollection

    lines = list(np.stack([ref, src], axis=1))
    ax.add_collection(LineCollection(lines, colors="0.1", linewidths=1.1, zorder=3))
    for points, color, marker in zip((ref, src), _colors.SECTION_COLORS, ("o", "D"), strict=True):
        x, y = points.T
        ax.scatter(x, y, s=MARK_SIZE, c=color, marker=marker, edgecolors="white", linewidths=0.8, zorder=4)
    if len(ref) <= NUMBERED:
        for row, point in enumerate(ref):
            ax.annotate(
                str(row), point, xytext=(5, 4), textcoords="offset points", fontsize="x-small", color="0.1", zorder=5
            )
    ax.autoscale_view()
