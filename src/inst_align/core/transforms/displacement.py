"""A smooth displacement on a regular grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from inst_align.core.transforms import bspline
from inst_align.core.transforms.base import Transform, as_points, frozen_array, join
from inst_align.core.transforms.inverse import InverseDisplacement, determinant

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from inst_align.core.transforms.compose import Compose

_ZERO = 1e-6
"""Vectors on the border this short, relative to the longest one, count as zero and are stored as zero."""
_RINGS_PER_LENGTH = 6
"""Rings per spacing of border displacement: keeps the slope of the fade (at most 1.5 / rings) below 0.25: no fold."""
_MAX_RINGS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Displacement(Transform):
    """Displacement ``y = x + u(x)``, in which u is a cubic B-spline through vectors on a regular grid.

    u takes the stored vectors at the nodes, has continuous first derivatives everywhere and second ones inside the
    grid, and is zero beyond it. For that the outermost ring of nodes has to be zero. Where it is not, the grid is
    padded here: the border's vectors are continued outwards while they fade to zero, over six rings per spacing of
    their greatest length. ``vectors`` and ``origin`` are then those of the padded grid.

    Parameters
    ----------
    vectors
        Shape ``(2, H, W)``, stored as float32, in the user's units: component 0 along x, 1 along y;
        ``vectors[:, i, j]`` belongs to the point ``origin + spacing * (j, i)``. H and W are at least 2.
    origin
        Shape ``(2,)``, (x, y) of the node ``[0, 0]``, in the user's units.
    spacing
        Distance of neighbouring nodes along both axes, in the user's units.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, ``spacing`` is not positive, or the border's vectors are so long
        that they cannot fade within 1000 rings.

    Examples
    --------
    >>> import numpy as np
    >>> vectors = np.zeros((2, 5, 5))
    >>> vectors[0, 2, 2] = 0.3
    >>> bump = Displacement(vectors, origin=(0, 0), spacing=10)
    >>> bump
    Displacement(5 x 5 nodes (x, y), spacing=10, origin=(0, 0), longest=0.3)
    >>> bump([[20, 20], [100, 7]]).round(3)
    array([[ 20.3,  20. ],
           [100. ,   7. ]])
    >>> bump.inside([[20, 20], [100, 7]])
    array([ True, False])
    >>> bump.inverse()(bump([[21, 18]])).round(6)
    array([[21., 18.]])
    """

    vectors: np.ndarray
    origin: np.ndarray
    spacing: float

    def __post_init__(self) -> None:
        vectors = frozen_array(self.vectors, "vectors", np.float32, (2, -1, -1))
        if min(vectors.shape) < 2:
            raise ValueError(f"`vectors` must have at least 2 rows and 2 columns, but has shape {vectors.shape}.")
        origin = frozen_array(self.origin, "origin", np.float64, (2,))
        spacing = float(frozen_array(self.spacing, "spacing", np.float64, ()))
        if not spacing > 0:
            raise ValueError(f"`spacing` must be positive, but is {spacing}.")
        vectors, rings = _with_zero_border(vectors, spacing)
        if rings:
            origin = origin - rings * spacing
            origin.flags.writeable = False
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "spacing", spacing)

    @property
    def bounds(self) -> np.ndarray:
        """Lowest and highest (x, y) of the grid, shape ``(2, 2)``, in the user's units."""
        _, height, width = self.vectors.shape
        return self.origin + self.spacing * np.array([[0, 0], [width - 1, height - 1]])

    @cached_property
    def coefficients(self) -> np.ndarray:
        """B-spline coefficients of ``u / spacing``, shape ``(2, H + 2, W + 2)``, float64."""
        coef = bspline.coefficients(self.vectors.astype(np.float64) / self.spacing)
        coef.flags.writeable = False
        return coef

    def to_nodes(self, xy: np.ndarray) -> np.ndarray:
        """Return coordinates in node units, shape ``(n, 2)`` as (column, row)."""
        return (xy - self.origin) / self.spacing

    def __call__(self, xy: ArrayLike) -> np.ndarray:
        """Map coordinates of shape ``(n, 2)``."""
        points = as_points(xy)
        return points + self.spacing * bspline.values(self.coefficients, self.to_nodes(points))

    def inverse(self) -> InverseDisplacement:
        """Return the map that goes back, or raise FoldError where there is none; it solves per point."""
        return InverseDisplacement(self)

    def jacobian(self, xy: ArrayLike) -> np.ndarray:
        """Return the derivatives of the very function that is called, shape ``(n, 2, 2)``; identity beyond the grid."""
        _, slope = bspline.values_and_derivatives(self.coefficients, self.to_nodes(as_points(xy)))
        return np.eye(2) + slope

    def log_area(self, xy: ArrayLike) -> np.ndarray:
        """Return the logarithm of the local change of area, shape ``(n,)``; NaN where the map folds."""
        area = determinant(self.jacobian(xy))
        return np.log(area, where=area > 0, out=np.full_like(area, np.nan))

    def inside(self, xy: ArrayLike) -> np.ndarray:
        """Tell which points lie in the grid's box, bool of shape ``(n,)``."""
        return bspline.inside(self.coefficients, self.to_nodes(as_points(xy)))

    def allclose(self, other: object, rtol: float = 1e-6, atol: float = 1e-8) -> bool:
        """Tell whether ``other`` is a displacement on a grid of the same size with nearly the same numbers."""
        return (
            isinstance(other, Displacement)
            and self.vectors.shape == other.vectors.shape
            and all(np.allclose(a, b, rtol=rtol, atol=atol) for a, b in zip(self._numbers, other._numbers))
        )

    @property
    def _numbers(self) -> list[np.ndarray]:
        return [self.vectors, self.origin, np.array(self.spacing)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Displacement):
            return NotImplemented
        return all(np.array_equal(a, b) for a, b in zip(self._numbers, other._numbers))

    def __matmul__(self, other: Transform) -> Compose:
        return join(self, other)

    def __repr__(self) -> str:
        _, height, width = self.vectors.shape
        x, y = self.origin
        return (
            f"Displacement({width} x {height} nodes (x, y), spacing={self.spacing:.6g}, origin=({x:.6g}, {y:.6g}), "
            f"longest={np.hypot(*self.vectors).max():.6g})"
        )


