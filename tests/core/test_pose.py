"""The search finds the pose from any start, with partial overlap and mirror images, and knows when it is ambiguous."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from inst_align.core.ncc import MaskedNcc
from inst_align.core.pose import PoseConfig, PoseResult, search_pose
from inst_align.core.pose_parts import Candidate
from inst_align.core.quality import AMBIGUOUS, MIRRORED

QUICK = {"n_angles": 36}


def field(xy: np.ndarray) -> np.ndarray:
    """Eight smooth channels over the tissue."""
    waves = np.random.default_rng(0).normal(size=(2, 8)) * 1.5
    return np.sin(xy @ waves + np.arange(8))


def even(xy: np.ndarray) -> np.ndarray:
    """Channels that look the same after half a turn."""
    return field(xy) + field(-xy)


def tissue(n: int, seed: int) -> np.ndarray:
    """Cells of an ellipse with a bite taken out of it."""
    xy = np.random.default_rng(seed).uniform(-2, 2, (6 * n, 2))
    inside = (xy[:, 0] / 1.8) ** 2 + (xy[:, 1] / 1.2) ** 2 < 1
    bite = ((xy - [1.6, 0.8]) ** 2).sum(axis=1) < 0.6
    return xy[inside & ~bite][:n]


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


def search(truth: np.ndarray, linear: np.ndarray, channels: Any = field, **config: Any) -> tuple[PoseResult, float]:
    """Search for a source whose cells belong to ``truth``; return what is found and its error in neighbour distances."""
    ref = tissue(700, 0)
    centre = ref.mean(axis=0)
    noise = np.random.default_rng(7)
    src = truth @ linear.T
    src = src - src.mean(axis=0)  # the search is given centred sections
    features = [
        torch.as_tensor(channels(xy) + 0.5 * noise.normal(size=(len(xy), 8)), dtype=torch.float32)
        for xy in (ref, truth)
    ]
    found = search_pose(ref - centre, src, *features, PoseConfig(**(QUICK | config)))
    matrix = found.best.matrix
    placed = src @ matrix[:2, :2].T + matrix[:2, 2] + centre
    spacing = 0.05  # of 700 cells
    return found, float(np.median(np.linalg.norm(placed - truth, axis=1))) / spacing


def turn_between(candidate: Candidate, degrees: float) -> float:
    return abs((np.degrees(candidate.angle) - degrees + 180) % 360 - 180)


@pytest.mark.parametrize("degrees", [0, 77, 193, 301.3])
def test_a_rotated_section_is_found_from_any_start(degrees: float) -> None:
    found, error = search(tissue(600, 1), rotation(degrees))
    assert turn_between(found.best, -degrees) < 2
    assert not found.best.mirror
    assert found.best.overlap > 0.9
    assert error < 1


@pytest.mark.parametrize("side", [[1.0, 0.3], [-0.2, -1.0]])
def test_a_section_that_was_cropped_to_half_is_found(side: list[float]) -> None:
    truth = tissue(600, 1)
    truth = truth[truth @ side > 0]
    found, error = search(truth, rotation(130))
    assert turn_between(found.best, -130) < 4
    assert error < 1.5
    assert found.best.overlap > 0.9


def test_a_mirror_image_wins_only_when_allowed_and_is_told_of_otherwise() -> None:
    linear = rotation(40) @ np.diag([-1.0, 1.0])
    allowed, error = search(tissue(600, 1), linear, allow_reflection=True)
    assert allowed.best.mirror
    assert error < 1
    assert not allowed.mirrored.mirror
    refused, _ = search(tissue(600, 1), linear)
    assert not refused.best.mirror
    assert refused.mirrored.mirror
    assert refused.mirrored.score > MIRRORED * refused.best.score
    assert refused.mirrored.score == pytest.approx(allowed.best.score, rel=1e-3)


def test_no_mirror_image_is_preferred_without_need() -> None:
    found, error = search(tissue(600, 1), rotation(40), allow_reflection=True)
    assert not found.best.mirror
    assert found.mirrored.score < found.best.score
    assert error < 1


def test_symmetric_tissue_has_a_runner_up_half_a_turn_away() -> None:
    half = tissue(350, 1)
    found, _ = search(np.concatenate([half, -half]), rotation(25), channels=even)
    assert found.runner_up is not None
    assert found.runner_up.score >= AMBIGUOUS * found.best.score
    assert turn_between(found.runner_up, np.degrees(found.best.angle) + 180) < 5


def test_tissue_without_symmetry_has_a_runner_up_that_is_clearly_worse() -> None:
    found, _ = search(tissue(600, 1), rotation(25))
    assert found.runner_up is not None
    assert found.runner_up.score < 0.8 * found.best.score
    assert found.runner_up.differs(found.best, distance=0.6)


def test_a_pose_is_a_mirror_image_then_a_rotation_then_a_shift() -> None:
    pose = Candidate(angle=np.pi / 2, mirror=True, shift=(10.0, 0.0), score=0.0, overlap=0.0)
    np.testing.assert_allclose(pose.matrix @ [2, 3, 1], [10 - 3, -2, 1], atol=1e-12)
    assert np.linalg.det(pose.matrix) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),
        ({"angle": 6.2}, False),
        ({"angle": 0.3}, False),
        ({"angle": 0.4}, True),
        ({"angle": 3.0}, True),
        ({"mirror": True}, True),
        ({"shift": (0.4, 0.0)}, False),
        ({"shift": (0.4, 0.4)}, True),
    ],
)
def test_poses_differ_by_mirror_angle_or_shift(changes: dict[str, Any], wanted: bool) -> None:
    common: dict[str, Any] = {"angle": 0.0, "mirror": False, "shift": (0.0, 0.0), "score": 0.0, "overlap": 0.0}
    one, other = Candidate(**common), Candidate(**(common | changes))
    assert one.differs(other, 0.5) is wanted
    assert other.differs(one, 0.5) is wanted


def test_too_few_angles_are_refused() -> None:
    with pytest.raises(ValueError, match="`n_angles=3`: at least 4"):
        PoseConfig(n_angles=3)


def masked(shape: tuple[int, int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, *shape[1:], generator=generator) < 0.7).double()
    return torch.randn(shape, generator=generator, dtype=torch.float64) * mask, mask


def naive_ncc(fixed: np.ndarray, f_mask: np.ndarray, moving: np.ndarray, m_mask: np.ndarray) -> dict[Any, Any]:
    """Correlation and number of common pixels for every shift (rows, columns) with any."""
    (_, height, width), (_, h, w) = fixed.shape, moving.shape
    found = {}
    for rows in range(-h + 1, height):
        for columns in range(-w + 1, width):
            common = [
                (i, j)
                for i in range(height)
                for j in range(width)
                if 0 <= i - rows < h and 0 <= j - columns < w and f_mask[0, i, j] and m_mask[0, i - rows, j - columns]
            ]
            if not common:
                continue
            a = np.array([fixed[:, i, j] for i, j in common])
            b = np.array([moving[:, i - rows, j - columns] for i, j in common])
            a, b = a - a.mean(axis=0), b - b.mean(axis=0)
            norm = np.sqrt((a**2).sum() * (b**2).sum())
            found[rows, columns] = ((a * b).sum() / norm if norm > 0 else 0.0), len(common)
    return found


@pytest.mark.parametrize(("shape_fixed", "shape_moving"), [((1, 6, 6), (1, 6, 6)), ((3, 7, 5), (3, 4, 6))])
def test_masked_correlation_is_that_of_a_plain_loop(shape_fixed: Any, shape_moving: Any) -> None:
    (fixed, f_mask), (moving, m_mask) = masked(shape_fixed, 0), masked(shape_moving, 1)
    ncc, overlap = MaskedNcc(fixed, f_mask, moving.shape[1:])(moving, m_mask)
    h, w = moving.shape[1:]
    assert ncc.shape == overlap.shape == (fixed.shape[1] + h - 1, fixed.shape[2] + w - 1)
    wanted = naive_ncc(*(t.numpy() for t in (fixed, f_mask, moving, m_mask)))
    smaller = min(f_mask.sum().item(), m_mask.sum().item())
    for (rows, columns), (correlation, count) in wanted.items():
        at = (h - 1 + rows, w - 1 + columns)
        assert overlap[at].item() == pytest.approx(count / smaller)
        if count >= 3:
            assert ncc[at].item() == pytest.approx(correlation, abs=1e-6)
    assert int((overlap > 0).sum()) == len(wanted)
    assert torch.isfinite(ncc).all()


def test_masked_correlation_is_one_at_the_true_shift_whatever_brightness_and_contrast() -> None:
    scene = torch.randn(2, 30, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fixed, moving = scene[:, :20, :20], 3 * scene[:, 6:26, 4:24] + 5
    mask = torch.ones(1, 20, 20, dtype=torch.float64)
    ncc, overlap = MaskedNcc(fixed, mask, moving.shape[1:])(moving, mask)
    enough = torch.where(overlap > 0.2, ncc, -1.0)
    row, column = divmod(int(enough.argmax()), enough.shape[1])
    assert (row - 19, column - 19) == (6, 4)
    assert enough.max().item() == pytest.approx(1, abs=1e-9)


def test_masked_correlation_never_leaves_its_range_even_for_flat_or_empty_images() -> None:
    """In float32 the variance of a flat image is rounding, and so is the quotient by it."""
    mask = torch.ones(1, 8, 8)
    flat, _ = MaskedNcc(torch.full((1, 8, 8), 2.0), mask, (8, 8))(torch.full((1, 8, 8), 3.0), mask)
    assert flat.abs().max() <= 1
    empty, overlap = MaskedNcc(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), (8, 8))(torch.ones(1, 8, 8), mask)
    assert empty.abs().max() <= 1
    assert overlap.max() == 0
