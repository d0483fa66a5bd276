"""Randomness as an argument: SPEC 7's ``rng``, and torch generators that are seeded from it. No global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SeedLike = int | np.integer | Sequence[int] | np.random.SeedSequence
RNGLike = np.random.Generator | np.random.BitGenerator


def numpy_generator(rng: SeedLike | RNGLike | None) -> np.random.Generator:
    """Return a numpy generator: a fresh one for None, the same one again for an integer, or the one that was given.

    Examples
    --------
    >>> int(numpy_generator(0).integers(100)) == int(numpy_generator(0).integers(100))
    True
    """
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        message = (
            f"`rng={rng!r}` is no source of randomness; pass a non-negative integer, a numpy.random.Generator or None."
        )
        raise type(error)(message) from error


def torch_generator(rng: np.random.Generator, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator on ``device``, seeded with the next draw of ``rng``."""
    import torch

    return torch.Generator(device=device).manual_seed(int(rng.integers(2**63 - 1)))
