"""A look-up gives what bilinear interpolation gives, and its derivatives, and nothing beyond the raster."""

from __future__ import annotations

import pytest
import torch

from inst_align.core.lookup import Lookup
from inst_align.core.raster import Grid, sample

GRID = Grid(origin=(-1.3, 0.4), pixel=0.25, height=9, width=14)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(3, GRID.height, GRID.width, generator=torch.Generator().manual_seed(0))


def places(n: int, *, around: float) -> torch.Tensor:
    """Random places over the grid and some way around it."""
    random = torch.rand(n, 2, generator=torch.Generator().manual_seed(1))
    size = GRID.pixel * torch.tensor([GRID.width - 1, GRID.height - 1])
    return torch.tensor(GRID.origin) - around + random * (size + 2 * around)


def test_values_and_derivatives_are_those_of_bilinear_sampling(image: torch.Tensor) -> None:
    xy = places(500, around=1.5).requires_grad_()
    values, along_x, along_y = Lookup.of(GRID, image)(xy.detach())
    wanted = sample(image, GRID, xy).T
    torch.testing.assert_close(values, wanted.detach(), atol=1e-5, rtol=1e-5)
    for channel in range(3):
        (slope,) = torch.autograd.grad(wanted[:, channel].sum(), xy, retain_graph=True)
        found = torch.stack([along_x, along_y], dim=-1)[:, channel] / GRID.pixel
        torch.testing.assert_close(found, slope, atol=1e-4, rtol=1e-4)


def test_far_away_there_is_nothing_and_nothing_changes(image: torch.Tensor) -> None:
    far = torch.tensor([[-1e6, 1.0], [1e6, 1.0], [0.0, -1e6], [0.0, 1e6], [-1e6, 1e6]])
    for found in Lookup.of(GRID, image)(far):
        assert not found.any()


def test_at_the_points_of_the_grid_are_the_pixels(image: torch.Tensor) -> None:
    values = Lookup.of(GRID, image).values(GRID.points(image.device).flatten(0, 1))
    torch.testing.assert_close(values, image.flatten(1).T, atol=1e-5, rtol=1e-5)
