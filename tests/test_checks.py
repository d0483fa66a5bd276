"""Bad input gets one sentence that names what was found and what to do; odd but good input is simply read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from inst_align import _checks as checks
from inst_align._anndata import check_key_added, read_pair
from inst_align._genes import shared_genes


def section(n: int = 20, n_genes: int = 60, seed: int = 0, prefix: str = "g") -> AnnData:
    rng = np.random.default_rng(seed)
    adata = AnnData(sp.csr_matrix(rng.poisson(2.0, (n, n_genes)).astype(np.float32)))
    adata.var_names = [f"{prefix}{i:03d}" for i in range(n_genes)]
    adata.obs_names = [f"cell{i}" for i in range(n)]
    adata.obsm["spatial"] = rng.random((n, 2)) * 100
    return adata


def is_one_sentence(error: BaseException) -> bool:
    text = str(error.args[0])
    return "\n" not in text and text.endswith(".") and ". " not in text


def with_xy(xy: Any) -> AnnData:
    adata = section(xy.shape[0])
    adata.obsm["spatial"] = xy
    return adata


def with_nan_xy() -> AnnData:
    adata = section()
    adata.obsm["spatial"][[3, 5], 0] = np.nan, np.inf
    return adata


def with_nan_x() -> AnnData:
    adata = section()
    adata.X.data[:4] = np.nan
    return adata


def with_duplicated_genes() -> AnnData:
    adata = section()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        adata.var_names = ["g001", "g001", *adata.var_names[2:]]
    return adata


def with_x(matrix: Any) -> AnnData:
    adata = section()
    adata.X = matrix
    return adata


LINE = np.linspace(0, 1, 20)[:, None] * np.array([[3.0, 4.0]]) + 7
RNG = np.random.default_rng(1)

BAD = {
    "no spatial key": (
        lambda: AnnData(section().X),
        {},
        KeyError,
        r"no `obsm\['spatial'\]` in the source; it has none",
    ),
    "another spatial key": (section, {"spatial_key": "xy"}, KeyError, "'xy'.* it has 'spatial': pass one of these"),
    "one column": (lambda: with_xy(np.ones((20, 1))), {}, ValueError, "has 1 columns; .* x and y"),
    "six columns": (lambda: with_xy(np.ones((20, 6))), {}, ValueError, "of the source has 6 columns"),
    "a third axis": (lambda: with_xy(RNG.random((20, 3))), {}, ValueError, "3 columns, of which the third varies"),
    "sparse coordinates": (lambda: with_xy(sp.csr_matrix(np.eye(20)[:, :2])), {}, ValueError, "is sparse"),
    "words": (lambda: with_xy(np.full((20, 2), "a")), {}, ValueError, "has dtype <U1"),
    "a frame with words": (
        lambda: with_xy(pd.DataFrame({"x": 1.0, "y": "a"}, index=[f"cell{i}" for i in range(20)])),
        {},
        ValueError,
        r"columns that are not numbers \('y'\)",
    ),
    "NaN coordinates": (with_nan_xy, {}, ValueError, r"NaN or infinite in 2 of 20 cells \('cell3', 'cell5'\)"),
    "no cells": (lambda: section(0), {}, ValueError, "`adata_src`: the source has 0 cells, .* at least 10"),
    "nine cells": (lambda: section(9), {}, ValueError, "`adata_src`: the source has 9 cells, .* at least 10"),
    "a line": (lambda: with_xy(LINE), {}, ValueError, "of the 20 cells of the source lie on one line"),
    "a line far off": (lambda: with_xy((LINE + 1e4).astype(np.float32)), {}, ValueError, "lie on one line"),
    "one place": (lambda: with_xy(np.full((20, 2), 0.1)), {}, ValueError, "are all the same"),
    "enormous coordinates": (
        lambda: with_xy(RNG.random((20, 2)) * 1e200),
        {},
        ValueError,
        r"of the 20 cells of the source are as large as 9.*e\+199, .* another unit",
    ),
    "one enormous coordinate": (
        lambda: with_xy(np.vstack([RNG.random((19, 2)), [[0, -1.7e308]]])),
        {},
        ValueError,
        r"are as large as 1.7e\+308",
    ),
    "denormal coordinates": (
        lambda: with_xy(RNG.random((20, 2)) * 1e-300),
        {},
        ValueError,
        "of the 20 cells of the source span 9.*e-301 only, .* another unit",
    ),
    "duplicated genes": (with_duplicated_genes, {}, ValueError, r"source: 1 gene names .*\('g001'\); .*make_unique"),
    "no shared genes": (lambda: section(prefix="h"), {}, ValueError, "reference has 60 .'g000'.* source 60 .'h000'"),
    "NaN in X": (with_nan_x, {}, ValueError, "of the source is NaN or infinite in 4 values, in 4 of 60"),
    "beyond float32": (lambda: with_x(np.full((20, 60), 1e300)), {}, ValueError, "infinite in 1200 values"),
    "negative counts": (lambda: with_x(RNG.normal(size=(20, 60))), {}, ValueError, "source has .* negative values"),
    "no X": (lambda: with_x(None), {}, ValueError, "`X` of the source is None; pass `layer` or `use_rep`"),
    "constant X": (lambda: with_x(np.ones((20, 60))), {}, ValueError, "share 60 genes, but each is the same"),
    "no such layer": (section, {"layer": "raw"}, KeyError, r"no `layers\['raw'\]` in the reference; it has none"),
    "no such representation": (section, {"use_rep": "X_pca"}, KeyError, "`use_rep='X_pca'`.* it has 'spatial'"),
    "layer and representation": (section, {"use_rep": "spatial", "layer": "c"}, ValueError, "exclude each other"),
    "unknown normalize": (section, {"normalize": "log"}, ValueError, "`normalize='log'` is not known"),
    "no genes wanted": (section, {"n_top_genes": 0}, ValueError, "`n_top_genes=0`"),
    "not an AnnData": (lambda: np.ones((20, 2)), {}, TypeError, "`adata_src` is a numpy.ndarray; pass an AnnData"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_sentence(case: str) -> None:
    make, arguments, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        read_pair(section(seed=1), make(), **arguments)
    assert type(caught.value) is error
    assert is_one_sentence(caught.value)


def test_representations_of_different_width_are_refused() -> None:
    ref, src = section(), section()
    ref.obsm["X_pca"], src.obsm["X_pca"] = np.ones((20, 4)), np.ones((20, 5))
    with pytest.raises(ValueError, match="4 columns in the reference and 5 in the source"):
        read_pair(ref, src, use_rep="X_pca")


@pytest.mark.parametrize(
    ("rename", "hint"),
    [
        (str.upper, "60 names match when case is ignored"),
        (lambda gene: f"{gene}.3", "60 names match without their version suffix"),
        (lambda gene: f"ENSMUSG00000{gene[1:]}", "one has Ensembl identifiers and the other symbols"),
        (lambda gene: f"other{gene}", "give both the same kind of gene names"),
    ],
)
def test_no_shared_genes_says_which_renaming_helps(rename: Any, hint: str) -> None:
    ref, src = section(), section()
    src.var_names = [rename(gene) for gene in src.var_names]
    for pair in ((ref, src), (src, ref)):
        with pytest.raises(ValueError, match=hint):
            shared_genes(*pair)


def test_no_shared_genes_finds_the_names_in_a_column_of_var() -> None:
    ref, src = section(), section()
    src.var["symbol"] = src.var_names.to_numpy()
    src.var_names = [f"ENSG{i:011d}" for i in range(60)]
    with pytest.raises(ValueError, match=r"60 names match `var\['symbol'\]` of the source"):
        shared_genes(ref, src)


XY = np.random.default_rng(5).integers(0, 60_000, (20, 2))


@pytest.mark.parametrize(
    "stored",
    [
        XY.astype(np.uint16),
        XY.astype(np.int64),
        XY.astype(np.float32),
        np.asfortranarray(XY.astype(np.float64)),
        np.c_[XY, np.full(20, 7)],
        pd.DataFrame(XY, columns=["x", "y"], index=[f"cell{i}" for i in range(20)]),
        pd.DataFrame(XY, columns=["x", "y"], index=[f"cell{i}" for i in range(20)]).astype("Int64"),
    ],
    ids=["uint16", "int64", "float32", "fortran", "constant z", "frame", "nullable frame"],
)
def test_odd_coordinates_are_read_as_float64(stored: Any) -> None:
    xy = checks.coordinates(with_xy(stored), "spatial", "source")
    assert xy.dtype == np.float64
    assert xy.shape == (20, 2)
    np.testing.assert_array_equal(xy, XY)


def test_coordinates_are_a_copy() -> None:
    adata = section()
    xy = checks.coordinates(adata, "spatial", "source")
    assert not np.shares_memory(xy, adata.obsm["spatial"])
    adata.obsm["spatial"].flags.writeable = False
    checks.coordinates(adata, "spatial", "source")[:] = 0


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e24])
def test_a_section_with_area_passes_in_any_unit(scale: float) -> None:
    xy = np.random.default_rng(0).random((30, 2)) * np.array([100, 1]) * scale + 1e5 * scale
    checks.check_area(xy, "spatial", "reference")


def test_ten_cells_are_enough() -> None:
    assert len(read_pair(section(10), section(10)).ref) == 10


def test_a_gene_that_is_not_shared_may_hold_nan() -> None:
    ref, src = section(), section()
    src.X = src.X.toarray()
    src.X[:, 0] = np.nan
    assert "g000" not in read_pair(ref[:, 1:].copy(), src).genes


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("spatial", "is also `spatial_key`"),
        ("mine", r"`obsm\['mine'\]` is already there in the source and not this package's own"),
        ("a/b", "cannot be a key on disk"),
        ("", "cannot be a key on disk"),
    ],
)
def test_a_key_that_would_destroy_something_is_refused(key: str, message: str) -> None:
    ref, src = section(), section()
    src.obsm["mine"] = np.ones((20, 2))
    with pytest.raises(ValueError, match=message) as caught:
        check_key_added(ref, src, key_added=key, spatial_key="spatial")
    assert is_one_sentence(caught.value)


def test_a_key_of_an_earlier_run_is_free() -> None:
    ref, src = section(), section()
    src.obsm["spatial_aligned"] = np.ones((20, 2))
    src.uns["inst_align"] = {"spatial_aligned": {"version": 1}}
    check_key_added(ref, src, key_added="spatial_aligned", spatial_key="spatial")


def test_records_that_are_not_a_mapping_are_left_alone() -> None:
    ref, src = section(), section()
    ref.uns["inst_align"] = "mine"
    with pytest.raises(ValueError, match=r"`uns\['inst_align'\]` of the reference is a str"):
        check_key_added(ref, src, key_added="spatial_aligned", spatial_key="spatial")


def test_few_genes_warn_at_the_line_of_the_caller() -> None:
    with pytest.warns(UserWarning, match="Only 12 of the 12 genes") as caught:
        read_pair(section(n_genes=12), section(n_genes=12))
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("names", "words"),
    [([], "none"), (["a"], "'a'"), (["a", "b", "c"], "'a', 'b', 'c'"), ("abcde", "'a', 'b', 'c' and 2 more")],
)
def test_long_lists_are_cut(names: Any, words: str) -> None:
    assert checks.listing(names) == words
