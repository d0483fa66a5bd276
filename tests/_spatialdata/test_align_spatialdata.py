from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
import torch
from spatialdata.models import TableModel
from spatialdata.transformations import Identity, Scale, Sequence, get_transformation, set_transformation

import inst_align as ia
from inst_align._anndata import read_pair
from inst_align._spatialdata.scales import levels
from inst_align.core.embedding import embed_pair
from inst_align.core.pullback import affine_part

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

SYSTEM = "tissue"
PARTS = {"image", "labels", "circles", "polygons", "spots"}


def matrix(element: object, system: str) -> np.ndarray:
    return get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))


def all_transformations(sdata: sd.SpatialData) -> dict[str, dict[str, str]]:
    return {
        f"{name}/{i}": {system: repr(t) for system, t in get_transformation(level, get_all=True).items()}
        for _, name, element in sdata.gen_spatial_elements()
        for i, level in enumerate(levels(element) if name[:5] in ("image", "label") else [element])
    }


@pytest.fixture
def make_pair(pair, section_of) -> Callable[..., tuple[sd.SpatialData, sd.SpatialData]]:
    def make(**arguments: Any) -> tuple[sd.SpatialData, sd.SpatialData]:
        look = {"radius": 12.0, "pixel": (6.0, 9.0), **arguments}
        ref, src = (section_of(adata.obsm["spatial"], table=adata, **look) for adata in pair)
        return ref, src

    return make


@pytest.fixture
def sections(make_pair) -> tuple[sd.SpatialData, sd.SpatialData]:
    return make_pair()


@pytest.fixture
def quick(tiny, true_pose) -> dict[str, Any]:
    """Arguments of a run that takes a fraction of a second."""
    return {
        "coordinate_system": SYSTEM,
        "config": tiny,
        "init": true_pose,
        "field": False,
        "rng": 0,
        "progress": False,
        "device": "cpu",
    }


@pytest.fixture
def expected(pair, quick) -> tuple[AnnData, AnnData]:
    """The same pair, aligned as AnnData."""
    arguments = {name: value for name, value in quick.items() if name != "coordinate_system"}
    ia.tl.align_pair(*pair, **arguments)
    return pair


def one_object(ref: sd.SpatialData, src: sd.SpatialData) -> sd.SpatialData:
    """Put two sections into one object: coordinate systems "one" and "two", one table with interleaved rows."""
    elements, tables = {}, []
    for sdata, number in ((ref, "one"), (src, "two")):
        for _, name, element in sdata.gen_spatial_elements():
            set_transformation(element, {number: get_transformation(element, SYSTEM)}, set_all=True)
            elements[f"{name}_{number}"] = element
        table = sdata["table"].copy()
        del table.uns["spatialdata_attrs"]
        table.obs["region"] = f"circles_{number}"
        tables.append(table)
    both = anndata.concat(tables)
    both.obs_names_make_unique()
    both = both[np.random.default_rng(0).permutation(both.n_obs)].copy()
    regions = ["circles_one", "circles_two"]
    both.obs["region"] = pd.Categorical(both.obs["region"], categories=regions[::-1])
    elements["table"] = TableModel.parse(both, region=regions, region_key="region", instance_key="instance")
    return sd.SpatialData.init_from_elements(elements)


def test_cells_end_where_align_pair_puts_them_and_the_map_is_on_record(sections, quick, expected):
    assert ia.tl.align_spatialdata(*sections, elements=[], **quick) is None
    for sdata, adata in zip(sections, expected):
        np.testing.assert_allclose(sdata["table"].obsm["spatial_aligned"], adata.obsm["spatial_aligned"], atol=1e-6)
        np.testing.assert_array_equal(sdata["table"].obsm["spatial"], adata.obsm["spatial"])
        assert sdata["table"].obs_names.equals(adata.obs_names)
    assert ia.get.transform(sections[1]["table"]).allclose(ia.get.transform(expected[1]), atol=1e-4)
    assert ia.get.params(sections[1]["table"])["coordinate_system"] == SYSTEM


