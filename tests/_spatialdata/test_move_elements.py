from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import dask
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from spatialdata.models import Image3DModel, Labels2DModel, PointsModel, get_channel_names
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

import inst_align as ia
from inst_align._spatialdata.centroids import label_centroids
from inst_align._spatialdata.scales import levels
from inst_align.core.transforms import Affine, Displacement, FoldError

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = "tissue"
PARTS = ["image", "labels", "circles", "polygons", "spots"]


def to_system(element: object, system: str) -> Affine:
    return Affine(get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y")))


def centroids(labels: object, system: str) -> tuple[np.ndarray, np.ndarray]:
    index, xy = label_centroids(levels(labels)[0])
    return index.to_numpy(), to_system(labels, system)(xy)


def pixel_of(raster: object, system: str) -> float:
    return np.linalg.svd(to_system(raster, system).matrix[:2, :2], compute_uv=False).max()


def everything(sdata: sd.SpatialData) -> dict[str, object]:
    """Values and transformations of all elements, to be compared."""
    content = {}
    for _, name, element in sdata.gen_spatial_elements():
        if hasattr(element, "npartitions"):
            values = element.compute()
        elif hasattr(element, "geometry"):
            values = pd.DataFrame(element.drop(columns="geometry")).assign(geometry=element.geometry.to_wkb())
        else:
            values = np.asarray(levels(element)[0].data)
        content[name] = values, repr(get_transformation(element, get_all=True))
    return content


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    for name, (values, transformations) in before.items():
        assert after[name][1] == transformations
        if isinstance(values, pd.DataFrame):
            pd.testing.assert_frame_equal(pd.DataFrame(after[name][0]), pd.DataFrame(values))
        else:
            np.testing.assert_array_equal(after[name][0], values)


def test_lazy_elements_can_be_sent_to_other_processes(section, bend):
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["image", "spots"])
    image, spots = section["image_aligned"].data, section["spots_aligned"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).compute(), image.compute())
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(spots)).compute(), spots.compute())


@pytest.mark.parametrize("scales", [False, True], ids=["one scale", "three scales"])
def test_image_labels_polygons_circles_and_points_end_in_the_same_place(section_of, lattice, bend, scales):
    section = section_of(lattice, scales=scales)
    ids, before = centroids(section["labels"], SYSTEM)
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)
    truth = bend(lattice)
    pixel = pixel_of(section["labels_aligned"], "aligned")
    assert pixel == pytest.approx(4.0)  # the finer side of the 4 x 7 pixels, which the map turns but does not scale

    ids_after, after = centroids(section["labels_aligned"], "aligned")
    np.testing.assert_array_equal(ids_after, ids)
    assert np.hypot(*(after - bend(before)).T).max() < pixel / 2
    assert np.hypot(*(after - truth).T).max() < 1.5 * pixel  # the labels were pixels before they were moved

    discs = section["polygons_aligned"].geometry
    assert np.hypot(*(shapely.get_coordinates(discs.centroid.to_numpy()) - truth).T).max() < pixel
    circles = shapely.get_coordinates(section["circles_aligned"].geometry.to_numpy())
    np.testing.assert_allclose(circles, truth, atol=1e-9)
    np.testing.assert_allclose(np.pi * section["circles_aligned"]["radius"] ** 2, discs.area, rtol=0.02)
    spots = section["spots_aligned"].compute()
    np.testing.assert_allclose(spots[["x", "y"]].to_numpy(), truth, atol=1e-9)

    image, labels = (levels(section[f"{name}_aligned"])[0] for name in ("image", "labels"))
    assert image.shape[1:] == labels.shape
    assert np.mean((image.data[0].compute() > 100) == (labels.data.compute() > 0)) > 0.99
    assert len(levels(section["image_aligned"])) == len(levels(section["labels_aligned"])) == (3 if scales else 1)


def test_each_scale_shows_the_same_section(section_of, lattice, bend):
    section = section_of(lattice, scales=True)
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["image"])
    middles, sizes = [], []
    for level in levels(section["image_aligned"]):
        brightness = level.data[0].compute().astype(float)
        rows, columns = np.indices(brightness.shape) + 0.5
        middle = np.array([(columns * brightness).sum(), (rows * brightness).sum()]) / brightness.sum()
        middles.append(to_system(level, "aligned")(middle[None])[0])
        sizes.append(pixel_of(level, "aligned"))
    np.testing.assert_allclose(middles[1:], [middles[0]] * 2, atol=0.1)
    np.testing.assert_allclose(sizes, [4, 8, 16], rtol=1e-12)  # no row is lost on the way, as with odd numbers of rows


