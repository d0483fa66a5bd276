"""Move what a SpatialData object holds along a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from inst_align import _keys
from inst_align._checks import listing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

    from inst_align._spatialdata.canvas import Canvas
    from inst_align.core.transforms import Transform


def move_elements(
    sdata: SpatialData,
    transform: Transform,
    *,
    coordinate_system: str = "global",
    to: str = _keys.SYSTEM_ALIGNED,
    elements: Iterable[str] | None = None,
    suffix: str = _keys.SUFFIX_ALIGNED,
    direction: Literal["src_to_ref", "ref_to_src"] = "src_to_ref",
    pixel_size: float | None = None,
    like: DataArray | DataTree | None = None,
    crop: bool = False,
    max_edge: float | None = None,
    copy: bool = False,
) -> SpatialData | None:
    """Move points, shapes, images and labels along a map, into new elements of a new coordinate system.

    SpatialData can store affine transformations, but no others, so that the result of a non-rigid map has to be
    stored as data. The elements that there are stay as they are.

    Convention: the map takes (x, y) of ``coordinate_system`` to (x, y) of ``to``. Each element goes through its own
    transformation to ``coordinate_system`` first. The centre of a raster's first pixel is at (0.5, 0.5), as everywhere
    in SpatialData.

    - *Points* are moved lazily, partition by partition, and keep their other columns; x and y become float64.
    - *Circles* get the moved centre, and a radius that is scaled by the square root of the change of area. *Polygons*
      are moved by their vertices, after long edges have been divided.
    - *Images and labels* are drawn anew on a canvas, lazily, chunk by chunk: each of its pixels looks up, by the
      inverse of the map, where it comes from. Images are interpolated linearly, labels keep their values, and what
      lies outside is 0. Rasters with several scales get as many again.

    Parameters
    ----------
    sdata
        The object with the elements; the new ones are added to it, in memory. Where it is backed by a file, add them
        there by ``sdata.write_element``.
    transform
        From the source's frame to the reference's: ``ia.get.transform(table)``, or any map of :mod:`inst_align.transforms`.
    coordinate_system
        The frame that the map starts from.
    to
        The coordinate system that the new elements are put into.
    elements
        Names of the elements to move; ``None`` takes all that live in ``coordinate_system``.
    suffix
        The new elements are called as the old ones, with this at the end.
    direction
        ``"src_to_ref"`` moves along the map, ``"ref_to_src"`` along its inverse.
    pixel_size
        Of new images and labels, in units of ``to``; ``None`` keeps the size that the pixels have after the affine part
        of the map (the smaller one, where x and y differ).
    like
        An image or labels that live in ``to``: new rasters continue its pixel grid, so far as they need it.
        Excludes ``pixel_size``.
    crop
        With ``like``, take its grid as it is; what lies beyond is lost. Without it nothing is ever cropped.
    max_edge
        Longest edge of polygons before they are moved, in units of ``coordinate_system``; ``None`` takes a quarter of
        the node distance of the displacement, and ``inf`` divides no edge.
    copy
        Return a changed copy, which shares no element with ``sdata``, instead of adding to it.

    Returns
    -------
    ``None``, or with ``copy=True`` the copy. Adds, for each element, one called ``name + suffix`` with a single
    transformation: the identity to ``to``, or for rasters the place and size of their pixels there.

    Raises
    ------
    FoldError
        If there are images or labels and the map has no inverse.
    KeyError
        If there is no element of a name.
    TypeError
        If ``sdata`` or ``transform`` is something else.
    ValueError
        If an element does not live in ``coordinate_system``, a new name is taken, an element has a z axis, or arguments
        exclude each other. Nothing has been added then.

    Examples
    --------
    >>> import numpy as np
    >>> import inst_align as ia
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Labels2DModel
    >>> sdata = SpatialData(labels={"cells": Labels2DModel.parse(np.array([[0, 0, 7], [0, 8, 8]]))})
    >>> ia.tl.move_elements(sdata, ia.transforms.Affine.from_rigid(np.pi / 2, (3, 1)))
    >>> sdata["cells_aligned"].shape[0] > 3, sorted(set(np.unique(sdata["cells_aligned"])))
    (True, [np.int64(0), np.int64(7), np.int64(8)])
    """
    from inst_align._spatialdata.detail import Detail
    from inst_align._spatialdata.elements import add, check_spatialdata, copied, elements_in, new_names
    from inst_align._spatialdata.move import moved

    check_spatialdata(sdata, "sdata")
    transform = _directed(transform, direction)
    grid = None if like is None else _grid(like, to)
    detail = Detail(pixel_size=pixel_size, like=grid, crop=crop, max_edge=max_edge)
    chosen = elements_in(sdata, coordinate_system, elements, argument="sdata")
    names = new_names(sdata, chosen, suffix)
    new = moved(chosen, transform, system=coordinate_system, to=to, detail=detail)
    target = copied(sdata) if copy else sdata
    add(target, {names[name]: element for name, element in new.items()})
    return target if copy else None


def _directed(transform: Transform, direction: str) -> Transform:
    """Return the map in the direction asked for."""
    from inst_align.core.transforms import Transform

    if not isinstance(transform, Transform):
        raise TypeError(
            f"`transform` is a {type(transform).__module__}.{type(transform).__name__}; pass what `ia.get.transform` "
            "returns, or another map of `ia.transforms`."
        )
    if direction not in ("src_to_ref", "ref_to_src"):
        raise ValueError(f'`direction={direction!r}` is not known; pass "src_to_ref" or "ref_to_src".')
    return transform if direction == "src_to_ref" else transform.inverse()


def _grid(like: DataArray | DataTree, system: str) -> Canvas:
    """Return the grid of a raster in the coordinate system of the new elements."""
    from inst_align._spatialdata.canvas import grid_of
    from inst_align._spatialdata.elements import transformations

    systems = transformations(like)
    if system not in systems:
        raise ValueError(
            f"`like` does not live in `to={system!r}`, only in {listing(sorted(systems), 10)}; set its transformation, or "
            "pass another raster."
        )
    return grid_of(like, system)
