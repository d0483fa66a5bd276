"""How the cells lie: which are strays far from all others, and whether a section is in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from inst_align._checks._coordinates import FEWEST_CELLS
from inst_align._checks._words import Role, listing, warn_user
from inst_align.core.section import median_spacing

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.section import Section

FAR = 10.0
"""A gap without cells, in median neighbour distances, that separates."""
FAR_OF_RADIUS = 0.25
"""A gap that sets strays apart is at least this share of the section's radius: smaller ones do no harm."""
INNER = 0.9
"""Share of the cells that set the section's radius; strays are looked for among the others."""
CLUMP = 0.002, 3, 30
"""Strays may come in clumps of this share of the cells, but of no fewer and no more than these numbers."""
PIECE = 0.05
"""Least share of the cells that a piece of a section has."""


def stray_cells(xy: np.ndarray) -> np.ndarray:
    """Return a mask, shape ``(n,)``, of the cells that lie, alone or in small clumps, far from all others.

    One such cell, debris or a wrong coordinate, would stretch every frame and raster that is made to hold the section.
    Strays are clumps of a few cells with a gap around them: no other cell within 10 median neighbour distances, nor
    within a quarter of the radius that holds 90 % of the section.

    Parameters
    ----------
    xy
        Coordinates, shape ``(n, 2)``, finite.
    """
    stray = np.zeros(len(xy), dtype=bool)
    distance = np.linalg.norm(xy - np.median(xy, axis=0), axis=1)
    radius = float(np.quantile(distance, INNER, method="lower"))
    outer = np.flatnonzero(distance > radius)
    share, least, most = CLUMP
    clump = int(np.clip(share * len(xy), least, most))
    if not len(outer) or len(xy) <= clump:
        return stray
    tree = cKDTree(xy)
    gap = FAR_OF_RADIUS * radius
    lonely = outer[np.isinf(tree.query(xy[outer], k=[clump + 1], distance_upper_bound=gap)[0][:, 0])]
    if len(lonely):
        gap = max(gap, FAR * median_spacing(xy))
        around = tree.query(xy[lonely], k=clump + 1, distance_upper_bound=gap)[1]
        lonely, around = lonely[around[:, -1] == len(xy)], around[around[:, -1] == len(xy)]
        stray[_clumps(lonely, around, len(xy))] = True
    return stray if len(xy) - stray.sum() >= FEWEST_CELLS else np.zeros_like(stray)


def _clumps(lonely: np.ndarray, around: np.ndarray, n: int) -> np.ndarray:
    """Return those of the lonely cells that have nothing but lonely cells around them, and around those, and so on.

    ``around`` holds the cells near each of them, shape ``(k, m)``, filled up with ``n``.
    """
    alone = np.zeros(n + 1, dtype=bool)
    alone[lonely] = alone[n] = True
    while True:
        attached = ~alone[around].all(axis=1) & alone[lonely]
        if not attached.any():
            return lonely[alone[lonely]]
        alone[lonely[attached]] = False


def warn_of_strays(adata: AnnData, name: Role, stray: np.ndarray, xy: np.ndarray) -> None:
    """Warn of the cells that are left out of the fit because they lie far off."""
    if stray.any():
        first = np.flatnonzero(stray)[0]
        warn_user(
            f"{stray.sum()} of {len(stray)} cells of the {name} lie far from all others "
            f"({listing(adata.obs_names[stray])}, the first at ({xy[first, 0]:.6g}, {xy[first, 1]:.6g})); they are moved "
            f"by the map, but left out of its fit: remove them if they are debris."
        )


def piece_sizes(xy: np.ndarray, spacing: float) -> list[int]:
    """Return the numbers of cells in the pieces of a section, points of shape ``(n, 2)``, the largest first.

    Cells belong to one piece when boxes of 10 median neighbour distances around them touch; pieces with less than 5 %
    of the cells do not count.
    """
    side = FAR * spacing
    boxes, box_of = np.unique(np.floor((xy - np.median(xy, axis=0)) / side), axis=0, return_inverse=True)
    pairs = cKDTree(boxes).query_pairs(1.0, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(boxes), len(boxes)))
    _, piece_of = connected_components(graph, directed=False)
    sizes = np.bincount(piece_of[box_of.ravel()])
    return sorted((int(size) for size in sizes if size >= PIECE * len(xy)), reverse=True)


def warn_of_pieces(section: Section) -> None:
    """Warn when a section that is to be moved rigidly is in pieces."""
    sizes = piece_sizes(section.xy, section.spacing)
    if len(sizes) > 1:
        warn_user(
            f"The {section.name} is in {len(sizes)} pieces that lie apart (of {', '.join(map(str, sizes))} cells); one rigid map "
            f"moves them together, so align them one by one if they may have shifted against each other."
        )
