"""The benchmark tells the truth: its made pairs are what they say, and no method sees what it is judged by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import Delaunay, cKDTree

import inst_align as ia

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy.generator import LEVELS, make_pair, solve
from benchmarks.accuracy.measures import best_rigid, held_out_correlation, measure, split_genes
from benchmarks.accuracy.methods import METHODS, Outcome, Unavailable, run_method
from benchmarks.accuracy.pairs import Made, Pair, Real, Stored, recipes
from benchmarks.accuracy.report import best_peers, write_report
from benchmarks.accuracy.results import Results

from inst_align.datasets._placement import Warp


@pytest.fixture(scope="module")
def section() -> ad.AnnData:
    """Cells at random places."""
    return ia.datasets.toy_pair(n_cells=800, n_genes=150, rng=0)[0]


@pytest.fixture(scope="module")
def spots() -> ad.AnnData:
    """Spots on a square lattice, with whole counts."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(25.0), np.arange(20.0))
    adata = ad.AnnData(rng.poisson(3, (500, 30)).astype(np.float32))
    adata.obsm["spatial"] = 100 * np.column_stack([x.ravel(), y.ravel()])
    return adata


def made(section: ad.AnnData, level: str, *, inverted: bool = False, seed: int = 0) -> tuple[ad.AnnData, ad.AnnData]:
    return make_pair(section, level, inverted=inverted, label_key="layer", rng=np.random.default_rng(seed))


def as_pair(ref: ad.AnnData, src: ad.AnnData, **known: object) -> Pair:
    return Pair(
        kind="made",
        name="toy",
        level="medium",
        seed=0,
        ref=ref,
        src=src,
        labels_ref=ref.obs["label"].to_numpy(object),
        labels_src=src.obs["label"].to_numpy(object),
        xy_true=src.obsm["spatial_true"],
        **known,
    )


def areas(xy: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (xy[triangles[:, k]] for k in range(3))
    return np.linalg.det(np.stack([b - a, c - a], axis=1))


def extent(adata: ad.AnnData) -> float:
    return float(np.ptp(adata.obsm["spatial"], axis=0).max())


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("level", ["easy", "medium", "hard", "mirror"])
def test_the_warp_of_a_made_pair_does_not_fold_and_is_as_large_as_it_says(section, level, inverted):
    ref, src = made(section, level, inverted=inverted)
    true, xy = src.obsm["spatial_true"], src.obsm["spatial"]
    triangles = Delaunay(true).simplices
    sides = [np.linalg.norm(true[triangles[:, k]] - true[triangles[:, k - 1]], axis=1) for k in range(3)]
    compact = np.max(sides, axis=0) < 0.1 * extent(section)  # not the slivers along the edge
    ratio = areas(xy, triangles[compact]) / areas(true, triangles[compact])
    assert (ratio * (-1 if LEVELS[level].mirrored else 1) > 0.1).all()
    left = np.linalg.norm(best_rigid(xy, true) - true, axis=1)
    assert 0.1 * LEVELS[level].warp < left.max() / extent(section) < 2 * LEVELS[level].warp


def test_the_rigid_level_is_a_rigid_motion(section):
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


def test_halves_of_cells_share_none_and_keep_their_true_places(section):
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
def test_a_crop_leaves_its_share_of_cells_on_one_side_of_a_line(section, level, share):
    _, whole = made(section, "medium")
    _, src = made(section, level)
    assert src.n_obs == pytest.approx(share * whole.n_obs, abs=1)
    true = src.obsm["spatial_true"]
    lost = np.array([xy for xy in whole.obsm["spatial_true"] if cKDTree(true).query(xy)[0] > 0])
    away = true.mean(axis=0) - lost.mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 3600)
    directions = np.array([np.cos(angles), np.sin(angles)])
    assert ((true @ directions).min(axis=0) >= (lost @ directions).max(axis=0)).any(), away


def test_a_wedge_is_missing_and_a_torn_piece_is_shifted(section):
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


def test_thinning_and_panels_touch_the_source_alone(section):
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
            assert src.X.sum() / whole.X.sum() == pytest.approx(LEVELS[level].kept_counts, rel=0.2)
            assert (share.std() > 0.1) == (level == "batch")
            assert (src.X.data == np.rint(src.X.data)).all()


def test_thinning_takes_whole_counts_from_values_that_are_multiples_of_one(section):
    scaled = section.copy()
    volume = np.random.default_rng(0).uniform(0.5, 2.0, scaled.n_obs)
    scaled.X = scaled.X.multiply(volume[:, None]).tocsr().astype(np.float32)
    _, src = made(scaled, "thin20")
    unit = pd.Series(volume, index=scaled.obs_names)[src.obs_names].to_numpy()
    counts = src.X.toarray() / unit[:, None]
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    assert 0 < src.X.sum() < 0.3 * made(scaled, "medium")[1].X.sum()


