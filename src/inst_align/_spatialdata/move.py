"""Move elements into new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask.dataframe import DataFrame as DaskDataFrame
from geopandas import GeoDataFrame
from spatialdata.models import get_axes_names

from inst_align._spatialdata.rasters import moved_raster
from inst_align._spatialdata.vectors import moved_points, moved_shapes
from inst_align.core.transforms import FoldError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inst_align._spatialdata.detail import Detail
    from inst_align._spatialdata.elements import Element
    from inst_align.core.transforms import Transform


def check_movable(elements: Mapping[str, Element]) -> None:
    """Raise ValueError for an element that cannot be moved."""
    deep = [name for name, element in elements.items() if is_raster(element) and "z" in get_axes_names(element)]
    if deep:
        raise ValueError(
            f"`elements`: {deep[0]!r} has a z axis, and only images and labels with the axes x and y can be moved; "
            "name the elements to be moved, without this one."
        )


def is_raster(element: Element) -> bool:
    """Tell images and labels from points and shapes."""
    return not isinstance(element, GeoDataFrame | DaskDataFrame)


def moved(
    elements: Mapping[str, Element],
    transform: Transform,
    *,
    system: str,
    to: str,
    detail: Detail,
) -> dict[str, Element]:
    """Return new elements, by the names of the old, that lie in the coordinate system ``to`` alone.

    Points, images and labels are lazy; shapes are moved at once.

    Raises
    ------
    FoldError
        There are images or labels, which are drawn by the inverse of the map, and it folds.
    """
    check_movable(elements)
    back = _inverse(transform) if any(is_raster(element) for element in elements.values()) else transform
    result: dict[str, Element] = {}
    for name, element in elements.items():
        if isinstance(element, DaskDataFrame):
            result[name] = moved_points(element, transform, system=system, to=to)
        elif isinstance(element, GeoDataFrame):
            result[name] = moved_shapes(element, transform, system=system, to=to, max_edge=detail.max_edge)
        else:
            result[name] = moved_raster(element, transform, back, name=name, system=system, to=to, detail=detail)
    return result


def _inverse(transform: Transform) -> Transform:
    try:
        return transform.inverse()
    except FoldError as error:
        error.add_note("Images and labels are drawn by the inverse; name other `elements` to move only these.")
        raise
