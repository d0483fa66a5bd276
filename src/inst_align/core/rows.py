"""Matrices with a row for each cell that need not be held: their rows in another order, or all of them on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scipy.sparse import csr_array, csr_matrix

Held: TypeAlias = "csr_matrix | csr_array | np.ndarray"
Expression: TypeAlias = "Held | Streamed | Rows"


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
    read: Callable[[int, np.ndarray | None], csr_matrix]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return int(self.bounds[-1]), self.n_columns

    def blocks(self) -> Iterator[tuple[slice, csr_matrix]]:
        """Yield all rows once: where they are, and a matrix of them."""
        for block, (start, stop) in enumerate(pairwise(self.bounds)):
            if stop > start:
                yield slice(int(start), int(stop)), self.read(block, None)

    def __getitem__(self, rows: slice | np.ndarray) -> csr_matrix:
        """Return some rows as a matrix, each block that holds any of them being read once."""
        rows = np.arange(self.shape[0])[rows]
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        edges = np.searchsorted(ascending, self.bounds)
        parts = [
            self.read(block, ascending[start:stop] - self.bounds[block])
            for block, (start, stop) in enumerate(pairwise(edges))
            if stop > start
        ]
        if not parts:
            return sparse.csr_matrix((0, self.n_columns), dtype=np.float32)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return sparse.csr_matrix(sparse.vstack(parts, format="csr")[back])

    def of_columns(self, keep: np.ndarray) -> Streamed:
        """Return some columns, by a mask; the others are still read, but not kept of a block."""

        def some(block: int, rows: np.ndarray | None) -> csr_matrix:
            return self.read(block, rows)[:, keep]

        return replace(self, read=some, n_columns=int(keep.sum()))

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

    stored: Held | Streamed
    order: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self.order), int(self.stored.shape[1])

    def __getitem__(self, rows: slice | np.ndarray) -> Held:
        """Return some rows as a matrix."""
        return self.stored[self.order[rows]]


def same_values(one: Held | Streamed, other: Held | Streamed) -> bool:
    """Whether two matrices of one shape, both dense, or each CSR in canonical form or on disk, hold the same values."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(cast("np.ndarray", one), cast("np.ndarray", other))
    bounds = next((x.bounds for x in (one, other) if isinstance(x, Streamed)), [0, one.shape[0]])
    parts = (slice(start, stop) for start, stop in pairwise(bounds))
    return all(_same(one[rows], other[rows]) for rows in parts)


def _same(one: Any, other: Any) -> bool:
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in ("indptr", "indices", "data"))