def test_the_full_extent_is_kept(section, bend):
    levels(section["labels"])[0].data = levels(section["labels"])[0].data * 0 + 3
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["labels"])
    moved = section["labels_aligned"].data.compute()
    assert not moved[[0, -1]].any()
    assert not moved[:, [0, -1]].any()
    area = (moved == 3).sum() * pixel_of(section["labels_aligned"], "aligned") ** 2
    outline = shapely.segmentize(shapely.box(0, 0, *section["labels"].shape[::-1]), 1.0)
    true = shapely.transform(shapely.transform(outline, to_system(section["labels"], SYSTEM)), bend)
    assert area == pytest.approx(true.area, rel=2e-3)


def test_moving_there_and_back_returns_every_point(section, lattice, bend):
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["spots", "circles"])
    ia.tl.move_elements(
        section,
        bend,
        coordinate_system="aligned",
        to="back",
        elements=["spots_aligned", "circles_aligned"],
        direction="ref_to_src",
    )
    np.testing.assert_allclose(section["spots_aligned_aligned"].compute()[["x", "y"]], lattice, atol=1e-6)
    np.testing.assert_allclose(section["circles_aligned_aligned"]["radius"], 24.0, rtol=1e-6)


def test_labels_that_go_there_and_back_return(section, bend):
    ids, before = centroids(section["labels"], SYSTEM)
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["labels"])
    ia.tl.move_elements(
        section, bend, coordinate_system="aligned", to="back", direction="ref_to_src", elements=["labels_aligned"]
    )
    ids_back, back = centroids(section["labels_aligned_aligned"], "back")
    np.testing.assert_array_equal(ids_back, ids)
    assert np.hypot(*(back - before).T).max() < 3


def test_a_shift_by_whole_pixels_moves_every_pixel_as_it_is():
    labels = np.arange(35, dtype=np.int16).reshape(5, 7)
    section = sd.SpatialData(labels={"labels": Labels2DModel.parse(labels)})
    ia.tl.move_elements(section, Affine.from_rigid(0, (3, -2)))
    moved = section["labels_aligned"]
    shift = to_system(moved, "aligned").matrix[:2, 2].astype(int)
    column, row = np.array([3, -2]) - shift
    np.testing.assert_array_equal(moved.data[row : row + 5, column : column + 7].compute(), labels)
    assert moved.dtype == np.int16
    assert (moved.data.compute() != 0).sum() == 34


def test_a_map_with_other_units_scales_pixels_and_radii(section, lattice):
    ia.tl.move_elements(section, Affine(np.diag([0.1, 0.1, 1.0])), coordinate_system=SYSTEM)
    assert pixel_of(section["image_aligned"], "aligned") == pytest.approx(0.4)
    np.testing.assert_allclose(section["circles_aligned"]["radius"], 2.4)
    _, places = centroids(section["labels_aligned"], "aligned")
    assert np.hypot(*(places - 0.1 * lattice).T).max() < 0.4


def test_nothing_that_is_there_is_changed_and_new_elements_live_in_the_new_system_alone(section, bend):
    before = everything(section)
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)
    after = everything(section)
    assert_same(before, after)
    assert after.keys() - before.keys() == {f"{name}_aligned" for name in PARTS}
    for name in PARTS:
        assert get_transformation(section[f"{name}_aligned"], get_all=True).keys() == {"aligned"}
    for name in ("circles", "polygons", "spots"):
        assert get_transformation(section[f"{name}_aligned"], "aligned") == Identity()


def test_other_columns_channels_and_types_are_kept(section, bend):
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)
    old, new = section["spots"].compute(), section["spots_aligned"].compute()
    pd.testing.assert_frame_equal(new.drop(columns=["x", "y"]), old.drop(columns=["x", "y"]))
    assert section["spots_aligned"].attrs["spatialdata_attrs"] == {"feature_key": "gene"}
    assert section["spots_aligned"].divisions == section["spots"].divisions
    assert section["circles_aligned"]["kind"].eq("x").all()
    assert section["circles_aligned"].index.equals(section["circles"].index)
    assert list(get_channel_names(section["image_aligned"])) == ["dapi", "other"]
    assert section["image_aligned"].dtype == np.uint8
    assert section["labels_aligned"].dtype == np.int32


