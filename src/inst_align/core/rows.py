"""Matrices with a row for each cell that need not be held: their rows in another order, or all of them on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scipy.sparse import csr_array, csr_matrix

    Expression: TypeAlias = Union[csr_matrix, csr_array, np.ndarray, "Streamed", "Rows"]

ReadBlock: TypeAlias = "Callable[[int, np.ndarray | None], csr_matrix]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed:
    """A matrix (n, g) that stays on disk, or is computed when it is asked for: only blocks of its rows are ever held.

    Parameters
    ----------
    bounds
        First row of each block, and at last n, ascending, shape ``(b + 1,)``.
    n_columns
        g.
    largest
        No entry is larger than this, whatever its sign.
    read
        Called with the number of a block, and with which rows of it are wanted, counted within it and ascending, or
        ``None`` for all: returns these as float32 CSR.
    """

    bounds: np.ndarray
    n_columns: int
    largest: float
    read: ReadBlock

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return int(self.bounds[-1]), self.n_columns

    def blocks(self) -> Iterator[tuple[slice, csr_matrix]]:
        """Yield all rows once: where they are, and a matrix of them."""
        for block, (start, stop) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            if stop > start:
                yield slice(int(start), int(stop)), self.read(block, None)

    def __getitem__(self, rows: np.ndarray) -> csr_matrix:
        """Return some rows (positions) as a matrix, each block that holds any of them being read once."""
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        edges = np.searchsorted(ascending, self.bounds)
        parts = [
            self.read(block, ascending[start:stop] - self.bounds[block])
            for block, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True))
            if stop > start
        ]
        if not parts:
            return sparse.csr_matrix((0, self.n_columns), dtype=np.float32)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return sparse.csr_matrix(sparse.vstack(parts, format="csr")[back])

    def times_power_of_two(self, exponent: int) -> Streamed:
        """Return the matrix times a power of two, which leaves every digit as it is."""

        def scaled(block: int, rows: np.ndarray | None) -> csr_matrix:
            matrix = self.read(block, rows)
            matrix.data = np.ldexp(matrix.data.astype(np.float64), exponent).astype(np.float32)
            return matrix

        return replace(self, read=scaled, largest=float(np.ldexp(self.largest, exponent)))


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix (n, g) with its rows in another order, which is not made: row i is ``stored[order[i]]``."""

    stored: csr_matrix | csr_array | np.ndarray | Streamed
    order: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self.order), int(self.stored.shape[1])

    def __getitem__(self, rows: slice | np.ndarray) -> csr_matrix | csr_array | np.ndarray:
        """Return some rows as a matrix."""
        return self.stored[self.order[rows]]
