"""One map moves cells, arrays, tables and polygons to the same places, in the direction that is said, and nothing else."""

from __future__ import annotations

import warnings
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

import inst_align as ia
from inst_align.core.transforms import Affine, Displacement, FoldError, Transform, to_dict


def bent() -> Displacement:
    """A swirl over a grid that is not square, in the reference's frame; nodes are 10 apart."""
    y, x = np.mgrid[:41, :61] / 10.0
    window = np.sin(np.pi * x / 6) ** 2 * np.sin(np.pi * y / 4) ** 2
    return Displacement(np.stack([18 * window * np.sin(y), -15 * window * np.cos(x)]), (900, -250), 10)


POSE = Affine.from_rigid(0, (-3800, -900)) @ Affine.from_rigid(0.3, (0, 0))
MAP = bent() @ POSE


def cells(n: int = 60, seed: int = 0) -> np.ndarray:
    """Points of the source whose place in the reference is inside of the grid."""
    low, high = bent().bounds
    return MAP.inverse()(np.random.default_rng(seed).uniform(low + 20, high - 20, (n, 2)))


def section(xy: np.ndarray | None = None, **uns: Any) -> AnnData:
    xy = cells() if xy is None else xy
    adata = AnnData(np.ones((len(xy), 1)), obsm={"spatial": xy})
    adata.uns.update(uns)
    return adata


def record(transform: Transform = MAP, **entries: Any) -> dict[str, Any]:
    return {"spatial_aligned": {"version": 1, "role": "source", "transform": to_dict(transform), **entries}}


def geometries(n: int = 12) -> gpd.GeoDataFrame:
    """Points, lines, polygons with a hole, and several of each, around cells of the source."""
    hole = shapely.Polygon([(-9, -9), (9, -9), (9, 9), (-9, 9)], holes=[[(-3, -3), (-3, 3), (3, 3), (3, -3)]])
    kinds = [
        shapely.Point(0, 0),
        shapely.LineString([(-8, 0), (5, 4), (7, -2)]),
        hole,
        shapely.MultiPoint([(1, 1), (2, -3)]),
        shapely.MultiPolygon([shapely.box(-9, -9, -1, -1), hole.buffer(0).intersection(shapely.box(0, 0, 9, 9))]),
        shapely.GeometryCollection([shapely.Point(4, 4), shapely.LineString([(0, 0), (3, 3)])]),
    ]
    shapes = [shapely.transform(kinds[i % len(kinds)], lambda xy, at=at: xy + at) for i, at in enumerate(cells(n))]
    return gpd.GeoDataFrame({"name": [f"cell {i}" for i in range(n)], "geometry": shapes}, index=np.arange(n) * 3)


# --- one map, many containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["src_to_ref", "ref_to_src"])
def test_every_container_goes_to_the_same_place(direction: Any) -> None:
    move = MAP if direction == "src_to_ref" else MAP.inverse()
    xy = cells() if direction == "src_to_ref" else MAP(cells())
    truth = move(xy)
    assert np.linalg.norm(truth - xy, axis=1).min() > 1000
    np.testing.assert_array_equal(ia.tl.apply_transform(xy, MAP, direction=direction), truth)
    table = pd.DataFrame({"x": xy[:, 0], "gene": "a", "y": xy[:, 1]})
    np.testing.assert_array_equal(ia.tl.apply_transform(table, MAP, direction=direction)[["x", "y"]], truth)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(*xy.T))
    found = ia.tl.apply_transform(points, MAP, direction=direction)
    np.testing.assert_array_equal(shapely.get_coordinates(found.geometry), truth)
    adata = section(xy)
    assert ia.tl.apply_transform(adata, MAP, direction=direction) is None
    key = "spatial_aligned" if direction == "src_to_ref" else "spatial_in_source"
    np.testing.assert_array_equal(adata.obsm[key], truth)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_there_and_back_is_where_it_began(seed: int) -> None:
    xy = cells(20, seed)
    there = ia.tl.apply_transform(xy, MAP, direction="src_to_ref")
    np.testing.assert_allclose(ia.tl.apply_transform(there, MAP, direction="ref_to_src"), xy, rtol=0, atol=1e-6)


