"""What the functions that apply a map share: the direction in words, and where the map was fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from inst_align.core.transforms import Affine, Compose, Displacement, InverseDisplacement, Transform

if TYPE_CHECKING:
    from collections.abc import Iterator

Direction = Literal["src_to_ref", "ref_to_src"]


class Lattice(NamedTuple):
    """Where a non-rigid map moves anything, in the frame of the points that it takes.

    ``bounds`` are the lowest and highest (x, y), shape ``(2, 2)``; ``spacing`` is the finest distance of nodes.
    """

    bounds: np.ndarray
    spacing: float


def oriented(transform: Transform, direction: Direction) -> Transform:
    """Return the map in the direction asked for, given the map from the source to the reference."""
    if not isinstance(transform, Transform):
        raise TypeError(
            f"`transform` is a {type(transform).__module__}.{type(transform).__name__}; pass a map such as "
            "`ia.get.transform(adata_src)` returns."
        )
    if direction not in get_args(Direction):
        raise ValueError(
            f"`direction={direction!r}` is not known; pass 'src_to_ref' for points of the source, or 'ref_to_src' for "
            "points of the reference."
        )
    return transform if direction == "src_to_ref" else transform.inverse()


def lattice(transform: Transform) -> Lattice | None:
    """Return the box around the first grid of a map and the finest spacing of all; None where there is no grid."""
    before = Affine(np.eye(3))
    bounds, spacing = None, np.inf
    for part in _parts(transform):
        if isinstance(part, Affine):
            before = part @ before
        elif isinstance(part, Displacement | InverseDisplacement):
            grid = part if isinstance(part, Displacement) else part.forward
            spacing = min(spacing, grid.spacing / before.scale)
            if bounds is None:
                (left, low), (right, high) = grid.bounds
                corners = before.inverse()([[left, low], [left, high], [right, low], [right, high]])
                bounds = np.array([corners.min(axis=0), corners.max(axis=0)])
    return None if bounds is None else Lattice(bounds, float(spacing))


def _parts(transform: Transform) -> Iterator[Transform]:
    yield from transform.parts if isinstance(transform, Compose) else (transform,)
