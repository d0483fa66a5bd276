"""Reading a pair: from two objects to two sections with the same features, and which cells of the objects they hold."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from inst_align import _checks as checks
from inst_align._expression import highly_variable, normalize_pair, on_log_scale, usable_genes
from inst_align._genes import shared_genes
from inst_align._keys import ROLE_REFERENCE, ROLE_SOURCE, SPATIAL
from inst_align._matrices import read_matrix
from inst_align.core.rows import same_values
from inst_align.core.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from inst_align._matrices import Matrix

logger = logging.getLogger("inst_align")

ROLES: tuple[checks.Role, checks.Role] = ("reference", "source")

Normalize = Literal["auto"] | bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """All cells of an object, in its order, and which of them the fit sees.

    Parameters
    ----------
    xy
        Coordinates, shape ``(n, 2)``, in the user's units; NaN where a cell has none.
    fitted
        Mask, shape ``(n,)``: cells with a place, not far from all others, and with any expression.
    """

    xy: np.ndarray
    fitted: np.ndarray

    def moved_by(self, move: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return where a map takes the cells, fitted or not, shape ``(n, 2)``; NaN where a cell has no place."""
        result = np.full_like(self.xy, np.nan)
        known = np.isfinite(self.xy[:, 0])
        result[known] = move(self.xy[known])
        return result

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return values of the fitted cells, shape ``(k,)``, as a column for all cells; NaN for the others."""
        result = np.full(len(self.fitted), np.nan)
        result[self.fitted] = values
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two sections with the same features in the same order: the cells that are fitted, in the order of their objects.

    Parameters
    ----------
    ref
        The section that stays.
    src
        The section that moves.
    cells
        All cells of the reference's and of the source's object; ``ref.xy`` is ``cells[0].xy[cells[0].fitted]``.
    genes
        Names of the columns of ``expression``, sorted; None when they are a representation.
    normalized
        By role, whether reading log-normalised the section.
    """

    ref: Section
    src: Section
    cells: tuple[Cells, Cells]
    genes: tuple[str, ...] | None
    normalized: dict[str, bool]

    @property
    def identical(self) -> bool:
        """Whether both sections hold the same values at the same places, cell by cell."""
        one, other = self.ref.expression, self.src.expression
        return one.shape == other.shape and np.array_equal(self.ref.xy, self.src.xy) and same_values(one, other)

    def held(self) -> Pair:
        """Return the pair with its expression in memory."""
        return replace(self, ref=self.ref.held(), src=self.src.held())


def read_pair(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    spatial_key: str = SPATIAL,
    use_rep: str | None = None,
    layer: str | None = None,
    normalize: Normalize = "auto",
    n_top_genes: int | None = 2000,
    nan_policy: checks.NanPolicy = "error",
) -> Pair:
    """Read two sections; nothing in the objects changes, and arrays in memory share none with them.

    Parameters
    ----------
    adata_ref
        The section that stays.
    adata_src
        The section that moves.
    spatial_key
        Key in ``obsm`` of the coordinates, (x, y), in both objects.
    use_rep
        Key in ``obsm`` of features that are used as they are, instead of the expression. Excludes ``layer``.
    layer
        Key in ``layers`` of the expression; None takes ``X``.
    normalize
        Whether to scale all cells to one total and take ``log(1 + x)``. "auto" does so in each section, unless its
        ``uns["log1p"]`` says that this was done. The total is the median over the cells of both sections.
    n_top_genes
        Most genes to keep; the most variable ones are chosen when more are shared. None keeps all.
    nan_policy
        What to do about cells without finite coordinates: "error", or "drop-from-fit" to leave them out, with a warning.

    Returns
    -------
    The pair, with float64 coordinates of shape ``(n, 2)`` and float32 features: CSR of shape ``(n, g)`` for genes, or
    blocks of it if the section is large and not in memory, and dense of shape ``(n, d)`` for a representation. Genes that are the same in all cells of a section are left out; so
    are cells that lie far from all others, with a warning, and cells without expression in these genes.

    Raises
    ------
    KeyError
        A key is missing.
    TypeError
        An argument is no AnnData, or its expression is in no known kind of array.
    ValueError
        Coordinates or expression cannot be used, no gene is shared, or arguments exclude each other.
    """
    checks.check_anndata(adata_ref, "adata_ref")
    checks.check_anndata(adata_src, "adata_src")
    if not (isinstance(normalize, bool) or normalize == "auto"):
        raise ValueError(f'`normalize={normalize!r}` is not known; pass "auto", True or False.')
    if n_top_genes is not None and n_top_genes < 1:
        raise ValueError(f"`n_top_genes={n_top_genes}` keeps no gene; pass a positive number, or None for all.")
    checks.check_nan_policy(nan_policy)
    adatas = adata_ref, adata_src
    cells = (
        _read_cells(adata_ref, spatial_key, "reference", nan_policy),
        _read_cells(adata_src, spatial_key, "source", nan_policy),
    )
    if use_rep is None:
        return _read_genes(adatas, cells, layer, normalize, n_top_genes)
    if layer is not None:
        raise ValueError(f"`use_rep={use_rep!r}` and `layer={layer!r}` exclude each other; pass one of them.")
    return _read_representations(adatas, cells, use_rep)


