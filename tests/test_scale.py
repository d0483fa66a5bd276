"""A factor between units is found, or taken, and becomes part of the map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import inst_align as ia
from inst_align.core import scale as core_scale

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.prepared import PairConfig

PIXELS = 1 / 0.2125


@pytest.fixture
def in_pixels(pair: tuple[AnnData, AnnData]) -> tuple[AnnData, AnnData]:
    """Return the toy pair with the source in pixels."""
    ref, src = pair
    src.obsm["spatial"] = src.obsm["spatial"] * PIXELS
    return ref, src


def run(ref: AnnData, src: AnnData, config: PairConfig, **arguments: Any) -> AnnData:
    known = {"accept": "nonrigid", "config": config, "field": False, "rng": 0, "device": "cpu", "progress": False}
    ia.tl.align_pair(ref, src, **(known | arguments))
    return src


@pytest.mark.usefixtures("coarse_search")
@pytest.mark.parametrize("function", [ia.pp.rigid_align, ia.tl.align_pair, ia.tl.canonical_embed])
def test_two_units_are_refused_with_the_way_out(in_pixels: tuple[AnnData, AnnData], function: Any) -> None:
    with pytest.raises(
        ValueError, match=r"a factor of 4\.\d+ in size and 4\.\d+ in distance; say by `scale` of .*\(0\.2003 makes"
    ):
        function(*in_pixels)
    assert all("inst_align" not in section.uns for section in in_pixels)


@pytest.mark.usefixtures("coarse_search")
def test_the_factor_is_part_of_the_map_and_of_the_record(
    pair: tuple[AnnData, AnnData], in_pixels: tuple[AnnData, AnnData], tiny: PairConfig, toy: tuple[AnnData, AnnData]
) -> None:
    wanted = run(toy[0].copy(), toy[1].copy(), tiny)
    src = run(*in_pixels, tiny, scale=0.2125)
    unit = ia.metrics.spacing(toy[0].obsm["spatial"])
    assert np.abs(src.obsm["spatial_aligned"] - wanted.obsm["spatial_aligned"]).max() < 1e-6 * unit
    transform = ia.get.transform(src)
    assert transform.parts[0].scale == pytest.approx(0.2125)
    np.testing.assert_array_equal(transform(src.obsm["spatial"]), src.obsm["spatial_aligned"])
    np.testing.assert_allclose(transform.inverse()(src.obsm["spatial_aligned"]), src.obsm["spatial"], atol=unit * 1e-3)
    report, params = ia.get.report(src), ia.get.params(src)
    assert (report["scale"], report["scale_method"], params["scale"]) == (0.2125, "given", 0.2125)
    for name in ("spacing_source", "area_change_max", "displacement_median"):  # all in the reference's unit
        assert report[name] == pytest.approx(ia.get.report(wanted)[name], rel=1e-4)


@pytest.mark.usefixtures("coarse_search")
def test_a_recorded_pose_brings_its_factor(in_pixels: tuple[AnnData, AnnData], tiny: PairConfig) -> None:
    ref, src = in_pixels
    ia.pp.rigid_align(ref, src, scale=0.2125, rng=0, device="cpu")
    pose = ia.get.transform(src, "spatial_rigid")
    for scale in (None, 0.2125):
        report = ia.get.report(run(ref, src, tiny, scale=scale))
        assert (report["pose_method"], report["scale_method"]) == ("recorded", "pose")
        assert ia.get.transform(src).parts[0].allclose(pose)
    assert ia.get.report(run(ref, src, tiny, scale=0.22))["pose_method"] == "fft"


def test_a_pose_of_ones_own_brings_its_factor(
    in_pixels: tuple[AnnData, AnnData], tiny: PairConfig, true_pose: np.ndarray
) -> None:
    pose = true_pose @ np.diag([0.2125, 0.2125, 1.0])
    src = run(*in_pixels, tiny, init=pose)
    np.testing.assert_allclose(ia.get.transform(src).parts[0].matrix, pose)
    with pytest.raises(ValueError, match=r"`init` and `scale=0.2` exclude each other.* 0\.2125 here"):
        run(*in_pixels, tiny, init=pose, scale=0.2)
    with pytest.raises(ValueError, match="give `init` the factor"):
        run(*in_pixels, tiny, init=true_pose)


@pytest.mark.usefixtures("coarse_search")
def test_a_factor_the_wrong_way_round_warns(in_pixels: tuple[AnnData, AnnData]) -> None:
    with pytest.warns(UserWarning, match=r"With `scale=4.7\d+` the reference is .*: check the factor"):
        ia.pp.rigid_align(*in_pixels, scale=PIXELS, rng=0, device="cpu")


def test_a_factor_that_leaves_nothing_to_compare_is_refused(
    in_pixels: tuple[AnnData, AnnData], tiny: PairConfig
) -> None:
    with pytest.raises(ValueError, match=r"`scale`: the source would be about .* with the factor 1e\+200"):
        run(*in_pixels, tiny, scale=1e200)
    with pytest.raises(ValueError, match="`init` takes the source to"):
        run(*in_pixels, tiny, init=np.diag([1e9, 1e9, 1.0]))


@pytest.mark.usefixtures("coarse_search")
def test_one_unit_can_be_insisted_on_in_silence(in_pixels: tuple[AnnData, AnnData]) -> None:
    ia.pp.rigid_align(*in_pixels, scale=1, rng=0, device="cpu")
    assert ia.get.transform(in_pixels[1], "spatial_rigid").scale == pytest.approx(1)


@pytest.mark.parametrize("peak", [0.6, 1.0, 1.7])
def test_the_estimate_finds_the_factor_with_the_best_score(
    toy: tuple[AnnData, AnnData], monkeypatch: pytest.MonkeyPatch, peak: float
) -> None:
    from inst_align._anndata import read_pair

    pair = read_pair(*toy)
    unit = pair.src.spacing
    tried = []

    def find_pose(prepared: Any, **_: Any) -> tuple[None, dict[str, float]]:
        factor = prepared.src.spacing / unit
        tried.append(factor)
        return None, {"pose_score": 0.8 - math.log(factor / (0.2 * peak)) ** 2}

    monkeypatch.setattr(core_scale, "find_pose", find_pose)
    generator = torch.Generator().manual_seed(0)
    found = core_scale.estimate_scale(pair.ref, pair.src, start=0.2, generator=generator, device=torch.device("cpu"))
    assert found == pytest.approx(0.2 * peak, rel=0.03)
    assert len(tried) < 16
    assert min(tried) >= 0.1 * (1 - 1e-9)
    assert max(tried) <= 0.4 * (1 + 1e-9)


def test_the_estimate_is_recorded(in_pixels: tuple[AnnData, AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_scale, "estimate_scale", lambda ref, src, **_: 0.21)
    monkeypatch.setattr("inst_align.core.pose.N_PIXELS", 33)
    ref, src = in_pixels
    ia.pp.rigid_align(ref, src, scale="estimate", rng=0, device="cpu")
    report = ia.get.report(src, "spatial_rigid")
    assert (report["scale"], report["scale_method"]) == (0.21, "estimated")
    assert ia.get.params(src, "spatial_rigid")["scale"] == "estimate"


@pytest.mark.parametrize("scale", [0.2125, "estimate"])
def test_a_start_from_other_coordinates_takes_the_factor(
    in_pixels: tuple[AnnData, AnnData], tiny: PairConfig, true_pose: np.ndarray, scale: Any
) -> None:
    ref, src = in_pixels
    src.obsm["by_hand"] = ia.transforms.Affine(true_pose)(src.obsm["spatial"] * 0.2125)
    affine = ia.get.transform(run(ref, src, tiny, init="by_hand", scale=scale)).parts[0]
    np.testing.assert_allclose(affine.matrix, true_pose @ np.diag([0.2125, 0.2125, 1.0]), rtol=1e-6)
    src.obsm["by_hand"][7] = np.nan
    with pytest.raises(ValueError, match=r"`obsm\['by_hand'\]` of the source is NaN or infinite in 1 of 500 cells"):
        run(ref, src, tiny, init="by_hand", scale=scale)


@pytest.mark.usefixtures("coarse_search")
def test_landmarks_of_the_source_are_in_its_own_unit(
    pair: tuple[AnnData, AnnData], toy: tuple[AnnData, AnnData], tiny: PairConfig
) -> None:
    ref, src = pair
    some = slice(0, 500, 60)
    marks = {"landmarks_ref": src.obsm["spatial_true"][some], "landmarks_src": src.obsm["spatial"][some]}
    wanted = run(ref, src, tiny, **marks)
    ref, src = toy[0].copy(), toy[1].copy()
    src.obsm["spatial"] = src.obsm["spatial"] * PIXELS
    marks["landmarks_src"] = marks["landmarks_src"] * PIXELS
    found = run(ref, src, tiny, scale=0.2125, **marks)
    np.testing.assert_allclose(found.obsm["spatial_aligned"], wanted.obsm["spatial_aligned"], atol=1e-3)
    errors = [ia.get.report(each)["landmark_error"] for each in (found, wanted)]
    np.testing.assert_allclose(*errors, atol=1e-4)
    np.testing.assert_array_equal(ia.get.params(found)["landmarks_src"], marks["landmarks_src"])