def test_a_made_pair_depends_on_its_seed_alone(section):
    first, again, other = (made(section, "batch", seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.obsm["spatial"], again.obsm["spatial"])
    assert (first.X != again.X).nnz == 0
    assert first.obs_names[0] != other.obs_names[0] or first.n_obs != other.n_obs


def test_an_unknown_level_is_an_error_that_lists_them(section):
    with pytest.raises(ValueError, match="'fierce'` is not known; available: .*medium"):
        made(section, "fierce")


def test_methods_see_expression_gene_names_and_coordinates_and_nothing_else(section):
    ref, src = made(section, "medium")
    for adata in (ref, src):
        adata.layers["more"] = adata.X.copy()
        adata.obsm["hint"] = adata.obsm["spatial"].copy()
        adata.var["note"] = 1
    pair = as_pair(ref, src, allow_reflection=True, logged=True)
    seen = []

    def spy(blind_ref, blind_src, options):
        seen.extend([blind_ref, blind_src, options])
        blind_src.X.data[:] = 0
        blind_src.obsm["spatial"][:] = 0
        return Outcome(xy=np.zeros((blind_src.n_obs, 2)))

    run_method(spy, pair)
    for blind, full in zip(seen[:2], (ref, src)):
        assert list(blind.obsm) == ["spatial"]
        for part in ("layers", "obsp", "varm", "varp", "uns"):
            assert not list(getattr(blind, part))
        assert blind.raw is None
        assert list(blind.obs.columns) == list(blind.var.columns) == []
        assert [name.split("_")[1] for name in blind.obs_names] == [str(i) for i in range(full.n_obs)]
        assert list(blind.var_names) == list(full.var_names)
    assert set(seen[0].obs_names).isdisjoint(seen[1].obs_names)
    assert vars(seen[2]) == {"normalize": False, "allow_reflection": True, "seed": 0}
    assert src.X.sum() > 0  # the method had a copy of its own
    assert np.ptp(src.obsm["spatial"]) > 0


def test_no_adapter_returns_what_it_was_not_given(section):
    ref, src = made(section, "rigid")
    pair = as_pair(ref, src)
    outcome = run_method(METHODS["rigid"], pair)
    row = measure(pair, outcome)
    assert row["pose_right"] == 1
    assert row["median"] == row["pose_median"] < 1
    assert row["median"] > 0  # the truth itself would be 0
    assert row["folds"] == 0
    assert row["inverse_p99"] < 1e-9


def test_the_truth_scores_perfectly_and_a_wrong_pose_fails(section):
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


def test_held_out_genes_prefer_the_truth(section):
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


@pytest.fixture
def data(tmp_path, section, spots) -> Path:
    """A folder of data as the benchmark expects it."""
    folder = tmp_path / "data"
    for level in ("rigid", "mirror"):
        place = folder / "truth" / f"toy_{level}"
        place.mkdir(parents=True)
        ref, src = made(section, level)
        src.uns["logged"] = False
        ref.write_h5ad(place / "ref.h5ad")
        src.write_h5ad(place / "src.h5ad")
    (folder / "seqfish_embryo").mkdir()
    labelled = section.copy()
    labelled.obs["label"] = labelled.obs["layer"]
    for name in ("embryo1_z2", "embryo1_z5"):
        labelled.write_h5ad(folder / "seqfish_embryo" / f"{name}.h5ad")
    return folder


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
    assert not first.logged
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


def test_a_run_resumes_and_a_missing_or_failing_method_is_told(data, tmp_path, monkeypatch):
    calls = []

    def counted(ref, src, options):
        calls.append(options.seed)
        return METHODS["raw"](ref, src, options)

    def missing(ref, src, options):
        raise Unavailable("not here")

    def failing(ref, src, options):
        raise ValueError("no | fit")

    monkeypatch.setattr(program, "warm_up", lambda: None)
    for name, method in {"default": counted, "paper": missing, "icp": failing}.items():
        monkeypatch.setitem(METHODS, name, method)
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--pairs", "truth/*,real/*", "--seeds", "0-1"]
    arguments += ["--methods", "default,paper,icp", "--held-out"]
    program.main(arguments)
    assert sorted(calls) == [0] * 4 + [1] * 4  # the real pair twice each, for its held-out genes
    program.main(arguments)
    assert len(calls) == 8
    table = Results(tmp_path / "out" / "accuracy.csv").table
    assert len(table) == 3 * 2 * 3
    assert set(table.loc[table["method"] == "paper", "status"]) == {"missing: not here"}
    assert table.loc[table["method"] == "paper", "median"].isna().all()
    real = table[(table["kind"] == "real") & (table["method"] == "default")]
    assert real["held_out"].notna().all()
    text = (tmp_path / "out" / "accuracy.md").read_text()
    assert "not here" in text
    assert "failed: ValueError: no / fit" in text
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 0
    program.main([*arguments, "--redo", "--methods", "default", "--pairs", "truth/toy_rigid", "--seeds", "0"])
    assert len(calls) == 9


def test_the_best_peer_is_the_smallest_median_and_the_smallest_p95_apart(tmp_path):
    peers = pd.DataFrame(
        [
            ("truth", "a", "ORACLE", 0.0, 0.0),
            ("truth", "a", "RAW", 0.1, 0.1),
            ("truth", "a", "One", 2.0, 8.0),
            ("truth", "a", "Two", 3.0, 5.0),
            ("truth", "b", "One", 4.0, 6.0),
            ("real", "a", "One", 1.0, 1.0),
        ],
        columns=["kind", "pair", "tool", "tre_med", "tre_p95"],
    ).assign(variant="x")
    best = best_peers(peers)
    assert best.loc["a"].tolist() == [2.0, 5.0, "One"]
    assert best.loc["b", "median"] == 4.0

    row = {"kind": "truth", "method": "rigid", "seed": 0, "level": "medium", "status": "ok"}
    results = Results(tmp_path / "accuracy.csv")
    results.add([row | {"pair": "a", "median": 1.0, "p95": 5.0}, row | {"pair": "b", "median": 8.0, "p95": 1.5}])
    peers.to_csv(tmp_path / "peers.csv", index=False)
    write_report(results.table, tmp_path, peers=tmp_path / "peers.csv")
    line = next(line for line in (tmp_path / "accuracy.md").read_text().splitlines() if line.startswith("| rigid"))
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[4:6] == ["2.83", "2.74"]  # geometric means of 1 and 8, and of 5 and 1.5
    assert {"1.00", "0.50", "1/2"} <= set(cells)  # against the peers: sqrt(1/2 * 2), sqrt(1 * 1/4), one lost
