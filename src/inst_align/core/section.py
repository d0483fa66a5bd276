"""What every numerical part is given: one section as plain arrays, and the frame that the arrays are worked on in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from scipy.spatial import cKDTree

from inst_align.core.rows import Rows, Streamed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from inst_align.core.rows import Expression


SPACING_CELLS = 50_000
"""More cells than this are not asked for their nearest neighbour."""


def median_spacing(xy: np.ndarray) -> float:
    """Median distance from a point of (n, 2) to the nearest other position; cells on one spot count once."""
    return float(np.median(nearest_distances(xy)))


def nearest_distances(xy: np.ndarray) -> np.ndarray:
    """Distances from points of (n, 2), or evenly chosen ones of them, to the nearest other position."""
    distance = _to_nearest(xy)
    return distance if distance.all() else _to_nearest(np.unique(xy, axis=0))


EVEN = 0.1
"""On a lattice, distances to the nearest cell differ by less than this share from their median"""
MOST = 0.5
"""in more than this share of the cells. (0.8 and more of stored spots, 0.3 and less of segmented cells.)"""


def lattice_constant(distance: np.ndarray) -> float:
    """Return the distance between neighbouring spots if they form a lattice, else 0, by distances to the nearest (n,)."""
    median = float(np.median(distance))
    return median if np.mean(np.abs(distance - median) < EVEN * median) > MOST else 0.0


def _to_nearest(xy: np.ndarray) -> np.ndarray:
    """Distance to the nearest other point of (n, 2), of at most ``SPACING_CELLS`` points, evenly chosen."""
    step = -(-len(xy) // SPACING_CELLS)
    asked = xy if step == 1 else xy[np.lexsort(xy.T)[::step]]
    return cKDTree(xy).query(asked, k=2)[0][:, 1]


HELD_CELLS = 50_000
"""Of a section with more cells than this, the expression is not copied to be sorted, nor held if it is on disk."""
TIES_AT_ONCE = 8192
"""Cells on one spot with others whose expression is read from disk at a time, to sort them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One tissue section as arrays.

    Parameters
    ----------
    xy
        Coordinates, shape ``(n, 2)``, float64, axis order (x, y), in the user's units.
    expression
        Shape ``(n, g)``, float32. Log-normalised expression (CSR or dense), the same genes in the same order in both
        sections of a pair; or, with ``is_rep``, features that are taken as they are (dense). A large section that is
        on disk has a :class:`Streamed` one, and within a fit large ones come as :class:`Rows`.
    is_rep
        Whether ``expression`` is a representation given by the user, which is neither standardised nor projected.
    name
        Named in error messages.
    """

    xy: np.ndarray
    expression: Expression
    is_rep: bool = False
    name: Literal["reference", "source"] = "reference"

    def __len__(self) -> int:
        return len(self.xy)

    @cached_property
    def spacing(self) -> float:
        """Median distance from a cell to its nearest other position, in the user's units: the unit of every error."""
        return median_spacing(self.xy)

    @cached_property
    def unit_xy(self) -> np.ndarray:
        """Coordinates in the section's own unit frame, shape ``(n, 2)``, rounded as :meth:`UnitFrame.rounded` does."""
        return UnitFrame.of(self.xy).rounded(self.xy)

    def canonical_order(self) -> np.ndarray:
        """Permutation, shape ``(n,)``, that sorts the cells by unit coordinates and, where those tie, by expression.

        Everything random or order-dependent happens after this, so that neither the order of a user's rows matters nor
        how the section lies in the user's frame.
        """
        xy = self.unit_xy
        order = np.lexsort((xy[:, 1], xy[:, 0]))
        same = (xy[order[1:]] == xy[order[:-1]]).all(axis=1)
        if not same.any():
            return order
        tied = order[np.append(same, False) | np.append(False, same)]
        keys = np.zeros((2, len(self)))
        for some in self._at_once(tied):
            rows = self.expression[some]
            keys[0, some] = np.asarray(rows @ np.arange(1.0, rows.shape[1] + 1)).ravel()
            keys[1, some] = np.asarray(rows.sum(axis=1)).ravel()
        return np.lexsort((*keys, xy[:, 1], xy[:, 0]))

    def _at_once(self, rows: np.ndarray) -> list[np.ndarray]:
        """Split rows into parts whose expression may be held."""
        if not isinstance(self.expression, Streamed):
            return [rows]
        return np.array_split(np.sort(rows), -(-len(rows) // TIES_AT_ONCE))

    def take(self, index: np.ndarray) -> Section:
        """Return the section made of the given rows (positions or a mask), in that order."""
        return replace(self, xy=self.xy[index], expression=self.expression[index])

    def of_genes(self, keep: np.ndarray) -> Section:
        """Return the section with some of its genes, by a mask."""
        x = self.expression
        return replace(
            self, expression=x.of_columns(keep) if isinstance(x, Streamed) else cast("csr_matrix", x)[:, keep]
        )

    def in_order(self, order: np.ndarray) -> Section:
        """Return the section with its cells in another order (a permutation)."""
        if self.is_rep or len(self) <= HELD_CELLS or isinstance(self.expression, Rows):
            return self.take(order)
        return replace(self, xy=self.xy[order], expression=Rows(self.expression, order))

    def held(self) -> Section:
        """Return the section with its expression in memory."""
        return self.take(np.arange(len(self))) if isinstance(self.expression, Streamed) else self


STEP = 2.0**-20
"""To which unit coordinates are rounded: far less than any distance between cells, far more than errors of rounding."""
SYMMETRIC = 1e-6
"""Relative difference of variances, and skewness, below which a section's outline has no axes or signs of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitFrame:
    """Similarity from a user's frame to the centred, isotropically scaled frame that the numerics run in.

    The axes are the section's own principal axes, signed by their third moments, so that rotating a section's input
    coordinates leaves its coordinates in this frame, and with them rasters and grids, the same. Never a reflection.

    Parameters
    ----------
    center
        Shape ``(2,)``, in the user's units.
    rotation
        Proper rotation, shape ``(2, 2)``: user's axes to unit axes.
    scale
        User's units per unit length.
    """

    center: np.ndarray
    rotation: np.ndarray
    scale: float

    @classmethod
    def of(cls, xy: np.ndarray, *, scale: float | None = None) -> UnitFrame:
        """Return the frame of a section; ``scale=None`` makes its root mean square radius sqrt(2)."""
        center = xy.mean(axis=0)
        centred = xy - center
        variance, axes = np.linalg.eigh(centred.T @ centred / len(xy))
        rotation = axes[:, ::-1].T
        if variance[1] - variance[0] < SYMMETRIC * variance[1]:
            rotation = np.eye(2)
        skewness = np.mean((centred @ rotation[0]) ** 3) / variance[1] ** 1.5
        if abs(skewness) < SYMMETRIC:  # rounding must not choose
            skewness = rotation[0][np.abs(rotation[0]).argmax()]
        if skewness < 0:
            rotation = rotation * np.array([[-1.0], [1.0]])
        if np.linalg.det(rotation) < 0:
            rotation = rotation * np.array([[1.0], [-1.0]])
        if scale is None:
            scale = float(np.sqrt(variance.sum() / 2))
        return cls(center=center, rotation=rotation, scale=scale)

    @property
    def matrix(self) -> np.ndarray:
        """Homogeneous ``(3, 3)`` matrix from the user's frame to the unit frame."""
        matrix = np.eye(3)
        matrix[:2, :2] = self.rotation / self.scale
        matrix[:2, 2] = -matrix[:2, :2] @ self.center
        return matrix

    def to_unit(self, xy: np.ndarray) -> np.ndarray:
        """Map ``(n, 2)`` user coordinates to unit coordinates."""
        return (xy - self.center) @ self.rotation.T / self.scale

    def rounded(self, xy: np.ndarray) -> np.ndarray:
        """:meth:`to_unit`, rounded to multiples of ``STEP``, for coordinates that a fit goes by.

        Unit coordinates of a section that was shifted, resized or turned differ in their last digits. A descent makes
        of such differences others that can be seen; rounded, they are the same numbers.
        """
        return np.rint(self.to_unit(xy) / STEP) * STEP

    def to_user(self, xy: np.ndarray) -> np.ndarray:
        """Map ``(n, 2)`` unit coordinates to user coordinates."""
        return xy * self.scale @ self.rotation + self.center
