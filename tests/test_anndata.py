"""The door: the same values give the same arrays, whatever holds them, and objects change only when results are written."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from inst_align._anndata import Pair, read_pair, write_alignment, write_embedding
from inst_align.core.alignment import Alignment
from inst_align.transforms import Affine

N_GENES = 70


def section(n: int = 40, seed: int = 0, n_genes: int = N_GENES) -> AnnData:
    """Counts with structure: each gene's level follows the place, with depths that differ between cells."""
    rng = np.random.default_rng(seed)
    xy = rng.integers(0, 4096, (n, 2)).astype(np.float64) / 4
    level = np.exp(np.sin(xy / 300 @ rng.normal(size=(2, n_genes))) + rng.normal(size=n_genes) / 2)
    counts = rng.poisson(level * rng.lognormal(0, 0.4, (n, 1))).astype(np.float32)
    adata = AnnData(sp.csr_matrix(counts))
    adata.var_names = [f"g{i}" for i in rng.permutation(n_genes)]
    adata.obs_names = [f"cell{i}" for i in range(n)]
    adata.obsm["spatial"] = xy
    return adata


def pair_of(**arguments: Any) -> tuple[AnnData, AnnData]:
    return section(40, 1, **arguments), section(30, 2, **arguments)


def with_x(adata: AnnData, matrix: Any) -> AnnData:
    return AnnData(matrix, obs=adata.obs, var=adata.var, obsm=dict(adata.obsm))


def float16_csr(matrix: Any) -> Any:
    return sp.csr_matrix((matrix.data.astype(np.float16), matrix.indices, matrix.indptr), shape=matrix.shape)


def unsorted_csr(matrix: Any) -> Any:
    """The same values with every row's entries backwards, split in two where that is possible, and explicit zeros."""
    coo = matrix.tocoo()
    row = np.r_[coo.row, coo.row, coo.row][::-1]
    col = np.r_[coo.col, coo.col, (coo.col + 1) % matrix.shape[1]][::-1]
    data = np.r_[np.ones_like(coo.data), coo.data - 1, np.zeros_like(coo.data)][::-1]
    order = np.argsort(row, kind="stable")
    indptr = np.r_[0, np.cumsum(np.bincount(row, minlength=matrix.shape[0]))]
    return sp.csr_matrix((data[order], col[order], indptr), shape=matrix.shape)


def permuted_genes(adata: AnnData, _: Path) -> AnnData:
    return adata[:, np.random.default_rng(7).permutation(adata.n_vars)].copy()


def view(adata: AnnData, _: Path) -> AnnData:
    bigger = ad.concat([adata, section(15, 9)], join="outer", index_unique="-")
    result = bigger[: adata.n_obs]
    assert result.is_view
    return result


def backed(adata: AnnData, folder: Path) -> AnnData:
    path = folder / f"{adata.n_obs}.h5ad"
    adata.write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


def view_of_backed(adata: AnnData, folder: Path) -> AnnData:
    return backed(ad.concat([adata, section(15, 9)], join="outer", index_unique="-"), folder)[: adata.n_obs]


def data_frame(adata: AnnData, _: Path) -> AnnData:
    adata.obsm["spatial"] = pd.DataFrame(adata.obsm["spatial"], columns=["x", "y"], index=adata.obs_names)
    return adata


def in_layer(adata: AnnData, _: Path) -> AnnData:
    adata.layers["counts"] = adata.X
    adata.X = np.full(adata.shape, np.nan)
    return adata


def extra_genes(adata: AnnData, _: Path) -> AnnData:
    """One gene absent and one constant in this section, and one of its own."""
    more = sp.csr_matrix(np.c_[np.zeros(adata.n_obs), np.full(adata.n_obs, 4.0), np.arange(adata.n_obs)])
    names = [*adata.var_names, "absent", "constant", f"own{adata.n_obs}"]
    return AnnData(
        sp.hstack([adata.X, more], format="csr"), obs=adata.obs, var=pd.DataFrame(index=names), obsm=dict(adata.obsm)
    )


