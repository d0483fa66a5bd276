from __future__ import annotations

import numpy as np
import pytest

from inst_align.core.resample import REACH, linear, nearest

RNG = np.random.default_rng(0)


def grid(height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Pixel centres, shifted: shape (2, height, width), x and y."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5 + shift[0], np.arange(height) + 0.5 + shift[1]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_at_its_own_pixels_an_image_comes_back_as_it_is(dtype):
    image = RNG.integers(0, 200, (3, 8, 11)).astype(dtype)
    for look_up in (linear, nearest):
        same = look_up(image, grid(8, 11), corner=(0, 0), shape=(8, 11), dtype=dtype)
        np.testing.assert_array_equal(same, image)
        assert same.dtype == dtype


def test_labels_keep_every_bit():
    labels = np.array([[2**63 + 1, 2**53 + 1], [5, 2**64 - 1]], dtype=np.uint64)
    np.testing.assert_array_equal(
        nearest(labels, grid(2, 2, (0.4, -0.4)), corner=(0, 0), shape=(2, 2), dtype=np.uint64), labels
    )


def test_a_plane_is_interpolated_exactly():
    x, y = grid(9, 12)
    image = 3 * x - 2 * y + 50
    at = RNG.uniform(1, 8, (2, 5, 6))
    values = linear(image, at, corner=(0, 0), shape=image.shape, dtype=float)
    np.testing.assert_allclose(values, 3 * at[0] - 2 * at[1] + 50)


def test_integers_are_rounded_not_cut():
    image = np.array([[0, 1]], dtype=np.uint8)
    at = np.array([[[0.9, 1.1]], [[0.5, 0.5]]])  # 0.4 and 0.6
    np.testing.assert_array_equal(linear(image, at, corner=(0, 0), shape=(1, 2), dtype=np.uint8), [[0, 1]])


@pytest.mark.parametrize("look_up", [linear, nearest])
def test_an_image_reaches_to_the_edge_of_its_outermost_pixels_and_no_further(look_up):
    image = np.full((2, 3), 7.0)
    at = np.array([[[0.0, -0.01, 2.99, 3.0, 1.0, 1.0]], [[0.0, 1.0, 1.99, 1.0, 2.0, -1.0]]])
    values = look_up(image, at, corner=(0, 0), shape=(2, 3), dtype=float)
    np.testing.assert_array_equal(values, [[7, 0, 7, 0, 0, 0]])


@pytest.mark.parametrize("look_up", [linear, nearest])
def test_a_window_with_its_margin_is_all_that_is_needed(look_up):
    image = RNG.uniform(size=(2, 40, 50))
    at = np.stack([RNG.uniform(20, 31, (6, 7)), RNG.uniform(12, 17, (6, 7))])
    whole = look_up(image, at, corner=(0, 0), shape=(40, 50), dtype=float)
    window = image[:, 12 - REACH : 17 + REACH, 20 - REACH : 31 + REACH]
    part = look_up(window, at, corner=(20 - REACH, 12 - REACH), shape=(40, 50), dtype=float)
    np.testing.assert_allclose(part, whole)


@pytest.mark.parametrize("look_up", [linear, nearest])
def test_places_outside_of_the_window_but_not_looked_at_do_no_harm(look_up):
    image = RNG.uniform(size=(4, 5))
    at = np.array([[[1e9, -1e9, 2.5]], [[1.0, 1.0, 1.5]]])
    np.testing.assert_array_equal(look_up(image, at, corner=(0, 0), shape=(4, 5), dtype=float)[0, :2], [0, 0])
