"""Features that both sections share: standardised per section, jointly projected, averaged over neighbouring cells.

Everything that moves a cell later is driven by these numbers, which come from the expression measured on *both*
sections. Standardising each gene within its section removes gene-wise batch factors; one projection for both keeps the
channels comparable; averaging over neighbours trades a little sharpness for a lot less noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

from inst_align.core.standardized import Standardized, joint_axes, of_moderate_size, only
from inst_align.core.threads import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inst_align.core.section import Section

MOST_TIES = 8
"""Cells beyond the last neighbour that may be as near as it: more than any lattice has."""


class NeighbourMean:
    """The mean over each cell's ``n_neighbors`` nearest cells in ``xy`` (n, 2), itself among them.

    Cells that are as near as the last of these count too.
    """

    def __init__(self, xy: np.ndarray, n_neighbors: int, device: torch.device) -> None:
        self._index: torch.Tensor | None = None
        n_neighbors = min(n_neighbors, len(xy))
        if n_neighbors < 2:
            return
        distance, index = cKDTree(xy).query(xy, k=min(len(xy), n_neighbors + MOST_TIES))
        # On a lattice several cells are equally near; all of them count, since only rounding could choose among them.
        near = distance <= distance[:, n_neighbors - 1 : n_neighbors] * (1 + 1e-6)
        most = int(near.sum(axis=1).max())  # the distances are sorted
        weights = near[:, :most] / near.sum(axis=1, keepdims=True)
        self._index = torch.as_tensor(np.ascontiguousarray(index[:, :most].T), device=device)
        self._weights = torch.as_tensor(np.ascontiguousarray(weights.T), dtype=torch.float32, device=device)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the means of values (n, k)."""
        if self._index is None:
            return values
        mean = torch.zeros_like(values)
        for index, weight in zip(self._index, self._weights, strict=True):  # no (n, n_neighbors, k) array
            mean.addcmul_(values[index], weight[:, None])
        return mean


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedFeatures:
    """Features of both sections of a pair, from all of its genes or from some.

    Parameters
    ----------
    sections
        Expression of the reference and the source; or a user's own representation, each column at mean 0, (n, d).
    means
        Of each section's cells over their neighbours.
    n_components
        Most channels.
    device
        Where the features are wanted.
    """

    sections: tuple[Standardized | torch.Tensor, Standardized | torch.Tensor]
    means: tuple[NeighbourMean, NeighbourMean]
    n_components: int
    device: torch.device

    @classmethod
    def of_pair(
        cls, ref: Section, src: Section, *, n_components: int, n_neighbors: int, device: torch.device
    ) -> SharedFeatures:
        """Take the sections as they are; nothing is computed of their expression but its moments."""
        home = device
        if torch.are_deterministic_algorithms_enabled():
            device = torch.device("cpu")  # the sparse products of CUDA promise no order
        sections: list[Standardized | torch.Tensor]
        if ref.is_rep:
            dense = [np.asarray(section.expression) for section in (ref, src)]
            sections = [_centred(values, device) for values in of_moderate_size(*dense)]
        else:
            sections = side_by_side(lambda section: Standardized(section.expression, device), (ref, src))
        means = side_by_side(lambda section: NeighbourMean(section.unit_xy, n_neighbors, device), (ref, src))
        return cls(
            sections=(sections[0], sections[1]), means=(means[0], means[1]), n_components=n_components, device=home
        )

    @property
    def n_genes(self) -> int:
        """Number of genes, or of columns."""
        return int(self.sections[0].shape[1])

    def of(self, generator: torch.Generator, genes: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shared features of both sections, averaged over neighbours; see :meth:`of_cells`."""
        return self.averaged(self.of_cells(generator, genes))

    def averaged(self, features: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the means of cells' features over their neighbours."""
        ref, src = side_by_side(lambda mean, values: mean(values).to(self.device), self.means, features)
        return ref, src

    def of_cells(
        self, generator: torch.Generator, genes: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shared features of both sections' single cells, float32, shapes (n_ref, k) and (n_src, k).

        Channels are ordered by variance and scaled together, so that all of them add up to a variance of 1; their
        relative sizes, which tell signal from noise, are kept. A user's own representation (``Section.is_rep``) is
        centred and scaled as a whole, but neither standardised nor projected.

        Parameters
        ----------
        generator
            Of the projection.
        genes
            Indices of the genes, or columns, to go by; ``None`` for all.
        """
        return next(self.of_subsets(generator, [np.arange(self.n_genes) if genes is None else genes]))

    def of_subsets(
        self, generator: torch.Generator, subsets: Sequence[np.ndarray]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield :meth:`of_cells` of each subset of the genes; expression that is on disk is read once for all of them."""
        ref, src = self._scores(generator, subsets)
        for _ in subsets:
            yield _of_unit_variance(*side_by_side(next, (ref, src)))

    def _scores(self, generator: torch.Generator, subsets: Sequence[np.ndarray]) -> list[Iterator[torch.Tensor]]:
        """For each section, its scores by subset."""
        measured = [section for section in self.sections if isinstance(section, Standardized)]
        columns = [(slice(None), genes) for genes in subsets]
        axes = []
        for genes in subsets if measured else ():
            parts = [section.of_genes(genes) for section in measured]
            axes.append(only(joint_axes(parts, self.n_components, generator), genes))
        return [
            section.products(axes) if isinstance(section, Standardized) else map(section.__getitem__, columns)
            for section in self.sections
        ]


def _of_unit_variance(ref: torch.Tensor, src: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale the scores of both sections together, in place."""
    total = torch.stack([s.square().sum(dim=1).mean() for s in (ref, src)]).mean().clamp_min(1e-12)
    return ref.div_(total.sqrt()), src.div_(total.sqrt())


def _centred(values: np.ndarray, device: torch.device) -> torch.Tensor:
    raw = torch.as_tensor(np.asarray(values, dtype=np.float32), device=device)
    return raw - raw.mean(dim=0)
