"""Where the cells are: arrays of coordinates and features in ``obsm``, and whether they make a section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from inst_align._checks._expression import package_of
from inst_align._checks._words import ARGUMENTS, Role, listing, warn_user

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import DTypeLike

    from inst_align._pair import Pair

NanPolicy = Literal["error", "drop-from-fit"]

FEWEST_CELLS = 10
FEW_CELLS = 50
"""Below this many cells a section is placed rigidly: a non-rigid map would follow the noise of single cells."""
FLATTEST = 1e-3
"""Least ratio of a section's short to its long principal axis; below it the section is a line."""
SIZES = 1e-30, 1e30
"""Least extent and largest coordinate of which a stored map, which is of float32, can hold the displacements."""
LEVEL = 1e-6
"""A third coordinate that varies by no more than this share of the first two varies by rounding only."""
READABLE = {"anndata", "dask", "h5py", "numpy", "pandas", "zarr"}
"""Packages whose arrays numpy can read."""


def check_nan_policy(nan_policy: object) -> None:
    """Raise ValueError unless ``nan_policy`` is one of the known words."""
    if nan_policy not in ("error", "drop-from-fit"):
        raise ValueError(f'`nan_policy={nan_policy!r}` is not known; pass "error" or "drop-from-fit".')


def coordinates(adata: AnnData, key: str, name: Role, *, nan_policy: NanPolicy = "error") -> np.ndarray:
    """Return a float64 copy, shape ``(n, 2)``, of the coordinates in ``obsm[key]``.

    A third column is left out when it is the same for all cells, as flat sections in 3-D frames have it. With
    ``nan_policy="drop-from-fit"`` a cell without finite coordinates gets a row of NaN; there may be no others.

    Raises
    ------
    KeyError
        ``obsm`` has no such key.
    TypeError
        The array is of a kind that numpy cannot read.
    ValueError
        The array is not numeric, not two columns wide, or not finite.
    """
    xyz = _numbers(adata, key, argument="spatial_key", name=name, dtype=np.float64)
    known = np.isfinite(xyz).all(axis=1)
    if nan_policy == "error":
        way_out = 'remove these cells, or align with `nan_policy="drop-from-fit"` to leave them out of the fit'
        _check_finite(adata, key, name, known, argument="spatial_key", way_out=way_out)
    xyz[~known] = np.nan
    if xyz.shape[1] == 2:
        return xyz
    varies = ""
    if xyz.shape[1] == 3:
        if not known.any() or np.ptp(xyz[known, 2]) <= LEVEL * np.ptp(xyz[known, :2], axis=0).max():
            return xyz[:, :2].copy()
        varies = ", of which the third varies"
    raise ValueError(
        f"`spatial_key={key!r}`: `obsm[{key!r}]` of the {name} has {xyz.shape[1]} columns{varies}; "
        f"store an array with the two columns x and y under a key of its own and pass that key."
    )


def representation(adata: AnnData, key: str, name: Role, rows: np.ndarray) -> np.ndarray:
    """Return a float32 copy, shape ``(n, d)``, of the features of some rows (a mask) in ``obsm[key]``."""
    features = _numbers(adata, key, argument="use_rep", name=name, dtype=np.float32)
    if features.shape[1] == 0:
        raise ValueError(f"`use_rep={key!r}`: `obsm[{key!r}]` of the {name} has no columns; pass another key.")
    finite = np.isfinite(features).all(axis=1) | ~rows
    _check_finite(adata, key, name, finite, argument="use_rep", way_out="remove these cells first")
    return features[rows]


