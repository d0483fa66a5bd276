"""Adam with a step that falls along a cosine, for a handful of tensors.

``torch.optim`` does the same, but the first optimiser that a process makes loads torch's compiler, which takes a second
or two: longer than many an alignment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

DECAY = 0.9, 0.999
"""Of the running means of the gradient and of its square."""
EPSILON = 1e-5
"""Gradients of about this size are rounding in float32, and must not be blown up to whole steps."""


class Adam:
    """Descent by the running mean of the gradient over the root of that of its square (Kingma and Ba, ICLR 2015).

    Parameters
    ----------
    tensors
        What is moved, in place.
    rates
        The first step size of each.
    n_steps
        Steps until the step size has fallen to its end.
    end
        The last step size as a share of the first.

    Examples
    --------
    >>> x = torch.tensor([3.0, -2.0])
    >>> adam = Adam([x], [0.3], n_steps=100)
    >>> for _ in range(100):
    ...     loss = x.square().sum()
    ...     adam.step(adam.gradients(loss))
    >>> bool(x.abs().max() < 0.1)
    True
    """

    def __init__(
        self, tensors: Sequence[torch.Tensor], rates: Sequence[float], *, n_steps: int, end: float = 0.0
    ) -> None:
        self.tensors = [tensor.requires_grad_() for tensor in tensors]
        self._rates, self._n_steps, self._end = rates, max(1, n_steps), end
        self._means = [torch.zeros_like(tensor) for tensor in tensors]
        self._squares = [torch.zeros_like(tensor) for tensor in tensors]
        self._taken = 0

    def gradients(self, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the gradient of a loss with respect to every tensor."""
        return torch.autograd.grad(loss, self.tensors)

    @torch.no_grad()
    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        """Move every tensor against its gradient."""
        share = self._end + (1 - self._end) * (1 + math.cos(math.pi * self._taken / self._n_steps)) / 2
        self._taken += 1
        unbiased = [1 - decay**self._taken for decay in DECAY]
        state = zip(self.tensors, gradients, self._means, self._squares, self._rates, strict=True)
        for tensor, gradient, mean, square, rate in state:
            mean.lerp_(gradient, 1 - DECAY[0])
            square.mul_(DECAY[1]).addcmul_(gradient, gradient, value=1 - DECAY[1])
            scale = (square / unbiased[1]).sqrt_().add_(EPSILON)
            tensor.addcdiv_(mean, scale, value=-share * rate / unbiased[0])
