"""Rasters hold what was put on them: mass, position, linear functions; and every function means the same points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inst_align.core.raster import Grid, blur, gathered, grid_sample, sample, splat

CPU = torch.device("cpu")
GRID = Grid(origin=(-3.0, 5.0), pixel=0.5, height=9, width=14)


def points_inside(n: int = 200, seed: int = 0) -> torch.Tensor:
    low = np.array(GRID.origin)
    high = low + GRID.pixel * (np.array([GRID.width, GRID.height]) - 1)
    return torch.as_tensor(np.random.default_rng(seed).uniform(low, high, (n, 2)))


def test_points_follow_the_convention_x_first_rows_along_y() -> None:
    points = GRID.points(CPU, torch.float64)
    assert points.shape == (9, 14, 2)
    for i, j in ((0, 0), (0, 13), (8, 0), (4, 7)):
        assert points[i, j].tolist() == [-3.0 + 0.5 * j, 5.0 + 0.5 * i]


def test_normalizing_puts_the_corners_at_one_and_agrees_with_grid_sample() -> None:
    unit = GRID.normalize(GRID.points(CPU))
    assert unit[0, 0].tolist() == pytest.approx([-1, -1])
    assert unit[-1, -1].tolist() == pytest.approx([1, 1])
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    found = torch.nn.functional.grid_sample(image, unit[None], align_corners=True)
    torch.testing.assert_close(found, image)


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_a_grid_around_points_holds_them_and_is_no_larger_than_it_has_to_be(margin: float) -> None:
    xy = np.random.default_rng(1).normal(size=(50, 2)) * [4, 1] + [10, -2]
    grid = Grid.around(xy, pixel=0.3, margin=margin)
    low, high = np.array(grid.origin), np.array(grid.origin) + 0.3 * (np.array([grid.width, grid.height]) - 1)
    wanted = xy.min(axis=0) - margin, xy.max(axis=0) + margin
    assert (low <= wanted[0] + 1e-9).all()
    assert (high >= wanted[1] - 1e-9).all()
    assert (high - low - (wanted[1] - wanted[0]) < 0.3 + 1e-9).all()
    np.testing.assert_allclose((low + high) / 2, (wanted[0] + wanted[1]) / 2, atol=1e-9)


def test_splatting_conserves_mass_values_and_the_centre_of_mass() -> None:
    xy = points_inside()
    values = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums, count = splat(GRID, xy, values), splat(GRID, xy, torch.ones_like(values[:, :1]))
    assert sums.shape == (3, 9, 14)
    torch.testing.assert_close(sums.sum(dim=(1, 2)), values.sum(dim=0))
    assert count.sum().item() == pytest.approx(200)
    centre = (count[0, ..., None] * GRID.points(CPU, torch.float64)).sum(dim=(0, 1))
    torch.testing.assert_close(centre, xy.sum(dim=0))


def test_a_cell_on_a_grid_point_stays_there_and_one_off_the_grid_is_left_out() -> None:
    xy = torch.tensor([[-1.0, 6.5], [100.0, 6.0], [-3.6, 6.0]], dtype=torch.float64)
    sums = splat(GRID, xy, torch.tensor([[7.0], [1.0], [1.0]]))
    assert sums[0, 3, 4].item() == 7
    assert sums.sum().item() == 7


def test_splatting_and_sampling_are_adjoint() -> None:
    xy = points_inside()
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, 2, dtype=torch.float64, generator=generator)
    image = torch.randn(2, 9, 14, dtype=torch.float64, generator=generator)
    one = (splat(GRID, xy, values) * image).sum()
    other = (values.T * sample(image, GRID, xy)).sum()
    torch.testing.assert_close(one, other)


def test_sampling_reproduces_linear_functions() -> None:
    points = GRID.points(CPU, torch.float64)
    image = torch.stack([2 * points[..., 0] - points[..., 1] + 3, points[..., 1]])
    xy = points_inside().reshape(20, 10, 2)
    found = sample(image, GRID, xy)
    assert found.shape == (2, 20, 10)
    torch.testing.assert_close(found, torch.stack([2 * xy[..., 0] - xy[..., 1] + 3, xy[..., 1]]))


def test_sampling_finds_nothing_beyond_the_grid() -> None:
    far = torch.tensor([[-4.0, 6.0], [5.0, 6.0], [0.0, 4.0], [0.0, 10.0]], dtype=torch.float64)
    assert sample(torch.ones(1, 9, 14, dtype=torch.float64), GRID, far).abs().max() == 0


def test_blurring_keeps_mass_place_and_channels_apart_and_spreads_by_sigma() -> None:
    image = torch.zeros(2, 41, 51, dtype=torch.float64)
    image[0, 20, 22] = 5.0
    blurred = blur(image, 2.5)
    assert blurred[1].abs().max() == 0
    assert blurred.sum().item() == pytest.approx(5)
    y, x = torch.meshgrid(torch.arange(41.0), torch.arange(51.0), indexing="ij")
    share = blurred[0] / 5
    assert (share * y).sum().item() == pytest.approx(20)
    assert (share * x).sum().item() == pytest.approx(22)
    for offset in (y - 20, x - 22):
        assert (share * offset**2).sum().sqrt().item() == pytest.approx(2.5, rel=0.03)


def test_each_plane_is_blurred_as_if_it_were_alone() -> None:
    planes = torch.randn(5, 23, 31, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([blur(plane[None], 1.7) for plane in planes])
    torch.testing.assert_close(blur(planes, 1.7), alone)


def test_no_blur_is_no_change() -> None:
    image = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blur(image, 0.0), image)


@pytest.mark.parametrize("border", [False, True])
def test_looking_pixels_up_is_torchs_own_sampling_with_its_gradients(border: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(2, 3, 6, 4, generator=generator)
    found = []
    for function in (grid_sample, gathered):
        image = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
        points = (3 * torch.rand(2, 6, 4, 2, generator=torch.Generator().manual_seed(2)) - 1.5).requires_grad_()
        values = function(image, points, border=border)
        (values * weight).sum().backward()
        found.append((values.detach(), image.grad, points.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
    assert found[0][2].abs().max() > 0.1


def test_points_on_pixels_and_on_the_border_are_looked_up_right() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    corners = torch.tensor([[[[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [-1 / 3, 0.0]]]])
    assert gathered(image, corners).flatten().tolist() == pytest.approx([0.0, 11.0, 3.0, 5.0])


def test_a_registration_that_looks_pixels_up_finds_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    from inst_align.core import raster, registration, velocity

    rng = np.random.default_rng(0)
    xy = rng.normal(size=(300, 2))
    features = torch.as_tensor(np.sin(2 * xy @ rng.normal(size=(2, 4))), dtype=torch.float32)
    config = registration.RegistrationConfig(
        levels=(registration.Level(sigma=0.4, control_spacing=1.2, steps=6),), n_pixels=32
    )
    moved = xy + 0.1 * np.sin(xy[:, ::-1])
    wanted = registration.register(xy, moved, features, features, config).forward(moved)
    for module in (raster, registration, velocity):
        monkeypatch.setattr(module, "grid_sample", gathered)
    found = registration.register(xy, moved, features, features, config).forward(moved)
    assert np.abs(wanted - moved).max() > 0.02
    np.testing.assert_allclose(found, wanted, atol=2e-4)
