"""Sections on a lattice of spots or bins, and whether what tells single spots apart recurs in the other section.

A blur of less than the distance between spots leaves what is peculiar to each of them. The spots of two sections hardly
ever cover the same places of the tissue, so that a map which brings those peculiarities together brings the lattices
together, and labels say that it is worse for it. Hence a level of so little blur has to show first that they recur. Cells
that lie as they like are another matter: there is no lattice to lock to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.drawn import Cells, Drawn
from inst_align.core.raster import Grid, sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inst_align.core.mismatch import Move

RECURS = 0.15
"""Correlation of the details of two sections from which on they are the tissue's."""


@torch.no_grad()
def shared_detail(cells: Sequence[Cells], drawn: Sequence[Drawn], coarser: float, move: Move) -> float:
    """Correlation, over all channels, of what drawings of reference and source show and those of more blur do not.

    Parameters
    ----------
    cells, drawn
        Of the reference and of the source, on one grid.
    coarser
        The blur to compare with, in unit lengths.
    move
        The map to compare under.
    """
    grid: Grid = drawn[0].grid
    (ref, on_ref), (src, on_src) = (_detail(*each, coarser) for each in zip(cells, drawn, strict=True))
    points = grid.points(ref.device).flatten(0, 1)
    places, _ = move((points, points))
    found = sample(torch.cat([ref, on_ref[None]]), grid, places)
    weight = (found[-1] * on_src.flatten()).double()
    a, b = (
        (values - values @ weight[:, None] / weight.sum()) for values in (found[:-1].double(), src.flatten(1).double())
    )
    products = [(one * other) @ weight for one, other in ((a, b), (a, a), (b, b))]
    together, one, other = (float(product.sum()) for product in products)
    return together / max(np.sqrt(one * other), 1e-12)


def _detail(cells: Cells, drawn: Drawn, coarser: float) -> tuple[torch.Tensor, torch.Tensor]:
    blurred = Drawn.draw(drawn.grid, cells, coarser)
    tissue = drawn.tissue * blurred.tissue
    return (drawn.features - blurred.features) * tissue, tissue
