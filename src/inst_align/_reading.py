"""From whatever holds a matrix to float32 CSR of some of its columns: dense or sparse, in memory, on disk, or lazy."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata.abc import CSCDataset

from inst_align._checks import is_lazy

ROWS_AT_ONCE = 8192
COLUMNS_AT_ONCE = 512


def has_blocks(matrix: Any) -> bool:
    """Whether a matrix is not in memory, and can be read by rows."""
    in_memory = isinstance(matrix, np.ndarray) or sp.issparse(matrix)
    return is_lazy(matrix) or not (in_memory or isinstance(matrix, CSCDataset))


def block_bounds(matrix: Any) -> np.ndarray:
    """First row of each block that is read at once, and at last the number of rows, shape ``(b + 1,)``."""
    if is_lazy(matrix):
        return np.cumsum([0, *matrix.chunks[0]])
    return np.append(np.arange(0, matrix.shape[0], ROWS_AT_ONCE), matrix.shape[0])


def read_block(matrix: Any, block: int, columns: np.ndarray) -> sp.csr_matrix:
    """Return some columns, in that order, of one block of rows, as a float32 CSR copy in canonical form."""
    if is_lazy(matrix):
        return _canonical(_pick_lazily(matrix.blocks[block], columns))
    start = block * ROWS_AT_ONCE
    return _canonical(_pick(matrix[start : start + ROWS_AT_ONCE], columns))


def read_columns(matrix: Any, columns: np.ndarray) -> sp.csr_matrix:
    """Return some columns, in that order, as a float32 CSR copy in canonical form.

    Of all but sparse matrices in memory only a block is handled at a time, so that nothing larger than the result and a
    block is ever held.
    """
    if sp.issparse(matrix):
        return _canonical(_pick(matrix, columns))
    if is_lazy(matrix):
        return _canonical(_pick_lazily(matrix, columns))
    if isinstance(matrix, CSCDataset):  # has no cheap rows
        return _canonical(_pick_from_columns(matrix, columns))
    blocks = range(len(block_bounds(matrix)) - 1)
    return _canonical(sp.vstack([read_block(matrix, block, columns) for block in blocks], format="csr"))


def _canonical(picked: sp.csr_matrix) -> sp.csr_matrix:
    picked.sum_duplicates()
    picked.eliminate_zeros()
    # by way of the constructor, which chooses the type of the indices by their size alone
    return sp.csr_matrix((picked.data, picked.indices, picked.indptr), shape=picked.shape)


def _pick(block: Any, columns: np.ndarray) -> sp.csr_matrix:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is reported as such
        if isinstance(block, np.ndarray):
            return sp.csr_matrix(np.asarray(block)[:, columns].astype(np.float32))
        if block.dtype == np.float16:  # scipy cannot index this
            block = block.astype(np.float32)
        return sp.csr_matrix(block[:, columns].astype(np.float32, copy=False))  # the columns are a copy already


def _pick_from_columns(matrix: CSCDataset, columns: np.ndarray) -> sp.csr_matrix:
    """Read columns of a file that is stored by columns, some at a time; files want them in their own order."""
    order = np.argsort(columns)
    parts = []
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        part = matrix[:, columns[order[start : start + COLUMNS_AT_ONCE]]]
        parts.append(sp.csc_matrix(part.astype(np.float32)))
    return sp.csr_matrix(sp.hstack(parts, format="csc")[:, np.argsort(order)])


def _pick_lazily(matrix: Any, columns: np.ndarray) -> sp.csr_matrix:
    """Pick the columns of each chunk of a dask array where it is computed, so that no two whole chunks need to meet."""
    from dask.base import compute
    from dask.delayed import delayed

    stops = np.cumsum(matrix.chunks[1])
    chunk_of = np.searchsorted(stops, columns, side="right")
    starts = stops - np.asarray(matrix.chunks[1])
    wanted = [(j, columns[chunk_of == j] - starts[j]) for j in np.unique(chunk_of)]
    pick = delayed(_pick_chunk, pure=False)
    rows = [[pick(row[j], inner) for j, inner in wanted] for row in matrix.to_delayed()]
    (computed,) = compute(rows)
    picked = sp.vstack([sp.hstack(parts, format="csr") for parts in computed], format="csr")
    return picked[:, np.argsort(np.argsort(chunk_of, kind="stable"))]


def _pick_chunk(block: Any, columns: np.ndarray) -> sp.csr_matrix:
    if not (isinstance(block, np.ndarray) or sp.issparse(block)):
        raise TypeError(
            f"The chunks of a dask array are of the type {type(block).__module__}.{type(block).__name__}; map them to "
            f"numpy or scipy sparse arrays first."
        )
    return _pick(block, columns)
