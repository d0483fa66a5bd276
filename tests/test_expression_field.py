"""The field that both sections share gives genes by name at any place, and says what it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

import inst_align as ia

if TYPE_CHECKING:
    from pathlib import Path

Aligned = tuple[AnnData, AnnData]


@pytest.fixture(scope="module")
def aligned() -> Aligned:
    ref, src = ia.datasets.toy_pair(n_cells=400, n_genes=100, rng=0)
    ia.tl.align_pair(ref, src, accept="rigid", rng=0, progress=False)
    return ref, src


def logged(adata: AnnData) -> np.ndarray:
    counts = adata.X.toarray()
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * np.median(counts.sum(axis=1)))


def test_it_predicts_what_the_cells_around_a_place_express(aligned: Aligned) -> None:
    ref, src = aligned
    field = ia.get.field(src)
    measured, xy = logged(ref), ref.obsm["spatial"]
    around = measured[cKDTree(xy).query(xy, k=15)[1]].mean(axis=1)
    found = field.predict(xy)[ref.var_names].to_numpy()
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(around.T, found.T, strict=True)]
    assert np.median(correlation) > 0.65
    assert found.min() >= 0
    level = (measured.mean(axis=0) + logged(src).mean(axis=0)) / 2  # the sections differ by factors gene by gene
    assert np.abs(found.mean(axis=0) - level).max() < 0.1


def test_genes_are_found_by_name_in_the_order_asked_for(aligned: Aligned) -> None:
    field, xy = ia.get.field(aligned[1]), aligned[0].obsm["spatial"][:5]
    assert sorted(field.genes) == sorted(aligned[0].var_names)
    every = field.predict(xy)
    some = field.predict(xy, [field.genes[7], field.genes[2]])
    assert list(some.columns) == [field.genes[7], field.genes[2]]
    np.testing.assert_allclose(some, every[some.columns], rtol=1e-5)
    np.testing.assert_allclose(field.predict(xy, str(field.genes[7])), some.iloc[:, :1], rtol=1e-5)


def test_it_survives_a_file(aligned: Aligned, tmp_path: Path) -> None:
    xy = aligned[0].obsm["spatial"][:5]
    aligned[1].write_h5ad(tmp_path / "src.h5ad")
    aligned[1].write_zarr(tmp_path / "src.zarr")
    expected = ia.get.field(aligned[1]).predict(xy)
    for read in (ad.read_h5ad(tmp_path / "src.h5ad"), ad.read_zarr(tmp_path / "src.zarr")):
        found = ia.get.field(read).predict(xy)
        assert list(found.columns) == list(expected.columns)
        np.testing.assert_array_equal(found, expected)


def test_it_says_what_it_does_not_know(aligned: Aligned) -> None:
    field = ia.get.field(aligned[1])
    with pytest.raises(KeyError, match=r"`genes`.*'nonsense'.*100 genes of this field"):
        field.predict([[0.0, 0.0]], ["nonsense"])
    with pytest.raises(ValueError, match=r"`xy`: finite places of shape \(n, 2\)"):
        field.predict([[0.0, np.nan]])
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        field.predict([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="pass the source"):
        ia.get.field(aligned[0])


def test_a_run_without_a_field_or_without_genes_says_so() -> None:
    ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=100, rng=0)
    ia.tl.align_pair(ref, src, accept="rigid", field=False, rng=0, progress=False)
    with pytest.raises(KeyError, match="`field=True`"):
        ia.get.field(src)
    for adata in (ref, src):
        adata.obsm["X_rep"] = logged(adata)[:, :10]
    ia.tl.align_pair(ref, src, accept="rigid", use_rep="X_rep", rng=0, progress=False)
    with pytest.raises(KeyError, match="`use_rep`"):
        ia.get.field(src)


def test_a_run_whose_field_could_not_be_solved_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=100, rng=0)
    monkeypatch.setattr("inst_align.core.fourier._finite_or_none", lambda solve: None)
    with pytest.warns(UserWarning, match="stopped early .field: its equations have no finite solution"):
        ia.tl.align_pair(ref, src, accept="rigid", rng=0, progress=False)
    with pytest.raises(KeyError, match=r"stopped early \(field: .*\) and left no field"):
        ia.get.field(src)


def test_the_plot_covers_the_tissue_and_nothing_else(aligned: Aligned) -> None:
    ref, src = aligned
    gene = ref.var_names[0]
    ax = ia.pl.field(ref, src, gene, ax=Figure().subplots(), n_pixels=60, invert_y=True)
    [image] = ax.images
    values = np.ma.getdata(image.get_array())
    shown = np.isfinite(values)
    assert 0.5 < shown.mean() < 1
    left, right, bottom, top = image.get_extent()
    cells = ref.obsm["spatial"]
    column = ((cells[:, 0] - left) / (right - left) * values.shape[1]).astype(int).clip(0, values.shape[1] - 1)
    row = ((cells[:, 1] - bottom) / (top - bottom) * values.shape[0]).astype(int).clip(0, values.shape[0] - 1)
    assert shown[row, column].mean() > 0.99
    at_cells = ia.get.field(src).predict(cells, gene).to_numpy()[:, 0]
    drawn = values[row, column]
    assert np.corrcoef(at_cells[np.isfinite(drawn)], drawn[np.isfinite(drawn)])[0, 1] > 0.95
    assert ax.yaxis_inverted()
    with pytest.raises(KeyError, match="nonsense"):
        ia.pl.field(ref, src, "nonsense", ax=Figure().subplots())
    plt.close("all")
