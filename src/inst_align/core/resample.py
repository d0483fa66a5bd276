"""Look up an image at given places: linearly for intensities, the nearest pixel for labels.

Convention: pixel coordinates are (x, y) = (column, row) with the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

REACH = 1
"""Pixels around a place that are looked at."""


def linear(
    window: np.ndarray, place: np.ndarray, *, corner: tuple[int, int], shape: tuple[int, int], dtype: DTypeLike
) -> np.ndarray:
    """Interpolate linearly between pixel centres; up to half a pixel beyond them, at the border, take the nearest.

    Parameters
    ----------
    window
        The part of the image that is looked at, shape ``(..., H, W)``: all that lies within :data:`REACH` of the
        places, so far as the image has it.
    place
        Pixel coordinates in the whole image, shape ``(2, h, w)``: x, y.
    corner
        Column and row of the window's first pixel in the whole image.
    shape
        Rows and columns of the whole image.
    dtype
        Of the result; integers are rounded.

    Returns
    -------
    Shape ``(..., h, w)``; zero where the place is outside of the image.

    Examples
    --------
    >>> row = np.array([[10.0, 20.0]])
    >>> at = np.array([[[0.2, 1.0, 1.25, 2.1]], [[0.5, 0.5, 0.5, 0.5]]])
    >>> linear(row, at, corner=(0, 0), shape=(1, 2), dtype=float)
    array([[10. , 15. , 17.5,  0. ]])
    """
    inside = _inside(place, shape)
    index = place[::-1] - (0.5 + np.array(corner[::-1])[:, None, None])
    known = window.astype(np.float32) if window.dtype == np.float16 else window  # scipy has no half precision
    result = np.zeros((*window.shape[:-2], *inside.shape), dtype=dtype)
    for plane in np.ndindex(window.shape[:-2]):
        values = map_coordinates(known[plane], index, order=1, mode="nearest", output=_computable(dtype))
        result[plane] = np.where(inside, values, 0)
    return result


def nearest(
    window: np.ndarray, place: np.ndarray, *, corner: tuple[int, int], shape: tuple[int, int], dtype: DTypeLike
) -> np.ndarray:
    """Take the value of the pixel in which each place lies, zero outside of the image; arguments as in :func:`linear`.

    Examples
    --------
    >>> at = np.array([[[0.2, 0.9, 1.1, 2.1]], [[0.5, 0.5, 0.5, 0.5]]])
    >>> nearest(np.array([[7, 8]]), at, corner=(0, 0), shape=(1, 2), dtype=int)
    array([[7, 7, 8, 0]])
    """
    inside = _inside(place, shape)
    column, row = (
        np.where(inside, np.floor(axis), start).astype(np.intp) - start for axis, start in zip(place, corner)
    )
    result: np.ndarray = np.where(inside, window[..., row, column], 0).astype(dtype, copy=False)
    return result


def _inside(place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    (x, y), (height, width) = place, shape
    result: np.ndarray = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return result


def _computable(dtype: DTypeLike) -> np.dtype:
    """Return the type nearest to this one that scipy can interpolate into."""
    return np.dtype(np.float32) if np.dtype(dtype) == np.float16 else np.dtype(dtype)
