"""Several transforms, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inst_align.core.transforms.affine import Affine
from inst_align.core.transforms.base import Transform, as_points, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False, repr=False)
class Compose(Transform):
    """Transforms applied from left to right: ``Compose((a, b))(xy)`` is ``b(a(xy))``, the same as ``(b @ a)(xy)``.

    Parameters
    ----------
    parts
        At least one transform. Nested compositions are flattened, and neighbouring affine maps become one, so that
        the grouping of ``@`` makes no difference beyond rounding.

    Raises
    ------
    TypeError
        If a part is no transform.
    ValueError
        If there is no part.

    Examples
    --------
    >>> import numpy as np
    >>> shift, double = Affine.from_rigid(0, (1, 0)), Affine(np.diag([2, 2, 1]))
    >>> both = Compose((shift, double))
    >>> both
    Compose(Affine(angle=0 deg, scale=2, shift=(2, 0)))
    >>> both == Compose((double @ shift,))
    True
    >>> both.inverse()(both([[5, 7]]))
    array([[5., 7.]])
    """

    parts: tuple[Transform, ...]

    def __post_init__(self) -> None:
        merged: list[Transform] = []
        for part in _flat(self.parts):
            if isinstance(part, Affine) and merged and isinstance(merged[-1], Affine):
                merged[-1] = part @ merged[-1]
            else:
                merged.append(part)
        if not merged:
            raise ValueError("`parts` must hold at least one transform, but is empty.")
        object.__setattr__(self, "parts", tuple(merged))

    def __call__(self, xy: ArrayLike) -> np.ndarray:
        """Map coordinates of shape ``(n, 2)``."""
        points = as_points(xy)
        for part in self.parts:
            points = part(points)
        return points

    def inverse(self) -> Compose:
        """Return the inverses of the parts in reverse order."""
        return Compose(tuple(part.inverse() for part in reversed(self.parts)))

    def jacobian(self, xy: ArrayLike) -> np.ndarray:
        """Return the derivatives by the chain rule, shape ``(n, 2, 2)``."""
        points = as_points(xy)
        product = np.broadcast_to(np.eye(2), (len(points), 2, 2))
        for part, at in self._along(points):
            product = part.jacobian(at) @ product
        return product

    def log_area(self, xy: ArrayLike) -> np.ndarray:
        """Return the logarithm of the local change of area, shape ``(n,)``; NaN where a displacement folds."""
        points = as_points(xy)
        return np.sum([part.log_area(at) for part, at in self._along(points)], axis=0)

    def inside(self, xy: ArrayLike) -> np.ndarray:
        """Tell which points are inside of every part on their way, bool of shape ``(n,)``."""
        points = as_points(xy)
        return np.all([part.inside(at) for part, at in self._along(points)], axis=0)

    def allclose(self, other: object, rtol: float = 1e-6, atol: float = 1e-8) -> bool:
        """Tell whether ``other`` is a composition of nearly the same parts."""
        return (
            isinstance(other, Compose)
            and len(self.parts) == len(other.parts)
            and all(a.allclose(b, rtol=rtol, atol=atol) for a, b in zip(self.parts, other.parts))
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Compose):
            return NotImplemented
        return self.parts == other.parts

    def __matmul__(self, other: Transform) -> Compose:
        return join(self, other)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.parts))})"

    def _along(self, points: np.ndarray) -> Iterator[tuple[Transform, np.ndarray]]:
        """Yield each part with the points as they reach it."""
        for k, part in enumerate(self.parts):
            if k:
                points = self.parts[k - 1](points)
            yield part, points


def _flat(parts: Iterable[Transform]) -> Iterator[Transform]:
    for part in parts:
        if isinstance(part, Compose):
            yield from part.parts
        elif isinstance(part, Transform):
            yield part
        else:
            raise TypeError(f"`parts` must hold transforms, but one of them is {type(part).__name__}.")
