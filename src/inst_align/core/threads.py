"""Torch's global settings during a fit: threads chosen for the size of the problem, float32, gradients.

On a busy machine threads wait for each other at the end of every small operation: with two of them, the steps of a
registration were measured to take up to 18 times as long as with one, and on an idle machine hardly less.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

CELLS_PER_THREAD = 50_000
"""Below this many cells a second thread brings next to nothing, and on a busy machine it waits at barriers."""


@contextmanager
def torch_settings(n_cells: int) -> Iterator[None]:
    """Within the block, let torch be as a fit needs it, whatever the caller has set; put it all back afterwards.

    One thread for every ``CELLS_PER_THREAD`` cells, at most as many as there were; float32 by default; gradients on.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, n_cells // CELLS_PER_THREAD)))
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_default_dtype(dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block or function, work with one thread: on rasters, whose size does not depend on that of the data."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
