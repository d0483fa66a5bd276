"""When a GPU's memory does not suffice: work on smaller chunks, and if that does not help, say how much is missing.

What grows with the number of points and needs no gradient goes through :func:`in_chunks`. The rest is bounded by the
constants of a fit (pixels of a raster, cells of a step), which only the user can lower without changing the result unasked.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOOR = 256
"""Fewest points of a chunk."""
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
KNOBS = {
    "trial": "lower `n_pixels` of `RegistrationConfig`",
    "registration": "lower `n_pixels` of `RegistrationConfig`",
    "field": "lower `max_cells` or `n_frequencies` of `FieldConfig`",
    "fit": "lower `batch_size` or `n_neighbours` of `PaperConfig`",
}
"""What a user can turn, by the stage of a fit."""
FREE = "free what other arrays or programs hold there"

OutOfMemory = torch.cuda.OutOfMemoryError
T = TypeVar("T")


def in_chunks(work: Callable[[slice], T], n_points: int, chunk: int, *, floor: int = FLOOR) -> list[T]:
    """Work on points chunk by chunk; where memory does not suffice, on chunks of half the size, and so on.

    Parameters
    ----------
    work
        Takes the slice of the points; may be called again for a part of a slice at which it failed.
    n_points
        How many there are.
    chunk
        At most so many at once.
    floor
        So many at least, before it is given up.

    Raises
    ------
    MemoryError
        Not even ``floor`` points fit.

    Examples
    --------
    >>> in_chunks(lambda part: (part.start, part.stop), 5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    found: list[T] = []
    start = 0
    while start < n_points or not found:
        stop = min(start + chunk, n_points)
        try:
            found.append(work(slice(start, stop)))
        except OutOfMemory as error:
            if chunk <= floor:
                raise MemoryError(_sentence(error, f"{stop - start} points at a time", FREE)) from error
            chunk = max(floor, chunk // 2)
        else:
            start = stop
    return found


@contextmanager
def memory_told(stage: str) -> Iterator[None]:
    """Within the block, turn torch's words for a lack of memory on the GPU into one sentence.

    Raises
    ------
    MemoryError
        There is not enough of it.
    """
    try:
        yield
    except OutOfMemory as error:
        raise MemoryError(_sentence(error, f"the {stage}", KNOBS.get(stage, FREE))) from error


def _sentence(error: BaseException, what: str, way_out: str) -> str:
    tried = re.search(r"Tried to allocate ([\d.]+) (\w+)", str(error))
    needed = f"{round(float(tried[1]) * UNITS[tried[2]]):,} bytes more" if tried and tried[2] in UNITS else "more"
    return (
        f"The memory of the CUDA device does not suffice for {what}: {needed} would be needed; {way_out}, or pass "
        f'`device="cpu"`.'
    )
