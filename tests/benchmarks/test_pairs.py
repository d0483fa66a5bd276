"""Pairs are found, loaded and turned."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pytest
from benchmarks.accuracy.measures import best_rigid
from benchmarks.accuracy.pairs import Made, Real, Stored, recipes


def test_recipes_are_found_by_pattern_and_load(data):
    names = {f"{recipe.kind}/{recipe.name}" for recipe in recipes(data, ["truth/*", "real/*", "stay/*"])}
    assert names == {
        "truth/toy_rigid",
        "truth/toy_mirror",
        "real/embryo1_z2_z5",
        "stay/toy_rigid",
        "stay/embryo1_z2_z5",
    }
    of_one = recipes(data, ["made/embryo1_z2*_medium"])
    assert [recipe.name for recipe in of_one] == ["embryo1_z2_medium", "embryo1_z2i_medium"]
    assert isinstance(of_one[0], Made)
    pair = of_one[1].load(0)
    assert json.loads(pair.src.uns["truth"])["inverted"]
    assert pair.labels_src is not None
    assert recipes(data, ["truth/mirror"]) == []


def test_stored_pairs_are_turned_by_later_seeds_and_stay_when_told_to(data):
    folder = data / "truth" / "toy_mirror"
    first, turned = Stored(folder).load(0), Stored(folder).load(1)
    assert first.allow_reflection
    assert not any(first.logged)
    np.testing.assert_array_equal(first.xy_true, turned.xy_true)
    stored = ad.read_h5ad(folder / "src.h5ad").obsm["spatial"]
    np.testing.assert_array_equal(first.src.obsm["spatial"], stored)
    moved = turned.src.obsm["spatial"]
    assert np.linalg.norm(moved - stored, axis=1).min() > 0
    np.testing.assert_allclose(best_rigid(moved, stored), stored, atol=1e-6)
    stay = Stored(data / "truth" / "toy_rigid", kind="stay").load(1)
    np.testing.assert_array_equal(stay.src.obsm["spatial"], stay.xy_true)


def test_real_pairs_are_turned_and_shifted_by_half_their_extent(data):
    embryo = data / "seqfish_embryo"
    recipe = Real("toy", embryo / "embryo1_z2.h5ad", embryo / "embryo1_z5.h5ad", in_register=True)
    pair, other = recipe.load(0), recipe.load(1)
    stored = pair.xy_true
    assert stored is not None
    xy = pair.src.obsm["spatial"]
    middles = [(points.min(axis=0) + points.max(axis=0)) / 2 for points in (xy, stored)]
    assert np.linalg.norm(middles[0] - middles[1]) == pytest.approx(0.5 * np.ptp(stored, axis=0).max(), rel=0.5)
    np.testing.assert_allclose(best_rigid(xy, stored), stored, atol=1e-6)
    assert not np.allclose(xy, other.src.obsm["spatial"])
