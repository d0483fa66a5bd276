"""The way back from the pixels of a canvas to those of an image, sampled so that it costs next to nothing per pixel.

Convention: pixel coordinates are (x, y) = (column, row) with the centre of the first pixel at (0.5, 0.5), so that an
image of shape ``(h, w)`` covers ``[0, w] x [0, h]``. That is what SpatialData uses too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation

from inst_align.core.transforms import Affine, Compose, Displacement, InverseDisplacement, bspline

if TYPE_CHECKING:
    from inst_align.core.transforms import Transform

TOLERANCE = 0.05
"""Greatest error of the sampled way back, in pixels of the image or of the canvas, whichever are larger."""
_COARSEST = 128
"""Canvas pixels per node distance at the first attempt."""
_DOUBT = 0.25
"""Where a prediction missed by more than this share of the tolerance, the next finer nodes are looked at too."""
_REACH = 3
"""Nodes around such a place that are looked at with it."""
_MARGIN = 8
"""Nodes beyond the canvas: on it, what the spline's border does wrong has faded to 0.27 ** 8 of itself."""

Span = tuple[int, int]
"""First row (or column) of a block, and the one after its last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pullback:
    """A map from canvas pixels to image pixels: an affine part, and a cubic B-spline for what that lacks.

    Parameters
    ----------
    affine
        From pixel coordinates on the canvas to those in the image.
    coefficients
        B-spline coefficients of the rest, shape ``(2, H, W)``, in pixels of the image; zeros where there is none.
    step
        Canvas pixels per node distance.
    error
        Greatest difference from the exact map that was seen when every second node was left out and predicted from
        the others, in pixels of the image: the sampled map is more accurate than that.
    """

    affine: Affine
    coefficients: np.ndarray
    step: int
    error: float

    def block(self, rows: Span, columns: Span) -> Block:
        """Return the map for a block of pixels of the canvas."""
        _, from_row = _weights(rows, self.step)
        _, from_column = _weights(columns, self.step)
        part = self.coefficients[:, from_row, from_column].copy()
        return Block(affine=self.affine, coefficients=part, step=self.step, rows=rows, columns=columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """The map for one block of pixels, with no more coefficients than it needs: small enough to be sent around.

    Parameters
    ----------
    affine, step
        As in :class:`Pullback`.
    coefficients
        Those that the block depends on.
    rows, columns
        Of the block on the canvas.
    """

    affine: Affine
    coefficients: np.ndarray
    step: int
    rows: Span
    columns: Span

    def places(self) -> np.ndarray:
        """Return where each pixel comes from, shape ``(2, h, w)``: x and y in the image."""
        along_y, _ = _weights(self.rows, self.step)
        along_x, _ = _weights(self.columns, self.step)
        places = along_y @ self.coefficients @ along_x.T
        x, y = np.arange(*self.columns) + 0.5, np.arange(*self.rows)[:, None] + 0.5
        for out, (per_x, per_y, shift) in zip(places, self.affine.matrix):
            out += per_x * x + per_y * y + shift
        return places

    def bounds(self) -> np.ndarray:
        """Return a box in the image that holds all these places: lowest and highest (x, y), shape ``(2, 2)``."""
        corners = self.affine([[x, y] for x in self.columns for y in self.rows])
        # a B-spline is a weighted mean of its coefficients, so that it stays between them
        low = corners.min(axis=0) + self.coefficients.min(axis=(1, 2))
        high = corners.max(axis=0) + self.coefficients.max(axis=(1, 2))
        return np.stack([low, high])


def _weights(span: Span, step: int) -> tuple[np.ndarray, slice]:
    """Return the spline's weights at the pixels of a span, shape ``(pixels, k)``, and which k coefficients they take."""
    return bspline.basis(_MARGIN + np.arange(*span) / step)


