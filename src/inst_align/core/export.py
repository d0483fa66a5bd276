"""From any non-rigid map in the unit frame to the one kind of map that users get: a grid of vectors in their frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inst_align.core.transforms import Displacement

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.raster import Grid
    from inst_align.core.section import UnitFrame

CHUNK = 1 << 16


def user_displacement(move: Callable[[np.ndarray], np.ndarray], grid: Grid, frame: UnitFrame) -> Displacement:
    """Sample a map of the unit frame to a displacement grid along the axes, and in the units, of the user.

    Parameters
    ----------
    move
        The map: unit coordinates (n, 2) to unit coordinates (n, 2); the identity at and beyond the border of ``grid``.
    grid
        The part of the unit frame where the map moves anything.
    frame
        The reference's unit frame.
    """
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
    moving = np.flatnonzero(((unit > low) & (unit < high)).all(axis=1))
    for start in range(0, len(moving), CHUNK):
        part = moving[start : start + CHUNK]
        vectors[part] = (move(unit[part]) - unit[part]) @ frame.rotation * frame.scale
    return Displacement(vectors.T.reshape(2, n_rows, n_columns), origin, spacing)