def _numbers(adata: AnnData, key: str, *, argument: str, name: Role, dtype: DTypeLike) -> np.ndarray:
    """Return a two-dimensional copy of ``obsm[key]``."""
    if key not in adata.obsm:
        raise KeyError(
            f"`{argument}={key!r}`: no `obsm[{key!r}]` in the {name}; it has {listing(sorted(adata.obsm), 10)}: "
            f"pass one of these as `{argument}`."
        )
    where = f"`{argument}={key!r}`: `obsm[{key!r}]` of the {name}"
    array = _dense(adata.obsm[key], where)
    if array.dtype.kind not in "iuf" or array.ndim != 2:
        raise ValueError(
            f"{where} has dtype {array.dtype} and shape {array.shape}; store numbers, one row per cell and one column "
            f"per axis."
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is reported as such
        return np.array(array, dtype=dtype)


def _dense(value: Any, where: str) -> np.ndarray:
    if sp.issparse(value):
        raise ValueError(f"{where} is sparse; store it as a dense array.")
    if isinstance(value, pd.DataFrame):
        words = [column for column, kind in value.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        if words:
            raise ValueError(f"{where} has columns that are not numbers ({listing(words)}); store numbers only.")
        return value.to_numpy(dtype=np.float64, na_value=np.nan)
    if package_of(value) not in READABLE or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__name__}; store a plain numpy array.")
    return np.asarray(value)


def _check_finite(adata: AnnData, key: str, name: Role, finite: np.ndarray, *, argument: str, way_out: str) -> None:
    bad = ~finite
    if bad.any():
        raise ValueError(
            f"`{argument}={key!r}`: `obsm[{key!r}]` of the {name} is NaN or infinite in {bad.sum()} of {len(bad)} cells "
            f"({listing(adata.obs_names[bad])}); {way_out}."
        )


def warn_of_unknown_places(adata: AnnData, key: str, name: Role, known: np.ndarray) -> None:
    """Warn of the cells that are left out, because ``known``, a mask of shape ``(n,)``, says that they have no place."""
    if not known.all():
        warn_user(
            f"`spatial_key={key!r}`: {(~known).sum()} of {len(known)} cells of the {name} have no finite coordinates "
            f"({listing(adata.obs_names[~known])}); they are left out of the fit, and their rows of the result are NaN."
        )


def check_enough_cells(n_cells: int, name: Role, *, what: str = "cells") -> None:
    """Raise ValueError for a section that is too small to align; ``what`` says which cells were counted."""
    if n_cells < FEWEST_CELLS:
        raise ValueError(
            f"`{ARGUMENTS[name]}`: the {name} has {n_cells} {what}, and an alignment needs at least {FEWEST_CELLS}; "
            f"pass a larger section."
        )


def check_area(xy: np.ndarray, key: str, name: Role) -> None:
    """Raise ValueError when the points, shape ``(n, 2)``, lie on one line or in one place, or in no usable unit."""
    _check_size(xy, key, name)
    same = bool((xy == xy[0]).all())
    if not same:
        centred = xy - xy.mean(axis=0)
        variance = np.linalg.eigvalsh(np.cov(centred.T / np.abs(centred).max()))
        if variance[0] > FLATTEST**2 * variance[1]:
            return
    found = "are all the same" if same else "lie on one line"
    raise ValueError(
        f"`spatial_key={key!r}`: the coordinates of the {len(xy)} cells of the {name} {found}, "
        f"so that the section has no area; pass the key of two-dimensional coordinates."
    )


def _check_size(xy: np.ndarray, key: str, name: Role) -> None:
    largest = float(np.abs(xy).max())
    extent = float(np.ptp(xy, axis=0).max()) if largest <= SIZES[1] else largest
    if largest > SIZES[1] or 0 < extent < SIZES[0]:
        found = f"are as large as {largest:.3g}" if largest > SIZES[1] else f"span {extent:.3g} only"
        raise ValueError(
            f"`spatial_key={key!r}`: the coordinates of the {len(xy)} cells of the {name} {found}, which is beyond what a map "
            f"can hold ({SIZES[0]:g} to {SIZES[1]:g}); check that they are positions, or bring them to another unit."
        )


def warn_of_few_cells(pair: Pair) -> bool:
    """Warn, and return True, when a section has too few cells for more than a rigid map."""
    few = {section.name: len(section) for section in (pair.ref, pair.src) if len(section) < FEW_CELLS}
    if few:
        found = " and ".join(f"the {name} has {n} cells" for name, n in few.items())
        warn_user(
            f"{found[0].upper()}{found[1:]}, too few for a non-rigid map, which needs at least {FEW_CELLS} in each "
            f"section: the sections are aligned rigidly, as `ia.pp.rigid_align` does."
        )
    return bool(few)
