"""Too little memory on a GPU means smaller chunks, and at last one sentence with a number and a way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from inst_align.core.canonical import CanonicalField
from inst_align.core.clock import Clock
from inst_align.core.field import ExpressionDecoder, ExpressionField
from inst_align.core.memory import FLOOR, OutOfMemory, in_chunks, memory_told

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 10.00 GiB."


def room_for(n_points: int, sizes: list[int]) -> Callable[[slice], list[int]]:
    """Return work on points that fails on more than so many, and writes down what it was asked for."""

    def work(part: slice) -> list[int]:
        sizes.append(part.stop - part.start)
        if part.stop - part.start > n_points:
            raise OutOfMemory(WORDS)
        return list(range(part.start, part.stop))

    return work


@pytest.mark.parametrize("room", [300, 512, 700, 1024, 4096])
def test_chunks_are_halved_until_they_fit_and_every_point_is_worked_on_once(room: int) -> None:
    sizes: list[int] = []
    found = in_chunks(room_for(room, sizes), 5000, 4096)
    assert sum(found, []) == list(range(5000))
    assert max(map(len, found)) <= room
    assert len(found) > 1
    failed = [size for size in sizes if size > room]
    assert len(failed) <= 4  # once halved, a chunk stays so


def test_where_the_fewest_points_do_not_fit_it_is_said_how_much_is_missing() -> None:
    sizes: list[int] = []
    with pytest.raises(MemoryError) as caught:
        in_chunks(room_for(10, sizes), 5000, 4096)
    assert sizes == [4096, 2048, 1024, 512, FLOOR]
    assert str(caught.value) == (
        "The memory of the CUDA device does not suffice for 256 points at a time: 1,610,612,736 bytes more would be "
        'needed; free what other arrays or programs hold there, or pass `device="cpu"`.'
    )


def test_no_points_make_one_empty_chunk() -> None:
    assert in_chunks(lambda part: (part.start, part.stop), 0, 8) == [(0, 0)]


def test_other_errors_get_through() -> None:
    def work(part: slice) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_chunks(work, 10, 4)


@pytest.mark.parametrize(
    ("stage", "knob"),
    [
        ("registration", "lower `n_pixels` of `RegistrationConfig`"),
        ("field", "lower `max_cells` or `n_frequencies` of `FieldConfig`"),
        ("fit", "lower `batch_size` or `n_neighbours` of `PaperConfig`"),
        ("features", "free what other arrays or programs hold there"),
    ],
)
def test_a_stage_that_runs_out_of_memory_names_itself_and_the_knob(stage: str, knob: str) -> None:
    with pytest.raises(MemoryError) as caught, Clock(1, None).stage(stage):
        raise OutOfMemory(WORDS)
    assert str(caught.value) == (
        f"The memory of the CUDA device does not suffice for the {stage}: 1,610,612,736 bytes more would be needed; "
        f'{knob}, or pass `device="cpu"`.'
    )


def test_words_without_a_number_are_understood_as_well() -> None:
    with pytest.raises(MemoryError, match="for the field: more would be needed"), memory_told("field"):
        raise OutOfMemory("out of memory")


def test_a_field_is_evaluated_in_smaller_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    field = ExpressionField(generator=generator, width=8, depth=1, n_latent=4)
    decoder = ExpressionDecoder(generator=generator, n_genes=5, n_latent=4, width=8, depth=1)
    canonical = CanonicalField(matrix=np.eye(3), field=field, decoder=decoder)
    xy = np.random.default_rng(0).normal(size=(3000, 2))
    wanted = canonical.predict(xy, "genes")
    forward = ExpressionField.forward

    def small(self: ExpressionField, points: torch.Tensor, *more: Any) -> torch.Tensor:
        if len(points) > 1000:
            raise OutOfMemory(WORDS)
        return forward(self, points, *more)

    monkeypatch.setattr(ExpressionField, "forward", small)
    np.testing.assert_allclose(canonical.predict(xy, "genes"), wanted, rtol=1e-5, atol=1e-6)
