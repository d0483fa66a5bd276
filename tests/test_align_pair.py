"""The public contract of an alignment: what is written, what is not, what changes the result and what may not."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData

import inst_align as ia
from inst_align._keys import cell_columns
from inst_align.core.paper_config import PaperConfig
from inst_align.core.prepared import PairConfig

if TYPE_CHECKING:
    from collections.abc import Callable

Pair = tuple[AnnData, AnnData]
KEY = "spatial_aligned"


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


def align(ref: AnnData, src: AnnData, config: PairConfig, **arguments: Any) -> np.ndarray:
    """Align copies; return the source's coordinates."""
    arguments = {"rng": 0, "device": "cpu", "progress": False, "config": config, "copy": True} | arguments
    found = ia.tl.align_pair(ref, src, **arguments)
    assert found is not None
    return np.asarray(found[1].obsm[KEY])


def with_xy(adata: AnnData, xy: np.ndarray) -> AnnData:
    adata = adata.copy()
    adata.obsm["spatial"] = xy
    return adata


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one - other, axis=1)


def spacing(adata: AnnData) -> float:
    return ia.metrics.spacing(adata.obsm["spatial"])


def extent(adata: AnnData) -> float:
    return float(np.ptp(adata.obsm["spatial"], axis=0).max())


def assert_unchanged(adata: AnnData, before: AnnData, *, new: str | None = None) -> None:
    """Check that nothing differs from a copy made before, except for what was added under ``new``."""
    assert (adata.X != before.X).nnz == 0
    assert adata.X.dtype == before.X.dtype
    assert list(adata.layers) == list(before.layers)
    pd.testing.assert_frame_equal(adata.obs[before.obs.columns], before.obs)
    columns = set() if new is None else set(cell_columns(new))
    assert set(adata.obs) - set(before.obs) <= columns
    pd.testing.assert_frame_equal(adata.var, before.var)
    added = set() if new is None else {new}
    assert set(adata.obsm) == set(before.obsm) | added
    for key in before.obsm:
        np.testing.assert_array_equal(adata.obsm[key], before.obsm[key])
    assert set(adata.uns) - (set() if new is None else {"inst_align"}) == set(before.uns)
    assert repr(adata.uns["toy"]) == repr(before.uns["toy"])


# What is written


@pytest.fixture(scope="module")
def aligned(toy: Pair, tiny: PairConfig, true_pose: np.ndarray) -> Pair:
    found = ia.tl.align_pair(*toy, config=tiny, init=true_pose, rng=0, device="cpu", progress=False, copy=True)
    assert found is not None
    return found


def test_the_reference_keeps_its_coordinates_and_the_source_gets_those_of_the_map(aligned: Pair) -> None:
    ref, src = aligned
    np.testing.assert_array_equal(ref.obsm[KEY], ref.obsm["spatial"])
    np.testing.assert_array_equal(src.obsm[KEY], ia.get.transform(src)(src.obsm["spatial"]))
    assert src.obsm[KEY].dtype == np.float64


def test_the_record_is_on_both_with_the_outcome_on_the_source(aligned: Pair) -> None:
    ref, src = (section.uns["inst_align"][KEY] for section in aligned)
    assert set(ref) == {"version", "role", "params"}
    assert set(src) >= {"version", "role", "params", "transform", "report", "history", "field"}
    assert (ref["role"], src["role"]) == ("reference", "source")
    params = ia.get.params(aligned[1])
    assert (params["preset"], params["init"], params["rng"]) == ("default", "given", 0)
    assert params["config"]["registration"]["n_pixels"] == 48
    with pytest.raises(ValueError, match="was the reference of this run"):
        ia.get.transform(aligned[0])


def test_cells_are_told_whether_they_have_a_counterpart_and_how_far_off_they_may_be(aligned: Pair) -> None:
    ref, src = aligned
    for section in aligned:
        assert section.obs["inst_overlap"].between(0, 1).all()
        assert section.obs["inst_overlap"].median() > 0.9
    assert (src.obs["inst_sd"] > 0).all()
    assert "inst_sd" not in ref.obs
    report = ia.get.report(src)
    assert report["position_sd_median"] == pytest.approx(src.obs["inst_sd"].median() / spacing(ref))
    assert report["position_sd_median"] <= report["position_sd_p95"]
    assert 0 <= report["inverse_consistency_median"] <= report["inverse_consistency_p95"] < 0.1