def test_a_record_serves_as_the_map() -> None:
    src = section(inst_align=record())
    np.testing.assert_array_equal(ia.tl.apply_transform(cells(5), src, direction="src_to_ref"), MAP(cells(5)))
    rigid = section(inst_align={"spatial_rigid": record(POSE)["spatial_aligned"]})
    found = ia.tl.apply_transform(cells(5), rigid, direction="src_to_ref", alignment_key="spatial_rigid")
    np.testing.assert_array_equal(found, POSE(cells(5)))


def test_cells_that_were_filtered_out_join_those_that_were_fitted(pair: Any, tiny: Any, true_pose: np.ndarray) -> None:
    ref, src = pair
    kept = src[::2].copy()
    ia.tl.align_pair(ref, kept, init=true_pose, config=tiny, field=False, rng=0, device="cpu", progress=False)
    ia.tl.apply_transform(src, kept, direction="src_to_ref")
    np.testing.assert_allclose(src.obsm["spatial_aligned"][::2], kept.obsm["spatial_aligned"], rtol=1e-12)
    error = np.linalg.norm(src.obsm["spatial_aligned"] - src.obsm["spatial_true"], axis=1)
    assert np.median(error[1::2]) == pytest.approx(np.median(error[::2]), rel=0.25)


# --- what comes back, and what stays ----------------------------------------------------------------------------


def test_an_array_is_neither_changed_nor_returned() -> None:
    xy = cells()
    before = xy.copy()
    found = ia.tl.apply_transform(xy, MAP, direction="src_to_ref")
    assert not np.shares_memory(found, xy)
    np.testing.assert_array_equal(xy, before)
    assert ia.tl.apply_transform(cells(3).tolist(), MAP, direction="src_to_ref").dtype == np.float64
    assert ia.tl.apply_transform(np.empty((0, 2)), MAP, direction="src_to_ref").shape == (0, 2)


def test_a_table_keeps_its_rows_columns_and_index() -> None:
    xy = cells(4)
    table = pd.DataFrame(
        {"gene": list("abba"), "px": xy[:, 0].astype(np.float32), "py": xy[:, 1].astype(int), "x": 1},
        index=[7, 7, 3, 1],
    )
    before = table.copy(deep=True)
    found = ia.tl.apply_transform(table, MAP, direction="src_to_ref", columns=("px", "py"))
    pd.testing.assert_frame_equal(table, before)
    assert list(found.columns) == list(table.columns)
    assert found.index.equals(table.index)
    pd.testing.assert_frame_equal(found[["gene", "x"]], table[["gene", "x"]])
    np.testing.assert_array_equal(found[["px", "py"]], MAP(table[["px", "py"]].to_numpy(float)))
    assert (found.dtypes[["px", "py"]] == np.float64).all()


def test_a_missing_number_in_a_table_stays_missing() -> None:
    table = pd.DataFrame({"x": pd.array([1, None], dtype="Int64"), "y": [2.0, 3.0]})
    found, inside = ia.tl.apply_transform(table, POSE, direction="src_to_ref", return_inside=True)
    np.testing.assert_allclose(found[["x", "y"]].iloc[:1], POSE([[1, 2]]), rtol=1e-12)
    assert found[["x", "y"]].iloc[1].isna().all()
    np.testing.assert_array_equal(inside, [True, False])


def test_an_anndata_is_changed_in_two_places_only() -> None:
    adata = section()
    adata.obs["label"] = "a"
    before = adata.copy()
    ia.tl.apply_transform(adata, MAP, direction="src_to_ref")
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])
    assert set(adata.obsm) == {"spatial", "spatial_aligned"}
    assert adata.uns["inst_align"] == {
        "spatial_aligned": {
            "version": 1,
            "role": "applied",
            "params": {"direction": "src_to_ref", "spatial_key": "spatial"},
        }
    }
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_a_copy_is_asked_for_and_the_original_stays() -> None:
    adata = section()
    found = ia.tl.apply_transform(adata, MAP, direction="src_to_ref", copy=True, key_added="moved")
    np.testing.assert_array_equal(found.obsm["moved"], MAP(cells()))
    assert set(adata.obsm) == {"spatial"} and not adata.uns


def test_the_keys_of_an_anndata_can_be_chosen() -> None:
    adata = section()
    adata.obsm["other"] = np.column_stack([cells(seed=1), np.full(60, 4)])
    ia.tl.apply_transform(adata, MAP, direction="src_to_ref", spatial_key="other", key_added="moved")
    np.testing.assert_array_equal(adata.obsm["moved"], MAP(cells(seed=1)))


