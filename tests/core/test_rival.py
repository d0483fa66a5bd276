"""A pose is doubted where another one agrees as well, and only there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from inst_align.core.pose import PoseResult
from inst_align.core.pose_parts import Candidate
from inst_align.core.rival import AS_WELL, RIVAL, doubts, rivalry
from inst_align.core.transforms import Affine

HALF_TURN = Affine(np.diag([-1.0, -1.0, 1.0]))
STAYS = Affine(np.eye(3))
WAVES = np.random.default_rng(0).normal(size=(2, 20)) * 1.5


def sections(*, symmetric: bool) -> tuple[np.ndarray, np.ndarray, tuple[torch.Tensor, torch.Tensor]]:
    """Two samples of an ellipse, centred, and their channels."""
    xy = np.random.default_rng(1).uniform(-1.5, 1.5, (1200, 2))
    xy = xy[(xy[:, 0] / 1.5) ** 2 + xy[:, 1] ** 2 < 1]
    ref, src = xy[::2], xy[1::2]

    def channels(at: np.ndarray, seed: int) -> torch.Tensor:
        values = np.cos(at @ WAVES) if symmetric else np.cos(at @ WAVES + np.arange(20))
        return torch.as_tensor(
            values + 0.3 * np.random.default_rng(seed).normal(size=values.shape), dtype=torch.float32
        )

    return ref, src, (channels(ref, 2), channels(src, 3))


def test_the_half_turn_of_a_symmetric_tissue_is_a_rival() -> None:
    assert rivalry(*sections(symmetric=True), STAYS, HALF_TURN) > RIVAL


def test_the_half_turn_of_another_tissue_is_none() -> None:
    assert rivalry(*sections(symmetric=False), STAYS, HALF_TURN) < 0.6


def test_a_runner_up_is_polished_before_it_is_asked() -> None:
    tissue = sections(symmetric=True)
    off = HALF_TURN @ Affine.from_rigid(0.05, (0.06, -0.05))
    assert rivalry(*tissue, STAYS, off) > 0.97 * rivalry(*tissue, STAYS, HALF_TURN)


def test_a_pose_on_its_way_to_the_winner_is_no_rival() -> None:
    assert rivalry(*sections(symmetric=False), STAYS, Affine.from_rigid(0.1, (0.1, -0.1))) == 0


def test_a_winner_with_nothing_to_show_has_rivals() -> None:
    far = Affine.from_rigid(0.0, (100.0, 0.0))
    assert rivalry(*sections(symmetric=False), far, STAYS) == float("inf")


FOUND = PoseResult(
    best=Candidate(angle=0.0, mirror=False, shift=(0.0, 0.0), score=0.6, overlap=1.0),
    runner_up=None,
    mirrored=Candidate(angle=0.0, mirror=True, shift=(0.0, 0.0), score=0.59, overlap=1.0),
)


def halves(*, symmetric: bool) -> tuple[np.ndarray, np.ndarray, tuple[torch.Tensor, torch.Tensor]]:
    """Two samples of a tissue whose left side mirrors its right one, or does not."""
    ref, src, _ = sections(symmetric=False)

    def channels(at: np.ndarray, seed: int) -> torch.Tensor:
        folded = at * [-1, 1] if symmetric else np.zeros_like(at)
        values = np.cos(at @ WAVES + np.arange(20)) + np.cos(folded @ WAVES + np.arange(20))
        return torch.as_tensor(
            values + 0.1 * np.random.default_rng(seed).normal(size=values.shape), dtype=torch.float32
        )

    return ref, src, (channels(ref, 2), channels(src, 3))


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_mirror_image_is_told_of_where_it_agrees_as_well(symmetric: bool) -> None:
    said = doubts(*halves(symmetric=symmetric), FOUND, allow_reflection=False)
    assert (said["pose_mirrored_rivalry"] >= AS_WELL) is symmetric
    assert said["pose_mirrored_better"] is symmetric
    assert said["pose_ambiguous"] is False
    assert (said["pose_score"], said["pose_runner_up"], said["pose_mirrored_score"]) == (0.6, -1.0, 0.59)


@pytest.mark.parametrize("how", [{"allow_reflection": True}, {"landmarks": True}, {"again": False}])
def test_a_mirror_image_that_may_win_or_has_lost_otherwise_is_not_asked_again(how: dict[str, Any]) -> None:
    said = doubts(*halves(symmetric=True), FOUND, **({"allow_reflection": False} | how))
    assert "pose_mirrored_rivalry" not in said
    assert said["pose_mirrored_better"] is False
    clear = replace(FOUND, mirrored=replace(FOUND.mirrored, score=0.7))
    assert doubts(*halves(symmetric=True), clear, **({"allow_reflection": False} | how))["pose_mirrored_better"] is True


def test_a_mirror_image_far_behind_is_not_asked() -> None:
    behind = replace(FOUND, mirrored=replace(FOUND.mirrored, score=0.4))
    said = doubts(*halves(symmetric=True), behind, allow_reflection=False)
    assert "pose_mirrored_rivalry" not in said
    assert said["pose_mirrored_better"] is False
