"""One pair in every form that it may be kept in: how far apart are the results?"""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr

from benchmarks.inputs.sections import KEY, N_CELLS, align, expected, pair
from benchmarks.inputs.stored import float16, lazy
from benchmarks.inputs.values import with_x
from benchmarks.robustness.rows import compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from benchmarks.robustness.rows import Row

    Sections = tuple[AnnData, AnnData]

MATRICES: dict[str, Callable[[Any], Any]] = {
    "CSC": sp.csr_matrix.tocsc,
    "sparse array": sp.csr_array,
    "dense": sp.csr_matrix.toarray,
    "dense, by columns": lambda matrix: np.asfortranarray(matrix.toarray()),
    "int16": lambda matrix: matrix.astype(np.int16),
    "int32": lambda matrix: matrix.astype(np.int32),
    "int64": lambda matrix: matrix.astype(np.int64),
    "uint8": lambda matrix: matrix.astype(np.uint8),
    "float16": float16,
    "float64": lambda matrix: matrix.astype(np.float64),
    "dask, dense blocks": lazy(sp.csr_matrix.toarray),
    "dask, sparse blocks": lambda matrix: lazy(sp.csr_matrix)(matrix),
}
"""Forms of X, by name."""


ON_DISK: dict[str, Callable[[Any], Any]] = {
    "CSR": lambda matrix: matrix,
    "CSC": sp.csr_matrix.tocsc,
    "dense": sp.csr_matrix.toarray,
}
"""Forms of X in a file, by name."""


def in_3d(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([xy, np.full(len(xy), 7.0)])


def as_table(xy: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(xy, columns=["x", "y"])


COORDINATES: dict[str, Callable[[np.ndarray], Any]] = {
    "coordinates in a DataFrame": as_table,
    "three coordinates, z constant": in_3d,
    "coordinates float32": lambda xy: xy.astype(np.float32),
    "coordinates int64": lambda xy: xy.astype(np.int64),
}
"""Forms of the coordinates, by name."""


def with_coordinates(change: Callable[[np.ndarray], Any]) -> Sections:
    ref, src = pair()
    for section in (ref, src):
        values = change(section.obsm["spatial"])
        if isinstance(values, pd.DataFrame):
            values.index = section.obs_names
        section.obsm["spatial"] = values
    return ref, src


def views() -> Sections:
    ref, src = pair()
    whole = ad.concat([src, ref], index_unique="-")
    return whole[N_CELLS:], whole[:N_CELLS]


def other_genes() -> Sections:
    ref, src = pair()
    return ref, src[:, np.random.default_rng(0).permutation(src.n_vars)].copy()


def in_a_layer() -> Sections:
    ref, src = pair()
    for section in (ref, src):
        section.layers["counts"] = section.X
    return ref, src


@contextmanager
def backed(change: Callable[[Any], Any]) -> Iterator[Sections]:
    with tempfile.TemporaryDirectory() as folder:
        sections = []
        for name, section in zip(("ref", "src"), with_x(change), strict=True):
            section.write_h5ad(Path(folder) / f"{name}.h5ad")
            sections.append(ad.read_h5ad(Path(folder) / f"{name}.h5ad", backed="r"))
        try:
            yield sections[0], sections[1]
        finally:
            for section in sections:
                section.file.close()


@contextmanager
def in_zarr(change: Callable[[Any], Any], *, lazily: bool) -> Iterator[Sections]:
    """Yield sections whose expression stays in a zarr store: all of each read lazily, or X alone left there."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and zarr, on versions of their formats
        sections = []
        for name, section in zip(("ref", "src"), with_x(change), strict=True):
            path = Path(folder) / f"{name}.zarr"
            section.write_zarr(path)
            if lazily:
                sections.append(ad.experimental.read_lazy(path))
                continue
            stored = zarr.open(str(path), mode="r")["X"]
            matrix = stored if isinstance(stored, zarr.Array) else ad.io.sparse_dataset(stored)
            sections.append(ad.AnnData(X=matrix, obs=section.obs, var=section.var, obsm=dict(section.obsm)))
        yield sections[0], sections[1]


def form_rows() -> Iterator[Row]:
    """Yield a row for each form; CSR float32 with sorted genes is what they are compared with."""

    def row(case: str, sections: Sections, **arguments: Any) -> Row:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
            found = np.asarray(align(*sections, **arguments).obsm[KEY])[:, :2]
        return compared("forms", "toy", case, found, expected(), pair()[0], limit=0.0)

    for name, change in MATRICES.items():
        yield row(name, with_x(change))
    for name, change in COORDINATES.items():
        yield row(name, with_coordinates(change))
    yield row("views", views())
    yield row("genes in another order", other_genes())
    yield row("expression in a layer", in_a_layer(), layer="counts")
    for name, change in ON_DISK.items():
        with backed(change) as sections:
            yield row(f"backed h5ad, {name}", sections)
        with in_zarr(change, lazily=False) as sections:
            yield row(f"X in zarr, {name}", sections)
    with in_zarr(lambda matrix: matrix, lazily=True) as sections:
        yield row("zarr, read lazily", sections)
