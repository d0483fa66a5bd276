"""The made-up pair keeps its promises, and downloads fail and succeed as they should (without any network)."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import Delaunay, cKDTree

from inst_align.datasets import _public, istbench, toy_pair
from inst_align.datasets._counts import _draw_poisson
from inst_align.datasets._placement import draw_warp
from inst_align.datasets._tissue import CELL_TYPES, EXTENT, LAYERS, make_tissue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module", params=SEEDS)
def pair(request: pytest.FixtureRequest) -> tuple[AnnData, AnnData]:
    return toy_pair(rng=request.param)


def same(a: AnnData, b: AnnData) -> bool:
    """Whether two sections hold the same bits."""
    return (
        a.shape == b.shape
        and (a.X != b.X).nnz == 0
        and a.obs.equals(b.obs)
        and a.var.equals(b.var)
        and all(np.array_equal(a.obsm[key], b.obsm[key]) for key in (*a.obsm, *b.obsm))
    )


def unposed(src: AnnData) -> np.ndarray:
    """The observed source with its similarity undone: the warped true positions."""
    matrix = src.uns["toy"]["affine"]
    return (src.obsm["spatial"] - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T


def layer_agreement(ref: AnnData, src: AnnData, xy: np.ndarray) -> float:
    _, nearest = cKDTree(ref.obsm["spatial"]).query(xy)
    return float((ref.obs["layer"].to_numpy()[nearest] == src.obs["layer"].to_numpy()).mean())


def triangle_areas(xy: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    (ax, ay), (bx, by) = (xy[triangles[:, i]].T - xy[triangles[:, 0]].T for i in (1, 2))
    return (ax * by - ay * bx) / 2


def best_affine(xy_from: np.ndarray, xy_to: np.ndarray) -> np.ndarray:
    """Linear part ``(2, 2)`` of the least-squares affine map."""
    solution, *_ = np.linalg.lstsq(np.column_stack([xy_from, np.ones(len(xy_from))]), xy_to, rcond=None)
    return solution[:2].T


# --- what it holds ---------------------------------------------------------------------------------------------------


def test_sections_hold_what_is_promised(pair: tuple[AnnData, AnnData]) -> None:
    for section, name in zip(pair, ("ref", "src")):
        assert section.shape == (1500, 200)
        assert sparse.isspmatrix_csr(section.X)
        assert section.X.dtype == np.float32
        assert section.X.has_canonical_format
        assert section.X.data.min() >= 1
        assert np.array_equal(section.X.data, np.round(section.X.data))
        assert section.obsm["spatial"].shape == (1500, 2)
        assert section.obsm["spatial"].dtype == np.float64
        assert tuple(section.obs["layer"].cat.categories) == LAYERS
        assert set(section.obs["layer"]) == set(LAYERS)
        assert tuple(section.obs["cell_type"].cat.categories) == CELL_TYPES
        assert section.obs_names[0] == f"{name}_0"
        assert section.obs_names.is_unique
        assert section.var_names[0] == "gene_000"
    ref, src = pair
    assert list(ref.var_names) == list(src.var_names)
    assert "spatial_true" not in ref.obsm
    assert src.obsm["spatial_true"].shape == (1500, 2)


def test_default_spacing_is_about_twenty_micrometres(pair: tuple[AnnData, AnnData]) -> None:
    distance, _ = cKDTree(pair[0].obsm["spatial"]).query(pair[0].obsm["spatial"], k=2)
    assert 15 < np.median(distance[:, 1]) < 25
    assert np.ptp(pair[0].obsm["spatial"], axis=0).max() == pytest.approx(EXTENT, rel=0.03)


def test_pair_survives_h5ad(tmp_path: Path) -> None:
    _, src = toy_pair(n_cells=50, n_genes=12, rng=3)
    src.write_h5ad(tmp_path / "src.h5ad")
    back = ad.read_h5ad(tmp_path / "src.h5ad")
    assert same(src, back)
    assert back.uns["toy"]["seed"] == 3
    np.testing.assert_array_equal(back.uns["toy"]["affine"], src.uns["toy"]["affine"])


def test_gene_names_stay_unique_and_sorted_beyond_a_thousand_genes() -> None:
    ref, _ = toy_pair(n_cells=20, n_genes=1200, rng=0)
    assert list(ref.var_names) == sorted(set(ref.var_names))


# --- randomness ------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, again, other = (toy_pair(n_cells=300, n_genes=40, rng=seed) for seed in (5, 5, 6))
    assert all(same(a, b) for a, b in zip(first, again))
    assert not any(same(a, b) for a, b in zip(first, other))


def test_generator_is_accepted_and_consumed() -> None:
    rng = np.random.default_rng(5)
    first, second = toy_pair(n_cells=50, n_genes=12, rng=rng), toy_pair(n_cells=50, n_genes=12, rng=rng)
    by_seed = toy_pair(n_cells=50, n_genes=12, rng=5)
    assert same(first[1], by_seed[1])
    assert not same(first[1], second[1])
    assert "seed" not in first[1].uns["toy"]


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state()  # noqa: NPY002
    toy_pair(n_cells=50, n_genes=12, rng=0)
    toy_pair(n_cells=50, n_genes=12)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_warp_and_pose_do_not_depend_on_the_number_of_cells() -> None:
    few, many = (toy_pair(n_cells=n, n_genes=g, rng=4)[1].uns["toy"] for n, g in ((50, 12), (400, 30)))
    np.testing.assert_array_equal(few["affine"], many["affine"])
    assert few["min_det"] == many["min_det"]


def test_cells_do_not_depend_on_where_the_source_is_put() -> None:
    _, plain = toy_pair(n_cells=200, n_genes=20, rng=4)
    _, moved = toy_pair(n_cells=200, n_genes=20, rng=4, mirror=True, rotation=30.0, warp=0.05)
    assert (plain.X != moved.X).nnz == 0
    np.testing.assert_array_equal(plain.obsm["spatial_true"], moved.obsm["spatial_true"])
    assert not np.allclose(plain.obsm["spatial"], moved.obsm["spatial"])


# --- the truth -------------------------------------------------------------------------------------------------------


def test_layers_agree_at_the_true_positions_and_not_at_the_warped_ones(pair: tuple[AnnData, AnnData]) -> None:
    ref, src = pair
    at_truth = layer_agreement(ref, src, src.obsm["spatial_true"])
    assert at_truth > 0.9
    assert layer_agreement(ref, src, unposed(src)) < at_truth - 0.1
    centred = src.obsm["spatial"] - src.obsm["spatial"].mean(axis=0) + ref.obsm["spatial"].mean(axis=0)
    assert layer_agreement(ref, src, centred) < at_truth - 0.1


def test_sections_share_no_position(pair: tuple[AnnData, AnnData]) -> None:
    distance, _ = cKDTree(pair[0].obsm["spatial"]).query(pair[1].obsm["spatial_true"])
    assert distance.min() > 0
    assert np.median(distance) > 10  # as for independent draws: about the spacing


@pytest.mark.parametrize("warp", [0.05, 0.10, 0.15])
def test_largest_displacement_over_the_cells_is_the_warp(warp: float) -> None:
    _, src = toy_pair(n_genes=10, warp=warp, rng=1)
    moved = np.hypot(*(unposed(src) - src.obsm["spatial_true"]).T)
    assert moved.max() == pytest.approx(warp * src.uns["toy"]["extent"], rel=0.05)


def test_no_warp_leaves_the_similarity_alone() -> None:
    _, src = toy_pair(n_cells=50, n_genes=10, warp=0.0, rng=1)
    np.testing.assert_allclose(unposed(src), src.obsm["spatial_true"], atol=1e-9)
    assert src.uns["toy"]["min_det"] == 1.0


def test_no_triangle_of_cells_is_turned_over(pair: tuple[AnnData, AnnData]) -> None:
    truth = pair[1].obsm["spatial_true"]
    triangles = Delaunay(truth).simplices
    before, after = triangle_areas(truth, triangles), triangle_areas(unposed(pair[1]), triangles)
    squared = sum(((truth[triangles[:, i]] - truth[triangles[:, i - 1]]) ** 2).sum(axis=1) for i in range(3))
    round_ = np.abs(before) * 4 * np.sqrt(3) / squared > 0.4  # 1 is equilateral; slivers turn over under any smooth map
    assert round_.mean() > 0.6
    assert (after[round_] / before[round_]).min() > 0.3


def test_warp_is_free_of_folds_by_finite_differences() -> None:
    tissue = make_tissue(np.random.default_rng(0))
    warp = draw_warp(tissue, 0.15, np.random.default_rng(1))
    xy, h = tissue.grid(EXTENT / 50, margin=0.1 * EXTENT), 1e-3
    columns = [(warp(xy + h * axis) - warp(xy - h * axis)) / (2 * h) for axis in np.eye(2)]
    matrices = np.stack(columns, axis=2)
    np.testing.assert_allclose(warp.jacobian(xy), matrices, atol=1e-6)
    assert np.linalg.det(matrices).min() > 0.3
    assert np.linalg.det(matrices).min() == pytest.approx(warp.min_det(tissue), abs=0.02)


@pytest.mark.parametrize("mirror", [False, True])
def test_mirror_reverses_the_orientation(mirror: bool) -> None:
    _, src = toy_pair(n_cells=300, n_genes=10, mirror=mirror, rng=2)
    linear = best_affine(src.obsm["spatial_true"], src.obsm["spatial"])
    assert np.sign(np.linalg.det(linear)) == (-1 if mirror else 1)


def test_rotation_is_counter_clockwise_in_degrees() -> None:
    _, src = toy_pair(n_cells=100, n_genes=10, rotation=90.0, warp=0.0, rng=2)
    linear = best_affine(src.obsm["spatial_true"], src.obsm["spatial"])
    np.testing.assert_allclose(linear, [[0.0, -1.0], [1.0, 0.0]], atol=1e-9)
    assert src.uns["toy"]["rotation"] == 90.0


def test_shift_moves_the_middle_by_at_most_one_extent() -> None:
    for seed in range(20):
        toy = toy_pair(n_cells=10, n_genes=10, rng=seed)[0].uns["toy"]
        center = make_tissue(np.random.default_rng(np.random.default_rng(seed).integers(2**63, size=5)[0])).center
        np.testing.assert_allclose(toy["affine"][:2] @ [*center, 1.0] - center, toy["shift"], atol=1e-9)
        assert np.hypot(*toy["shift"]) <= toy["extent"]


def test_crop_keeps_the_fraction_on_one_side_of_a_line() -> None:
    _, whole = toy_pair(n_cells=500, n_genes=20, rng=7)
    ref, part = toy_pair(n_cells=500, n_genes=20, crop=0.6, rng=7)
    assert ref.n_obs == 500
    assert part.n_obs == 300
    assert same(part, whole[part.obs_names])
    lost = whole[~whole.obs_names.isin(part.obs_names)].obsm["spatial_true"]
    directions = np.linspace(0, 2 * np.pi, 3601)
    normals = np.stack([np.cos(directions), np.sin(directions)])
    gap = (lost @ normals).min(axis=0) - (part.obsm["spatial_true"] @ normals).max(axis=0)
    assert gap.max() > -5  # some line parts them, up to the coarseness of the directions tried


# --- expression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [50.0, 200.0, 3000.0])
def test_median_depth_is_as_asked(depth: float) -> None:
    for section in toy_pair(n_genes=50, depth=depth, rng=3):
        assert np.median(np.asarray(section.X.sum(axis=1))) == pytest.approx(depth, rel=0.1)


@pytest.mark.parametrize("batch_sd", [0.0, 0.4, 0.8])
def test_genes_differ_between_sections_by_the_batch_factors(batch_sd: float) -> None:
    ref, src = toy_pair(n_cells=2000, n_genes=400, depth=2000.0, batch_sd=batch_sd, rng=4)
    ratio = np.log(np.asarray(src.X.sum(axis=0) / ref.X.sum(axis=0)).ravel())
    assert np.std(ratio) == pytest.approx(batch_sd, rel=0.15, abs=0.06)


def test_genes_follow_what_they_are_said_to_follow() -> None:
    ref, _ = toy_pair(n_cells=2000, n_genes=100, depth=2000.0, rng=5)
    counts = ref.X.toarray()
    share = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))

    def explained(labels: np.ndarray) -> np.ndarray:
        means = np.stack([share[labels == label].mean(axis=0) for label in np.unique(labels)])
        weights = np.array([(labels == label).mean() for label in np.unique(labels)])
        return (weights[:, None] * (means - share.mean(axis=0)) ** 2).sum(axis=0) / share.var(axis=0)

    by_layer, by_type = explained(ref.obs["layer"].to_numpy()), explained(ref.obs["cell_type"].to_numpy())
    pattern = ref.var["pattern"].to_numpy()
    assert np.median(by_layer[pattern == "layer"]) > 3 * np.median(by_layer[pattern == "housekeeping"])
    assert np.median(by_type[pattern == "cell type"]) > 3 * np.median(by_type[pattern == "housekeeping"])
    assert np.median(by_type[pattern == "cell type"]) > np.median(by_layer[pattern == "cell type"])


def test_neighbours_differ_in_type_within_a_layer() -> None:
    ref, _ = toy_pair(rng=6)
    _, nearest = cKDTree(ref.obsm["spatial"]).query(ref.obsm["spatial"], k=2)
    types = ref.obs["cell_type"].to_numpy()
    assert 0.1 < (types == types[nearest[:, 1]]).mean() < 0.5


@pytest.mark.parametrize("rate", [0.05, 0.9, 11.0, 40.0, 5000.0])
def test_counts_are_poisson(rate: float) -> None:
    counts = _draw_poisson(np.full((200, 500), rate, dtype=np.float32), np.random.default_rng(0)).toarray()
    error = np.sqrt(rate / counts.size)
    assert counts.mean() == pytest.approx(rate, abs=5 * error)
    assert counts.var() == pytest.approx(rate, rel=0.03)
    assert (counts == 0).mean() == pytest.approx(np.exp(-rate), abs=0.005)


def test_memory_stays_far_below_a_dense_matrix() -> None:
    tracemalloc.start()
    toy_pair(n_cells=10_000, n_genes=2000, depth=100.0, rng=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000 * 2000 * 4


# --- bad arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_cells": 9}, "`n_cells` is 9"),
        ({"n_cells": 50.5}, "`n_cells` is 50.5"),
        ({"n_genes": 3}, "`n_genes` is 3"),
        ({"depth": 0.0}, "`depth` is 0.0"),
        ({"depth": np.nan}, "`depth` is nan"),
        ({"batch_sd": -0.1}, "`batch_sd` is -0.1"),
        ({"warp": -0.1}, "`warp` is -0.1"),
        ({"warp": np.inf}, "`warp` is inf"),
        ({"rotation": np.nan}, "`rotation` is nan"),
        ({"crop": 0.0}, "`crop` is 0.0"),
        ({"crop": 1.2}, "`crop` is 1.2"),
        ({"crop": 0.1, "n_cells": 50}, "leaves 5 of the source's 50 cells"),
        ({"warp": 2.0}, "`warp` is 2.0, but none of"),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        toy_pair(**{"n_cells": 20, "n_genes": 10, "rng": 0, **arguments})


# --- downloads -------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("Data/a.txt", "one")
        file.writestr("Data/deep/b.txt", "two")
    return stream.getvalue()


@pytest.fixture
def server(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """The archive, served from this machine in the place of the public one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(_public, "_ISTBENCH_URL", f"http://127.0.0.1:{running.server_port}/Data.zip")
        yield running
        running.shutdown()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/Data.zip"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_public, "_ISTBENCH_URL", url)
    return url


