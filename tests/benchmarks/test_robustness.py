"""The benchmark of sameness tells same from different, and its report counts what it was given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.sparse as sp
from benchmarks.accuracy.pairs import Pair
from benchmarks.robustness import __main__ as program
from benchmarks.robustness import forms, repeats
from benchmarks.robustness.report import markdown
from benchmarks.robustness.rows import KEY, Row, compared

import inst_align as ia

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

ROW = Row(part="forms", pair="toy", case="CSC", bits=True, median=0.0, largest=0.0, limit=0.0)


@pytest.fixture
def small() -> Pair:
    ref, src = ia.datasets.toy_pair(n_cells=60, n_genes=20, rng=0)
    return Pair(
        kind="made", name="small", level="easy", seed=0, ref=ref, src=src, xy_true=np.array(src.obsm["spatial_true"])
    )


def test_distances_are_in_neighbour_distances_and_bits_are_bits(small: Pair) -> None:
    xy = small.src.obsm["spatial"]
    unit = ia.metrics.spacing(small.ref.obsm["spatial"])
    row = compared("forms", "small", "moved", xy + [0.0, 3 * unit], xy, small.ref, limit=2.0)
    assert (row.median, row.largest) == (pytest.approx(3), pytest.approx(3))
    assert not row.bits
    assert not row.holds
    assert replace(row, limit=4.0).holds
    assert replace(row, limit=float("nan")).holds
    assert compared("forms", "small", "same", xy.copy(), xy, small.ref, limit=0.0).bits


def test_every_form_holds_the_same_numbers_in_another_way() -> None:
    ref, src = forms.pair()
    for name, change in forms.MATRICES.items():
        changed = change(src.X)
        if name == "dask, sparse blocks":  # which dask cannot put together
            assert (changed.shape, changed.dtype) == (src.X.shape, src.X.dtype)
            continue
        values = changed.compute() if hasattr(changed, "compute") else changed
        dense = values.astype(np.float64).toarray() if sp.issparse(values) else np.asarray(values)
        np.testing.assert_array_equal(dense, src.X.toarray())
        assert type(changed) is not type(src.X) or changed.dtype != src.X.dtype
    for change in forms.COORDINATES.values():
        ref, src = forms.with_coordinates(change)
        np.testing.assert_array_equal(np.asarray(src.obsm["spatial"])[:, :2], forms.pair()[1].obsm["spatial"])


def test_a_change_is_undone_so_that_a_method_that_ignores_it_has_no_deviation(
    small: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def placed(pair: Pair, ref: AnnData, src: AnnData) -> np.ndarray:
        """Move the source to the reference's centre: right in any order, place and unit, and wrong when turned."""
        xy_ref, xy_src = ref.obsm["spatial"], src.obsm["spatial"]
        return xy_src - xy_src.mean(axis=0) + xy_ref.mean(axis=0)

    monkeypatch.setattr(repeats, "placed", placed)
    rows = list(repeats.invariance_rows(small))
    assert [row.case for row in rows] == list(repeats.CHANGES)
    for row in rows:
        assert row.holds == ("turned" not in row.case), row
        assert (row.median > 1) == ("turned" in row.case)


def test_seeds_are_compared_with_their_mean_and_with_the_truth(small: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = ia.metrics.spacing(small.ref.obsm["spatial"])
    assert small.xy_true is not None
    truth = small.xy_true
    monkeypatch.setattr(repeats, "placed", lambda *_, seed, field: truth + [seed * unit, 0.0])
    rows = list(repeats.seed_rows(small))
    assert [row.error for row in rows] == pytest.approx([0, 1, 2, 3, 4])
    assert [row.largest for row in rows] == pytest.approx([2, 1, 0, 1, 2])
    text = markdown(rows)
    assert "| small | 5 | 1.000 | 2.00 | 2.000 | 1.414 |" in text


def test_the_report_counts_what_holds_and_names_what_does_not() -> None:
    bad = replace(ROW, case="float16", bits=False, median=0.1, largest=0.7)
    text = markdown([ROW, bad, replace(ROW, part="seeds", case="seed 0", limit=float("nan"), error=0.5)])
    assert "| Forms of the input | 2 | 1 | 0.7 | 1 of 2 |" in text
    assert "| Seeds | 1 | 1 | 0 | nothing promised |" in text
    assert "| toy | float16 | no | 0.1 | 0.7 | no: largest above 0 |" in text
    assert "Killed and resumed" not in text


def test_the_program_writes_both_files_and_fails_if_a_promise_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "form_rows", lambda: iter([ROW]))
    assert program.main(["--parts", "forms", "--out", str(tmp_path)]) == 0
    assert re.search(r"forms,toy,CSC,True,0,0,0,largest", (tmp_path / "robustness.csv").read_text())
    assert (tmp_path / "robustness.md").read_text().startswith("# Robustness\n")
    monkeypatch.setattr(program, "form_rows", lambda: iter([replace(ROW, largest=1.0)]))
    assert program.main(["--parts", "forms", "--out", str(tmp_path)]) == 1


def test_one_form_is_aligned_to_the_same_bits() -> None:
    row = next(forms.form_rows())
    assert row.bits
    assert row.holds
    assert KEY == forms.KEY


@pytest.mark.parametrize("lazily", [False, True])
def test_in_a_zarr_store_expression_stays_there_until_it_is_read(lazily: bool) -> None:
    with forms.in_zarr(lambda matrix: matrix, lazily=lazily) as (_, src):
        assert type(src.X).__module__.split(".")[0] == ("dask" if lazily else "anndata")
        read = src.X.compute() if lazily else src.X.to_memory()
        np.testing.assert_array_equal(read.toarray(), forms.pair()[1].X.toarray())
