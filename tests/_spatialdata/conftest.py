"""Sections in which everything shows the same cells, each kind of element in a frame of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from scipy.spatial import cKDTree
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

from inst_align.core.transforms import Affine as Rigid
from inst_align.core.transforms import Displacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inst_align.core.transforms import Compose

SYSTEM = "tissue"
HALF = Sequence([Scale([0.5, 2.0], axes=("x", "y")), Translation([100.0, 0.0], axes=("x", "y"))])


def xy_of(transformation: object) -> Rigid:
    return Rigid(transformation.to_affine_matrix(("x", "y"), ("x", "y")))


def pixels_over(xy: np.ndarray, size: tuple[float, float]) -> tuple[Sequence, tuple[int, int]]:
    """Return a transformation from pixels, not isotropic, turned and shifted, and rows and columns that hold all."""
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    corners = xy @ turn[:2, :2] / size  # the transpose turns back
    low, high = corners.min(axis=0) - 15, corners.max(axis=0) + 15
    turn[:2, 2] = turn[:2, :2] @ (low * size)
    parts = [Scale(list(size), axes=("x", "y")), Affine(turn, input_axes=("x", "y"), output_axes=("x", "y"))]
    return Sequence(parts), tuple(np.ceil(high - low).astype(int))[::-1]


def make_section(
    xy: np.ndarray,
    *,
    radius: float = 24.0,
    pixel: tuple[float, float] = (4.0, 7.0),
    scales: bool = False,
    region: str = "circles",
    table: AnnData | None = None,
) -> SpatialData:
    """Return a section whose cells lie at ``xy`` in the coordinate system "tissue"; instances are 1, 2, ..."""
    ids = np.arange(1, len(xy) + 1)
    pixels, (height, width) = pixels_over(xy, pixel)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    distance, nearest = cKDTree(xy).query(xy_of(pixels)(np.column_stack([columns.ravel(), rows.ravel()])))
    labels = np.where(distance < radius, ids[nearest], 0).reshape(height, width).astype(np.int32)
    image = np.stack([200 * (labels > 0), 10 * (labels % 20)]).astype(np.uint8)
    discs = shapely.transform(shapely.buffer(shapely.points(xy), radius), xy_of(HALF).inverse())
    table = AnnData(np.ones((len(xy), 2), dtype=np.float32)) if table is None else table.copy()
    table.obs["region"] = pd.Categorical([region] * len(xy))
    table.obs["instance"] = ids
    if region == "labels":  # what lies under others has no pixel
        table = table[np.isin(ids, labels)].copy()
    raster = {"transformations": {SYSTEM: pixels}, "scale_factors": [2, 2] if scales else None}
    spots = pd.DataFrame(
        {"x": xy[:, 0], "y": xy[:, 1], "gene": pd.Categorical(["a", "b"] * len(xy))[: len(xy)], "n": ids}
    )
    circles = gpd.GeoDataFrame({"geometry": shapely.points(xy / 0.2), "radius": radius / 0.2, "kind": "x"}, index=ids)
    return SpatialData(
        images={"image": Image2DModel.parse(image, c_coords=["dapi", "other"], **raster)},
        labels={"labels": Labels2DModel.parse(labels, **raster)},
        shapes={
            "circles": ShapesModel.parse(circles, transformations={SYSTEM: Scale([0.2, 0.2], axes=("x", "y"))}),
            "polygons": ShapesModel.parse(
                gpd.GeoDataFrame({"geometry": discs}, index=ids), transformations={SYSTEM: HALF}
            ),
        },
        points={
            "spots": PointsModel.parse(spots, feature_key="gene", npartitions=3, transformations={SYSTEM: Identity()})
        },
        tables={"table": TableModel.parse(table, region=region, region_key="region", instance_key="instance")},
    )


@pytest.fixture(scope="session")
def section_of() -> Callable[..., SpatialData]:
    return make_section


@pytest.fixture(scope="session")
def lattice() -> np.ndarray:
    """Return the places of 108 cells, far enough apart that their discs do not touch."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(12) * 75.0 + 60, np.arange(9) * 75.0 + 90)
    return np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-8, 8, (108, 2))


@pytest.fixture
def section(lattice: np.ndarray) -> SpatialData:
    return make_section(lattice)


@pytest.fixture(scope="session")
def bend() -> Compose:
    """Return a map that turns, shifts and bends by about a cell's size, without folds."""
    row, column = np.mgrid[0:20, 0:20]
    vectors = np.stack([25 * np.sin(row / 3) * np.cos(column / 4), 20 * np.cos(row / 4 + 1) * np.sin(column / 3)])
    return Displacement(vectors, origin=(-300, -200), spacing=75.0) @ Rigid.from_rigid(0.5, (120, -80))


@pytest.fixture
def nothing_is_computed() -> Iterator[None]:
    """Make every dask computation an error."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        yield
