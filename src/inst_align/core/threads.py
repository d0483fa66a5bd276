"""Torch's global settings during a fit: threads for the size of the problem, float32, gradients, repeatable sums.

On a busy machine threads wait for each other at the end of every small operation: with two of them, the steps of a
registration were measured to take up to 18 times as long as with one, and on an idle machine hardly less. What pays are
few and long tasks beside each other, each with one thread: what is done to one section beside what is done to the other.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Result = TypeVar("Result")

CELLS_PER_THREAD = 50_000
"""Below this many cells a second thread brings next to nothing, and on a busy machine it waits at barriers."""
PARALLEL = 1 << 18
"""Elements of a tensor that torch shares out among all of its threads."""
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_VALUES = (":4096:8", ":16:8")
"""With one of these, matrix products on CUDA are added up in the same order in every run."""
_HELPERS: ContextVar[tuple[int, ThreadPoolExecutor | None]] = ContextVar("_HELPERS", default=(1, None))
"""Threads that a task may use, its own among them, and where the others are."""


@contextmanager
def torch_settings(n_cells: int) -> Iterator[None]:
    """Within the block, let torch be as a fit needs it, whatever the caller has set; put it all back afterwards.

    One thread for every ``CELLS_PER_THREAD`` cells, at most as many as there were, which is also how many tasks may run
    side by side; float32 by default; gradients on; numbers too small for the normal form of floats count as zero, since
    a CPU takes many times as long for them. (In the calling thread: torch has no way to tell its others.)
    """
    before, dtype, flushed = torch.get_num_threads(), torch.get_default_dtype(), flushes_denormals()
    n_threads = max(1, min(before, n_cells // CELLS_PER_THREAD))
    try:
        torch.set_num_threads(n_threads)
        if n_threads > 1:  # threads that come into being later would take zero for denormals to the end of the process
            torch.zeros(PARALLEL).add_(1.0)
        torch.set_default_dtype(torch.float32)
        torch.set_flush_denormal(True)
        with torch.inference_mode(mode=False), torch.enable_grad(), helpers(before):
            yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(before)
        torch.set_default_dtype(dtype)


@contextmanager
def kept_threads() -> Iterator[None]:
    """Let torch have as many threads after the block as before, whatever other libraries within tell OpenMP, as numba does."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def helpers(n_threads: int) -> Iterator[None]:
    """Within the block, let :func:`side_by_side` use so many threads; one within another changes nothing."""
    if _HELPERS.get()[1] is not None or n_threads < 2:
        yield
        return
    with ThreadPoolExecutor(n_threads - 1, thread_name_prefix="inst-align") as pool:
        token = _HELPERS.set((n_threads, pool))
        try:
            yield
        finally:
            _HELPERS.reset(token)


def side_by_side(function: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
    """Return ``list(map(function, *arguments))``, computed side by side as far as there are :func:`helpers`.

    The calls must not wait for each other, nor draw from one source of random numbers, nor change the filters of warnings,
    which all threads share. Results do not depend on whether they ran side by side. If several fail, the first one's error
    is raised, after all have ended.

    Examples
    --------
    >>> with helpers(2):
    ...     side_by_side(pow, (2, 3), (5, 2))
    [32, 9]
    """
    calls = list(zip(*arguments, strict=True))
    allowed, pool = _HELPERS.get()
    n_tasks = min(allowed, len(calls))
    if pool is None or n_tasks < 2:
        return [function(*call) for call in calls]
    before, flushed, graded = torch.get_num_threads(), flushes_denormals(), torch.is_grad_enabled()

    def task(*call: Any) -> Result:
        _HELPERS.set((allowed // n_tasks, pool))
        torch.set_num_threads(max(1, before // n_tasks))
        torch.set_flush_denormal(flushed)
        with torch.set_grad_enabled(graded):
            return function(*call)

    with kept_threads():
        others = [pool.submit(copy_context().run, task, *call) for call in calls[1:]]
        try:
            return [copy_context().run(task, *calls[0]), *(other.result() for other in others)]
        finally:
            wait(others)


def flushes_denormals() -> bool:
    """Return whether this thread takes denormal numbers for zero; torch can set that, but not tell it."""
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1.0) == 0


@contextmanager
def repeatable(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Within the block, let torch give the same bits in every run, or refuse; put it back afterwards.

    The CPU does so anyway, as long as the number of threads is the same.

    Raises
    ------
    ValueError
        The device is CUDA and its matrix products are not set to be deterministic, or there is an operation in the block
        that has no deterministic form on it.
    """
    if not deterministic:
        yield
        return
    if device.type == "cuda" and os.environ.get(CUBLAS) not in CUBLAS_VALUES:
        raise ValueError(
            f"`deterministic=True` on CUDA needs `{CUBLAS}={CUBLAS_VALUES[0]}` in the environment before Python starts, "
            f'and it is {os.environ.get(CUBLAS, "not set")}; set it, or pass `device="cpu"`.'
        )
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise ValueError(
            f"`deterministic=True` cannot be kept on {device}, where {str(error).split()[0]} has no deterministic form; "
            f'pass `device="cpu"`, or `deterministic=False`.'
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block or function, work with one thread: on rasters, whose size does not depend on that of the data."""
    with kept_threads():
        torch.set_num_threads(1)
        yield
