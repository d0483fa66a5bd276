"""Sections taken out of one object and put back: rows stay where they are, and runs that do not go together are kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import inst_align as ia
from inst_align._anndata import write_alignment, write_embedding
from inst_align.core.alignment import Alignment

if TYPE_CHECKING:
    from anndata import AnnData

SHIFT = ia.transforms.Affine.from_rigid(0.1, (5, -2))


def whole(n: int = 30, labels: tuple[Any, ...] = ("A", "B", "C")) -> AnnData:
    """Sections of n, n + 1, ... cells with mixed rows."""
    rng = np.random.default_rng(0)
    label = rng.permutation(np.repeat(np.arange(len(labels)), n + np.arange(len(labels))))
    adata = ad.AnnData(rng.random((len(label), 3)))
    adata.obs["sample"] = pd.Categorical([labels[i] for i in label])
    adata.obsm["spatial"] = rng.random((len(label), 2)) * 100
    return adata


def shifted(adata: AnnData, source: Any = "B", reference: Any = "A", key: str = "spatial_aligned") -> Any:
    """Take out a pair and write a shift as its result."""
    ref, src = ia.pp.split_sections(adata, library_key="sample", reference=reference, source=source)
    write_alignment(
        ref,
        src,
        key_added=key,
        spatial_key="spatial",
        params={"rng": 0},
        alignment=Alignment(affine=SHIFT, transform=SHIFT, report={"overlap": 1.0}),
        xy_aligned=SHIFT(np.asarray(src.obsm["spatial"])),
        columns=(
            {"inst_overlap": np.full(ref.n_obs, 0.5)},
            {"inst_overlap": np.linspace(0, 1, src.n_obs), "inst_sd": np.arange(src.n_obs, dtype=float)},
        )
        if key == "spatial_aligned"
        else ({}, {}),
    )
    return ref, src


def join(adata: AnnData, pair: Any) -> None:
    ia.pp.join_sections(adata, *pair, library_key="sample")


def test_sections_are_copies_with_their_rows_in_order() -> None:
    adata = whole()
    ref, src = ia.pp.split_sections(adata, library_key="sample", reference="C", source="A")
    for section, label in ((ref, "C"), (src, "A")):
        assert list(section.obs_names) == list(adata.obs_names[adata.obs["sample"] == label])
        assert not section.is_view
    ref.obsm["spatial"][:] = 0
    assert (adata.obsm["spatial"] != 0).all()


def test_results_go_to_their_rows_and_nothing_else_changes() -> None:
    adata = whole()
    before = adata.copy()
    join(adata, shifted(adata))
    for label, wanted in (("A", adata.obsm["spatial"]), ("B", SHIFT(adata.obsm["spatial"])), ("C", np.nan)):
        rows = adata.obs["sample"] == label
        np.testing.assert_array_equal(
            adata.obsm["spatial_aligned"][rows], np.broadcast_to(wanted, (len(rows), 2))[rows]
        )
    assert set(adata.obsm) == {"spatial", "spatial_aligned"}
    assert set(adata.uns) == {"inst_align"}
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])
    pd.testing.assert_frame_equal(adata.obs[before.obs.columns], before.obs)


def test_a_further_section_joins_and_a_pair_comes_out_as_it_went_in() -> None:
    adata = whole()
    join(adata, shifted(adata, "B"))
    join(adata, shifted(adata, "C"))
    assert np.isfinite(adata.obsm["spatial_aligned"]).all()
    for source in ("B", "C"):
        ref, src = ia.pp.split_sections(adata, library_key="sample", reference="A", source=source)
        assert ia.get.transform(src) == SHIFT
        assert ia.get.params(ref) == {"rng": 0}
        np.testing.assert_array_equal(src.obsm["spatial_aligned"], SHIFT(src.obsm["spatial"]))


def test_a_section_without_results_comes_out_without_keys() -> None:
    adata = whole()
    join(adata, shifted(adata, "B"))
    _, src = ia.pp.split_sections(adata, library_key="sample", reference="A", source="C")
    assert "spatial_aligned" not in src.obsm
    assert src.uns["inst_align"] == {}


def test_records_of_the_whole_say_where_to_look() -> None:
    adata = whole()
    join(adata, shifted(adata))
    for read in (ia.get.transform, ia.get.report, ia.get.params):
        with pytest.raises(ValueError, match=r"holds several sections .*'A', 'B'.*split_sections"):
            read(adata)


def test_frames_of_two_references_are_not_mixed() -> None:
    adata = whole()
    join(adata, shifted(adata, "B", "A"))
    before = adata.copy()
    with pytest.raises(ValueError, match="in the frame of 'A', and these are in the frame of 'C'"):
        join(adata, shifted(adata, "B", "C"))
    np.testing.assert_array_equal(adata.obsm["spatial_aligned"], before.obsm["spatial_aligned"])
    join(adata, shifted(adata, "B", "C", key="spatial_in_c"))
    assert {"spatial_aligned", "spatial_in_c"} < set(adata.obsm)


def test_what_is_said_of_the_cells_goes_along() -> None:
    adata = whole()
    join(adata, shifted(adata))
    is_in = {label: (adata.obs["sample"] == label).to_numpy() for label in "ABC"}
    assert (adata.obs["inst_overlap"][is_in["A"]] == 0.5).all()
    assert adata.obs["inst_overlap"][is_in["C"]].isna().all()
    np.testing.assert_array_equal(adata.obs["inst_sd"][is_in["B"]], np.arange(is_in["B"].sum()))
    assert adata.obs["inst_sd"][~is_in["B"]].isna().all()
    further = shifted(adata, source="C")
    assert "inst_sd" not in further[0].obs
    join(adata, further)
    np.testing.assert_array_equal(adata.obs["inst_sd"][is_in["B"]], np.arange(is_in["B"].sum()))
    np.testing.assert_array_equal(adata.obs["inst_sd"][is_in["C"]], np.arange(is_in["C"].sum()))


def test_the_same_pair_can_be_joined_again_the_other_way_round() -> None:
    adata = whole(labels=("A", "B"))
    join(adata, shifted(adata, "B", "A"))
    join(adata, shifted(adata, "A", "B"))
    rows = adata.obs["sample"] == "B"
    np.testing.assert_array_equal(adata.obsm["spatial_aligned"][rows], adata.obsm["spatial"][rows])


def test_embeddings_of_two_pairs_are_not_mixed() -> None:
    adata = whole()
    for source, error in (("B", None), ("C", "cannot be compared")):
        pair = ia.pp.split_sections(adata, library_key="sample", reference="A", source=source)
        z = [np.ones((section.n_obs, 4), dtype=np.float32) for section in pair]
        write_embedding(*pair, key_added="X_inst", z_ref=z[0], z_src=z[1], params={})
        if error is None:
            join(adata, pair)
            assert adata.obsm["X_inst"].dtype == np.float32
        else:
            with pytest.raises(ValueError, match=error):
                join(adata, pair)


def test_tables_stay_tables() -> None:
    adata = whole()
    adata.obsm["spatial"] = pd.DataFrame(adata.obsm["spatial"], adata.obs_names, ["x", "y"])
    join(adata, shifted(adata))
    assert list(adata.obsm["spatial_aligned"].columns) == ["x", "y"]
    assert list(adata.obsm["spatial_aligned"].index) == list(adata.obs_names)


def test_what_has_no_place_in_the_whole_is_refused() -> None:
    adata = whole()
    ref, src = shifted(adata)
    foreign = adata.copy()
    foreign.obsm["spatial_aligned"] = np.zeros((adata.n_obs, 2))
    cases = [
        (adata, ref[1:].copy(), src, "The reference has 29 cells and `adata` has 30 with the label 'A'"),
        (adata, ref[::-1].copy(), src, "not the same in the same order"),
        (adata, ref, adata, "the source holds 3 labels"),
        (
            adata,
            *ia.pp.split_sections(adata, library_key="sample", reference="A", source="B"),
            "have no results in common",
        ),
        (foreign, ref, src, r"`obsm\['spatial_aligned'\]` is already there in the whole object"),
    ]
    for target, one, other, message in cases:
        with pytest.raises(ValueError, match=message):
            join(target, (one, other))
    assert "inst_align" not in adata.uns
    with pytest.raises(TypeError, match="`adata` is a"):
        ia.pp.split_sections(adata.obs, library_key="sample", reference="A")
    with pytest.raises(ValueError, match="`reference` and `source` are both 'A'"):
        ia.pp.split_sections(adata, library_key="sample", reference="A", source="A")


def test_a_backed_object_gives_sections_in_memory(tmp_path: Any) -> None:
    whole().write_h5ad(tmp_path / "whole.h5ad")
    adata = ad.read_h5ad(tmp_path / "whole.h5ad", backed="r")
    pair = shifted(adata)
    assert not any(section.isbacked for section in pair)
    join(adata, pair)
    assert np.isfinite(adata.obsm["spatial_aligned"]).all(axis=1).sum() == pair[0].n_obs + pair[1].n_obs
