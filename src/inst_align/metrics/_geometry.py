"""Metrics that need coordinates only, and the two steps of optimal transport between coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import poch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FLOOR_NEIGHBOUR = 5
"""Far enough to see the density rather than how cells keep apart, near enough that the tissue's edge matters little."""

_MAX_ITERATIONS = 10**9

Plan = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row in the one section, row in the other and mass (whole numbers) of each pair of cells that a plan joins."""


class HasJacobian(Protocol):
    """Any map that knows its derivative: what ``ia.get.transform`` returns, or an object of your own."""

    def jacobian(self, xy: np.ndarray, /) -> np.ndarray:
        """Return ``(n, 2, 2)`` derivatives at the ``(n, 2)`` points."""
        ...


def as_xy(xy: ArrayLike, name: str) -> np.ndarray:
    """Return coordinates as float64 ``(n, 2)``, or say what is wrong with the argument of the given name."""
    try:
        array = np.asarray(xy, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must hold numbers, shape (n, 2), but found {type(xy).__name__} with other content ({error})."
        ) from error
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise ValueError(f"`{name}` must be coordinates of shape (n, 2) with n >= 1, found shape {array.shape}.")
    n_bad = int((~np.isfinite(array)).any(axis=1).sum())
    if n_bad:
        raise ValueError(
            f"`{name}` has NaN or infinite coordinates in {n_bad} of {len(array)} rows: leave these cells out."
        )
    return array


def _distinct(xy: ArrayLike, name: str) -> np.ndarray:
    positions = np.unique(as_xy(xy, name), axis=0)
    if len(positions) < 2:
        raise ValueError(f"`{name}` needs at least 2 distinct positions, found {len(positions)}.")
    return positions


def _neighbour_distance(positions: np.ndarray, k: int) -> np.ndarray:
    distance, _ = cKDTree(positions).query(positions, k=[k + 1])
    return np.asarray(distance).ravel()


def spacing(xy: ArrayLike) -> float:
    """Median distance from a cell to the nearest other position: the natural unit of an error.

    Parameters
    ----------
    xy
        Coordinates, shape ``(n, 2)``, axis order (x, y). Cells at the same position count once.

    Returns
    -------
    The distance in the units of ``xy``.

    Raises
    ------
    ValueError
        If ``xy`` has another shape, NaN, or fewer than 2 distinct positions.

    Examples
    --------
    >>> from inst_align.metrics import spacing
    >>> spacing([[0, 0], [2, 0], [4, 0], [4, 0]])
    2.0
    """
    return float(np.median(_neighbour_distance(_distinct(xy, "xy"), 1)))


def registration_error(xy: ArrayLike, xy_true: ArrayLike, *, unit: float | None = None) -> np.ndarray:
    """Distance of each cell from where it is known to belong.

    Report the median and a high percentile, in units of the reference's neighbour distance: label metrics are blind to
    motion along a layer, this one is not.

    Parameters
    ----------
    xy
        Where the alignment put the source's cells, shape ``(n, 2)``, axis order (x, y), reference's frame and units.
    xy_true
        Where the same cells belong, same shape, row by row.
    unit
        Length to divide by, in the same units, for example ``spacing(xy_ref)``. ``None`` keeps the input's units.

    Returns
    -------
    Euclidean errors, shape ``(n,)``, float64.

    Raises
    ------
    ValueError
        If shapes differ, coordinates are NaN, or ``unit`` is not a positive number.

    Examples
    --------
    >>> from inst_align.metrics import registration_error
    >>> registration_error([[0, 0], [3, 4]], [[0, 0], [0, 0]], unit=2.0)
    array([0. , 2.5])
    """
    found, true = as_xy(xy, "xy"), as_xy(xy_true, "xy_true")
    if found.shape != true.shape:
        raise ValueError(
            f"`xy_true` has {len(true)} rows but `xy` has {len(found)}: give one true position for each cell."
        )
    if unit is not None and not (np.isfinite(unit) and unit > 0):
        raise ValueError(f"`unit` must be a positive length in the units of `xy`, found {unit!r}.")
    error = np.linalg.norm(found - true, axis=1)
    return error if unit is None else error / unit


def chamfer_distance(xy_ref: ArrayLike, xy_src: ArrayLike, *, squared: bool = False) -> float:
    """Mean distance from a cell to the nearest cell of the other section, averaged over the two directions.

    Read it beside :func:`chamfer_floor`. A value far below that floor is no better alignment but a collapse: source
    cells that were all dropped onto reference cells score 0. Cells without a partner (partial overlap) raise it.

    Parameters
    ----------
    xy_ref
        Reference coordinates, shape ``(n, 2)``, axis order (x, y).
    xy_src
        Aligned source coordinates, shape ``(m, 2)``, in the reference's frame and units.
    squared
        Average squared distances instead. The two directions are averaged in this case too; the form of Fan et al.
        (2017) sums them and is twice as large.

    Returns
    -------
    The distance in the units of the input (squared units with ``squared=True``).

    Raises
    ------
    ValueError
        If coordinates have another shape or are NaN.

    References
    ----------
    Fan, Su and Guibas (2017), A point set generation network for 3D object reconstruction from a single image.

    Examples
    --------
    >>> from inst_align.metrics import chamfer_distance
    >>> chamfer_distance([[0, 0], [4, 0]], [[1, 0]])
    1.5
    """
    ref, src = as_xy(xy_ref, "xy_ref"), as_xy(xy_src, "xy_src")
    power = 2 if squared else 1
    distances = cKDTree(src).query(ref)[0], cKDTree(ref).query(src)[0]
    return float(np.mean([np.mean(distance**power) for distance in distances]))


def chamfer_floor(xy_ref: ArrayLike, xy_src: ArrayLike) -> float:
    """Chamfer distance to expect from a perfect alignment of two sections whose cells lie at random.

    From a point, the nearest cell of an independent Poisson sample of density d is at 0.5 / sqrt(d) on average. The
    local 1 / sqrt(d) is read off the distance to each cell's fifth neighbour in its own section and averaged over the
    cells and both sections, so density may vary over the tissue; coincident cells count once. Cells at the edge see
    half a neighbourhood, which makes the floor too high: by about 1 % with 1000 cells in a square, 3 % with 200, more
    in thin strips.

    It does not apply to spots on a lattice: there the offset of the two lattices decides, from 0 when they coincide to
    0.71 spacings for square ones, 0.38 on average. Cells that keep apart from each other lie between lattice and
    chance, so a good alignment of dense tissue may come out somewhat below the floor. Nor does it apply to sections
    that share cells.

    Parameters
    ----------
    xy_ref
        Reference coordinates, shape ``(n, 2)``, axis order (x, y).
    xy_src
        Aligned source coordinates, shape ``(m, 2)``, in the reference's frame and units.

    Returns
    -------
    The distance in the units of the input, for comparison with ``chamfer_distance(..., squared=False)``.

    Raises
    ------
    ValueError
        If coordinates have another shape, are NaN, or have fewer than 2 distinct positions.

    Examples
    --------
    >>> import numpy as np
    >>> from inst_align.metrics import chamfer_floor
    >>> rng = np.random.default_rng(0)
    >>> ref, src = rng.uniform(0, 100, (2, 10_000, 2))  # density 1
    >>> round(chamfer_floor(ref, src), 1)
    0.5
    """
    floors = []
    for xy, name in ((xy_ref, "xy_ref"), (xy_src, "xy_src")):
        positions = _distinct(xy, name)
        k = min(_FLOOR_NEIGHBOUR, len(positions) - 1)
        # In a Poisson sample the k-th neighbour lies at gamma(k + 1/2) / gamma(k) / sqrt(pi d) on average.
        floors.append(0.5 * _neighbour_distance(positions, k).mean() * np.sqrt(np.pi) / poch(k, 0.5))
    return float(np.mean(floors))


def fold_fraction(transform: HasJacobian, xy: ArrayLike) -> float:
    """Share of points at which a map turns the tissue inside out or flattens it.

    A point counts when the determinant of the Jacobian there is zero or has the sign opposite to the map's orientation.
    The orientation is the sign that most points have (that of the median determinant; positive when they are even), so
    a mirrored section is not a fold, and a map that folds more than half of the points is taken for a mirrored one.

    Parameters
    ----------
    transform
        The map, with a method ``jacobian(xy)`` that returns ``(n, 2, 2)``.
    xy
        Points in the frame that the map starts from (the source's), shape ``(n, 2)``, axis order (x, y).

    Returns
    -------
    A number between 0 (no folds) and 1.

    Raises
    ------
    TypeError
        If ``transform`` has no method ``jacobian``.
    ValueError
        If coordinates have another shape or are NaN, or the Jacobian is NaN somewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from inst_align.metrics import fold_fraction
    >>> class Pleat:  # x -> |x|
    ...     def jacobian(self, xy):
    ...         return np.array([[[np.sign(x), 0], [0, 1]] for x, _ in xy])
    >>> fold_fraction(Pleat(), [[-1, 0], [1, 0], [2, 0], [3, 0]])
    0.25
    """
    if not callable(getattr(transform, "jacobian", None)):
        raise TypeError(
            f"`transform` is a {type(transform).__name__}, which has no method `jacobian(xy)`: "
            "pass a map as `ia.get.transform` returns it."
        )
    jacobian = np.asarray(transform.jacobian(as_xy(xy, "xy")))
    n_bad = int((~np.isfinite(jacobian)).any(axis=(1, 2)).sum())
    if n_bad:
        raise ValueError(
            f"`transform` has a NaN or infinite Jacobian at {n_bad} of {len(jacobian)} points of `xy`: leave these out."
        )
    area = np.linalg.det(jacobian)
    orientation = 1 if (area > 0).sum() >= (area < 0).sum() else -1
    return float((area * orientation <= 0).mean())


def patches(xy: np.ndarray, n_patches: int) -> list[np.ndarray]:
    """Cut points into compact patches of (nearly) equal numbers, halving the longer side again and again."""
    done = []
    todo = [(np.arange(len(xy)), min(n_patches, len(xy)))]
    while todo:
        rows, n = todo.pop()
        if n == 1:
            done.append(rows)
            continue
        axis = np.ptp(xy[rows], axis=0).argmax()
        rows = rows[np.argsort(xy[rows, axis], kind="stable")]
        cut = len(rows) * (n // 2) // n
        todo += [(rows[:cut], n // 2), (rows[cut:], n - n // 2)]
    return done


def exact_plan(xy_a: np.ndarray, xy_b: np.ndarray, mass_a: np.ndarray, mass_b: np.ndarray) -> Plan:
    """Transport plan of least Euclidean cost between weighted points; masses are whole numbers of the same sum."""
    import ot

    cost = cdist(xy_a, xy_b)
    cost /= max(cost.max(), np.finfo(float).tiny)  # the solver's tolerances are absolute
    dense, log = ot.emd(mass_a.astype(float), mass_b.astype(float), cost, numItermax=_MAX_ITERATIONS, log=True)
    if log["warning"] is not None:
        raise RuntimeError(
            f"Optimal transport between {len(xy_a)} and {len(xy_b)} points did not converge ({log['warning']}): "
            "pass a smaller `max_exact`."
        )
    i, j = np.nonzero(dense > 0.5)
    return i, j, np.rint(dense[i, j]).astype(np.int64)
