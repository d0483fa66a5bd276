"""Tensor-product cubic B-splines on a regular grid: two components, values and derivatives of the same function.

Everything here is in node units: the point (j, i) is the node in column j and row i. The spline is even about the
outermost nodes ("mirror"), so that its normal derivative is zero on the border; with zeros stored there it goes over
to zero beyond the grid with continuous first derivatives. Derivation of the prefilter: Unser, IEEE Signal Processing
Magazine 16(6), 1999.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import spline_filter1d

_BLOCK = 65536
"""Points evaluated at once: their temporaries fit a processor's cache and memory stays linear in the output."""


def coefficients(values: np.ndarray) -> np.ndarray:
    """Return the B-spline coefficients that interpolate values on a grid.

    Parameters
    ----------
    values
        Shape ``(2, H, W)``, H and W at least 2.

    Returns
    -------
    Shape ``(2, H + 2, W + 2)``, float64: with the one ring around the grid that evaluation at its border needs.
    """
    rows = spline_filter1d(values, order=3, axis=1, output=np.float64, mode="mirror")
    both = spline_filter1d(rows, order=3, axis=2, output=np.float64, mode="mirror")
    return np.pad(both, ((0, 0), (1, 1), (1, 1)), mode="reflect")


def inside(coef: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Tell which points, shape ``(n, 2)`` as (column, row), lie on the grid or its border, bool of shape ``(n,)``."""
    last = np.array([coef.shape[2] - 3, coef.shape[1] - 3])
    return np.all((at >= 0) & (at <= last), axis=1)


def values(coef: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the spline at points, shape ``(n, 2)``; zero beyond the grid, NaN where a point is NaN."""
    return _in_blocks(coef, at, derivatives=False)[0]


def values_and_derivatives(coef: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the spline at points, and its derivatives, shape ``(n, 2, 2)``: ``[n, i, j]``, component i along j."""
    return _in_blocks(coef, at, derivatives=True)


def grid_derivatives(coef: np.ndarray, per_cell: int) -> np.ndarray:
    """Return the derivatives on a grid with ``per_cell`` points per cell and axis, each cell's first node included.

    Shape ``(2, 2, per_cell * (H - 1), per_cell * (W - 1))``: ``[i, j]``, component i along j.
    """
    weights = _weights(np.arange(per_cell) / per_cell)
    slopes = _weight_derivatives(np.arange(per_cell) / per_cell)
    along_x = _refined(_refined(coef, slopes, axis=2), weights, axis=1)
    along_y = _refined(_refined(coef, weights, axis=2), slopes, axis=1)
    return np.stack([along_x, along_y], axis=1)


def basis(at: np.ndarray) -> tuple[np.ndarray, slice]:
    """Return the weights of the coefficients along one axis at ascending places, shape ``(n,)``, in node units.

    Returns
    -------
    Shape ``(n, k)``, four weights per row that are not zero, and the slice of the k coefficients that they belong to:
    ``weights @ coef[..., slice]`` is the spline. Places have to lie on the grid, before its last node.
    """
    cell = np.floor(at).astype(np.intp)
    first, last = int(cell[0]), int(cell[-1])
    weights = np.zeros((len(at), last - first + 4))
    columns = cell[:, None] - first + np.arange(4)
    np.put_along_axis(weights, columns, _weights(at - cell).T, axis=1)
    return weights, slice(first, last + 4)


def _refined(coef: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    fine = sliding_window_view(coef, 4, axis=axis) @ weights  # (..., cells, ..., per_cell)
    shape = [-1 if k == axis else length for k, length in enumerate(coef.shape)]
    return np.moveaxis(fine, -1, axis + 1).reshape(shape)


def _in_blocks(coef: np.ndarray, at: np.ndarray, *, derivatives: bool) -> tuple[np.ndarray, np.ndarray]:
    value = np.zeros((len(at), 2))
    slope = np.zeros((len(at) if derivatives else 0, 2, 2))
    for start in range(0, len(at), _BLOCK):
        block = at[start : start + _BLOCK]
        lost = np.isnan(block).any(axis=1)
        here = np.flatnonzero(inside(coef, block))
        block_value, block_slope = _sixteen_taps(coef, block[here], derivatives=derivatives)
        value[start + here] = block_value.T
        value[start : start + _BLOCK][lost] = np.nan
        if derivatives:
            slope[start + here] = np.moveaxis(block_slope, -1, 0)
            slope[start : start + _BLOCK][lost] = np.nan
    return value, slope


def _sixteen_taps(coef: np.ndarray, at: np.ndarray, *, derivatives: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return values ``(2, n)`` and derivatives ``(2, 2, n)`` at points inside the grid."""
    stride = coef.shape[2]
    flat = coef.reshape(2, -1)
    # the last node belongs to the last cell
    cell = np.minimum(at.astype(np.intp), (coef.shape[2] - 4, coef.shape[1] - 4))
    first = cell[:, 1] * stride + cell[:, 0]
    within = (at - cell).T  # (2, n)
    weight_x, weight_y = _weights(within[0]), _weights(within[1])  # (4, n) each
    value = np.zeros((2, len(at)))
    slope = np.zeros((2, 2, len(at)))
    if derivatives:
        slope_x, slope_y = _weight_derivatives(within[0]), _weight_derivatives(within[1])
    for row in range(4):
        taps = [flat.take(first + (row * stride + column), axis=1) for column in range(4)]  # (2, n) each
        across = sum(weight * tap for weight, tap in zip(weight_x, taps))
        value += weight_y[row] * across
        if derivatives:
            slope[:, 0] += weight_y[row] * sum(weight * tap for weight, tap in zip(slope_x, taps))
            slope[:, 1] += slope_y[row] * across
    return value, slope


def _weights(t: np.ndarray) -> np.ndarray:
    """Return the four cubic B-spline weights, shape ``(4, n)``, at the fraction t of a cell."""
    s = 1 - t
    return np.stack([s**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * s**2 + 3 * s**3, t**3]) / 6


def _weight_derivatives(t: np.ndarray) -> np.ndarray:
    s = 1 - t
    return np.stack([-(s**2), t * (3 * t - 4), s * (4 - 3 * s), t**2]) / 2