def test_what_was_applied_may_be_applied_again_but_no_alignment_is_lost() -> None:
    adata = section()
    for transform in (POSE, MAP):
        ia.tl.apply_transform(adata, transform, direction="src_to_ref")
    np.testing.assert_array_equal(adata.obsm["spatial_aligned"], MAP(cells()))
    fitted = section(inst_align=record())
    fitted.obsm["spatial_aligned"] = np.zeros((60, 2))
    with pytest.raises(ValueError, match="holds the result of a run of its own under this key.*pass another"):
        ia.tl.apply_transform(fitted, MAP, direction="src_to_ref")
    assert not fitted.obsm["spatial_aligned"].any()
    ia.tl.apply_transform(fitted, fitted, direction="src_to_ref", key_added="again")
    assert ia.get.transform(fitted) == MAP


def test_a_users_own_array_is_not_overwritten() -> None:
    adata = section()
    adata.obsm["spatial_aligned"] = np.zeros((60, 2))
    with pytest.raises(ValueError, match="is already there in the source and not this package's own"):
        ia.tl.apply_transform(adata, MAP, direction="src_to_ref")
    assert not adata.obsm["spatial_aligned"].any()


# --- polygons ---------------------------------------------------------------------------------------------------


def test_every_vertex_is_moved_and_the_table_around_it_stays() -> None:
    shapes = geometries()
    before = shapes.copy(deep=True)
    found = ia.tl.apply_transform(shapes, MAP, direction="src_to_ref", max_edge=1e9)
    assert isinstance(found, gpd.GeoDataFrame)
    old, new = (shapely.get_coordinates(each.geometry) for each in (before, found))
    np.testing.assert_array_equal(new, MAP(old))
    assert (shapely.get_type_id(found.geometry) == shapely.get_type_id(before.geometry)).all()
    assert shapely.is_valid(found.geometry.to_numpy()).all()
    assert list(found.columns) == ["name", "geometry"] and found.index.equals(before.index)
    assert shapes.geom_equals_exact(before, 0).all()


def test_a_geometry_column_may_have_any_name_and_other_columns_stay() -> None:
    shapes = geometries().rename_geometry("outline")
    shapes["centre"] = gpd.GeoSeries(shapes.centroid)
    shapes["radius"] = 4.5
    found = ia.tl.apply_transform(shapes, POSE, direction="src_to_ref")
    assert found.geometry.name == "outline"
    assert found["centre"].geom_equals_exact(shapes["centre"], 0).all()
    assert (found["radius"] == 4.5).all()


def test_long_edges_are_divided_so_that_they_bend() -> None:
    low, high = bent().bounds
    corners = shapely.box(*(low + 60), *(high - 60))
    outline = gpd.GeoDataFrame(geometry=[corners])
    truth = shapely.Polygon(bent()(shapely.get_coordinates(shapely.segmentize(corners, 0.5))))

    def miss(**options: Any) -> float:
        found = ia.tl.apply_transform(outline, bent(), direction="src_to_ref", **options)
        return float(shapely.hausdorff_distance(found.geometry.iloc[0], truth))

    assert miss(max_edge=1e9) > 3
    assert miss() < 0.2
    assert miss(max_edge=2.5) < 0.02
    moved = ia.tl.apply_transform(outline, bent(), direction="src_to_ref")
    edges = np.linalg.norm(np.diff(bent().inverse()(shapely.get_coordinates(moved.geometry)), axis=0), axis=1)
    assert edges.max() <= 10 + 1e-6  # the spacing of the grid


def test_an_affine_map_needs_no_more_vertices() -> None:
    shapes = geometries()
    found = ia.tl.apply_transform(shapes, POSE, direction="src_to_ref")
    np.testing.assert_array_equal(
        shapely.get_num_coordinates(found.geometry.to_numpy()), shapely.get_num_coordinates(shapes.geometry.to_numpy())
    )


