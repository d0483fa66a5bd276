"""Maps against formulas, their inverses, their algebra, their storage, and what they refuse."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inst_align.transforms
from inst_align.core.transforms import (
    Affine,
    Compose,
    Displacement,
    FoldError,
    InverseDisplacement,
    Transform,
    from_dict,
    inverse,
    to_dict,
)

LENGTH = 640.0
ORIGIN = np.array([1200.0, -300.0])
IDENTITY = Affine(np.eye(3))

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
angles = st.floats(-math.pi, math.pi)


def sinusoidal(xy, amplitude=20.0):
    """Displacement ``(n, 2)`` and Jacobian of the map ``(n, 2, 2)``: waves under a window that ends with its slope."""
    p, q = (xy - ORIGIN).T * (np.pi / LENGTH)
    window = lambda t: np.sin(t) ** 2
    slope = lambda t: np.sin(2 * t)
    u = amplitude * np.stack([window(p) * window(q) * np.cos(4 * q), window(p) * window(q) * np.cos(2 * p)], axis=1)
    jacobian = np.empty((len(xy), 2, 2))
    jacobian[:, 0, 0] = slope(p) * window(q) * np.cos(4 * q)
    jacobian[:, 0, 1] = window(p) * (slope(q) * np.cos(4 * q) - 4 * window(q) * np.sin(4 * q))
    jacobian[:, 1, 0] = window(q) * (slope(p) * np.cos(2 * p) - 2 * window(p) * np.sin(2 * p))
    jacobian[:, 1, 1] = window(p) * slope(q) * np.cos(2 * p)
    return u, np.eye(2) + jacobian * (amplitude * np.pi / LENGTH)


def radial(xy, strength=0.4, radius=300.0):
    """Displacement and Jacobian of a swelling about the middle that ends at a radius."""
    d = xy - ORIGIN - LENGTH / 2
    bump = np.maximum(0, 1 - np.sum(d**2, axis=1) / radius**2)
    u = strength * d * bump[:, None] ** 4
    outer = d[:, :, None] * d[:, None, :]
    jacobian = bump[:, None, None] ** 4 * np.eye(2) - 8 / radius**2 * bump[:, None, None] ** 3 * outer
    return u, np.eye(2) + strength * jacobian


def sampled(warp, nodes=65, **options) -> Displacement:
    spacing = LENGTH / (nodes - 1)
    y, x = np.mgrid[:nodes, :nodes] * spacing
    u, _ = warp(np.stack([x.ravel(), y.ravel()], axis=1) + ORIGIN, **options)
    return Displacement(u.T.reshape(2, nodes, nodes), ORIGIN, spacing)


def random_displacement(seed, amplitude=0.12, shape=(9, 12), spacing=7.0) -> Displacement:
    """Rough and free of folds: neighbouring vectors differ by less than a third of the spacing."""
    vectors = np.zeros((2, *shape))
    inner = (2, shape[0] - 2, shape[1] - 2)
    vectors[:, 1:-1, 1:-1] = np.random.default_rng(seed).uniform(-amplitude, amplitude, inner) * spacing
    return Displacement(vectors, (-20.0, 35.0), spacing)


def random_affine(seed) -> Affine:
    """Rotation, shear, unequal scales and often a mirror, but far from singular."""
    rng = np.random.default_rng(seed)
    turn = Affine.from_rigid(rng.uniform(-3, 3), rng.uniform(-50, 50, 2), mirror=rng.random() < 0.5)
    stretch = np.diag([*rng.uniform(0.5, 2, 2), 1.0])
    return turn @ Affine(stretch) @ Affine.from_rigid(rng.uniform(-3, 3), rng.uniform(-50, 50, 2))


def points_around(displacement, n=300, seed=0, margin=0.1) -> np.ndarray:
    low, high = displacement.bounds
    return np.random.default_rng(seed).uniform(low - margin * (high - low), high + margin * (high - low), (n, 2))


def finite_differences(transform, xy, step) -> np.ndarray:
    columns = [(transform(xy + step * axis) - transform(xy - step * axis)) / (2 * step) for axis in np.eye(2)]
    return np.stack(columns, axis=2)


# --- affine -----------------------------------------------------------------------------------------------------


def test_affine_values_are_matrix_times_homogeneous_point():
    matrix = np.array([[2.0, 1.0, 5.0], [-1.0, 3.0, -7.0], [0, 0, 1]])
    t = Affine(matrix)
    np.testing.assert_array_equal(t([[1, 2], [0, 0]]), [[9, -2], [5, -7]])
    np.testing.assert_array_equal(t.jacobian([[1, 2], [0, 0]]), [matrix[:2, :2]] * 2)
    np.testing.assert_allclose(t.log_area([[1, 2]]), [math.log(7)], rtol=1e-14)
    np.testing.assert_allclose(t.inverse().matrix @ matrix, np.eye(3), atol=1e-14)


def test_from_rigid_turns_counter_clockwise_and_then_shifts():
    np.testing.assert_allclose(Affine.from_rigid(np.pi / 2, (10, 20))([[1, 0]]), [[10, 21]], atol=1e-12)


def test_from_rigid_mirrors_x_before_it_turns():
    np.testing.assert_allclose(Affine.from_rigid(np.pi / 2, (0, 0), mirror=True)([[1, 5]]), [[-5, -1]], atol=1e-12)


@quick
@given(angle=angles, scale=st.floats(1e-3, 1e3), mirror=st.booleans())
def test_angle_scale_and_reflection_are_read_back(angle, scale, mirror):
    t = Affine(np.diag([scale, scale, 1])) @ Affine.from_rigid(angle, (3, 4), mirror=mirror)
    assert t.is_reflection == mirror
    assert t.scale == pytest.approx(scale)
    assert math.cos(math.radians(t.angle) - angle) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(t.log_area([[0, 0]]), [2 * math.log(scale)], atol=1e-9)


def test_angle_of_a_sheared_map_is_that_of_the_nearest_rotation():
    t = Affine.from_rigid(0.7, (0, 0)) @ Affine([[2, 0.3, 0], [0.3, 1, 0], [0, 0, 1]])
    assert t.angle == pytest.approx(math.degrees(0.7))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"shape \(3, 3\), but has shape \(2, 2\)"),
        ([[1, 0, 0], [0, 1, 0]], r"shape \(3, 3\), but has shape \(2, 3\)"),
        ([[1, 0, np.nan], [0, 1, 0], [0, 0, 1]], "1 of its 9 numbers"),
        ([[1, 0, 0], [0, 1, 0], [5, 6, 1]], "last row"),
        ([[1, 2, 0], [2, 4, 0], [0, 0, 1]], "cannot be inverted"),
        (np.diag([0, 0, 1]), "cannot be inverted"),
        ([[1, 0, 0], [0, 1], [0, 0, 1]], "rows differ in length"),
        (np.eye(3).astype(str), "real numbers"),
    ],
)
def test_affine_refuses_what_is_no_invertible_affine_map(matrix, message):
    with pytest.raises(ValueError, match=message):
        Affine(matrix)


def test_affine_in_tiny_units_is_invertible():
    t = Affine(np.diag([1e-9, 1e-9, 1]))
    np.testing.assert_allclose(t.inverse()(t([[3.0, 4.0]])), [[3, 4]], rtol=1e-14)


# --- displacement against formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize(("warp", "value", "slope"), [(sinusoidal, 2e-4, 5e-5), (radial, 1e-3, 3e-4)])
def test_values_and_jacobians_agree_with_the_formula(warp, value, slope):
    t = sampled(warp)
    xy = points_around(t, n=3000, margin=0)
    u, jacobian = warp(xy)
    assert np.abs(u).max() > 10
    np.testing.assert_allclose(t(xy), xy + u, rtol=0, atol=value)
    np.testing.assert_allclose(t.jacobian(xy), jacobian, rtol=0, atol=slope)
    np.testing.assert_allclose(t.log_area(xy), np.log(np.linalg.det(jacobian)), rtol=0, atol=10 * slope)


def test_interpolation_error_falls_with_the_fourth_power_of_the_spacing():
    xy = points_around(sampled(sinusoidal), n=2000, margin=0)
    u, jacobian = sinusoidal(xy)
    coarse, fine = (sampled(sinusoidal, nodes=n) for n in (17, 33))
    assert np.abs(coarse(xy) - xy - u).max() > 12 * np.abs(fine(xy) - xy - u).max()
    assert np.abs(coarse.jacobian(xy) - jacobian).max() > 6 * np.abs(fine.jacobian(xy) - jacobian).max()


def test_nodes_take_exactly_their_vectors_with_x_along_columns():
    t = random_displacement(0)
    rows, columns = np.mgrid[: t.vectors.shape[1], : t.vectors.shape[2]]
    nodes = t.origin + t.spacing * np.stack([columns.ravel(), rows.ravel()], axis=1)
    np.testing.assert_allclose(t(nodes) - nodes, t.vectors.reshape(2, -1).T, rtol=0, atol=1e-12)
    assert t.inside(nodes).all()


@pytest.mark.parametrize("make", [lambda: random_displacement(3), lambda: sampled(sinusoidal)])
def test_jacobian_is_the_derivative_of_the_values(make):
    t = make()
    xy = points_around(t)
    for each in (t, t.inverse(), random_affine(1) @ t @ random_affine(2)):
        differences = finite_differences(each, xy, 1e-4 * t.spacing)
        np.testing.assert_allclose(each.jacobian(xy), differences, rtol=0, atol=1e-6)


def test_blocks_do_not_show():
    t = random_displacement(1)
    xy = points_around(t, n=70_000)
    index = np.arange(65_500, 65_570)
    np.testing.assert_array_equal(t(xy)[index], t(xy[index]))
    np.testing.assert_array_equal(t.jacobian(xy)[index], t.jacobian(xy[index]))


@pytest.mark.parametrize(("warp", "value", "slope"), [(sinusoidal, 2e-4, 5e-5), (radial, 1e-3, 3e-4)])
def test_the_inverse_and_its_jacobian_agree_with_the_formula(warp, value, slope):
    xy = points_around(sampled(warp), n=3000, margin=0)
    u, jacobian = warp(xy)
    back = sampled(warp).inverse()
    np.testing.assert_allclose(back(xy + u), xy, rtol=0, atol=2 * value)
    np.testing.assert_allclose(back.jacobian(xy + u), np.linalg.inv(jacobian), rtol=0, atol=5 * slope)
    np.testing.assert_allclose(back.log_area(xy + u), -np.log(np.linalg.det(jacobian)), rtol=0, atol=10 * slope)


@pytest.mark.parametrize("warp", [sinusoidal, radial])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_warp_after_an_affine_map_agrees_with_the_formulas(warp, mirror):
    before, after = random_affine(3), Affine.from_rigid(0.4, (7, -2), mirror=mirror)
    at = points_around(sampled(warp), n=1000, margin=0)
    xy = before.inverse()(at)
    u, jacobian = warp(at)
    t = after @ sampled(warp) @ before
    np.testing.assert_allclose(t(xy), (at + u) @ after.matrix[:2, :2].T + after.matrix[:2, 2], rtol=0, atol=1e-3)
    expected = after.matrix[:2, :2] @ jacobian @ before.matrix[:2, :2]
    np.testing.assert_allclose(t.jacobian(xy), expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(t.log_area(xy), np.log(np.abs(np.linalg.det(expected))), rtol=0, atol=3e-3)
    np.testing.assert_allclose(t.inverse()(t(xy)), xy, rtol=0, atol=1e-6)


@pytest.mark.parametrize("warp", [sinusoidal, radial])
def test_a_grid_warped_and_unwarped_returns(warp):
    t = sampled(warp)
    x, y = np.meshgrid(*(np.linspace(low - 20, high + 20, 40) for low, high in t.bounds.T))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    moved = t(grid)
    assert np.abs(moved - grid).max() > 10
    np.testing.assert_allclose(t.inverse()(moved), grid, rtol=0, atol=1e-8)
    np.testing.assert_allclose(t(t.inverse()(grid)), grid, rtol=0, atol=1e-8)


# --- the border -------------------------------------------------------------------------------------------------


def test_beyond_the_grid_nothing_moves():
    t = random_displacement(2)
    low, high = t.bounds
    xy = np.array([low - 1e-9, high + 1e-9, [low[0] - 100, low[1] + 5], [1e12, -1e12]])
    np.testing.assert_array_equal(t(xy), xy)
    np.testing.assert_array_equal(t.jacobian(xy), [np.eye(2)] * 4)
    np.testing.assert_array_equal(t.log_area(xy), 0)
    np.testing.assert_array_equal(t.inverse()(xy), xy)
    assert not t.inside(xy).any()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [0, 1])
def test_values_and_derivatives_are_continuous_across_the_border(axis, side):
    t = random_displacement(4)
    low, high = t.bounds
    border = low + np.linspace(0, 1, 50)[:, None] * (high - low)
    border[:, axis] = t.bounds[side, axis]
    inwards = np.zeros(2)
    inwards[axis] = (1e-6 if side == 0 else -1e-6) * t.spacing
    np.testing.assert_allclose(t(border + inwards), border + inwards, rtol=0, atol=1e-10)
    np.testing.assert_allclose(t.jacobian(border + inwards), [np.eye(2)] * 50, rtol=0, atol=1e-5)


def test_a_displaced_border_is_continued_and_fades_without_a_fold():
    rng = np.random.default_rng(5)
    vectors = np.stack([np.full((6, 8), 30.0), np.full((6, 8), -45.0)]) + rng.uniform(-1, 1, (2, 6, 8))
    t = Displacement(vectors, (100, 200), 10)
    rows, columns = np.mgrid[:6, :8]
    nodes = np.stack([100 + 10 * columns.ravel(), 200 + 10 * rows.ravel()], axis=1)
    np.testing.assert_allclose(t(nodes) - nodes, vectors.reshape(2, -1).T, rtol=0, atol=1e-5)
    low, high = t.bounds
    assert (low < (100, 200)).all() and (high > (170, 250)).all()
    xy = points_around(t, n=2000)
    assert np.exp(t.log_area(xy)).min() > 0.5
    np.testing.assert_allclose(t.inverse()(t(xy)), xy, rtol=0, atol=1e-6)


def test_a_border_that_is_zero_to_rounding_keeps_the_grid():
    vectors = random_displacement(6).vectors.copy()
    vectors[:, 0, :] = 1e-8
    t = Displacement(vectors, (0, 0), 7)
    assert t.vectors.shape == vectors.shape
    assert not t.vectors[:, 0, :].any()


def test_a_grid_of_zeros_is_the_identity():
    t = Displacement(np.zeros((2, 2, 2)), (0, 0), 1)
    np.testing.assert_array_equal(t([[0.5, 0.25]]), [[0.5, 0.25]])
    np.testing.assert_array_equal(t.inverse()([[0.5, 0.25]]), [[0.5, 0.25]])


# --- inverse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "t",
    [sampled(sinusoidal), sampled(radial), sampled(radial, strength=-0.9), random_displacement(7), random_displacement(8, 0.2)],
    ids=["sinusoidal", "radial", "squeezed", "rough", "rougher"],
)  # fmt: skip
def test_inverse_returns_to_a_millionth_of_the_spacing(t):
    xy = points_around(t, n=2000)
    back = t.inverse()
    assert np.abs(t(xy) - xy).max() > 0.05 * t.spacing
    np.testing.assert_allclose(back(t(xy)), xy, rtol=0, atol=1e-6 * t.spacing)
    np.testing.assert_allclose(t(back(xy)), xy, rtol=0, atol=1e-6 * t.spacing)


def test_inverse_agrees_with_the_formula_of_a_radial_warp():
    """Along the x axis through the middle the map is one-dimensional, and known in closed form."""
    t = sampled(radial, nodes=129)
    centre = ORIGIN + LENGTH / 2
    x = np.stack([centre[0] + np.linspace(-300, 300, 41), np.full(41, centre[1])], axis=1)
    np.testing.assert_allclose(t.inverse()(x + radial(x)[0]), x, rtol=0, atol=1e-3)


def test_derivatives_of_the_inverse_are_inverse_matrices():
    t = sampled(sinusoidal)
    xy = points_around(t)
    products = t.inverse().jacobian(t(xy)) @ t.jacobian(xy)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(2), products.shape), rtol=0, atol=1e-9)
    np.testing.assert_allclose(t.inverse().log_area(t(xy)), -t.log_area(xy), rtol=0, atol=1e-9)


def test_inverse_knows_its_forward_and_what_was_inside():
    t = random_displacement(9)
    xy = points_around(t)
    assert t.inverse().inverse() is t
    np.testing.assert_array_equal(t.inverse().inside(t(xy)), t.inside(xy))
    assert 0 < t.inside(xy).sum() < len(xy)


def shear_fold(strength) -> Displacement:
    return sampled(lambda xy: (radial(xy, strength)[0] * (1, 0), None))


def test_a_fold_has_no_inverse_and_is_located():
    t = shear_fold(-1.5)
    with pytest.raises(FoldError, match=r"folds at \d+ of the points checked") as caught:
        t.inverse()
    error = caught.value
    # in x alone the determinant is 1 + d(u_x)/dx, which is -0.5 in the middle and nowhere lower
    np.testing.assert_allclose(error.where, ORIGIN + LENGTH / 2, rtol=0, atol=t.spacing)
    assert error.determinant == pytest.approx(-0.5, abs=0.01)
    y, x = np.mgrid[:256, :256] / 4 * t.spacing
    folded = np.isnan(t.log_area(np.stack([x.ravel(), y.ravel()], axis=1) + ORIGIN))
    assert error.count == folded.sum() > 0
    assert error.fraction == pytest.approx(folded.mean())
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_folds_are_found_in_every_strip_of_the_grid(monkeypatch):
    t = shear_fold(-1.5)
    with pytest.raises(FoldError) as whole:
        t.inverse()
    monkeypatch.setattr(inverse, "_CELLS_AT_ONCE", 5 * 64)
    with pytest.raises(FoldError) as in_strips:
        t.inverse()
    assert in_strips.value.count == whole.value.count
    assert in_strips.value.where == whole.value.where
    assert in_strips.value.determinant == pytest.approx(whole.value.determinant)


def test_a_fold_smaller_than_the_first_look_is_found(monkeypatch):
    t = random_displacement(209, amplitude=0.33)
    with pytest.raises(FoldError) as caught:
        t.inverse()
    assert np.isnan(t.log_area([caught.value.where])).all()
    monkeypatch.setattr(inverse, "_CLOSE_CHECKS_PER_CELL", 4)
    t.inverse()  # the first look alone sees nothing


def test_a_fold_inside_of_a_composition_is_not_hidden():
    with pytest.raises(FoldError):
        (shear_fold(-1.5) @ random_affine(0)).inverse()


def test_a_map_just_short_of_folding_is_inverted():
    t = shear_fold(-0.99)
    xy = points_around(t, n=2000)
    np.testing.assert_allclose(t(t.inverse()(xy)), xy, rtol=0, atol=1e-7 * t.spacing)


def test_points_that_do_not_converge_are_counted_not_returned(monkeypatch):
    t = sampled(sinusoidal)
    back = t.inverse()
    monkeypatch.setattr(inverse, "_NEWTON_STEPS", 0)
    with pytest.raises(ValueError, match=r"not found at 1 of 2 points, for example \(x, y\) = \(1400, -100\)"):
        back([[0, 0], [1400, -100]])


# --- algebra ----------------------------------------------------------------------------------------------------


@quick
@given(seed=seeds)
def test_composition_applies_the_right_side_first_and_is_associative(seed):
    a, b, c = random_affine(seed), random_displacement(seed), random_affine(seed + 1)
    xy = points_around(b, n=50, seed=seed)
    xy = c.inverse()(xy)
    expected = a(b(c(xy)))
    for t in ((a @ b) @ c, a @ (b @ c), Compose((c, b, a)), Compose((Compose((c, b)), a))):
        np.testing.assert_allclose(t(xy), expected, rtol=0, atol=1e-9)
        assert t.allclose(Compose((c, b, a)), rtol=1e-12)


@quick
@given(seed=seeds)
def test_inverse_of_a_composition_undoes_it(seed):
    t = random_affine(seed) @ random_displacement(seed) @ random_affine(seed + 1) @ random_displacement(seed + 2)
    xy = t.inverse()(points_around(random_displacement(seed), n=50, seed=seed))
    np.testing.assert_allclose(t.inverse()(t(xy)), xy, rtol=0, atol=1e-6)
    np.testing.assert_allclose(t.inverse().inverse()(xy), t(xy), rtol=0, atol=1e-9)
    np.testing.assert_allclose(t.inverse().log_area(t(xy)), -t.log_area(xy), rtol=0, atol=1e-6)


@quick
@given(seed=seeds)
def test_affine_maps_compose_and_invert_as_their_matrices_do(seed):
    a, b, c = (random_affine(seed + k) for k in range(3))
    np.testing.assert_allclose((a @ b).matrix, a.matrix @ b.matrix, rtol=0, atol=1e-12 * np.abs(a.matrix).max())
    assert ((a @ b) @ c).allclose(a @ (b @ c), rtol=1e-9, atol=1e-9)
    assert (a @ b).inverse().allclose(b.inverse() @ a.inverse(), rtol=1e-9, atol=1e-9)
    assert (a @ a.inverse()).allclose(IDENTITY, atol=1e-9)
    np.testing.assert_allclose((a @ b).log_area([[0, 0]]), a.log_area([[0, 0]]) + b.log_area([[0, 0]]), atol=1e-9)


@quick
@given(angle=angles, mirror=st.booleans(), warp=st.sampled_from([sinusoidal, radial]))
def test_a_warp_sampled_in_a_turned_frame_is_the_turned_map(angle, mirror, warp):
    """Rotating what goes in rotates what comes out, up to the error of sampling on another grid."""
    centre = ORIGIN + LENGTH / 2
    turn = (
        Affine.from_rigid(0, centre) @ Affine.from_rigid(angle, (0, 0), mirror=mirror) @ Affine.from_rigid(0, -centre)
    )
    spacing, nodes = 10.0, 101
    rows, columns = np.mgrid[:nodes, :nodes] - (nodes - 1) / 2
    at = centre + spacing * np.stack([columns.ravel(), rows.ravel()], axis=1)
    before = turn.inverse()(at)
    inside = ((before >= ORIGIN) & (before <= ORIGIN + LENGTH)).all(axis=1)
    u = np.where(inside[:, None], warp(before)[0], 0) @ turn.matrix[:2, :2].T
    turned = Displacement(u.T.reshape(2, nodes, nodes), centre - spacing * (nodes - 1) / 2, spacing)
    conjugated = turn @ sampled(warp) @ turn.inverse()
    xy = turn(points_around(sampled(warp), n=200, margin=0.05))
    np.testing.assert_allclose(turned(xy), conjugated(xy), rtol=0, atol=0.02)
    np.testing.assert_allclose(turned.jacobian(xy), conjugated.jacobian(xy), rtol=0, atol=0.02)
    np.testing.assert_allclose(turned.inverse()(xy), conjugated.inverse()(xy), rtol=0, atol=0.02)


@quick
@given(seed=seeds, scale=st.floats(1e-4, 1e4))
def test_a_change_of_units_changes_nothing_else(seed, scale):
    t = random_displacement(seed)
    scaled = Displacement(t.vectors * scale, t.origin * scale, t.spacing * scale)
    xy = points_around(t, n=50, seed=seed)
    np.testing.assert_allclose(scaled(xy * scale), t(xy) * scale, rtol=0, atol=1e-6 * t.spacing * scale)
    np.testing.assert_allclose(scaled.inverse()(xy * scale), t.inverse()(xy) * scale, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(scaled.jacobian(xy * scale), t.jacobian(xy), rtol=0, atol=1e-5)


@quick
@given(seed=seeds, quarter=st.integers(0, 3))
def test_a_grid_turned_by_quarters_is_the_map_conjugated_with_the_turn(seed, quarter):
    t = random_displacement(seed, shape=(9, 9))
    turn = Affine.from_rigid(quarter * np.pi / 2, (5, 6))
    conjugated = turn @ t @ turn.inverse()
    cos, sin = round(math.cos(quarter * np.pi / 2)), round(math.sin(quarter * np.pi / 2))
    # a row (y) up and a column (x) right: counter-clockwise in the plane is from axis 2 (x) towards axis 1 (y)
    grid = np.rot90(t.vectors, quarter, axes=(2, 1))
    vectors = np.stack([cos * grid[0] - sin * grid[1], sin * grid[0] + cos * grid[1]])
    turned = Displacement(vectors, turn(t.bounds).min(axis=0), t.spacing)
    xy = turn(points_around(t, n=50, seed=seed))
    np.testing.assert_allclose(turned(xy), conjugated(xy), rtol=0, atol=1e-9)
    np.testing.assert_allclose(turned.jacobian(xy), conjugated.jacobian(xy), rtol=0, atol=1e-9)
    np.testing.assert_allclose(turned.inverse()(xy), conjugated.inverse()(xy), rtol=0, atol=1e-8)


@quick
@given(seed=seeds, angle=angles, mirror=st.booleans())
def test_area_change_and_inside_do_not_depend_on_the_frame(seed, angle, mirror):
    t = random_displacement(seed)
    turn = Affine.from_rigid(angle, (8, -3), mirror=mirror)
    conjugated = turn @ t @ turn.inverse()
    xy = points_around(t, n=50, seed=seed)
    np.testing.assert_allclose(conjugated.log_area(turn(xy)), t.log_area(xy), rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(conjugated.jacobian(turn(xy))), np.exp(t.log_area(xy)), rtol=1e-9)
    clear = np.abs(t.to_nodes(xy) - np.round(t.to_nodes(xy))).min(axis=1) > 1e-9
    np.testing.assert_array_equal(conjugated.inside(turn(xy))[clear], t.inside(xy)[clear])


def test_neighbouring_affine_maps_merge_and_nested_compositions_flatten():
    a, b, d = random_affine(0), random_affine(1), random_displacement(0)
    assert isinstance(a @ b, Affine)
    assert [type(part) for part in Compose((a, Compose((b, d)), d, a)).parts] == [
        Affine,
        Displacement,
        Displacement,
        Affine,
    ]
    assert Compose((a, b)).parts == (b @ a,)


def test_inside_of_a_composition_holds_along_the_whole_way():
    t = random_displacement(0)
    away = Affine.from_rigid(0, (1e4, 0))
    middle = t.bounds.mean(axis=0, keepdims=True)
    assert (away @ t).inside(middle)
    assert not (t @ away).inside(middle)
    assert not (t @ away @ t).inside(middle)
    assert away.inside(middle)


def test_log_area_is_nan_where_a_displacement_folds_even_behind_a_mirror():
    t = shear_fold(-1.5)
    mirror = Affine.from_rigid(0.3, (0, 0), mirror=True)
    middle = [ORIGIN + LENGTH / 2]
    assert np.isnan(t.log_area(middle)).all()
    assert np.isnan((mirror @ t).log_area(middle)).all()
    assert np.isfinite((mirror @ t).log_area([ORIGIN + 1])).all()


@pytest.mark.parametrize("bad", [np.eye(3), [[0, 0]], None])
def test_composing_with_something_else_says_to_call_the_map(bad):
    for t in (IDENTITY, random_displacement(0), random_displacement(0).inverse(), Compose((IDENTITY,))):
        with pytest.raises(TypeError, match=r"call `t\(xy\)`"):
            t @ bad


def test_compose_refuses_nothing_and_what_is_no_transform():
    with pytest.raises(ValueError, match="at least one"):
        Compose(())
    with pytest.raises(TypeError, match="ndarray"):
        Compose((IDENTITY, np.eye(3)))


# --- points that come in ----------------------------------------------------------------------------------------

EVERY_KIND = [
    random_affine(0),
    random_displacement(0),
    random_displacement(0).inverse(),
    random_displacement(0) @ random_affine(0),
]


@pytest.mark.parametrize("t", EVERY_KIND, ids=lambda t: type(t).__name__)
class TestPoints:
    def test_integers_and_float32_are_taken_as_float64(self, t):
        xy = np.array([[3, 60], [20, 50]])
        for given_as in (xy.astype(np.int16), xy.astype(np.float32), xy.tolist()):
            out = t(given_as)
            assert out.dtype == np.float64
            np.testing.assert_array_equal(out, t(xy.astype(float)))

    def test_no_points_give_no_points(self, t):
        nothing = np.empty((0, 2))
        shapes = [f(nothing).shape for f in (t, t.jacobian, t.log_area, t.inside)]
        assert shapes == [(0, 2), (0, 2, 2), (0,), (0,)]

    def test_rows_that_are_not_finite_become_nan_and_touch_no_other(self, t):
        xy = np.array([[3.0, 60.0], [np.nan, 60.0], [20.0, 50.0], [20.0, np.inf]])
        good, bad = [0, 2], [1, 3]
        for f in (t, t.jacobian, t.log_area):
            out = f(xy)
            assert np.isnan(out[bad]).all()
            np.testing.assert_allclose(out[good], f(xy[good]), rtol=1e-14)
        np.testing.assert_array_equal(t.inside(xy)[good], t.inside(xy[good]))
        assert not t.inside(xy)[bad].any()

    def test_input_is_neither_changed_nor_returned(self, t):
        xy = np.array([[3.0, 60.0], [np.nan, 60.0]])
        before = xy.copy()
        assert not np.shares_memory(t(xy), xy)
        np.testing.assert_array_equal(xy, before)

    @pytest.mark.parametrize("shape", [(2,), (3, 3), (2, 5), (1, 2, 2), ()])
    def test_a_wrong_shape_is_named(self, t, shape):
        for f in (t, t.jacobian, t.log_area, t.inside):
            with pytest.raises(ValueError, match=r"`xy` must have shape \(n, 2\).*but has shape \("):
                f(np.zeros(shape))

    def test_what_is_no_number_is_refused(self, t):
        with pytest.raises(ValueError, match="`xy` must hold real numbers"):
            t([["a", "b"]])
        with pytest.raises(ValueError, match="`xy` must hold real numbers, but holds complex128"):
            t([[1j, 0]])

    def test_it_is_a_transform_with_a_short_description(self, t):
        assert isinstance(t, Transform)
        assert type(t).__name__ in repr(t)
        assert "\n" not in repr(t)

    def test_equality_is_exact_and_allclose_is_not(self, t):
        again = pickle.loads(pickle.dumps(t))
        assert t == again
        assert t.allclose(again)
        assert t != "something else"
        assert not t.allclose("something else")
        with pytest.raises(TypeError, match="unhashable"):
            hash(t)


def test_kinds_differ_from_each_other():
    for i, a in enumerate(EVERY_KIND):
        for j, b in enumerate(EVERY_KIND):
            assert (a == b) == (i == j)
            assert a.allclose(b) == (i == j)


def test_a_small_change_breaks_equality_and_not_allclose():
    affine = random_affine(0)
    nudged = Affine(affine.matrix * np.array([[1 + 1e-12, 1, 1], [1, 1, 1], [1, 1, 1]]))
    grid = random_displacement(0)
    moved = Displacement(grid.vectors, grid.origin + 1e-9, grid.spacing)
    for a, b in ((affine, nudged), (grid, moved), (grid @ affine, moved @ nudged), (grid.inverse(), moved.inverse())):
        assert a != b
        assert a.allclose(b)
        assert not a.allclose(b, rtol=0, atol=0)
    assert not grid.allclose(random_displacement(0, shape=(8, 12)))


def test_repr_says_angle_scale_grid_and_spacing():
    assert repr(Affine.from_rigid(np.pi / 6, (5, -2), mirror=True)) == (
        "Affine(angle=30 deg, scale=1, shift=(5, -2), mirrored)"
    )
    assert repr(random_displacement(0)).startswith("Displacement(12 x 9 nodes (x, y), spacing=7, origin=(-20, 35)")


# --- immutability -----------------------------------------------------------------------------------------------


def test_nothing_can_be_changed_after_it_was_built():
    matrix, vectors, origin = np.eye(3), random_displacement(0).vectors.copy(), np.zeros(2)
    affine, grid = Affine(matrix), Displacement(vectors, origin, 7)
    matrix[0, 2], vectors[:], origin[:] = 5, 0, 9
    assert affine == IDENTITY
    assert grid.vectors.any() and not grid.origin.any()
    for array in (affine.matrix, grid.vectors, grid.origin, grid.coefficients):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    padded = Displacement(np.ones((2, 3, 3)), (0, 0), 1)
    for array in (padded.vectors, padded.origin):
        assert not array.flags.writeable
    for t, name in ((affine, "matrix"), (grid, "spacing"), (grid.inverse(), "forward"), (Compose((grid,)), "parts")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(t, name, None)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_are_equal_and_as_immutable(again):
    grid = random_displacement(0)
    grid(np.zeros((1, 2)))  # so that there are coefficients to copy
    for t in (random_affine(0), grid, grid.inverse(), grid @ random_affine(0)):
        copied = again(t)
        assert copied == t
        for part in copied.parts if isinstance(copied, Compose) else (copied,):
            held = part.forward if isinstance(part, InverseDisplacement) else part
            arrays = [value for value in vars(held).values() if isinstance(value, np.ndarray)]
            assert arrays
            assert not any(array.flags.writeable for array in arrays)
            with pytest.raises(dataclasses.FrozenInstanceError):
                part.matrix = None


@pytest.mark.parametrize(
    ("vectors", "origin", "spacing", "message"),
    [
        (np.zeros((2, 5)), (0, 0), 1, r"`vectors` must have shape \(2, any, any\), but has shape \(2, 5\)"),
        (np.zeros((5, 5, 2)), (0, 0), 1, r"`vectors` must have shape \(2, any, any\)"),
        (np.zeros((2, 1, 5)), (0, 0), 1, "at least 2 rows"),
        (np.full((2, 5, 5), np.nan), (0, 0), 1, "50 of its 50 numbers"),
        (np.full((2, 5, 5), 1e300), (0, 0), 1, "`vectors` must be finite"),
        (np.zeros((2, 5, 5)), (0, 0, 0), 1, r"`origin` must have shape \(2,\)"),
        (np.zeros((2, 5, 5)), (0, np.inf), 1, "`origin` must be finite"),
        (np.zeros((2, 5, 5)), (0, 0), 0, "`spacing` must be positive"),
        (np.zeros((2, 5, 5)), (0, 0), (1, 1), r"`spacing` must have shape \(\)"),
        (np.full((2, 5, 5), 1e4), (0, 0), 1, "affine map"),
    ],
)
def test_displacement_refuses_what_is_no_grid(vectors, origin, spacing, message):
    with pytest.raises(ValueError, match=message):
        Displacement(vectors, origin, spacing)


# --- storage ----------------------------------------------------------------------------------------------------


def test_to_dict_and_back_is_exact():
    affine, grid = random_affine(3), random_displacement(3)
    for t in (affine, grid @ affine):
        assert from_dict(to_dict(t)) == t
    assert from_dict(to_dict(grid)) == Compose((IDENTITY, grid))
    assert from_dict(to_dict(Compose((affine,)))) == affine


def test_record_holds_plain_values_of_the_stated_types():
    affine, grid = random_affine(3), random_displacement(3)
    record = to_dict(grid @ affine)
    assert record["version"] == 1 and record["axes"] == "xy"
    assert type(record["spacing"]) is float
    assert (record["affine"].dtype, record["displacement"].dtype, record["origin"].dtype) == ("f8", "f4", "f8")
    assert set(to_dict(affine)) == {"version", "affine", "axes"}
    record["displacement"][:] = 0
    assert grid.vectors.any()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_a_record_survives_a_file_bit_for_bit(tmp_path, suffix):
    anndata = pytest.importorskip("anndata")
    t = random_displacement(4) @ random_affine(4)
    path = tmp_path / f"section.{suffix}"
    adata = anndata.AnnData(np.zeros((1, 1)), uns={"inst_align": {"transform": to_dict(t)}})
    if suffix == "h5ad":
        adata.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        adata.write_zarr(path)
        back = anndata.read_zarr(path)
    assert from_dict(back.uns["inst_align"]["transform"]) == t


@pytest.mark.parametrize(
    "wrap", [np.array, lambda value: np.array([value]), lambda value: np.array(value, dtype=object)]
)
def test_scalars_may_come_back_as_arrays(wrap):
    t = random_displacement(5) @ random_affine(5)
    record = {key: wrap(value) if np.ndim(value) == 0 else value for key, value in to_dict(t).items()}
    assert from_dict(record) == t
    assert from_dict(record | {"version": np.int64(1), "axes": np.bytes_(b"xy"), "spacing": np.float64(7)}) == t


@pytest.mark.parametrize("missing", ["version", "affine", "axes", "displacement", "origin", "spacing"])
def test_a_record_that_lacks_a_key_is_refused_by_name(missing):
    record = to_dict(random_displacement(0))
    del record[missing]
    with pytest.raises(ValueError, match=rf"lacks \['{missing}'\]"):
        from_dict(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "install a newer inst-align"),
        ({"version": 0}, "must be 1, but is 0"),
        ({"version": "one"}, "must be 1, but is 'one'"),
        ({"axes": "yx"}, "must be 'xy', but is 'yx'"),
        ({"affine": np.eye(2)}, "`matrix` must have shape"),
        ({"affine": np.eye(3)[:2]}, "`matrix` must have shape"),
        ({"displacement": np.zeros((9, 12))}, "`vectors` must have shape"),
        ({"origin": 3.0}, "`origin` must have shape"),
        ({"spacing": -1.0}, "`spacing` must be positive"),
        ({"spacing": "wide"}, "`spacing` must hold real numbers"),
    ],
)
def test_a_record_with_a_wrong_value_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_dict(to_dict(random_displacement(0)) | change)


def test_what_is_no_record_and_what_cannot_be_stored_are_type_errors():
    affine, grid = random_affine(0), random_displacement(0)
    with pytest.raises(TypeError, match="but is list"):
        from_dict([1, 2])
    for t in (grid.inverse(), affine @ grid, grid @ affine @ grid, InverseDisplacement(grid) @ affine, np.eye(3)):
        with pytest.raises(TypeError, match="store the forward map"):
            to_dict(t)


# --- the module -------------------------------------------------------------------------------------------------


def test_public_module_names_the_same_objects():
    assert set(inst_align.transforms.__all__) == {
        "Affine", "Displacement", "Compose", "Transform", "FoldError", "to_dict", "from_dict", "load", "to_itk",
    }  # fmt: skip
    assert inst_align.transforms.Affine is Affine


def test_a_saved_map_can_be_used_without_torch():
    code = "import sys, inst_align.core.transforms; sys.exit('torch' in sys.modules or 'anndata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
