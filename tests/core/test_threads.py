"""Torch gets as many threads as a problem is worth, never more than it had, and has them back afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from inst_align.core.threads import CELLS_PER_THREAD, one_thread, torch_settings

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


def test_rasters_get_one_thread_and_the_rest_is_put_back() -> None:
    @one_thread()
    def at_work() -> int:
        return torch.get_num_threads()

    assert at_work() == at_work() == 1
    assert torch.get_num_threads() == 3
