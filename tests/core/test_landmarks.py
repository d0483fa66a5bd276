"""Pairs of points settle a pose, pull on a map, and let go of what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inst_align.core.landmark_terms import PoseTerm, Pull, missed
from inst_align.core.landmarks import Landmarks, landmark_report, rigid_fit
from inst_align.core.polish import polish_pose
from inst_align.core.pose import PoseConfig, PoseResult, search_pose
from inst_align.core.raster import Grid
from inst_align.core.registration import Level, Registration, RegistrationConfig, register
from inst_align.core.transforms import Affine

CPU = torch.device("cpu")
CONFIG = RegistrationConfig(
    levels=tuple(Level(sigma=s, control_spacing=c, steps=15) for s, c in ((0.5, 1.5), (0.27, 1.0), (0.16, 0.7))),
    n_pixels=48,
)


def tissue(n: int, seed: int) -> np.ndarray:
    xy = np.random.default_rng(seed).uniform(-2, 2, (4 * n, 2))
    return xy[((xy / [2.0, 1.6]) ** 2).sum(axis=1) < 1][:n]


def noise(n: int, seed: int) -> torch.Tensor:
    """Features that say nothing."""
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) / 2


def bend(xy: np.ndarray) -> np.ndarray:
    return xy + np.exp(-0.5 * ((xy - [0.4, 0.2]) ** 2).sum(axis=1, keepdims=True) / 0.8**2) * [0.3, 0.2]


# Rigid fits


@settings(max_examples=30, deadline=None)
@given(
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
    mirror=st.booleans(),
    seed=st.integers(0, 100),
)
def test_a_rigid_map_is_found_again(angle: float, shift: tuple[float, float], mirror: bool, seed: int) -> None:
    src = np.random.default_rng(seed).normal(0, 50, (5, 2))
    truth = Affine.from_rigid(angle, shift, mirror=mirror)
    np.testing.assert_allclose(rigid_fit(src, truth(src), mirror=mirror).matrix, truth.matrix, atol=1e-8)


def test_a_rigid_fit_has_the_least_squared_error() -> None:
    rng = np.random.default_rng(0)
    src = rng.normal(size=(6, 2))
    ref = Affine.from_rigid(0.4, (1, 2))(src) + rng.normal(0, 0.3, (6, 2))
    best = rigid_fit(src, ref)

    def cost(transform: Affine) -> float:
        return float(((transform(src) - ref) ** 2).sum())

    for angle, shift in ((0.02, (0, 0)), (-0.02, (0, 0)), (0, (0.02, 0)), (0, (0, -0.02))):
        assert cost(Affine.from_rigid(angle, shift) @ best) > cost(best)


# The terms


def test_a_pair_costs_nothing_where_it_meets_and_one_at_most() -> None:
    cost = missed(torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e6, 0.0]]), 5.0)
    torch.testing.assert_close(cost, torch.tensor([0.0, 0.5, 1.0]))


def test_the_cost_of_a_shift_is_the_same_on_the_raster_and_in_the_refinement() -> None:
    rng = np.random.default_rng(0)
    term = PoseTerm.of(Landmarks(ref=rng.normal(size=(4, 2)), src=rng.normal(size=(4, 2)), weight=2.0), CPU)
    linear = Affine.from_rigid(0.7, (0, 0), mirror=True).matrix[:2, :2]
    steps = torch.linspace(-1, 1, 5)
    of_shifts = term.of_shifts(linear, steps)
    assert of_shifts.shape == (5, 5)
    shifts = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)  # row: y, column: x
    linears = torch.tensor(linear, dtype=torch.float32).expand(25, 2, 2)
    torch.testing.assert_close(of_shifts.reshape(-1), term.of_poses(linears, shifts))
    assert 0 < of_shifts.min() < of_shifts.max() < 2.0


def test_many_landmarks_cost_as_much_as_few_of_the_same() -> None:
    rng = np.random.default_rng(0)
    ref, src = rng.normal(size=(2, 50, 2))
    few, many = (
        PoseTerm.of(Landmarks(ref=np.repeat(ref, n, axis=0), src=np.repeat(src, n, axis=0)), CPU) for n in (1, 20)
    )
    assert len(many.ref) <= 100
    pose = torch.eye(2)[None], torch.zeros(1, 2)
    torch.testing.assert_close(few.of_poses(*pose), many.of_poses(*pose))


def test_the_pull_is_that_of_both_directions() -> None:
    grid = Grid(origin=(-2.0, -2.0), pixel=0.1, height=41, width=41)
    landmarks = Landmarks(ref=np.array([[0.5, 0.0]]), src=np.array([[0.0, 0.0]]))
    pull = Pull.of(landmarks, control=1.0, spacing=0.05, device=CPU)
    shift = torch.zeros(2, 41, 41)
    shift[0] = 0.5
    none = torch.zeros(2, 41, 41)
    clear = torch.ones(3)

    def cost(forward: torch.Tensor, backward: torch.Tensor, correlation: torch.Tensor = clear) -> float:
        return pull.cost(grid, forward, backward, correlation).item()

    assert cost(shift, -shift) == pytest.approx(0, abs=1e-6)
    assert cost(shift, none) == pytest.approx(cost(none, none) / 2, rel=1e-5)
    assert cost(none, -shift) == pytest.approx(cost(none, none) / 2, rel=1e-5)
    # the best channel decides how much the expression is worth beside it
    assert cost(none, none, torch.tensor([0.0, 0.5])) == pytest.approx(4 * cost(none, none), rel=1e-5)
    assert cost(none, none, torch.zeros(2)) == pytest.approx(20 * cost(none, none), rel=1e-5)


# The pose


def field(xy: np.ndarray) -> np.ndarray:
    """A tissue that looks the same after half a turn, but for its noise."""
    x, y = xy.T
    channels = np.column_stack([np.cos(2 * x), np.cos(1.5 * y), x * y])
    return channels - channels.mean(axis=0)


def search(landmarks: Landmarks | None, channels: Any = field, **config: Any) -> tuple[PoseResult, np.ndarray]:
    """Search the pose of a section that was turned by 35 degrees; return the error of its cells as well."""
    ref, truth = tissue(500, 1), tissue(400, 2)
    turn = Affine.from_rigid(np.deg2rad(35), (0, 0), mirror=bool(config))
    src = turn.inverse()(truth)
    features = (torch.as_tensor(channels(xy), dtype=torch.float32) for xy in (ref, truth))
    result = search_pose(ref, src, *features, PoseConfig(n_angles=36, **config), landmarks)
    return result, np.linalg.norm(Affine(result.best.matrix)(src) - truth, axis=1)


def pairs(k: int, *, turned: bool = False, mirror: bool = False, wrong: int = 0) -> Landmarks:
    """Landmarks for :func:`search`; ``turned`` ones belong to the pose that is half a turn off."""
    truth = np.array([[1.2, 0.3], [-1.0, 0.7], [0.2, -1.1], [-0.9, -0.8], [0.8, 0.9], [0.1, 0.1]])[:k]
    src = Affine.from_rigid(np.deg2rad(35), (0, 0), mirror=mirror).inverse()(truth)
    ref = -truth if turned else truth.copy()
    ref[:wrong] += [1.2, -0.9]
    return Landmarks(ref=ref, src=src)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    from inst_align.core import pose

    monkeypatch.setattr(pose, "N_PIXELS", 33)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("turned", [False, True])
def test_landmarks_decide_between_poses_that_the_expression_cannot_tell_apart(turned: bool) -> None:
    undecided, _ = search(None)
    assert undecided.runner_up is not None
    assert undecided.runner_up.score > 0.9 * undecided.best.score
    result, error = search(pairs(2, turned=turned))
    assert (np.median(error) < 0.1) is not turned
    assert result.runner_up is not None
    assert result.runner_up.score < 0.7 * result.best.score
    assert result.best.score == pytest.approx(undecided.best.score, rel=0.05)


@pytest.mark.usefixtures("coarse")
def test_one_pair_is_enough_to_tell_two_poses_apart() -> None:
    _, error = search(pairs(1))
    assert np.median(error) < 0.1
    _, error = search(pairs(1, turned=True))
    assert np.median(error) > 1


@pytest.mark.usefixtures("coarse")
def test_without_any_expression_the_pose_is_that_of_the_landmarks_and_one_wrong_pair_does_not_matter() -> None:
    def nothing(xy: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(xy)).normal(size=(len(xy), 3))

    _, error = search(pairs(6, wrong=1), nothing)
    assert np.median(error) < 0.35
    _, best = search(pairs(6), nothing)
    assert np.median(best) < 0.2


@pytest.mark.usefixtures("coarse")
def test_landmarks_of_a_mirrored_section_find_the_mirror_image_that_is_allowed() -> None:
    result, error = search(pairs(4, mirror=True), allow_reflection=True)
    assert result.best.mirror
    assert np.median(error) < 0.1


def test_the_polish_of_a_pose_does_not_leave_the_landmarks() -> None:
    ref, truth = tissue(300, 1), tissue(250, 2)
    features = noise(300, 3), noise(250, 4)
    marks = truth[[3, 60, 110, 150, 200]]
    off = Affine.from_rigid(0.1, (0.1, -0.05))
    posed = off(truth)
    landmarks = Landmarks(ref=marks, src=off(marks))
    config = RegistrationConfig()
    alone = Affine(polish_pose(ref, posed, *features, config))
    found = Affine(polish_pose(ref, posed, *features, config, landmarks=landmarks))
    left = [float(landmarks.distances(each).mean()) for each in (found, alone, Affine(np.eye(3)))]
    assert left[0] < 0.6 * min(left[1:])


# Whether to bend


def test_landmarks_ask_for_bending_where_no_rigid_map_brings_them_together() -> None:
    rng = np.random.default_rng(0)
    src = rng.uniform(0, 100, (8, 2))
    pose = Affine.from_rigid(0.3, (10, 0))
    exact = pose(src)
    bent = exact + np.column_stack([8 * np.sin(exact[:, 1] / 20), 8 * np.cos(exact[:, 0] / 20)])
    for ref, pairs, asked in (
        (exact, 8, False),
        (exact + rng.normal(0, 1 / np.sqrt(2), (8, 2)), 8, False),  # marked to one spacing
        (np.where(np.arange(8)[:, None] == 0, exact + 30, exact), 8, False),  # one is wrong
        (bent, 8, True),
        (bent, 2, False),  # says too little
    ):
        landmarks = Landmarks(ref=ref[:pairs], src=src[:pairs])
        assert landmarks.ask_for_bending(pose, 1.0) is asked
    off = Affine.from_rigid(0.3, (50, 0))
    assert not Landmarks(ref=exact, src=src).ask_for_bending(off, 1.0)  # another rigid map will do


# The registration


def solve(landmarks: Landmarks | None, src: np.ndarray, *, informed: bool = False) -> Registration:
    ref = tissue(400, 1)
    if informed:
        features = (torch.as_tensor(np.sin(xy @ np.array([[2.0, -1, 1, 3], [1, 2, -2, 1]])) / 2) for xy in (ref, src))
        return register(ref, src, *(f.float() for f in features), CONFIG, landmarks=landmarks)
    return register(ref, src, noise(len(ref), 3), noise(len(src), 4), CONFIG, landmarks=landmarks)


def marks(truth: np.ndarray, k: int = 14, *, wrong: int = 0) -> Landmarks:
    rows = np.random.default_rng(0).permutation(len(truth))[:k]
    ref = truth[rows].copy()
    ref[:wrong] += [1.5, -1.0]
    return Landmarks(ref=ref, src=bend(truth[rows]))


def error(found: Registration, truth: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(found.forward(bend(truth)) - truth, axis=1)))


def test_landmarks_lead_the_map_where_the_expression_says_nothing_and_a_wrong_one_does_not() -> None:
    truth = tissue(350, 2)
    before = float(np.median(np.linalg.norm(bend(truth) - truth, axis=1)))
    assert error(solve(marks(truth), bend(truth)), truth) < 0.6 * before
    assert error(solve(marks(truth, wrong=1), bend(truth)), truth) < 0.75 * before


def test_a_landmark_far_from_everything_changes_little() -> None:
    truth = tissue(350, 2)
    src = bend(truth)
    lone = Landmarks(ref=np.array([[1.0, -0.5]]), src=np.array([[-1.0, 0.8]]))
    moved = solve(lone, src, informed=True).forward(src) - solve(None, src, informed=True).forward(src)
    assert np.quantile(np.linalg.norm(moved, axis=1), 0.9) < 0.1


def test_landmarks_without_weight_change_nothing_at_all() -> None:
    truth = tissue(200, 2)
    given = marks(truth)
    none = Landmarks(ref=given.ref, src=given.src, weight=0.0)
    np.testing.assert_array_equal(solve(none, bend(truth)).forward.vectors, solve(None, bend(truth)).forward.vectors)


def test_more_weight_brings_the_pairs_closer_together() -> None:
    truth = tissue(200, 2)
    given = marks(truth)
    left = []
    for weight in (0.1, 1.0, 5.0):
        found = solve(Landmarks(ref=given.ref, src=given.src, weight=weight), bend(truth))
        left.append(float(given.distances(found.forward).mean()))
    assert left == sorted(left, reverse=True)
    assert left[2] < 0.5 * left[0]


def test_a_landmark_beyond_the_grid_is_no_error() -> None:
    truth = tissue(200, 2)
    beyond = Landmarks(ref=np.array([[9.0, 9.0]]), src=np.array([[8.0, 8.0]]))
    assert np.isfinite(solve(beyond, bend(truth)).forward.vectors).all()


def test_the_map_does_not_fold_between_pairs_that_contradict_each_other() -> None:
    truth = tissue(200, 2)
    at = np.array([[0.0, 0.0], [0.1, 0.0]])
    crossed = Landmarks(ref=at[::-1] + [[0.3, 0.0], [-0.3, 0.0]], src=at, weight=20.0)
    transform = solve(crossed, truth).forward
    assert np.linalg.det(transform.jacobian(truth)).min() > 0


# The report


def test_the_report_gives_distances_after_the_pose_and_after_the_whole_map() -> None:
    landmarks = Landmarks(ref=np.array([[0.0, 0.0], [10.0, 0.0]]), src=np.array([[0.0, 0.0], [10.0, 4.0]]))
    shift = Affine.from_rigid(0, (0, -1))
    report = landmark_report(landmarks, Affine(np.eye(3)), shift, 2.0)
    np.testing.assert_allclose(report["landmark_error"], [0.5, 1.5])
    assert report["landmark_error_median"] == 1.0
    assert report["landmark_error_max"] == 1.5
    assert report["landmark_error_rigid_median"] == 1.0
