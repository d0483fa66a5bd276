"""The places of the instances that a table annotates, in the element's own frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import numpy as np
import pandas as pd
import shapely
from dask.dataframe import DataFrame as DaskDataFrame
from dask.delayed import delayed
from geopandas import GeoDataFrame

from inst_align._spatialdata.scales import levels

if TYPE_CHECKING:
    from xarray import DataArray

    from inst_align._spatialdata.elements import Element

_LARGEST_BLOCK = 4096
"""Rows and columns of labels that are looked at once."""


def instances(element: Element) -> tuple[pd.Index, np.ndarray]:
    """Return the instances of an element and their centres, shape ``(n, 2)`` as (x, y), in its own frame.

    Labels are read block by block, at full resolution; the background 0 is no instance.
    """
    if isinstance(element, GeoDataFrame):
        return element.index, shapely.get_coordinates(element.geometry.centroid.to_numpy())
    if isinstance(element, DaskDataFrame):
        table = element[["x", "y"]].compute()
        return table.index, table.to_numpy(dtype=np.float64)
    return label_centroids(levels(element)[0])


def label_centroids(labels: DataArray) -> tuple[pd.Index, np.ndarray]:
    """Return the labels of a raster and their centroids in pixel coordinates (centre of the first pixel: 0.5, 0.5)."""
    data = labels.data.rechunk({0: _fitting(labels.data.chunks[0]), 1: _fitting(labels.data.chunks[1])})
    tops, lefts = (np.cumsum((0, *sizes[:-1])) for sizes in data.chunks)
    blocks = data.to_delayed()
    sums = [delayed(_block_sums)(blocks[i, j], top, left) for i, top in enumerate(tops) for j, left in enumerate(lefts)]
    total = pd.concat(dask.compute(*sums)).groupby(level=0).sum()
    total = total.drop(index=0, errors="ignore")
    return total.index, total[["x", "y"]].to_numpy() / total[["pixels"]].to_numpy()


def _fitting(sizes: tuple[int, ...]) -> tuple[int, ...] | int:
    return sizes if max(sizes) <= _LARGEST_BLOCK else _LARGEST_BLOCK


def _block_sums(block: np.ndarray, top: int, left: int) -> pd.DataFrame:
    """Return the number of pixels and the sums of their coordinates by label."""
    code, label = pd.factorize(block.ravel())
    height, width = block.shape
    x = np.tile(left + 0.5 + np.arange(width), height)
    y = np.repeat(top + 0.5 + np.arange(height), width)
    return pd.DataFrame(
        {"pixels": np.bincount(code), "x": np.bincount(code, weights=x), "y": np.bincount(code, weights=y)}, index=label
    )
