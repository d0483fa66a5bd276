"""Masked normalised cross-correlation of two images at every shift, by the FFT."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len


class MaskedNcc:
    """Normalised cross-correlation of a masked multi-channel image with others, at every shift (Padfield 2012, eq. 12).

    Means and variances are those of the overlap at each shift, so that what lies outside of it does not count.
    Numerator and variances are added up over channels before the quotient is taken. What depends on the fixed image
    alone is computed once.

    Parameters
    ----------
    fixed, mask
        Shapes (k, H, W) and (1, H, W); the image is zero off its mask, which is 0 or 1.
    shape
        Rows and columns (h, w) of the images to come.
    """

    def __init__(self, fixed: torch.Tensor, mask: torch.Tensor, shape: tuple[int, int]) -> None:
        self.full = [a + b - 1 for a, b in zip(fixed.shape[1:], shape, strict=True)]
        self.size = [
            next_fast_len(n, real=True) for n in self.full
        ]  # 127, say, is prime, and many times as slow as 128
        self.area = mask.sum()
        self.channels, self.mask, self.square = self._transforms(fixed, mask)

    def _transforms(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the channels, of the mask, and of the sum of the squared channels."""
        stack = torch.cat([image, mask, image.square().sum(dim=0, keepdim=True)])
        found = torch.fft.rfft2(stack, s=self.size)
        return found[:-2], found[-2], found[-1]

    def __call__(self, moving: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Correlate with a moving image (k, h, w), zero off its mask (1, h, w).

        Returns
        -------
        Correlation and overlap (as a share of the smaller tissue), shape (H + h - 1, W + w - 1); entry
        ``(h - 1 + i, w - 1 + j)`` belongs to the moving image shifted by i rows and j columns.
        """
        k = len(moving)
        channels, shape, square = self._transforms(moving.flip(1, 2), mask.flip(1, 2))
        products = torch.cat(
            [
                self.channels * shape,
                self.mask * channels,
                torch.stack(
                    [
                        (self.channels * channels).sum(dim=0),
                        self.mask * shape,
                        self.square * shape,
                        self.mask * square,
                    ]
                ),
            ]
        )
        sums = torch.fft.irfft2(products, s=self.size)[:, : self.full[0], : self.full[1]]
        product, count, f_square, m_square = sums[2 * k :]
        f_sum, m_sum = sums[:k], sums[k : 2 * k]
        count = count.round().clamp_min(0)
        safe = count.clamp_min(1)
        product = product - (f_sum * m_sum).sum(dim=0) / safe
        f_var = f_square - f_sum.square().sum(dim=0) / safe
        m_var = m_square - m_sum.square().sum(dim=0) / safe
        floor = 1e-4 * (f_var.max() * m_var.max()).clamp_min(1e-20).sqrt()
        ncc = product / (f_var.clamp_min(0) * m_var.clamp_min(0)).sqrt().clamp_min(floor)
        return ncc.clamp(-1, 1), count / torch.minimum(self.area, mask.sum()).clamp_min(1)
