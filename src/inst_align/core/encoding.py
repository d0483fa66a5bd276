"""Coordinates as sines and cosines whose higher frequencies can be faded in while a network trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def window_weights(alpha: float | Tensor, n: int, *, device: torch.device | str | None = None) -> Tensor:
    """Return the weight of each frequency band while the encoding is opened from coarse to fine.

    Band ``k`` weighs ``w_k = (1 - cos(pi * clamp(alpha - k, 0, 1))) / 2``: nothing up to ``alpha = k``, everything
    from ``alpha = k + 1``, a raised cosine between (the window of Nerfies, Park et al. 2021, eq. 8).

    Parameters
    ----------
    alpha
        How far the window is open, in bands: 0 is closed, ``n`` is open. A number, or a tensor without dimensions.
    n
        Number of bands.
    device
        Where the weights are made.

    Returns
    -------
    Weights in [0, 1], shape ``(n,)``, float32.

    Examples
    --------
    >>> window_weights(1.5, 3)
    tensor([1.0000, 0.5000, 0.0000])
    """
    band = torch.arange(n, dtype=torch.float32, device=device)
    return (1 - torch.cos(math.pi * (alpha - band).clamp(0, 1))) / 2


class WindowedEncoding(nn.Module):
    r"""Windowed positional encoding of coordinates (INST-Align, eq. 1).

    .. math::
        \gamma(x, \alpha) = \left[x,\; \{w_k(\alpha) \sin(\pi s_k x),\; w_k(\alpha) \cos(\pi s_k x)\}_{k=0}^{L-1}\right],
        \qquad s_k = 2^{k\, l_{max} / (L - 1)}

    The coordinates themselves are always passed on, whatever the window.

    Parameters
    ----------
    n_frequencies
        Number of bands ``L``.
    max_log2
        ``l_max``: the highest frequency is ``2 ** max_log2`` half periods per unit length.
    n_dims
        Dimensions of the coordinates.

    Examples
    --------
    >>> encoding = WindowedEncoding(n_frequencies=6, max_log2=5.0)
    >>> encoding.out_features
    26
    >>> encoding(torch.zeros(3, 2), alpha=0.0).shape
    torch.Size([3, 26])
    """

    frequencies: Tensor

    def __init__(self, n_frequencies: int = 6, max_log2: float = 5.0, *, n_dims: int = 2) -> None:
        super().__init__()
        self.n_frequencies = n_frequencies
        self.max_log2 = max_log2
        self.n_dims = n_dims
        exponent = torch.linspace(0, max_log2, n_frequencies, dtype=torch.float64, device="cpu")
        self.register_buffer("frequencies", (math.pi * 2**exponent).float(), persistent=False)

    @property
    def out_features(self) -> int:
        """Length of an encoded point."""
        return self.n_dims * (1 + 2 * self.n_frequencies)

    def forward(self, xy: Tensor, alpha: float | Tensor | None = None) -> Tensor:
        """Encode points.

        Parameters
        ----------
        xy
            Coordinates, shape ``(n, n_dims)``, axis order (x, y).
        alpha
            How far the window is open, see :func:`window_weights`; ``None`` is fully open.

        Returns
        -------
        Shape ``(n, out_features)``: the coordinates, then the sines, then the cosines.
        """
        angle = xy.unsqueeze(-1) * self.frequencies
        sine, cosine = angle.sin(), angle.cos()
        if alpha is not None:
            weight = window_weights(alpha, self.n_frequencies, device=xy.device)
            sine, cosine = sine * weight, cosine * weight
        return torch.cat([xy, sine.flatten(1), cosine.flatten(1)], dim=1)