CONTAINERS = {
    "csc": lambda a, _: with_x(a, a.X.tocsc()),
    "csr_array": lambda a, _: with_x(a, sp.csr_array(a.X)),
    "unsorted csr": lambda a, _: with_x(a, unsorted_csr(a.X)),
    "dense": lambda a, _: with_x(a, a.X.toarray()),
    "dense fortran": lambda a, _: with_x(a, np.asfortranarray(a.X.toarray())),
    "int64": lambda a, _: with_x(a, a.X.astype(np.int64)),
    "uint8 dense": lambda a, _: with_x(a, a.X.toarray().astype(np.uint8)),
    "float64": lambda a, _: with_x(a, a.X.astype(np.float64)),
    "float16 dense": lambda a, _: with_x(a, a.X.toarray().astype(np.float16)),
    "float16 csr": lambda a, _: with_x(a, float16_csr(a.X)),
    "view": view,
    "backed csr": backed,
    "backed csc": lambda a, folder: backed(with_x(a, a.X.tocsc()), folder),
    "backed dense": lambda a, folder: backed(with_x(a, a.X.toarray()), folder),
    "view of backed": view_of_backed,
    "frame of coordinates": data_frame,
    "permuted genes": permuted_genes,
    "layer": in_layer,
    "useless genes": extra_genes,
}


def assert_same_expression(found: Any, wanted: Any) -> None:
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, part), getattr(wanted, part))
        assert getattr(found, part).dtype == getattr(wanted, part).dtype


def assert_same(found: Pair, wanted: Pair) -> None:
    assert found.genes == wanted.genes
    assert found.normalized == wanted.normalized
    for one, other in ((found.ref, wanted.ref), (found.src, wanted.src)):
        np.testing.assert_array_equal(one.xy, other.xy)
        assert_same_expression(one.expression, other.expression)


@pytest.fixture(scope="module")
def wanted() -> dict[int | None, Pair]:
    return {n_top_genes: read_pair(*pair_of(), n_top_genes=n_top_genes) for n_top_genes in (None, 30)}


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_same_values_in_another_container_give_the_same_bits(
    container: str, wanted: dict[int | None, Pair], tmp_path: Path
) -> None:
    made = [CONTAINERS[container](adata, tmp_path) for adata in pair_of()]
    assert_same(read_pair(*made, layer="counts" if container == "layer" else None), wanted[None])


@pytest.mark.parametrize("container", ["unsorted csr", "permuted genes", "useless genes"])
def test_the_choice_of_variable_genes_does_not_depend_on_the_container(
    container: str, wanted: dict[int | None, Pair], tmp_path: Path
) -> None:
    made = [CONTAINERS[container](adata, tmp_path) for adata in pair_of()]
    assert_same(read_pair(*made, n_top_genes=30), wanted[30])


def test_a_large_dense_matrix_is_read_in_blocks_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = read_pair(*pair_of())
    monkeypatch.setattr("inst_align._reading.ROWS_AT_ONCE", 7)
    assert_same(read_pair(*(with_x(adata, adata.X.toarray()) for adata in pair_of())), wanted)


def test_binary_values_are_read_as_zero_and_one() -> None:
    ref, src = (with_x(adata, adata.X.astype(bool)) for adata in pair_of())
    as_numbers = (with_x(adata, adata.X.astype(np.float32)) for adata in (ref, src))
    assert_same(read_pair(ref, src), read_pair(*as_numbers))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_permuting_cells_permutes_rows_and_nothing_else(seed: int) -> None:
    assert_equivariant(seed, n_top_genes=None)


def test_permuting_cells_does_not_change_which_genes_are_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equivariant(0, n_top_genes=30)
    monkeypatch.setattr("inst_align._expression.HVG_CELLS", 12)  # chosen on some of the cells, as in large sections
    assert_equivariant(0, n_top_genes=30)


def assert_equivariant(seed: int, n_top_genes: int | None) -> None:
    ref, src = pair_of()
    rng = np.random.default_rng(seed)
    orders = rng.permutation(len(ref)), rng.permutation(len(src))
    wanted = read_pair(ref, src, n_top_genes=n_top_genes)
    found = read_pair(ref[orders[0]].copy(), src[orders[1]].copy(), n_top_genes=n_top_genes)
    assert found.genes == wanted.genes
    for one, other, order in zip((found.ref, found.src), (wanted.ref, wanted.src), orders, strict=True):
        np.testing.assert_array_equal(one.xy, other.xy[order])
        assert_same_expression(one.expression, other.expression[order])


def test_reading_is_symmetric() -> None:
    ref, src = pair_of()
    forth, back = read_pair(ref, src, n_top_genes=30), read_pair(src, ref, n_top_genes=30)
    assert forth.genes == back.genes
    assert_same_expression(forth.ref.expression, back.src.expression)
    assert_same_expression(forth.src.expression, back.ref.expression)


def test_sections_are_what_core_expects() -> None:
    pair = read_pair(*pair_of())
    assert (pair.ref.name, pair.src.name) == ("reference", "source")
    assert pair.genes == tuple(sorted(pair.genes))
    for section_ in (pair.ref, pair.src):
        assert section_.xy.dtype == np.float64
        assert section_.expression.format == "csr"
        assert section_.expression.dtype == np.float32
        assert section_.expression.shape == (len(section_), len(pair.genes))
        assert not section_.is_rep


