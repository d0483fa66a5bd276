"""A pose that is nearly right is made right, and one that is right stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inst_align.core.polish import polish_pose
from inst_align.core.registration import RegistrationConfig
from inst_align.core.section import median_spacing
from inst_align.core.transforms import Affine

CONFIG = RegistrationConfig(n_pixels=64)
WAVES = np.random.default_rng(0).normal(size=(2, 8)) * 2


def section(n: int, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Cells of an ellipse, and eight channels measured on them with noise."""
    generator = np.random.default_rng(seed)
    xy = generator.uniform(-2.2, 2.2, (4 * n, 2))
    xy = xy[(xy[:, 0] / 2.2) ** 2 + (xy[:, 1] / 1.5) ** 2 < 1][:n]
    values = np.sin(xy @ WAVES + np.arange(8)) + 0.3 * generator.normal(size=(len(xy), 8))
    return xy, torch.as_tensor(values, dtype=torch.float32)


@pytest.mark.parametrize(("degrees", "shift"), [(0.0, (0.0, 0.0)), (2.0, (0.06, -0.04)), (-1.5, (-0.05, 0.07))])
def test_a_small_turn_and_shift_are_undone(degrees: float, shift: tuple[float, float]) -> None:
    (ref, features_ref), (truth, features_src) = section(1500, 1), section(1400, 2)
    moved = Affine.from_rigid(np.deg2rad(degrees), shift)
    found = Affine(polish_pose(ref, moved(truth), features_ref, features_src, CONFIG))
    error = np.linalg.norm(found(moved(truth)) - truth, axis=1) / median_spacing(ref)
    start = np.linalg.norm(moved(truth) - truth, axis=1) / median_spacing(ref)
    assert np.median(error) < max(0.1, 0.5 * np.median(start))


def test_the_result_is_a_rotation_and_a_shift() -> None:
    (ref, features_ref), (src, features_src) = section(300, 1), section(250, 2)
    matrix = polish_pose(ref, src + 0.03, features_ref, features_src, CONFIG, rounds=1)
    np.testing.assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, np.eye(2), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_cells_without_counterpart_do_not_pull() -> None:
    (ref, features_ref), (truth, features_src) = section(1500, 1), section(1400, 2)
    part = truth[:, 0] > 0.3
    found = Affine(polish_pose(ref, truth[part], features_ref, features_src[part], CONFIG))
    error = np.linalg.norm(found(truth[part]) - truth[part], axis=1) / median_spacing(ref)
    assert np.median(error) < 0.1
