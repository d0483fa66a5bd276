"""How far apart landmarks are that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inst_align._landmarks import read_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align._landmarks import Points


@dataclass(frozen=True, kw_only=True, eq=False)
class LandmarkError:
    """Distances between landmarks that belong together.

    Parameters
    ----------
    distance
        One per pair, shape ``(k,)``, float64, in the reference's units.
    unit
        Length, in the same units, that the summary is also given in; ``None`` for none.
    """

    distance: np.ndarray
    unit: float | None = None

    @property
    def relative(self) -> np.ndarray:
        """The distances in units of ``unit``, shape ``(k,)``.

        Raises
        ------
        ValueError
            If there is no ``unit``.
        """
        if self.unit is None:
            raise ValueError("`unit` was not given; pass `unit=ia.metrics.spacing(xy_ref)` to `landmark_error`.")
        return self.distance / self.unit

    def summary(self) -> dict[str, float]:
        """Return number, mean, median, root mean square and maximum; with a ``unit`` also ``relative_mean`` and so on."""
        found = _summary(self.distance)
        relative = {} if self.unit is None else _summary(self.relative)
        return {"n": len(self.distance)} | found | {f"relative_{name}": value for name, value in relative.items()}


def landmark_error(
    landmarks_ref: Points,
    landmarks_src: Points,
    *,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    unit: float | None = None,
) -> LandmarkError:
    """Distance between each landmark of the reference and its partner of the source, once that has been moved.

    Landmarks that took part in the fit are pulled together by it and say little; keep some for this.

    Parameters
    ----------
    landmarks_ref
        Points in the reference's frame and units: shape ``(k, 2)``, axis order (x, y); a DataFrame with the columns x
        and y; or a GeoDataFrame of points, such as the shapes of SpatialData that were drawn in napari.
    landmarks_src
        Their partners in the source, in the same forms. Row i belongs to row i; only where both are tables with the
        same distinct names (index) in different orders, the names decide.
    transform
        Map from the source's frame to the reference's, for example ``ia.get.transform(adata_src)``. ``None`` when
        ``landmarks_src`` have been moved already.
    unit
        Length to give the summary in as well, for example ``ia.metrics.spacing(xy_ref)``.

    Returns
    -------
    The distances, and their :meth:`~inst_align.metrics.LandmarkError.summary`.

    Raises
    ------
    KeyError
        If a table has no columns x and y.
    TypeError
        If a geometry is not made of points.
    ValueError
        If numbers of points differ, there are none, coordinates are NaN before or after the map, or ``unit`` is not a
        positive number.

    Examples
    --------
    >>> import inst_align as ia
    >>> shift = ia.transforms.Affine.from_rigid(0, (10, 0))
    >>> error = ia.metrics.landmark_error([[13, 4], [20, 0]], [[0, 0], [10, 0]], transform=shift, unit=2.5)
    >>> error.distance
    array([5., 0.])
    >>> error.relative
    array([2., 0.])
    >>> error.summary()["relative_max"]
    2.0
    """
    if unit is not None and not (np.isfinite(unit) and unit > 0):
        raise ValueError(f"`unit` must be a positive length in the units of `landmarks_ref`, found {unit!r}.")
    ref, src = read_pairs(landmarks_ref, landmarks_src)
    if transform is not None:
        src = np.asarray(transform(src), dtype=np.float64)
    if src.shape != ref.shape or not np.isfinite(src).all():
        raise ValueError(
            f"`transform` made points of shape {src.shape}, {int(np.isnan(src).sum())} numbers of them NaN, out of "
            f"{len(ref)} landmarks; pass a map of (n, 2) coordinates."
        )
    return LandmarkError(distance=np.linalg.norm(src - ref, axis=1), unit=None if unit is None else float(unit))


def _summary(distance: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(distance.mean()),
        "median": float(np.median(distance)),
        "rms": float(np.sqrt(np.mean(distance**2))),
        "max": float(distance.max()),
    }
