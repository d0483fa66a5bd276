"""Rows 21 to 28: what was measured, and in which cells."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scanpy as sc
import scipy.sparse as sp

import inst_align as ia
from benchmarks.inputs.case import Case
from benchmarks.inputs.sections import KEY, N_CELLS, align, expected, must, off_by, pair, quick, same_bits, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


def with_x(change: Callable[[Any], Any], *, both: bool = True) -> tuple[AnnData, AnnData]:
    ref, src = pair()
    for section in (ref, src) if both else (src,):
        section.X = change(section.X)
    return ref, src


def refused(change: Callable[[Any], Any], **arguments: Any) -> str:
    return unchanged(align, *with_x(change, both=False), **arguments)


def renamed(names: Callable[[list[str]], list[str]]) -> tuple[AnnData, AnnData]:
    ref, src = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # AnnData has its own word on repeated names
        src.var_names = names(list(src.var_names))
    return ref, src


def few_genes() -> str:
    ref, src = pair()
    src = align(ref, src[:, :43].copy())
    must(ia.get.params(src)["n_genes"] == 43, "other genes were used")
    return "43 genes were used"


def shuffled_genes() -> str:
    ref, src = pair()
    return same_bits(align(ref, src[:, np.random.default_rng(0).permutation(src.n_vars)].copy()))


def empty_cells() -> str:
    def spoil(matrix: Any) -> Any:
        dense = matrix.toarray()
        dense[[5, 80]] = 0
        return sp.csr_matrix(dense)

    ref, src = with_x(spoil, both=False)
    others = np.setdiff1d(np.arange(N_CELLS), [5, 80])
    fewer = align(ref.copy(), src[others].copy()).obsm[KEY]
    found = align(ref, src).obsm[KEY]
    must(np.array_equal(found[others], fewer), "they took part in the fit")
    must(off_by(found[[5, 80]], expected()[[5, 80]]) < 1, "they were not moved")
    return "moved, but left out of the fit"


def useless_genes() -> str:
    ref, src = pair()
    sections = []
    for section in (ref, src):
        more = ad.AnnData(sp.csr_matrix(np.tile([0.0, 4.0], (section.n_obs, 1)).astype(np.float32)))
        more.var_names, more.obs_names = ["empty", "constant"], section.obs_names
        whole = ad.concat([section, more], axis=1, merge="first")
        whole.obsm["spatial"] = section.obsm["spatial"]
        sections.append(whole)
    return same_bits(align(*sections))


def negative() -> str:
    from inst_align.core.fourier import FieldConfig

    ref, src = with_x(lambda matrix: matrix.toarray() - 1.0)
    align(ref, src, normalize=False, field=True, config=replace(quick(), field=FieldConfig()))
    return "no word"


def log_normalised(section: AnnData) -> None:
    sc.pp.normalize_total(section)
    sc.pp.log1p(section)


def one_logged() -> str:
    ref, src = pair()
    log_normalised(src)
    align(ref, src)
    return "no word"


def one_logged_unmarked() -> str:
    ref, src = pair()
    log_normalised(src)
    del src.uns["log1p"]
    align(ref, src)
    return "no word"


def both_logged_unmarked() -> str:
    ref, src = pair()
    for section in (ref, src):
        log_normalised(section)
        del section.uns["log1p"]
    align(ref, src)
    return "no word"


def nan_in_x(matrix: Any) -> Any:
    matrix = matrix.copy()
    matrix.data[:5] = np.nan
    return matrix


CASES = [
    Case(
        row=21,
        given="no gene in common",
        expect="error",
        run=lambda: unchanged(align, *renamed(lambda g: [f"{n}_b" for n in g])),
    ),
    Case(
        row=21,
        given="genes that differ in case",
        expect="error",
        run=lambda: unchanged(align, *renamed(lambda g: [n.upper() for n in g])),
    ),
    Case(row=22, given="43 genes in common", expect="warning", run=few_genes),
    Case(
        row=23,
        given="a gene name that occurs twice",
        expect="error",
        run=lambda: unchanged(align, *renamed(lambda g: [g[1], *g[1:]])),
    ),
    Case(
        row=23,
        given="gene names with a version suffix",
        expect="error",
        run=lambda: unchanged(align, *renamed(lambda g: [f"{n}.2" for n in g])),
    ),
    Case(row=24, given="genes in another order", expect="handled", run=shuffled_genes),
    Case(row=25, given="cells without any counts", expect="handled", run=empty_cells),
    Case(row=26, given="genes without counts, or the same everywhere", expect="handled", run=useless_genes),
    Case(
        row=27,
        given="negative values taken for counts",
        expect="error",
        run=lambda: refused(lambda m: m.toarray() - 1.0),
    ),
    Case(row=27, given="negative values with `normalize=False`, and a field", expect="warning", run=negative),
    Case(row=27, given='one section with `uns["log1p"]`, the other without', expect="warning", run=one_logged),
    Case(
        row=27,
        given="counts in one section, logarithms without a mark in the other",
        expect="warning",
        run=one_logged_unmarked,
    ),
    Case(row=27, given="logarithms without a mark in both", expect="warning", run=both_logged_unmarked),
    Case(row=28, given="NaN in X", expect="error", run=lambda: refused(nan_in_x)),
]
