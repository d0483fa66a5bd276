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

    Pair = tuple[torch.Tensor, torch.Tensor]

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
        corners, (left, right), (above, below) = self._around(xy)
        return self._summed(corners, left * above, right * above, left * below, right * below)

    def __call__(self, xy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bilinear values at points (p, 2), and their derivatives along x and along y per pixel, each of shape (p, k)."""
        corners, (left, right), (above, below) = self._around(xy)
        return (
            self._summed(corners, left * above, right * above, left * below, right * below),
            self._summed(corners, -above, above, -below, below),
            self._summed(corners, -left, -right, left, right),
        )

    def _around(self, xy: torch.Tensor) -> tuple[torch.Tensor, Pair, Pair]:
        """Rows of the four pixels around points (p, 2), shape (p, 4), and the shares of those left, right, above and below."""
        grid, width = self.grid, self.grid.width + 2 * BORDER
        x, y = (
            ((at - start) / grid.pixel).clamp(-1.5, n + 0.5) + BORDER
            for at, start, n in zip(xy.unbind(1), grid.origin, (grid.width, grid.height), strict=True)
        )
        column, row = x.floor(), y.floor()
        right, below = x - column, y - row
        corner = (row * width + column).nan_to_num().long()  # of a place that is not finite the values are not either
        corners = torch.stack([corner, corner + 1, corner + width, corner + (width + 1)], dim=1)
        return corners, (1 - right, right), (1 - below, below)

    def _summed(self, corners: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        by_corner = torch.stack(weights, dim=1)
        return torch.nn.functional.embedding_bag(corners, self.rows, per_sample_weights=by_corner, mode="sum")
