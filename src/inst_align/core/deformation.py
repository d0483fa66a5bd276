"""The deformation network, and the Jacobian of any such map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inst_align.core.encoding import WindowedEncoding
from inst_align.core.field import init_linear, linear

if TYPE_CHECKING:
    from collections.abc import Callable

START_BOUND = 1e-4
"""Largest initial weight of the last layer: small enough for the untrained network to be the identity."""


class DeformationNetwork(nn.Module):
    """Source coordinates to reference coordinates, ``phi(x) = x + u(x)`` (INST-Align, eq. 4).

    Windowed encoding, a trunk of ``depth`` linear layers of ``width`` with ReLU, and a head with one hidden layer of
    ``head_width``. The weights of the last layer start within 1e-4 of zero and its bias at zero, so that an untrained
    network is the identity.

    Parameters
    ----------
    generator
        Source of the initial values.
    n_frequencies, max_log2
        See :class:`~inst_align.core.encoding.WindowedEncoding`.
    width, depth, head_width
        Sizes of trunk and head.

    Examples
    --------
    >>> network = DeformationNetwork(generator=torch.Generator().manual_seed(0))
    >>> xy = torch.tensor([[0.5, -1.0]])
    >>> torch.allclose(network(xy), xy, atol=1e-3)
    True
    """

    def __init__(
        self,
        *,
        generator: torch.Generator,
        n_frequencies: int = 6,
        max_log2: float = 5.0,
        width: int = 128,
        depth: int = 6,
        head_width: int = 64,
    ) -> None:
        super().__init__()
        self.encoding = WindowedEncoding(n_frequencies, max_log2)
        trunk: list[nn.Module] = []
        n_in = self.encoding.out_features
        for _ in range(depth):
            trunk += [linear(n_in, width), nn.ReLU()]
            n_in = width
        self.trunk = nn.Sequential(*trunk)
        last = linear(head_width, 2)
        self.head = nn.Sequential(linear(n_in, head_width), nn.ReLU(), last)
        init_linear(self, generator)
        with torch.no_grad():
            start = torch.empty(last.weight.shape, dtype=torch.float32, device=generator.device)
            last.weight.copy_(start.uniform_(-START_BOUND, START_BOUND, generator=generator))
            last.bias.zero_()

    def displacement(self, xy: Tensor, alpha: float | Tensor | None = None) -> Tensor:
        """Return ``u(x)``, shape ``(n, 2)``: how far the points move, in the units of ``xy``.

        Parameters
        ----------
        xy
            Source coordinates, shape ``(n, 2)``, axis order (x, y).
        alpha
            How far the encoding's window is open; ``None`` is fully open.
        """
        return self.head(self.trunk(self.encoding(xy, alpha)))

    def forward(self, xy: Tensor, alpha: float | Tensor | None = None) -> Tensor:
        """Return ``x + u(x)``, shape ``(n, 2)``; parameters as in :meth:`displacement`."""
        return xy + self.displacement(xy, alpha)


def jacobian(
    network: Callable[[Tensor, float | Tensor | None], Tensor], xy: Tensor, alpha: float | Tensor | None = None
) -> Tensor:
    """Return the Jacobian of a pointwise map of the plane.

    One pass forwards and one backwards for each of the two outputs, which for small networks is no slower than forward
    mode. The result can be differentiated once more, with respect to the network's parameters and to ``xy``.

    Parameters
    ----------
    network
        Maps ``(n, 2)`` coordinates and ``alpha`` to ``(n, 2)``, each point by itself.
    xy
        Coordinates, shape ``(n, 2)``, axis order (x, y).
    alpha
        Passed on to ``network``.

    Returns
    -------
    Shape ``(n, 2, 2)``, where ``[n, i, j]`` is the derivative of output ``i`` with respect to input ``j``. Where
    gradients are switched off it is a constant.

    Examples
    --------
    >>> jacobian(lambda xy, _: xy.square(), torch.tensor([[1.0, 3.0]])).tolist()
    [[[2.0, 0.0], [0.0, 6.0]]]
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        points = xy if xy.requires_grad else xy.detach().requires_grad_()
        outputs = network(points, alpha).sum(dim=0)
        rows = [torch.autograd.grad(output, points, create_graph=True)[0] for output in outputs]
        result = torch.stack(rows, dim=1)
    return result if differentiable else result.detach()
