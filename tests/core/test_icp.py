from __future__ import annotations

import numpy as np
import pytest

from inst_align.core.icp import adaptive_icp


def rigid(angle: float, shift: tuple[float, float], *, mirror: bool = False) -> np.ndarray:
    radians = np.radians(angle)
    matrix = np.eye(3)
    matrix[:2, :2] = [[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]
    if mirror:
        matrix[:2, :2] = matrix[:2, :2] @ np.diag([-1.0, 1.0])
    matrix[:2, 2] = shift
    return matrix


def apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def tissue(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An L of points with features that vary along both axes."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1, (4 * n, 2)) * [2.0, 1.2]
    xy = xy[(xy[:, 0] < 0.6) | (xy[:, 1] < 0.4)][:n]
    features = np.column_stack([np.sin(2 * xy[:, 0]), np.cos(3 * xy[:, 1]), xy[:, 0] - xy[:, 1]])
    return xy, features - features.mean(axis=0)


def disc(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A round cloud: only its features tell how it is turned."""
    rng = np.random.default_rng(1)
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0, 1, n))
    xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    return xy, np.column_stack([xy[:, 0], xy[:, 1], xy[:, 0] * xy[:, 1]])


@pytest.mark.parametrize("angle", [0, 50, 135, -170])
def test_known_rotation_of_an_asymmetric_cloud_is_found(angle):
    xy, features = tissue()
    truth = rigid(angle, (30.0, -7.0))
    result = adaptive_icp(apply(truth, xy), xy, features, features)
    np.testing.assert_allclose(result.matrix, truth, atol=1e-6)
    assert result.rmse < 1e-6
    assert result.score > 0.8


def test_expression_decides_where_the_shape_cannot():
    # Sixteen exact copies of a wedge make all these turns equally good for the shape.
    rng = np.random.default_rng(0)
    wedge = np.column_stack([rng.uniform(0.2, 1, 30), rng.uniform(0, np.pi / 8, 30)])
    polar = np.concatenate([wedge + [0, k * np.pi / 8] for k in range(16)])
    xy = polar[:, :1] * np.column_stack([np.cos(polar[:, 1]), np.sin(polar[:, 1])])
    truth = rigid(90, (0.0, 0.0))
    result = adaptive_icp(apply(truth, xy), xy, xy, xy, n_keep=24)
    assert not result.confident
    np.testing.assert_allclose(result.matrix, truth, atol=1e-6)


def test_candidates_are_sorted_by_score_and_limited():
    xy, features = disc()
    result = adaptive_icp(apply(rigid(70, (1.0, 1.0)), xy), xy, features, features, n_angles=12, n_keep=3)
    scores = [candidate.score for candidate in result.candidates]
    assert len(scores) == (4 if result.confident else 3)
    assert scores == sorted(scores, reverse=True)
    assert result.score == scores[0]


def test_mirror_is_found_only_when_allowed():
    xy, features = tissue()
    truth = rigid(40, (3.0, 2.0), mirror=True)
    reference = apply(truth, xy)
    without = adaptive_icp(reference, xy, features, features)
    assert all(not candidate.mirrored for candidate in without.candidates)
    assert np.linalg.det(without.matrix[:2, :2]) == pytest.approx(1)
    allowed = adaptive_icp(reference, xy, features, features, allow_reflection=True)
    np.testing.assert_allclose(allowed.matrix, truth, atol=1e-6)
    assert allowed.score > without.score


def test_no_mirror_is_taken_without_need():
    xy, features = tissue()
    truth = rigid(-20, (3.0, 2.0))
    result = adaptive_icp(apply(truth, xy), xy, features, features, allow_reflection=True)
    np.testing.assert_allclose(result.matrix, truth, atol=1e-6)


def test_independent_samples_of_one_tissue_come_together():
    xy_ref, features_ref = tissue(seed=0)
    xy_src, features_src = tissue(seed=5)
    truth = rigid(110, (5.0, 5.0))
    result = adaptive_icp(apply(truth, xy_ref), xy_src, features_ref, features_src)
    error = np.linalg.norm(apply(result.matrix, xy_src) - apply(truth, xy_src), axis=1)
    assert np.median(error) < 0.05


def test_units_and_places_do_not_matter():
    xy_ref, features_ref = tissue(seed=0)
    xy_src, features_src = tissue(seed=5)
    plain = adaptive_icp(xy_ref, xy_src, features_ref, features_src)
    far = adaptive_icp(1e3 * xy_ref + 5e4, 1e3 * xy_src - 3e4, features_ref, features_src)
    np.testing.assert_allclose(far.matrix[:2, :2], plain.matrix[:2, :2], atol=1e-5)
    assert far.rmse == pytest.approx(1e3 * plain.rmse, rel=1e-4)


def test_repeated_runs_give_the_same_bits():
    xy, features = disc()
    first, second = (adaptive_icp(xy[::2], xy[1::2], features[::2], features[1::2]) for _ in range(2))
    assert np.array_equal(first.matrix, second.matrix)
