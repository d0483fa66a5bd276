"""The pixel grid on which a moved image is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Affine as SpatialDataAffine
from spatialdata.transformations import Identity, Scale, Sequence, Translation

from inst_align._spatialdata.elements import matrix_to
from inst_align._spatialdata.scales import levels, shape_of
from inst_align.core.pullback import affine_part
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from spatialdata.transformations import BaseTransformation

    from inst_align._spatialdata.detail import Detail
    from inst_align._spatialdata.elements import Raster
    from inst_align.core.transforms import Transform

_OUTLINE_POINTS = 1024
"""Points along each side of an image that tell how far it reaches once it is moved."""
_SLACK = 1.0
"""Pixels that are added around them, for what may lie in between."""
_MOST_TIMES_LARGER = 64
"""A canvas with this many times the pixels of the image that it is for is taken for a mistake."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A pixel grid: ``to_frame`` takes its pixel coordinates (first centre 0.5, 0.5) to the frame it lies in.

    Parameters
    ----------
    to_frame
        Affine map from pixel coordinates (x, y).
    shape
        Rows and columns.
    """

    to_frame: Affine
    shape: tuple[int, int]

    @property
    def transformation(self) -> BaseTransformation:
        """The same map as SpatialData stores it, in the simplest form."""
        matrix = self.to_frame.matrix
        if np.array_equal(matrix, np.eye(3)):
            return Identity()
        if matrix[0, 1] == matrix[1, 0] == 0:
            scale = Scale([matrix[0, 0], matrix[1, 1]], axes=("x", "y"))
            return Sequence([scale, Translation(matrix[:2, 2].tolist(), axes=("x", "y"))])
        return SpatialDataAffine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def grid_of(raster: Raster, system: str) -> Canvas:
    """Return the grid of a raster in a coordinate system."""
    return Canvas(Affine(matrix_to(raster, system)), shape_of(levels(raster)[0]))


def canvas_for(
    image: Canvas, transform: Transform, detail: Detail, *, multiple: tuple[int, int] = (1, 1), name: str
) -> Canvas:
    """Return a grid that holds all of a moved image, unless it is to be cropped.

    Parameters
    ----------
    image
        The grid of the image where it is now.
    transform
        The map that moves it.
    detail
        With ``like``, that grid is continued by as many pixels on each side as the image needs. Else pixels are square
        and their lines lie at multiples of their size.
    multiple
        Numbers by which columns and rows are to be divisible, so that coarser scales show all of the canvas.
    name
        Of the image, for error messages.

    Raises
    ------
    ValueError
        If that makes far more pixels than the image has.
    """
    like = detail.like
    if like is not None and detail.crop:
        return like
    size = detail.pixel_size or pixel_size_of(image, affine_part(transform))
    lattice = Affine(np.diag([size, size, 1.0])) if like is None else like.to_frame
    outline = lattice.inverse()(transform(_outline(image)))
    low, high = np.floor(outline.min(axis=0) - _SLACK), np.ceil(outline.max(axis=0) + _SLACK)
    if like is not None:
        low, high = np.minimum(low, 0), np.maximum(high, like.shape[::-1])
    width, height = (int(n * np.ceil(length / n)) for n, length in zip(multiple, high - low))
    pixels = image.shape[0] * image.shape[1] + (0 if like is None else like.shape[0] * like.shape[1])
    if width * height > _MOST_TIMES_LARGER * pixels:
        raise ValueError(
            f"Moving {name!r}, of {image.shape[1]} x {image.shape[0]} pixels, would take {width} x {height} pixels; "
            "pass a larger `pixel_size`."
        )
    shift = np.array([[1.0, 0, low[0]], [0, 1, low[1]], [0, 0, 1]])
    return Canvas(Affine(lattice.matrix @ shift), (height, width))


def pixel_size_of(image: Canvas, transform: Affine) -> float:
    """Return the size of an image's pixels after an affine map, along the axis on which they are smallest."""
    linear = (transform @ image.to_frame).matrix[:2, :2]
    return float(np.linalg.svd(linear, compute_uv=False)[-1])


def _outline(image: Canvas) -> np.ndarray:
    """Return points on the border of an image, in its frame; a map takes the border to the border."""
    height, width = image.shape
    along = np.linspace(0, 1, _OUTLINE_POINTS)
    sides = [np.stack([along * width, np.full_like(along, y)], axis=1) for y in (0, height)]
    sides += [np.stack([np.full_like(along, x), along * height], axis=1) for x in (0, width)]
    return image.to_frame(np.concatenate(sides))
