"""Move points and shapes: coordinates go through the element's transformation and then through the map."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import shapely
from spatialdata.transformations import Identity

from inst_align._spatialdata.elements import matrix_to, register
from inst_align.core.pullback import finest_spacing

if TYPE_CHECKING:
    import pandas as pd
    from dask.dataframe import DataFrame as DaskDataFrame
    from geopandas import GeoDataFrame

    from inst_align.core.transforms import Transform

_EDGES_PER_NODE = 4
"""Edges of polygons are at most a node distance of the displacement divided by this: then they follow its bends."""


def moved_points(points: DaskDataFrame, transform: Transform, *, system: str, to: str) -> DaskDataFrame:
    """Return points whose x and y went along, as float64; lazily, partition by partition, all else as it was."""
    move = partial(_moved_partition, matrix=matrix_to(points, system), transform=transform)
    moved = points.map_partitions(move, meta=_as_float(points._meta))
    moved.attrs.update(copy.deepcopy(dict(points.attrs)))
    register(moved, to, Identity(), alone=True)
    return moved


def _as_float(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({axis: np.float64 for axis in ("x", "y", "z") if axis in frame.columns})


def _moved_partition(frame: pd.DataFrame, *, matrix: np.ndarray, transform: Transform) -> pd.DataFrame:
    axes = ["x", "y", "z"][: len(matrix) - 1]
    place = frame[axes].to_numpy(dtype=np.float64) @ matrix[:-1, :-1].T + matrix[:-1, -1]
    place[:, :2] = transform(place[:, :2])
    return _as_float(frame).assign(**dict(zip(axes, place.T)))


def moved_shapes(
    shapes: GeoDataFrame, transform: Transform, *, system: str, to: str, max_edge: float | None
) -> GeoDataFrame:
    """Return shapes that went along: circles by centre and radius, polygons by every vertex of refined edges.

    ``max_edge`` is the longest edge that is left, in units of the coordinate system; None takes a quarter of the
    displacement's node distance.
    """
    matrix = matrix_to(shapes, system)
    geometry = shapely.transform(shapes.geometry.to_numpy(), lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2])
    moved = shapes.copy()
    if shapely.get_type_id(geometry[0]) == shapely.GeometryType.POINT:
        centre = shapely.get_coordinates(geometry)
        area = np.abs(np.linalg.det(matrix[:2, :2]) * np.linalg.det(transform.jacobian(centre)))
        moved["radius"] = shapes["radius"].to_numpy() * np.sqrt(area)
    else:
        longest = finest_spacing(transform) / _EDGES_PER_NODE if max_edge is None else max_edge
        if math.isfinite(longest):
            geometry = shapely.segmentize(geometry, longest)
    moved["geometry"] = shapely.transform(geometry, transform)
    register(moved, to, Identity(), alone=True)
    return moved