@pytest.mark.parametrize("region", ["labels", "polygons", "spots"])
def test_places_come_from_whatever_the_table_annotates(make_pair, quick, expected, region):
    ref, src = make_pair(region=region)
    if region == "spots":  # points are found by their index, which starts at 0
        for sdata in (ref, src):
            sdata["table"].obs["instance"] -= 1
    ia.tl.align_spatialdata(ref, src, elements=[], **quick)
    there = ref["table"].obs_names
    off = np.hypot(*(ref["table"].obsm["spatial_aligned"] - expected[0][there].obsm["spatial_aligned"]).T)
    assert len(there) > 450
    assert np.quantile(off, 0.9) < (6 if region == "labels" else 1e-6)  # pixels, and what lies under others
    assert np.isfinite(src["table"].obsm["spatial_aligned"]).all()


def test_elements_move_with_the_cells(sections, quick):
    ia.tl.align_spatialdata(*sections, **quick)
    src = sections[1]
    cells = src["table"].obsm["spatial_aligned"]
    assert set(src.images.keys() | src.labels.keys() | src.shapes.keys() | src.points.keys()) == PARTS | {
        f"{name}_aligned" for name in PARTS
    }
    np.testing.assert_allclose(shapely.get_coordinates(src["circles_aligned"].geometry.to_numpy()), cells, atol=1e-6)
    np.testing.assert_allclose(src["spots_aligned"].compute()[["x", "y"]], cells, atol=1e-6)
    labels = src["labels_aligned"]
    inverse = np.linalg.inv(matrix(labels, "aligned"))
    column, row = (cells @ inverse[:2, :2].T + inverse[:2, 2]).astype(int).T
    hit = labels.data.compute()[row, column] == src["table"].obs["instance"].to_numpy()
    assert hit.mean() > 0.95  # some cells lie under others


@pytest.mark.parametrize("scales", [False, True], ids=["one scale", "three scales"])
def test_the_affine_part_follows_what_each_element_and_scale_has(make_pair, quick, scales):
    ref, src = make_pair(scales=scales)
    before = [all_transformations(sdata) for sdata in (ref, src)]
    ia.tl.align_spatialdata(ref, src, elements=[], **quick)
    affine = affine_part(ia.get.transform(src["table"])).matrix
    for sdata, old, systems in ((ref, before[0], {"aligned", "aligned_affine"}), (src, before[1], {"aligned_affine"})):
        now = all_transformations(sdata)
        assert now.keys() == old.keys()
        for name, kept in old.items():
            assert {system: now[name][system] for system in kept} == kept
            assert now[name].keys() - kept.keys() == systems
    for name in PARTS:
        every = levels(src[name]) if name in ("image", "labels") else [src[name]]
        assert len(every) == (3 if scales and name in ("image", "labels") else 1)
        for element in every:
            np.testing.assert_allclose(matrix(element, "aligned_affine"), affine @ matrix(element, SYSTEM))
        np.testing.assert_allclose(matrix(ref[name], "aligned"), matrix(ref[name], SYSTEM))
        np.testing.assert_allclose(matrix(ref[name], "aligned_affine"), matrix(ref[name], SYSTEM))


def test_the_affine_part_and_the_map_agree_up_to_the_displacement(sections, quick):
    ia.tl.align_spatialdata(*sections, **quick)
    affine, full = (
        shapely.get_coordinates(sections[1].transform_element_to_coordinate_system(name, system).geometry.to_numpy())
        for name, system in (("circles", "aligned_affine"), ("circles_aligned", "aligned"))
    )
    moved = np.hypot(*(affine - full).T)
    assert 0 < np.median(moved) < 200  # the warp of the toy pair is a tenth of its extent


def test_elements_that_were_parsed_with_one_dictionary_of_transformations_stay_apart(sections, quick):
    src = sections[1]
    shared = {SYSTEM: Identity()}
    src["spots"].attrs["transform"] = shared
    src["other"] = src["spots"].copy()
    src["other"].attrs["transform"] = shared
    ia.tl.align_spatialdata(*sections, elements=[], **quick)
    affine = affine_part(ia.get.transform(src["table"])).matrix
    for name in ("spots", "other"):
        np.testing.assert_allclose(matrix(src[name], "aligned_affine"), affine)


