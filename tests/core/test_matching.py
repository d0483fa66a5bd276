from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from inst_align.core import matching, neighbours
from inst_align.core.matching import MatchSettings, MatchState, soft_targets, unit_rows
from inst_align.core.neighbours import NearestNeighbours


def make(n: int, m: int, d: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query coordinates and features, then those of the targets."""
    generator = torch.Generator().manual_seed(0)
    xy, target_xy = (torch.randn(size, 2, generator=generator) for size in (n, m))
    features, target_f = (unit_rows(torch.randn(size, d, generator=generator)) for size in (n, m))
    return xy, features, target_xy, target_f


def state(geometry: float = 0.7, feature: float = 1.3, temperature: float = 0.4) -> MatchState:
    return MatchState(
        scale_geometry=torch.tensor(geometry),
        scale_feature=torch.tensor(feature),
        temperature=torch.tensor(temperature),
    )


def dense_match(xy, features, target_xy, target_f, k, scales, feature_weight):
    """The same by plain loops in numpy, over a full cost matrix: targets and mean weighted cost."""
    targets, costs = [], []
    for q, u in zip(xy, features):
        distance = ((target_xy - q) ** 2).sum(1)
        near = np.argsort(distance)[:k]
        cost = distance[near] / scales[0] + feature_weight * (1 - target_f[near] @ u) / scales[1]
        weight = np.exp(-cost / scales[2])
        weight /= weight.sum()
        targets.append(weight @ target_xy[near])
        costs.append(weight @ cost)
    return np.array(targets), np.mean(costs)


@pytest.mark.parametrize("k", [1, 7, 40])
def test_soft_targets_equal_a_dense_computation(k):
    arrays = make(30, 40)
    near = NearestNeighbours(arrays[2])(arrays[0], k)
    match = soft_targets(*arrays, near, state(), 2.5)
    expected = dense_match(*(a.double().numpy() for a in arrays), k, (0.7, 1.3, 0.4), 2.5)
    np.testing.assert_allclose(match.targets, expected[0], atol=1e-5)
    assert match.mean_cost.item() == pytest.approx(expected[1], rel=1e-5)
    np.testing.assert_allclose(match.weights.sum(dim=1), 1, rtol=1e-6)


def test_chunks_do_not_change_the_feature_distance(monkeypatch):
    xy, features, target_xy, target_f = make(50, 60)
    near = NearestNeighbours(target_xy)(xy, 8)
    whole = matching.feature_distance(features, target_f, near)
    monkeypatch.setattr(matching, "CHUNK_ELEMENTS", 8 * 5 * 7)
    torch.testing.assert_close(matching.feature_distance(features, target_f, near), whole)


def test_very_different_costs_stay_finite():
    xy, features, target_xy, target_f = make(10, 40)
    near = NearestNeighbours(target_xy)(xy, 40)
    match = soft_targets(xy.requires_grad_(), features, 1e3 * target_xy, target_f, near, state(temperature=0.01))
    match.targets.sum().backward()
    assert torch.isfinite(match.targets).all()
    assert torch.isfinite(xy.grad).all()


def test_gradients_reach_places_and_not_features():
    xy, features, target_xy, target_f = make(6, 9)
    for tensor in (xy, features, target_xy, target_f):
        tensor.requires_grad_()
    near = NearestNeighbours(target_xy)(xy, 4)
    soft_targets(xy, features, target_xy, target_f, near, state()).targets.square().sum().backward()
    assert xy.grad.abs().sum() > 0
    assert target_xy.grad.abs().sum() > 0
    assert features.grad is None
    assert target_f.grad is None


def test_gradient_by_places_equals_finite_differences():
    arrays = [array.double() for array in make(5, 8)]
    near = NearestNeighbours(arrays[2])(arrays[0], 4)

    def targets(query_xy, target_xy):
        return soft_targets(query_xy, arrays[1], target_xy, arrays[3], near, state()).targets

    assert torch.autograd.gradcheck(targets, (arrays[0].requires_grad_(), arrays[2].requires_grad_()))


def test_first_update_by_hand():
    settings = MatchSettings(n_neighbours=2, feature_weight=1.0, decay=0.9)
    source, reference = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    source_f, reference_f = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss, after = matching.forward_loss(source, source_f, reference, reference_f, MatchState.start(0.1), settings)
    scale_geometry, scale_feature = 0.9 + 0.1 * (1 + 9) / 2, 0.9 + 0.1 * (0 + 1) / 2
    cost = np.array([1 / scale_geometry, 9 / scale_geometry + 1 / scale_feature])
    weight = np.exp(-cost / 0.1) / np.exp(-cost / 0.1).sum()
    assert after.scale_geometry.item() == pytest.approx(scale_geometry)
    assert after.scale_feature.item() == pytest.approx(scale_feature)
    assert after.temperature.item() == pytest.approx(0.9 * 0.1 + 0.1 * (weight @ cost) / 2, rel=1e-5)
    assert loss.item() == pytest.approx((weight @ [1.0, 3.0]) ** 2, rel=1e-5)


@pytest.mark.parametrize(("mean_cost", "expected"), [(1e6, 0.5), (0.0, 0.09), (0.6, 0.12)])
def test_temperature_stays_in_its_bounds(mean_cost, expected):
    settings = MatchSettings(temperature_min=0.05, temperature_max=0.5)
    after = matching.update_temperature(MatchState.start(0.1), torch.tensor(mean_cost), settings)
    assert after.temperature.item() == pytest.approx(expected)
    settings = dataclasses.replace(settings, temperature_min=0.3)
    after = matching.update_temperature(MatchState.start(0.1), torch.tensor(0.0), settings)
    assert after.temperature.item() == pytest.approx(0.3)


def test_updates_leave_the_old_state_as_it_was():
    before = state()
    arrays = make(20, 30)
    _, after = matching.forward_loss(*arrays, before, MatchSettings(n_neighbours=5))
    assert before.temperature.item() == pytest.approx(0.4)
    assert after.temperature.item() != pytest.approx(0.4)
    assert not after.temperature.requires_grad


def test_reverse_loss_asks_the_reference():
    arrays = make(20, 30)
    settings = MatchSettings(n_neighbours=6, feature_weight=2.0)
    loss = matching.reverse_loss(*arrays, state(), settings)
    source_xy, source_f, reference_xy, reference_f = (a.double().numpy() for a in arrays)
    targets, _ = dense_match(reference_xy, reference_f, source_xy, source_f, 6, (0.7, 1.3, 0.4), 2.0)
    assert loss.item() == pytest.approx(((reference_xy - targets) ** 2).sum(1).mean(), rel=1e-4)


def test_reverse_loss_punishes_a_collapse():
    _, features, reference_xy, reference_f = make(30, 30)
    settings = MatchSettings(n_neighbours=30)
    spread = matching.reverse_loss(reference_xy, features, reference_xy, reference_f, state(), settings)
    collapsed = matching.reverse_loss(0 * reference_xy, features, reference_xy, reference_f, state(), settings)
    assert collapsed > 2 * spread


def test_neighbours_are_the_nearest_and_never_more_than_there_are():
    xy, _, target_xy, _ = make(20, 12)
    nearest = NearestNeighbours(target_xy)
    expected = torch.cdist(xy, target_xy).argsort(dim=1)
    assert torch.equal(nearest(xy, 1), expected[:, :1])
    assert torch.equal(nearest(xy, 64), expected)


def test_chunked_distances_find_the_same_neighbours_as_the_tree(monkeypatch):
    xy, _, target_xy, _ = make(40, 50)
    nearest = NearestNeighbours(target_xy)
    by_tree = nearest(xy, 9)
    monkeypatch.setattr(nearest, "_tree", None)
    monkeypatch.setattr(neighbours, "CHUNK_ELEMENTS", 7 * 50)
    assert torch.equal(nearest(xy, 9), by_tree)
