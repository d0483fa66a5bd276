"""Nearest neighbours in the plane, on the CPU or on a GPU, without a dense matrix of all distances."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from inst_align.core.memory import in_chunks

CHUNK_ELEMENTS = 1 << 24
"""Largest number of float32 values that one intermediate array may hold (64 MB)."""


class NearestNeighbours:
    """Exact nearest neighbours in the plane: a tree on the CPU, distances in chunks of rows elsewhere.

    Parameters
    ----------
    target_xy
        Points to be found, shape ``(m, 2)``; gradients are not followed.

    Examples
    --------
    >>> nearest = NearestNeighbours(torch.tensor([[0.0, 0.0], [5.0, 0.0], [1.0, 0.0]]))
    >>> nearest(torch.tensor([[0.1, 0.0]]), 2)
    tensor([[0, 2]])
    """

    def __init__(self, target_xy: Tensor) -> None:
        self._target = _finite(target_xy.detach())
        self._tree = cKDTree(self._target.numpy()) if self._target.device.type == "cpu" else None

    def __call__(self, query_xy: Tensor, n_neighbours: int) -> Tensor:
        """Return the indices of the ``min(n_neighbours, m)`` nearest targets of each query, shape ``(n, K)``."""
        query_xy = _finite(query_xy.detach())
        n_neighbours = min(n_neighbours, len(self._target))
        if self._tree is not None:
            _, index = self._tree.query(query_xy.numpy(), k=np.arange(1, n_neighbours + 1))
            return torch.from_numpy(index.astype(np.int64, copy=False))
        rows = max(1, CHUNK_ELEMENTS // len(self._target))
        nearest = in_chunks(lambda part: self._nearest_of_chunk(query_xy[part], n_neighbours), len(query_xy), rows)
        return torch.cat(nearest)

    def _nearest_of_chunk(self, query_xy: Tensor, n_neighbours: int) -> Tensor:
        # By matrix products, distances between close points would lose most of their digits.
        distance = torch.cdist(query_xy, self._target, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.topk(n_neighbours, dim=1, largest=False).indices


def _finite(xy: Tensor) -> Tensor:
    """Return points with zeros for what is not finite: a tree refuses such points, and a loss will tell of them."""
    return xy.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
