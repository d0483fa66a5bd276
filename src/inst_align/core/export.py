"""From any non-rigid map in the unit frame to the one kind of map that users get: a grid of vectors in their frame."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from inst_align.core.memory import in_chunks
from inst_align.core.transforms import Displacement

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.raster import Grid
    from inst_align.core.section import UnitFrame

TOLERANCE = 0.02
"""Greatest error of sampling at a cell, in neighbour distances of the reference."""
CHUNK = 1 << 16
MOST_NODES = 1 << 20
"""A finer grid than this is not made (8 MiB of vectors), whatever the error."""
ROUNDS = 4
ORDER = 1.5
"""Power of the spacing that the error is expected to fall by: networks have kinks, so that it is not the fourth."""
LEAST_STEP = 1.2


def user_displacement(
    move: Callable[[np.ndarray], np.ndarray], grid: Grid, frame: UnitFrame, *, cells: np.ndarray, tolerance: float
) -> tuple[Displacement, float]:
    """Sample a map of the unit frame to a displacement grid along the axes, and in the units, of the user.

    The grid is made finer until the map is right at each cell, or as fine as it may get.

    Parameters
    ----------
    move
        The map: unit coordinates (n, 2) to unit coordinates (n, 2); the identity at and beyond the border of ``grid``.
    grid
        The part of the unit frame where the map moves anything, and the coarsest spacing that will do.
    frame
        The reference's unit frame.
    cells
        Unit coordinates, shape (n, 2), at which the error counts.
    tolerance
        Greatest error allowed, in the user's units.

    Returns
    -------
    The displacement, and its greatest error at the cells in the user's units.
    """
    at = frame.to_user(cells)
    truth = frame.to_user(_in_chunks(move, cells))
    for _ in range(ROUNDS):
        displacement = _sampled(move, grid, frame)
        error = float(np.linalg.norm(displacement(at) - truth, axis=1).max())
        most = np.sqrt(MOST_NODES / (grid.width * grid.height))
        factor = min(max((error / tolerance) ** (1 / ORDER), LEAST_STEP), most)
        if error <= tolerance or factor < LEAST_STEP:
            break
        grid = _finer(grid, factor)
    return displacement, error


def _finer(grid: Grid, factor: float) -> Grid:
    """Return a grid with the same corner and a smaller spacing that covers at least the same rectangle."""
    width, height = (int(np.ceil(factor * (n - 1))) + 1 for n in (grid.width, grid.height))
    return replace(grid, pixel=grid.pixel / factor, width=width, height=height)


def _sampled(move: Callable[[np.ndarray], np.ndarray], grid: Grid, frame: UnitFrame) -> Displacement:
    low = np.asarray(grid.origin)
    high = low + grid.pixel * (np.array([grid.width, grid.height]) - 1)
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [low[0], high[1]], [high[0], high[1]]])
    box = frame.to_user(corners)
    spacing = grid.pixel * frame.scale
    n_columns, n_rows = (np.ceil(np.ptp(box, axis=0) / spacing).astype(int) + 3).tolist()
    origin = box.min(axis=0) - spacing
    columns, rows = np.meshgrid(np.arange(n_columns), np.arange(n_rows))
    nodes = origin + spacing * np.column_stack([columns.ravel(), rows.ravel()])
    unit = frame.to_unit(nodes)
    vectors = np.zeros_like(nodes)
    moving = ((unit > low) & (unit < high)).all(axis=1)
    vectors[moving] = (_in_chunks(move, unit[moving]) - unit[moving]) @ frame.rotation * frame.scale
    return Displacement(vectors.T.reshape(2, n_rows, n_columns), origin, spacing)


def _in_chunks(move: Callable[[np.ndarray], np.ndarray], xy: np.ndarray) -> np.ndarray:
    return np.concatenate(in_chunks(lambda part: move(xy[part]), len(xy), CHUNK))
