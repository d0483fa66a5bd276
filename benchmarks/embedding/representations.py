"""Embeddings of one aligned pair: those that anyone can make, ours, and ours with parts left out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

import inst_align as ia
from inst_align._anndata import read_pair
from inst_align.core.canonical import unpack_field
from inst_align.core.embedding import Channels, embed_pair
from inst_align.core.features import SharedFeatures
from inst_align.core.kriging import Covariance, krige
from inst_align.core.threads import torch_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from benchmarks.accuracy.pairs import Pair
    from inst_align.core.section import Section

CPU = torch.device("cpu")
N_COMPONENTS = 30
"""Principal components of both sections together, as many as the alignment takes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """A pair after ``align_pair``.

    Parameters
    ----------
    adatas
        The sections, as that left them.
    ref, moved
        The same as arrays, the source where it was moved to.
    src_xy
        Where the source lay.
    seed
        For whatever is random.
    """

    adatas: tuple[AnnData, AnnData]
    ref: Section
    moved: Section
    src_xy: np.ndarray
    seed: int

    @classmethod
    def of(cls, pair: Pair, *, field: bool) -> Aligned:
        """Align blind copies of a pair by the defaults, with the field or without."""
        ref, src = pair.blind()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = {"allow_reflection": pair.allow_reflection, "rng": pair.seed, "progress": False}
            ia.tl.align_pair(ref, src, field=field, **arguments)
        arrays = read_pair(ref, src)
        moved = replace(arrays.src, xy=src.obsm["spatial_aligned"])
        return cls(adatas=(ref, src), ref=arrays.ref, moved=moved, src_xy=arrays.src.xy, seed=pair.seed)

    @property
    def xy(self) -> np.ndarray:
        """Places of all cells in the reference's frame."""
        return np.concatenate([self.ref.xy, self.moved.xy])

    def components(self, n_neighbors: int = 1) -> np.ndarray:
        """Joint principal components, as the alignment takes them, averaged within the sections."""
        with torch_settings(len(self.ref) + len(self.moved)):
            shared = SharedFeatures.of_pair(
                self.ref,
                replace(self.moved, xy=self.src_xy),
                n_components=N_COMPONENTS,
                n_neighbors=n_neighbors,
                device=CPU,
            )
            features = shared.of(torch.Generator().manual_seed(self.seed))
        return np.concatenate([part.numpy() for part in features]).astype(np.float64)

    @cached_property
    def channels(self) -> Channels:
        """Scores on spatial axes."""
        with torch_settings(len(self.ref) + len(self.moved)):
            return Channels.of(self.ref, self.moved, CPU)

    @property
    def field(self) -> np.ndarray:
        """Features that the canonical field predicts for the place of each cell."""
        field = unpack_field(self.adatas[1].uns["inst_align"]["spatial_aligned"]["field"])
        return field.predict(self.xy, field.embedding)

    @cached_property
    def x_inst(self) -> np.ndarray:
        """What ``canonical_embed`` makes of it."""
        ia.tl.canonical_embed(*self.adatas, device="cpu", progress=False)
        return np.concatenate([adata.obsm["X_inst"] for adata in self.adatas])


def averaged(xy: np.ndarray, values: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Mean over the nearest cells, of whichever section."""
    _, nearest = cKDTree(xy).query(xy, k=min(n_neighbors, len(xy)))
    return np.asarray(sum(values[column] for column in nearest.T) / nearest.shape[1])


def _kriged_components(pair: Aligned) -> np.ndarray:
    cells, values = pair.channels.cells, pair.components()
    values = values - values.mean(axis=0)
    return krige(cells, values, Covariance.of(cells, values), cells, CPU)


def _without_the_other(pair: Aligned) -> np.ndarray:
    """Embed with the sections so far apart that neither is in the other's reach."""
    away = replace(pair.moved, xy=pair.moved.xy + 3 * np.ptp(pair.xy, axis=0).max())
    found = embed_pair(pair.ref, away, device=CPU)
    return np.concatenate([found.ref, found.src])


def _with_the_field(pair: Aligned) -> np.ndarray:
    parts = [values - values.mean(axis=0) for values in (pair.x_inst, pair.field)]
    return np.column_stack([values / values.std(axis=0).max() for values in parts])


NULLS: dict[str, Callable[[Aligned], np.ndarray]] = {
    "coordinates": lambda pair: pair.xy,
    "pca": lambda pair: pair.components(),
    "pca, mean of 10": lambda pair: pair.components(10),
    "pca, mean of 30 of both": lambda pair: averaged(pair.xy, pair.components(), 30),
    "pca, mean of 80 of both": lambda pair: averaged(pair.xy, pair.components(), 80),
}
PARTS: dict[str, Callable[[Aligned], np.ndarray]] = {
    "axes": lambda pair: pair.channels.values,
    "axes, mean of 30 of both": lambda pair: averaged(pair.xy, pair.channels.values, 30),
    "pca, kriged": _kriged_components,
    "X_inst, each section alone": _without_the_other,
}
WITH_FIELD: dict[str, Callable[[Aligned], np.ndarray]] = {
    "field": lambda pair: pair.field,
    "X_inst and field": _with_the_field,
}
"""Those that need the alignment to have fitted a field."""
OURS: dict[str, Callable[[Aligned], np.ndarray]] = {"X_inst": lambda pair: pair.x_inst}
REPRESENTATIONS = NULLS | PARTS | OURS | WITH_FIELD
"""By name, a function that gives one row per cell, the reference's first."""