def test_another_key_has_columns_of_its_own(pair: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    ref, src = pair
    arguments = {"config": tiny, "init": true_pose, "field": False, "rng": 0, "device": "cpu", "progress": False}
    ia.tl.align_pair(ref, src, key_added="again", **arguments)
    assert {"again_overlap", "again_sd"} <= set(src.obs)
    assert not {"inst_overlap", "inst_sd"} & set(src.obs)


def test_cells_that_the_fit_did_not_see_are_told_nothing(pair: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    ref, src = pair
    src.X = sp.csr_matrix(sp.diags_array((np.arange(src.n_obs) != 7).astype(np.float32)) @ src.X)
    src.X.eliminate_zeros()
    ia.tl.align_pair(
        ref, src, config=tiny, init=true_pose, field=False, rng=0, device="cpu", progress=False
    )  # fmt: skip
    assert np.flatnonzero(src.obs["inst_sd"].isna()).tolist() == [7]
    assert np.flatnonzero(src.obs["inst_overlap"].isna()).tolist() == [7]


def test_a_column_of_the_user_is_not_overwritten(pair: Pair, tiny: PairConfig) -> None:
    ref, src = pair
    src.obs["inst_sd"] = 1.0
    with pytest.raises(
        ValueError, match=r"`obs\['inst_sd'\]` is already there in the source and not this package's own"
    ):
        ia.tl.align_pair(ref, src, config=tiny, progress=False)
    assert (src.obs["inst_sd"] == 1).all()


def test_nothing_is_said_of_the_cells_of_a_poor_pair_and_what_was_said_before_goes(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray
) -> None:
    ref, src = pair
    arguments = {"config": tiny, "init": true_pose, "field": False, "rng": 0, "device": "cpu", "progress": False}
    ia.tl.align_pair(ref, src, **arguments)
    assert src.obs["inst_sd"].notna().all()
    src.X = src.X[np.random.default_rng(0).permutation(src.n_obs)]
    with pytest.warns(UserWarning, match='Verdict "poor"'):
        ia.tl.align_pair(ref, src, **arguments)
    assert src.obs["inst_sd"].isna().all()
    assert ref.obs["inst_overlap"].isna().all()
    assert "position_sd_median" not in ia.get.report(src)


def test_nothing_else_in_the_objects_changes(pair: Pair, toy: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    for section in pair:
        section.layers["raw"] = section.X.copy()
        section.uns["mine"] = {"kept": 1}
    before = [section.copy() for section in pair]
    found = ia.tl.align_pair(*pair, config=tiny, init=true_pose, rng=0, device="cpu", progress=False)
    assert found is None
    for section, old in zip(pair, before, strict=True):
        assert_unchanged(section, old, new=KEY)
    assert list(pair[1].obs_names) == list(toy[1].obs_names)


def test_copies_are_returned_and_the_originals_left_alone(
    toy: Pair, tiny: PairConfig, aligned: Pair, true_pose: np.ndarray
) -> None:
    for original, copy in zip(toy, aligned, strict=True):
        assert_unchanged(copy, original, new=KEY)
        assert KEY not in original.obsm
        assert "inst_align" not in original.uns
        assert copy.obsm["spatial"] is not original.obsm["spatial"]


def test_rows_stay_with_their_names(pair: Pair, tiny: PairConfig, aligned: Pair, true_pose: np.ndarray) -> None:
    ref, src = pair
    order = np.random.default_rng(0).permutation(src.n_obs)
    shuffled = src[order].copy()
    ia.tl.align_pair(ref, shuffled, config=tiny, init=true_pose, rng=0, device="cpu", progress=False)
    by_name = pd.DataFrame(shuffled.obsm[KEY], index=shuffled.obs_names).loc[src.obs_names].to_numpy()
    np.testing.assert_allclose(by_name, aligned[1].obsm[KEY], atol=1e-6 * extent(ref))


def test_the_map_can_be_inverted_and_does_not_fold(aligned: Pair) -> None:
    ref, src = aligned
    transform = ia.get.transform(src)
    back = transform.inverse()(src.obsm[KEY])
    assert np.median(distance(back, src.obsm["spatial"])) < 1e-3 * spacing(ref)
    assert ia.metrics.fold_fraction(transform, src.obsm["spatial"]) == 0
    assert ia.get.report(src)["fold_fraction"] == 0


def test_the_result_is_better_than_the_pose_that_it_started_from(aligned: Pair, true_pose: np.ndarray) -> None:
    ref, src = aligned
    posed = ia.transforms.Affine(true_pose)(src.obsm["spatial"])
    truth = src.obsm["spatial_true"]
    assert np.median(distance(src.obsm[KEY], truth)) < 0.8 * np.median(distance(posed, truth))
    report = ia.get.report(src)
    assert report["feature_correlation"] > report["feature_correlation_rigid"]


def test_a_section_aligned_to_itself_stays_where_it_is(toy: Pair, tiny: PairConfig) -> None:
    ref, _ = toy
    found = align(ref, ref.copy(), tiny, init=np.eye(3), field=False)
    assert distance(found, ref.obsm["spatial"]).mean() < 0.1 * spacing(ref)


def test_identical_sections_need_no_search_and_the_report_says_so(toy: Pair, tiny: PairConfig) -> None:
    ref, _ = toy
    for function, key, more in (
        (ia.pp.rigid_align, "spatial_rigid", {}),
        (ia.tl.align_pair, KEY, {"config": tiny, "accept": "nonrigid", "field": False, "progress": False}),
    ):
        _, src = function(ref, ref.copy(), rng=0, device="cpu", copy=True, **more)
        assert ia.get.report(src, key)["pose_method"] == "identical"
        transform = ia.get.transform(src, key)
        np.testing.assert_array_equal(getattr(transform, "parts", (transform,))[0].matrix, np.eye(3))


def test_few_cells_are_aligned_rigidly_and_have_an_embedding(toy: Pair, true_pose: np.ndarray) -> None:
    ref, src = toy[0].copy(), toy[1][:40].copy()
    with pytest.warns(UserWarning, match="The source has 40 cells, too few for a non-rigid map"):
        ia.tl.align_pair(ref, src, init=true_pose, rng=0, device="cpu", progress=False)
    assert ia.get.transform(src) == ia.transforms.Affine(true_pose)
    ia.tl.canonical_embed(ref, src)
    assert src.obsm["X_inst"].shape == (40, ref.obsm["X_inst"].shape[1])


def test_cells_that_are_left_out_of_the_fit_are_moved_by_the_map(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray, toy: Pair
) -> None:
    ref, src = pair
    empty, stray = [10, 20], [30]
    counts = src.X.toarray()
    counts[empty] = 0
    src.X = sp.csr_matrix(counts)
    src.obsm["spatial"][stray] += 1e5
    fitted = np.setdiff1d(np.arange(src.n_obs), empty + stray)
    with pytest.warns(UserWarning, match="1 of 500 cells of the source lie far from all others"):
        found = align(ref, src, tiny, init=true_pose)
    wanted = align(ref, src[fitted].copy(), tiny, init=true_pose)
    np.testing.assert_array_equal(found[fitted], wanted)
    # not far from where they were put when they took part; and by the rigid part of the map out there
    whole = align(*toy, tiny, init=true_pose)
    assert distance(found[empty], whole[empty]).max() < spacing(ref)
    posed = ia.transforms.Affine(true_pose)(src.obsm["spatial"][stray])
    np.testing.assert_allclose(found[stray], posed)


# Randomness and global state


FIRST_CALL = """
import torch
import inst_align as ia

torch.set_num_threads(3)
ia.pp.rigid_align(*ia.datasets.toy_pair(n_cells=200, n_genes=40, rng=0), rng=0, device="cpu")
print(torch.get_num_threads())
"""


def test_the_first_call_of_a_process_leaves_the_threads_alone() -> None:
    """The first parallel function of numba that scanpy calls tells OpenMP another number."""
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


@pytest.mark.usefixtures("coarse_search")
@pytest.mark.parametrize("name", ["rigid_align", "align_pair"])
def test_the_same_integer_gives_the_same_bits_and_global_state_is_left_alone(
    pair: Pair, tiny: PairConfig, name: str
) -> None:
    function: Callable[..., Any] = {"rigid_align": ia.pp.rigid_align, "align_pair": ia.tl.align_pair}[name]
    key = {"rigid_align": "spatial_rigid", "align_pair": KEY}[name]
    more: dict[str, Any] = {} if name == "rigid_align" else {"config": tiny, "progress": False, "init": "search"}
    results = []
    torch.set_num_threads(2)
    for seed in (11, 12):  # whatever the global state is
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: NPY002
        others = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), list(warnings.filters))
        ref, src = function(*pair, rng=5, device="cpu", copy=True, **more)
        after = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: NPY002
        assert after == before
        assert others == (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            list(warnings.filters),
        )
        results.append((src.obsm[key], ia.get.transform(src, key), src.uns["inst_align"][key]))
    torch.set_num_threads(1)
    (xy, transform, record), (xy_again, transform_again, record_again) = results
    np.testing.assert_array_equal(xy, xy_again)
    assert transform == transform_again
    assert record["report"] == record_again["report"]
    assert_same_tree(record, record_again)


def assert_same_tree(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_tree(one[key], other[key])
    else:
        np.testing.assert_array_equal(one, other)


def test_another_seed_and_a_generator_are_taken(pair: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    one, two = (align(*pair, tiny, init=true_pose, rng=np.random.default_rng(0)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    by_generator, by_seed, by_another = (
        ia.tl.align_pair(*pair, config=tiny, init=true_pose, rng=rng, copy=True, progress=False)[1]
        for rng in (np.random.default_rng(0), 0, 1)
    )
    assert "rng" not in ia.get.params(by_generator)
    assert [ia.get.params(src)["rng"] for src in (by_seed, by_another)] == [0, 1]
    fields = [ia.get.field(src).predict(one[:9]) for src in (by_seed, by_another)]
    assert not np.array_equal(*fields)  # on few genes the map is the same for all seeds


def test_progress_is_silent_when_turned_off_or_not_on_a_terminal_and_nothing_is_printed(
    pair: Pair,
    tiny: PairConfig,
    true_pose: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    for show in (False, True):
        align(*pair, tiny, init=true_pose, progress=show)
        assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    align(*pair, tiny, init=true_pose, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "step" in shown.err


# What may not change the result


@pytest.mark.usefixtures("coarse_search")
def test_order_place_units_and_angle_of_the_input_do_not_matter(pair: Pair, tiny: PairConfig) -> None:
    ref, src = pair
    xy_ref, xy_src = ref.obsm["spatial"], src.obsm["spatial"]
    wanted = align(ref, src, tiny)

    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(src.n_obs), rng.permutation(src.n_vars)
    permuted = align(ref[rng.permutation(ref.n_obs)].copy(), src[rows][:, columns].copy(), tiny)
    assert distance(permuted, wanted[rows]).max() < 1e-6 * extent(ref)

    shift = np.array([12345.6, -9876.5])
    shifted = align(with_xy(ref, xy_ref + shift), with_xy(src, xy_src - 2 * shift), tiny)
    assert distance(shifted - shift, wanted).max() < 1e-5 * extent(ref)

    for unit in (0.3467, 1e6):
        scaled = align(with_xy(ref, xy_ref * unit), with_xy(src, xy_src * unit), tiny)
        assert distance(scaled / unit, wanted).max() < 1e-5 * extent(ref)

    turn = rotation(127)
    turned = align(ref, with_xy(src, xy_src @ turn.T), tiny)
    assert np.median(distance(turned, wanted)) < 0.05 * spacing(ref)
    with_turned_ref = align(with_xy(ref, xy_ref @ turn.T), src, tiny)
    assert np.median(distance(with_turned_ref @ turn, wanted)) < 0.05 * spacing(ref)


def lattice_pair(*, hexagonal: bool) -> Pair:
    """Spots on a full lattice, as many platforms have them, with smooth expression; the source is turned by 25 degrees."""
    column, row = (index.ravel() for index in np.meshgrid(np.arange(22.0), np.arange(16.0)))
    xy = np.column_stack([column, row])
    if hexagonal:
        xy = np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2])
    waves = np.random.default_rng(0)
    rate = 2 * np.exp(np.sin(xy @ waves.normal(size=(2, 60)) / 5 + waves.uniform(0, 6, 60)))
    sections = []
    for seed, turn in ((1, 0.0), (2, 25.0)):
        section = AnnData(sp.csr_matrix(np.random.default_rng(seed).poisson(rate).astype(np.float32)))
        section.obsm["spatial"] = xy @ rotation(turn).T
        sections.append(section)
    return sections[0], sections[1]


@pytest.mark.filterwarnings("ignore:The non-rigid map agrees no better")
@pytest.mark.parametrize("hexagonal", [True, False])
def test_place_and_units_do_not_matter_on_a_lattice_either(tiny: PairConfig, hexagonal: bool) -> None:
    ref, src = lattice_pair(hexagonal=hexagonal)
    xy_ref, xy_src = ref.obsm["spatial"], src.obsm["spatial"]
    pose = np.eye(3)
    pose[:2, :2] = rotation(-25)
    wanted = align(ref, src, tiny, init=pose)
    for unit, shift in ((1.0, np.array([123.4, -87.65])), (0.3467, np.zeros(2)), (55.1, np.array([1e4, 2e4]))):
        moved_pose = np.eye(3)
        moved_pose[:2, :2], moved_pose[:2, 2] = pose[:2, :2], shift
        found = align(with_xy(ref, xy_ref * unit + shift), with_xy(src, xy_src * unit), tiny, init=moved_pose)
        assert distance((found - shift) / unit, wanted).max() < 1e-5 * extent(ref)


# The start


@pytest.mark.usefixtures("coarse_search")
def test_a_recorded_pose_is_used_while_the_coordinates_are_the_same_and_not_after(
    pair: Pair, tiny: PairConfig, caplog: pytest.LogCaptureFixture
) -> None:
    ref, src = pair
    arguments: dict[str, Any] = {"config": tiny, "rng": 0, "device": "cpu", "progress": False, "field": False}
    arguments["accept"] = "nonrigid"  # the pose as it was recorded, not polished
    ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    pose = ia.get.transform(src, "spatial_rigid")
    with caplog.at_level(logging.INFO, "inst_align"):
        ia.tl.align_pair(ref, src, **arguments)
    assert "pose recorded by rigid_align" in caplog.text
    assert ia.get.report(src)["pose_method"] == "recorded"
    assert ia.get.transform(src).parts[0] == pose

    ia.tl.align_pair(ref, src, init="search", **arguments)
    assert ia.get.report(src)["pose_method"] == "fft"

    for changed in pair:
        original = changed.obsm["spatial"]
        changed.obsm["spatial"] = original + 1.0
        ia.tl.align_pair(ref, src, **arguments)
        assert ia.get.report(src)["pose_method"] == "fft"
        changed.obsm["spatial"] = original
    ia.tl.align_pair(ref, src, **arguments)
    assert ia.get.report(src)["pose_method"] == "recorded"


def test_a_pose_may_be_given_as_a_matrix_or_an_affine(
    toy: Pair, tiny: PairConfig, true_pose: np.ndarray, aligned: Pair
) -> None:
    for init in (true_pose.tolist(), ia.transforms.Affine(true_pose)):
        np.testing.assert_array_equal(align(*toy, tiny, init=init), aligned[1].obsm[KEY])
    assert ia.get.report(aligned[1])["pose_method"] == "given"
    np.testing.assert_array_equal(ia.get.transform(aligned[1]).parts[0].matrix, true_pose)


@pytest.mark.parametrize("init", ["best", np.eye(2), np.full((3, 3), np.nan), np.zeros((3, 3)), 3.5])
def test_a_start_that_is_none_is_refused_by_name(toy: Pair, init: Any) -> None:
    with pytest.raises((KeyError, ValueError, TypeError), match="`init"):
        ia.tl.align_pair(*toy, init=init, progress=False)


# Landmarks


def marks(pair: Pair, k: int = 8) -> dict[str, Any]:
    """Points that belong together, as they are in truth."""
    rows = np.random.default_rng(0).permutation(pair[1].n_obs)[:k]
    ref, src = pair[1].obsm["spatial_true"][rows], pair[1].obsm["spatial"][rows]
    return {"landmarks_ref": pd.DataFrame(ref, columns=["x", "y"]), "landmarks_src": src}


@pytest.mark.parametrize("field", [False, True])
def test_landmarks_bring_their_surroundings_nearer_to_the_truth_and_are_recorded(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray, field: bool
) -> None:
    ref, src = pair
    given = marks(pair)
    arguments: dict[str, Any] = {"config": tiny, "init": true_pose, "rng": 0, "device": "cpu", "progress": False}
    ia.tl.align_pair(ref, src, field=field, **arguments)
    without = ia.metrics.landmark_error(**given, transform=ia.get.transform(src))
    ia.tl.align_pair(ref, src, field=field, **given, landmark_weight=5, **arguments)
    error = ia.metrics.landmark_error(**given, transform=ia.get.transform(src), unit=spacing(ref))
    assert error.summary()["mean"] < 0.8 * without.summary()["mean"]
    report, params = ia.get.report(src), ia.get.params(src)
    np.testing.assert_allclose(report["landmark_error"], error.relative)
    assert report["landmark_error_median"] == pytest.approx(error.summary()["relative_median"])
    assert report["landmark_error_max"] == pytest.approx(error.summary()["relative_max"])
    assert report["landmark_error_rigid_median"] > report["landmark_error_median"]
    assert report["pose_method"] == "given"
    np.testing.assert_array_equal(params["landmarks_ref"], given["landmarks_ref"])
    np.testing.assert_array_equal(params["landmarks_src"], given["landmarks_src"])
    assert params["landmark_weight"] == 5


def test_landmarks_without_weight_are_only_reported(
    pair: Pair, tiny: PairConfig, aligned: Pair, true_pose: np.ndarray
) -> None:
    found = align(*pair, tiny, init=true_pose, **marks(pair), landmark_weight=0)
    np.testing.assert_array_equal(found, aligned[1].obsm[KEY])


@pytest.mark.usefixtures("coarse_search")
def test_landmarks_call_for_a_new_search_of_the_pose(pair: Pair, tiny: PairConfig) -> None:
    ref, src = pair
    ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    arguments: dict[str, Any] = {"config": tiny, "field": False, "rng": 0, "device": "cpu", "progress": False}
    ia.tl.align_pair(ref, src, **marks(pair), **arguments)
    assert ia.get.report(src)["pose_method"] == "fft"
    ia.tl.align_pair(ref, src, **marks(pair), landmark_weight=0, **arguments)
    assert ia.get.report(src)["pose_method"] == "recorded"


def test_landmarks_that_no_rigid_map_brings_together_bend_a_section_whose_expression_says_nothing(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray
) -> None:
    ref, src = pair
    for section in pair:
        section.X = section.X[np.random.default_rng(section.n_obs).permutation(section.n_obs)]
    given = marks(pair, 20)
    arguments: dict[str, Any] = {"config": tiny, "init": true_pose, "field": False, "rng": 0, "device": "cpu"}
    with pytest.warns(UserWarning, match='Verdict "poor"'):
        ia.tl.align_pair(ref, src, **given, landmark_weight=0, **arguments, progress=False)
    assert ia.get.report(src)["displacement_max"] == 0
    without = np.median(distance(src.obsm[KEY], src.obsm["spatial_true"]))
    ia.tl.align_pair(ref, src, **given, **arguments, progress=False)
    report = ia.get.report(src)
    assert (report["verdict"], report["landmarks_ask_for_bending"]) == ("poor", True)
    assert np.median(distance(src.obsm[KEY], src.obsm["spatial_true"])) < 0.8 * without


def test_pairs_in_the_wrong_order_are_told_of(pair: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    given = marks(pair)
    given["landmarks_src"] = np.roll(given["landmarks_src"], 1, axis=0)
    with pytest.warns(UserWarning, match="8 of 8 pairs of landmarks .* check them"):
        align(*pair, tiny, init=true_pose, field=False, **given)


def test_the_presets_and_methods_that_know_no_landmarks_say_so(toy: Pair) -> None:
    with pytest.raises(ValueError, match='`landmarks_ref` does not go with `preset="paper"`'):
        ia.tl.align_pair(*toy, preset="paper", **marks(toy), progress=False)
    with pytest.raises(ValueError, match='`landmarks_ref` does not go with `method="icp"`'):
        ia.pp.rigid_align(*toy, method="icp", **marks(toy))


# Failure


STAGES = [
    "inst_align.core.prepared.SharedFeatures.of_pair",
    "inst_align.core.fit.register",
    "inst_align.core.fit.fit_field",
    "inst_align.core.fit.user_displacement",
    "inst_align.core.fit.map_report",
    "inst_align.core.transforms.to_dict",
]


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_written_when_a_stage_fails(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(stage)

    before = [section.copy() for section in pair]
    monkeypatch.setattr(stage, fail)
    with pytest.raises(RuntimeError, match=stage):
        ia.tl.align_pair(*pair, config=tiny, init=true_pose, rng=0, device="cpu", progress=False)
    for section, old in zip(pair, before, strict=True):
        assert_unchanged(section, old)


def test_nothing_is_written_when_the_user_interrupts(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(bar: Any, n: float = 1) -> None:
        raise KeyboardInterrupt

    before = [section.copy() for section in pair]
    monkeypatch.setattr("tqdm.auto.tqdm.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ia.tl.align_pair(*pair, config=tiny, init=true_pose, rng=0, device="cpu", progress=False)
    for section, old in zip(pair, before, strict=True):
        assert_unchanged(section, old)


def test_an_earlier_result_survives_a_run_that_fails(
    toy: Pair, aligned: Pair, tiny: PairConfig, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, src = (section.copy() for section in aligned)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("inst_align.core.fit.register", fail)
    with pytest.raises(RuntimeError):
        ia.tl.align_pair(ref, src, config=tiny, init=true_pose, rng=1, progress=False)
    np.testing.assert_array_equal(src.obsm[KEY], aligned[1].obsm[KEY])
    assert ia.get.params(src)["rng"] == 0


def drop_spatial(adata: AnnData) -> AnnData:
    del adata.obsm["spatial"]
    return adata


def change_xy(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[AnnData], AnnData]:
    return lambda adata: with_xy(adata, change(adata.obsm["spatial"]))


def with_nan(xy: np.ndarray) -> np.ndarray:
    xy = xy.copy()
    xy[[3, 7], 1] = np.nan
    return xy


def nan_in_x(adata: AnnData) -> AnnData:
    adata.X.data[:5] = np.nan
    return adata


def rename_genes(names: Callable[[list[str]], list[str]]) -> Callable[[AnnData], AnnData]:
    def rename(adata: AnnData) -> AnnData:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            adata.var_names = names(list(adata.var_names))
        return adata

    return rename


BAD: dict[str, tuple[Callable[[AnnData], Any], type[Exception], str]] = {
    "missing spatial key": (drop_spatial, KeyError, r"`spatial_key='spatial'`: no `obsm\['spatial'\]` in the {role}"),
    "three columns": (change_xy(lambda xy: np.column_stack([xy, xy[:, 0]])), ValueError, "of the {role} has 3 columns"),
    "one column": (change_xy(lambda xy: xy[:, :1]), ValueError, "of the {role} has 1 columns"),
    "NaN coordinates": (change_xy(with_nan), ValueError, "of the {role} is NaN or infinite in 2 of 500 cells"),
    "no shared genes": (
        rename_genes(lambda names: [f"other_{name}" for name in names]),
        ValueError,
        "`adata_ref` and `adata_src` share no gene names",
    ),
    "fewer than ten cells": (lambda adata: adata[:9].copy(), ValueError, "the {role} has 9 cells, .* at least 10"),
    "collinear coordinates": (
        change_xy(lambda xy: np.column_stack([xy[:, 0], 2 * xy[:, 0] + 1])),
        ValueError,
        "of the 500 cells of the {role} lie on one line",
    ),
    "duplicated var_names": (
        rename_genes(lambda names: [names[1], *names[1:]]),
        ValueError,
        "`var_names` of the {role}: 1 gene names occur more than once",
    ),
    "NaN in X": (nan_in_x, ValueError, "expression of the {role} is NaN or infinite in 5 values"),
    "no AnnData": (lambda adata: adata.to_df(), TypeError, "`adata_{role:.3}` is a pandas.*DataFrame; pass an AnnData"),
}

PUBLIC: dict[str, Callable[..., Any]] = {
    "rigid_align": ia.pp.rigid_align,
    "align_pair": ia.tl.align_pair,
    "canonical_embed": ia.tl.canonical_embed,
}


@pytest.mark.parametrize("role", ["reference", "source"])
@pytest.mark.parametrize("function", list(PUBLIC))
@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_gets_one_sentence_and_nothing_is_written(toy: Pair, case: str, function: str, role: str) -> None:
    spoil, kind, message = BAD[case]
    sections: list[Any] = [section.copy() for section in toy]
    which = 0 if role == "reference" else 1
    sections[which] = spoil(sections[which])
    short = message.replace("{role:.3}", {"reference": "ref", "source": "src"}[role]).replace("{role}", role)
    with pytest.raises(kind, match=short) as caught:
        PUBLIC[function](*sections)
    text = str(caught.value.args[0])
    assert text.endswith(".")
    assert "\n" not in text
    for section in sections:
        if isinstance(section, AnnData):
            assert "inst_align" not in section.uns
            assert not {KEY, "spatial_rigid", "X_inst"} & set(section.obsm)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("function", list(PUBLIC))
def test_a_device_that_is_not_there_is_refused(toy: Pair, function: str) -> None:
    with pytest.raises(ValueError, match="`device='cuda'`: there are 0 CUDA devices"):
        PUBLIC[function](*toy, device="cuda")


@pytest.mark.gpu
def test_a_cuda_device_gives_the_result_of_the_cpu(toy: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    on_cpu, on_gpu = (align(*toy, tiny, init=true_pose, device=device) for device in ("cpu", "cuda"))
    assert np.median(distance(on_cpu, on_gpu)) < 0.05 * spacing(toy[0])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"preset": "fast"}, ValueError, '`preset=\'fast\'` is not known; pass "default" or "paper"'),
        ({"config": PaperConfig()}, TypeError, '`config` is a PaperConfig, but `preset="default"` takes a PairConfig'),
        ({"config": {"n_components": 3}}, TypeError, "`config` is a dict"),
        ({"preset": "paper", "config": PairConfig()}, TypeError, "takes a PaperConfig"),
        ({"preset": "paper", "field": False}, ValueError, "`field=False` does not go with"),
        ({"normalize": "yes"}, ValueError, "`normalize='yes'` is not known"),
        ({"use_rep": "X_pca"}, KeyError, "`use_rep='X_pca'`: no"),
        ({"layer": "raw"}, KeyError, "`layer='raw'`: no"),
        ({"device": "tpu"}, ValueError, "`device='tpu'`"),
        ({"rng": -1}, ValueError, "`rng=-1` is no source of randomness"),
        ({"rng": "zero"}, (TypeError, ValueError), "`rng='zero'` is no source of randomness"),
    ],
)
def test_arguments_that_are_not_known_are_refused(
    toy: Pair, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ia.tl.align_pair(*toy, progress=False, **arguments)


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("function", ["rigid_align", "align_pair"])
@pytest.mark.parametrize(("key", "message"), [("mine", "is already there"), ("spatial", "is also `spatial_key`")])
def test_a_key_that_would_destroy_input_is_refused_before_the_work_starts(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, key: str, message: str, function: str, copy: bool
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("inst_align.core.fit.fit_pose", never)
    monkeypatch.setattr("inst_align.core.fit.fit_pair", never)
    pair[1].obsm["mine"] = np.zeros((500, 2))
    with pytest.raises(ValueError, match=message):
        PUBLIC[function](*pair, key_added=key, copy=copy)


# The published preset and the accuracy of the default


def test_the_published_preset_runs_through_the_same_door(pair: Pair, true_pose: np.ndarray) -> None:
    ref, src = pair
    config = PaperConfig(
        phase1_epochs=2,
        phase2_epochs=2,
        batch_size=200,
        n_neighbours=8,
        field_width=16,
        decoder_width=16,
        deformation_width=16,
        deformation_head=8,
        n_latent=8,
        jacobian_points=16,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The (non-rigid map agrees no better|map folds)")
        ia.tl.align_pair(ref, src, preset="paper", config=config, init=true_pose, rng=0, device="cpu", progress=False)
    assert ia.get.params(src)["preset"] == "paper"
    assert set(ia.get.report(src)) >= {"fold_fraction", "displacement_median", "feature_correlation"}
    assert np.isfinite(src.obsm[KEY]).all()
    np.testing.assert_array_equal(src.obsm[KEY], ia.get.transform(src)(src.obsm["spatial"]))


@pytest.mark.slow
def test_the_default_is_within_one_neighbour_distance_on_toy_pairs() -> None:
    errors = []
    for seed in range(3):
        ref, src = ia.datasets.toy_pair(rng=seed)
        ia.tl.align_pair(ref, src, rng=seed, device="cpu", progress=False)
        errors.append(np.median(distance(src.obsm[KEY], src.obsm["spatial_true"])) / spacing(ref))
        assert ia.metrics.fold_fraction(ia.get.transform(src), src.obsm["spatial"]) == 0
    assert np.mean(errors) < 1
    assert max(errors) < 1.3
