"""Made pairs are what they say: their warps do not fold, and what is harmed is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from benchmarks.accuracy.generator import make_pair, solve
from benchmarks.accuracy.levels import LEVELS
from benchmarks.accuracy.measures import best_rigid
from scipy.spatial import Delaunay, cKDTree

from inst_align.datasets._placement import Warp

if TYPE_CHECKING:
    import anndata as ad


def areas(xy: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (xy[triangles[:, k]] for k in range(3))
    return np.linalg.det(np.stack([b - a, c - a], axis=1))


def extent(adata: ad.AnnData) -> float:
    return float(np.ptp(adata.obsm["spatial"], axis=0).max())


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("level", ["easy", "medium", "hard", "mirror"])
def test_the_warp_of_a_made_pair_does_not_fold_and_is_as_large_as_it_says(section, level, inverted, made):
    ref, src = made(section, level, inverted=inverted)
    true, xy = src.obsm["spatial_true"], src.obsm["spatial"]
    triangles = Delaunay(true).simplices
    sides = [np.linalg.norm(true[triangles[:, k]] - true[triangles[:, k - 1]], axis=1) for k in range(3)]
    compact = np.max(sides, axis=0) < 0.1 * extent(section)  # not the slivers along the edge
    ratio = areas(xy, triangles[compact]) / areas(true, triangles[compact])
    assert (ratio * (-1 if LEVELS[level].mirrored else 1) > 0.1).all()
    left = np.linalg.norm(best_rigid(xy, true) - true, axis=1)
    assert 0.1 * LEVELS[level].warp < left.max() / extent(section) < 2 * LEVELS[level].warp


def test_the_rigid_level_is_a_rigid_motion(section, made):
    _, src = made(section, "rigid")
    true, xy = src.obsm["spatial_true"], src.obsm["spatial"]
    np.testing.assert_allclose(best_rigid(xy, true), true, atol=1e-9 * extent(section))
    assert np.median(np.linalg.norm(xy - true, axis=1)) > 0.05 * extent(section)


def test_a_warp_is_undone_by_solving():
    rng = np.random.default_rng(1)
    warp = Warp(centers=rng.uniform(0, 1, (12, 2)), amplitudes=0.04 * rng.normal(size=(12, 2)), scale=0.25)
    xy = rng.uniform(0, 1, (300, 2))
    assert np.linalg.norm(warp(xy) - xy, axis=1).max() > 0.02
    np.testing.assert_allclose(warp(solve(warp, xy)), xy, atol=1e-9)


def test_halves_of_cells_share_none_and_keep_their_true_places(section, made):
    ref, src = made(section, "medium")
    assert set(ref.obs_names).isdisjoint(src.obs_names)
    assert set(ref.obs_names) | set(src.obs_names) == set(section.obs_names)
    np.testing.assert_array_equal(ref.obsm["spatial"], section[ref.obs_names].obsm["spatial"])
    np.testing.assert_array_equal(src.obsm["spatial_true"], section[src.obs_names].obsm["spatial"])
    assert (src.obs["label"] == section[src.obs_names].obs["layer"]).all()


def test_split_spots_add_up_to_the_section_and_leave_the_lattice(spots):
    ref, src = make_pair(spots, "medium", rng=np.random.default_rng(0))
    assert ref.n_obs == src.n_obs == spots.n_obs
    both = ref[spots.obs_names].X.toarray() + src[spots.obs_names].X.toarray()
    np.testing.assert_array_equal(both, spots[:, ref.var_names].X)
    off = np.linalg.norm(src[spots.obs_names].obsm["spatial_true"] - spots.obsm["spatial"], axis=1)
    assert 20 < off.max() <= 30
    assert list(src.obs_names) != list(spots.obs_names)


@pytest.mark.parametrize(("level", "share"), [("partial", 0.6), ("crop30", 0.3)])
def test_a_crop_leaves_its_share_of_cells_on_one_side_of_a_line(section, level, share, made):
    _, whole = made(section, "medium")
    _, src = made(section, level)
    assert src.n_obs == pytest.approx(share * whole.n_obs, abs=1)
    true = src.obsm["spatial_true"]
    lost = np.array([xy for xy in whole.obsm["spatial_true"] if cKDTree(true).query(xy)[0] > 0])
    away = true.mean(axis=0) - lost.mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 3600)
    directions = np.array([np.cos(angles), np.sin(angles)])
    assert ((true @ directions).min(axis=0) >= (lost @ directions).max(axis=0)).any(), away


def test_a_wedge_is_missing_and_a_torn_piece_is_shifted(section, made):
    _, whole = made(section, "medium")
    _, wedge = made(section, "wedge")
    away = wedge.obsm["spatial_true"] - whole.obsm["spatial_true"].mean(axis=0)
    angle = np.sort(np.arctan2(away[:, 1], away[:, 0]))
    gap = np.diff(angle, append=angle[0] + 2 * np.pi).max()
    assert np.deg2rad(60) <= gap < np.deg2rad(75)
    assert wedge.n_obs < 0.95 * whole.n_obs

    _, torn = made(section, "torn")  # the same random numbers, so the same but for the tear
    shift = np.linalg.norm(torn.obsm["spatial"] - whole.obsm["spatial"], axis=1)
    far = np.abs(shift - np.median(shift)) > 0.01 * extent(section)
    assert far.mean() == pytest.approx(0.25, abs=0.01)
    assert torn.n_obs == whole.n_obs


def test_thinning_and_panels_touch_the_source_alone(section, made):
    ref, whole = made(section, "medium")
    for level in ("thin20", "genes100", "batch"):
        other, src = made(section, level)
        assert (other.X != ref.X).nnz == 0
        np.testing.assert_array_equal(src.obsm["spatial_true"], whole.obsm["spatial_true"])
        if level == "genes100":
            assert src.n_vars == 100
            assert set(src.var_names) < set(whole.var_names)
        else:
            share = np.asarray(src.X.sum(axis=0)).ravel() / np.asarray(whole.X.sum(axis=0)).ravel()
            assert src.X.sum() / whole.X.sum() == pytest.approx(LEVELS[level].kept_counts, rel=0.25)
            assert share.std() > 0.1
            assert (src.X.data == np.rint(src.X.data)).all()


def test_thinning_takes_whole_counts_from_values_that_are_multiples_of_one(section, made):
    scaled = section.copy()
    volume = np.random.default_rng(0).uniform(0.5, 2.0, scaled.n_obs)
    scaled.X = scaled.X.multiply(volume[:, None]).tocsr().astype(np.float32)
    _, src = made(scaled, "thin20")
    unit = pd.Series(volume, index=scaled.obs_names)[src.obs_names].to_numpy()
    counts = src.X.toarray() / unit[:, None]
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    assert 0 < src.X.sum() < 0.3 * made(scaled, "medium")[1].X.sum()


def test_a_made_pair_depends_on_its_seed_alone(section, made):
    first, again, other = (made(section, "batch", seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.obsm["spatial"], again.obsm["spatial"])
    assert (first.X != again.X).nnz == 0
    assert first.obs_names[0] != other.obs_names[0] or first.n_obs != other.n_obs


def test_an_unknown_level_is_an_error_that_lists_them(section, made):
    with pytest.raises(ValueError, match="'fierce'` is not known; available: .*medium"):
        made(section, "fierce")


@pytest.mark.parametrize(("level", "share"), [("ref60", 0.6), ("refhole", 0.9)])
def test_source_cells_are_unmatched_where_the_reference_is_missing(section, made, level, share):
    whole, _ = made(section, "medium")
    ref, src = made(section, level)
    assert len(ref) == pytest.approx(share * len(whole), abs=2)
    matched, true = src.obs["matched"].to_numpy(), src.obsm["spatial_true"]
    assert matched.mean() == pytest.approx(share, abs=0.1)
    lost = whole[~whole.obs_names.isin(ref.obs_names)].obsm["spatial"]
    nearest_left, nearest_lost = (cKDTree(xy).query(true)[0] for xy in (ref.obsm["spatial"], lost))
    inside = np.minimum(nearest_left, nearest_lost) < 0.5 * np.maximum(nearest_left, nearest_lost)  # not on the edge
    assert inside.mean() > 0.7
    assert (matched == (nearest_left < nearest_lost))[inside].mean() > 0.99


def test_a_hole_in_the_source_is_a_disk_and_all_that_is_left_is_matched(section, made):
    _, whole = made(section, "medium")
    _, src = made(section, "hole")
    assert len(src) == pytest.approx(0.9 * len(whole), abs=2)
    assert src.obs["matched"].all()
    lost = whole[~whole.obs_names.isin(src.obs_names)].obsm["spatial_true"]
    kept = src.obsm["spatial_true"]
    middles = np.concatenate([lost, kept])
    apart = [np.linalg.norm(kept - c, axis=1).min() > np.linalg.norm(lost - c, axis=1).max() for c in middles]
    assert any(apart)


def test_sections_of_the_mutual_level_each_lack_a_part_of_their_own(section, made):
    whole_ref, whole_src = made(section, "medium")
    ref, src = made(section, "mutual")
    assert len(ref) == pytest.approx(0.7 * len(whole_ref), abs=2)
    assert len(src) == pytest.approx(0.7 * len(whole_src), abs=2)
    assert src.obs["matched"].mean() == pytest.approx(4 / 7, abs=0.1)


def test_panels_that_share_few_genes_share_thirty(section, made):
    ref, src = made(section, "shared30")
    assert len(set(ref.var_names) & set(src.var_names)) == 30
    assert ref.n_vars == src.n_vars
    whole, _ = made(section, "medium")
    np.testing.assert_array_equal(ref.X.toarray(), whole[:, ref.var_names].X.toarray())


def test_the_logged_level_log_normalises_the_source_and_says_so(section, made):
    whole, counts = made(section, "medium")
    ref, src = made(section, "logged")
    assert "log1p" in src.uns
    assert "log1p" not in ref.uns
    np.testing.assert_array_equal(ref.X.toarray(), whole.X.toarray())
    back = np.expm1(src.X.toarray().astype(float))
    np.testing.assert_allclose(back.sum(axis=1), 1e4, rtol=1e-3)
    share = counts.X.toarray() / counts.X.sum(axis=1)
    np.testing.assert_allclose(back / back.sum(axis=1, keepdims=True), share, atol=1e-4)


@pytest.mark.parametrize("inverted", [False, True])
def test_spots_hold_the_counts_of_cells_and_lie_on_a_lattice_of_their_own_frame(section, made, inverted):
    _, cells = made(section, "medium", inverted=inverted)
    ref, src = made(section, "spots", inverted=inverted)
    assert src.X.sum() == pytest.approx(cells.X.sum(), rel=1e-6)
    assert 3.5 < len(cells) / len(src) < 8
    gaps = cKDTree(src.obsm["spatial"]).query(src.obsm["spatial"], k=2)[0][:, 1]
    assert gaps.std() < 1e-3 * gaps.mean()
    # a spot belongs where the cells around it do
    near = cKDTree(cells.obsm["spatial"]).query(src.obsm["spatial"], k=3)[1]
    off = np.linalg.norm(cells.obsm["spatial_true"][near].mean(axis=1) - src.obsm["spatial_true"], axis=1)
    assert np.median(off) < gaps.mean()
    known = src.obs["label"].notna()
    agree = ref.obs["label"].to_numpy()[cKDTree(ref.obsm["spatial"]).query(src.obsm["spatial_true"])[1]]
    assert (agree == src.obs["label"])[known].mean() > 0.8


def test_reference_spots_stay_in_the_frame_of_the_truth(section, made):
    cells, _ = made(section, "medium")
    ref, src = made(section, "refspots")
    assert ref.X.sum() == pytest.approx(cells.X.sum(), rel=1e-6)
    assert len(ref) < 0.4 * len(cells)
    pitch = cKDTree(ref.obsm["spatial"]).query(ref.obsm["spatial"], k=2)[0][:, 1].mean()
    assert cKDTree(ref.obsm["spatial"]).query(src.obsm["spatial_true"])[0].max() < pitch


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_can_be_made_of_cells_and_of_spots(section, spots, level):
    for whole in (section, spots):
        ref, src = make_pair(whole, level, rng=np.random.default_rng(2))
        assert min(len(ref), len(src)) > 20
        assert src.obsm["spatial_true"].shape == src.obsm["spatial"].shape == (len(src), 2)
        assert len(src.obs["matched"]) == len(src)
        assert np.isfinite(src.obsm["spatial"]).all()
