"""Values of a raster at many points, and how they change with the points: without autograd, for the innermost loop.

Torch's ``grid_sample`` visits the planes of an image one by one, forth for the values and back for their gradient. Here
all channels of a pixel lie side by side, and a point's value is a weighted sum of four rows; so are its derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from inst_align.core.raster import Grid

BORDER = 2
"""Pixels of zeros all around: a point beyond the raster lies between two of them, where nothing changes either."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup:
    """An image of k channels as one row for each pixel, with a border of zeros."""

    grid: Grid
    rows: torch.Tensor  # ((H + 4) * (W + 4), k)

    @classmethod
    def of(cls, grid: Grid, image: torch.Tensor) -> Lookup:
        """Take an image (k, H, W)."""
        padded = torch.nn.functional.pad(image, [BORDER] * 4)
        return cls(grid=grid, rows=padded.flatten(1).T.contiguous())

    def values(self, xy: torch.Tensor) -> torch.Tensor:
        """Bilinear values at points (p, 2), shape (p, k)."""
        return self(xy)[0]

    def __call__(self, xy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bilinear values at points (p, 2), and their derivatives along x and along y per pixel, each of shape (p, k)."""
        grid, width = self.grid, self.grid.width + 2 * BORDER
        x, y = (
            ((at - start) / grid.pixel).clamp(-1.5, n + 0.5) + BORDER
            for at, start, n in zip(xy.unbind(1), grid.origin, (grid.width, grid.height), strict=True)
        )
        column, row = x.floor(), y.floor()
        right, below = x - column, y - row
        left, above = 1 - right, 1 - below
        corner = (row * width + column).nan_to_num().long()  # of a place that is not finite the values are not either
        corners = torch.stack([corner, corner + 1, corner + width, corner + (width + 1)], dim=1)

        def summed(*weights: torch.Tensor) -> torch.Tensor:
            by_corner = torch.stack(weights, dim=1)
            return torch.nn.functional.embedding_bag(corners, self.rows, per_sample_weights=by_corner, mode="sum")

        return (
            summed(left * above, right * above, left * below, right * below),
            summed(-above, above, -below, below),
            summed(-left, -right, left, right),
        )
