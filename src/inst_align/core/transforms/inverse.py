"""The inverse of a displacement, solved per point, and the check that there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inst_align.core.transforms import bspline
from inst_align.core.transforms.base import Transform, as_points, join

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from inst_align.core.transforms.compose import Compose
    from inst_align.core.transforms.displacement import Displacement

_BLOCK = 65536
_TOLERANCE = 1e-10
"""Greatest residual, in node distances."""
_FIXED_POINT_STEPS = 2
"""Cheap steps without derivatives that bring almost all points of a mild map near their place."""
_NEWTON_STEPS = 100
_HALVINGS = 40
_CHECKS_PER_CELL = 4
_CLOSE_CHECKS_PER_CELL = 32
_CELLS_AT_ONCE = 65536


class FoldError(ValueError):
    """A displacement folds: its Jacobian determinant is not positive somewhere, so that it has no inverse.

    Parameters
    ----------
    count
        How many of the checked points fold.
    fraction
        The same as a fraction of the points checked.
    where
        (x, y) of the worst point, in the coordinates that the displacement takes.
    determinant
        The Jacobian determinant there.
    """

    def __init__(self, count: int, fraction: float, where: tuple[float, float], determinant: float) -> None:
        super().__init__(count, fraction, where, determinant)
        self.count, self.fraction, self.where, self.determinant = count, fraction, where, determinant

    def __str__(self) -> str:
        x, y = self.where
        return (
            f"The displacement folds at {self.count} of the points checked ({100 * self.fraction:.2g} %), worst at "
            f"(x, y) = ({x:.6g}, {y:.6g}) where its Jacobian determinant is {self.determinant:.3g}, and so it has no "
            "inverse; fit with a stronger regularisation."
        )


@dataclass(frozen=True, eq=False, repr=False)
class InverseDisplacement(Transform):
    """Inverse of a displacement: the x with ``x + u(x) = y``, for each point y by itself.

    The start is ``y - u(y)`` and two fixed-point steps; then Newton's method with the analytic Jacobian, each step
    halved until the residual falls enough, to at most 1e-10 node distances. Where the determinant is positive
    everywhere there is one solution and nowhere else to get stuck. Points beyond the grid stay where they are.

    Parameters
    ----------
    forward
        The displacement. It is checked for folds at 4 x 4 points per grid cell, and at 32 x 32 in cells where the
        determinant varies so much that it could pass zero in between; a smaller fold passes unseen.

    Raises
    ------
    FoldError
        If the displacement folds.
    """

    forward: Displacement

    def __post_init__(self) -> None:
        _check_folds(self.forward)

    def __call__(self, xy: ArrayLike) -> np.ndarray:
        """Map coordinates back; raises ValueError if a point does not converge."""
        points = as_points(xy)
        nodes = self._solve(points)
        return points - self.forward.spacing * bspline.values(self.forward.coefficients, nodes)

    def inverse(self) -> Displacement:
        """Return the displacement itself."""
        return self.forward

    def jacobian(self, xy: ArrayLike) -> np.ndarray:
        """Return the inverse of the displacement's Jacobian at the solution, shape ``(n, 2, 2)``."""
        forward = self.forward.jacobian(self(xy))
        (a, b), (c, d) = np.moveaxis(forward, 0, -1)
        adjugate = np.moveaxis(np.array([[d, -b], [-c, a]]), -1, 0)
        return adjugate / determinant(forward)[:, None, None]

    def log_area(self, xy: ArrayLike) -> np.ndarray:
        """Return the logarithm of the local change of area, shape ``(n,)``."""
        return -self.forward.log_area(self(xy))

    def inside(self, xy: ArrayLike) -> np.ndarray:
        """Tell which points come from the inside of the displacement's grid, bool of shape ``(n,)``."""
        return self.forward.inside(self(xy))

    def allclose(self, other: object, rtol: float = 1e-6, atol: float = 1e-8) -> bool:
        """Tell whether ``other`` inverts nearly the same displacement."""
        return isinstance(other, InverseDisplacement) and self.forward.allclose(other.forward, rtol=rtol, atol=atol)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InverseDisplacement):
            return NotImplemented
        return self.forward == other.forward

    def __matmul__(self, other: Transform) -> Compose:
        return join(self, other)

    def __repr__(self) -> str:
        return f"InverseDisplacement({self.forward})"

    def _solve(self, points: np.ndarray) -> np.ndarray:
        """Return the solutions in node units, shape ``(n, 2)``."""
        coef = self.forward.coefficients
        nodes = self.forward.to_nodes(points)
        # beyond the grid u is zero, and a map without folds takes the grid's box onto itself
        todo = np.flatnonzero(bspline.inside(coef, nodes))
        open_: list[np.ndarray] = []
        for start in range(0, len(todo), _BLOCK):
            index = todo[start : start + _BLOCK]
            nodes[index], failed = _newton(coef, nodes[index])
            open_.append(index[failed])
        if open_ and (failed := np.concatenate(open_)).size:
            x, y = points[failed[0]]
            raise ValueError(
                f"The inverse of the displacement was not found at {failed.size} of {len(points)} points, for example "
                f"(x, y) = ({x:.6g}, {y:.6g}); the displacement may fold there."
            )
        return nodes


