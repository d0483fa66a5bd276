from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inst_align.core import losses

PREDICTION = torch.tensor([[1.0, 0.0, 2.0], [0.5, -1.0, 0.0]])
TARGET = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def random_matrices(n: int = 200) -> torch.Tensor:
    return torch.randn(n, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rotation(angle: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


def test_masked_mse_by_hand():
    assert losses.masked_mse(PREDICTION, TARGET).item() == pytest.approx((1 + 4) / 2)


def test_masked_mse_of_silent_cells_is_zero():
    assert losses.masked_mse(PREDICTION, torch.zeros_like(PREDICTION)).item() == 0


def test_mean_absolute_by_hand():
    assert losses.mean_absolute(PREDICTION, TARGET).item() == pytest.approx((1 + 0 + 2 + 0.5 + 2 + 0) / 6)


def test_dice_loss_by_hand():
    predicted = np.tanh(PREDICTION.numpy() / 2)
    overlap = predicted[0, 0] + predicted[1, 1]
    expected = 1 - (2 * overlap + 1) / (predicted.sum() + 2 + 1)
    assert losses.dice_loss(PREDICTION, TARGET).item() == pytest.approx(expected, rel=1e-6)


def test_dice_loss_vanishes_for_the_right_pattern():
    assert losses.dice_loss(50 * TARGET, TARGET).item() == pytest.approx(0, abs=1e-6)


def test_reconstruction_loss_is_the_weighted_sum():
    expected = 2.5 + 5.5 / 6 + 0.25 * losses.dice_loss(PREDICTION, TARGET).item()
    assert losses.reconstruction_loss(PREDICTION, TARGET, dice_weight=0.25).item() == pytest.approx(expected, rel=1e-6)


def test_mean_square_distance_by_hand():
    xy = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    target = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert losses.mean_square_distance(xy, target).item() == pytest.approx((25 + 1) / 2)


def test_singular_values_equal_those_of_torch_up_to_the_sign():
    matrices = random_matrices()
    larger, smaller = losses.singular_values_2x2(matrices)
    expected = torch.linalg.svdvals(matrices)
    torch.testing.assert_close(torch.stack([larger, smaller.abs()], dim=1), expected, atol=1e-5, rtol=1e-5)


def test_product_of_singular_values_is_the_determinant():
    matrices = random_matrices()
    larger, smaller = losses.singular_values_2x2(matrices)
    determinant = torch.linalg.det(matrices)
    assert (determinant < 0).any()
    torch.testing.assert_close(larger * smaller, determinant, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("matrix", [torch.eye(2), torch.zeros(2, 2), torch.diag(torch.tensor([1.0, -1.0]))])
def test_jacobian_losses_have_finite_gradients_at_special_matrices(matrix):
    matrix = matrix.expand(3, 2, 2).clone().requires_grad_()
    (losses.jacobian_loss(matrix) + losses.fold_loss(matrix)).backward()
    assert torch.isfinite(matrix.grad).all()


def test_jacobian_loss_by_hand():
    stretched = torch.diag(torch.tensor([2.0, 0.5], dtype=torch.float64))[None]
    expected = (1 + 5) * math.log(2) ** 2
    assert losses.jacobian_loss(stretched).item() == pytest.approx(expected, rel=1e-6)
    assert losses.jacobian_loss(stretched, compression_weight=1.0).item() == pytest.approx(2 * math.log(2) ** 2)


def test_jacobian_loss_ignores_rotations():
    matrices = random_matrices(50)
    turned = rotation(0.7) @ matrices @ rotation(-1.9)
    torch.testing.assert_close(losses.jacobian_loss(turned), losses.jacobian_loss(matrices), rtol=1e-5, atol=0)
    assert losses.jacobian_loss(rotation(0.7)[None]).item() == pytest.approx(0, abs=1e-10)


def test_only_the_fold_loss_sees_a_fold():
    fold = rotation(0.3)[None] @ torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert losses.jacobian_loss(fold).item() == pytest.approx(0, abs=1e-10)
    assert losses.fold_loss(fold, margin=0.1).item() == pytest.approx(1.1**2)


def test_fold_loss_is_zero_above_its_margin():
    assert losses.fold_loss(torch.eye(2)[None] * 0.4).item() == 0
    assert losses.fold_loss(torch.eye(2)[None] * 0.2).item() == pytest.approx(0.06**2, rel=1e-5)
