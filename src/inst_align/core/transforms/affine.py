"""The affine map, of which the rigid one is the common case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from inst_align.core.transforms.base import Transform, as_points, frozen_array, join

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from inst_align.core.transforms.compose import Compose

_MIRROR = np.array([[-1.0, 0.0], [0.0, 1.0]])
_SINGULAR = 1e-12
"""A matrix whose determinant is smaller than this, relative to its squared norm, maps the plane onto a line."""


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Transform):
    """Affine map: rotation, mirror, scale, shear and shift.

    Parameters
    ----------
    matrix
        Homogeneous, shape ``(3, 3)``, axis order (x, y): row i makes output i, the last column is the shift in the
        user's units, the last row is 0 0 1. It is copied, and the copy is read-only float64.

    Raises
    ------
    ValueError
        If the matrix has another shape or last row, is not finite, or cannot be inverted.

    Examples
    --------
    >>> import numpy as np
    >>> turn = Affine.from_rigid(np.pi / 2, (10, 0))
    >>> turn
    Affine(angle=90 deg, scale=1, shift=(10, 0))
    >>> turn([[1, 0], [0, 2]]).round(12)
    array([[10.,  1.],
           [ 8.,  0.]])
    >>> (turn.inverse() @ turn).allclose(Affine(np.eye(3)))
    True
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = frozen_array(self.matrix, "matrix", np.float64, (3, 3))
        if not np.allclose(matrix[2], (0, 0, 1), rtol=0, atol=1e-12):
            raise ValueError(f"The last row of `matrix` must be 0 0 1, but is {matrix[2]}; axis order is (x, y).")
        if matrix[2].tolist() != [0, 0, 1]:
            matrix = np.vstack([matrix[:2], (0, 0, 1)])
            matrix.flags.writeable = False
        linear = matrix[:2, :2]
        if abs(_det(linear)) <= _SINGULAR * np.sum(linear**2):
            raise ValueError(f"`matrix` cannot be inverted: its determinant is {_det(linear):.3g}.")
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def from_rigid(cls, angle: float, shift: ArrayLike, *, mirror: bool = False) -> Affine:
        """Return the rigid map ``y = R x + shift``.

        Parameters
        ----------
        angle
            In radians; counter-clockwise where x points right and y up.
        shift
            Shape ``(2,)``, (x, y), in the user's units.
        mirror
            Negate x before rotating.
        """
        cos, sin = math.cos(angle), math.sin(angle)
        rotation = np.array([[cos, -sin], [sin, cos]])
        matrix = np.eye(3)
        matrix[:2, :2] = rotation @ _MIRROR if mirror else rotation
        matrix[:2, 2] = frozen_array(shift, "shift", np.float64, (2,))
        return cls(matrix)

    @property
    def is_reflection(self) -> bool:
        """Whether the map turns the plane over."""
        return _det(self.matrix[:2, :2]) < 0

    @property
    def angle(self) -> float:
        """Angle of the rotation nearest to the linear part, in degrees from -180 to 180, counter-clockwise.

        A reflection is read as in :meth:`from_rigid`: x negated first, then rotated.
        """
        linear = self.matrix[:2, :2] @ _MIRROR if self.is_reflection else self.matrix[:2, :2]
        return math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))

    @property
    def scale(self) -> float:
        """Length scale: square root of the change of area."""
        return math.sqrt(abs(_det(self.matrix[:2, :2])))

    def __call__(self, xy: ArrayLike) -> np.ndarray:
        """Map coordinates of shape ``(n, 2)``."""
        return as_points(xy) @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    def inverse(self) -> Affine:
        """Return the affine map that goes back."""
        matrix = np.eye(3)
        matrix[:2, :2] = np.linalg.inv(self.matrix[:2, :2])
        matrix[:2, 2] = -matrix[:2, :2] @ self.matrix[:2, 2]
        return Affine(matrix)

    def jacobian(self, xy: ArrayLike) -> np.ndarray:
        """Return the linear part once per point, shape ``(n, 2, 2)``."""
        return np.where(self.inside(xy)[:, None, None], self.matrix[:2, :2], np.nan)

    def log_area(self, xy: ArrayLike) -> np.ndarray:
        """Return the logarithm of the change of area, the same at each point, shape ``(n,)``."""
        return np.where(self.inside(xy), 2 * math.log(self.scale), np.nan)

    def inside(self, xy: ArrayLike) -> np.ndarray:
        """Return True for every finite point, shape ``(n,)``."""
        return np.isfinite(as_points(xy)[:, 0])

    def allclose(self, other: object, rtol: float = 1e-6, atol: float = 1e-8) -> bool:
        """Tell whether ``other`` is an affine map with nearly the same matrix."""
        return isinstance(other, Affine) and np.allclose(self.matrix, other.matrix, rtol=rtol, atol=atol)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Affine):
            return NotImplemented
        return np.array_equal(self.matrix, other.matrix)

    @overload
    def __matmul__(self, other: Affine) -> Affine: ...
    @overload
    def __matmul__(self, other: Transform) -> Affine | Compose: ...
    def __matmul__(self, other: Transform) -> Affine | Compose:
        return Affine(self.matrix @ other.matrix) if isinstance(other, Affine) else join(self, other)

    def __repr__(self) -> str:
        x, y = self.matrix[:2, 2]
        mirrored = ", mirrored" if self.is_reflection else ""
        return f"Affine(angle={self.angle:.6g} deg, scale={self.scale:.6g}, shift=({x:.6g}, {y:.6g}){mirrored})"


def _det(linear: np.ndarray) -> float:
    return float(linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0])
