"""Move images and labels: every pixel of a canvas looks up where it comes from, chunk by chunk, when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
from dask.delayed import delayed
from spatialdata.models import Image2DModel, Labels2DModel

from inst_align._spatialdata.canvas import Canvas, canvas_for, grid_of, pixel_size_of
from inst_align._spatialdata.scales import levels, per_level, scale_factors
from inst_align.core import resample
from inst_align.core.pullback import Pullback, Span, affine_part, sample
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
    canvas = canvas_for(image, transform, detail, name=name)
    is_image = "c" in levels(raster)[0].dims
    source, per_pixel = _at_resolution(raster, _shrinkage(image, canvas, back)) if is_image else _finest(raster)
    shrink = Affine(np.diag([*(1 / per_pixel), 1.0]))
    pullback = sample(back, from_canvas=canvas.to_frame, to_image=shrink @ image.to_frame.inverse(), shape=canvas.shape)
    drawn = _drawn(source.data, pullback, canvas.shape, levels(raster)[0].dtype, interpolate=is_image)
    factors = scale_factors(raster)
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
    known = delayed(pullback, traverse=False)
    rows, columns = (_spans(length, CHUNK) for length in shape)

    def chunk(part: da.Array, rows: Span, columns: Span) -> da.Array:
        form = (*part.shape[:-2], rows[1] - rows[0], columns[1] - columns[0])
        left, top, right, bottom = _window(pullback, rows, columns, source.shape[-2:])
        if left >= right or top >= bottom:
            return da.zeros(form, dtype=dtype, chunks=form)
        window = part[..., top:bottom, left:right]
        look_up = resample.linear if interpolate else resample.nearest
        values = delayed(_look_up)(look_up, window, known, rows, columns, (left, top), source.shape[-2:], dtype)
        return da.from_delayed(values, shape=form, dtype=dtype)

    # channels that are stored together are drawn together
    parts = [source] if source.ndim == 2 else [source[slice(*c)] for c in _spans(len(source), source.chunks[0][0])]
    return da.concatenate([da.block([[chunk(part, r, c) for c in columns] for r in rows]) for part in parts])


def _spans(length: int, size: int) -> list[Span]:
    return [(first, min(first + size, length)) for first in range(0, length, size)]


def _window(pullback: Pullback, rows: Span, columns: Span, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last column and row of the image that a chunk looks at: left, top, right, bottom."""
    low, high = pullback.bounds(rows, columns)
    left, top = np.clip(np.floor(low).astype(int) - resample.REACH, 0, None).tolist()
    right, bottom = np.clip(np.ceil(high).astype(int) + resample.REACH, None, shape[::-1]).tolist()
    return left, top, right, bottom


def _look_up(
    look_up: Callable[..., np.ndarray],
    window: np.ndarray,
    pullback: Pullback,
    rows: Span,
    columns: Span,
    corner: tuple[int, int],
    shape: tuple[int, int],
    dtype: DTypeLike,
) -> np.ndarray:
    return look_up(window, pullback(rows, columns), corner=corner, shape=shape, dtype=dtype)
