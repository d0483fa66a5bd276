"""Move images and labels: every pixel of a canvas looks up where it comes from, chunk by chunk, when it is needed."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
from spatialdata.models import Image2DModel, Labels2DModel

from inst_align._spatialdata.canvas import Canvas, canvas_for, grid_of, pixel_size_of
from inst_align._spatialdata.scales import levels, per_level, scale_factors
from inst_align.core import resample
from inst_align.core.pullback import Block, Pullback, Span, affine_part, sample
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike
    from xarray import DataArray

    from inst_align._spatialdata.detail import Detail
    from inst_align._spatialdata.elements import Raster
    from inst_align.core.transforms import Transform

CHUNK = 1024
"""Rows and columns of a chunk of a moved raster."""


def moved_raster(
    raster: Raster,
    transform: Transform,
    back: Transform,
    *,
    name: str,
    system: str,
    to: str,
    detail: Detail,
) -> Raster:
    """Return a raster that is drawn anew, lazily, where the map takes it; as many scales as it has now.

    Images are interpolated linearly, and averaged first where the new pixels are larger; labels keep their values.
    """
    image = grid_of(raster, system)
    factors = scale_factors(raster)
    x, y = (math.prod(step[axis] for step in factors or []) for axis in ("x", "y"))
    canvas = canvas_for(image, transform, detail, multiple=(x, y), name=name)
    is_image = "c" in levels(raster)[0].dims
    source, per_pixel = _at_resolution(raster, _shrinkage(image, canvas, back)) if is_image else _finest(raster)
    shrink = Affine(np.diag([*(1 / per_pixel), 1.0]))
    pullback = sample(back, from_canvas=canvas.to_frame, to_image=shrink @ image.to_frame.inverse(), shape=canvas.shape)
    drawn = _drawn(source.data, pullback, canvas.shape, levels(raster)[0].dtype, interpolate=is_image)
    common = {"dims": source.dims, "transformations": {to: canvas.transformation}, "scale_factors": factors}
    chunks = None if factors is None else dict(zip(source.dims, drawn.chunksize))
    if not is_image:
        return Labels2DModel.parse(drawn, chunks=chunks, **common)
    return Image2DModel.parse(drawn, chunks=chunks, c_coords=source.coords["c"].values.tolist(), **common)


def _shrinkage(image: Canvas, canvas: Canvas, back: Transform) -> float:
    """Return how many pixels of an image make one of the canvas, along the axis on which they are fewest."""
    return pixel_size_of(canvas, image.to_frame.inverse() @ affine_part(back))


def _finest(raster: Raster) -> tuple[DataArray, np.ndarray]:
    return levels(raster)[0], np.ones(2)


def _at_resolution(raster: Raster, shrinkage: float) -> tuple[DataArray, np.ndarray]:
    """Return an image that is nearly as coarse as the canvas, never coarser, and how many pixels make one of its.

    Looking up single pixels of a much finer image would make noise of its detail.
    """
    candidates = list(zip(levels(raster), per_level(raster)))
    level, per_pixel = [(level, size) for level, size in candidates if size.max() <= max(1.0, shrinkage + 1e-6)][-1]
    factor = int(shrinkage / per_pixel.max() + 1e-6)
    if factor > 1:
        level = level.coarsen(y=factor, x=factor, boundary="trim").mean()
    return level, per_pixel * max(1, factor)


def _drawn(
    source: da.Array, pullback: Pullback, shape: tuple[int, int], dtype: DTypeLike, *, interpolate: bool
) -> da.Array:
    """Return the canvas, shape ``(..., *shape)``, as an array of chunks that are not drawn yet."""
    look_up = partial(
        resample.linear if interpolate else resample.nearest, shape=source.shape[-2:], dtype=np.dtype(dtype)
    )
    # channels that are stored together are drawn together
    parts = [source] if source.ndim == 2 else [source[slice(*c)] for c in _spans(len(source), source.chunks[0][0])]
    rows, columns = (_spans(length, CHUNK) for length in shape)
    drawn = [da.block([[_chunk(part, pullback.block(r, c), look_up) for c in columns] for r in rows]) for part in parts]
    return da.concatenate(drawn)


def _spans(length: int, size: int) -> list[Span]:
    return [(first, min(first + size, length)) for first in range(0, length, size)]


def _chunk(source: da.Array, block: Block, look_up: partial[np.ndarray]) -> da.Array:
    """Return one block of the canvas as an array of one chunk."""
    (top, below), (left, after) = block.rows, block.columns
    form = (*source.shape[:-2], below - top, after - left)
    (low_x, low_y), (high_x, high_y) = block.bounds()
    height, width = source.shape[-2:]
    rows = slice(max(0, math.floor(low_y) - resample.REACH), min(height, math.ceil(high_y) + resample.REACH))
    columns = slice(max(0, math.floor(low_x) - resample.REACH), min(width, math.ceil(high_x) + resample.REACH))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return da.zeros(form, dtype=look_up.keywords["dtype"], chunks=form)
    window = source[..., rows, columns].rechunk(-1)
    draw = partial(_draw, block=block, corner=(columns.start, rows.start), look_up=look_up)
    chunks = tuple((length,) for length in form)
    return window.map_blocks(draw, chunks=chunks, dtype=look_up.keywords["dtype"], meta=window._meta)


def _draw(
    window: np.ndarray, *, block: Block, corner: tuple[int, int], look_up: Callable[..., np.ndarray]
) -> np.ndarray:
    return look_up(window, block.places(), corner=corner)
