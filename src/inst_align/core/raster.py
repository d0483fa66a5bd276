"""Rasters of features on a regular grid. They live inside ``core`` only: no user's image is ever resampled here.

Convention: a raster has shape (..., H, W); row i, column j stand for the point ``origin + pixel * (j, i)`` in (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular grid of points in the plane.

    Parameters
    ----------
    origin
        The point (x, y) of row 0, column 0.
    pixel
        Distance between neighbouring points, the same along both axes.
    height, width
        Number of rows (y) and columns (x).
    """

    origin: tuple[float, float]
    pixel: float
    height: int
    width: int

    @classmethod
    def around(cls, xy: np.ndarray, *, pixel: float, margin: float = 0.0) -> Grid:
        """Return the smallest grid that holds the points (n, 2) with ``margin`` on each side, centred on them."""
        low, high = xy.min(axis=0) - margin, xy.max(axis=0) + margin
        width, height = (int(n) for n in np.ceil((high - low) / pixel) + 1)
        origin = (low + high - pixel * (np.array([width, height]) - 1)) / 2
        return cls(origin=(float(origin[0]), float(origin[1])), pixel=pixel, height=height, width=width)

    def points(self, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Coordinates of the grid's points, shape (H, W, 2), (x, y)."""
        x = self.origin[0] + self.pixel * torch.arange(self.width, device=device, dtype=dtype)
        y = self.origin[1] + self.pixel * torch.arange(self.height, device=device, dtype=dtype)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)

    def normalize(self, xy: torch.Tensor) -> torch.Tensor:
        """Coordinates (..., 2) in the [-1, 1] convention of ``grid_sample`` with ``align_corners=True``."""
        origin = torch.as_tensor(self.origin, device=xy.device, dtype=xy.dtype)
        size = torch.tensor([self.width - 1, self.height - 1], device=xy.device, dtype=xy.dtype)
        return (xy - origin) * (2 / (self.pixel * size)) - 1


def splat(grid: Grid, xy: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Share each cell's values among the four grid points around it, bilinearly.

    Parameters
    ----------
    xy
        Coordinates, shape (n, 2); points off the grid are left out.
    values
        Shape (n, k).

    Returns
    -------
    Sums, shape (k, H, W).
    """
    position = (xy - torch.as_tensor(grid.origin, device=xy.device, dtype=xy.dtype)) / grid.pixel
    corner = position.floor()
    fraction = (position - corner).to(values.dtype)
    corner = corner.long()
    sums = values.new_zeros(grid.height * grid.width, values.shape[1])
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = corner[:, 0] + dx, corner[:, 1] + dy
            weight = (fraction[:, 0] if dx else 1 - fraction[:, 0]) * (fraction[:, 1] if dy else 1 - fraction[:, 1])
            inside = (column >= 0) & (column < grid.width) & (row >= 0) & (row < grid.height)
            pixel = (row * grid.width + column) * inside  # a cell off the grid adds nothing to the first pixel
            sums.index_add_(0, pixel, values * (weight * inside)[:, None])
    return sums.T.reshape(-1, grid.height, grid.width)


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (k, H, W) with ``sigma`` in pixels; zero beyond the border."""
    if sigma <= 0:
        return image
    radius = max(1, int(np.ceil(3 * sigma)))
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    k = len(image)  # as channels of one image: as k images of one channel they take up to ten times as long
    rows, columns = kernel.view(1, 1, -1, 1).expand(k, 1, -1, 1), kernel.view(1, 1, 1, -1).expand(k, 1, 1, -1)
    blurred = torch.nn.functional.conv2d(image[None], rows, padding=(radius, 0), groups=k)
    return torch.nn.functional.conv2d(blurred, columns, padding=(0, radius), groups=k)[0]


def grid_sample(image: torch.Tensor, points: torch.Tensor, *, border: bool = False) -> torch.Tensor:
    """Bilinear values (b, k, h, w) of images (b, k, H, W) at points (b, h, w, 2) of ``Grid.normalize``'s convention.

    Beyond the image they are zero, or with ``border`` those of its border. On CUDA torch's own function adds up the
    gradient in an order that changes from run to run; where deterministic algorithms are asked for, a slower one does not.
    """
    if image.is_cuda and torch.are_deterministic_algorithms_enabled():
        return gathered(image, points, border=border)
    mode = "border" if border else "zeros"
    return torch.nn.functional.grid_sample(image, points, align_corners=True, padding_mode=mode)


def gathered(image: torch.Tensor, points: torch.Tensor, *, border: bool = False) -> torch.Tensor:
    """:func:`grid_sample` by look-ups, whose gradients torch can add up in a fixed order."""
    return torch.stack([_gathered(*both, border=border) for both in zip(image, points, strict=True)])


def _gathered(image: torch.Tensor, points: torch.Tensor, *, border: bool) -> torch.Tensor:
    height, width = image.shape[1:]
    size = points.new_tensor([width - 1, height - 1])
    position = (points + 1) * (size / 2)
    if border:
        position = position.clamp(min=torch.zeros_like(size), max=size)
    corner = position.detach().floor()
    fraction = position - corner
    flat = image.flatten(1)
    value = torch.zeros((), dtype=image.dtype, device=image.device)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = corner[..., 0] + dx, corner[..., 1] + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            weight = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (
                fraction[..., 1] if dy else 1 - fraction[..., 1]
            )
            corner_value = flat.index_select(1, index.long().flatten()).reshape(-1, *index.shape)
            value = value + corner_value * (weight * inside)
    return value


def sample(image: torch.Tensor, grid: Grid, xy: torch.Tensor) -> torch.Tensor:
    """Bilinear values of ``image`` (k, H, W) at points (..., 2), shape (k, ...); zero beyond the grid."""
    points = grid.normalize(xy).reshape(1, 1, -1, 2)
    values = grid_sample(image[None], points)
    return values.reshape(image.shape[0], *xy.shape[:-1])
