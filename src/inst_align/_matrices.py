"""The expression of one section while it is being read: in memory, or left where it is stored and read in blocks.

Both kinds are asked the same questions, and tell what they know of genes and cells without anything being kept of a block
but that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from inst_align._checks import finite_expression
from inst_align._facts import CellFacts, GeneFacts
from inst_align._reading import block_bounds, has_blocks, read_block, read_columns
from inst_align.core.rows import Streamed
from inst_align.core.section import HELD_CELLS

if TYPE_CHECKING:
    from inst_align._checks import Role

_SCANPY = Lock()
"""Held while scanpy computes: not all of numba's ways to use threads allow two threads to call it at once."""


class HeldMatrix:
    """Expression in memory; ``normalized`` is the common total of its cells once it is log-normalised."""

    def __init__(self, values: sp.csr_matrix, normalized: float | None = None) -> None:
        self._values, self.normalized = values, normalized

    @cached_property
    def genes(self) -> GeneFacts:
        """What there is to know of the genes."""
        return GeneFacts.of(self._values)

    @cached_property
    def cells(self) -> CellFacts:
        """What there is to know of the values, as they were read."""
        return CellFacts.of(self._values)

    def of_genes(self, keep: np.ndarray) -> HeldMatrix:
        """Return some genes, by a mask."""
        return HeldMatrix(self._values[:, keep])

    def without_empty(self) -> HeldMatrix:
        """Return the cells that have entries."""
        return HeldMatrix(self._values[self.cells.n_present > 0])

    def log_normalized(self, total: float) -> HeldMatrix:
        """Return what :func:`log_normalize` makes of it, which uses it up."""
        return HeldMatrix(log_normalize(self._values, total), normalized=total)

    @property
    def expression(self) -> sp.csr_matrix:
        """The values."""
        return self._values


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMatrix:
    """Expression where it is stored: what :class:`HeldMatrix` tells, in one pass over the file whenever it is asked.

    Parameters
    ----------
    stored
        As the object has it, all rows and columns.
    columns
        The genes of it, in the order that is wanted.
    rows
        Mask of the cells.
    normalized
        The common total, once it is log-normalised.
    known
        The facts of the cells, if there is no need to look for them.
    """

    stored: Any
    columns: np.ndarray
    rows: np.ndarray
    normalized: float | None = None
    known: CellFacts | None = None

    @cached_property
    def _facts(self) -> tuple[GeneFacts, CellFacts]:
        genes, cells = [], []
        for block in range(len(block_bounds(self.stored)) - 1):
            values = self._read(block, None)
            genes.append(GeneFacts.of(values))
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told of by gene
                cells.append(CellFacts.of(values))
        return GeneFacts.joined(genes), CellFacts.joined(cells)

    @property
    def genes(self) -> GeneFacts:
        """What there is to know of the genes."""
        return self._facts[0]

    @property
    def cells(self) -> CellFacts:
        """What there is to know of the values, before they are normalised."""
        return self._facts[1] if self.known is None else self.known

    def of_genes(self, keep: np.ndarray) -> StoredMatrix:
        """Return some genes, by a mask."""
        known = None if self.genes.n_present[~keep].any() else self.cells
        return replace(self, columns=self.columns[keep], known=known)

    def without_empty(self) -> StoredMatrix:
        """Return the cells that have entries."""
        rows = self.rows.copy()
        rows[rows] = self.cells.n_present > 0
        return replace(self, rows=rows, known=self.cells.without_empty())

    def log_normalized(self, total: float) -> StoredMatrix:
        """Return what :func:`log_normalize` will make of each block."""
        return replace(self, normalized=total, known=self.cells)

    @property
    def expression(self) -> Streamed:
        """The values, to be read in blocks."""
        before = np.concatenate([[0], np.cumsum(self.rows)])
        return Streamed(
            bounds=before[block_bounds(self.stored)],
            n_columns=len(self.columns),
            largest=max(abs(limit) for limit in limits(self)),
            read=self._read,
        )

    def _read(self, block: int, wanted: np.ndarray | None) -> sp.csr_matrix:
        """Read the rows that are ``wanted``, counted among the cells of a block, or all of these."""
        start, stop = block_bounds(self.stored)[[block, block + 1]]
        cells = np.flatnonzero(self.rows[start:stop])
        if wanted is not None:
            cells = cells[wanted]
        values = read_block(self.stored, block, self.columns)
        if len(cells) < stop - start:
            values = values[cells]
        return values if self.normalized is None else log_normalize(values, self.normalized)


Matrix = HeldMatrix | StoredMatrix


def read_matrix(stored: Any, columns: np.ndarray, rows: np.ndarray, genes: tuple[str, ...], name: Role) -> Matrix:
    """Return the given columns, in that order, and rows (a mask) of a matrix, read unless it is large and on disk.

    Raises
    ------
    TypeError, ValueError
        It is of an unknown kind, or a value in these rows is not finite.
    """
    matrix: Matrix
    if has_blocks(stored) and rows.sum() > HELD_CELLS:
        matrix = StoredMatrix(stored=stored, columns=columns, rows=rows)
    else:
        values = read_columns(stored, columns)
        matrix = HeldMatrix(values if rows.all() else values[rows])
    finite_expression(matrix.genes.n_bad, genes, name)
    return matrix


def limits(matrix: Matrix) -> tuple[float, float]:
    """Return two numbers, with zero between them, between which all values lie."""
    if matrix.normalized is not None:
        return 0.0, float(np.log1p(matrix.normalized))
    return matrix.cells.lowest, matrix.cells.highest


def log_normalize(counts: sp.csr_matrix, total: float) -> sp.csr_matrix:
    """Scale each cell to the same total and take ``log(1 + x)``; works in place. Every cell has counts."""
    import scanpy as sc

    from inst_align.core.threads import kept_threads

    scratch = AnnData(counts)
    with _SCANPY, kept_threads():
        sc.pp.normalize_total(scratch, target_sum=total)
        sc.pp.log1p(scratch)
    return sp.csr_matrix(scratch.X)
