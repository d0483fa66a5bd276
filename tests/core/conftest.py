"""A matrix that is read in blocks, made of one in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

from inst_align.core.rows import Streamed

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def streamed() -> Callable[..., Streamed]:
    """Return a function that makes blocks of a matrix, and puts the number of each that is read in a list."""

    def make(matrix: np.ndarray, bounds: list[int], read: list[int] | None = None) -> Streamed:
        def block(number: int, rows: np.ndarray | None) -> sparse.csr_matrix:
            if read is not None:
                read.append(number)
            part = sparse.csr_matrix(matrix[bounds[number] : bounds[number + 1]])
            return part if rows is None else part[rows]

        largest = float(np.abs(matrix).max())
        return Streamed(bounds=np.array(bounds), n_columns=matrix.shape[1], largest=largest, read=block)

    return make
