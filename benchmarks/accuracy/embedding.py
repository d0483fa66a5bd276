"""How well the clusters of an embedding agree with the labels: for reports only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

import inst_align as ia

if TYPE_CHECKING:
    from benchmarks.accuracy.pairs import Pair

N_COMPONENTS = 20
N_STARTS = 10
REFINED_WITHIN = 3.0
"""Radius, in neighbour distances, of the vote that smooths the clusters over the section."""


def domain_scores(pair: Pair, embedding: tuple[np.ndarray, np.ndarray], *, seed: int) -> dict[str, float]:
    """Cluster as INST-Align's evaluation does and compare with the labels.

    At most 20 principal components; a Gaussian mixture with one covariance for all, and as many components as labels; a
    majority vote over the cells within three neighbour distances. Adjusted Rand index and normalised mutual information
    over the labelled cells, mean over the sections. "ari" and "nmi" are of one mixture for both sections, "ari_each" and
    "nmi_each" of one for each, which is the paper's way.

    Parameters
    ----------
    pair
        The pair, with labels.
    embedding
        Of the reference and the source, shapes ``(n, d)`` and ``(m, d)``.
    seed
        Of the mixtures' starts.
    """
    assert pair.labels_ref is not None
    assert pair.labels_src is not None
    labels, places = (pair.labels_ref, pair.labels_src), [adata.obsm["spatial"] for adata in (pair.ref, pair.src)]
    cut = [len(embedding[0])]
    joint = np.split(clusters(np.concatenate(embedding), _n_labels(np.concatenate(labels)), seed), cut)
    each = [clusters(values, _n_labels(names), seed) for values, names in zip(embedding, labels, strict=True)]
    scores = {}
    for suffix, found in (("", joint), ("_each", each)):
        by_section = [agreement(refined(c, xy), names) for c, xy, names in zip(found, places, labels, strict=True)]
        scores[f"ari{suffix}"], scores[f"nmi{suffix}"] = (float(value) for value in np.mean(by_section, axis=0))
    return scores


def _n_labels(labels: np.ndarray) -> int:
    return int(pd.Series(labels).nunique())


def clusters(values: np.ndarray, n: int, seed: int, *, n_starts: int = N_STARTS) -> np.ndarray:
    """Return the cluster of each row, shape ``(n_rows,)``."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    if values.shape[1] > N_COMPONENTS:
        values = PCA(N_COMPONENTS, random_state=seed).fit_transform(values)
    mixture = GaussianMixture(n, covariance_type="tied", n_init=n_starts, max_iter=300, random_state=seed)
    return np.asarray(mixture.fit_predict(values.astype(np.float64)))


def refined(found: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return for each cell the most frequent cluster around it, itself included."""
    tree = cKDTree(xy)
    pairs = tree.sparse_distance_matrix(tree, REFINED_WITHIN * ia.metrics.spacing(xy), output_type="coo_matrix")
    votes = np.zeros((len(xy), found.max() + 1))
    np.add.at(votes, (pairs.row, found[pairs.col]), 1)
    return np.asarray(votes.argmax(axis=1))


def agreement(found: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Adjusted Rand index and normalised mutual information over the labelled cells."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    known = ~pd.isna(labels)
    names = pd.factorize(labels[known])[0]
    return adjusted_rand_score(names, found[known]), normalized_mutual_info_score(names, found[known])
