"""What a run records can be written to files, and reads back the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import inst_align as ia
from inst_align._anndata import read_pair, recorded_pose, write_alignment, write_embedding
from inst_align._coordinates import coordinates_hash
from inst_align._record import RECORD_VERSION, plain, read_record
from inst_align.core.alignment import Alignment
from inst_align.transforms import Affine, Compose, Displacement


@dataclass(frozen=True)
class Config:
    steps: int
    window: tuple[float, float]
    name: str | None = None


PARAMS = {
    "key": "spatial",
    "layer": None,
    "rng": np.int64(3),
    "weights": (0.5, 1.0),
    "flag": np.bool_(True),
    "config": Config(steps=10, window=(0.0, 1.0)),
    "names": ["a", "bc"],
    "nothing": [],
    "empty": {},
    "path": Path("a") / "b",
}
PLAIN_PARAMS = {
    "key": "spatial",
    "rng": 3,
    "weights": np.array([0.5, 1.0]),
    "flag": True,
    "config": {"steps": 10, "window": np.array([0.0, 1.0])},
    "names": np.array(["a", "bc"]),
    "nothing": np.array([]),
    "empty": {},
    "path": str(Path("a") / "b"),
}


def assert_same(found: Any, wanted: Any) -> None:
    """Equal in structure, type and value."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, np.ndarray):
        assert found.dtype.kind == wanted.dtype.kind
        assert found.dtype.itemsize == wanted.dtype.itemsize or wanted.dtype.kind == "U"
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found == wanted