def test_normalising_agrees_with_its_definition() -> None:
    ref, src = pair_of()
    pair = read_pair(ref, src)
    counts = [adata[:, list(pair.genes)].X.toarray().astype(np.float64) for adata in (ref, src)]
    total = np.median(np.concatenate([each.sum(axis=1) for each in counts]))
    for each, found in zip(counts, (pair.ref, pair.src), strict=True):
        wanted = np.log1p(each / each.sum(axis=1, keepdims=True) * total)
        np.testing.assert_allclose(found.expression.toarray(), wanted, rtol=1e-5)
    assert pair.normalized == {"reference": True, "source": True}


def test_sequencing_depth_cancels() -> None:
    ref, _ = pair_of()
    deeper = with_x(ref, ref.X * 8)
    pair = read_pair(ref, deeper)
    np.testing.assert_allclose(pair.ref.expression.toarray(), pair.src.expression.toarray(), rtol=1e-5)


def log_normalized(adata: AnnData) -> AnnData:
    adata = adata.copy()
    sc.pp.normalize_total(adata, target_sum=100)
    sc.pp.log1p(adata)
    return adata


def test_what_is_marked_as_logarithms_is_taken_as_it_is() -> None:
    ref, src = (log_normalized(adata) for adata in pair_of())
    pair = read_pair(ref, src)
    assert pair.normalized == {"reference": False, "source": False}
    np.testing.assert_array_equal(pair.src.expression.toarray(), src[:, list(pair.genes)].X.toarray())


def test_normalize_overrules_the_mark() -> None:
    ref, src = pair_of()
    wanted = read_pair(ref, src)
    for adata in (ref, src):
        adata.uns["log1p"] = {"base": None}
    assert_same(read_pair(ref, src, normalize=True), wanted)
    taken = read_pair(*pair_of(), normalize=False)
    np.testing.assert_array_equal(taken.ref.expression.toarray(), ref[:, list(taken.genes)].X.toarray())
    assert taken.normalized == {"reference": False, "source": False}


def test_the_decision_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="inst_align"):
        read_pair(*pair_of(), n_top_genes=30)
        read_pair(*pair_of(), normalize=False)
    first, chosen, second = (record.message for record in caplog.records)
    assert first.startswith("log-normalised the reference and the source to a total of ")
    assert chosen == "kept the 30 most variable of 70 shared genes"
    assert second == "took the expression of the reference and the source as it is"


def test_one_logged_and_one_raw_section_warn() -> None:
    ref, src = pair_of()
    with pytest.warns(UserWarning, match="The source says .* log-normalised and the reference does not"):
        pair = read_pair(ref, log_normalized(src))
    assert pair.normalized == {"reference": True, "source": False}


def test_logarithms_without_a_mark_beside_counts_warn() -> None:
    ref, src = pair_of()
    src = log_normalized(src)
    del src.uns["log1p"]
    with pytest.warns(UserWarning, match="The reference holds whole numbers in `X` and the source does not"):
        read_pair(ref, src)


def test_counts_in_a_layer_of_a_logged_object_warn() -> None:
    ref, src = pair_of()
    for adata in (ref, src):
        adata.layers["counts"] = adata.X.copy()
        sc.pp.log1p(adata)
    with pytest.warns(
        UserWarning,
        match=r"reference and the source .* `layers\['counts'\]` holds whole numbers; pass `normalize=True`",
    ):
        read_pair(ref, src, layer="counts")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(read_pair(ref, src, layer="counts", normalize=True), read_pair(*pair_of()))


def test_cells_without_counts_are_left_out_of_the_fit_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    ref, src = pair_of()
    dense = src.X.toarray()
    dense[[0, 7]] = 0
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, logger="inst_align"):
        warnings.simplefilter("error")
        pair = read_pair(ref, with_x(src, dense), n_top_genes=30)
    others = np.setdiff1d(np.arange(src.n_obs), [0, 7])
    assert_same(pair, read_pair(ref, src[others].copy(), n_top_genes=30))
    assert np.flatnonzero(~pair.cells[1].fitted).tolist() == [0, 7]
    np.testing.assert_array_equal(pair.cells[1].xy, src.obsm["spatial"])
    assert "2 of 30 cells of the source have no expression in the shared genes" in caplog.text


