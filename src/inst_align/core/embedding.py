"""The embedding of the cells of two aligned sections: their own expression, denoised by what lies around in both."""

from __future__ import annotations

from dataclasses import dataclass
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
        float32, shapes (n, k) and (m, k), a row for each place asked for.
    agreement
        By column: correlation of a cell with the mean of its neighbours in its own section plus that in the other, among
        cells that the axis was not found on, shape (k,).
    shared
        By column: share of the spatial structure that both sections have, shape (k,).
    """

    ref: np.ndarray
    src: np.ndarray
    agreement: np.ndarray
    shared: np.ndarray


def embed_pair(
    ref: Section, moved: Section, *, at: tuple[np.ndarray, np.ndarray] | None = None, device: torch.device
) -> Embedding:
    """Embed the cells of two aligned sections.

    Parameters
    ----------
    ref, moved
        The reference, and the source with its cells where they lie in the reference's frame and units.
    at
        Places to embed instead of the sections' cells, shapes (n, 2) and (m, 2): where nothing was measured, what lies
        around is taken.
    device
        Where to compute.
    """
    places = (ref.xy, moved.xy) if at is None else at
    with torch_settings(len(ref) + len(moved)), torch.no_grad():
        channels = Channels.of(ref.take(ref.canonical_order()), moved.take(moved.canonical_order()), device)
        covariance = Covariance.of(channels.cells, channels.values)
        signal = krige(channels.cells, channels.values, covariance, channels.frame.cells(*places), device)
    z_ref, z_src = np.split(signal, [len(places[0])])
    return Embedding(ref=z_ref, src=z_src, agreement=channels.agreement, shared=covariance.shared_fraction)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """The frame to work in: centred, with neighbouring cells at a distance of about one.

    Parameters
    ----------
    center
        Shape (2,), in the reference's units.
    spacing
        Its unit: the neighbour distance of the section that has the larger one.
    """

    center: np.ndarray
    spacing: float

    def cells(self, xy_ref: np.ndarray, xy_moved: np.ndarray) -> Cells:
        """Places of the reference, shape (n, 2), and of the source, shape (m, 2), in this frame."""
        return Cells(
            xy=(np.concatenate([xy_ref, xy_moved]) - self.center) / self.spacing,
            in_source=np.repeat([False, True], [len(xy_ref), len(xy_moved)]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """Scores of all cells on the axes of expression that neighbours agree on.

    Parameters
    ----------
    frame
        In which the cells lie.
    cells
        The reference's, then the source's.
    values
        Scores, each of mean zero, shape (n, k).
    agreement
        Of neighbours among cells that the axis was not found on, shape (k,).
    """

    frame: Frame
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
        center = np.concatenate([ref.xy, moved.xy]).mean(axis=0)
        frame = Frame(center=center, spacing=max(ref.spacing, moved.spacing))
        cells = frame.cells(ref.xy, moved.xy)
        measured = Measured(expression=(ref.expression, moved.expression), is_rep=ref.is_rep, device=device)
        n_axes, agreement = count_reliable(measured, cells, MOST_AXES, generator)
        scores = measured.scores(spatial_axes(measured, cells.agreement(), MOST_AXES, generator))
        values = matched(cells, scores / np.sqrt((scores**2).sum(axis=1).mean().clip(1e-12)))
        return cls(frame=frame, cells=cells, values=values[:, :n_axes], agreement=agreement[:n_axes])


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
