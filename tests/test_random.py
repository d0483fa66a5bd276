"""Randomness and devices are arguments, and leave no trace."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from inst_align._device import resolve_device
from inst_align._random import numpy_generator, torch_generator


@pytest.mark.parametrize("rng", [3, np.int64(3), [1, 2], np.random.SeedSequence(3)])
def test_the_same_seed_draws_the_same_numbers(rng: Any) -> None:
    first, second = (numpy_generator(rng).random(5) for _ in range(2))
    if isinstance(rng, np.random.SeedSequence):
        assert (first == np.random.default_rng(np.random.SeedSequence(3)).random(5)).all()
    assert (first == second).all()


def test_none_draws_anew() -> None:
    assert numpy_generator(None).random() != numpy_generator(None).random()


def test_a_generator_is_used_itself() -> None:
    given = np.random.default_rng(0)
    assert numpy_generator(given) is given


@pytest.mark.parametrize("rng", [-1, 1.5, "seed"])
def test_no_source_of_randomness_is_one_clear_sentence(rng: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="is no source of randomness; pass a non-negative integer"):
        numpy_generator(rng)


def test_torch_follows_the_numpy_generator() -> None:
    draws = [torch.rand(4, generator=torch_generator(numpy_generator(7))) for _ in range(2)]
    assert torch.equal(*draws)
    one = numpy_generator(7)
    streams = [torch.rand(4, generator=torch_generator(one)) for _ in range(2)]
    assert not torch.equal(*streams)


def test_global_random_state_stays() -> None:
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    torch.rand(3, generator=torch_generator(numpy_generator(0)))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.parametrize(("there", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_no_device_takes_cuda_where_there_is_any_and_says_so(
    there: bool, chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    with caplog.at_level(logging.INFO, logger="inst_align"):
        assert resolve_device(None) == torch.device(chosen)
    assert [record.message for record in caplog.records] == [f"computing on {chosen}"]


def test_a_device_that_is_there_is_taken() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(("there", "device"), [(0, "cuda"), (1, "cuda:1")])
def test_cuda_that_is_not_there_is_one_clear_sentence(there: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(ValueError, match=f"`device='{device}'`: there are {there} CUDA devices; pass `device=None`"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["gpu", "meta", "", 1.5])
def test_nonsense_for_a_device_is_a_value_error(device: str) -> None:
    with pytest.raises(ValueError, match="`device="):
        resolve_device(device)