def test_two_coordinate_systems_of_one_object(sections, quick, expected):
    sdata = one_object(*sections)
    before = sdata["table"].obs.copy()
    ia.tl.align_spatialdata(sdata, sdata, **{**quick, "coordinate_system": ("one", "two")})
    table = sdata["table"]
    pd.testing.assert_frame_equal(table.obs[before.columns], before)
    assert table.obs["inst_overlap"].notna().all()
    assert table.obs["inst_sd"].notna().sum() == len(expected[1])
    for region, adata in zip(("circles_one", "circles_two"), expected):
        mine = (table.obs["region"] == region).to_numpy()
        order = np.argsort(table.obs["instance"].to_numpy()[mine])
        np.testing.assert_allclose(table.obsm["spatial_aligned"][mine][order], adata.obsm["spatial_aligned"], atol=1e-6)
    assert {f"{name}_two_aligned" for name in PARTS} <= {name for _, name, _ in sdata.gen_elements()}
    assert not [name for _, name, _ in sdata.gen_elements() if name.endswith("_one_aligned")]
    assert ia.get.transform(table).allclose(ia.get.transform(expected[1]), atol=1e-4)


def test_rows_of_other_regions_get_nan_and_keep_their_place(sections, quick, expected):
    src = sections[1]
    table = src["table"].copy()
    elsewhere = np.zeros(table.n_obs, dtype=bool)
    elsewhere[::7] = True
    src["far"] = src["circles"].copy()
    set_transformation(src["far"], {"far": Identity()}, set_all=True)
    table.obs["region"] = pd.Categorical(np.where(elsewhere, "far", "circles"))
    del table.uns["spatialdata_attrs"]
    del src.tables["table"]
    src["table"] = TableModel.parse(table, region=["circles", "far"], region_key="region", instance_key="instance")
    ia.tl.align_spatialdata(*sections, elements=[], **quick)
    aligned = src["table"].obsm["spatial_aligned"]
    np.testing.assert_array_equal(np.isnan(aligned).all(axis=1), elsewhere)
    off = np.hypot(*(aligned - expected[1].obsm["spatial_aligned"])[~elsewhere].T)
    assert np.median(off) < 30  # another fit, of fewer cells


def test_instances_are_found_by_name_and_not_by_position(sections, quick, expected):
    src = sections[1]
    src["circles"] = src["circles"].iloc[::-1]
    ia.tl.align_spatialdata(*sections, elements=["circles"], **quick)
    np.testing.assert_allclose(src["table"].obsm["spatial_aligned"], expected[1].obsm["spatial_aligned"], atol=1e-6)


def test_running_again_replaces_what_it_wrote_itself(sections, quick):
    src = sections[1]
    ia.tl.align_spatialdata(*sections, **quick)
    names = {name for _, name, _ in src.gen_elements()}
    set_transformation(
        src["circles"], Sequence([get_transformation(src["circles"], SYSTEM), Scale([0.5, 0.5], ("x", "y"))]), SYSTEM
    )
    ia.tl.align_spatialdata(*sections, **{**quick, "init": np.asarray(quick["init"]) @ np.diag([2.0, 2, 1])})
    assert {name for _, name, _ in src.gen_elements()} == names
    affine = affine_part(ia.get.transform(src["table"])).matrix
    np.testing.assert_allclose(matrix(src["circles"], "aligned_affine"), affine @ matrix(src["circles"], SYSTEM))
    cells = src["table"].obsm["spatial_aligned"]
    np.testing.assert_allclose(shapely.get_coordinates(src["circles_aligned"].geometry.to_numpy()), cells, atol=1e-6)