def test_archive_is_unpacked_and_kept(
    server: ThreadingHTTPServer, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_public, "_ISTBENCH_HASH", "md5:" + hashlib.md5(archive).hexdigest())
    folder = istbench(cache_dir=tmp_path / "new")
    assert (folder / "Data" / "deep" / "b.txt").read_text() == "two"
    server.shutdown()
    server.server_close()
    (folder / "Data" / "a.txt").unlink()
    assert istbench(cache_dir=str(tmp_path / "new")) == folder
    assert (folder / "Data" / "a.txt").read_text() == "one"


def test_wrong_checksum_is_refused_and_nothing_is_left(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"checksum is not md5:ad37e0fac9691d23f9f91eaee28842ed: download it by hand"):
        istbench(cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_offline_says_what_to_do(offline: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="download it by hand, save it as") as caught:
        istbench(cache_dir=tmp_path)
    assert offline in str(caught.value)
    assert str(tmp_path / "istbench.zip") in str(caught.value)


def test_archive_saved_by_hand_needs_no_network(
    offline: str, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_public, "_ISTBENCH_HASH", "md5:" + hashlib.md5(archive).hexdigest())
    (tmp_path / "istbench.zip").write_bytes(archive)
    assert (istbench(cache_dir=tmp_path) / "Data" / "a.txt").read_text() == "one"


def test_unwritable_folder_is_not_called_a_network_error(offline: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as caught:
        istbench(cache_dir=tmp_path / "file")
    assert not isinstance(caught.value, ConnectionError)


def test_importing_datasets_loads_nothing_heavy() -> None:
    code = "import sys, inst_align.datasets; print({'torch', 'pooch', 'scanpy', 'matplotlib.pyplot'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