def test_the_genes_that_vary_most_in_both_sections_are_kept() -> None:
    rng = np.random.default_rng(0)
    level = rng.uniform(1, 8, 200)
    pair = []
    for seed in (1, 2):
        adata = section(300, seed, n_genes=200)
        adata.var_names = [f"g{i}" for i in range(200)]
        factor = np.ones((300, 200))
        factor[:, :8] = rng.gamma(1.0, 1.0, (300, 8))
        adata.X = rng.poisson(level * factor).astype(np.float32)
        pair.append(adata)
    assert {f"g{i}" for i in range(8)} < set(read_pair(*pair, n_top_genes=20).genes)


@pytest.mark.parametrize("factor", [1e3, -1.0], ids=["too large", "negative"])
def test_values_that_are_no_logarithms_keep_all_genes(factor: float) -> None:
    ref, src = (with_x(adata, adata.X * factor) for adata in pair_of())
    assert len(read_pair(ref, src, normalize=False, n_top_genes=30).genes) == N_GENES


def test_a_representation_is_taken_as_it_is() -> None:
    ref, src = pair_of()
    for adata in (ref, src):
        adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(len(adata), 4))
        adata.X = None
    pair = read_pair(ref, src, use_rep="X_pca")
    assert pair.genes is None
    assert pair.normalized == {"reference": False, "source": False}
    for adata, section_ in ((ref, pair.ref), (src, pair.src)):
        assert section_.is_rep
        assert section_.expression.dtype == np.float32
        np.testing.assert_array_equal(section_.expression, adata.obsm["X_pca"].astype(np.float32))
        assert not np.shares_memory(section_.expression, adata.obsm["X_pca"])


def fingerprint(adata: AnnData) -> str:
    """Digest of every value in an object, and of how X is stored."""
    digest = hashlib.sha256()
    for matrix in (adata.X, *adata.layers.values(), *adata.obsm.values()):
        for part in (matrix.data, matrix.indices, matrix.indptr) if sp.issparse(matrix) else (np.asarray(matrix),):
            digest.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
    words = [list(adata.layers), list(adata.obsm), adata.uns, adata.obs.to_csv(), adata.var.to_csv()]
    return digest.hexdigest() + repr(words)


@pytest.mark.parametrize("container", ["csc", "dense", "float64", "unsorted csr", "layer"])
def test_reading_leaves_the_objects_as_they_were(container: str, tmp_path: Path) -> None:
    ref, src = (CONTAINERS[container](adata, tmp_path) for adata in pair_of())
    before = fingerprint(ref), fingerprint(src)
    pair = read_pair(ref, src, layer="counts" if container == "layer" else None, n_top_genes=30)
    pair.ref.expression.data[:] = 0
    pair.ref.xy[:] = 0
    assert (fingerprint(ref), fingerprint(src)) == before


def test_reading_takes_values_that_may_not_be_written_to() -> None:
    ref, src = pair_of()
    for adata in (ref, src):
        for array in (adata.X.data, adata.X.indices, adata.X.indptr, adata.obsm["spatial"]):
            array.flags.writeable = False
    assert_same(read_pair(ref, src), read_pair(*pair_of()))


def test_a_section_can_be_read_against_itself() -> None:
    ref, _ = pair_of()
    pair = read_pair(ref, ref)
    np.testing.assert_array_equal(pair.ref.xy, pair.src.xy)
    assert not np.shares_memory(pair.ref.xy, pair.src.xy)
    assert_same_expression(pair.ref.expression, pair.src.expression)
    assert not np.shares_memory(pair.ref.expression.data, pair.src.expression.data)


SHIFT = Affine(np.array([[1.0, 0.0, 5.0], [0.0, 1.0, -2.0], [0.0, 0.0, 1.0]]))


def write(ref: AnnData, src: AnnData, key: str = "spatial_rigid", **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "key_added": key,
        "spatial_key": "spatial",
        "params": {"rng": 0},
        "alignment": Alignment(affine=SHIFT, transform=SHIFT, report={"overlap": 1.0}),
        "xy_aligned": SHIFT(np.asarray(src.obsm["spatial"])),
    }
    write_alignment(ref, src, **(arguments | changes))


