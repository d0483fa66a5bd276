"""What there is to know of the expression of a section before it is normalised, put together from parts of its cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp

SAMPLED = 100_000
"""Entries, about, that are asked whether they are whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneFacts:
    """What there is to know of the genes of some cells, by gene.

    Parameters
    ----------
    n_cells
        How many cells.
    n_present
        In how many of them the gene has an entry, shape ``(g,)``.
    n_bad
        How many entries are NaN or infinite, shape ``(g,)``.
    lowest, highest
        Of genes with an entry in all of the cells, shape ``(g,)``; zero for the others.
    """

    n_cells: int
    n_present: np.ndarray
    n_bad: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> GeneFacts:
        """Look at all entries."""
        n_cells, n_genes = matrix.shape
        n_present = matrix.getnnz(axis=0)
        lowest, highest = np.zeros((2, n_genes))
        everywhere = np.flatnonzero(n_present == n_cells)
        if len(everywhere) and n_cells:
            values = matrix[:, everywhere].tocsc().data.reshape(len(everywhere), n_cells)
            lowest[everywhere], highest[everywhere] = values.min(axis=1), values.max(axis=1)
        bad = matrix.indices[~np.isfinite(matrix.data)]
        return cls(
            n_cells=n_cells,
            n_present=n_present,
            n_bad=np.bincount(bad, minlength=n_genes),
            lowest=lowest,
            highest=highest,
        )

    @classmethod
    def joined(cls, parts: Sequence[GeneFacts]) -> GeneFacts:
        """Put together what is known of parts of the cells."""
        return cls(
            n_cells=sum(part.n_cells for part in parts),
            n_present=np.sum([part.n_present for part in parts], axis=0),
            n_bad=np.sum([part.n_bad for part in parts], axis=0),
            lowest=np.min([part.lowest for part in parts], axis=0),
            highest=np.max([part.highest for part in parts], axis=0),
        )

    @property
    def varies(self) -> np.ndarray:
        """Whether the gene's value differs between any two cells, shape ``(g,)``."""
        somewhere = (self.n_present > 0) & (self.n_present < self.n_cells)
        return np.asarray(np.where(self.n_present == self.n_cells, self.lowest < self.highest, somewhere))


@dataclass(frozen=True, kw_only=True, eq=False)
class CellFacts:
    """What there is to know of the values in some cells.

    Parameters
    ----------
    n_present, totals
        Number and float64 sum of a cell's entries, shape ``(n,)``.
    n_negative
        How many entries are below zero.
    whole
        Whether the values seem to be whole and not negative; a hint for warnings, never a decision.
    lowest, highest
        Of all entries, with a zero among them.
    """

    n_present: np.ndarray
    totals: np.ndarray
    n_negative: int
    whole: bool
    lowest: float
    highest: float

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> CellFacts:
        """Look at all entries."""
        lowest = float(matrix.data.min(initial=0))
        some = matrix.data[:: max(1, matrix.nnz // SAMPLED)]
        return cls(
            n_present=matrix.getnnz(axis=1),
            totals=np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel(),
            n_negative=int((matrix.data < 0).sum()) if lowest < 0 else 0,
            whole=bool((some >= 0).all() and (some == np.rint(some)).all()),
            lowest=lowest,
            highest=float(matrix.data.max(initial=0)),
        )

    @classmethod
    def joined(cls, parts: Sequence[CellFacts]) -> CellFacts:
        """Put together what is known of parts of the cells."""
        return cls(
            n_present=np.concatenate([part.n_present for part in parts]),
            totals=np.concatenate([part.totals for part in parts]),
            n_negative=sum(part.n_negative for part in parts),
            whole=all(part.whole for part in parts),
            lowest=min(part.lowest for part in parts),
            highest=max(part.highest for part in parts),
        )

    def without_empty(self) -> CellFacts:
        """Return the facts of the cells that have entries."""
        present = self.n_present > 0
        return replace(self, n_present=self.n_present[present], totals=self.totals[present])