def section(n: int, seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(rng.poisson(2.0, (n, 60)).astype(np.float32))
    adata.obsm["spatial"] = rng.random((n, 2)) * 100
    return adata


def alignment() -> Alignment:
    rng = np.random.default_rng(0)
    affine = Affine(np.array([[0.0, -1.0, 3.0], [1.0, 0.0, 4.0], [0.0, 0.0, 1.0]]))
    vectors = rng.normal(scale=0.01, size=(2, 4, 5)).astype(np.float32)
    return Alignment(
        affine=affine,
        transform=Compose((affine, Displacement(vectors, np.array([-120.0, -20.0]), 60.0))),
        report={
            "overlap": 0.93,
            "n_cells": 20,
            "mirror": False,
            "verdict": "good",
            "peaks": [{"angle": 1.0}, {"angle": 2.0}],
        },
        history={"loss": np.array([3.0, 2.0, 1.0])},
        field={"version": 1, "weights": {"layer0": rng.random((3, 4)).astype(np.float32)}},
    )


def aligned_pair() -> tuple[ad.AnnData, ad.AnnData]:
    ref, src = section(25, 1), section(20, 2)
    result = alignment()
    write_alignment(
        ref,
        src,
        key_added="spatial_aligned",
        spatial_key="spatial",
        params=PARAMS,
        alignment=result,
        xy_aligned=result.transform(src.obsm["spatial"]),
    )
    return ref, src


def through_h5ad(adata: ad.AnnData, folder: Path) -> ad.AnnData:
    adata.write_h5ad(folder / "a.h5ad")
    return ad.read_h5ad(folder / "a.h5ad")


def through_zarr(adata: ad.AnnData, folder: Path, version: int = 2) -> ad.AnnData:
    with ad.settings.override(zarr_write_format=version):
        adata.write_zarr(folder / "a.zarr")
    return ad.read_zarr(folder / "a.zarr")


def through_zarr_3(adata: ad.AnnData, folder: Path) -> ad.AnnData:
    return through_zarr(adata, folder, version=3)


def test_plain_leaves_only_what_files_hold() -> None:
    assert_same(plain(PARAMS), PLAIN_PARAMS)


def test_plain_turns_what_is_ragged_or_nested_into_numbered_entries() -> None:
    assert_same(plain([{"a": 1}, {"a": 2}]), {"0": {"a": 1}, "1": {"a": 2}})
    assert_same(plain([[1, 2], [3]]), {"0": np.array([1, 2]), "1": np.array([3])})
    assert_same(plain(["a", 1]), {"0": "a", "1": 1})
    assert_same(plain([(1, 2), (3, 4)]), np.array([[1, 2], [3, 4]]))


def test_plain_copies_arrays_and_changes_nothing() -> None:
    values = {"array": np.zeros(3), "inner": {"none": None}}
    plain(values)["array"][0] = 1
    assert values["array"][0] == 0
    assert values["inner"] == {"none": None}


def test_plain_is_done_after_once() -> None:
    assert_same(plain(plain(PARAMS)), plain(PARAMS))


@pytest.mark.parametrize("value", [torch.zeros(2), {1, 2}, np.array([None]), object(), Config])
def test_plain_refuses_what_a_file_cannot_hold(value: object) -> None:
    with pytest.raises(TypeError, match="A record cannot hold"):
        plain({"value": value})


@pytest.mark.filterwarnings("ignore")  # of anndata and zarr, about formats to come
@pytest.mark.parametrize("through", [through_h5ad, through_zarr, through_zarr_3])
def test_a_result_reads_back_the_same_from_a_file(through: Any, tmp_path: Path) -> None:
    for name, adata in zip(("ref", "src"), aligned_pair(), strict=True):
        (tmp_path / name).mkdir()
        again = through(adata, tmp_path / name)
        assert_same(read_record(again, "spatial_aligned"), read_record(adata, "spatial_aligned"))
        np.testing.assert_array_equal(again.obsm["spatial_aligned"], adata.obsm["spatial_aligned"])
        assert again.obsm["spatial_aligned"].dtype == np.float64
    assert ia.get.transform(again) == alignment().transform
    np.testing.assert_array_equal(ia.get.transform(again)(again.obsm["spatial"]), again.obsm["spatial_aligned"])


def test_the_record_says_who_was_what() -> None:
    ref, src = aligned_pair()
    of_ref, of_src = (read_record(adata, "spatial_aligned") for adata in (ref, src))
    assert of_ref.keys() == {"version", "role", "params"}
    assert of_src.keys() == {
        "version",
        "role",
        "params",
        "coordinates",
        "extents",
        "transform",
        "report",
        "history",
        "field",
    }
    assert (of_ref["role"], of_src["role"]) == ("reference", "source")
    assert of_ref["version"] == of_src["version"] == RECORD_VERSION
    assert_same(of_ref["params"], PLAIN_PARAMS)


def test_the_record_says_where_both_sections_lay() -> None:
    ref, src = aligned_pair()
    extents = read_record(src, "spatial_aligned")["extents"]
    assert extents.keys() == {"reference", "source"}
    for adata, extent in ((ref, extents["reference"]), (src, extents["source"])):
        xy = adata.obsm["spatial"]
        np.testing.assert_array_equal(extent, [xy.min(axis=0), xy.max(axis=0)])


def test_get_gives_back_map_report_and_parameters() -> None:
    ref, src = aligned_pair()
    assert ia.get.transform(src) == alignment().transform
    assert ia.get.report(src)["verdict"] == "good"
    assert ia.get.report(src)["peaks"] == {"0": {"angle": 1.0}, "1": {"angle": 2.0}}
    assert_same(ia.get.params(src), ia.get.params(ref))


def test_what_get_gives_is_a_copy() -> None:
    _, src = aligned_pair()
    ia.get.params(src)["weights"][0] = 9
    ia.get.report(src).other["peaks"]["0"]["angle"] = 9
    assert ia.get.params(src)["weights"][0] == 0.5
    assert ia.get.report(src)["peaks"]["0"]["angle"] == 1.0


@pytest.mark.parametrize("verb", [ia.get.transform, ia.get.report])
def test_asking_the_reference_for_the_map_points_to_the_source(verb: Any) -> None:
    ref, _ = aligned_pair()
    with pytest.raises(ValueError, match="was the reference of this run .* pass the source"):
        verb(ref)


def test_a_missing_record_lists_the_keys_that_are_there() -> None:
    ref, src = aligned_pair()
    with pytest.raises(KeyError, match="no record of a run .* there are records under 'spatial_aligned'"):
        ia.get.transform(src, key="spatial_rigid")
    with pytest.raises(KeyError, match="under none"):
        ia.get.params(section(12, 0))


def test_an_embedding_has_a_record_but_no_map() -> None:
    ref, src = aligned_pair()
    write_embedding(ref, src, key_added="X_inst", z_ref=np.ones((25, 3)), z_src=np.ones((20, 3)), params={"rng": 1})
    assert ia.get.params(ref, key="X_inst") == {"rng": 1}
    with pytest.raises(KeyError, match="holds no transform"):
        ia.get.transform(src, key="X_inst")


@pytest.mark.parametrize(("version", "message"), [(RECORD_VERSION + 1, "install a newer"), ("x", "no version number")])
def test_a_record_of_another_kind_is_not_read(version: object, message: str) -> None:
    _, src = aligned_pair()
    src.uns["inst_align"]["spatial_aligned"]["version"] = version
    with pytest.raises(ValueError, match=message):
        ia.get.transform(src)


def test_a_pose_is_handed_over_only_while_the_coordinates_are_the_same() -> None:
    ref, src = aligned_pair()
    assert recorded_pose(src, read_pair(ref, src), key="spatial_rigid") is None
    assert recorded_pose(src, read_pair(ref, src), key="spatial_aligned") == alignment().transform
    order = np.random.default_rng(0).permutation(len(src))
    shuffled = src[order].copy()
    assert recorded_pose(shuffled, read_pair(ref, shuffled), key="spatial_aligned") == alignment().transform
    ref.obsm["spatial"] = ref.obsm["spatial"] + 1
    assert recorded_pose(src, read_pair(ref, src), key="spatial_aligned") is None


def test_the_hash_is_of_the_points_alone() -> None:
    xy = np.random.default_rng(0).random((30, 2))
    assert coordinates_hash(xy) == coordinates_hash(xy[::-1]) == coordinates_hash(np.asfortranarray(xy))
    assert coordinates_hash(xy) != coordinates_hash(xy[:, ::-1])
    assert coordinates_hash(xy) != coordinates_hash(np.nextafter(xy, 2))