def test_writing_puts_coordinates_in_both_sections_and_nothing_else_changes() -> None:
    ref, src = pair_of()
    before = [adata.copy() for adata in (ref, src)]
    aligned = SHIFT(src.obsm["spatial"])
    write(ref, src, xy_aligned=aligned)
    np.testing.assert_array_equal(ref.obsm["spatial_rigid"], ref.obsm["spatial"])
    np.testing.assert_array_equal(src.obsm["spatial_rigid"], src.obsm["spatial"] + [5, -2])
    assert not np.shares_memory(ref.obsm["spatial_rigid"], ref.obsm["spatial"])
    assert not np.shares_memory(src.obsm["spatial_rigid"], aligned)
    for adata, old in zip((ref, src), before, strict=True):
        assert adata.obsm["spatial_rigid"].dtype == np.float64
        del adata.obsm["spatial_rigid"], adata.uns["inst_align"]
        assert fingerprint(adata) == fingerprint(old)


def test_a_second_key_joins_the_first() -> None:
    ref, src = pair_of()
    write(ref, src)
    first = src.uns["inst_align"]["spatial_rigid"]
    write(ref, src, "spatial_aligned")
    write_embedding(ref, src, key_added="X_inst", z_ref=np.ones((40, 3)), z_src=np.zeros((30, 3)), params={})
    for adata in (ref, src):
        assert set(adata.uns["inst_align"]) == {"spatial_rigid", "spatial_aligned", "X_inst"}
    assert src.uns["inst_align"]["spatial_rigid"] is first
    assert ref.obsm["X_inst"].shape == (40, 3)


def test_own_results_are_overwritten_and_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ref, src = pair_of()
    with caplog.at_level(logging.INFO, logger="inst_align"):
        write(ref, src)
        assert not caplog.records
        write(ref, src, params={"rng": 1})
    assert [record.message for record in caplog.records] == [
        "overwriting the results of an earlier run under 'spatial_rigid'"
    ]
    assert src.uns["inst_align"]["spatial_rigid"]["params"] == {"rng": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "mine"},
        {"key": "spatial"},
        {"xy_aligned": np.full((30, 2), np.nan)},
        {"xy_aligned": np.ones((29, 2))},
        {"params": {"bad": object()}},
    ],
)
def test_a_write_that_fails_leaves_no_trace(changes: dict[str, Any]) -> None:
    ref, src = pair_of()
    src.obsm["mine"] = np.ones((30, 2))
    before = fingerprint(ref), fingerprint(src)
    with pytest.raises((ValueError, TypeError)):
        write(ref, src, **changes)
    assert (fingerprint(ref), fingerprint(src)) == before


def test_an_embedding_with_other_rows_is_refused() -> None:
    ref, src = pair_of()
    with pytest.raises(ValueError, match="40 and 40 rows for 40 and 30 cells"):
        write_embedding(ref, src, key_added="X_inst", z_ref=np.ones((40, 3)), z_src=np.ones((40, 3)), params={})
    assert "X_inst" not in ref.obsm


def test_a_view_becomes_actual_and_its_parent_stays() -> None:
    ref, src = pair_of()
    parent = src.copy()
    parent.uns["inst_align"] = {"other": {"version": 1}}
    before = fingerprint(parent)
    part = parent[5:25]
    with pytest.warns(ad.ImplicitModificationWarning):
        write(ref, part)
    assert not part.is_view
    assert part.obsm["spatial_rigid"].shape == (20, 2)
    assert set(part.uns["inst_align"]) == {"other", "spatial_rigid"}
    assert type(part.uns["inst_align"]["other"]) is dict
    assert fingerprint(parent) == before


def test_a_file_is_not_written_to(tmp_path: Path) -> None:
    ref, src = (backed(adata, tmp_path) for adata in pair_of())
    content = [Path(adata.filename).read_bytes() for adata in (ref, src)]
    write(ref, src)
    assert ref.isbacked
    assert "spatial_rigid" in src.obsm
    assert [Path(adata.filename).read_bytes() for adata in (ref, src)] == content


def test_a_view_of_a_file_says_what_to_do(tmp_path: Path) -> None:
    ref, src = pair_of()
    with pytest.raises(ValueError, match=r"the source is a view of a file, .*to_memory\(\)"):
        write(ref, backed(src, tmp_path)[:20])


def test_one_object_as_both_sections_keeps_the_map() -> None:
    ref, _ = pair_of()
    write(ref, ref)
    assert ref.uns["inst_align"]["spatial_rigid"]["role"] == "source"
    np.testing.assert_array_equal(ref.obsm["spatial_rigid"], ref.obsm["spatial"] + [5, -2])


def test_sections_that_share_a_dictionary_get_records_of_their_own() -> None:
    ref, src = pair_of()
    shared: dict[str, Any] = {}
    ref.uns["inst_align"] = src.uns["inst_align"] = shared
    write(ref, src)
    assert [adata.uns["inst_align"]["spatial_rigid"]["role"] for adata in (ref, src)] == ["reference", "source"]
    assert shared == {}
