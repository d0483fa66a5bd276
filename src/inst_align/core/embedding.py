"""The embedding of the cells of two aligned sections: their own expression, denoised by what lies around in both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

from inst_align.core.kriging import Covariance, krige
from inst_align.core.spatial_axes import Cells, Measured, count_reliable, spatial_axes
from inst_align.core.threads import torch_settings

if TYPE_CHECKING:
    from inst_align.core.section import Section

MOST_AXES = 30
MOST_GAIN = 2.0
"""Factor by which the signal of a channel may be weaker in one section than in the other."""
SEED = 0
"""Of the start of the search for axes, and of the halves that test them: the embedding of a pair is not random."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding:
    """Embedding of a pair, and how it came about.

    Parameters
    ----------
    ref, src
        float32, shapes (n, k) and (m, k), rows as in the sections.
    agreement
        By column: correlation of a cell with the mean of its neighbours in its own section plus that in the other, among
        cells that the axis was not found on, shape (k,).
    shared
        By column: share of the spatial structure that both sections have, shape (k,).
    own, other
        By column: what share of the weights falls on the cell itself, and on cells of the other section, shapes (k,).
    """

    ref: np.ndarray
    src: np.ndarray
    agreement: np.ndarray
    shared: np.ndarray
    own: np.ndarray
    other: np.ndarray


def embed_pair(ref: Section, src: Section, xy_aligned: np.ndarray, *, device: torch.device) -> Embedding:
    """Embed the cells of both sections.

    Parameters
    ----------
    ref, src
        The sections.
    xy_aligned
        Where the cells of the source lie in the reference's frame and units, shape (m, 2).
    device
        Where to compute.
    """
    moved = replace(src, xy=xy_aligned)
    orders = ref.canonical_order(), moved.canonical_order()
    with torch_settings(len(ref) + len(src)), torch.no_grad():
        channels = Channels.of(ref.take(orders[0]), moved.take(orders[1]), device)
        covariance = Covariance.of(channels.cells, channels.values)
        signal, own, other = krige(channels.cells, channels.values, covariance, device)
    parts = np.split(signal, [len(ref)])
    z_ref, z_src = (part[np.argsort(order)] for part, order in zip(parts, orders, strict=True))
    return Embedding(
        ref=z_ref, src=z_src, agreement=channels.agreement, shared=covariance.shared_fraction, own=own, other=other
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """Scores of all cells on the axes of expression that neighbours agree on.

    Parameters
    ----------
    cells
        The reference's, then the source's.
    values
        Scores, each of mean zero, shape (n, k).
    agreement
        Of neighbours among cells that the axis was not found on, shape (k,).
    """

    cells: Cells
    values: np.ndarray
    agreement: np.ndarray

    @classmethod
    def of(cls, ref: Section, moved: Section, device: torch.device) -> Channels:
        """Find as many axes as hold for unseen cells, and bring the scores of both sections to one scale and zero.

        Parameters
        ----------
        ref, moved
            Reference and aligned source, in one frame.
        device
            Where to compute.
        """
        generator = torch.Generator().manual_seed(SEED)
        xy = np.concatenate([ref.xy, moved.xy])
        cells = Cells(
            xy=(xy - xy.mean(axis=0)) / max(ref.spacing, moved.spacing),
            in_source=np.repeat([False, True], [len(ref), len(moved)]),
        )
        measured = Measured(expression=(ref.expression, moved.expression), is_rep=ref.is_rep, device=device)
        n_axes, agreement = count_reliable(measured, cells, MOST_AXES, generator)
        scores = measured.scores(spatial_axes(measured, cells.agreement(), MOST_AXES, generator))
        values = matched(cells, scores / np.sqrt((scores**2).sum(axis=1).mean().clip(1e-12)))
        return cls(cells=cells, values=values[:, :n_axes], agreement=agreement[:n_axes])


def matched(cells: Cells, scores: np.ndarray) -> np.ndarray:
    """Bring the scores (n, k) of both sections to one scale and one zero, by the cells that overlap.

    Genes were standardised in each section by itself. So the signal is weaker where the noise is stronger, and the zero
    is another one where some of the tissue is in one section only. The scale is that of the covariance of neighbours,
    which has no noise in it; the zero that of pairs of nearest cells.
    """
    overlap = cells.overlap()
    if not overlap.any():
        return np.asarray(scores - scores.mean(axis=0))
    around = cells.mean_of_neighbours(other=False)
    values = scores.copy()
    sizes = []
    for source in (False, True):
        part = cells.in_source == source
        values[part] -= scores[part & overlap].mean(axis=0)
        sizes.append((values[part & overlap] * (around[part & overlap] @ values)).mean(axis=0).clip(1e-12))
    root = np.sqrt(sizes[0] / sizes[1]).clip(1 / MOST_GAIN, MOST_GAIN) ** 0.5
    values = np.where(cells.in_source[:, None], values * root, values / root)
    fixed, moved = values[~cells.in_source], values[cells.in_source & overlap]
    _, nearest = cKDTree(cells.xy[~cells.in_source]).query(cells.xy[cells.in_source & overlap])
    values[cells.in_source] -= (moved - fixed[nearest]).mean(axis=0)
    return np.asarray(values - values.mean(axis=0))
