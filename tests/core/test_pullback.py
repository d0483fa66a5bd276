from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inst_align.core.pullback import TOLERANCE, Pullback, affine_part, finest_spacing, sample
from inst_align.core.transforms import Affine, Compose, Displacement, FoldError

STILL = Affine(np.eye(3))


def pixels(size: float, corner: tuple[float, float] = (0.0, 0.0)) -> Affine:
    """From pixel coordinates to a frame in which pixels have this size."""
    return Affine(np.array([[size, 0, corner[0]], [0, size, corner[1]], [0, 0, 1.0]]))


def bumps(seed: int, *, spacing: float = 10.0, nodes: int = 16, length: float = 0.25) -> Displacement:
    """A displacement without folds that is as rough as its nodes allow."""
    vectors = np.zeros((2, nodes, nodes))
    rng = np.random.default_rng(seed)
    vectors[:, 2:-2, 2:-2] = length * spacing * rng.uniform(-1, 1, (2, nodes - 4, nodes - 4))
    return Displacement(vectors, origin=(-20, -30), spacing=spacing)


def exact(back: object, from_canvas: Affine, to_image: Affine, shape: tuple[int, int]) -> np.ndarray:
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    whole = Compose((from_canvas, back, to_image))
    return whole(np.column_stack([x.ravel(), y.ravel()])).T.reshape(2, *shape)


def all_places(pullback: Pullback, shape: tuple[int, int]) -> np.ndarray:
    return pullback.block((0, shape[0]), (0, shape[1])).places()


@pytest.mark.parametrize("size", [0.4, 1.0, 4.0])
def test_the_sampled_way_back_is_as_accurate_as_promised(size):
    warp = bumps(0) @ Affine.from_rigid(0.4, (5, -9))
    back, from_canvas, to_image = warp.inverse(), pixels(size, (-25, -20)), pixels(size).inverse()
    shape = (int(120 / size), int(150 / size))
    pullback = sample(back, from_canvas=from_canvas, to_image=to_image, shape=shape)
    error = np.hypot(*(all_places(pullback, shape) - exact(back, from_canvas, to_image, shape)))
    assert error.max() < TOLERANCE
    assert pullback.error <= TOLERANCE or pullback.step == 1


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0.7, 5.0), angle=st.floats(-3, 3))
def test_accuracy_holds_for_any_warp_and_resolution(seed, size, angle):
    warp = bumps(seed) @ Affine.from_rigid(angle, (3, 7))
    back, from_canvas, to_image = warp.inverse(), pixels(size, (-30, -20)), pixels(2 * size, (4, 4)).inverse()
    shape = (int(100 / size), int(130 / size))
    pullback = sample(back, from_canvas=from_canvas, to_image=to_image, shape=shape)
    error = np.hypot(*(all_places(pullback, shape) - exact(back, from_canvas, to_image, shape)))
    assert error.max() < TOLERANCE


def test_a_single_bump_that_is_small_in_pixels_is_not_missed():
    vectors = np.zeros((2, 9, 9))
    vectors[:, 4, 4] = 0.9
    warp = Displacement(vectors, origin=(203, 151), spacing=3.0)
    shape = (400, 500)
    pullback = sample(warp.inverse(), from_canvas=STILL, to_image=STILL, shape=shape)
    assert np.hypot(*(all_places(pullback, shape) - exact(warp.inverse(), STILL, STILL, shape))).max() < TOLERANCE


def test_an_affine_map_is_exact():
    turn = Affine.from_rigid(1.0, (30, 40))
    pullback = sample(turn, from_canvas=pixels(0.5), to_image=pixels(2.0), shape=(300, 200))
    np.testing.assert_allclose(all_places(pullback, (300, 200)), exact(turn, pixels(0.5), pixels(2.0), (300, 200)))
    assert pullback.error == 0


def test_larger_canvas_pixels_allow_larger_errors_but_no_more_than_one_of_them_allows():
    warp = bumps(1)
    shape = (30, 40)
    pullback = sample(warp.inverse(), from_canvas=pixels(4.0, (-20, -30)), to_image=pixels(0.1).inverse(), shape=shape)
    error = all_places(pullback, shape) - exact(warp.inverse(), pixels(4.0, (-20, -30)), pixels(0.1).inverse(), shape)
    assert np.hypot(*error).max() < 40 * TOLERANCE


def test_blocks_agree_with_the_whole_and_lie_within_their_bounds():
    warp = bumps(2) @ Affine.from_rigid(0.7, (5, 5))
    shape = (150, 230)
    pullback = sample(warp.inverse(), from_canvas=pixels(0.7, (-40, -40)), to_image=STILL, shape=shape)
    whole = all_places(pullback, shape)
    for rows in ((0, 50), (50, 51), (99, 150)):
        for columns in ((0, 100), (100, 230)):
            block = pullback.block(rows, columns)
            part = whole[:, slice(*rows), slice(*columns)]
            np.testing.assert_allclose(block.places(), part, rtol=0, atol=1e-9)
            low, high = block.bounds()
            assert (low <= part.min(axis=(1, 2))).all()
            assert (part.max(axis=(1, 2)) <= high).all()
            assert (high - low <= np.ptp(part, axis=(1, 2)) + 12).all()  # and the box is not much too large


def test_no_inverse_no_way_back():
    vectors = np.zeros((2, 9, 9))
    vectors[0, 4, 4] = 50
    with pytest.raises(FoldError):
        sample(Displacement(vectors, (0, 0), 10.0).inverse(), from_canvas=STILL, to_image=STILL, shape=(9, 9))


def test_the_affine_part_is_the_map_far_outside_in_both_directions():
    warp = bumps(3) @ Affine.from_rigid(0.3, (10, 20))
    far = np.array([[1e4, -2e4], [-3e4, 1e3]])
    np.testing.assert_allclose(affine_part(warp)(far), warp(far))
    np.testing.assert_allclose(affine_part(warp.inverse())(far), warp.inverse()(far))
    assert finest_spacing(warp) == finest_spacing(warp.inverse()) == 10
    assert finest_spacing(STILL) == np.inf
