"""What is measured of an embedding: clusters against labels, and neighbourhoods by scib-metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.accuracy.embedding import agreement, clusters, refined

if TYPE_CHECKING:
    from benchmarks.accuracy.pairs import Pair

N_NEIGHBORS = 90
"""For LISI, as is the custom."""
LEIDEN_ROUNDS = 12


def mixture_scores(pair: Pair, values: np.ndarray, *, seed: int, n_starts: int) -> dict[str, float]:
    """Gaussian mixture of both sections together, before and after the vote of neighbours.

    Parameters
    ----------
    pair
        The pair; sections without labels are clustered, but not judged.
    values
        Embedding, the reference's cells first, shape ``(n, d)``.
    seed, n_starts
        Of the mixture.
    """
    found = clusters(_scaled(values), _n_labels(pair), seed, n_starts=n_starts)
    return _judged(pair, found)


def leiden_scores(pair: Pair, values: np.ndarray, *, seed: int) -> dict[str, float]:
    """The same with Leiden's communities, at the resolution that gives as many as there are labels, or nearly."""
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(np.zeros((len(values), 1), dtype=np.float32), obsm={"X": _scaled(values).astype(np.float32)})
    sc.pp.neighbors(adata, use_rep="X", random_state=seed)
    low, high, wanted = 0.01, 4.0, _n_labels(pair)
    found, miss = np.zeros(len(values), dtype=int), np.inf
    for _ in range(LEIDEN_ROUNDS):
        middle = np.sqrt(low * high)
        sc.tl.leiden(adata, resolution=middle, flavor="igraph", n_iterations=2, random_state=seed)
        codes = adata.obs["leiden"].cat.codes.to_numpy().astype(int)
        n_found = codes.max() + 1
        if abs(n_found - wanted) < miss:
            found, miss = codes, abs(n_found - wanted)
        low, high = (middle, high) if n_found < wanted else (low, middle)
        if not miss:
            break
    return {f"leiden_{name}": value for name, value in _judged(pair, found).items()}


def scib_scores(pair: Pair, values: np.ndarray) -> dict[str, float]:
    """Mixing of the sections and separation of the labels by scib-metrics.

    ``ilisi`` is 1 where neighbours in the embedding come from both sections alike, and 0 where from one only. ``clisi`` is
    1 where all neighbours have one label; ``silhouette`` is that of the labels, scaled to [0, 1].
    """
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    values = _scaled(values).astype(np.float32)
    section = np.repeat([0, 1], [pair.ref.n_obs, pair.src.n_obs])

    def neighbours(rows: np.ndarray) -> NeighborsResults:
        distances, indices = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(rows))).fit(rows).kneighbors(rows)
        return NeighborsResults(indices=indices, distances=distances)

    labels = _labels(pair)
    known = ~pd.isna(labels)
    codes = pd.factorize(labels[known])[0]
    return {
        "ilisi": float(scib_metrics.ilisi_knn(neighbours(values), section)),
        "clisi": float(scib_metrics.clisi_knn(neighbours(values[known]), codes)),
        "silhouette": float(scib_metrics.silhouette_label(values[known], codes)),
    }


def _judged(pair: Pair, found: np.ndarray) -> dict[str, float]:
    rows = []
    for part, adata, labels in zip(
        np.split(found, [pair.ref.n_obs]), (pair.ref, pair.src), (pair.labels_ref, pair.labels_src), strict=True
    ):
        if labels is not None:
            rows.append([*agreement(refined(part, adata.obsm["spatial"]), labels), *agreement(part, labels)])
    return dict(zip(("ari", "nmi", "ari_plain", "nmi_plain"), np.mean(rows, axis=0).tolist(), strict=True))


def _labels(pair: Pair) -> np.ndarray:
    parts = [
        np.full(adata.n_obs, None, dtype=object) if labels is None else labels
        for adata, labels in ((pair.ref, pair.labels_ref), (pair.src, pair.labels_src))
    ]
    return np.concatenate(parts)


def _n_labels(pair: Pair) -> int:
    return int(pd.Series(_labels(pair)).nunique())


def _scaled(values: np.ndarray) -> np.ndarray:
    """Centred, and scaled as a whole: the relative sizes of the columns stay."""
    values = np.asarray(values, dtype=np.float64)
    values = values - values.mean(axis=0)
    return np.asarray(values / max(values.std(axis=0).max(), 1e-12))