def test_points_with_integers_and_a_third_axis_keep_their_depth(bend):
    frame = pd.DataFrame({"x": [10, 200, 300], "y": [40, 50, 600], "z": [1, 2, 3]})
    points = PointsModel.parse(frame, transformations={"global": Scale([2.0, 2.0, 5.0], axes=("x", "y", "z"))})
    section = sd.SpatialData(points={"deep": points})
    ia.tl.move_elements(section, bend)
    moved = section["deep_aligned"].compute()
    np.testing.assert_allclose(moved[["x", "y"]], bend(2 * frame[["x", "y"]].to_numpy()))
    np.testing.assert_array_equal(moved["z"], [5, 10, 15])


def test_long_edges_follow_the_bends(bend):
    import geopandas as gpd
    from spatialdata.models import ShapesModel

    frame = gpd.GeoDataFrame({"geometry": [shapely.box(0, 0, 800, 700)]})
    section = sd.SpatialData(shapes={"region": ShapesModel.parse(frame)})
    ia.tl.move_elements(section, bend)
    exact = shapely.transform(shapely.segmentize(frame.geometry[0], 0.5), bend)
    moved = section["region_aligned"].geometry[0]
    assert shapely.hausdorff_distance(moved, exact) < 0.5
    ia.tl.move_elements(section, bend, max_edge=np.inf, suffix="_coarse")
    assert shapely.get_num_coordinates(section["region_coarse"].geometry[0]) == 5


def test_the_call_computes_nothing(section_of, lattice, bend, nothing_is_computed):
    section = section_of(lattice, scales=True)
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)
    with pytest.raises(AssertionError, match="something was computed"):
        section["spots_aligned"].compute()


