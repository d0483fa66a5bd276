"""A fitted map, applied to what was no part of the fit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from inst_align import _keys, get
from inst_align._anndata import write_applied
from inst_align._checks import check_key_added, coordinates, warn_user
from inst_align._maps import Direction, lattice, oriented
from inst_align._record import read_record
from inst_align.core.transforms.base import as_numbers

if TYPE_CHECKING:
    from inst_align._checks import Role
    from inst_align.core.transforms import Transform

ROLES: dict[Direction, Role] = {"src_to_ref": "source", "ref_to_src": "reference"}
"""Whose points a map in this direction takes."""


def apply_transform(
    data: Any,
    transform: Transform | AnnData,
    *,
    direction: Direction,
    alignment_key: str = _keys.SPATIAL_ALIGNED,
    spatial_key: str = _keys.SPATIAL,
    key_added: str | None = None,
    columns: tuple[str, str] = ("x", "y"),
    max_edge: float | None = None,
    return_inside: bool = False,
    copy: bool = False,
) -> Any:
    """Move anything along a fitted map: cells that were filtered out before the fit, transcripts, polygons.

    What is given stays as it is, except for an AnnData, which gets the result in place unless ``copy=True``. Rows and
    their order never change.

    Parameters
    ----------
    data
        What to move, in the frame and the unit of its section:

        - an AnnData with coordinates in ``obsm[spatial_key]``;
        - an array of shape ``(n, 2)``, axis order (x, y);
        - a DataFrame with the two ``columns``;
        - a GeoDataFrame, of which every vertex is moved, after long edges have been divided (see ``max_edge``). Heights
          (z) and columns such as a radius stay.
    transform
        The map from the source to the reference, or the source with its record.
    direction
        "src_to_ref" takes points of the source to the reference's frame, "ref_to_src" takes points of the reference to
        the source's frame. It is never guessed.
    alignment_key
        The ``key_added`` of the run whose record is meant, when ``transform`` is an AnnData.
    spatial_key
        Key in ``obsm`` of the coordinates, shape ``(n, 2)``, axis order (x, y).
    key_added
        Key in ``obsm`` for the result. ``None`` takes ``alignment_key`` for "src_to_ref", so that these cells have
        their place under the same key as those that were fitted, and "spatial_in_source" for "ref_to_src".
    columns
        Names of the columns of x and y of a DataFrame.
    max_edge
        Longest edge that a polygon or line keeps, in the unit of the coordinates: longer ones get vertices in between
        first, so that they can bend. ``None`` takes the spacing of the map's grid; an affine map needs none.
    return_inside
        Also tell what lies where the map was fitted: within the box around both sections and the margin over which the
        displacement fades out. Beyond it a map is affine. An affine map has no outside.
    copy
        Return a changed copy of an AnnData instead of writing to the one given.

    Returns
    -------
    A new array, DataFrame or GeoDataFrame, float64; for an AnnData ``None``, or with ``copy=True`` the changed copy.
    With ``return_inside=True`` a pair of that and a bool array of shape ``(n,)``; a geometry is inside when all of its
    vertices are. Rows that are not finite become NaN, and are not inside. An AnnData has after that:

    ``obsm[key_added]``
        float64, shape ``(n, 2)``: the cells' coordinates in the other frame and its unit.
    ``uns["inst_align"][key_added]``
        That they come from here.

    Raises
    ------
    KeyError
        If a key or a column is missing.
    TypeError
        If ``data`` or ``transform`` is something else.
    ValueError
        If coordinates or arguments cannot be used, the map folds and "ref_to_src" is asked for, or ``key_added``
        holds the result of an alignment, which is not overwritten from here.

    Warns
    -----
    UserWarning
        If no point lies where the map was fitted, which a wrong unit, frame or direction makes happen.

    Examples
    --------
    >>> import numpy as np
    >>> import inst_align as ia
    >>> shift = ia.transforms.Affine.from_rigid(0, (3, 4))
    >>> ia.tl.apply_transform(np.array([[0.0, 0.0], [1.0, 2.0]]), shift, direction="src_to_ref")
    array([[3., 4.],
           [4., 6.]])
    >>> cells = ia.datasets.toy_pair(n_cells=100, n_genes=20, rng=0)[1]
    >>> ia.tl.apply_transform(cells, shift, direction="src_to_ref")
    >>> np.allclose(cells.obsm["spatial_aligned"] - cells.obsm["spatial"], (3, 4))
    True
    """
    given = get.transform(transform, alignment_key) if isinstance(transform, AnnData) else transform
    move = oriented(given, direction)
    if isinstance(data, AnnData):
        if key_added is None:
            key_added = alignment_key if direction == "src_to_ref" else _keys.SPATIAL_IN_SOURCE
        _check_key(data, key_added, spatial_key, ROLES[direction])
        moved = _moved(coordinates(data, spatial_key, ROLES[direction]), move)
        data = data.copy() if copy else data
        params = {"direction": direction, "spatial_key": spatial_key}
        write_applied(data, key_added=key_added, xy=moved.xy, params=params)
        result, inside = data if copy else None, moved.inside
    elif _is_geodataframe(data):
        moved, result, inside = _geometries(data, move, max_edge)
    elif isinstance(data, pd.DataFrame):
        moved = _moved(_columns(data, columns), move)
        result, inside = data.assign(**dict(zip(columns, moved.xy.T, strict=True))), moved.inside
    else:
        moved = _moved(_array(data), move)
        result, inside = moved.xy, moved.inside
    _warn_if_elsewhere(moved.points, _region(transform, move, alignment_key, ROLES[direction]), ROLES[direction])
    return (result, inside) if return_inside else result


class _Moved(NamedTuple):
    """Points before and after, shape ``(n, 2)``, and which of them were inside, shape ``(n,)``."""

    points: np.ndarray
    xy: np.ndarray
    inside: np.ndarray


def _moved(points: np.ndarray, move: Transform) -> _Moved:
    return _Moved(points, move(points), move.inside(points))


def _check_key(adata: AnnData, key: str, spatial_key: str, name: Role) -> None:
    check_key_added(adata, key, name, spatial_key=spatial_key)
    if key in adata.uns.get(_keys.UNS, {}) and read_record(adata, key).get("role") != _keys.ROLE_APPLIED:
        raise ValueError(
            f"`key_added={key!r}`: `data` holds the result of a run of its own under this key, which is not "
            "overwritten; pass another `key_added`."
        )


def _array(data: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray | list | tuple):
        raise TypeError(
            f"`data` is a {type(data).__module__}.{type(data).__name__}; pass an AnnData, an array of shape (n, 2), a "
            "DataFrame or a GeoDataFrame."
        )
    points = as_numbers(data, "data", np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"`data` must have shape (n, 2), one (x, y) per row, but has shape {points.shape}.")
    return points


def _columns(data: pd.DataFrame, columns: tuple[str, str]) -> np.ndarray:
    if len(columns) != 2 or isinstance(columns, str):
        raise ValueError(f"`columns={columns!r}` must be the names of two columns, of x and of y.")
    for name in columns:
        if name not in data.columns:
            raise KeyError(
                f"`columns={tuple(columns)!r}`: `data` has no column {name!r}; it has "
                f"{', '.join(repr(str(each)) for each in data.columns[:10])}: pass the names of x and y."
            )
        if not pd.api.types.is_numeric_dtype(data[name]):
            raise ValueError(f"`columns`: column {name!r} of `data` has dtype {data[name].dtype}; store numbers.")
    return data[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)


def _is_geodataframe(data: Any) -> bool:
    """Tell without loading geopandas, which whoever has made such an object has loaded already."""
    geopandas = sys.modules.get("geopandas")
    return geopandas is not None and isinstance(data, geopandas.GeoDataFrame)


def _geometries(data: Any, move: Transform, max_edge: float | None) -> tuple[_Moved, Any, np.ndarray]:
    """Return the vertices moved, the same as a GeoDataFrame, and which geometries were inside with all vertices."""
    import shapely

    geometries = data.geometry.to_numpy()
    longest = _longest_edge(move, max_edge)
    if longest is not None:
        geometries = shapely.segmentize(geometries, longest)
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    moved = _moved(points, move)
    flat = ~shapely.has_z(geometries)
    shapes = np.array(geometries, dtype=object)
    for which, height in ((flat, False), (~flat, True)):
        kept = shapely.get_coordinates(geometries[which], include_z=height)
        kept[:, :2] = moved.xy[which[owner]]
        shapes[which] = shapely.set_coordinates(geometries[which], kept)
    result = data.copy()
    result[data.geometry.name] = type(data.geometry)(shapes, index=data.index, crs=data.crs)
    # what SpatialData notes of the frame of the old coordinates does not hold for the new ones
    result.attrs = {key: value for key, value in data.attrs.items() if key != "transform"}
    inside = np.bincount(owner, minlength=len(data)) > 0
    np.logical_and.at(inside, owner, moved.inside)
    return moved, result, inside


def _longest_edge(move: Transform, max_edge: float | None) -> float | None:
    if max_edge is not None:
        if not max_edge > 0:
            raise ValueError(f"`max_edge={max_edge!r}` must be positive, in the unit of the coordinates.")
        return float(max_edge)
    grid = lattice(move)
    return None if grid is None else grid.spacing


def _region(transform: Transform | AnnData, move: Transform, key: str, role: Role) -> np.ndarray | None:
    """Return the box where the map was fitted, shape ``(2, 2)``, as far as that is known."""
    grid = lattice(move)
    if grid is not None:
        return grid.bounds
    extents = read_record(transform, key).get("extents", {}) if isinstance(transform, AnnData) else {}
    found: np.ndarray | None = extents.get(role)
    return found


def _warn_if_elsewhere(points: np.ndarray, region: np.ndarray | None, role: Role) -> None:
    points = points[np.isfinite(points).all(axis=1)]
    if region is None or not len(points) or ((points >= region[0]) & (points <= region[1])).all(axis=1).any():
        return
    found, fitted = (
        f"x {low[0]:.6g} to {high[0]:.6g}, y {low[1]:.6g} to {high[1]:.6g}"
        for low, high in ((points.min(axis=0), points.max(axis=0)), region)
    )
    warn_user(
        f"`data`: none of the {len(points)} points ({found}) lies where the map was fitted ({fitted}); check that they "
        f"are in the unit and the frame of the {role}."
    )
