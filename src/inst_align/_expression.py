"""From stored counts to log-normalised expression of the genes that two sections share; scanpy does the arithmetic.

Sparse stays sparse. Genes come in the order of their names, and what sums over cells does so in an order of its own,
so that neither the container nor the order of its rows and columns changes a bit of the result.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from inst_align._checks import check_counts, warn_user
from inst_align._matrices import limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inst_align._checks import Role
    from inst_align._matrices import Matrix
    from inst_align.core.section import Section

logger = logging.getLogger("inst_align")

FEW_GENES = 50
HVG_CELLS = 50_000
"""Cells of a section, evenly spread over it, that variable genes are chosen on."""
LARGEST_USUAL_LOG = 12.0
"""Counts above the exponential of this, 160,000, are rare: values below it that are not whole may be logarithms."""
LARGEST_LOG = 50.0
"""Values above this are no logarithms: their exponential would leave float32."""


def usable_genes(ref: Matrix, src: Matrix) -> np.ndarray:
    """Return a mask, shape ``(g,)``, of the genes that vary in both sections; warn when they are few.

    Raises
    ------
    ValueError
        There is none.
    """
    keep = ref.genes.varies & src.genes.varies
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


def _looks_like_logarithms(matrix: Matrix) -> bool:
    """Whether the values are not whole and small enough for logarithms of counts; a hint, never a decision."""
    return not matrix.cells.whole and matrix.cells.highest < LARGEST_USUAL_LOG


def normalize_pair(
    matrices: dict[Role, Matrix], *, logged: dict[Role, bool], normalize: bool | Literal["auto"], where: str
) -> tuple[dict[Role, Matrix], dict[str, bool]]:
    """Log-normalise what holds counts to one common total; say what was done and what looks odd.

    Parameters
    ----------
    matrices
        Counts or logarithms by role, the same genes in both; used up.
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
        check_counts(matrix.cells.n_negative, name)
    if normalize == "auto":
        _warn_if_odd(matrices, logged, where)
    if chosen:
        total = _common_total(chosen.values())
        logger.info("log-normalised the %s to a total of %g per cell", " and the ".join(chosen), total)
        matrices = matrices | {name: matrix.log_normalized(total) for name, matrix in chosen.items()}
    if len(chosen) < len(matrices):
        logger.info("took the expression of the %s as it is", " and the ".join(n for n in matrices if not todo[n]))
    return matrices, todo


def _warn_if_odd(matrices: dict[Role, Matrix], logged: dict[Role, bool], where: str) -> None:
    whole = {name: matrix.cells.whole for name, matrix in matrices.items()}
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
        largest = max(matrix.cells.highest for matrix in matrices.values())
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


def _common_total(matrices: Iterable[Matrix]) -> float:
    """Return the median total of all cells together that have any counts: one total, so that depth cancels."""
    totals = np.concatenate([matrix.cells.totals for matrix in matrices])
    return float(np.median(totals[totals > 0]))


def on_log_scale(matrix: Matrix) -> bool:
    """Whether the values can be logarithms of ``1 + counts``, which the choice of variable genes supposes."""
    lowest, highest = limits(matrix)
    return lowest >= 0 and highest < LARGEST_LOG


def highly_variable(ref: Section, src: Section, n_top_genes: int) -> np.ndarray:
    """Return a mask, shape ``(g,)``, of the genes that vary most within both sections, whose values are logarithms.

    Normalised dispersion (scanpy's flavour "seurat") in each section; genes that both choose come first.
    """
    import scanpy as sc

    samples = [_evenly(section) for section in (ref, src)]
    joint = AnnData(sp.vstack(samples, format="csr"))
    joint.obs["section"] = np.repeat(["reference", "source"], [sample.shape[0] for sample in samples])
    joint.obs["section"] = joint.obs["section"].astype("category")
    table = sc.pp.highly_variable_genes(
        joint, flavor="seurat", n_top_genes=n_top_genes, batch_key="section", inplace=False
    )
    return np.asarray(table["highly_variable"], dtype=bool)


def _evenly(section: Section) -> Any:
    order = section.canonical_order()
    step = -(-len(order) // HVG_CELLS)
    return section.expression[order[::step]]
