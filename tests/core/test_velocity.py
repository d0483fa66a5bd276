"""Flows are invertible, and what bending them costs is what geometry says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from inst_align.core.raster import Grid, sample
from inst_align.core.velocity import (
    ControlLattice,
    Flow,
    bending_energy,
    fade,
    singular_values,
    strain_energy,
)

CPU = torch.device("cpu")
GRID = Grid(origin=(-2.0, -3.0), pixel=0.1, height=61, width=41)
POINTS = GRID.points(CPU)
ONES = torch.ones(GRID.height, GRID.width)


def random_control(lattice: ControlLattice, size: float, seed: int = 0) -> torch.Tensor:
    return size * torch.randn(2, *lattice.shape, generator=torch.Generator().manual_seed(seed))


def smooth_velocity(size: float = 0.35) -> torch.Tensor:
    """A random velocity, zero at the border, that moves points by several pixels."""
    lattice = ControlLattice(GRID, 1.0, CPU)
    tissue = np.array([[-1.0, -2.0], [1.0, 2.0]])
    return lattice.velocity(random_control(lattice, size)) * fade(POINTS, tissue, 0.9)


def linear(matrix: np.ndarray) -> torch.Tensor:
    """The vector field ``matrix @ x`` on the grid."""
    return torch.einsum("ij,hwj->ihw", torch.as_tensor(matrix, dtype=torch.float32), POINTS)


def follow(displacement: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return points + sample(displacement, GRID, points).movedim(0, -1)


def test_a_flow_and_its_reverse_undo_each_other() -> None:
    velocity, flow = smooth_velocity(), Flow(GRID, CPU)
    there, back = flow.exp(velocity), flow.exp(-velocity)
    assert there.norm(dim=0).max() > 3 * GRID.pixel
    for first, second in ((there, back), (back, there)):
        error = (follow(second, follow(first, POINTS)) - POINTS).norm(dim=-1)
        assert error.max() < 0.15 * GRID.pixel
        assert error.mean() < 0.02 * GRID.pixel


def test_a_flow_does_not_fold() -> None:
    _, small = singular_values(Flow(GRID, CPU).exp(smooth_velocity(0.8), squarings=8), GRID.pixel)
    assert small.min() > 0


def test_a_constant_velocity_is_a_translation() -> None:
    velocity = torch.tensor([0.23, -0.31])[:, None, None].expand(2, 61, 41).contiguous()
    moved = Flow(GRID, CPU).exp(velocity)
    torch.testing.assert_close(moved[:, 8:-8, 8:-8], velocity[:, 8:-8, 8:-8], atol=1e-5, rtol=0)


@pytest.mark.parametrize("matrix", [np.array([[0.0, -0.3], [0.3, 0.0]]), np.array([[0.2, 0.1], [-0.05, -0.25]])])
def test_a_linear_velocity_is_the_matrix_exponential(matrix: np.ndarray) -> None:
    wanted = linear(expm(matrix) - np.eye(2))
    middle = np.s_[:, 20:-20, 14:-14]  # whence no path leaves the grid
    found = Flow(GRID, CPU).exp(linear(matrix))[middle]
    finer = Flow(GRID, CPU).exp(linear(matrix), squarings=10)[middle]
    assert (found - wanted[middle]).norm(dim=0).max() < 0.01 * wanted[middle].norm(dim=0).max()
    assert (finer - wanted[middle]).norm(dim=0).max() < 0.001 * wanted[middle].norm(dim=0).max()


def test_at_is_where_the_points_go_in_the_convention_of_grid_sample() -> None:
    displacement = smooth_velocity()
    torch.testing.assert_close(
        Flow(GRID, CPU).at(displacement), GRID.normalize(POINTS + displacement.movedim(0, -1)), atol=1e-5, rtol=0
    )


def test_singular_values_are_those_of_the_finite_differences_with_the_sign_of_the_determinant() -> None:
    displacement = 0.3 * torch.randn(2, 61, 41, generator=torch.Generator().manual_seed(0))
    large, small = singular_values(displacement, GRID.pixel)
    moved = (POINTS + displacement.movedim(0, -1)).double()
    columns = (moved[:-1, 1:] - moved[:-1, :-1]) / GRID.pixel, (moved[1:, :-1] - moved[:-1, :-1]) / GRID.pixel
    jacobian = torch.stack(columns, dim=-1)
    wanted = torch.linalg.svdvals(jacobian)
    determinant = torch.linalg.det(jacobian)
    assert 0.1 < (determinant < 0).double().mean() < 0.9
    torch.testing.assert_close(large.double(), wanted[..., 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(small.abs().double(), wanted[..., 1], atol=1e-4, rtol=1e-4)
    clear = determinant.abs() > 1e-3
    assert torch.equal(small.sign()[clear].double(), determinant.sign()[clear])


@pytest.mark.parametrize("degrees", [0, 30, 120])
def test_a_rigid_rotation_costs_no_strain(degrees: float) -> None:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = linear(np.array([[c - 1, -s], [s, c - 1]]))
    assert strain_energy(turn, GRID.pixel, ONES).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("factor", [1.3, 2.0])
def test_growing_costs_as_much_strain_as_shrinking_by_the_same_factor(factor: float) -> None:
    grown, shrunk = (strain_energy(linear(np.eye(2) * (f - 1)), GRID.pixel, ONES) for f in (factor, 1 / factor))
    assert grown.item() == pytest.approx(2 * np.log(factor) ** 2, rel=1e-3)
    assert shrunk.item() == pytest.approx(grown.item(), rel=1e-3)


def test_folds_cost_far_more_than_any_stretch_and_the_gradient_is_finite_even_there() -> None:
    folded = linear(np.diag([-2.0, 0.0])).requires_grad_()
    cost = strain_energy(folded, GRID.pixel, ONES)
    assert cost.item() > 100
    cost.backward()
    assert torch.isfinite(folded.grad).all()
    rest = torch.zeros(2, 61, 41, requires_grad=True)
    strain_energy(rest, GRID.pixel, ONES).backward()
    assert torch.isfinite(rest.grad).all()


def test_strain_counts_only_where_it_is_asked_for() -> None:
    moved = torch.where(POINTS[..., 0] > 0, 0.5 * POINTS[..., 0], 0.0)
    stretched = torch.stack([moved, torch.zeros_like(moved)])
    left = (POINTS[..., 0] < -0.05).float()
    assert strain_energy(stretched, GRID.pixel, left).item() == pytest.approx(0, abs=1e-6)
    assert strain_energy(stretched, GRID.pixel, 1 - left).item() > 0.1


def test_an_affine_velocity_costs_no_bending() -> None:
    velocity = linear(np.array([[0.3, -0.8], [0.5, 0.2]])) + torch.tensor([1.0, -2.0])[:, None, None]
    assert bending_energy(velocity, GRID.pixel, ONES).item() == pytest.approx(0, abs=1e-5)


def test_bending_is_the_thin_plate_energy_of_a_quadratic() -> None:
    x, y = POINTS[..., 0], POINTS[..., 1]
    zero = torch.zeros_like(x)
    for velocity, wanted in (((x**2 / 2, zero), 1.0), ((zero, 3 * y**2 / 2), 9.0), ((x * y, zero), 2.0)):
        found = bending_energy(torch.stack(velocity), GRID.pixel, ONES).item()
        assert found == pytest.approx(wanted, rel=0.01)


def test_a_lattice_reproduces_constants_and_linear_functions() -> None:
    lattice = ControlLattice(GRID, 0.7, CPU)
    height, width = lattice.shape
    one = lattice.velocity(torch.ones(2, height, width))
    torch.testing.assert_close(one, torch.ones_like(one))
    ramp = lattice.velocity(torch.arange(float(width)).expand(2, height, width))
    steps = ramp[:, :, 1:] - ramp[:, :, :-1]
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), atol=1e-4, rtol=0)


def test_fitting_undoes_the_velocity_of_control_points() -> None:
    lattice = ControlLattice(GRID, 0.7, CPU)
    control = random_control(lattice, 1.0)
    velocity = lattice.velocity(control)
    fitted = lattice.fit(velocity)
    torch.testing.assert_close(lattice.velocity(fitted), velocity, atol=2e-3, rtol=0)
    torch.testing.assert_close(fitted[:, 1:-1, 1:-1], control[:, 1:-1, 1:-1], atol=2e-2, rtol=0)


def test_fitting_is_the_nearest_where_the_velocity_is_no_spline() -> None:
    lattice = ControlLattice(GRID, 1.5, CPU)
    velocity = torch.randn(2, 61, 41, generator=torch.Generator().manual_seed(0))
    best = (lattice.velocity(lattice.fit(velocity)) - velocity).square().mean()
    for seed in range(3):
        other = lattice.fit(velocity) + random_control(lattice, 0.05, seed)
        assert (lattice.velocity(other) - velocity).square().mean() > best


def test_the_fade_is_one_on_the_tissue_and_zero_from_the_margin_on() -> None:
    tissue = np.array([[-1.0, -2.0], [1.0, 2.0], [0.3, 0.1]])
    weight = fade(POINTS, tissue, 0.8)
    outside = torch.maximum(torch.maximum(-1 - POINTS[..., 0], POINTS[..., 0] - 1), (POINTS[..., 1].abs() - 2))
    assert weight[outside <= 1e-6].min() == 1
    assert weight[outside >= 0.8 + 1e-6].abs().max() == 0
    between = weight[(outside > 0.05) & (outside < 0.75)]
    assert ((between > 0) & (between < 1)).all()
    middle = weight[30, 30:]
    assert (middle.diff() <= 0).all()