def test_a_part_of_a_canvas_looks_at_a_part_of_the_image(monkeypatch, lattice, section_of, bend):
    monkeypatch.setattr("inst_align._spatialdata.rasters.CHUNK", 32)
    section = section_of(lattice)
    whole = section["image"].data.compute()
    seen = np.zeros(whole.shape, dtype=bool)

    def look(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block.size and block_info:
            seen[tuple(slice(*span) for span in block_info[0]["array-location"])] = True
        return block

    section["image"].data = (
        section["image"].data.rechunk((2, 16, 16)).map_blocks(look, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    )
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["image"])
    moved = section["image_aligned"].data
    assert not seen.any()
    row, column = (32 * (length // 64) for length in moved.shape[1:])  # the chunk in the middle
    assert moved[:, row : row + 32, column : column + 32].compute(scheduler="sync").any()
    assert 0 < seen.mean() < 0.2


def test_chunks_make_no_difference(monkeypatch, section_of, lattice, bend):
    whole, tiled = section_of(lattice), section_of(lattice)
    ia.tl.move_elements(whole, bend, coordinate_system=SYSTEM, elements=["image", "labels"])
    monkeypatch.setattr("inst_align._spatialdata.rasters.CHUNK", 90)
    for name in ("image", "labels"):
        tiled[name].data = tiled[name].data.rechunk(50)
    ia.tl.move_elements(tiled, bend, coordinate_system=SYSTEM, elements=["image", "labels"])
    for name in ("image_aligned", "labels_aligned"):
        assert tiled[name].data.numblocks[-1] > 2
        np.testing.assert_array_equal(tiled[name].data.compute(), whole[name].data.compute())


def test_everything_survives_a_file_and_moves_from_a_file(section_of, lattice, bend, tmp_path: Path):
    section = section_of(lattice, scales=True)
    ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)
    expected = everything(section)
    section.write(tmp_path / "section.zarr")
    stored = sd.read_zarr(tmp_path / "section.zarr")
    found = everything(stored)
    for name in PARTS:
        values = found[f"{name}_aligned"][0]
        if isinstance(values, pd.DataFrame):
            pd.testing.assert_frame_equal(
                pd.DataFrame(values), pd.DataFrame(expected[f"{name}_aligned"][0]), check_freq=False, check_like=True
            )
        else:
            np.testing.assert_array_equal(values, expected[f"{name}_aligned"][0])
        assert to_system(stored[f"{name}_aligned"], "aligned").allclose(
            to_system(section[f"{name}_aligned"], "aligned")
        )

    ia.tl.move_elements(stored, bend, coordinate_system=SYSTEM, elements=["image", "spots"], suffix="_again")
    stored.write_element(["image_again", "spots_again"])
    again = everything(sd.read_zarr(tmp_path / "section.zarr"))
    np.testing.assert_array_equal(again["image_again"][0], expected["image_aligned"][0])
    np.testing.assert_array_equal(again["spots_again"][0][["x", "y"]], expected["spots_aligned"][0][["x", "y"]])


def test_a_file_is_not_read_by_the_call(section, bend, tmp_path, nothing_is_computed):
    with dask.config.set(scheduler="sync"):
        section.write(tmp_path / "section.zarr")
        stored = sd.read_zarr(tmp_path / "section.zarr")
    ia.tl.move_elements(stored, bend, coordinate_system=SYSTEM)
    assert "image_aligned" in stored


def test_a_copy_shares_nothing_and_leaves_the_object_alone(section, bend):
    before = everything(section)
    changed = ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, copy=True)
    assert set(everything(section)) == set(before)
    for name in PARTS:
        assert changed[name] is not section[name]
        set_transformation(changed[name], Identity(), "mine")
    changed["circles"]["radius"] = 1.0
    changed.tables["table"].obs["instance"] = 0
    assert_same(before, everything(section))
    assert section["table"].obs["instance"].ne(0).all()


class TestGrid:
    def test_a_pixel_size_is_taken_and_moved_rasters_share_their_grid_lines(self, section, bend):
        ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, pixel_size=10.0, elements=["image", "labels"])
        for name in ("image_aligned", "labels_aligned"):
            matrix = to_system(section[name], "aligned").matrix
            np.testing.assert_allclose(matrix[:2, :2], np.diag([10.0, 10.0]))
            np.testing.assert_allclose(matrix[:2, 2] % 10, 0, atol=1e-9)

    def test_larger_pixels_are_means(self, section):
        rng = np.random.default_rng(0)
        section["image"].data = section["image"].data * 0 + rng.integers(0, 200, section["image"].shape).astype(
            np.uint8
        )
        set_transformation(section["image"], Identity(), SYSTEM)
        ia.tl.move_elements(section, Affine(np.eye(3)), coordinate_system=SYSTEM, pixel_size=8.0, elements=["image"])
        values = section["image_aligned"].data[0, 2:-2, 2:-2].compute().astype(float)
        assert section["image_aligned"].dtype == np.uint8
        assert values.mean() == pytest.approx(section["image"].data[0].compute().mean(), rel=0.02)
        assert values.std() < 15  # of 58 for single pixels

    def test_the_grid_of_another_raster_is_continued_and_never_left_when_cropped(
        self, section, section_of, lattice, bend
    ):
        reference = section_of(lattice)["labels"]
        set_transformation(reference, get_transformation(reference, SYSTEM), "aligned")
        ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, like=reference, elements=["labels"])
        continued = section["labels_aligned"]
        grid, moved = to_system(reference, "aligned"), to_system(continued, "aligned")
        np.testing.assert_allclose(moved.matrix[:2, :2], grid.matrix[:2, :2])
        offset = (moved.inverse() @ grid).matrix[:2, 2]  # the reference's corner, in pixels
        np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)
        assert (offset >= 0).all()
        assert (offset + reference.shape[::-1] <= np.array(continued.shape[::-1]) + 1e-6).all()

        ia.tl.move_elements(
            section, bend, coordinate_system=SYSTEM, like=reference, crop=True, elements=["labels"], suffix="_cropped"
        )
        cropped = section["labels_cropped"]
        assert cropped.shape == reference.shape
        column, row = np.round(offset).astype(int)
        height, width = reference.shape
        part = continued.data[row : row + height, column : column + width].compute()
        assert np.mean(part != cropped.data.compute()) < 1e-3  # ties at the borders of pixels

    def test_a_canvas_that_would_be_enormous_is_refused(self, section, bend):
        with pytest.raises(ValueError, match=r"Moving 'image'.*pass a larger `pixel_size`"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, pixel_size=0.01)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"pixel_size": 0.0}, "`pixel_size=0.0` must be positive"),
            ({"pixel_size": np.inf}, "`pixel_size=inf` must be finite"),
            ({"max_edge": -1.0}, "`max_edge=-1.0` must be positive"),
            ({"crop": True}, "`crop=True` needs `like`"),
        ],
    )
    def test_sizes_that_are_none_are_refused(self, section, bend, arguments, message):
        with pytest.raises(ValueError, match=message):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, **arguments)

    def test_a_grid_and_a_pixel_size_exclude_each_other(self, section, bend):
        with pytest.raises(ValueError, match="exclude each other"):
            ia.tl.move_elements(
                section, bend, coordinate_system=SYSTEM, to=SYSTEM, pixel_size=1.0, like=section["image"]
            )

    def test_a_grid_that_lies_elsewhere_is_refused(self, section, bend):
        with pytest.raises(ValueError, match=r"`like` does not live in `to='aligned'`, only in 'tissue'"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, like=section["image"])


