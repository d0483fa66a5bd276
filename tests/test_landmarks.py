"""Points are read from whatever holds them, and pairs that cannot be right are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import inst_align as ia
from inst_align._anndata import read_pair
from inst_align._landmarks import read_landmarks, read_pairs, read_points, warn_about_landmarks

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align._anndata import Pair
    from inst_align.core.landmarks import Landmarks

XY = np.array([[1.0, 2.0], [3.0, 5.0], [-4.0, 0.5]])


def geo(xy: np.ndarray, **more: Any) -> Any:
    geopandas = pytest.importorskip("geopandas")
    return geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(*xy.T), **more)


def dask_table(xy: np.ndarray) -> Any:
    dask = pytest.importorskip("dask.dataframe")
    return dask.from_pandas(pd.DataFrame(xy, columns=["x", "y"]), npartitions=2)


FORMS = {
    "array": lambda xy: xy,
    "whole numbers": lambda xy: (2 * xy).astype(int) / 2,
    "lists": lambda xy: xy.tolist(),
    "DataFrame": lambda xy: pd.DataFrame({"z": 0.0, "y": xy[:, 1], "x": xy[:, 0]}),
    "GeoDataFrame": lambda xy: geo(xy, data={"radius": np.ones(len(xy))}),
    "GeoSeries": lambda xy: geo(xy).geometry,
    "dask": dask_table,
}


@pytest.mark.parametrize("form", FORMS)
def test_points_are_the_same_in_any_container(form: str) -> None:
    xy, _ = read_points(FORMS[form](XY), "landmarks_ref")
    np.testing.assert_array_equal(xy, XY)
    assert xy.dtype == np.float64


def test_what_was_given_is_not_shared() -> None:
    xy, _ = read_points(XY, "landmarks_ref")
    assert not np.shares_memory(xy, XY)


def polygons() -> Any:
    return geo(XY).buffer(1.0).to_frame("geometry")


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "three columns": (lambda: np.zeros((4, 3)), ValueError, r"has shape \(4, 3\)"),
    "one point": (lambda: np.zeros(2), ValueError, r"has shape \(2,\)"),
    "nothing": (lambda: [], ValueError, "at least one point"),
    "words": (lambda: [["a", "b"]], ValueError, "holds no numbers"),
    "NaN": (lambda: [[0, 1], [np.nan, 2]], ValueError, r"NaN or infinite in 1 of 2 points \('1'\)"),
    "other columns": (lambda: pd.DataFrame(XY, columns=["axis-0", "axis-1"]), KeyError, "'x', 'y'.*it has 'axis-0'"),
    "polygons": (polygons, TypeError, "holds 'Polygon'.*centroid"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_holds_no_points_is_refused_by_name(bad: str) -> None:
    make, error, words = BAD[bad]
    with pytest.raises(error, match=f"`landmarks_src`.*{words}"):
        read_points(make(), "landmarks_src")


def test_rows_pair_up_in_order_unless_the_same_names_come_in_another_order() -> None:
    other = XY + 10
    named = pd.DataFrame(XY, columns=["x", "y"], index=["hilus", "tip", "vessel"])
    turned = pd.DataFrame(other, columns=["x", "y"], index=named.index).iloc[::-1]
    np.testing.assert_array_equal(read_pairs(named, turned)[1], other)
    renamed = turned.set_axis(["a", "b", "c"])
    np.testing.assert_array_equal(read_pairs(named, renamed)[1], other[::-1])
    twice = turned.set_axis(["tip", "tip", "hilus"])
    np.testing.assert_array_equal(read_pairs(named, twice)[1], other[::-1])
    np.testing.assert_array_equal(read_pairs(named, other)[1], other)


def test_numbers_of_points_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="`landmarks_ref` has 3 points and `landmarks_src` has 2"):
        read_pairs(XY, XY[:2])


# Against the sections


@pytest.fixture(scope="module")
def read(toy: tuple[AnnData, AnnData]) -> Pair:
    return read_pair(*toy)


def true_pairs(read: Pair, toy: tuple[AnnData, AnnData], k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rows = np.linspace(0, len(read.src) - 1, k).astype(int)
    return toy[1].obsm["spatial_true"][rows], read.src.xy[rows]


def read_both(
    ref: Any, src: Any, read: Pair, *, weight: float = 1.0, allow_reflection: bool = False
) -> Landmarks | None:
    return read_landmarks(ref, src, weight, read, allow_reflection=allow_reflection)


def test_none_are_none_and_given_ones_come_as_arrays(read: Pair, toy: tuple[AnnData, AnnData]) -> None:
    assert read_both(None, None, read) is None
    ref, src = true_pairs(read, toy)
    found = read_both(ref, src, read, weight=2)
    assert found is not None
    np.testing.assert_array_equal(found.ref, ref)
    np.testing.assert_array_equal(found.src, src)
    assert found.weight == 2.0


def test_one_side_alone_is_refused(read: Pair) -> None:
    with pytest.raises(ValueError, match="`landmarks_ref` was given without `landmarks_src`"):
        read_both(XY, None, read)
    with pytest.raises(ValueError, match="`landmarks_src` was given without `landmarks_ref`"):
        read_both(None, XY, read)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(read: Pair, toy: tuple[AnnData, AnnData], weight: float) -> None:
    with pytest.raises(ValueError, match=f"`landmark_weight={weight}`"):
        read_both(*true_pairs(read, toy), read, weight=weight)


def test_points_in_other_units_are_refused(read: Pair, toy: tuple[AnnData, AnnData]) -> None:
    ref, src = true_pairs(read, toy)
    with pytest.raises(ValueError, match=r"`landmarks_src`: . of 6 points .* lie far outside of the source"):
        read_both(ref, src * 10, read)
    with pytest.raises(ValueError, match="`landmarks_ref`: 1 of 6 points .rows '2'. lie far outside of the reference"):
        read_both(np.where(np.arange(6)[:, None] == 2, 1e5, ref), src, read)


def test_points_just_outside_of_the_tissue_are_accepted(read: Pair) -> None:
    boxes = [np.vstack([xy.min(axis=0), xy.max(axis=0)]) for xy in (read.ref.xy, read.src.xy)]
    corners = [box + 0.2 * np.ptp(box, axis=0) * [[-1], [1]] for box in boxes]
    assert read_both(*corners, read) is not None


def test_a_mirrored_set_is_refused_unless_a_mirror_image_is_allowed(read: Pair, toy: tuple[AnnData, AnnData]) -> None:
    ref, src = true_pairs(read, toy)
    flipped = 2 * src.mean(axis=0) * [1, 0] + src * [-1, 1]
    with pytest.raises(ValueError, match="`landmarks_src` is a mirror image.*allow_reflection=True"):
        read_both(ref, flipped, read)
    assert read_both(ref, flipped, read, allow_reflection=True) is not None


def test_points_on_a_line_have_no_handedness(read: Pair) -> None:
    line = np.outer([0.2, 0.4, 0.9], np.ptp(read.ref.xy, axis=0)) + read.ref.xy.min(axis=0)
    on_src = line - line.mean(axis=0) + read.src.xy.mean(axis=0)
    assert read_both(line, on_src, read) is not None


def test_pairs_that_end_far_apart_are_told_of_by_row(read: Pair) -> None:
    with pytest.warns(UserWarning, match=r"1 of 3 pairs of landmarks .rows '1'. end more than 5 neighbour.*worst 9.0"):
        warn_about_landmarks({"landmark_error": np.array([1.0, 9.0, 4.9])})
    with pytest.warns(UserWarning, match="1 of 2"):
        warn_about_landmarks({"landmark_error": np.array([1.0, 90.0])}, rigid_in=read)


@pytest.mark.parametrize("report", [{}, {"landmark_error": np.array([1.0, 4.0])}])
def test_nothing_is_told_when_all_is_well(report: dict[str, Any], recwarn: pytest.WarningsRecorder) -> None:
    warn_about_landmarks(report)
    assert not recwarn


def test_a_rigid_map_may_leave_what_the_tissue_is_bent_by(read: Pair, recwarn: pytest.WarningsRecorder) -> None:
    warn_about_landmarks({"landmark_error": np.array([1.0, 8.0])}, rigid_in=read)
    assert not recwarn


# The metric


@dataclass
class Shift:
    by: tuple[float, float]

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        return xy + np.array(self.by)


def test_the_landmark_error_is_the_distance_after_the_map() -> None:
    error = ia.metrics.landmark_error(XY, XY - [3, 4], transform=Shift((3.0, 0.0)), unit=2.0)
    np.testing.assert_allclose(error.distance, 4.0)
    np.testing.assert_allclose(error.relative, 2.0)
    unmoved = ia.metrics.landmark_error(XY, XY - [3, 4])
    np.testing.assert_allclose(unmoved.distance, 5.0)


def test_the_summary_is_in_both_units() -> None:
    error = ia.metrics.landmark_error([[0, 0], [0, 0], [0, 0]], [[1, 0], [2, 0], [6, 0]], unit=2.0)
    assert error.summary() == pytest.approx(
        {
            "n": 3,
            "mean": 3.0,
            "median": 2.0,
            "rms": np.sqrt(41 / 3),
            "max": 6.0,
            "relative_mean": 1.5,
            "relative_median": 1.0,
            "relative_rms": np.sqrt(41 / 3) / 2,
            "relative_max": 3.0,
        }
    )
    plain = ia.metrics.landmark_error([[0, 0]], [[1, 0]])
    assert set(plain.summary()) == {"n", "mean", "median", "rms", "max"}
    with pytest.raises(ValueError, match="`unit` was not given"):
        _ = plain.relative


@pytest.mark.parametrize("unit", [0.0, -1.0, float("nan")])
def test_a_unit_that_is_none_is_refused(unit: float) -> None:
    with pytest.raises(ValueError, match="`unit` must be a positive length"):
        ia.metrics.landmark_error(XY, XY, unit=unit)


def test_a_map_that_loses_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`transform` made points of shape \(2, 2\)"):
        ia.metrics.landmark_error(XY, XY, transform=lambda xy: xy[:2])
    with pytest.raises(ValueError, match="2 numbers of them NaN"):
        ia.metrics.landmark_error(XY, XY, transform=lambda xy: np.where(xy == xy[0], np.nan, xy))
