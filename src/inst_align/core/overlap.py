"""Which cells have a counterpart in the other section, told from where there is tissue after the alignment.

A section's tissue is where the density of its cells, over a neighbourhood of a few cells, is not far below the median. Near
its edge the answer depends on how exactly the cells were placed, so the outline is blurred by about that: what a cell is
given is the share of the places where it might belong that lie on tissue.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from inst_align.core.threads import side_by_side

DENSITY = 1.5
"""Blur of the number of cells, in neighbour distances: no holes between cells."""
TISSUE = 0.15
"""There is tissue where the density exceeds this share of its median over the cells."""
PLACED = 1.5
"""Blur of the outline, in neighbour distances: about how exactly cells are placed."""
PIXEL = 0.7
"""In neighbour distances, where the raster does not become too large by that."""
MAX_PIXELS = 1024
"""Along the longer side."""


def overlap_of(xy_ref: np.ndarray, xy_src: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each cell to have a counterpart in the other section, float64, shapes (n,) and (m,).

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in one frame, shapes (n, 2) and (m, 2); the source's after the alignment.
    unit
        Median neighbour distance of the sparser section.
    """
    of_ref, of_src = side_by_side(_on_tissue, (xy_src, xy_ref), (xy_ref, xy_src), (unit, unit))
    return of_ref, of_src


def _on_tissue(tissue: np.ndarray, xy: np.ndarray, unit: float) -> np.ndarray:
    """Return how surely points (n, 2) lie on the tissue of a section, cells (m, 2); from 0 to 1."""
    margin = 4 * (DENSITY + PLACED) * unit
    low, high = tissue.min(axis=0) - margin, tissue.max(axis=0) + margin
    pixel = max(PIXEL * unit, float((high - low).max()) / MAX_PIXELS)
    shape = np.ceil((high - low) / pixel).astype(int) + 1
    cells = tuple(np.round((tissue - low) / pixel).astype(int).T)
    count = np.zeros(shape)
    np.add.at(count, cells, 1.0)
    density = gaussian_filter(count, DENSITY * unit / pixel, mode="constant")
    outline = (density > TISSUE * np.median(density[cells])).astype(np.float64)
    blurred = gaussian_filter(outline, PLACED * unit / pixel, mode="constant")
    found = map_coordinates(blurred, (xy - low).T / pixel, order=1, mode="constant")
    return np.asarray(found.clip(0, 1))