class TestRefused:
    """Whatever is refused leaves nothing behind."""

    @pytest.fixture(autouse=True)
    def unchanged(self, section):
        names = {name for _, name, _ in section.gen_elements()}
        yield
        assert {name for _, name, _ in section.gen_elements()} == names

    def test_a_system_in_which_nothing_lives(self, section, bend):
        with pytest.raises(ValueError, match=r"`coordinate_system='global'`: no element .* are 'tissue'"):
            ia.tl.move_elements(section, bend)

    def test_an_element_that_lives_elsewhere(self, section, bend):
        set_transformation(section["circles"], {"other": Identity()}, set_all=True)
        with pytest.raises(ValueError, match=r"element 'circles' does not live there, only in 'other'"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["image", "circles"])

    def test_a_name_that_is_not_there(self, section, bend):
        with pytest.raises(KeyError, match=r"no 'nuclei' in `sdata`, whose elements are 'circles', 'image'"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements=["nuclei"])

    def test_one_string_of_names(self, section, bend):
        with pytest.raises(TypeError, match="is one string"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, elements="image")

    @pytest.mark.parametrize("suffix", ["", "/x", " "])
    def test_an_impossible_suffix(self, section, bend, suffix):
        with pytest.raises(ValueError, match="cannot end the name"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, suffix=suffix)

    def test_a_name_that_is_taken_whatever_its_case(self, section_of, lattice, bend):
        section = section_of(lattice)
        section["Spots_Aligned"] = section["spots"]
        with pytest.raises(ValueError, match=r"`suffix='_aligned'`: there is 'spots_aligned' already"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)

    def test_a_raster_with_a_z_axis(self, section_of, lattice, bend):
        section = section_of(lattice)
        section["deep"] = Image3DModel.parse(np.zeros((1, 2, 5, 5)), transformations={SYSTEM: Identity()})
        with pytest.raises(ValueError, match=r"'deep' has a z axis"):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM)

    def test_a_map_that_folds_for_images_but_not_for_points(self, section_of, lattice):
        section = section_of(lattice)
        vectors = np.zeros((2, 9, 9))
        vectors[0, 4, 4] = 300
        fold = Displacement(vectors, origin=(100, 100), spacing=75.0)
        with pytest.raises(FoldError) as caught:
            ia.tl.move_elements(section, fold, coordinate_system=SYSTEM)
        assert "name other `elements`" in caught.value.__notes__[0]
        ia.tl.move_elements(section, fold, coordinate_system=SYSTEM, elements=["spots", "circles"])

    def test_something_that_is_no_map(self, section):
        with pytest.raises(TypeError, match=r"`transform` is a numpy.ndarray"):
            ia.tl.move_elements(section, np.eye(3), coordinate_system=SYSTEM)

    def test_a_direction_that_is_not_known(self, section, bend):
        with pytest.raises(ValueError, match=r'pass "src_to_ref" or "ref_to_src"'):
            ia.tl.move_elements(section, bend, coordinate_system=SYSTEM, direction="forward")

    def test_something_that_is_no_spatialdata(self, section, bend):
        with pytest.raises(TypeError, match=r"`sdata` is a anndata.*pass a SpatialData"):
            ia.tl.move_elements(section["table"], bend)