def test_heights_stay_and_flat_shapes_stay_flat() -> None:
    (x, y), (x2, y2) = cells(2)
    shapes = gpd.GeoDataFrame(geometry=[shapely.Point(x, y, 7), shapely.Point(x2, y2)])
    found = ia.tl.apply_transform(shapes, MAP, direction="src_to_ref")
    assert list(shapely.has_z(found.geometry.to_numpy())) == [True, False]
    np.testing.assert_allclose(
        shapely.get_coordinates(found.geometry.iloc[0], include_z=True), [[*MAP([[x, y]])[0], 7]], rtol=1e-12
    )


def test_empty_and_missing_geometries_stay_and_are_not_inside() -> None:
    shapes = gpd.GeoDataFrame(geometry=[shapely.Polygon(), None, shapely.Point(*cells(1)[0])])
    found, inside = ia.tl.apply_transform(shapes, MAP, direction="src_to_ref", return_inside=True)
    assert found.geometry.iloc[0].is_empty and found.geometry.iloc[1] is None
    np.testing.assert_array_equal(inside, [False, False, True])
    assert len(ia.tl.apply_transform(shapes.iloc[:0], MAP, direction="src_to_ref")) == 0


def test_the_frame_that_spatialdata_notes_is_left_out() -> None:
    shapes = geometries()
    shapes.attrs = {"transform": {"global": "some frame"}, "study": "a"}
    found = ia.tl.apply_transform(shapes, MAP, direction="src_to_ref")
    assert found.attrs == {"study": "a"}
    assert "transform" in shapes.attrs


# --- inside and elsewhere ---------------------------------------------------------------------------------------


def test_inside_is_told_for_each_row_in_both_directions() -> None:
    xy = np.concatenate([MAP(cells(5)), [[2000.0, 0.0], [np.nan, 0.0]]])
    expected = [True] * 5 + [False] * 2
    found, inside = ia.tl.apply_transform(xy, MAP, direction="ref_to_src", return_inside=True)
    np.testing.assert_array_equal(inside, expected)
    assert np.isnan(found[-1]).all()
    np.testing.assert_allclose(found[5], POSE.inverse()([[2000, 0]])[0])  # beyond the grid the map is affine
    back = np.where(np.isnan(found), np.nan, found)
    _, inside = ia.tl.apply_transform(back, MAP, direction="src_to_ref", return_inside=True)
    np.testing.assert_array_equal(inside, expected)


def test_inside_of_an_anndata_comes_beside_none() -> None:
    result, inside = ia.tl.apply_transform(section(), MAP, direction="src_to_ref", return_inside=True)
    assert result is None
    assert inside.shape == (60,) and inside.all()


def test_a_geometry_is_inside_when_all_of_it_is() -> None:
    low, _ = bent().bounds
    shapes = gpd.GeoDataFrame(
        geometry=[shapely.box(*(low + 5), *(low + 9)), shapely.box(*(low - 5), *(low + 9)), shapely.Point(*(low - 5))]
    )
    _, inside = ia.tl.apply_transform(shapes, bent(), direction="src_to_ref", return_inside=True)
    np.testing.assert_array_equal(inside, [True, False, False])


@pytest.mark.parametrize("unit", [0.2, 5.0])
def test_points_in_another_unit_are_warned_of_once(unit: float) -> None:
    with pytest.warns(
        UserWarning, match="none of the 60 points .* lies where the map was fitted .*of the source"
    ) as seen:
        ia.tl.apply_transform(cells() * unit, MAP, direction="src_to_ref")
    assert len(seen) == 1
    assert seen[0].filename == __file__


def test_the_wrong_direction_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="in the unit and the frame of the reference"):
        ia.tl.apply_transform(cells(), MAP, direction="ref_to_src")


def test_a_rigid_map_is_checked_against_the_extent_on_record() -> None:
    extents = {"source": np.array([cells().min(axis=0), cells().max(axis=0)])}
    src = section(inst_align=record(POSE, extents=extents))
    with pytest.warns(UserWarning, match="none of the 60 points"):
        ia.tl.apply_transform(cells() * 5, src, direction="src_to_ref")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ia.tl.apply_transform(cells(), src, direction="src_to_ref")
        ia.tl.apply_transform(cells() * 5, POSE, direction="src_to_ref")  # an affine map alone knows no extent


