"""The door for landmarks: whatever has points with x and y becomes arrays, and pairs of points are judged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._checks import Role, listing, warn_user
from inst_align.core.landmarks import Landmarks, rigid_fit

if TYPE_CHECKING:
    from typing import TypeAlias

    import pandas as pd
    from numpy.typing import ArrayLike

    from inst_align._anndata import Pair

    Points: TypeAlias = ArrayLike | pd.DataFrame

FAR = 0.5
"""Points farther outside of a section's bounding box than this, in lengths of its longer side, have another unit."""
MIRRORED = 3.0
"""A set is the mirror image of the other when turning it over makes it fit better by this factor, and by as many
neighbour distances: pairs along a line fit either way."""
APART = 5.0
"""Pairs that end farther apart, in neighbour distances, are told of."""
BENT = 0.2
"""So are pairs that a rigid map leaves farther apart, in lengths of the longer side: no warp is that large."""


def read_points(points: Any, argument: str) -> tuple[np.ndarray, list[Any] | None]:
    """Return points as float64 of shape ``(k, 2)``, (x, y), and their names if they have any.

    Parameters
    ----------
    points
        Numbers of shape ``(k, 2)``; a DataFrame with the columns x and y; or anything whose ``geometry`` is made of
        points, as a GeoDataFrame or a shapes element of SpatialData. What has to be computed first (dask) is.
    argument
        Its name, for messages.

    Raises
    ------
    KeyError
        A table has no columns x and y.
    TypeError
        A geometry is not a point.
    ValueError
        There are no points, or they are not finite numbers.
    """
    if callable(getattr(points, "compute", None)):
        points = points.compute()
    names = None
    if hasattr(points, "columns") or hasattr(points, "geom_type"):
        names = list(points.index)
        points = _of_table(points, argument)
    try:
        xy = np.array(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` is a {type(points).__name__} that holds no numbers ({error}); pass points of shape (k, 2), "
            f"or a table with the columns x and y."
        ) from error
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) == 0:
        raise ValueError(f"`{argument}` has shape {xy.shape}; pass at least one point (x, y), shape (k, 2).")
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise ValueError(
            f"`{argument}` is NaN or infinite in {bad.sum()} of {len(xy)} points ({listing(np.flatnonzero(bad))}); "
            f"leave these pairs out on both sides."
        )
    return xy, names


def _of_table(table: Any, argument: str) -> np.ndarray:
    """Return the coordinates in a table: its geometry, or else its columns x and y."""
    geometry: Any = getattr(table, "geometry", None)  # a GeoSeries is its own
    if hasattr(geometry, "geom_type"):
        other = sorted({str(kind) for kind in geometry.geom_type} - {"Point"})
        if other:
            raise TypeError(
                f"`{argument}`: the geometry holds {listing(other)}; pass points (`.centroid` makes some of polygons)."
            )
        return np.column_stack([geometry.x, geometry.y])
    missing = [name for name in ("x", "y") if name not in table.columns]
    if missing:
        raise KeyError(
            f"`{argument}`: no column {listing(missing)} in the table; it has {listing(table.columns, 10)}: rename the "
            f"columns of the coordinates to x and y."
        )
    return np.column_stack([np.asarray(table[name]) for name in ("x", "y")])


def read_pairs(landmarks_ref: Any, landmarks_src: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets of points, shapes ``(k, 2)``, so that row i of the one belongs to row i of the other.

    They belong together in the order given. Only where both are tables with the same distinct names in different
    orders, the names decide.
    """
    (ref, names_ref), (src, names_src) = (
        read_points(points, argument)
        for points, argument in ((landmarks_ref, "landmarks_ref"), (landmarks_src, "landmarks_src"))
    )
    if len(ref) != len(src):
        raise ValueError(
            f"`landmarks_ref` has {len(ref)} points and `landmarks_src` has {len(src)}; give each point its partner."
        )
    if names_ref is None or names_src is None or names_ref == names_src:
        return ref, src
    row = {name: i for i, name in enumerate(names_src)}
    if len(row) == len(src) and set(names_ref) == set(row):
        src = src[[row[name] for name in names_ref]]
    return ref, src


def read_landmarks(
    landmarks_ref: Any, landmarks_src: Any, weight: float, pair: Pair, *, allow_reflection: bool
) -> Landmarks | None:
    """Return pairs of points that fit the sections, or ``None`` when none were given.

    Raises
    ------
    KeyError, TypeError
        See :func:`read_points`.
    ValueError
        Only one side was given, the sides do not pair up, the weight is no weight, points are far from their section,
        or the one set is a mirror image of the other.
    """
    if landmarks_ref is None and landmarks_src is None:
        return None
    if landmarks_ref is None or landmarks_src is None:
        given, missing = ("src", "ref") if landmarks_ref is None else ("ref", "src")
        raise ValueError(f"`landmarks_{given}` was given without `landmarks_{missing}`; pass both, row by row.")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"`landmark_weight={weight}`: must be a number that is not negative.")
    ref, src = read_pairs(landmarks_ref, landmarks_src)
    _check_near(ref, pair.ref.xy, "reference")
    _check_near(src, pair.src.xy, "source")
    if not allow_reflection:
        _check_handedness(ref, src, pair.ref.spacing)
    return Landmarks(ref=ref, src=src, weight=float(weight))


def _check_near(points: np.ndarray, xy: np.ndarray, name: Role) -> None:
    low, high = xy.min(axis=0), xy.max(axis=0)
    outside = np.maximum(low - points, points - high).max(axis=1)
    far = np.flatnonzero(outside > FAR * (high - low).max())
    if len(far):
        argument = "landmarks_ref" if name == "reference" else "landmarks_src"
        box = f"x from {low[0]:.6g} to {high[0]:.6g}, y from {low[1]:.6g} to {high[1]:.6g}"
        raise ValueError(
            f"`{argument}`: {len(far)} of {len(points)} points (rows {listing(far)}) lie far outside of the {name} "
            f"({box}); give them in the units and the frame of its coordinates, axis order (x, y)."
        )


def _check_handedness(ref: np.ndarray, src: np.ndarray, spacing: float) -> None:
    """Raise ValueError when the pairs only fit with the source turned over."""
    proper, mirrored = (
        float(np.sqrt(np.mean(np.sum((rigid_fit(src, ref, mirror=mirror)(src) - ref) ** 2, axis=1))))
        for mirror in (False, True)
    )
    if proper > MIRRORED * (mirrored + spacing):
        raise ValueError(
            f"`landmarks_src` is a mirror image of `landmarks_ref`: turned over, its {len(src)} points fit to "
            f"{mirrored:.3g}, else to {proper:.3g}; pass `allow_reflection=True` if the source was turned over, or "
            f"check the order of the points and of their axes (x, y)."
        )


def recorded_landmarks(landmarks: Landmarks | None) -> dict[str, Any]:
    """Return what a record says of the landmarks of a run, in the users' units."""
    if landmarks is None:
        return {}
    return {"landmarks_ref": landmarks.ref, "landmarks_src": landmarks.src, "landmark_weight": landmarks.weight}


def warn_about_landmarks(report: dict[str, Any], *, rigid_in: Pair | None = None) -> None:
    """Warn of pairs that end far apart: a wrong pair, a wrong order, or evidence against them.

    Parameters
    ----------
    report
        Of the run.
    rigid_in
        The pair, after a rigid alignment, which can bring no pair of landmarks closer than the tissue is bent.
    """
    errors = report.get("landmark_error")
    if errors is None:
        return
    limit = APART
    if rigid_in is not None:
        limit = max(limit, BENT * float(np.ptp(rigid_in.ref.xy, axis=0).max()) / rigid_in.ref.spacing)
    apart = np.flatnonzero(errors > limit)
    if len(apart):
        warn_user(
            f"{len(apart)} of {len(errors)} pairs of landmarks (rows {listing(apart)}) end more than {limit:.0f} "
            f"neighbour distances apart, the worst {errors.max():.1f}: check them, or pass a larger `landmark_weight` "
            f"if they are right."
        )
