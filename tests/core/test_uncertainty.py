"""The expected error grows with noise and towards the edge of what both sections have, and scales with the tissue."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inst_align.core.drawn import Cells
from inst_align.core.registration import RegistrationConfig
from inst_align.core.uncertainty import position_sd

WAVES = np.random.default_rng(0).normal(size=(2, 20)) * 1.5
CONFIG = RegistrationConfig(n_pixels=64)


def tissue(n: int, seed: int) -> np.ndarray:
    xy = np.random.default_rng(seed).uniform(-2, 2, (2 * n, 2))
    return xy[np.linalg.norm(xy, axis=1) < 2][:n]


def cells(xy: np.ndarray, seed: int, *, noise: float = 0.5, detail: float = 1.0) -> Cells:
    values = np.sin(detail * xy @ WAVES + np.arange(20)) + noise * np.random.default_rng(seed).normal(
        size=(len(xy), 20)
    )
    return Cells.of(xy, torch.as_tensor(values, dtype=torch.float32))


def found(*, noise: float = 0.5, detail: float = 1.0) -> np.ndarray:
    return position_sd(*(cells(tissue(1200, i), i, noise=noise, detail=detail) for i in range(2)), CONFIG)


def test_noise_makes_cells_less_certain_and_detail_more() -> None:
    usual = np.median(found())
    assert np.median(found(noise=2.0)) > 1.5 * usual
    assert np.median(found(detail=0.5)) > 1.2 * usual


def test_cells_at_the_edge_of_the_common_tissue_are_less_certain() -> None:
    ref, src = tissue(1200, 0), tissue(1200, 1)
    src = src[src[:, 0] > -0.5]
    sd = position_sd(cells(ref, 0), cells(src, 1), CONFIG)
    inside = np.linalg.norm(src - [0.6, 0], axis=1) < 0.4
    assert np.median(sd[src[:, 0] < -0.3]) > 1.25 * np.median(sd[inside])
    assert sd[inside].std() < 0.1 * sd[inside].mean()


def test_what_is_left_unmatched_makes_all_cells_less_certain() -> None:
    ref, src = tissue(1500, 0), tissue(1500, 1)
    medians = []
    for size in (0.05, 0.1, 0.2):
        off = size * np.column_stack([np.sin(2 * src[:, 1]), np.cos(2 * src[:, 0])])
        moved = Cells.of(src + off, cells(src, 1, noise=0.0).features)
        medians.append(np.median(position_sd(cells(ref, 0, noise=0.0), moved, CONFIG)))
    assert medians[1] > 1.5 * medians[0]
    assert medians[2] > 1.5 * medians[1]


def test_features_that_tell_nothing_leave_everything_open() -> None:
    ref, src = (Cells.of(tissue(300, i), torch.zeros(300, 5)) for i in range(2))
    assert np.isinf(position_sd(ref, src, CONFIG)).all()


@pytest.mark.parametrize("seed", range(2))
def test_global_random_state_is_left_alone(seed: int) -> None:
    torch.manual_seed(seed)
    state = torch.get_rng_state().clone()
    found()
    assert torch.equal(torch.get_rng_state(), state)