def determinant(matrices: np.ndarray) -> np.ndarray:
    """Return the determinants of ``(n, 2, 2)`` matrices, shape ``(n,)``."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def _check_folds(forward: Displacement) -> None:
    """Raise FoldError unless the determinant is positive at each point of a grid finer than the nodes."""
    coef = forward.coefficients
    height, width = coef.shape[1] - 3, coef.shape[2] - 3  # in cells
    strip = max(1, _CELLS_AT_ONCE // width)
    looks = [_look(coef[:, top : top + strip + 3], (0, top), _CHECKS_PER_CELL) for top in range(0, height, strip)]
    if not any(look.folded for look in looks):
        doubtful = np.concatenate([look.doubtful for look in looks])
        looks += [_look(coef[:, y : y + 4, x : x + 4], (x, y), _CLOSE_CHECKS_PER_CELL) for x, y in doubtful]
    worst = min(looks, key=lambda look: look.lowest)
    if worst.lowest <= 0:
        count = sum(look.folded for look in looks)
        x, y = forward.origin + forward.spacing * worst.where
        raise FoldError(count, count / sum(look.checked for look in looks), (float(x), float(y)), worst.lowest)


class _Look(NamedTuple):
    """What the determinant was found to be on some part of the grid, in node units as (column, row)."""

    checked: int
    folded: int
    lowest: float
    where: np.ndarray
    doubtful: np.ndarray
    """Cells, shape ``(n, 2)``, that may hide a fold between the points checked."""


def _look(coef: np.ndarray, corner: tuple[int, int], per_cell: int) -> _Look:
    """Look at the determinant on the cells of a part of the grid whose first cell is ``corner``."""
    (xx, xy), (yx, yy) = bspline.grid_derivatives(coef, per_cell)
    area = (1 + xx) * (1 + yy) - xy * yx
    row, column = np.unravel_index(area.argmin(), area.shape)
    cells = area.reshape(area.shape[0] // per_cell, per_cell, -1, per_cell)
    low, high = cells.min(axis=(1, 3)), cells.max(axis=(1, 3))
    # as much again as half of what it varies by within the cell would take it below zero
    doubtful = np.argwhere((low > 0) & (low < (high - low) / 2))[:, ::-1]
    return _Look(
        checked=area.size,
        folded=int(np.sum(area <= 0)),
        lowest=float(area.min()),
        where=np.array([column, row]) / per_cell + corner,
        doubtful=doubtful + corner,
    )


def _newton(coef: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve ``x + u(x) = target`` in node units; return the solutions and the rows that did not converge."""
    at = target - bspline.values(coef, target)
    for _ in range(_FIXED_POINT_STEPS):
        at = target - bspline.values(coef, at)
    rows = np.arange(len(at))
    for _ in range(_NEWTON_STEPS):
        value, slope = bspline.values_and_derivatives(coef, at[rows])
        residual = at[rows] + value - target[rows]
        far = np.hypot(*residual.T) > _TOLERANCE
        rows, residual, slope = rows[far], residual[far], slope[far]
        if not rows.size:
            break
        step = np.linalg.solve(np.eye(2) + slope, residual[:, :, None])[:, :, 0]
        at[rows] = _damped(coef, at[rows], step, residual, target[rows])
    return at, rows


def _damped(coef: np.ndarray, at: np.ndarray, step: np.ndarray, residual: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return ``at - factor * step``, the factor halved for each point until its residual falls by a quarter of it."""
    length = np.hypot(*residual.T)
    moved = at.copy()
    rows = np.arange(len(at))
    factor = 1.0
    for _ in range(_HALVINGS):
        trial = at[rows] - factor * step[rows]
        left = np.hypot(*(trial + bspline.values(coef, trial) - target[rows]).T)
        good = left <= (1 - factor / 4) * length[rows]
        moved[rows[good]] = trial[good]
        rows = rows[~good]
        if not rows.size:
            break
        factor /= 2
    return moved