def _read_cells(adata: AnnData, key: str, name: checks.Role, nan_policy: checks.NanPolicy) -> Cells:
    checks.check_enough_cells(adata.n_obs, name)
    checks.warn_of_repeated_cells(adata, name)
    xy = checks.coordinates(adata, key, name, nan_policy=nan_policy)
    fitted = np.isfinite(xy[:, 0])
    checks.check_enough_cells(int(fitted.sum()), name, what="cells with finite coordinates")
    checks.check_area(xy[fitted], key, name)
    checks.warn_of_unknown_places(adata, key, name, fitted)
    stray = np.zeros_like(fitted)
    stray[fitted] = checks.stray_cells(xy[fitted])
    checks.warn_of_strays(adata, name, stray, xy)
    return Cells(xy=xy, fitted=fitted & ~stray)


def _read_representations(adatas: tuple[AnnData, AnnData], cells: tuple[Cells, Cells], key: str) -> Pair:
    ref = checks.representation(adatas[0], key, "reference", cells[0].fitted)
    src = checks.representation(adatas[1], key, "source", cells[1].fitted)
    if ref.shape[1] != src.shape[1]:
        raise ValueError(
            f"`use_rep={key!r}`: `obsm[{key!r}]` has {ref.shape[1]} columns in the reference and {src.shape[1]} in the "
            f"source; pass a representation that was made of both sections together."
        )
    return Pair(
        ref=Section(xy=cells[0].xy[cells[0].fitted], expression=ref, is_rep=True, name="reference"),
        src=Section(xy=cells[1].xy[cells[1].fitted], expression=src, is_rep=True, name="source"),
        cells=cells,
        genes=None,
        normalized={ROLE_REFERENCE: False, ROLE_SOURCE: False},
    )


def _read_genes(
    adatas: tuple[AnnData, AnnData],
    cells: tuple[Cells, Cells],
    layer: str | None,
    normalize: Normalize,
    n_top_genes: int | None,
) -> Pair:
    import torch

    from inst_align.core.threads import helpers, side_by_side

    stored = [checks.matrix_of(adata, layer, name) for adata, name in zip(adatas, ROLES, strict=True)]
    genes = shared_genes(*adatas)
    columns = [adata.var_names.get_indexer(genes) for adata in adatas]
    with helpers(torch.get_num_threads()):
        ref, src = side_by_side(
            lambda matrix, where, known, name: read_matrix(matrix, where, known.fitted, genes, name),
            stored,
            columns,
            cells,
            ROLES,
        )
    keep = usable_genes(ref, src)
    if not keep.all():
        ref, src, genes = ref.of_genes(keep), src.of_genes(keep), _selected(genes, keep)
    (ref, cells_ref), (src, cells_src) = (
        _without_empty(matrix, known, name) for matrix, known, name in zip((ref, src), cells, ROLES, strict=True)
    )
    matrices, normalized = normalize_pair(
        {"reference": ref, "source": src},
        logged={name: "log1p" in adata.uns for name, adata in zip(ROLES, adatas, strict=True)},
        normalize=normalize,
        where="`X`" if layer is None else f"`layers[{layer!r}]`",
    )
    pair = Pair(
        ref=Section(xy=cells_ref.xy[cells_ref.fitted], expression=matrices["reference"].expression, name="reference"),
        src=Section(xy=cells_src.xy[cells_src.fitted], expression=matrices["source"].expression, name="source"),
        cells=(cells_ref, cells_src),
        genes=genes,
        normalized=normalized,
    )
    if n_top_genes is None or len(genes) <= n_top_genes:
        return pair
    if not all(map(on_log_scale, matrices.values())):
        logger.info("kept all %d shared genes, since the values are not log-normalised", len(genes))
        return pair
    keep = highly_variable(pair.ref, pair.src, n_top_genes)
    logger.info("kept the %d most variable of %d shared genes", n_top_genes, len(genes))
    return replace(pair, ref=pair.ref.of_genes(keep), src=pair.src.of_genes(keep), genes=_selected(genes, keep))


def _without_empty(matrix: Matrix, cells: Cells, name: checks.Role) -> tuple[Matrix, Cells]:
    """Leave cells in which nothing was measured out of the fit: what they lack says nothing of where they are."""
    present = matrix.cells.n_present > 0
    if present.all():
        return matrix, cells
    logger.info(
        "%d of %d cells of the %s have no expression in the shared genes: they are moved, but not fitted",
        (~present).sum(),
        len(present),
        name,
    )
    checks.check_enough_cells(int(present.sum()), name, what="cells with expression in the shared genes")
    fitted = cells.fitted.copy()
    fitted[fitted] = present
    return matrix.without_empty(), replace(cells, fitted=fitted)


def _selected(genes: tuple[str, ...], keep: np.ndarray) -> tuple[str, ...]:
    return tuple(gene for gene, kept in zip(genes, keep, strict=True) if kept)
