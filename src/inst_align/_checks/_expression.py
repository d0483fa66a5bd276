"""The expression: what kind of array it is, and whether its values can be what they are taken for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import scipy.sparse as sp
from anndata.abc import CSCDataset, CSRDataset

from inst_align._checks._words import Role, listing, warn_user

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align._pair import Pair

LAZY = "dask"
ON_DISK = {"h5py", "zarr"}


def package_of(value: object) -> str:
    """Return the name of the package that the type of a value comes from."""
    return type(value).__module__.split(".")[0]


def is_lazy(matrix: Any) -> bool:
    """Whether a matrix is a dask array, as it is or as part of a view."""
    return any(base.__module__.split(".")[0] == LAZY for base in type(matrix).__mro__)


def matrix_of(adata: AnnData, layer: str | None, name: Role) -> Any:
    """Return ``X`` or ``layers[layer]`` as it is stored: dense, sparse, lazy, or an array on disk."""
    where = f"`X` of the {name}" if layer is None else f"`layer={layer!r}`: `layers[{layer!r}]` of the {name}"
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"`layer={layer!r}`: no `layers[{layer!r}]` in the {name}; it has {listing(sorted(adata.layers), 10)}: "
            f"pass one of these as `layer`, or None for `X`."
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(f"{where} is None; pass `layer` or `use_rep` to say where the expression is.")
    on_disk = isinstance(matrix, CSRDataset | CSCDataset) or package_of(matrix) in ON_DISK
    masked = isinstance(matrix, np.ma.MaskedArray)  # its mask would be lost without a word
    if masked or not (on_disk or is_lazy(matrix) or isinstance(matrix, np.ndarray) or sp.issparse(matrix)):
        raise TypeError(
            f"{where} is a {type(matrix).__module__}.{type(matrix).__name__}; pass a numpy array, a scipy sparse "
            f"matrix or a dask array (`.get()` makes one of a cupy array, `.filled(0)` of a masked one)."
        )
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{where} has dtype {matrix.dtype}; store numbers.")
    return matrix


def finite_expression(n_bad: np.ndarray, genes: tuple[str, ...], name: Role) -> None:
    """Raise ValueError when there are NaN or infinite values, of which ``n_bad`` tells how many by gene."""
    if n_bad.any():
        where = [genes[i] for i in np.flatnonzero(n_bad)]
        raise ValueError(
            f"The expression of the {name} is NaN or infinite in {n_bad.sum()} values, in {len(where)} of {len(genes)} "
            f"shared genes ({listing(where)}); replace these values or remove the genes."
        )


def check_counts(n_negative: int, name: Role) -> None:
    """Raise ValueError when there are negative values in what is to be normalised, which then cannot be counts."""
    if n_negative:
        raise ValueError(
            f"`normalize`: the expression of the {name} has {n_negative} negative values, so that it cannot be counts; "
            f"pass `layer` to name the counts, or `normalize=False` to take the values as they are."
        )


def warn_of_negative(pair: Pair) -> None:
    """Warn when values that a network is to be fitted to are negative, which its loss on genes does not expect."""
    if pair.genes is None:
        return
    values = {section.name: cast("sp.csr_matrix", section.expression).data for section in (pair.ref, pair.src)}
    negative = {name: np.count_nonzero(each < 0) for name, each in values.items()}
    found = [f"{n} in the {name}" for name, n in negative.items() if n]
    if found:
        warn_user(
            f"The expression has negative values ({' and '.join(found)}), as scaled data has, but the loss on "
            f'genes of `preset="paper"` is made for values from 0 up; pass `layer` to name counts or logarithms.'
        )