def test_a_second_source_is_aligned_to_the_same_reference(sections, quick):
    ref, src = sections
    other = ia.tl.move_elements(src, ia.transforms.Affine(np.eye(3)), coordinate_system=SYSTEM, elements=[], copy=True)
    for each in (src, other):
        ia.tl.align_spatialdata(ref, each, elements=["circles"], **quick)
    np.testing.assert_array_equal(src["table"].obsm["spatial_aligned"], other["table"].obsm["spatial_aligned"])


def test_copies_are_changed_instead(sections, quick):
    before = [all_transformations(sdata) for sdata in sections]
    ref, src = ia.tl.align_spatialdata(*sections, copy=True, **quick)
    assert [all_transformations(sdata) for sdata in sections] == before
    assert all("spatial_aligned" not in sdata["table"].obsm for sdata in sections)
    assert "inst_align" not in sections[1]["table"].uns
    assert "spatial_aligned" in ref["table"].obsm
    assert "circles_aligned" in src


def test_two_sections_of_one_object_are_copied_together(sections, quick):
    sdata = one_object(*sections)
    ref, src = ia.tl.align_spatialdata(
        sdata, sdata, copy=True, elements=[], **{**quick, "coordinate_system": ("one", "two")}
    )
    assert ref is src
    assert ref is not sdata


def test_an_interrupted_run_leaves_no_trace(sections, quick, monkeypatch):
    before = [all_transformations(sdata) for sdata in sections]

    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inst_align._spatialdata.move.moved_points", interrupt)  # after the fit, before the writing
    with pytest.raises(KeyboardInterrupt):
        ia.tl.align_spatialdata(*sections, **quick)
    assert [all_transformations(sdata) for sdata in sections] == before
    for sdata in sections:
        assert "spatial_aligned" not in sdata["table"].obsm
        assert "inst_align" not in sdata["table"].uns


