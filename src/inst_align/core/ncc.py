"""Masked normalised cross-correlation of two images at every shift, by the FFT."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len


def masked_ncc(
    fixed: torch.Tensor, fixed_mask: torch.Tensor, moving: torch.Tensor, moving_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised cross-correlation of two masked multi-channel images at every shift (Padfield 2012, eq. 12).

    Means and variances are those of the overlap at each shift, so that what lies outside of it does not count.
    Numerator and variances are added up over channels before the quotient is taken.

    Parameters
    ----------
    fixed, moving
        Shapes (k, H, W) and (k, h, w); zero off the mask.
    fixed_mask, moving_mask
        Shapes (1, H, W) and (1, h, w), 0 or 1.

    Returns
    -------
    Correlation and overlap (as a share of the smaller tissue), shape (H + h - 1, W + w - 1); entry
    ``(h - 1 + i, w - 1 + j)`` belongs to the moving image shifted by i rows and j columns.
    """
    full = [a + b - 1 for a, b in zip(fixed.shape[1:], moving.shape[1:])]
    size = [next_fast_len(n, real=True) for n in full]  # 127, say, is prime, and many times as slow as 128

    def transform(image: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(image, s=size)

    def correlate(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(a * b, s=size)[..., : full[0], : full[1]]

    f, m = transform(fixed), transform(moving.flip(1, 2))
    f_mask, m_mask = transform(fixed_mask), transform(moving_mask.flip(1, 2))
    f_square = transform(fixed.square().sum(dim=0, keepdim=True))
    m_square = transform(moving.flip(1, 2).square().sum(dim=0, keepdim=True))

    count = correlate(f_mask, m_mask)[0].round().clamp_min(0)
    safe = count.clamp_min(1)
    f_sum, m_sum = correlate(f, m_mask), correlate(f_mask, m)
    product = correlate((f * m).sum(dim=0), torch.ones_like(f_mask[0])) - (f_sum * m_sum).sum(dim=0) / safe
    f_var = correlate(f_square, m_mask)[0] - f_sum.square().sum(dim=0) / safe
    m_var = correlate(f_mask, m_square)[0] - m_sum.square().sum(dim=0) / safe
    floor = 1e-4 * (f_var.max() * m_var.max()).clamp_min(1e-20).sqrt()
    ncc = product / (f_var.clamp_min(0) * m_var.clamp_min(0)).sqrt().clamp_min(floor)
    return ncc.clamp(-1, 1), count / torch.minimum(fixed_mask.sum(), moving_mask.sum()).clamp_min(1)