def _with_zero_border(vectors: np.ndarray, spacing: float) -> tuple[np.ndarray, int]:
    """Return vectors whose outermost ring is zero, read-only, and how many rings that took."""
    length = np.hypot(*vectors.astype(np.float64))
    border = np.ones(length.shape, dtype=bool)
    border[1:-1, 1:-1] = False
    if not length[border].any():
        return vectors, 0
    longest = length[border].max()
    if longest <= _ZERO * length.max():
        rings, padded = 0, np.where(border, np.float32(0), vectors)
    else:
        rings = math.ceil(_RINGS_PER_LENGTH * longest / spacing)
        if rings > _MAX_RINGS:
            raise ValueError(
                f"The border of `vectors` is displaced by up to {longest / spacing:.4g} times `spacing`, which cannot "
                "fade to zero near the grid; put what is common to all vectors into an affine map before it."
            )
        padded = _faded(vectors, rings)
    padded.flags.writeable = False
    return padded, rings


def _faded(vectors: np.ndarray, rings: int) -> np.ndarray:
    """Continue the border's vectors outwards over some rings, to zero by a smooth step."""
    rise = np.arange(rings) / rings
    step = rise**2 * (3 - 2 * rise)
    fade_y, fade_x = (np.concatenate([step, np.ones(n), step[::-1]]) for n in vectors.shape[1:])
    padded = np.pad(vectors, ((0, 0), (rings, rings), (rings, rings)), mode="edge")
    return (padded * np.outer(fade_y, fade_x)).astype(np.float32)
