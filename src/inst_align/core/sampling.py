"""Which cells are looked at where all of them would tell no more."""

from __future__ import annotations

import numpy as np


def some_rows(n: int, most: int) -> np.ndarray:
    """Return at most so many of ``n`` rows, ascending; all of them if there are no more.

    Chance chooses, always the same: taking every so-many-th would make stripes of the cells of a lattice.

    Examples
    --------
    >>> some_rows(3, 5)
    array([0, 1, 2])
    >>> len(some_rows(1000, 5))
    5
    """
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:most])
