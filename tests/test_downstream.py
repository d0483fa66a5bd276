"""What comes after an alignment works on its result: clustering, spatial graphs, plots, and files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
import torch
from anndata import AnnData

import inst_align as ia
from inst_align._anndata import read_pair
from inst_align.core.canonical import CanonicalField
from inst_align.core.embedding import embed_pair
from inst_align.core.field import ExpressionField

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inst_align.core.prepared import PairConfig

Pair = tuple[AnnData, AnnData]


@pytest.fixture(scope="module")
def done(toy: Pair, tiny: PairConfig, true_pose: np.ndarray) -> Pair:
    """Both sections with everything that this package writes."""
    ref, src = (section.copy() for section in toy)
    ia.tl.align_pair(ref, src, config=tiny, init=true_pose, rng=0, device="cpu", progress=False)
    ia.tl.canonical_embed(ref, src, progress=False)
    return ref, src


@pytest.fixture
def sections(done: Pair) -> Pair:
    return done[0].copy(), done[1].copy()


def test_the_embedding_has_a_row_for_each_cell_and_a_word_on_each_column(done: Pair) -> None:
    ref, src = done
    for section in done:
        assert section.obsm["X_inst"].shape[0] == 500
        assert section.obsm["X_inst"].dtype == np.float32
        assert np.isfinite(section.obsm["X_inst"]).all()
    assert ref.obsm["X_inst"].shape == src.obsm["X_inst"].shape
    report = ia.get.report(src, "X_inst")
    assert report["agreement"].shape == report["shared"].shape == (src.obsm["X_inst"].shape[1],)
    assert ia.get.params(src, "X_inst")["what"] == "expression"


def test_the_embedding_is_that_of_the_sections_where_they_were_aligned(done: Pair) -> None:
    ref, src = done
    pair = read_pair(ref, src)
    moved = replace(pair.src, xy=src.obsm["spatial_aligned"])
    found = embed_pair(pair.ref, moved, device=torch.device("cpu"))
    np.testing.assert_array_equal(ref.obsm["X_inst"], found.ref)
    np.testing.assert_array_equal(src.obsm["X_inst"], found.src)


@pytest.mark.usefixtures("coarse_search")
def test_a_pose_alone_will_do_for_an_embedding(toy: Pair) -> None:
    ref, src = (section.copy() for section in toy)
    ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    ia.tl.canonical_embed(ref, src, alignment_key="spatial_rigid", device="cpu")
    assert np.isfinite(src.obsm["X_inst"]).all()
    assert set(src.obsm) == {*toy[1].obsm, "spatial_rigid", "X_inst"}


def test_after_the_papers_preset_the_embedding_is_the_latent_vector(sections: Pair) -> None:
    ref, src = sections
    record = src.uns["inst_align"]["spatial_aligned"]
    record["params"]["preset"] = "paper"
    network = ExpressionField(generator=torch.Generator().manual_seed(0), width=16, n_latent=8)
    field = CanonicalField(matrix=np.diag([0.01, 0.01, 1.0]), field=network)
    record["field"] = field.pack()
    ia.tl.canonical_embed(ref, src, key_added="X_latent", progress=False)
    for section in sections:
        np.testing.assert_array_equal(
            section.obsm["X_latent"], field.predict(section.obsm["spatial_aligned"], "latent")
        )
    assert ia.get.params(src, "X_latent")["what"] == "latent"


def test_the_embedding_aligns_first_when_nothing_is_on_record(
    toy: Pair, tiny: PairConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, src = (section.copy() for section in toy)
    monkeypatch.setattr("inst_align.core.pose.N_PIXELS", 33)
    monkeypatch.setattr("inst_align.tl._align_pair._config", lambda *_, **__: tiny)
    ia.tl.canonical_embed(ref, src, rng=0, device="cpu", progress=False)
    assert {"X_inst", "spatial_aligned"} <= set(src.obsm)
    assert ia.get.report(src)["pose_method"] == "fft"


def test_the_embedding_is_refused_when_the_coordinates_have_changed(sections: Pair) -> None:
    ref, src = sections
    del src.obsm["X_inst"], src.uns["inst_align"]["X_inst"]
    src.obsm["spatial"] = src.obsm["spatial"] + 1.0
    with pytest.raises(ValueError, match="the coordinates of the source are not those that were aligned"):
        ia.tl.canonical_embed(ref, src, progress=False)
    assert "X_inst" not in src.obsm


def test_scanpy_finds_neighbours_and_clusters_in_the_embedding(done: Pair) -> None:
    sc = pytest.importorskip("scanpy")
    both = ad.concat([*done], keys=["reference", "source"], index_unique="-", label="section")
    sc.pp.neighbors(both, use_rep="X_inst", random_state=0)
    assert both.obsp["connectivities"].shape == (1000, 1000)
    pytest.importorskip("igraph")
    pytest.importorskip("leidenalg")
    sc.tl.leiden(both, flavor="igraph", n_iterations=2, random_state=0)
    assert both.obs["leiden"].nunique() > 1


@pytest.mark.filterwarnings("ignore:Calling `spatial_neighbors`:FutureWarning")
def test_squidpy_builds_graphs_and_draws_on_the_aligned_coordinates(sections: Pair) -> None:
    sq = pytest.importorskip("squidpy")
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for section in sections:
        sq.gr.spatial_neighbors(section, spatial_key="spatial_aligned", coord_type="generic", n_neighs=6)
        assert section.obsp["spatial_connectivities"].nnz >= 6 * 500
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sq.pl.spatial_scatter(section, spatial_key="spatial_aligned", shape=None, color="layer", library_id=None)
        axes = plt.gcf().axes[0]
        drawn = np.concatenate([np.asarray(collection.get_offsets()) for collection in axes.collections])
        np.testing.assert_allclose(np.unique(drawn, axis=0), np.unique(section.obsm["spatial_aligned"], axis=0))
        plt.close("all")


def through_h5ad(section: AnnData, folder: Path) -> AnnData:
    section.write_h5ad(folder / "section.h5ad")
    return ad.read_h5ad(folder / "section.h5ad")


def through_zarr(section: AnnData, folder: Path) -> AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's own about its formats
        section.write_zarr(folder / "section.zarr")
        return ad.read_zarr(folder / "section.zarr")


@pytest.mark.parametrize("travel", [through_h5ad, through_zarr])
def test_files_give_everything_back(sections: Pair, tmp_path: Path, travel: Callable[[AnnData, Path], AnnData]) -> None:
    back: list[AnnData] = []
    for name, section in zip(("ref", "src"), sections, strict=True):
        (tmp_path / name).mkdir()
        back.append(travel(section, tmp_path / name))
    for read, section in zip(back, sections, strict=True):
        for key in ("spatial", "spatial_aligned", "X_inst"):
            np.testing.assert_array_equal(read.obsm[key], section.obsm[key])
        assert_same(ia.get.params(read), ia.get.params(section))
    _, src = sections
    transform = ia.get.transform(back[1])
    assert transform == ia.get.transform(src)
    np.testing.assert_array_equal(transform(src.obsm["spatial"]), src.obsm["spatial_aligned"])
    np.testing.assert_allclose(
        transform.inverse()(src.obsm["spatial_aligned"]), src.obsm["spatial"], atol=1e-4 * np.ptp(src.obsm["spatial"])
    )
    assert_same(ia.get.report(back[1]), ia.get.report(src))
    ia.tl.canonical_embed(*back, key_added="X_again", progress=False)
    np.testing.assert_array_equal(back[1].obsm["X_again"], src.obsm["X_inst"])


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        np.testing.assert_array_equal(one, other)


def test_the_embedding_never_replaces_a_recorded_alignment(toy: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    ref, src = (section.copy() for section in toy)
    ia.tl.align_pair(ref, src, config=tiny, init=true_pose, field=False, rng=0, device="cpu", progress=False)
    before = src.obsm["spatial_aligned"].copy()
    ia.tl.canonical_embed(ref, src, progress=False)
    np.testing.assert_array_equal(src.obsm["spatial_aligned"], before)
    assert np.isfinite(src.obsm["X_inst"]).all()


def test_the_embedding_refuses_sections_in_the_wrong_order_or_moved_since(sections: Pair) -> None:
    ref, src = sections
    with pytest.raises(ValueError, match="in which they were aligned"):
        ia.tl.canonical_embed(src, ref, progress=False)
    src.obsm["spatial"] = src.obsm["spatial"] + 1.0
    with pytest.raises(ValueError, match="coordinates of the source are not those"):
        ia.tl.canonical_embed(ref, src, progress=False)


def test_an_embedding_that_fails_leaves_no_alignment_behind(
    toy: Pair, tiny: PairConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, src = (section.copy() for section in toy)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inst_align.core.pose.N_PIXELS", 33)
    monkeypatch.setattr("inst_align.tl._align_pair._config", lambda *_, **__: tiny)
    monkeypatch.setattr("inst_align.tl._embed._embed", fail)
    with pytest.raises(KeyboardInterrupt):
        ia.tl.canonical_embed(ref, src, rng=0, device="cpu", progress=False)
    for section, before in zip((ref, src), toy, strict=True):
        assert set(section.obsm) == set(before.obsm)
        assert set(section.uns) == set(before.uns)
