"""How many CPU threads torch may use, chosen for the size of the problem and put back afterwards."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

CELLS_PER_THREAD = 50_000
"""Below this many cells a second thread costs more at barriers than it brings (measured: ``benchmarks/``)."""


@contextmanager
def torch_threads(n_cells: int) -> Iterator[None]:
    """Use one thread for every ``CELLS_PER_THREAD`` cells, at most as many as torch was set to, within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, n_cells // CELLS_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
