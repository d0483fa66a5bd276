"""What the scripts beside this one have in common: they are handed a file with two sections and leave one with places.

They run in the environments of the peers, so that this needs numpy, scipy, pandas and anndata alone, of any version.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Task:
    """Two sections (X, ``obsm["spatial"]``, shared or other genes), and what a method is told of them."""

    ref: AnnData
    src: AnnData
    logged: tuple[bool, bool]
    allow_reflection: bool
    seed: int


def pack(name: str, adata: AnnData) -> dict[str, np.ndarray]:
    """Return a section as arrays that ``np.savez`` takes without pickling."""
    x = sp.csr_matrix(adata.X)
    return {
        f"{name}_data": x.data,
        f"{name}_indices": x.indices,
        f"{name}_indptr": x.indptr,
        f"{name}_genes": adata.var_names.to_numpy().astype(str),
        f"{name}_xy": np.asarray(adata.obsm["spatial"], dtype=np.float64),
    }


def unpack(name: str, arrays: Any) -> AnnData:
    """Return the section that :func:`pack` made these of."""
    data, indices, indptr, genes, xy = (
        arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr", "genes", "xy")
    )
    x = sp.csr_matrix((data, indices, indptr), shape=(len(xy), len(genes)))
    adata = AnnData(x, obs=pd.DataFrame(index=[f"{name}_{i}" for i in range(len(xy))]), var=pd.DataFrame(index=genes))
    adata.obsm["spatial"] = xy.copy()
    return adata


def main(align: Callable[[Task], dict[str, np.ndarray]]) -> None:
    """Read the file named first on the command line, run a method, and write what it found to the second.

    Parameters
    ----------
    align
        Returns "xy", where the source's cells belong, shape ``(m, 2)``; and under other names other results, of which
        "posed" is the pose that it started from.
    """
    with np.load(sys.argv[1]) as arrays:
        task = Task(
            ref=unpack("ref", arrays),
            src=unpack("src", arrays),
            logged=tuple(bool(value) for value in arrays["logged"]),
            allow_reflection=bool(arrays["allow_reflection"]),
            seed=int(arrays["seed"]),
        )
    start = time.perf_counter()
    found = align(task)
    np.savez(sys.argv[2], seconds=time.perf_counter() - start, **found)


def log_normalise(task: Task) -> list[AnnData]:
    """Return copies of both sections with their shared genes, log-normalised where they are not yet."""
    import scanpy as sc

    genes = task.ref.var_names[task.ref.var_names.isin(task.src.var_names)]
    sections = [task.ref[:, genes].copy(), task.src[:, genes].copy()]
    for adata, logged in zip(sections, task.logged, strict=True):
        if not logged:
            sc.pp.normalize_total(adata)
            sc.pp.log1p(adata)
    return sections
