"""Rows 29 to 37: how it is stored."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from benchmarks.inputs.case import Case
from benchmarks.inputs.sections import KEY, N_CELLS, align, must, pair, same_bits, unchanged
from benchmarks.inputs.values import refused, with_x

if TYPE_CHECKING:
    from collections.abc import Callable


def stored_as(change: Callable[[Any], Any]) -> str:
    return same_bits(align(*with_x(change)))


def binary() -> str:
    found, wanted = (
        align(*with_x(lambda m, t=kind: m.astype(bool).astype(t))).obsm[KEY] for kind in (bool, np.float32)
    )
    must(np.array_equal(found, wanted), "the result differs from that of zeros and ones")
    return "taken for zeros and ones"


def float16(matrix: Any) -> Any:
    return sp.csr_matrix((matrix.data.astype(np.float16), matrix.indices, matrix.indptr), shape=matrix.shape)


def backed(change: Callable[[Any], Any], *, of_view: bool = False) -> str:
    with tempfile.TemporaryDirectory() as folder:
        sections = []
        for name, section in zip(("ref", "src"), with_x(change), strict=True):
            path = Path(folder) / f"{name}.h5ad"
            section.write_h5ad(path)
            sections.append(ad.read_h5ad(path, backed="r"))
        before = [Path(section.filename).read_bytes() for section in sections]
        try:
            if of_view:
                return unchanged(align, sections[0], sections[1][:100])
            result = same_bits(align(*sections))
            must([Path(s.filename).read_bytes() for s in sections] == before, "a file was written to")
        finally:
            for section in sections:
                section.file.close()
    return f"{result}; the file is not written to"


def backed_copy() -> str:
    with tempfile.TemporaryDirectory() as folder:
        ref, src = pair()
        src.write_h5ad(Path(folder) / "src.h5ad")
        src = ad.read_h5ad(Path(folder) / "src.h5ad", backed="r")
        try:
            return unchanged(align, ref, src, copy=True)
        finally:
            src.file.close()


def view() -> str:
    ref, src = pair()
    whole = ad.concat([src, ref], index_unique="-")
    before = whole.copy()
    part = whole[:N_CELLS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        align(ref, part)
    must(set(whole.obsm) == set(before.obsm) and not whole.uns, "the parent of the view changed")
    return f"{same_bits(part)}; its parent stays as it was"


def lazy(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    import dask.array as da

    return lambda matrix: da.from_array(change(matrix), chunks=(37, matrix.shape[1] // 3), asarray=False)


def lazy_sparse(matrix: Any) -> Any:
    import dask.array as da

    return da.from_array(matrix.toarray(), chunks=(37, -1)).map_blocks(sp.csr_matrix, dtype=matrix.dtype)


def on_a_gpu() -> str:
    class ndarray:  # stands for the class of that name in cupy
        shape = (N_CELLS, 60)
        dtype = np.dtype(np.float32)

    ndarray.__module__ = "cupy"
    ref, src = pair()
    src._X = ndarray()
    return unchanged(align, ref, src)


def read_only() -> str:
    ref, src = pair()
    for section in (ref, src):
        for array in (section.X.data, section.X.indices, section.X.indptr, section.obsm["spatial"]):
            array.flags.writeable = False
    return same_bits(align(ref, src))


def named(name_ref: Callable[[int], str], name_src: Callable[[int], str]) -> str:
    ref, src = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ref.obs_names = [name_ref(i) for i in range(ref.n_obs)]
        src.obs_names = [name_src(i) for i in range(src.n_obs)]
    return same_bits(align(ref, src))


STORED = {
    "CSC": lambda m: m.tocsc(),
    "dense": lambda m: m.toarray(),
    "dense, by columns": lambda m: np.asfortranarray(m.toarray()),
    "numpy.matrix": lambda m: np.matrix(m.toarray()),
    "CSR array": sp.csr_array,
    "int64": lambda m: m.astype(np.int64),
    "uint8, dense": lambda m: m.toarray().astype(np.uint8),
    "float16": float16,
    "float64": lambda m: m.astype(np.float64),
}

CASES = [
    *(
        Case(row=29, given=f"X as {name}", expect="handled", run=lambda c=change: stored_as(c))
        for name, change in STORED.items()
    ),
    Case(row=29, given="X as bool", expect="handled", run=binary),
    Case(
        row=29,
        given="X as a masked array",
        expect="error",
        run=lambda: refused(lambda m: np.ma.masked_equal(m.toarray(), 0)),
    ),
    Case(row=30, given="X is None", expect="error", run=lambda: refused(lambda m: None)),
    Case(row=31, given="backed h5ad, CSR", expect="handled", run=lambda: backed(lambda m: m)),
    Case(row=31, given="backed h5ad, CSC", expect="handled", run=lambda: backed(lambda m: m.tocsc())),
    Case(row=31, given="backed h5ad, dense", expect="handled", run=lambda: backed(lambda m: m.toarray())),
    Case(row=31, given="backed h5ad with `copy=True`", expect="error", run=backed_copy),
    Case(row=31, given="a view of a backed h5ad", expect="error", run=lambda: backed(lambda m: m, of_view=True)),
    Case(row=32, given="a view, `adata[mask]`", expect="handled", run=view),
    Case(
        row=33, given="dask array of dense chunks", expect="handled", run=lambda: stored_as(lazy(lambda m: m.toarray()))
    ),
    Case(row=33, given="dask array of sparse chunks", expect="handled", run=lambda: stored_as(lazy_sparse)),
    Case(row=34, given="cupy array", expect="error", run=on_a_gpu),
    Case(row=35, given="arrays that may not be written to", expect="handled", run=read_only),
    Case(
        row=36,
        given="`obs_names` that repeat",
        expect="warning",
        run=lambda: named(lambda i: f"r{i}", lambda i: f"s{i // 2}"),
    ),
    Case(
        row=37,
        given="the same `obs_names` in both sections",
        expect="handled",
        run=lambda: named(lambda i: f"c{i}", lambda i: f"c{i}"),
    ),
]
