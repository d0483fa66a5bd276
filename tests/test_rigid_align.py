"""The global pose is found from any start, written to both sections, and recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from anndata import AnnData

import inst_align as ia

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.usefixtures("coarse_search"),
    pytest.mark.filterwarnings('ignore:Verdict "ambiguous pose"'),
]

Pair = tuple[AnnData, AnnData]


def error(ref: AnnData, src: AnnData, key: str = "spatial_rigid") -> float:
    unit = ia.metrics.spacing(ref.obsm["spatial"])
    return float(np.median(ia.metrics.registration_error(src.obsm[key], src.obsm["spatial_true"], unit=unit)))


def rigid_limit(ref: AnnData, src: AnnData, best_rigid_error: Callable[..., float]) -> float:
    best = best_rigid_error(src.obsm["spatial"], src.obsm["spatial_true"]) / ia.metrics.spacing(ref.obsm["spatial"])
    return max(1.5 * best, best + 0.5)


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({"rng": 3}, {}),
        ({"rng": 4, "crop": 0.6}, {}),
        ({"rng": 5, "mirror": True}, {"allow_reflection": True}),
    ],
)
def test_the_pose_is_as_good_as_a_rigid_map_can_be(
    changes: dict[str, Any], arguments: dict[str, Any], best_rigid_error: Callable[..., float]
) -> None:
    ref, src = ia.datasets.toy_pair(n_cells=500, n_genes=80, **changes)
    ia.pp.rigid_align(ref, src, rng=0, device="cpu", **arguments)
    assert error(ref, src) <= rigid_limit(ref, src, best_rigid_error)
    matrix = ia.get.transform(src, "spatial_rigid").matrix
    np.testing.assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, np.eye(2), atol=1e-9)
    assert ia.get.report(src, "spatial_rigid")["mirrored"] is changes.get("mirror", False)


def test_the_icp_of_the_paper_finds_the_pose_of_sections_that_overlap_wholly() -> None:
    ref, src = ia.datasets.toy_pair(n_cells=500, n_genes=80, warp=0.0, rng=6)
    ia.pp.rigid_align(ref, src, method="icp", rng=0, device="cpu")
    assert error(ref, src) < 2
    assert ia.get.report(src, "spatial_rigid")["pose_method"] == "icp"


def test_both_sections_get_coordinates_and_a_record(pair: Pair) -> None:
    ref, src = pair
    assert ia.pp.rigid_align(ref, src, rng=0, device="cpu") is None
    np.testing.assert_array_equal(ref.obsm["spatial_rigid"], ref.obsm["spatial"])
    np.testing.assert_array_equal(
        src.obsm["spatial_rigid"], ia.get.transform(src, "spatial_rigid")(src.obsm["spatial"])
    )
    assert src.obsm["spatial_rigid"].dtype == np.float64
    assert ref.uns["inst_align"]["spatial_rigid"]["role"] == "reference"
    report, params = ia.get.report(src, "spatial_rigid"), ia.get.params(src, "spatial_rigid")
    assert report["pose_method"] == "fft"
    assert 0 < report["pose_runner_up"] < report["pose_score"] < 1
    assert 0.8 < report["pose_overlap"] <= 1
    assert (params["rng"], params["method"], params["device"], params["n_genes"]) == (0, "fft", "cpu", 80)
    assert params == ia.get.params(ref, "spatial_rigid")


def test_a_mirrored_section_is_told_of_when_mirror_images_may_not_win() -> None:
    ref, src = ia.datasets.toy_pair(n_cells=500, n_genes=80, mirror=True, rng=5)
    with pytest.warns(
        UserWarning, match="ambiguous pose.*mirror image of the source fits better .*`allow_reflection=True`"
    ):
        ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    report = ia.get.report(src, "spatial_rigid")
    assert report["mirrored"] is False
    assert report["pose_mirrored_score"] > report["pose_score"]


def test_a_representation_can_be_used_in_place_of_the_genes(pair: Pair, best_rigid_error: Callable[..., float]) -> None:
    ref, src = pair
    for section in pair:
        section.obsm["X_log"] = np.log1p(section.X.toarray()) - np.log1p(section.X.toarray()).mean(axis=0)
    ia.pp.rigid_align(ref, src, use_rep="X_log", rng=0, device="cpu")
    assert error(ref, src) <= rigid_limit(ref, src, best_rigid_error)
    assert ia.get.params(src, "spatial_rigid")["use_rep"] == "X_log"


def test_a_layer_and_another_key_are_used_when_asked_for(pair: Pair) -> None:
    ref, src = pair
    for section in pair:
        section.layers["counts"], section.X = section.X.copy(), None
        section.obsm["xy"] = section.obsm.pop("spatial")
    ia.pp.rigid_align(ref, src, spatial_key="xy", layer="counts", key_added="posed", rng=0, device="cpu")
    np.testing.assert_array_equal(ref.obsm["posed"], ref.obsm["xy"])
    unit = ia.metrics.spacing(ref.obsm["xy"])
    assert np.median(ia.metrics.registration_error(src.obsm["posed"], src.obsm["spatial_true"], unit=unit)) < 4
    assert list(src.uns["inst_align"]) == ["posed"]


def test_an_unknown_method_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match='`method=\'best\'` is not known; pass "fft" or "icp"'):
        ia.pp.rigid_align(*pair, method="best")  # type: ignore[arg-type]


def test_a_second_run_replaces_the_first(pair: Pair) -> None:
    ref, src = pair
    ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    src.obsm["spatial"] = src.obsm["spatial"] + 1000.0
    before = src.obsm["spatial_rigid"].copy()
    ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    np.testing.assert_allclose(src.obsm["spatial_rigid"], before, atol=1e-6 * np.ptp(ref.obsm["spatial"]))


def test_landmarks_settle_a_pose_that_the_expression_leaves_open() -> None:
    ref, src = ia.datasets.toy_pair(n_cells=400, n_genes=60, rng=8)
    for section in (ref, src):  # what is left to go by is noise
        section.X = section.X[np.random.default_rng(section.n_obs).permutation(section.n_obs)]
    rows = [3, 50, 120, 390]
    given = {"landmarks_ref": src.obsm["spatial_true"][rows], "landmarks_src": src.obsm["spatial"][rows]}
    ia.pp.rigid_align(ref, src, rng=0, device="cpu", **given)
    assert error(ref, src) < 8
    report, params = ia.get.report(src, "spatial_rigid"), ia.get.params(src, "spatial_rigid")
    distance = ia.metrics.landmark_error(**given, transform=ia.get.transform(src, "spatial_rigid"))
    np.testing.assert_allclose(report["landmark_error"] * ia.metrics.spacing(ref.obsm["spatial"]), distance.distance)
    np.testing.assert_array_equal(params["landmarks_src"], given["landmarks_src"])
