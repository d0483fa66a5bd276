"""From stored counts to log-normalised expression of the genes that two sections share; scanpy does the arithmetic.

Sparse stays sparse. Genes come in the order of their names, and what sums over cells does so in an order of its own,
so that neither the container nor the order of its rows and columns changes a bit of the result.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset

from inst_align._checks import check_counts, finite_expression, is_lazy, matrix_of, warn_user

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inst_align._checks import Role
    from inst_align.core.section import Section

logger = logging.getLogger("inst_align")

FEW_GENES = 50
ROWS_AT_ONCE = 8192
COLUMNS_AT_ONCE = 512
HVG_CELLS = 50_000
"""Cells of a section, evenly spread over it, that variable genes are chosen on."""
LARGEST_USUAL_LOG = 12.0
"""Counts above the exponential of this, 160,000, are rare: values below it that are not whole may be logarithms."""
LARGEST_LOG = 50.0
"""Values above this are no logarithms: their exponential would leave float32."""


def read_expression(
    adata: AnnData, name: Role, layer: str | None, genes: tuple[str, ...], rows: np.ndarray
) -> sp.csr_matrix:
    """Return the stored values of the given genes, in that order, and rows (a mask), as a float32 CSR copy.

    Raises
    ------
    KeyError, TypeError, ValueError
        There is no such matrix, it is of an unknown kind, or a value in these rows is not finite.
    """
    matrix = _read_columns(matrix_of(adata, layer, name), adata.var_names.get_indexer(genes))
    if not rows.all():
        matrix = matrix[rows]
    finite_expression(matrix, genes, name)
    return matrix


def _read_columns(matrix: Any, columns: np.ndarray) -> sp.csr_matrix:
    """Return the given columns, in that order, as a float32 CSR copy in canonical form.

    ``matrix`` is dense or sparse, in memory, on disk, or lazy. Of all but sparse matrices in memory only a block is
    handled at a time, so that nothing larger than the result and a block is ever held.
    """
    if sp.issparse(matrix):
        picked = _pick(matrix, columns)
    elif is_lazy(matrix):
        picked = _pick_lazily(matrix, columns)
    elif isinstance(matrix, CSCDataset):  # has no cheap rows
        picked = _pick_from_columns(matrix, columns)
    else:
        starts = range(0, matrix.shape[0], ROWS_AT_ONCE)
        picked = sp.vstack([_pick(matrix[i : i + ROWS_AT_ONCE], columns) for i in starts], format="csr")
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


def usable_genes(ref: sp.csr_matrix, src: sp.csr_matrix) -> np.ndarray:
    """Return a mask, shape ``(g,)``, of the genes that vary in both sections; warn when they are few.

    Raises
    ------
    ValueError
        There is none.
    """
    keep = _varies(ref) & _varies(src)
    if not keep.any():
        raise ValueError(
            f"`adata_ref` and `adata_src` share {len(keep)} genes, but each is the same in all cells of one section; "
            f"pass the `layer` that holds the expression."
        )
    if keep.sum() < FEW_GENES:
        warn_user(
            f"Only {keep.sum()} of the {len(keep)} genes that `adata_ref` and `adata_src` share vary in both; "
            f"the alignment rests on these: if you expected more, compare `adata_ref.var_names` and `adata_src.var_names`."
        )
    return keep


def _varies(matrix: sp.csr_matrix) -> np.ndarray:
    """Return for each gene, shape ``(g,)``, whether its value differs between any two cells."""
    n_cells = matrix.shape[0]
    n_present = matrix.getnnz(axis=0)
    result = np.asarray((n_present > 0) & (n_present < n_cells))
    everywhere = np.flatnonzero(n_present == n_cells)
    if len(everywhere):
        columns = matrix[:, everywhere].tocsc()
        values = columns.data.reshape(len(everywhere), n_cells)
        result[everywhere] = values.min(axis=1) < values.max(axis=1)
    return result


def _looks_like_counts(matrix: sp.csr_matrix) -> bool:
    """Whether the values are whole and not negative; a hint for warnings, never a decision."""
    values = matrix.data[:: max(1, matrix.nnz // 100_000)]
    return bool((values >= 0).all() and (values == np.rint(values)).all())


def _looks_like_logarithms(matrix: sp.csr_matrix) -> bool:
    """Whether the values are not whole and small enough for logarithms of counts; a hint, never a decision."""
    return not _looks_like_counts(matrix) and matrix.data.max() < LARGEST_USUAL_LOG


def normalize_pair(
    matrices: dict[Role, sp.csr_matrix], *, logged: dict[Role, bool], normalize: bool | Literal["auto"], where: str
) -> tuple[dict[Role, sp.csr_matrix], dict[str, bool]]:
    """Log-normalise what holds counts to one common total; say what was done and what looks odd.

    Parameters
    ----------
    matrices
        Counts or logarithms by role, CSR, the same genes in both; used up.
    logged
        By role, whether the object says that it is log-normalised.
    normalize
        "auto" goes by ``logged``; True and False hold for both sections.
    where
        The place that the matrices come from, for messages.

    Returns
    -------
    The matrices, and by role whether they were normalised here.
    """
    todo: dict[str, bool] = {name: not logged[name] if normalize == "auto" else normalize for name in matrices}
    chosen = {name: matrix for name, matrix in matrices.items() if todo[name]}
    for name, matrix in chosen.items():
        check_counts(matrix, name)
    if normalize == "auto":
        _warn_if_odd(matrices, logged, where)
    if chosen:
        total = _common_total(chosen.values())
        logger.info("log-normalised the %s to a total of %g per cell", " and the ".join(chosen), total)
        matrices = matrices | {name: _log_normalize(matrix, total) for name, matrix in chosen.items()}
    if len(chosen) < len(matrices):
        logger.info("took the expression of the %s as it is", " and the ".join(n for n in matrices if not todo[n]))
    return matrices, todo


def _warn_if_odd(matrices: dict[Role, sp.csr_matrix], logged: dict[Role, bool], where: str) -> None:
    whole = {name: _looks_like_counts(matrix) for name, matrix in matrices.items()}
    if len(set(logged.values())) > 1:
        done, raw = sorted(logged, key=lambda name: not logged[name])
        warn_user(
            f'The {done} says in `uns["log1p"]` that it is log-normalised and the {raw} does not, so that only the '
            f"{raw} was normalised now; pass `normalize=True` if {where} holds counts in both, and set "
            f'`uns["log1p"] = {{}}` in the {raw} if {where} holds logarithms in both.'
        )
    elif not any(logged.values()) and len(set(whole.values())) > 1:
        counts, other = sorted(whole, key=lambda name: not whole[name])
        warn_user(
            f"The {counts} holds whole numbers in {where} and the {other} does not, and both were taken for counts; "
            f'if one is log-normalised, say so by setting its `uns["log1p"] = {{}}`.'
        )
    elif not any(logged.values()) and all(_looks_like_logarithms(matrix) for matrix in matrices.values()):
        largest = max(float(matrix.data.max()) for matrix in matrices.values())
        warn_user(
            f"{where} was taken for counts in both sections, but holds numbers that are not whole and at most "
            f"{largest:.3g}; if they are logarithms, pass `normalize=False`."
        )
    doubtful = [name for name in matrices if logged[name] and whole[name]]
    if doubtful:
        warn_user(
            f'`uns["log1p"]` says that the {" and the ".join(doubtful)} hold logarithms, but {where} holds whole numbers; '
            f"pass `normalize=True` if these are counts."
        )


def _common_total(matrices: Iterable[sp.csr_matrix]) -> float:
    """Return the median total of all cells together that have any counts: one total, so that depth cancels."""
    totals = np.concatenate([np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel() for matrix in matrices])
    return float(np.median(totals[totals > 0]))


def _log_normalize(counts: sp.csr_matrix, total: float) -> sp.csr_matrix:
    """Scale each cell to the same total and take ``log(1 + x)``; works in place. Cells without counts stay zero."""
    import scanpy as sc

    scratch = AnnData(counts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some cells have zero counts", category=UserWarning)
        sc.pp.normalize_total(scratch, target_sum=total)
    sc.pp.log1p(scratch)
    return sp.csr_matrix(scratch.X)


def highly_variable(ref: Section, src: Section, n_top_genes: int) -> np.ndarray:
    """Return a mask, shape ``(g,)``, of the genes that vary most within both sections.

    Normalised dispersion (scanpy's flavour "seurat") in each section; genes that both choose come first. It is
    defined for log-normalised values; when there are others, all genes are kept.
    """
    import scanpy as sc

    n_genes = ref.expression.shape[1]
    if not (_on_log_scale(ref.expression) and _on_log_scale(src.expression)):
        logger.info("kept all %d shared genes, since the values are not log-normalised", n_genes)
        return np.ones(n_genes, dtype=bool)
    samples = [_evenly(section) for section in (ref, src)]
    joint = AnnData(sp.vstack(samples, format="csr"))
    joint.obs["section"] = np.repeat(["reference", "source"], [sample.shape[0] for sample in samples])
    joint.obs["section"] = joint.obs["section"].astype("category")
    table = sc.pp.highly_variable_genes(
        joint, flavor="seurat", n_top_genes=n_top_genes, batch_key="section", inplace=False
    )
    logger.info("kept the %d most variable of %d shared genes", n_top_genes, n_genes)
    return np.asarray(table["highly_variable"], dtype=bool)


def _on_log_scale(matrix: Any) -> bool:
    """Whether the values can be logarithms of ``1 + counts``, which the choice of variable genes supposes."""
    return matrix.nnz == 0 or bool(matrix.data.min() >= 0 and matrix.data.max() < LARGEST_LOG)


def _evenly(section: Section) -> Any:
    order = section.canonical_order()
    step = -(-len(order) // HVG_CELLS)
    return section.expression[order[::step]]
