"""Rasters with one scale or several, as lists of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from xarray import DataArray

if TYPE_CHECKING:
    from inst_align._spatialdata.elements import Raster


def levels(raster: Raster) -> list[DataArray]:
    """Return the scales of a raster, the finest first."""
    if isinstance(raster, DataArray):
        return [raster]
    return [next(iter(raster[name].ds.data_vars.values())) for name in raster.children]


def shape_of(level: DataArray) -> tuple[int, int]:
    """Return rows and columns."""
    return level.sizes["y"], level.sizes["x"]


def per_level(raster: Raster) -> list[np.ndarray]:
    """Return how many pixels of the finest scale make one of each scale, as (x, y)."""
    shapes = [np.array(shape_of(level)[::-1]) for level in levels(raster)]
    return [shapes[0] / shape for shape in shapes]


def scale_factors(raster: Raster) -> list[dict[str, int]] | None:
    """Return from scale to scale by how much the raster shrinks, as SpatialData takes it; None for a single scale."""
    if isinstance(raster, DataArray):
        return None
    sizes = per_level(raster)
    steps = [np.rint(coarse / fine).astype(int) for fine, coarse in zip(sizes, sizes[1:])]
    return [{"y": max(1, int(y)), "x": max(1, int(x))} for x, y in steps]