def test_one_point_within_is_enough_and_none_at_all_is_no_mistake() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ia.tl.apply_transform(np.vstack([cells() * 5, cells(1)]), MAP, direction="src_to_ref")
        ia.tl.apply_transform(np.empty((0, 2)), MAP, direction="src_to_ref")
        ia.tl.apply_transform(np.full((2, 2), np.nan), MAP, direction="src_to_ref")


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "source", None, ""])
def test_a_direction_is_one_of_two_words(direction: Any) -> None:
    with pytest.raises(ValueError, match=r"`direction=.*` is not known; pass 'src_to_ref' .* or 'ref_to_src'"):
        ia.tl.apply_transform(cells(), MAP, direction=direction)


def test_the_direction_is_never_guessed() -> None:
    with pytest.raises(TypeError, match="direction"):
        ia.tl.apply_transform(cells(), MAP)


@pytest.mark.parametrize("data", ["xy", 3, {"x": 1}, pd.Series([1, 2]), None])
def test_another_container_is_named(data: Any) -> None:
    with pytest.raises(TypeError, match=r"`data` is a .*; pass an AnnData, an array of shape \(n, 2\)"):
        ia.tl.apply_transform(data, MAP, direction="src_to_ref")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(3), r"`data` must have shape \(n, 2\), one \(x, y\) per row, but has shape \(3,\)"),
        (np.zeros((4, 3)), r"but has shape \(4, 3\)"),
        ([["a", "b"]], "`data` must hold real numbers"),
    ],
)
def test_an_array_of_another_kind_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ia.tl.apply_transform(data, MAP, direction="src_to_ref")


def test_columns_are_checked() -> None:
    table = pd.DataFrame({"a": [1.0], "b": [2.0], "gene": ["x"]})
    with pytest.raises(KeyError, match="`data` has no column 'x'; it has 'a', 'b', 'gene'"):
        ia.tl.apply_transform(table, POSE, direction="src_to_ref")
    with pytest.raises(ValueError, match="column 'gene' of `data` has dtype object; store numbers"):
        ia.tl.apply_transform(table, POSE, direction="src_to_ref", columns=("a", "gene"))
    for columns in (("a",), "ab"):
        with pytest.raises(ValueError, match="must be the names of two columns"):
            ia.tl.apply_transform(table, POSE, direction="src_to_ref", columns=columns)


@pytest.mark.parametrize("transform", [np.eye(3), None, "map.zarr"])
def test_a_transform_of_another_kind_is_named(transform: Any) -> None:
    with pytest.raises(TypeError, match="`transform` is a .*; pass a map such as"):
        ia.tl.apply_transform(cells(), transform, direction="src_to_ref")


def test_a_record_that_is_not_there_or_not_of_the_source_is_refused() -> None:
    with pytest.raises(KeyError, match="no record of a run"):
        ia.tl.apply_transform(cells(), section(), direction="src_to_ref")
    ref = section(inst_align={"spatial_aligned": {"version": 1, "role": "reference"}})
    with pytest.raises(ValueError, match="pass the source"):
        ia.tl.apply_transform(cells(), ref, direction="src_to_ref")


@pytest.mark.parametrize("max_edge", [0, -1.0, float("nan")])
def test_an_edge_has_a_length(max_edge: float) -> None:
    with pytest.raises(ValueError, match="`max_edge=.*` must be positive"):
        ia.tl.apply_transform(geometries(), MAP, direction="src_to_ref", max_edge=max_edge)


def test_a_missing_key_of_an_anndata_is_named_and_nothing_is_written() -> None:
    adata = section()
    with pytest.raises(KeyError, match=r"no `obsm\['centroids'\]` in the source"):
        ia.tl.apply_transform(adata, MAP, direction="src_to_ref", spatial_key="centroids")
    with pytest.raises(ValueError, match="is also `spatial_key`"):
        ia.tl.apply_transform(adata, MAP, direction="src_to_ref", key_added="spatial")
    assert set(adata.obsm) == {"spatial"} and not adata.uns


def test_a_map_that_folds_has_no_way_back() -> None:
    vectors = np.zeros((2, 7, 7))
    vectors[0, 3, 3], vectors[0, 3, 4] = 9, -9
    folded = Displacement(vectors, (0, 0), 5)
    xy = np.array([[15.0, 15.0]])
    np.testing.assert_allclose(ia.tl.apply_transform(xy, folded, direction="src_to_ref"), [[24, 15]], atol=1e-6)
    with pytest.raises(FoldError):
        ia.tl.apply_transform(xy, folded, direction="ref_to_src")