def sample(back: Transform, *, from_canvas: Affine, to_image: Affine, shape: tuple[int, int]) -> Pullback:
    """Sample a map on a canvas, on a grid as fine as :data:`TOLERANCE` asks for.

    The grid is refined by twos until the nodes that come in between are predicted well enough by those that were
    there.

    Parameters
    ----------
    back
        From the frame of the canvas to that of the image: the inverse of the map that moves the image.
    from_canvas
        From pixel coordinates on the canvas to its frame.
    to_image
        From the image's frame to its pixel coordinates.
    shape
        Rows and columns of the canvas.

    Raises
    ------
    ValueError
        If the map back is not found somewhere on the canvas.

    Examples
    --------
    >>> from inst_align.core.transforms import Affine
    >>> still = Affine(np.eye(3))
    >>> half = Affine(np.diag([0.5, 0.5, 1]))
    >>> pullback = sample(still, from_canvas=half, to_image=still, shape=(2, 3))
    >>> pullback.block(rows=(0, 1), columns=(0, 3)).places()[0]
    array([[0.25, 0.75, 1.25]])
    """
    affine = to_image @ affine_part(back) @ from_canvas
    whole = Compose((from_canvas, back, to_image))
    tolerance = TOLERANCE * max(1.0, affine.scale)

    def exact(nodes: np.ndarray) -> np.ndarray:
        return (whole(nodes) - affine(nodes)).T

    step = _first_step(back, from_canvas)
    nodes = _nodes(shape, step)
    rest = exact(nodes.reshape(-1, 2)).reshape(2, *nodes.shape[:2])
    doubtful = np.ones(nodes.shape[:2], dtype=bool)
    while True:
        at_nodes = _nodes(shape, step // 2)
        predicted = bspline.values(bspline.coefficients(rest), (at_nodes.reshape(-1, 2) - 0.5) / step + _MARGIN)
        rest = predicted.T.reshape(2, *at_nodes.shape[:2])
        step //= 2
        doubtful = _at_finer_nodes(doubtful, rest.shape[1:])
        miss = np.zeros(rest.shape[1:])
        known = exact(at_nodes[doubtful])
        miss[doubtful] = np.hypot(*(known - rest[:, doubtful]))
        rest[:, doubtful] = known
        on_canvas = np.all((at_nodes >= 0) & (at_nodes <= shape[::-1]), axis=2)
        error = float(miss[on_canvas].max())
        if error <= tolerance or step == 1:
            return Pullback(affine=affine, coefficients=bspline.coefficients(rest), step=step, error=error)
        doubtful = binary_dilation(miss > _DOUBT * tolerance, iterations=_REACH)


def affine_part(transform: Transform) -> Affine:
    """Return the affine map that is left when every displacement in a map is taken out: what it is far outside.

    Examples
    --------
    >>> import numpy as np
    >>> from inst_align.core.transforms import Displacement
    >>> bump = Displacement(np.pad([[[0.1]], [[0.2]]], ((0, 0), (2, 2), (2, 2))), origin=(0, 0), spacing=1)
    >>> affine_part(bump @ Affine.from_rigid(0, (3, 4)))
    Affine(angle=0 deg, scale=1, shift=(3, 4))
    """
    matrix = np.eye(3)
    for part in _parts(transform):
        if isinstance(part, Affine):
            matrix = part.matrix @ matrix
    return Affine(matrix)


def finest_spacing(transform: Transform) -> float:
    """Return the smallest node distance of the displacements in a map; infinite where there are none."""
    displacements = [part.forward if isinstance(part, InverseDisplacement) else part for part in _parts(transform)]
    return min((part.spacing for part in displacements if isinstance(part, Displacement)), default=math.inf)


def _parts(transform: Transform) -> tuple[Transform, ...]:
    return transform.parts if isinstance(transform, Compose) else (transform,)


def _first_step(back: Transform, from_canvas: Affine) -> int:
    """Return a power of two from 2 to the coarsest, at which the first check looks at every cell of a displacement."""
    spacing = finest_spacing(back) / from_canvas.scale
    return 2 ** int(np.clip(np.log2(max(spacing, 1.0)) + 1, 1, math.log2(_COARSEST)))


def _nodes(shape: tuple[int, int], step: int) -> np.ndarray:
    """Return the canvas pixel coordinates of the nodes, shape ``(H, W, 2)`` as (x, y), the margin included.

    They are centres of pixels: where every pixel is a node, nothing is left to be predicted.
    """
    rows, columns = (0.5 + step * (np.arange(math.ceil(n / step) + 1 + 2 * _MARGIN) - _MARGIN) for n in shape)
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def _at_finer_nodes(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask of nodes for the nodes half as far apart; both grids begin :data:`_MARGIN` nodes off the canvas."""
    rows, columns = ((np.arange(n) - _MARGIN) // 2 + _MARGIN for n in shape)
    return mask[np.ix_(rows, columns)]
