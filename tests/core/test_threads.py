"""Torch gets as many threads as a problem is worth, never more than it had, and has them back afterwards."""

from __future__ import annotations

import subprocess
import sys
from threading import Barrier, get_ident
from typing import TYPE_CHECKING

import pytest
import torch

from inst_align.core.threads import (
    CELLS_PER_THREAD,
    CUBLAS,
    flushes_denormals,
    helpers,
    one_thread,
    repeatable,
    side_by_side,
    torch_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n_cells", "wanted"),
    [(0, 1), (10, 1), (CELLS_PER_THREAD, 1), (2 * CELLS_PER_THREAD, 2), (100 * CELLS_PER_THREAD, 3)],
)
def test_threads_grow_with_the_problem_up_to_what_there_was(n_cells: int, wanted: int) -> None:
    with torch_settings(n_cells):
        assert torch.get_num_threads() == wanted
    assert torch.get_num_threads() == 3


def test_threads_are_put_back_after_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt), torch_settings(1):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3


def test_blocks_can_be_nested() -> None:
    with torch_settings(2 * CELLS_PER_THREAD):
        with torch_settings(100 * CELLS_PER_THREAD):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


TINY = torch.tensor([1e-40, 1.0], dtype=torch.float32)


@pytest.mark.parametrize("before", [False, True])
def test_denormal_numbers_count_as_zero_within_and_as_before_afterwards(before: bool) -> None:
    torch.set_flush_denormal(before)
    try:
        if not torch.set_flush_denormal(before):
            pytest.skip("this CPU cannot flush denormal numbers")
        assert flushes_denormals() is before
        with pytest.raises(KeyboardInterrupt), torch_settings(1):
            assert (TINY * 1.0).tolist() == [0.0, 1.0]
            raise KeyboardInterrupt
        assert flushes_denormals() is before
    finally:
        torch.set_flush_denormal(False)


POOL = """
import torch
from inst_align.core.threads import CELLS_PER_THREAD, torch_settings

torch.set_num_threads(2)
with torch_settings(2 * CELLS_PER_THREAD):
    torch.zeros(1 << 20).add_(1.0)  # in both threads
tiny = torch.full((1 << 20,), 1e-40)
print(int((tiny * 1.0 == 0).sum()))
"""


def test_threads_that_began_within_the_block_know_denormal_numbers_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def settings() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("mode", "warn_only"), [(False, False), (True, True)])
def test_deterministic_algorithms_are_asked_for_within_and_as_before_afterwards(mode: bool, warn_only: bool) -> None:
    torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        with repeatable(CPU, deterministic=False):
            assert settings() == before
        with pytest.raises(KeyboardInterrupt), repeatable(CPU, deterministic=True):
            assert settings() == (True, False, False)
            raise KeyboardInterrupt
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("found", [None, ":8:8"])
def test_without_the_setting_of_cublas_repeatable_sums_are_refused(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    if found is not None:
        monkeypatch.setenv(CUBLAS, found)
    before = settings()
    message = rf"needs `{CUBLAS}=:4096:8` .* and it is {found or 'not set'}; set it"
    with pytest.raises(ValueError, match=message), repeatable(CUDA, deterministic=True):
        raise AssertionError
    assert settings() == before


def test_an_operation_without_a_deterministic_form_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":4096:8")
    words = "put_cuda does not have a deterministic implementation, but you set 'use_deterministic_algorithms(True)'."
    message = r"cannot be kept on cuda, where put_cuda has no deterministic form; pass"
    with pytest.raises(ValueError, match=message), repeatable(CUDA, deterministic=True):
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="broken"), repeatable(CUDA, deterministic=True):
        raise RuntimeError("broken")


def test_rasters_get_one_thread_and_the_rest_is_put_back() -> None:
    @one_thread()
    def at_work() -> int:
        return torch.get_num_threads()

    assert at_work() == at_work() == 1
    assert torch.get_num_threads() == 3


def test_tasks_run_side_by_side_as_far_as_there_are_helpers() -> None:
    def others_wait(barrier: Barrier) -> int:
        barrier.wait(timeout=30)  # is passed only if all are there at once
        return torch.get_num_threads()

    with helpers(3):
        assert side_by_side(others_wait, [Barrier(3)] * 3) == [1, 1, 1]
    assert side_by_side(lambda _: get_ident(), range(3)) == [get_ident()] * 3
    assert torch.get_num_threads() == 3


def test_results_come_in_order_and_tasks_may_have_tasks() -> None:
    def powers(base: int) -> list[int]:
        return side_by_side(pow, (base,) * 3, (0, 1, 2))

    for n_threads in (1, 2, 5):
        with helpers(n_threads):
            assert side_by_side(powers, range(7)) == [[1, base, base**2] for base in range(7)]


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    ended = []

    def fail(name: str) -> None:
        ended.append(name)
        raise KeyError(name)

    with helpers(2), pytest.raises(KeyError, match="one"):
        side_by_side(fail, ("one", "other"))
    assert sorted(ended) == ["one", "other"]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("graded", [False, True])
def test_tasks_work_under_the_settings_of_their_caller(graded: bool) -> None:
    def settings(_: int) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), flushes_denormals()

    with torch_settings(1), torch.set_grad_enabled(graded):
        found = side_by_side(settings, range(3))
        assert found == [settings(0)] * 3
    assert found[0][0] is graded
