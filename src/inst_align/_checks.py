"""The one place that judges input: each function returns clean arrays, or raises one sentence that says what to do.

A sentence names the argument, the section, what was found, what there is, and the way out.
``KeyError`` for keys, ``ValueError`` for values, ``TypeError`` for containers.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset

from inst_align._keys import UNS

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Role = Literal["reference", "source"]

FEWEST_CELLS = 10
FLATTEST = 1e-3
"""Least ratio of a section's short to its long principal axis; below it the section is a line."""


def warn_user(message: str) -> None:
    """Emit a ``UserWarning`` that points at the first line outside this package, which is where it can be acted on."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("inst_align."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def listing(names: Iterable[object], limit: int = 3) -> str:
    """Return the first few names as words, and how many more there are."""
    names = list(names)
    if not names:
        return "none"
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def check_anndata(adata: object, argument: str) -> None:
    """Raise TypeError unless ``adata`` is an AnnData."""
    if not isinstance(adata, AnnData):
        hint = " or call `ia.tl.align_spatialdata`" if type(adata).__name__ == "SpatialData" else ""
        raise TypeError(f"`{argument}` is a {type(adata).__module__}.{type(adata).__name__}; pass an AnnData{hint}.")


def coordinates(adata: AnnData, key: str, name: Role) -> np.ndarray:
    """Return a float64 copy, shape ``(n, 2)``, of the coordinates in ``obsm[key]``.

    A third column is left out when it is the same for all cells, as flat sections in 3-D frames have it.

    Raises
    ------
    KeyError
        ``obsm`` has no such key.
    ValueError
        The array is not numeric, not two columns wide, or not finite.
    """
    xy = _numbers(adata, key, name, argument="spatial_key", dtype=np.float64)
    if xy.shape[1] == 3 and len(xy) and np.ptp(xy[:, 2]) == 0:
        return xy[:, :2].copy()
    if xy.shape[1] != 2:
        third = ", of which the third varies" if xy.shape[1] == 3 else ""
        raise ValueError(
            f"`spatial_key={key!r}`: `obsm[{key!r}]` of the {name} has {xy.shape[1]} columns{third}; "
            f"store an array with the two columns x and y and pass its key."
        )
    return xy


def representation(adata: AnnData, key: str, name: Role) -> np.ndarray:
    """Return a float32 copy, shape ``(n, d)``, of the features in ``obsm[key]``."""
    features = _numbers(adata, key, name, argument="use_rep", dtype=np.float32)
    if features.shape[1] == 0:
        raise ValueError(f"`use_rep={key!r}`: `obsm[{key!r}]` of the {name} has no columns; pass another key.")
    return features


def _numbers(adata: AnnData, key: str, name: Role, *, argument: str, dtype: DTypeLike) -> np.ndarray:
    """Return a finite two-dimensional copy of ``obsm[key]``."""
    if key not in adata.obsm:
        raise KeyError(
            f"`{argument}={key!r}`: no `obsm[{key!r}]` in the {name}; it has {listing(sorted(adata.obsm), 10)}: "
            f"pass one of these as `{argument}`."
        )
    where = f"`{argument}={key!r}`: `obsm[{key!r}]` of the {name}"
    value = adata.obsm[key]
    if sp.issparse(value):
        raise ValueError(f"{where} is sparse; store it as a dense array.")
    if isinstance(value, pd.DataFrame):
        words = [column for column, kind in value.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        if words:
            raise ValueError(f"{where} has columns that are not numbers ({listing(words)}); store numbers only.")
        value = value.to_numpy(dtype=np.float64, na_value=np.nan)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim != 2:
        raise ValueError(
            f"{where} has dtype {array.dtype} and shape {array.shape}; store numbers, one row per cell and one column per axis."
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is reported as such
        array = np.array(array, dtype=dtype)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{where} is NaN or infinite in {bad.sum()} of {len(bad)} cells ({listing(adata.obs_names[bad])}); "
            f"remove these cells first."
        )
    return array


def check_enough_cells(n_cells: int, name: Role) -> None:
    """Raise ValueError for a section that is too small to align."""
    if n_cells < FEWEST_CELLS:
        argument = "adata_ref" if name == "reference" else "adata_src"
        raise ValueError(
            f"`{argument}`: the {name} has {n_cells} cells, and an alignment needs at least {FEWEST_CELLS}; "
            f"pass a larger section."
        )


def check_area(xy: np.ndarray, key: str, name: Role) -> None:
    """Raise ValueError when the points, shape ``(n, 2)``, lie on one line or in one place."""
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


def matrix_of(adata: AnnData, layer: str | None, name: Role) -> Any:
    """Return ``X`` or ``layers[layer]`` as it is stored: dense, sparse, or an array on disk."""
    where = f"`X` of the {name}" if layer is None else f"`layer={layer!r}`: `layers[{layer!r}]` of the {name}"
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"`layer={layer!r}`: no `layers[{layer!r}]` in the {name}; it has {listing(sorted(adata.layers), 10)}: "
            f"pass one of these as `layer`, or None for `X`."
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(f"{where} is None; pass `layer` or `use_rep` to say where the expression is.")
    on_disk = isinstance(matrix, CSRDataset | CSCDataset) or type(matrix).__module__.split(".")[0] in {"h5py", "zarr"}
    if not (on_disk or isinstance(matrix, np.ndarray) or sp.issparse(matrix)):
        raise TypeError(
            f"{where} is a {type(matrix).__module__}.{type(matrix).__name__}; pass a numpy array or a scipy sparse "
            f"matrix (`.compute()` makes one of a dask array, `.get()` of a cupy array)."
        )
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{where} has dtype {matrix.dtype}; store numbers.")
    return matrix


def finite_expression(matrix: Any, genes: tuple[str, ...], name: Role) -> None:
    """Raise ValueError when a CSR matrix holds NaN or infinite values."""
    bad = ~np.isfinite(matrix.data)
    if bad.any():
        where = [genes[i] for i in np.unique(matrix.indices[bad])]
        raise ValueError(
            f"The expression of the {name} is NaN or infinite in {bad.sum()} values, in {len(where)} of {len(genes)} "
            f"shared genes ({listing(where)}); replace these values or remove the genes."
        )


def check_counts(matrix: Any, name: Role) -> None:
    """Raise ValueError when a CSR matrix that is to be normalised cannot be counts."""
    negative = int((matrix.data < 0).sum())
    if negative:
        raise ValueError(
            f"`normalize`: the expression of the {name} has {negative} negative values, so that it cannot be counts; "
            f"pass `layer` to name the counts, or `normalize=False` to take the values as they are."
        )


def unique_var_names(adata: AnnData, name: Role) -> None:
    """Raise ValueError when a gene name stands for more than one column."""
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"`var_names` of the {name}: {len(twice)} gene names occur more than once ({listing(twice)}); "
            f"call `adata.var_names_make_unique()` first."
        )


def check_key_added(adata: AnnData, key_added: str, name: Role, *, spatial_key: str | None) -> None:
    """Raise ValueError when writing under ``key_added`` would be impossible or would destroy a user's own array."""
    where = f"`key_added={key_added!r}`"
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        raise ValueError(f"{where} cannot be a key on disk; pass a string without '/'.")
    if key_added == spatial_key:
        raise ValueError(f"{where} is also `spatial_key`, and input is never overwritten; pass another `key_added`.")
    if adata.is_view and adata.isbacked:
        raise ValueError(
            f"{where}: the {name} is a view of a file, which cannot be written to; pass `adata.to_memory()`."
        )
    ours = adata.uns.get(UNS, {})
    if not isinstance(ours, Mapping):
        raise ValueError(
            f"{where}: `uns[{UNS!r}]` of the {name} is a {type(ours).__name__} that this package did not write; rename it."
        )
    if key_added in adata.obsm and key_added not in ours:
        raise ValueError(
            f"{where}: `obsm[{key_added!r}]` is already there in the {name} and not this package's own; "
            f"pass another `key_added`."
        )
