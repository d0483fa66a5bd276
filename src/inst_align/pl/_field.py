"""A gene in the expression field that both sections share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inst_align import _keys
from inst_align.pl import _axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

ADVICE = ", or run `ia.tl.align_pair` first"
REACH, EDGE = 3.0, 1.0
"""Median neighbour distances: gaps between cells narrower than twice the one are closed, and the tissue ends at the other."""
CLIP = 99.5
"""Percentile at which the colours end."""


def field(
    adata_ref: AnnData,
    adata_src: AnnData,
    gene: str,
    *,
    key: str = _keys.SPATIAL_ALIGNED,
    ax: Axes | None = None,
    n_pixels: int = 200,
    cmap: str = "viridis",
    invert_y: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw a gene in the continuous expression field that both sections share, wherever there is tissue of either.

    Parameters
    ----------
    adata_ref
        The section that stayed in place.
    adata_src
        The section that was moved; the field is recorded on it.
    gene
        A gene that the field knows, of ``ia.get.field(adata_src).genes``.
    key
        The ``key_added`` of the run: the field's record, and the coordinates of the cells.
    ax
        Where to draw; ``None`` makes a figure.
    n_pixels
        Pixels along the longer side.
    cmap
        Colour map, from the least value to the 99.5th percentile.
    invert_y
        Let y grow downwards, as in images. By default it grows upwards.
    title
        Of the plot; ``None`` takes the name of the gene.

    Returns
    -------
    The Axes that hold the image, log-normalised expression.

    Raises
    ------
    KeyError
        There is no such coordinates or record, the run left no field, or the field does not know the gene.
    ValueError
        Coordinates are not of shape ``(n, 2)``, or the sections are in each other's place.

    Examples
    --------
    >>> import inst_align as ia
    >>> from matplotlib.figure import Figure
    >>> ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=100, rng=0)
    >>> ia.tl.align_pair(ref, src, accept="rigid", rng=0, progress=False)
    >>> ax = ia.pl.field(ref, src, ref.var_names[0], ax=Figure().subplots())
    >>> ax.get_title(loc="left") == ref.var_names[0]
    True
    """
    from inst_align import get

    ref = _axes.placed(_axes.coordinates(adata_ref, key, argument="key", name="reference", advice=ADVICE))
    src = _axes.placed(_axes.coordinates(adata_src, key, argument="key", name="source", advice=ADVICE))
    known = get.field(adata_src, key)
    x, y, near = _pixels(ref, src, n_pixels)
    places = np.stack(np.meshgrid(x, y), axis=-1)
    image = np.full(near.shape, np.nan)
    image[near] = known.predict(places[near], gene).to_numpy()[:, 0]
    if ax is None:
        [ax] = _axes.new_panels([_axes.aspect(ref, src)])
    half = (x[1] - x[0]) / 2
    shown = ax.imshow(
        image,
        extent=(x[0] - half, x[-1] + half, y[0] - half, y[-1] + half),
        origin="lower",
        cmap=cmap,
        vmax=np.nanpercentile(image, CLIP),
        interpolation="bilinear",
    )
    _axes.as_map(ax, invert_y=invert_y, title=gene if title is None else title)
    _axes.outside_scale(ax, shown, label="log-normalised expression", extend="max")
    return ax


def _pixels(ref: np.ndarray, src: np.ndarray, n_pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of columns and rows, and which pixels (rows, columns) are tissue."""
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    from inst_align.core.section import median_spacing

    cells = np.vstack([ref, src])
    low, high = cells.min(axis=0), cells.max(axis=0)
    pixel = max((high - low).max() / n_pixels, np.finfo(np.float64).tiny)
    spacing = median_spacing(ref)
    reach, edge = max(REACH * spacing, pixel), max(EDGE * spacing, pixel)
    x, y = (np.arange(a - reach - pixel, b + reach + 2 * pixel, pixel) for a, b in zip(low, high, strict=True))
    distance = cKDTree(cells).query(np.stack(np.meshgrid(x, y), axis=-1))[0]
    inside = distance_transform_edt(distance <= reach) * pixel > reach - edge
    return x, y, inside | (distance <= edge)
