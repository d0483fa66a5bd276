"""Sections that have nothing to do with each other are told from those that have."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from inst_align.core.null import MIN_CELLS, Agreement, agreement_of

WAVES = np.random.default_rng(0).normal(size=(2, 40)) * 1.5


def tissue(n: int, seed: int) -> np.ndarray:
    xy = np.random.default_rng(seed).uniform(-2.2, 2.2, (4 * n, 2))
    return xy[(xy[:, 0] / 2.2) ** 2 + (xy[:, 1] / 1.5) ** 2 < 1][:n]


def features(xy: np.ndarray, seed: int, *, phase: float = 0.0, noise: float = 1.0, k: int = 20) -> torch.Tensor:
    """Channels that vary over the tissue by decreasing amounts, with noise."""
    patterns = np.sin(xy @ WAVES[:, :k] + phase * np.arange(k)) + noise * np.random.default_rng(seed).normal(
        size=(len(xy), k)
    )
    return torch.as_tensor(patterns / np.sqrt(1 + np.arange(k)), dtype=torch.float32)


def found(n: int = 500, *, seed: int = 0, phase: float = 0.0, noise: float = 1.0, k: int = 20) -> Agreement:
    ref, src = tissue(n, 2 * seed), tissue(n - 100, 2 * seed + 1)
    pair = features(ref, 10 + seed, noise=noise, k=k), features(src, 20 + seed, phase=phase, noise=noise, k=k)
    return agreement_of(ref, src, [pair], n_neighbors=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_sections_of_one_tissue_are_related(seed: int, noise: float) -> None:
    result = found(seed=seed, noise=noise)
    assert result.related
    assert result.z > 4
    assert result.shared > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_sections_with_other_patterns_are_not_related(seed: int) -> None:
    result = found(seed=seed, phase=2.0 + seed)
    assert not result.related
    assert result.shared < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_cells_that_changed_places_are_related_to_nothing(seed: int) -> None:
    ref, src = tissue(500, seed), tissue(400, seed + 9)
    moved = features(src, seed)[np.random.default_rng(seed).permutation(400)]
    result = agreement_of(ref, src, [(features(ref, seed + 1), moved)], n_neighbors=1)
    assert not result.related
    assert abs(result.correlation) < 0.2


def test_sections_that_do_not_lie_on_each_other_are_not_related() -> None:
    ref = tissue(300, 0)
    result = agreement_of(ref, ref + 100, [(features(ref, 0), features(ref, 1))], n_neighbors=1)
    assert not result.related
    assert np.isnan(result.correlation)


def test_few_channels_are_enough_if_they_agree() -> None:
    assert found(k=10, noise=0.3).related


def test_parts_of_a_section_are_related_to_the_whole() -> None:
    ref, src = tissue(600, 0), tissue(500, 1)
    part = src[:, 0] > 0.5
    pair = features(ref, 0), features(src, 1)[torch.as_tensor(part)]
    assert agreement_of(ref, src[part], [pair], n_neighbors=1).related
    swapped = agreement_of(src[part], ref, [pair[::-1]], n_neighbors=1)
    assert swapped.related


def test_several_sets_of_features_count_by_their_mean() -> None:
    ref, src = tissue(300, 0), tissue(250, 1)
    pairs = [(features(ref, i), features(src, i + 5)) for i in range(2)]
    each = [agreement_of(ref, src, [pair], n_neighbors=1) for pair in pairs]
    both = agreement_of(ref, src, pairs, n_neighbors=1)
    assert both.correlation == pytest.approx(np.mean([one.correlation for one in each]))
    assert both.shared == pytest.approx(np.mean([one.shared for one in each]))


def test_the_same_is_found_each_time_and_no_global_state_is_used() -> None:
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert found(200) == found(200)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_the_time_does_not_grow_with_the_cells() -> None:
    ref, src = tissue(30_000, 0), tissue(30_000, 1)
    pair = features(ref, 0), features(src, 1)
    start = time.perf_counter()
    assert agreement_of(ref, src, [pair], n_neighbors=1).related
    assert time.perf_counter() - start < 2


def test_sections_too_small_to_judge_are_not_judged() -> None:
    ref = tissue(MIN_CELLS - 1, 0)
    assert np.isnan(agreement_of(ref, ref, [(features(ref, 0), features(ref, 1))], n_neighbors=1).z)
