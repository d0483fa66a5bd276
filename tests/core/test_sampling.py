"""Some rows of many: as many as asked for, each once, and of a lattice no stripes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from inst_align.core.sampling import some_rows


@given(n=st.integers(0, 300), most=st.integers(1, 300))
def test_rows_ascend_and_are_as_many_as_asked_for(n: int, most: int) -> None:
    rows = some_rows(n, most)
    assert len(rows) == min(n, most)
    assert (np.diff(rows) > 0).all()
    assert not len(rows) or 0 <= rows[0] <= rows[-1] < n
    np.testing.assert_array_equal(rows, some_rows(n, most))


def test_no_part_of_a_lattice_is_left_out() -> None:
    x, y = np.meshgrid(np.arange(100.0), np.arange(100.0), indexing="ij")
    lattice = np.column_stack([x.ravel(), y.ravel()])
    kept = lattice[some_rows(10_000, 1000)]
    far, _ = cKDTree(kept).query(lattice)
    assert far.max() < 15
    assert len(np.unique(kept[:, 1])) > 95  # every tenth would leave nine rows of ten empty