def test_a_run_that_was_interrupted_after_the_fit_is_not_fitted_again(sections, expected, quick, tmp_path, monkeypatch):
    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    kept = quick | {"checkpoint": tmp_path / "state"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inst_align._spatialdata.move.moved_points", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ia.tl.align_spatialdata(*sections, **kept)
    monkeypatch.setattr("inst_align.core.registration._Problem.descend", interrupt)
    ia.tl.align_spatialdata(*sections, **kept)
    found, wanted = sections[1]["table"].obsm["spatial_aligned"], expected[1].obsm["spatial_aligned"]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_all_of_it_survives_files_which_are_not_loaded(make_pair, quick, tmp_path, request):
    stored = []
    for role, sdata in zip(("ref", "src"), make_pair(scales=True)):
        sdata.write(tmp_path / f"{role}.zarr")
        stored.append(sd.read_zarr(tmp_path / f"{role}.zarr"))
    ref, src = stored
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dask.base.compute", lambda *_: pytest.fail("something was computed"))
        patch.setattr("dask.array.Array.compute", lambda *_: pytest.fail("something was computed"))
        ia.tl.align_spatialdata(ref, src, **quick)
    src.write(tmp_path / "moved.zarr")
    ref.write_transformations()
    again, ref_again = sd.read_zarr(tmp_path / "moved.zarr"), sd.read_zarr(tmp_path / "ref.zarr")
    cells = src["table"].obsm["spatial_aligned"]
    np.testing.assert_array_equal(again["table"].obsm["spatial_aligned"], cells)
    assert ia.get.transform(again["table"]) == ia.get.transform(src["table"])
    assert ia.get.report(again["table"]).keys() == ia.get.report(src["table"]).keys()
    np.testing.assert_allclose(again["spots_aligned"].compute()[["x", "y"]], cells, atol=1e-6)
    np.testing.assert_array_equal(levels(again["image_aligned"])[0], levels(src["image_aligned"])[0])
    for name in PARTS:
        np.testing.assert_allclose(matrix(again[name], "aligned_affine"), matrix(src[name], "aligned_affine"))
        np.testing.assert_allclose(matrix(ref_again[name], "aligned"), matrix(ref[name], SYSTEM))
    ia.tl.align_spatialdata(ref_again, again, **quick)  # and what a file says of an earlier run counts


def test_moved_rasters_can_take_the_grid_of_the_reference(sections, quick):
    ref, src = sections
    ia.tl.align_spatialdata(ref, src, like="image", crop=True, elements=["image", "labels"], **quick)
    for name in ("image_aligned", "labels_aligned"):
        assert src[name].sizes["x"] == ref["image"].sizes["x"]
        assert src[name].sizes["y"] == ref["image"].sizes["y"]
        np.testing.assert_allclose(matrix(src[name], "aligned"), matrix(ref["image"], SYSTEM))


class TestRefused:
    """One sentence, before anything is computed, and nothing is changed."""

    @pytest.fixture(autouse=True)
    def unchanged(self, sections, monkeypatch):
        def refuse(*_args: object, **_kwargs: object) -> None:
            raise AssertionError("the fit was begun")

        monkeypatch.setattr("inst_align.tl._align_spatialdata.fit_sections", refuse)
        self.sections = sections
        yield
        for sdata in sections:
            assert "spatial_aligned" not in sdata["table"].obsm

    def refused(self, error: type[Exception], message: str, *sdatas: object, **arguments: Any) -> None:
        before = [all_transformations(sdata) for sdata in self.sections]
        with pytest.raises(error, match=message) as caught:
            ia.tl.align_spatialdata(*(sdatas or self.sections), **{"coordinate_system": SYSTEM, **arguments})
        assert [all_transformations(sdata) for sdata in self.sections] == before
        assert "\n" not in str(caught.value)

    def test_a_system_that_is_not_there(self):
        self.refused(
            ValueError,
            r"`coordinate_system='global'`: nothing that `table='table'` of the reference annotates lives there "
            r"\('circles' in 'tissue'\)",
            coordinate_system="global",
        )

    def test_a_table_that_is_not_there(self):
        self.refused(KeyError, r"`table='cells'`: the source has no such table, only 'table'", table=("table", "cells"))

    @pytest.mark.parametrize("key", ["region", "region_key", "instance_key"])
    def test_a_table_that_annotates_nothing(self, key):
        del self.sections[1]["table"].uns["spatialdata_attrs"][key]
        self.refused(ValueError, rf"`table='table'` of the source annotates no element: .* has no '{key}'")

    def test_a_table_without_annotation(self):
        del self.sections[0]["table"].uns["spatialdata_attrs"]
        self.refused(ValueError, r"`table='table'` of the reference annotates no element")

    @pytest.mark.parametrize("column", ["region", "instance"])
    def test_a_table_that_lost_a_column(self, column):
        del self.sections[1]["table"].obs[column]
        self.refused(KeyError, rf"`table='table'` of the source: no `obs\['{column}'\]`")

    def test_a_table_of_an_element_that_is_gone(self):
        del self.sections[1].shapes["circles"]
        self.refused(KeyError, r"annotates 'circles', but the elements are 'image', 'labels', 'polygons', 'spots'")

    def test_a_table_of_an_image(self):
        table = self.sections[1]["table"]
        table.obs["region"] = pd.Categorical(["image"] * table.n_obs)
        table.uns["spatialdata_attrs"]["region"] = "image"
        self.refused(ValueError, r"annotates the image 'image', which has no instances")

    def test_a_table_whose_regions_do_not_occur(self):
        table = self.sections[1]["table"]
        table.obs["region"] = pd.Categorical(["elsewhere"] * table.n_obs)
        self.refused(ValueError, r"has no row whose `obs\['region'\]` is 'circles'")

    def test_instances_that_the_element_does_not_have(self):
        self.sections[1]["table"].obs["instance"] += 3
        self.refused(ValueError, r"source, region 'circles': 3 of 500 rows name instances .*'501', '502', '503', int64")

    def test_instances_of_another_type(self):
        table = self.sections[1]["table"]
        table.obs["instance"] = table.obs["instance"].astype(str)
        self.refused(ValueError, r"500 of 500 rows name instances .*it has '1', '2', '3' and 497 more, int64")

    def test_instances_that_occur_twice(self):
        circles = self.sections[1]["circles"]
        circles.index = circles.index.where(circles.index != 2, 1)
        self.refused(ValueError, r"1 instances of the element occur more than once \('1'\)")

    def test_one_system_for_both_sections_of_one_object(self):
        self.refused(ValueError, "is both sections of one object", self.sections[0], self.sections[0])

    def test_an_element_of_both_sections(self):
        sdata = one_object(*(sd.SpatialData.init_from_elements(dict(_copied(s))) for s in self.sections))
        set_transformation(sdata["image_one"], Identity(), "two")
        self.refused(ValueError, r"'image_one' live in both", sdata, sdata, coordinate_system=("one", "two"))

    def test_a_name_that_is_taken(self):
        self.sections[1]["spots_x"] = self.sections[1]["spots"]
        self.refused(ValueError, r"`suffix='_x'`: there is 'spots_x' already", suffix="_x")

    def test_a_transformation_of_the_source_that_would_be_replaced(self):
        set_transformation(self.sections[1]["image"], Identity(), "aligned_affine")
        self.refused(ValueError, r"`affine_to='aligned_affine'`: element 'image' of the source has a transformation")

    def test_a_transformation_of_the_reference_that_would_be_replaced(self):
        set_transformation(self.sections[0]["image"], Identity(), "aligned")
        self.refused(ValueError, r"`to='aligned'`: element 'image' of the reference has a transformation")

    def test_systems_of_the_sections_themselves(self):
        self.refused(ValueError, r"`to='tissue'` is the coordinate system of a section", to=SYSTEM)
        self.refused(ValueError, "are both 'aligned'", affine_to="aligned")

    def test_a_grid_that_the_reference_does_not_have(self):
        self.refused(
            KeyError, r"`like='dapi'`: the images and labels of the reference .* are 'image', 'labels'", like="dapi"
        )

    def test_an_element_that_is_not_there(self):
        self.refused(KeyError, r"no 'nuclei' in `sdata_src`", elements=["nuclei"])

    def test_keywords_that_are_not_known(self):
        self.refused(
            TypeError, r"takes no argument 'spatial_key'; it takes accept, allow_reflection", spatial_key="spatial"
        )

    def test_three_names(self):
        self.refused(ValueError, "has 3 names", table=("a", "b", "c"))

    def test_something_that_is_no_spatialdata(self):
        self.refused(
            TypeError, r"`sdata_src` is a anndata.*pass a SpatialData", self.sections[0], self.sections[1]["table"]
        )


def _copied(sdata: sd.SpatialData) -> dict[str, object]:
    from inst_align._spatialdata.elements import copied

    return {name: element for _, name, element in copied(sdata).gen_elements()}


def test_the_tables_can_be_embedded_wherever_their_own_coordinates_are(sections, quick) -> None:
    ref, src = sections
    ia.tl.align_spatialdata(ref, src, **quick)
    tables = ref["table"], src["table"]
    for table in tables:
        table.obsm["spatial"] = np.zeros((table.n_obs, 2))
    ia.tl.canonical_embed(*tables, device="cpu")
    there = read_pair(*tables, spatial_key="spatial_aligned")
    found = embed_pair(there.ref, there.src, device=torch.device("cpu"))
    np.testing.assert_array_equal(tables[0].obsm["X_inst"], found.ref)
    np.testing.assert_array_equal(tables[1].obsm["X_inst"], found.src)
    tables[0].obsm["spatial_aligned"] += 1.0
    with pytest.raises(ValueError, match="the coordinates of the reference are not those that were aligned"):
        ia.tl.canonical_embed(*tables)


def test_each_sections_rows_of_one_table_can_be_embedded(sections, quick) -> None:
    sdata = one_object(*sections)
    ia.tl.align_spatialdata(sdata, sdata, **quick | {"coordinate_system": ("one", "two")})
    table = sdata["table"]
    parts = [table[table.obs["region"] == region].copy() for region in ("circles_one", "circles_two")]
    ia.tl.canonical_embed(*parts, device="cpu")
    assert all(np.isfinite(part.obsm["X_inst"]).all() for part in parts)
