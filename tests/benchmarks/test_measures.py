"""Measures: the truth scores best, and what is wrong is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.accuracy import embedding
from benchmarks.accuracy.embedding import domain_scores
from benchmarks.accuracy.held_out import held_out_correlation, split_genes
from benchmarks.accuracy.measures import measure, of_the_overlay, symmetry
from benchmarks.accuracy.methods import METHODS, Outcome, run_method

import inst_align as ia

if TYPE_CHECKING:
    import anndata as ad


def extent(adata: ad.AnnData) -> float:
    return float(np.ptp(adata.obsm["spatial"], axis=0).max())


def test_the_truth_scores_perfectly_and_a_wrong_pose_fails(section, made, as_pair):
    ref, src = made(section, "medium")
    pair = as_pair(ref, src)
    row = measure(pair, Outcome(xy=src.obsm["spatial_true"]))
    assert row["median"] == row["max"] == row["nn_src_gap_se"] == 0
    assert (row["nn_src"], row["nn_ref"]) == (row["nn_src_ceiling"], row["nn_ref_ceiling"])
    assert row["chamfer"] == pytest.approx(1, abs=0.15)
    wrong = measure(pair, run_method(METHODS["raw"], pair))
    assert wrong["pose_right"] == 0
    assert wrong["median"] > 5
    assert wrong["pose_best"] < 5


def test_held_out_genes_prefer_the_truth(section, made, as_pair):
    ref, src = made(section, "medium")
    pair = as_pair(ref, src)
    seen, unseen = split_genes(ref.var_names.to_numpy())
    assert set(seen).isdisjoint(unseen)
    assert len(seen) + len(unseen) == ref.n_vars
    assert min(len(seen), len(unseen)) > 0.3 * ref.n_vars
    assert list(split_genes(ref.var_names.to_numpy()[::-1])[0]) == list(seen[::-1])
    true = src.obsm["spatial_true"]
    shifted = true + 0.2 * extent(section)
    assert held_out_correlation(pair, true, unseen) > held_out_correlation(pair, shifted, unseen) + 0.05


def test_cells_without_a_counterpart_are_told_of_apart(section, made, as_pair):
    ref, src = made(section, "ref60")
    matched = src.obs["matched"].to_numpy()
    pair = as_pair(ref, src, matched=matched)
    moved = src.obsm["spatial_true"].copy()
    moved[~matched] += 7 * ia.metrics.spacing(ref.obsm["spatial"])
    row = measure(pair, Outcome(xy=moved))
    assert row["median"] == row["max"] == 0
    assert row["median_lost"] == pytest.approx(7 * np.sqrt(2))


def test_a_fold_turns_triangles_over_and_a_mirror_image_does_not(section, made, as_pair):
    ref, src = made(section, "rigid")
    pair = as_pair(ref, src)
    xy = src.obsm["spatial_true"]
    assert of_the_overlay(pair, xy)["flipped"] == of_the_overlay(pair, xy * [-1, 1])["flipped"] == 0
    folded = xy.copy()
    crease = np.quantile(xy[:, 0], 0.8)
    folded[:, 0] = np.where(xy[:, 0] > crease, 2 * crease - xy[:, 0], xy[:, 0])
    assert of_the_overlay(pair, folded)["flipped"] == pytest.approx(0.2, abs=0.05)


def test_the_way_there_and_back_differs_by_what_either_got_wrong(section, made, as_pair):
    ref, src = made(section, "rigid")
    pair = as_pair(ref, src)
    there, home = src.obsm["spatial_true"], src.obsm["spatial"]
    step = ia.metrics.spacing(home) * np.array([3.0, 4.0])
    turn, shift = _rigid_between(there, home)
    back = ref.obsm["spatial"] @ turn + shift
    for wrong, size in ((np.zeros(2), 0.0), (step, 5.0)):
        row = symmetry(pair, Outcome(xy=there), Outcome(xy=back + wrong))
        assert row["symmetry_median"] == pytest.approx(size, abs=1e-6)
        assert row["symmetry_p95"] == pytest.approx(size, abs=1e-6)


def test_the_way_back_is_taken_by_the_map_where_there_is_one(section, made, as_pair):
    ref, src = made(section, "rigid")
    pair = as_pair(ref, src)
    there = run_method(METHODS["rigid"], pair)
    row = symmetry(pair, there, Outcome(xy=ref.obsm["spatial"], transform=there.transform.inverse()))
    assert row["symmetry_p95"] < 1e-6


def _rigid_between(there: np.ndarray, home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    solution = np.linalg.lstsq(np.column_stack([there, np.ones(len(there))]), home, rcond=None)[0]
    return solution[:2], solution[2]


def test_an_embedding_that_knows_the_labels_scores_one_and_noise_scores_none(section, made, as_pair, monkeypatch):
    monkeypatch.setattr(embedding, "N_STARTS", 1)
    ref, src = made(section, "rigid")
    pair = as_pair(ref, src)
    rng = np.random.default_rng(0)
    knowing, noise = [], []
    for labels in (pair.labels_ref, pair.labels_src):
        codes = np.unique(labels, return_inverse=True)[1]
        knowing.append(np.eye(codes.max() + 1)[codes] + 0.01 * rng.normal(size=(len(codes), codes.max() + 1)))
        noise.append(rng.normal(size=(len(codes), 3)))
    good, bad = (domain_scores(pair, tuple(values), seed=0) for values in (knowing, noise))
    assert min(good["ari"], good["nmi"], good["ari_each"], good["nmi_each"]) > 0.7  # the vote rounds corners off
    assert max(bad["ari"], bad["ari_each"]) < 0.2
