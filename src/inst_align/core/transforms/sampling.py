"""Any map as vectors on a regular grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inst_align.core.transforms.base import Transform
    from inst_align.core.transforms.inverse import InverseDisplacement


def sampled(transform: Transform, origin: np.ndarray, spacing: float, shape: tuple[int, int]) -> np.ndarray:
    """Return by how much a map moves the nodes of a grid.

    Parameters
    ----------
    transform
        The map.
    origin
        Shape ``(2,)``, (x, y) of the node ``[0, 0]``.
    spacing
        Distance of neighbouring nodes along both axes.
    shape
        Number of rows (y) and columns (x), H and W.

    Returns
    -------
    Shape ``(2, H, W)``, float64, component 0 along x, 1 along y.
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    nodes = origin + spacing * np.column_stack([columns.ravel(), rows.ravel()])
    vectors: np.ndarray = (transform(nodes) - nodes).T
    return vectors.reshape(2, *shape)


def sampled_inverse(inverse: InverseDisplacement) -> np.ndarray:
    """Return the vectors of an inverse on the very grid of the displacement that it inverts, shape ``(2, H, W)``."""
    forward = inverse.forward
    height, width = forward.vectors.shape[1:]
    return sampled(inverse, forward.origin, forward.spacing, (height, width))
